"""The page of one bot: its state, log, errors, charts, configuration and timeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from ape.logging import LogLevel
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from ape_silverback.cluster.bot_errors import count_errors
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.plurals import plural
from ape_silverback.server.authentication import Role
from ape_silverback.server.dashboard.access import Bot, SameOrigin, Viewer, Writer
from ape_silverback.server.dashboard.all_bots import shown_bot
from ape_silverback.server.dashboard.charts import Chart, charts_of
from ape_silverback.server.dashboard.records import Source, deployments_of, source_of
from ape_silverback.server.dashboard.rendering import (
    event_stream,
    fragment,
    log_event,
    moment_text,
    page,
    render,
    updates,
)
from ape_silverback.server.dashboard.sessions import role_of
from ape_silverback.server.logs import Filter, stream
from ape_silverback.server.metrics import read_results
from ape_silverback.server.overview import overview_of
from ape_silverback.server.routes import TheSupervisor
from ape_silverback.server.store import BotRecord
from ape_silverback.server.supervisor import Supervisor
from ape_silverback.timezones import with_timezone

LOG_BEGINS = timedelta(hours=1)
"""How far back a page's log goes, before it is live."""

MARK_CONTEXT = timedelta(minutes=1)
"""How far before a linked line the log begins."""

SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
"""Times that charts are drawn of."""

TIMELINE = 100
"""Events of a bot that are shown, the latest ones."""

EVENTS = {
    "started": "Started",
    "running": "Running",
    "stopped": "Stopped",
    "crashed": "Crashed",
    "gave-up": "Not restarted any more",
    "circuit-breaker": "Stopped by its circuit breaker",
    "ended": "Ended",
    "unhealthy": "Unhealthy",
    "recovered": "Healthy again",
    "moved": "Moved",
}
"""Kind of an event of a bot → how the timeline calls it."""

TROUBLE = frozenset({"crashed", "gave-up", "circuit-breaker", "unhealthy"})

router = APIRouter(include_in_schema=False)


@router.get("/ui/bots/{bot}")
def bot_page(request: Request, role: Viewer, supervisor: TheSupervisor, bot: Bot) -> Response:
    """Show one bot."""
    source = source_of(supervisor.store, bot)
    return page(
        request,
        role,
        "bot.html",
        page="bots",
        configuration=_configuration(bot, source),
        source=source,
        timeline=_timeline(supervisor, bot),
        levels=[level.name for level in LogLevel],
        spans=tuple(SPANS),
        **_state(supervisor, role, bot),
    )


@router.get("/ui/bots/{bot}/events")
def bot_events(request: Request, role: Viewer, supervisor: TheSupervisor, bot: Bot) -> Response:
    """Send the state, the errors and the timeline of a bot again whenever they changed."""

    def parts() -> dict[str, str] | None:
        if (record := supervisor.store.bot(bot.id)) is None:
            return None
        content = {**_state(supervisor, role, record), "timeline": _timeline(supervisor, record)}
        return {name: render(request, f"_{name}.html", **content) for name in ("state", "errors", "timeline")}

    return updates(request, parts)


@router.get("/ui/bots/{bot}/log")
def bot_log(
    request: Request, _: Viewer, supervisor: TheSupervisor, bot: Bot, level: str = "INFO", at: datetime | None = None
) -> Response:
    """Send the log of a bot, from a while ago or from before a certain line on, and then live."""
    if level not in LogLevel.__members__:
        raise HTTPException(422, "not a valid log level")
    begin = with_timezone(at) - MARK_CONTEXT if at else datetime.now(timezone.utc) - LOG_BEGINS
    content = stream(
        supervisor.runtime.log_file(bot.id),
        Filter(int(LogLevel[level]), begin, None),
        lambda: supervisor.store.bot(bot.id) is not None,
    )

    async def events() -> AsyncIterator[bytes]:
        yield b": begin\n\n"
        async for chunk in content:
            yield b"".join(log_event(line, lambda number: LogLevel(number).name) for line in chunk.splitlines())
            if await request.is_disconnected() or await run_in_threadpool(role_of, request) is None:
                return
        yield b"event: removed\ndata: \n\n"

    return event_stream(events())


@router.get("/ui/bots/{bot}/charts")
def bot_charts(
    _: Viewer, supervisor: TheSupervisor, bot: Bot, span: Literal["hour", "day", "week"] = "hour"
) -> list[Chart]:
    """Return the charts of a bot's last hour, day or week."""
    end = datetime.now(timezone.utc)
    begin = end - SPANS[span]
    return charts_of(read_results(supervisor.runtime.work_folder(bot.id), since=begin, until=end), begin, end)


@router.post("/ui/bots/{bot}/acknowledge", dependencies=[Writer, SameOrigin])
def acknowledge(request: Request, role: Viewer, supervisor: TheSupervisor, bot: Bot) -> Response:
    """Acknowledge the errors of a bot: those so far aren't shown again."""
    supervisor.store.acknowledge_errors(bot.id)
    return fragment(request, "_errors.html", **_state(supervisor, role, bot))


def _state(supervisor: Supervisor, role: Role, bot: BotRecord) -> dict[str, Any]:
    view = overview_of(supervisor, bot)
    facts = [
        ("Stopped", moment_text(bot.task.stopped_at) if bot.status is ResourceStatus.STOPPED else ""),
        ("Next start", moment_text(view.next_start)),
        ("Lag", "" if view.lag is None else plural(view.lag, "block")),
        ("Network", view.network),
        ("Account", view.account or ""),
        ("Balance", view.balance or ""),
        ("Restarts", view.restarts or ""),
        ("Node", supervisor.seen(bot).node or ""),
    ]
    return {
        "bot": shown_bot(view),
        "errors": _errors(supervisor, bot),
        "facts": facts,
        "can_write": role == "write",
        "actions": _actions(bot, waits=view.next_start is not None),
    }


def _actions(bot: BotRecord, *, waits: bool) -> list[str]:
    """Return what makes sense to do with a bot.

    Args:
        waits: whether the cluster starts it again by itself.
    """
    if bot.status is ResourceStatus.STOPPED:
        return ["start", "stop"] if waits else ["start"]
    return ["stop", "restart"]


def _errors(supervisor: Supervisor, bot: BotRecord) -> list[dict[str, Any]]:
    """Return the errors of a bot, each once, with how often and when it was logged last."""
    logged = supervisor.errors(bot)
    last = {one.message: one.time for one in logged}
    return [
        {
            "count": one.count,
            "message": one.message,
            "first_line": one.message.partition("\n")[0].removesuffix("; before that:"),
            "time": last[one.message],
        }
        for one in count_errors({bot.name: [one.message for one in logged]})
    ]


def _timeline(supervisor: Supervisor, bot: BotRecord) -> list[dict[str, Any]]:
    """Return what happened to a bot, deployments included, the latest first."""
    events: list[dict[str, Any]] = [
        {"time": one.time, "what": EVENTS.get(one.kind, one.kind), "why": one.reason or "", "bad": one.kind in TROUBLE}
        for one in supervisor.store.events(bot.id)[-TIMELINE:]
    ]
    deployed = [
        {"time": one.time, "what": f"Deployment {one.id}", "why": f"by {one.by}: {one.outcome[bot.name]}", "bad": False}
        for one in deployments_of(supervisor.store)
        if one.outcome and bot.name in one.outcome and one.touches(bot.id, bot.name)
    ]
    return sorted([*events, *deployed], key=lambda event: event["time"], reverse=True)[:TIMELINE]


def _configuration(bot: BotRecord, source: Source | None) -> list[dict[str, Any]]:
    """Return the fields of a bot that are set, with where each value came from, and what was changed since."""
    fields = []
    for name in type(bot.configuration).model_fields:
        value = getattr(bot.configuration, name)
        origin = source.origin_of(name, value) if source else ""
        if value not in (None, (), False) or origin:
            fields.append({"name": name.replace("_", " "), "value": _value(value), "origin": origin})
    return fields


def _value(value: Any) -> str:
    if value in (None, ()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple | list) else str(value)
