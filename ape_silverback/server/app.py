"""The application of a cluster: its routes, who may use them, and what begins and ends with it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyCookie, APIKeyHeader
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request

from ape_silverback.cluster.types import ClusterConfiguration
from ape_silverback.server.alerts import Alerts
from ape_silverback.server.authentication import (
    CROSS_SITE,
    NO_KEY,
    READ_ONLY,
    SESSION,
    bearer_key,
    is_cross_site,
    is_same,
    role_of_key,
)
from ape_silverback.server.bounds import BoundedBodies
from ape_silverback.server.dashboard.pages import add_dashboard
from ape_silverback.server.database import NameTakenError
from ape_silverback.server.heartbeats import Heartbeats
from ape_silverback.server.keys import Keys
from ape_silverback.server.lifecycle import BusyError, GoneError
from ape_silverback.server.measurements import MeasuredRequests, Measurements
from ape_silverback.server.routes import (
    RouteModule,
    bots,
    cluster,
    credentials,
    deployments,
    keys,
    metrics,
    nodes,
    variables,
)
from ape_silverback.server.runtimes import EngineError, PlacementError
from ape_silverback.server.store import UnreadableError
from ape_silverback.server.supervisor import Supervisor
from ape_silverback.version import __version__

ROUTES: tuple[RouteModule, ...] = (cluster, bots, variables, credentials, metrics, nodes, keys, deployments)
"""Modules of routes that a cluster serves; what they add to the API of every cluster is announced."""

THREADS = 200
"""Requests that are answered at once, apart from followed logs."""

MOST_PROBLEMS = 50
"""Problems of a request that are told."""

MOST_LETTERS = 300
"""Letters of the text of a problem, or of where it is."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The Host header names another machine"},
    401: {"description": "A missing or invalid X-API-Key"},
    402: {"description": "More than is paid for"},
    403: {"description": "A key that may only read, or a page of another site"},
    404: {"description": "Not found"},
    408: {"description": "The body didn't arrive in time"},
    409: {"description": "The name is taken, the thing is in use, or it is being removed"},
    413: {"description": "The body is too long"},
    422: {"description": "A value can't be used"},
    503: {"description": "The cluster's database can't be used, or the engine that runs its bots doesn't answer"},
}

log = logging.getLogger(__name__)

_header = APIKeyHeader(name="X-API-Key", auto_error=False)
_cookie = APIKeyCookie(name=SESSION, auto_error=False)


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
    alerts: Alerts | None = None,
    expires: Callable[[], float | None] = lambda: None,
    session: str | None = None,
    configuration: ClusterConfiguration | None = None,
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
) -> FastAPI:
    """Make the application.

    Args:
        supervisor: of the bots; begun and ended with the application, unless it is part of another one.
        api_key: what a request has to bring as ``X-API-Key``.
        on_start: called when the bots of the last server were adopted.
        beside: what begins after the bots and ends before them, likewise.
        alerts: notifies people; None for no notifications.
        expires: returns the Unix time up to which the cluster is paid for; None for one that hosts itself.
        session: what a request may bring instead of the key, as the cookie ``session``.
        configuration: what is paid for; None for a cluster that hosts itself.
        hosts: names that a request may call the server by; ``*`` for all.
    """
    measurements = Measurements(supervisor, expires)
    services: tuple[Service, ...] = (
        supervisor,
        measurements,
        Heartbeats(supervisor),
        *([alerts] if alerts else []),
        *beside,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        for service in services:
            service.begin()
        on_start()
        yield
        for service in reversed(services):
            service.end()

    app = FastAPI(
        title="Silverback local cluster", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.supervisor = supervisor
    app.state.api_key = api_key
    app.state.session = session
    app.state.configuration = supervisor.paid = configuration
    app.state.keys = Keys(supervisor.store)
    app.state.measurements = measurements
    app.state.bot_answers = bots.BotAnswers()
    app.state.services = services
    app.state.alerts = alerts
    app.state.expires = expires
    # A page in a browser can make its own name point here; it can't make the browser send another Host.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(MeasuredRequests, histogram=measurements.requests)
    app.add_middleware(BoundedBodies, is_known=_is_known)
    for module in ROUTES:
        app.include_router(module.router, dependencies=[Depends(_authenticate)], responses=REFUSALS)
    add_dashboard(app)
    app.add_api_route("/healthz", _is_up, responses={503: {"description": "It doesn't work"}}, tags=["health"])
    app.add_exception_handler(NameTakenError, _answer(409, "the name is taken"))
    app.add_exception_handler(BusyError, _answer(409))
    app.add_exception_handler(GoneError, _answer(404))
    app.add_exception_handler(PlacementError, _answer(409))
    app.add_exception_handler(EngineError, _answer(503))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(sqlite3.Error, _unwritable)
    app.add_exception_handler(UnreadableError, _answer(409))
    _describe(app, supervisor, configuration)
    return app


def _authenticate(
    request: Request, key: Annotated[str | None, Depends(_header)], opened: Annotated[str | None, Depends(_cookie)]
) -> None:
    state = request.app.state
    key = key or bearer_key(request.headers.get("authorization"))
    request.state.role = "write"
    if role := role_of_key(request.app, key):
        request.state.role = role
        if role == "read" and request.method not in ("GET", "HEAD"):
            raise HTTPException(403, READ_ONLY)
        return
    if not is_same(opened, state.session):
        raise HTTPException(401, NO_KEY)
    if is_cross_site(request.headers):
        raise HTTPException(403, CROSS_SITE)


def _is_up(request: Request) -> JSONResponse:
    """Return whether the server works: nothing more, and without a key."""
    supervisor: Supervisor = request.app.state.supervisor
    try:
        supervisor.store.rows("SELECT 1")
        works = supervisor.is_watching
    except sqlite3.Error:
        works = False
    return JSONResponse({"ok": works}, 200 if works else 503)


def _is_known(request: Request) -> bool:
    """Return whether a request brings something that opens the cluster, or the platform that it is part of."""
    state = request.scope["app"].state
    key = request.headers.get("x-api-key") or bearer_key(request.headers.get("authorization"))
    session = request.cookies.get(SESSION)
    return (
        role_of_key(request.scope["app"], key) is not None
        or is_same(session, state.session)
        or is_same(session, getattr(state, "platform_session", None))
    )


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that can't be: what is wrong, and where, but nothing of what was sent, which can be a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    problems = [
        {
            "loc": [_plain(part) if isinstance(part, str) else part for part in one["loc"]],
            "msg": _plain(one["msg"]),
            "type": one["type"],
        }
        for one in error.errors()[:MOST_PROBLEMS]
    ]
    return JSONResponse({"detail": problems}, 422)


def _plain(text: str) -> str:
    return text.encode("utf8", "replace").decode()[:MOST_LETTERS]


def _unwritable(_: Request, error: Exception) -> JSONResponse:
    log.error("the database can't be used: %s", error)
    return JSONResponse({"detail": f"the cluster's database can't be used: {error}"}, 503)


def _answer(status: int, text: str | None = None) -> Callable[[Request, Exception], JSONResponse]:
    """Make the handler of an error: an answer with its text, or with another one."""

    def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": text or str(error)}, status)

    return answer


def _describe(app: FastAPI, supervisor: Supervisor, configuration: ClusterConfiguration | None) -> None:
    """Announce in ``/openapi.json`` what is paid for, what runs the bots, and what is served beyond the common API."""
    described = app.openapi
    extra = {
        "x-config": configuration.model_dump() if configuration else None,
        "x-cluster-id": str(supervisor.store.id),
        "x-runtime": supervisor.runtime.name,
        "x-extensions": [*(name for module in ROUTES for name in module.EXTENSIONS), "dashboard"],
    }

    def openapi() -> dict[str, Any]:
        schema = described()
        schema["info"] |= extra
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
