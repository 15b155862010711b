"""The overview of all bots, and what is done to some of them at once."""

from __future__ import annotations

import shlex
from datetime import datetime, timezone
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Form, HTTPException, Query, Request, Response

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.server.authentication import Role
from ape_silverback.server.dashboard.access import SameOrigin, Viewer, Writer
from ape_silverback.server.dashboard.records import commits_of
from ape_silverback.server.dashboard.rendering import fragment, page, render, updates
from ape_silverback.server.lifecycle import BusyError, GoneError
from ape_silverback.server.overview import BotOverview, overview
from ape_silverback.server.routes import TheSupervisor
from ape_silverback.server.store import BotRecord
from ape_silverback.server.supervisor import Supervisor

OPTIONAL_COLUMNS = ("why", "started_at", "heartbeat_at", "lag", "account", "restarts", "last_error")
"""Columns of the table of bots that are left out where no bot has anything to show in them."""

LOOKS = {0: "ok", 1: "warn", 2: "bad", 3: "bad"}
"""How much trouble a bot is in → how its state looks."""

Action = Literal["start", "stop", "restart"]

router = APIRouter(include_in_schema=False)


@router.get("/")
def overview_page(request: Request, role: Viewer, supervisor: TheSupervisor) -> Response:
    """Show all bots, those in trouble first."""
    return page(request, role, "overview.html", page="bots", **_all_bots(request, supervisor, role))


@router.get("/ui/events")
def overview_events(request: Request, role: Viewer, supervisor: TheSupervisor) -> Response:
    """Send all bots again whenever one of them changed."""

    def parts() -> dict[str, str]:
        content = _all_bots(request, supervisor, role)
        return {name: render(request, f"_{name}.html", **content) for name in ("summary", "overview")}

    return updates(request, parts)


@router.get("/ui/confirm/{action}", dependencies=[Writer])
def confirm(
    request: Request, supervisor: TheSupervisor, action: Action, bot: Annotated[list[UUID] | None, Query()] = None
) -> Response:
    """Ask before something is done to bots, and show the command that does it."""
    bots = _selected(supervisor, bot or [])
    names = " ".join(shlex.quote(one.name) for one in bots)
    steps = ("stop", "start") if action == "restart" else (action,)
    commands = [f"ape silverback cluster bots {step} {names} --yes" for step in steps]
    return fragment(request, "_confirm.html", action=action, bots=bots, commands=commands)


@router.post("/ui/do/{action}", dependencies=[Writer, SameOrigin])
def act(
    request: Request, supervisor: TheSupervisor, action: Action, bot: Annotated[list[UUID] | None, Form()] = None
) -> Response:
    """Start, stop or restart bots."""
    if not request.headers.get("HX-Request"):  # which no form of another site can send
        raise HTTPException(403, "the request wasn't sent by the dashboard")
    problems = []
    for one in _selected(supervisor, bot or []):
        try:
            if action in ("stop", "restart"):
                supervisor.stop(one)
            if action in ("start", "restart"):
                supervisor.start(one)
        except (BusyError, GoneError) as error:
            problems.append(f"{one.name}: {error}")
    return fragment(request, "_done.html", problems=problems)


def _selected(supervisor: Supervisor, bots: list[UUID]) -> list[BotRecord]:
    return [record for bot in dict.fromkeys(bots) if (record := supervisor.store.bot(bot)) is not None]


def _all_bots(request: Request, supervisor: Supervisor, role: Role) -> dict[str, Any]:
    bots = overview(supervisor)
    commits = commits_of(supervisor.store)
    shown = [{**shown_bot(bot), "commit": commits.get(bot.id)} for bot in bots]
    columns = {name for name in OPTIONAL_COLUMNS if any(one[name] for one in shown)}
    return {
        "bots": shown,
        "columns": columns,
        "summary": _summary(request, bots),
        "can_write": role == "write",
    }


def _summary(request: Request, bots: list[BotOverview]) -> dict[str, Any]:
    expires, paid = request.app.state.expires(), request.app.state.configuration
    runs = [bot for bot in bots if bot.status is ResourceStatus.RUNNING]
    return {
        "total": len(bots),
        "trouble": sum(bot.trouble >= 2 for bot in bots),
        "healthy": sum(bot.healthy for bot in runs),
        "starting": sum(bot.trouble == 1 for bot in bots),
        "stopped": sum(bot.trouble == 0 and bot not in runs for bot in bots),
        "limit": paid.bots if paid else None,
        "paid_until": datetime.fromtimestamp(expires, timezone.utc) if expires else None,
    }


def shown_bot(bot: BotOverview) -> dict[str, Any]:
    """Return a bot with what its state is called and how it looks."""
    state = str(bot.status).lower()
    if bot.status is ResourceStatus.RUNNING and not bot.healthy:
        state = "unhealthy"
    looks = LOOKS[bot.trouble]
    if bot.trouble == 0 and bot.status is not ResourceStatus.RUNNING:
        looks = "idle"
    error = bot.last_error
    if error and bot.why and error in bot.why:  # it is there already
        error = None
    name, colon, tag = bot.image.rpartition("/")[2].partition(":")
    image = {"image_name": name, "image_tag": f"{colon}{tag}"}
    return {**vars(bot), **image, "state": state, "looks": looks, "last_error": error}
