"""The pages of the dashboard. They show what the API tells, and do nothing that the API doesn't do."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from ape.logging import LogLevel
from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool

from ape_silverback.cluster.bot_errors import count_errors
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.server.authentication import SESSION, Role, is_cross_site, is_same, role_of_key
from ape_silverback.server.dashboard.charts import Chart, charts_of
from ape_silverback.server.dashboard.deployments import deployments_of
from ape_silverback.server.dashboard.sessions import COOKIE, SESSION_LIFE, Sessions
from ape_silverback.server.lifecycle import BusyError, GoneError
from ape_silverback.server.logs import Filter, stream
from ape_silverback.server.metrics import read_results
from ape_silverback.server.overview import BotOverview, overview, overview_of
from ape_silverback.server.routes import TheStore, TheSupervisor
from ape_silverback.server.store import BotRecord
from ape_silverback.server.supervisor import Supervisor

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFRESH = 1.0
"""Seconds between two looks for something new to show."""

KEEP_ALIVE = 15.0
"""Seconds after which a stream sends something though there is nothing new, so that a lost reader is noticed."""

LOG_BEGINS = timedelta(hours=1)
"""How far back a page's log goes, before it is live."""

MARK_CONTEXT = timedelta(minutes=1)
"""How far before a linked line the log begins."""

CHART_TIME = timedelta(hours=1)

TIMELINE = 100
"""Events of a bot that are shown, the latest ones."""

OPTIONAL_COLUMNS = ("started_at", "heartbeat_at", "lag", "account", "restarts", "last_error")
"""Columns of the table of bots that are left out where no bot has anything to show in them."""

Action = Literal["start", "stop", "restart"]

router = APIRouter(include_in_schema=False)


class LoginNeeded(Exception):
    """Somebody who isn't logged in asked for a page."""


def add_dashboard(app: FastAPI) -> None:
    """Serve the dashboard with an application that has a supervisor in its state."""
    app.state.dashboard = Sessions()
    app.include_router(router)
    app.mount("/ui/static", StaticFiles(directory=Path(__file__).with_name("static")), name="dashboard-static")
    app.add_exception_handler(LoginNeeded, _ask_for_login)


def _ask_for_login(request: Request, _: Exception) -> Response:
    if request.headers.get("HX-Request") or "text/event-stream" in request.headers.get("accept", ""):
        return Response(status_code=401, headers={"HX-Refresh": "true"})
    root = request.scope.get("root_path", "")
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{root}/ui/login?next={quote(wanted)}", 303)


def _viewer(request: Request) -> Role:
    role: Role | None = request.app.state.dashboard.role_of(request.cookies.get(COOKIE))
    if role is None:
        raise LoginNeeded
    return role


def _same_origin(request: Request) -> None:
    """Refuse what another site sends: the cookie is ``SameSite=Strict``, and this holds where that isn't kept."""
    if is_cross_site(request.headers):
        raise HTTPException(403, "sent from another site")


def _writer(role: Annotated[Role, Depends(_viewer)]) -> None:
    if role != "write":
        raise HTTPException(403, "the key is for reading only")


Viewer = Annotated[Role, Depends(_viewer)]


def _bot(bot: UUID, store: TheStore) -> BotRecord:
    record = store.bot(bot)
    if record is None or record.status >= ResourceStatus.DEPROVISIONING:
        raise HTTPException(404, "the bot isn't on this cluster")
    return record


Bot = Annotated[BotRecord, Depends(_bot)]


# Logging in and out


@router.get("/ui/links")
def new_link(request: Request) -> JSONResponse:
    """Return the path of a one-time link for who has a key; `ape silverback cluster open` opens it."""
    role = role_of_key(request.app, request.headers.get("x-api-key"))
    if role is None and is_same(request.cookies.get(SESSION), request.app.state.session):
        role = "write"
    if role is None:
        raise HTTPException(401, "no or a wrong X-API-Key")
    return JSONResponse({"path": f"/ui/link/{request.app.state.dashboard.new_link(role)}"})


@router.get("/ui/link/{token}")
def open_link(request: Request, token: str) -> Response:
    """Log in with a one-time link."""
    role = request.app.state.dashboard.use_link(token)
    if role is None:
        return _page(request, None, "login.html", status=401, next="/", problem="This link was used or is too old.")
    return _logged_in(request, role, "/")


@router.get("/ui/login")
def login_page(request: Request, next_: Annotated[str, Query(alias="next")] = "/") -> Response:
    """Show the form to log in."""
    return _page(request, None, "login.html", next=_local(next_), problem=None)


@router.post("/ui/login", dependencies=[Depends(_same_origin)])
def log_in(request: Request, key: Annotated[str, Form()], next_: Annotated[str, Form(alias="next")] = "/") -> Response:
    """Log in with a key."""
    role = role_of_key(request.app, key.strip())
    if role is None:
        problem = "This isn't a key of this cluster."
        return _page(request, None, "login.html", status=401, next=_local(next_), problem=problem)
    return _logged_in(request, role, _local(next_))


@router.post("/ui/logout", dependencies=[Depends(_same_origin)])
def log_out(request: Request) -> Response:
    """Log out."""
    request.app.state.dashboard.close(request.cookies.get(COOKIE, ""))
    response = RedirectResponse(f"{request.scope.get('root_path', '')}/ui/login", 303)
    response.delete_cookie(COOKIE, path=request.scope.get("root_path", "") or "/")
    return response


def _logged_in(request: Request, role: Role, then: str) -> Response:
    root = request.scope.get("root_path", "")
    response = RedirectResponse(then if root and then.startswith(root) else f"{root}{then}", 303, SECURITY_HEADERS)
    response.set_cookie(
        COOKIE,
        request.app.state.dashboard.open(role),
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


# All bots


@router.get("/")
def overview_page(request: Request, role: Viewer, supervisor: TheSupervisor) -> Response:
    """Show all bots, those in trouble first."""
    return _page(request, role, "overview.html", page="bots", **_all_bots(supervisor, role))


@router.get("/ui/events")
def overview_events(request: Request, role: Viewer, supervisor: TheSupervisor) -> Response:
    """Send all bots again whenever one of them changed."""
    root = request.scope.get("root_path", "")

    def render() -> dict[str, str]:
        return {"overview": _render("_overview.html", root=root, **_all_bots(supervisor, role))}

    return _events(request, render)


@router.get("/ui/confirm/{action}", dependencies=[Depends(_writer)])
def confirm(
    request: Request, supervisor: TheSupervisor, action: Action, bot: Annotated[list[UUID] | None, Query()] = None
) -> Response:
    """Ask before something is done to bots, and show the command that does it."""
    bots = _chosen(supervisor, bot or [])
    names = " ".join(shlex.quote(one.name) for one in bots)
    cluster = "ape silverback cluster bots"
    steps = ("stop", "start") if action == "restart" else (action,)
    commands = [f"{cluster} {step} {names} --yes" for step in steps]
    return _fragment(request, "_confirm.html", action=action, bots=bots, commands=commands)


@router.post("/ui/do/{action}", dependencies=[Depends(_writer), Depends(_same_origin)])
def act(
    request: Request, supervisor: TheSupervisor, action: Action, bot: Annotated[list[UUID] | None, Form()] = None
) -> Response:
    """Start, stop or restart bots."""
    if not request.headers.get("HX-Request"):  # which no form of another site can send
        raise HTTPException(403, "not sent by the dashboard")
    problems = []
    for one in _chosen(supervisor, bot or []):
        try:
            if action in ("stop", "restart"):
                supervisor.stop(one)
            if action in ("start", "restart"):
                supervisor.start(one)
        except (BusyError, GoneError) as error:
            problems.append(f"{one.name}: {error}")
    return _fragment(request, "_done.html", problems=problems)


def _chosen(supervisor: Supervisor, bots: list[UUID]) -> list[BotRecord]:
    return [record for bot in dict.fromkeys(bots) if (record := supervisor.store.bot(bot)) is not None]


def _all_bots(supervisor: Supervisor, role: Role) -> dict[str, Any]:
    bots = overview(supervisor)
    summary = {
        "total": len(bots),
        "trouble": sum(bot.trouble >= 2 for bot in bots),
        "limit": None,
        "paid_until": None,
    }
    columns = {name for name in OPTIONAL_COLUMNS if any(getattr(bot, name) for bot in bots)}
    shown = [_shown(bot) for bot in bots]
    return {"bots": shown, "columns": columns, "summary": summary, "can_write": role == "write"}


def _shown(bot: BotOverview) -> dict[str, Any]:
    """Return a bot with what its state is called and how it looks."""
    state = str(bot.status).lower()
    if bot.status is ResourceStatus.RUNNING and not bot.healthy:
        state = "unhealthy"
    looks = {0: "ok" if bot.status is ResourceStatus.RUNNING else "stopped quiet", 1: "warn", 2: "bad", 3: "bad"}
    return {**vars(bot), "state": state, "state_class": looks[bot.trouble], "balance": None}


# One bot


@router.get("/ui/bots/{bot}")
def bot_page(request: Request, role: Viewer, supervisor: TheSupervisor, bot: Bot) -> Response:
    """Show one bot."""
    configuration = bot.configuration.model_dump()
    fields = [{"name": name, "value": _value(value), "origin": None} for name, value in configuration.items()]
    content = _one_bot(supervisor, role, bot)
    return _page(
        request,
        role,
        "bot.html",
        configuration=fields,
        has_origins=False,
        timeline=_timeline(supervisor, bot),
        **content,
    )


@router.get("/ui/bots/{bot}/events")
def bot_events(request: Request, role: Viewer, supervisor: TheSupervisor, bot: Bot) -> Response:
    """Send the state and the errors of a bot again whenever they changed."""
    root = request.scope.get("root_path", "")

    def render() -> dict[str, str] | None:
        if (record := supervisor.store.bot(bot.id)) is None:
            return None
        content = _one_bot(supervisor, role, record)
        return {
            "state": _render("_state.html", root=root, **content),
            "errors": _render("_errors.html", root=root, **content),
        }

    return _events(request, render)


@router.get("/ui/bots/{bot}/log")
def bot_log(
    request: Request, _: Viewer, supervisor: TheSupervisor, bot: Bot, level: str = "INFO", at: datetime | None = None
) -> Response:
    """Send the log of a bot, from a while ago or from before a certain line on, and then live."""
    if level not in LogLevel.__members__:
        raise HTTPException(422, "not a log level")
    begin = _with_zone(at) - MARK_CONTEXT if at else datetime.now(timezone.utc) - LOG_BEGINS
    store = supervisor.store
    content = stream(
        supervisor.runtime.log_file(bot.id),
        Filter(int(LogLevel[level]), begin, None),
        lambda: store.bot(bot.id) is not None,
    )

    async def events() -> AsyncIterator[bytes]:
        yield b": begin\n\n"
        async for chunk in content:
            yield b"".join(b"event: line\ndata: " + _named_level(line) + b"\n\n" for line in chunk.splitlines())
            if await request.is_disconnected():
                return
        yield b"event: removed\ndata: \n\n"

    return _stream(events())


@router.get("/ui/bots/{bot}/charts")
def bot_charts(_: Viewer, supervisor: TheSupervisor, bot: Bot) -> list[Chart]:
    """Return the charts of a bot's last hour."""
    end = datetime.now(timezone.utc)
    begin = end - CHART_TIME
    return charts_of(read_results(supervisor.runtime.work_folder(bot.id), since=begin, until=end), begin, end)


@router.post("/ui/bots/{bot}/acknowledge", dependencies=[Depends(_writer), Depends(_same_origin)])
def acknowledge(request: Request, role: Viewer, supervisor: TheSupervisor, bot: Bot) -> Response:
    """Acknowledge the errors of a bot: those so far aren't shown again."""
    supervisor.store.acknowledge_errors(bot.id)
    return _fragment(request, "_errors.html", **_one_bot(supervisor, role, bot))


def _one_bot(supervisor: Supervisor, role: Role, bot: BotRecord) -> dict[str, Any]:
    view = overview_of(supervisor, bot)
    errors = [
        {"count": one.count, "message": one.message, "first_line": one.message.partition("\n")[0], "time": None}
        for one in count_errors({bot.name: supervisor.errors(bot)})
    ]
    facts = [
        ("Started", _moment(view.started_at)),
        ("Stopped", _moment(bot.task.stopped_at) if bot.status is ResourceStatus.STOPPED else ""),
        ("Next start", _moment(view.next_start)),
        ("Lag", "" if view.lag is None else f"{view.lag} blocks"),
        ("Network", view.network),
        ("Account", view.account or ""),
        ("Restarts", view.restarts or ""),
    ]
    can_write = role == "write"
    return {"bot": _shown(view), "errors": errors, "facts": facts, "can_write": can_write}


def _timeline(supervisor: Supervisor, bot: BotRecord) -> list[dict[str, Any]]:
    """Return what happened to a bot, the latest first."""
    return [
        {"time": event.time, "text": f"{event.kind}: {event.reason}" if event.reason else event.kind}
        for event in reversed(supervisor.store.events(bot.id)[-TIMELINE:])
    ]


def _named_level(line: bytes) -> bytes:
    """Return an entry of a log with the name of its level in place of the number."""
    entry = json.loads(line)
    level = entry.get("level")
    entry["level"] = LogLevel(level).name if level is not None else None
    return json.dumps(entry).encode()


def _value(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple | list) else str(value)


# Deployments


@router.get("/ui/deployments")
def deployments_page(request: Request, role: Viewer, store: TheStore) -> Response:
    """Show the deployments that were recorded on this cluster."""
    return _page(request, role, "deployments.html", page="deployments", deployments=deployments_of(store))


# Rendering


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment else ""


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ape_silverback.server.dashboard"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["moment"] = _moment
    return environment


_templates = _environment()


def _render(template: str, **content: Any) -> str:
    return _templates.get_template(template).render(**content)


def _page(request: Request, role: Role | None, template: str, status: int = 200, **content: Any) -> Response:
    shared: Mapping[str, Any] = {
        "root": request.scope.get("root_path", ""),
        "role": role,
        "page": "",
        "has_nodes": False,
    }
    return HTMLResponse(_render(template, **{**shared, **content}), status, SECURITY_HEADERS)


def _fragment(request: Request, template: str, **content: Any) -> Response:
    return HTMLResponse(_render(template, root=request.scope.get("root_path", ""), **content), headers=SECURITY_HEADERS)


def _events(request: Request, render: Callable[[], dict[str, str] | None]) -> Response:
    """Stream rendered parts of a page, each again when it changed, until what it is about is gone."""

    async def events() -> AsyncIterator[bytes]:
        sent: dict[str, str] = {}
        silent = 0.0
        while not await request.is_disconnected():
            parts = await run_in_threadpool(render)
            if parts is None:
                return
            for name, html in parts.items():
                if sent.get(name) != html:
                    sent[name], silent = html, 0.0
                    yield _event(name, html)
            silent += REFRESH
            if silent >= KEEP_ALIVE:
                silent = 0.0
                yield b": still there\n\n"
            await asyncio.sleep(REFRESH)

    return _stream(events())


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n".encode()


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(
        events, media_type="text/event-stream", headers={**SECURITY_HEADERS, "X-Accel-Buffering": "no"}
    )


def _with_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
