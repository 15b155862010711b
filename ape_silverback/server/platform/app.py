"""The platform's HTTP surface: workspaces, their clusters, what pays for them, and each cluster behind its slugs.

No postponed annotations here: FastAPI reads those of functions that are made inside functions.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Response
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyCookie
from pydantic import AfterValidator, BaseModel, BeforeValidator
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ape_silverback.cluster.types import ClusterInfo, ResourceStatus, StreamInfo, WorkspaceInfo
from ape_silverback.server.authentication import CROSS_SITE, SESSION, bearer_key, is_cross_site, is_same, role_of_key
from ape_silverback.server.platform.clusters import Clusters
from ape_silverback.server.platform.payments import Payments
from ape_silverback.server.platform.store import ClusterRecord, PlatformStore
from ape_silverback.version import __version__

VERSIONS = (__version__,)
"""Versions that a cluster can have: what serves it is this package."""

SLUG_SIZE = 63
NAME_SIZE = 100


def _slug(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(rf"[a-z0-9](?:[a-z0-9-]{{0,{SLUG_SIZE - 2}}}[a-z0-9])?", value):
        raise ValueError(f"expected at most {SLUG_SIZE} lowercase letters and digits, with '-' between them")
    return value


def _name(value: str | None) -> str | None:
    if value is not None and (len(value) > NAME_SIZE or not value.isprintable() or not value.strip()):
        raise ValueError(f"expected at most {NAME_SIZE} printable characters")
    return value


# A form has no null: an empty value is one that wasn't given.
_Given = BeforeValidator(lambda value: value or None)


class Names(BaseModel):
    """Form of workspaces and clusters; what isn't given is chosen or stays."""

    name: Annotated[str | None, AfterValidator(_name), _Given] = None
    slug: Annotated[str | None, AfterValidator(_slug), _Given] = None


class Migration(BaseModel):
    """Form of ``PUT /clusters/{id}``: no version is the stable one."""

    version: Annotated[str | None, _Given] = None


class Username(BaseModel):
    """A user, as others see them."""

    username: str


class Token(BaseModel):
    """A token that is accepted for payment."""

    symbol: str
    address: str


def add_platform(app: FastAPI, store: PlatformStore, clusters: Clusters, payments: Payments, session: str) -> None:
    """Serve the platform beside the server's own cluster.

    Args:
        session: what a request has to bring as the cookie ``session``.
    """
    app.state.platform_session = session
    cookie = APIKeyCookie(name=SESSION, auto_error=False)

    def authenticate(request: Request, opened: Annotated[str | None, Depends(cookie)]) -> None:
        if not is_same(opened, session):
            raise HTTPException(401, "missing or invalid session; `ape silverback cluster up` writes this server's")
        if is_cross_site(request.headers):
            raise HTTPException(403, CROSS_SITE)

    for router in (_workspaces(store), _clusters(store), _payments(payments)):
        app.include_router(router, dependencies=[Depends(authenticate)])
    app.mount("/c/{workspace}/{cluster}", _proxy(store, clusters, session))


def _workspaces(store: PlatformStore) -> APIRouter:
    router = APIRouter()
    Found = Annotated[WorkspaceInfo, Depends(_finder(store))]  # noqa: N806 - a type

    @router.get("/workspaces")
    def workspaces() -> list[WorkspaceInfo]:
        return store.workspaces()

    @router.post("/workspaces")
    def new_workspace(body: Annotated[Names, Form()]) -> WorkspaceInfo:
        return store.add_workspace(*_chosen(body, "workspace", {one.slug for one in store.workspaces()}))

    @router.patch("/workspaces/{workspace}")
    def update_workspace(workspace: Found, body: Annotated[Names, Form()]) -> WorkspaceInfo:
        _check_free(body.slug, "workspace", {one.slug for one in store.workspaces() if one != workspace})
        store.change_workspace(workspace.id, body.name or workspace.name, body.slug or workspace.slug)
        return _finder(store)(workspace.id)

    @router.delete("/workspaces/{workspace}")
    def remove_workspace(workspace: Found) -> Response:
        if not store.remove_workspace(workspace.id):
            raise HTTPException(409, f"workspace '{workspace.slug}' still has clusters")
        return Response()

    @router.get("/users/{user}")
    def user(user: UUID) -> Username:
        if user != store.user.id:
            raise HTTPException(404, f"there is no user {user}")
        return Username(username=store.user.name)

    return router


def _clusters(store: PlatformStore) -> APIRouter:
    router = APIRouter()
    Workspace = Annotated[WorkspaceInfo, Depends(_finder(store))]  # noqa: N806 - a type

    def found(workspace: Workspace, cluster: UUID) -> ClusterRecord:
        record = store.cluster(cluster)
        if record is None or record.workspace != workspace.id:
            raise HTTPException(404, f"workspace '{workspace.slug}' has no such cluster")
        return record

    Found = Annotated[ClusterRecord, Depends(found)]  # noqa: N806 - a type

    def slugs(workspace: UUID) -> dict[str, UUID]:
        """Return the slugs that are taken: that of a removed cluster may be used again."""
        records = store.clusters(workspace)
        return {one.info.slug: one.info.id for one in records if one.status is not ResourceStatus.REMOVED}

    @router.get("/clusters")
    def clusters(workspace: Workspace) -> list[ClusterInfo]:
        return [one.info for one in store.clusters(workspace.id)]

    @router.post("/clusters/")
    def new_cluster(workspace: Workspace, body: Annotated[Names, Form()]) -> ClusterInfo:
        return store.add_cluster(workspace.id, *_chosen(body, "cluster", set(slugs(workspace.id)))).info

    @router.patch("/clusters/{cluster}")
    def update_cluster(cluster: Found, body: Annotated[Names, Form()]) -> ClusterInfo:
        _check_there(cluster)
        taken = {slug for slug, one in slugs(cluster.workspace).items() if one != cluster.info.id}
        _check_free(body.slug, "cluster", taken)
        store.rename_cluster(cluster.info.id, body.name or cluster.info.name, body.slug or cluster.info.slug)
        changed = store.cluster(cluster.info.id)
        return changed.info if changed else cluster.info

    @router.put("/clusters/{cluster}")
    def migrate_cluster(cluster: Found, body: Annotated[Migration, Form()]) -> Response:
        version = body.version or VERSIONS[-1]
        if version not in VERSIONS:
            raise HTTPException(
                422, [_problem("version", f"there is no version '{version}'; there is: {', '.join(VERSIONS)}")]
            )
        _check_there(cluster)
        if cluster.status is not ResourceStatus.RUNNING:
            raise HTTPException(
                409, f"cluster '{cluster.info.slug}' isn't running: its state is {cluster.status.name.lower()}"
            )
        store.set_version(cluster.info.id, version)
        return Response()

    @router.get("/clusters/{cluster}/stream")
    def stream(cluster: Found) -> StreamInfo | None:
        return cluster.stream

    @router.get("/versions")
    def versions() -> list[str]:
        return list(VERSIONS)

    return router


def _payments(payments: Payments) -> APIRouter:
    router = APIRouter(prefix="/streams")

    def check(chain_id: int) -> None:
        if chain_id != payments.chain_id:
            raise HTTPException(404, f"clusters are paid for on chain {payments.chain_id}, not on chain {chain_id}")

    @router.get("/manager/{chain_id}", dependencies=[Depends(check)])
    def manager() -> str:
        return payments.manager

    @router.get("/tokens/{chain_id}", dependencies=[Depends(check)])
    def tokens() -> list[Token]:
        return [Token(symbol=symbol, address=address) for symbol, address in payments.tokens.items()]

    return router


def _proxy(store: PlatformStore, clusters: Clusters, session: str) -> ASGIApp:
    """Return the application that leads a request to the cluster that its slugs name.

    To strangers all paths are alike, so that they don't learn which clusters there are.
    """

    async def lead(scope: Scope, receive: Receive, send: Send) -> None:
        slugs: dict[str, str] = scope["path_params"]
        record = store.cluster_at(slugs["workspace"], slugs["cluster"])
        app = clusters.app_of(record.info.id) if record and record.status is ResourceStatus.RUNNING else None
        request = Request(scope)
        key = request.headers.get("x-api-key") or bearer_key(request.headers.get("authorization"))
        has_key = app is not None and role_of_key(app, key) is not None
        if not has_key and not is_same(request.cookies.get(SESSION), session):
            await JSONResponse({"detail": "missing or invalid session"}, 401)(scope, receive, send)
        elif app is not None:
            await app(scope, receive, send)
        else:
            status, text = _absence(record, f"{slugs['workspace']}/{slugs['cluster']}")
            await JSONResponse({"detail": text}, status)(scope, receive, send)

    return lead


def _absence(record: ClusterRecord | None, path: str) -> tuple[int, str]:
    """Return why a cluster isn't served: status and text."""
    if record is None:
        return 404, f"there is no cluster {path}"
    if record.status is ResourceStatus.CREATED:
        return 409, f"cluster {path} isn't paid for yet"
    if record.status is ResourceStatus.REMOVED:
        return 404, f"cluster {path} is gone: its payment stream ran out or was cancelled"
    return 409, f"cluster {path} can't be used now: its state is {record.status.name.lower()}"


def _finder(store: PlatformStore) -> Callable[[UUID], WorkspaceInfo]:
    def found(workspace: UUID) -> WorkspaceInfo:
        if (info := store.workspace(workspace)) is None:
            raise HTTPException(404, f"there is no workspace {workspace}")
        return info

    return found


def _chosen(given: Names, kind: str, taken: set[str]) -> tuple[str, str]:
    """Return name and slug of something new: what isn't given is made from the other one, or numbered."""
    if given.name is None and given.slug is None:
        numbered = (kind if number == 1 else f"{kind}-{number}" for number in itertools.count(1))
        slug = next(one for one in numbered if one not in taken)
        return slug, slug
    slug = given.slug or slug_of(str(given.name))
    if not slug:
        raise HTTPException(422, [_problem("slug", f"no slug can be made from the name '{given.name}'; give one")])
    _check_free(slug, kind, taken)
    return given.name or slug, slug


def slug_of(name: str) -> str:
    """Make a slug from a name; empty for a name without letters and digits of the Latin script."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_SIZE].strip("-")


def _check_free(slug: str | None, kind: str, taken: set[str]) -> None:
    if slug in taken:
        raise HTTPException(409, f"there is already a {kind} '{slug}'")


def _check_there(cluster: ClusterRecord) -> None:
    if cluster.status is ResourceStatus.REMOVED:
        raise HTTPException(409, f"cluster '{cluster.info.slug}' is gone")


def _problem(field: str, text: str) -> dict[str, object]:
    return {"loc": ["body", field], "msg": text, "type": "value_error"}
