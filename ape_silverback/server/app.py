"""The cluster's HTTP surface. What travels is defined in ``cluster/types.py``.

No postponed annotations here: FastAPI reads those of functions that are made inside functions.
"""

import hmac
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Protocol
from uuid import UUID

from ape.logging import LogLevel
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import APIKeyCookie, APIKeyHeader
from pydantic import AfterValidator, BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request

from ape_silverback.cluster.types import (
    BotInfo,
    ClusterConfiguration,
    ClusterHealth,
    RegistryCredentialsInfo,
    ResourceStatus,
    ServiceHealth,
    VariableGroupInfo,
)
from ape_silverback.server.database import NameTakenError
from ape_silverback.server.logs import Filter, stream
from ape_silverback.server.runtimes import ImageError
from ape_silverback.server.store import BotRecord, CredentialRecord, GroupRecord
from ape_silverback.server.supervisor import BusyError, Supervisor
from ape_silverback.version import __version__

NO_CHANGE = "<no-change>"
SESSION = "session"
"""Name of the platform's cookie."""

CONTRACT = re.compile(r"SILVERBACK_\w+")
"""Variables that a bot gets from its configuration, which a group must not set."""


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError("expected at most 63 letters, digits, '-', '_' and '.'")
    return value


def _variables(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"'{name}' is no name of a variable")
        if CONTRACT.fullmatch(name):
            raise ValueError(f"'{name}' is set by the cluster")
    return values


Name = Annotated[str, AfterValidator(_name)]
Values = Annotated[dict[str, str], AfterValidator(_variables)]
Changes = Annotated[dict[str, str | None], AfterValidator(_variables)]


class NewBot(BaseModel):
    """Body of ``POST /bots``."""

    name: Name
    image: str
    ecosystem: str
    network: str
    provider: str
    account: str | None = None
    environment: list[str] = Field(default_factory=list)
    credential_name: str | None = None
    cluster_access: bool = False


class BotChanges(BaseModel):
    """Body of ``PATCH /bots/{id}``: null keeps a value, but clears account and credential_name."""

    name: Name | None = None
    image: str | None = None
    ecosystem: str | None = None
    network: str | None = None
    provider: str | None = None
    account: str | None = NO_CHANGE
    environment: list[str] | None = None
    credential_name: str | None = NO_CHANGE
    cluster_access: bool | None = None


class GroupChanges(BaseModel):
    """Body of ``PATCH /vars/{id}``: null removes a variable."""

    variables: Changes


class NewCredential(BaseModel):
    """Body of ``POST /credentials``."""

    name: Name
    hostname: str
    email: str
    username: str
    password: str


class CredentialChanges(BaseModel):
    """Body of ``PATCH /credentials/{name}``: null keeps a value."""

    hostname: str | None = None
    email: str | None = None
    username: str | None = None
    password: str | None = None


class Service(Protocol):
    """What begins and ends with the server."""

    def begin(self) -> None:
        """Begin."""

    def end(self) -> None:
        """End."""


def make_app(
    supervisor: Supervisor,
    api_key: str,
    on_start: Callable[[], None] = lambda: None,
    *,
    beside: Sequence[Service] = (),
    session: str | None = None,
    configuration: ClusterConfiguration | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        supervisor: of the bots; begun and ended with the application, unless it is a part of another one.
        api_key: what a request has to bring as ``X-API-Key``.
        on_start: called when the bots are taken up.
        beside: what begins after the bots and ends before them, likewise.
        session: what a request may bring instead of the key, as the cookie ``session``.
        configuration: what is paid for; None for a cluster that hosts itself.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services = (supervisor, *beside)
        for service in services:
            service.begin()
        on_start()
        yield
        for service in reversed(services):
            service.end()

    app = FastAPI(
        title="Silverback local cluster", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    # A page in a browser can make its own name point here; it can't make the browser send another Host.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    header, cookie = APIKeyHeader(name="X-API-Key", auto_error=False), APIKeyCookie(name=SESSION, auto_error=False)

    def authenticate(
        key: Annotated[str | None, Depends(header)], opened: Annotated[str | None, Depends(cookie)]
    ) -> None:
        if not is_same(key, api_key) and not is_same(opened, session):
            raise HTTPException(401, "no or a wrong X-API-Key")

    for router in (_bots(supervisor), _groups(supervisor), _credentials(supervisor)):
        app.include_router(router, dependencies=[Depends(authenticate)])

    @app.get("/health", dependencies=[Depends(authenticate)])
    def health() -> ClusterHealth:
        bots = supervisor.store.bots()
        networks: dict[str, bool] = {}
        for bot in bots:
            if bot.wanted:
                network = f"{bot.configuration['ecosystem']}:{bot.configuration['network']}"
                networks[network] = networks.get(network, True) and _is_healthy(bot).healthy
        return ClusterHealth(
            networks={name: ServiceHealth(healthy=healthy) for name, healthy in networks.items()},
            bots={bot.name: _is_healthy(bot) for bot in bots},
        )

    @app.exception_handler(NameTakenError)
    def name_taken(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the name is taken"}, 409)

    @app.exception_handler(BusyError)
    def busy(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(LookupError)
    def removed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404)

    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        paid = configuration.model_dump() if configuration else None
        schema["info"] |= {"x-config": paid, "x-runtime": supervisor.runtime.name}
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def is_same(given: str | None, wanted: str | None) -> bool:
    """Say whether a secret was given that is wanted, in a time that tells nothing of it."""
    return given is not None and wanted is not None and hmac.compare_digest(given.encode(), wanted.encode())


def _bots(supervisor: Supervisor) -> APIRouter:
    router = APIRouter(prefix="/bots")
    store = supervisor.store

    def found(bot: UUID) -> BotRecord:
        if (record := store.bot(bot)) is None:
            raise HTTPException(404, f"there is no bot {bot}")
        return record

    Bot = Annotated[BotRecord, Depends(found)]  # noqa: N806 - a type

    def credential_ids() -> dict[str, str]:
        return {one.name: one.id for one in store.credentials()}

    def check(configuration: dict[str, Any]) -> None:
        groups = {group.name for group in store.groups()}
        credentials = {name for one in store.credentials() for name in (one.name, one.id)}
        problems = [
            {"loc": ["body", "environment"], "msg": f"there is no variable group '{name}'", "type": "unknown"}
            for name in configuration["environment"]
            if name not in groups
        ]
        if configuration["credential_name"] not in (None, *credentials):
            message = f"there are no credentials '{configuration['credential_name']}'"
            problems.append({"loc": ["body", "credential_name"], "msg": message, "type": "unknown"})
        try:
            supervisor.runtime.check(configuration["image"])
        except ImageError as error:
            problems.append({"loc": ["body", "image"], "msg": str(error), "type": "image"})
        if problems:
            raise HTTPException(422, problems)

    @router.get("")
    def bots() -> list[BotInfo]:
        ids = credential_ids()
        return [_bot_info(bot, ids) for bot in store.bots() if bot.status < ResourceStatus.DEPROVISIONING]

    @router.post("")
    def new_bot(body: NewBot) -> BotInfo:
        configuration = body.model_dump(exclude={"name"})
        check(configuration)
        if any(bot.name == body.name for bot in store.bots()):
            raise HTTPException(409, f"there is a bot '{body.name}' already")
        return _bot_info(supervisor.create(body.name, configuration), credential_ids())

    @router.patch("/{bot}")
    def update_bot(bot: Bot, body: BotChanges) -> BotInfo:
        clearable = {"account", "credential_name"}
        changes = {
            name: value
            for name, value in body.model_dump(exclude={"name"}).items()
            if (value != NO_CHANGE if name in clearable else value is not None)
        }
        configuration = {**bot.configuration, **changes}
        check(configuration)
        store.change_bot(bot.id, body.name or bot.name, configuration)
        return _bot_info(found(bot.id), credential_ids())

    @router.delete("/{bot}")
    def remove_bot(bot: Bot) -> Response:
        supervisor.remove(bot)
        return Response()

    @router.get("/{bot}/status")
    def status(bot: Bot) -> ResourceStatus:
        return bot.status

    @router.get("/{bot}/health")
    def health(bot: Bot) -> ServiceHealth:
        return _is_healthy(bot)

    @router.post("/{bot}/start")
    def start(bot: Bot) -> Response:
        supervisor.start(bot)
        return Response()

    @router.post("/{bot}/stop")
    def stop(bot: Bot) -> Response:
        supervisor.stop(bot)
        return Response()

    @router.get("/{bot}/errors")
    def errors(bot: Bot) -> list[str]:
        return supervisor.errors(bot)

    @router.get("/{bot}/logs")
    def logs(
        bot: Bot,
        log_level: Annotated[str, Query()] = "INFO",
        follow: bool = False,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> StreamingResponse:
        wanted = Filter(_level(log_level), start_time, end_time)
        stays = (lambda: store.bot(bot.id) is not None) if follow else None
        content = stream(supervisor.runtime.log_file(bot.id), wanted, stays)
        return StreamingResponse(content, media_type="application/x-ndjson")

    return router


def _groups(supervisor: Supervisor) -> APIRouter:
    router = APIRouter(prefix="/vars")
    store = supervisor.store

    def found(group: UUID) -> GroupRecord:
        if (record := store.group(group)) is None:
            raise HTTPException(404, f"there is no variable group {group}")
        return record

    Group = Annotated[GroupRecord, Depends(found)]  # noqa: N806 - a type

    @router.get("")
    def groups() -> list[VariableGroupInfo]:
        return [_group_info(group) for group in store.groups()]

    @router.post("")
    def new_group(name: Annotated[Name, Query()], body: Values) -> VariableGroupInfo:
        if any(group.name == name for group in store.groups()):
            raise HTTPException(409, f"there is a variable group '{name}' already")
        return _group_info(store.add_group(name, body))

    @router.patch("/{group}")
    def update_group(group: Group, body: GroupChanges) -> VariableGroupInfo:
        store.change_group(group.id, body.variables)
        return _group_info(found(group.id))

    @router.delete("/{group}")
    def remove_group(group: Group) -> Response:
        if users := [bot.name for bot in store.bots() if group.name in bot.configuration["environment"]]:
            raise HTTPException(409, f"variable group '{group.name}' is used by {', '.join(users)}")
        store.remove_group(group.id)
        return Response()

    return router


def _credentials(supervisor: Supervisor) -> APIRouter:
    router = APIRouter(prefix="/credentials")
    store = supervisor.store

    def found(name: str) -> CredentialRecord:
        if (record := store.credential(name)) is None:
            raise HTTPException(404, f"there are no credentials '{name}'")
        return record

    Credential = Annotated[CredentialRecord, Depends(found)]  # noqa: N806 - a type

    @router.get("")
    def credentials() -> list[RegistryCredentialsInfo]:
        return [_credential_info(one) for one in store.credentials()]

    @router.post("")
    def new_credential(body: NewCredential) -> RegistryCredentialsInfo:
        if store.credential(body.name):
            raise HTTPException(409, f"there are credentials '{body.name}' already")
        store.add_credential(**body.model_dump())
        return _credential_info(found(body.name))

    @router.patch("/{name}")
    def update_credential(one: Credential, body: CredentialChanges) -> RegistryCredentialsInfo:
        store.change_credential(one.name, body.model_dump())
        return _credential_info(found(one.name))

    @router.delete("/{name}")
    def remove_credential(one: Credential) -> Response:
        using = [bot.name for bot in store.bots() if bot.configuration["credential_name"] in (one.name, one.id)]
        if using:
            raise HTTPException(409, f"credentials '{one.name}' are used by {', '.join(using)}")
        store.remove_credential(one.name)
        return Response()

    return router


def _is_healthy(bot: BotRecord) -> ServiceHealth:
    return ServiceHealth(healthy=bot.status is ResourceStatus.RUNNING)


def _bot_info(bot: BotRecord, credential_ids: Mapping[str, str]) -> BotInfo:
    """Give a bot as the API shows it: credentials are named in a request, and given by id in an answer."""
    name = bot.configuration["credential_name"]
    shown = {**bot.configuration, "credential_name": credential_ids.get(name, name)}
    return BotInfo(id=bot.id, name=bot.name, created=bot.created, task=bot.task, **shown)


def _group_info(group: GroupRecord) -> VariableGroupInfo:
    return VariableGroupInfo(id=group.id, name=group.name, variables=list(group.variables), created=group.created)


def _credential_info(one: CredentialRecord) -> RegistryCredentialsInfo:
    return RegistryCredentialsInfo(
        id=one.id, name=one.name, hostname=one.hostname, created=one.created, updated=one.updated
    )


def _level(text: str) -> int:
    if text.upper() in LogLevel.__members__:
        return int(LogLevel[text.upper()])
    if text.isdecimal():
        return int(text)
    problem = {"loc": ["query", "log_level"], "msg": f"'{text}' is no log level", "type": "value_error"}
    raise HTTPException(422, [problem])
