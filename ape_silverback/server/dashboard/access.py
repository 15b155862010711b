"""Who may see and do what: logging in by a key or a one-time link, and what each page depends on."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.server.authentication import (
    NO_KEY,
    READ_ONLY,
    SESSION,
    Grant,
    Role,
    grant_of_key,
    is_cross_site,
    is_same,
)
from ape_silverback.server.dashboard.rendering import SECURITY_HEADERS, page, root_of
from ape_silverback.server.dashboard.sessions import COOKIE, SESSION_LIFE, is_valid, role_of
from ape_silverback.server.routes import TheStore
from ape_silverback.server.store import BotRecord

router = APIRouter(include_in_schema=False)


class LoginNeeded(Exception):
    """Somebody who isn't logged in asked for a page."""


def ask_for_login(request: Request, _: Exception) -> Response:
    """Answer somebody who isn't logged in."""
    if request.headers.get("HX-Request") or "text/event-stream" in request.headers.get("accept", ""):
        return Response(status_code=401, headers={"HX-Refresh": "true"})
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{root_of(request)}/ui/login?next={quote(wanted)}", 303)


def _viewer(request: Request) -> Role:
    if (role := role_of(request)) is None:
        raise LoginNeeded
    return role


Viewer = Annotated[Role, Depends(_viewer)]
"""What somebody may do who is logged in; everybody else is asked to log in."""


def _writer(role: Viewer) -> None:
    if role != "write":
        raise HTTPException(403, READ_ONLY)


Writer = Depends(_writer)
"""Refuses those who may only look."""


def _same_origin(request: Request) -> None:
    if is_cross_site(request.headers):
        raise HTTPException(403, "the request was sent from another site")


SameOrigin = Depends(_same_origin)
"""Refuses what another site sends: the cookie is ``SameSite=Strict``, and this holds where that isn't kept."""


def _bot(bot: UUID, store: TheStore) -> BotRecord:
    record = store.bot(bot)
    if record is None or record.status >= ResourceStatus.DEPROVISIONING:
        raise HTTPException(404, "the bot isn't on this cluster")
    return record


Bot = Annotated[BotRecord, Depends(_bot)]
"""The bot that a path names."""


@router.get("/ui/links")
def new_link(request: Request) -> JSONResponse:
    """Return the path of a one-time link for who has a key; `ape silverback cluster open` opens it."""
    grant = grant_of_key(request.app, request.headers.get("x-api-key"))
    if grant is None and is_same(request.cookies.get(SESSION), request.app.state.session):
        grant = Grant("write")
    if grant is None:
        raise HTTPException(401, NO_KEY)
    return JSONResponse({"path": f"/ui/link/{request.app.state.dashboard.new_link(grant)}"})


@router.get("/ui/link/{token}")
def open_link(request: Request, token: str) -> Response:
    """Log in with a one-time link."""
    grant = request.app.state.dashboard.use_link(token)
    if grant is None or not is_valid(request, grant):
        return page(request, None, "login.html", status=401, next="/", problem="This link was used or is too old.")
    return _logged_in(request, grant, "/")


@router.get("/ui/login")
def login_page(request: Request, next_: Annotated[str, Query(alias="next")] = "/") -> Response:
    """Show the form to log in."""
    return page(request, None, "login.html", next=_local(next_), problem=None)


@router.post("/ui/login", dependencies=[SameOrigin])
def log_in(request: Request, key: Annotated[str, Form()], next_: Annotated[str, Form(alias="next")] = "/") -> Response:
    """Log in with a key."""
    grant = grant_of_key(request.app, key.strip())
    if grant is None:
        problem = "This isn't a key of this cluster."
        return page(request, None, "login.html", status=401, next=_local(next_), problem=problem)
    return _logged_in(request, grant, _local(next_))


@router.post("/ui/logout", dependencies=[SameOrigin])
def log_out(request: Request) -> Response:
    """Log out."""
    request.app.state.dashboard.close(request.cookies.get(COOKIE, ""))
    response = RedirectResponse(f"{root_of(request)}/ui/login", 303)
    response.delete_cookie(COOKIE, path=root_of(request) or "/")
    return response


def _logged_in(request: Request, grant: Grant, then: str) -> Response:
    root = root_of(request)
    response = RedirectResponse(then if root and then.startswith(root) else f"{root}{then}", 303, SECURITY_HEADERS)
    response.set_cookie(
        COOKIE,
        request.app.state.dashboard.open(grant),
        max_age=int(SESSION_LIFE),
        path=root or "/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _local(path: str) -> str:
    """Return a path of this server to go on to; ``/`` for one that leads elsewhere."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
