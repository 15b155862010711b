"""Bots: ``/bots``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from ape.logging import LogLevel
from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ape_silverback.cluster.types import (
    POLICIES,
    BotConfiguration,
    BotHealth,
    BotInfo,
    ClusterConfiguration,
    HealthPolicy,
    RemovedBotInfo,
    ResourceStatus,
    RestartPolicy,
)
from ape_silverback.server.logs import Filter, stream
from ape_silverback.server.quota import refusal
from ape_silverback.server.routes import TheStore, TheSupervisor, WhatIsPaid, check_room, invalid, problem
from ape_silverback.server.routes.names import LongText, Name, Text, Variable
from ape_silverback.server.runtimes import ImageError
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.supervisor import Supervisor

EXTENSIONS = ("task", "restarts", "restart-policy", "health-details", "removed-logs", "chosen-ids", "heartbeat")

NO_CHANGE = "<no-change>"

LOG_TYPE = "application/x-ndjson"
LOG_ANSWER: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {200: {"description": "A JSON entry a line", "content": {LOG_TYPE: {}}}},
}

REMOVAL_POLL = 0.05
"""Seconds between two looks at a bot that is being removed."""

DEFAULT = "<default>"
"""Resets a policy to the cluster's own."""

bots_router = APIRouter(prefix="/bots")


class BotEvent(BaseModel):
    """Something that happened to a bot, as ``GET /bots/{id}/events`` returns it."""

    time: datetime
    kind: str
    reason: str | None


class NewBot(BaseModel):
    """Body of ``POST /bots``.

    With an id that the client chose, the same request sent again returns the bot that the first one made.
    """

    id: UUID | None = None
    name: Name
    image: LongText
    ecosystem: Text
    network: Text
    provider: Text
    account: Text | None = None
    environment: list[Name] = Field(default_factory=list, max_length=100)
    credential_name: Text | None = None
    cluster_access: bool = False
    restart: RestartPolicy | None = None
    healthy: HealthPolicy | None = None
    heartbeat: Variable | None = None


class BotChanges(BaseModel):
    """Body of ``PATCH /bots/{id}``: null keeps a value, but clears account and credential_name.

    ``<default>`` lets the cluster's own policy hold again.
    """

    name: Name | None = None
    image: LongText | None = None
    ecosystem: Text | None = None
    network: Text | None = None
    provider: Text | None = None
    account: Text | None = NO_CHANGE
    environment: Annotated[list[Name], Field(max_length=100)] | None = None
    credential_name: Text | None = NO_CHANGE
    cluster_access: bool | None = None
    restart: RestartPolicy | Literal["<default>"] | None = None
    healthy: HealthPolicy | Literal["<default>"] | None = None
    heartbeat: Variable | Literal["<default>"] | None = None


def _found(bot: UUID, store: TheStore) -> BotRecord:
    if (record := store.bot(bot)) is None:
        raise HTTPException(404, f"there is no bot with the id {bot}")
    return record


Bot = Annotated[BotRecord, Depends(_found)]


class BotAnswers:
    """The JSON of each bot, made again only once something of the bot has changed."""

    def __init__(self) -> None:
        self._known: dict[UUID, tuple[tuple[Any, ...], bytes]] = {}

    def of(self, bots: Sequence[BotRecord], supervisor: Supervisor) -> bytes:
        """Return the JSON array of these bots; those of earlier calls that aren't among them are forgotten."""
        ids, before, known = _credential_ids(supervisor.store), self._known, {}
        for bot in bots:
            seen, credential = supervisor.seen(bot), ids.get(bot.configuration.credential_name or "")
            shown = (bot, credential, supervisor.health(bot), seen.node, seen.unreachable_since)
            made = before.get(bot.id)
            json = made[1] if made and made[0] == shown else _info(bot, ids, supervisor).model_dump_json().encode()
            known[bot.id] = (shown, json)  # of what there is now: to compare it with itself costs nothing
        self._known = known
        return b"[" + b",".join(json for _, json in known.values()) + b"]"


def _answers(request: Request) -> BotAnswers:
    found: BotAnswers = request.app.state.bot_answers
    return found


@bots_router.get("", response_model=list[BotInfo])
def bots(supervisor: TheSupervisor, store: TheStore, answers: Annotated[BotAnswers, Depends(_answers)]) -> Response:
    """Return the bots, except those that are being removed."""
    there = [bot for bot in store.bots() if bot.status < ResourceStatus.DEPROVISIONING]
    return Response(answers.of(there, supervisor), media_type="application/json")


@bots_router.post("")
def new_bot(supervisor: TheSupervisor, store: TheStore, paid: WhatIsPaid, body: NewBot) -> BotInfo:
    """Make a bot and start it."""
    configuration = BotConfiguration.model_validate(body.model_dump(include=set(BotConfiguration.model_fields)))

    def check() -> BotRecord | None:
        if body.id is not None and (there := store.bot(body.id)) is not None:
            if (there.name, there.configuration) == (
                body.name,
                configuration,
            ) and there.status < ResourceStatus.DEPROVISIONING:
                return there
            raise HTTPException(409, f"another bot has the id {body.id}")
        if body.id is not None and any(one.id == body.id for one in store.removed_bots()):
            raise HTTPException(409, f"the bot with the id {body.id} was removed")
        check_room(len(store.bots()))
        _check(configuration, supervisor)
        if any(bot.name == body.name for bot in store.bots()):
            raise HTTPException(409, f"there is already a bot '{body.name}'")
        _check_paid(paid, [bot for bot in store.bots() if bot.wanted], configuration, supervisor)
        return None

    return _info(supervisor.create(body.name, configuration, check, body.id), _credential_ids(store), supervisor)


@bots_router.patch("/{bot}")
def update_bot(supervisor: TheSupervisor, store: TheStore, paid: WhatIsPaid, bot: Bot, body: BotChanges) -> BotInfo:
    """Change a bot; one that runs keeps its configuration until it is started again."""
    clearable = {"account", "credential_name"}
    changes = {
        name: value
        for name, value in body.model_dump(include=set(BotConfiguration.model_fields)).items()
        if (value != NO_CHANGE if name in clearable else value is not None)
    }
    changes |= {name: None for name in POLICIES if changes.get(name) == DEFAULT}
    with store.transaction():  # of two changes at once the later one is laid over the earlier one
        bot = _found(bot.id, store)
        configuration = BotConfiguration.model_validate({**bot.configuration.model_dump(), **changes})
        _check(configuration, supervisor)
        if bot.wanted:
            _check_paid(paid, [one for one in store.bots() if one.wanted and one.id != bot.id], configuration)
        store.change_bot(bot.id, body.name or bot.name, configuration)
        return _info(_found(bot.id, store), _credential_ids(store), supervisor)


@bots_router.delete("/{bot}")
async def remove_bot(supervisor: TheSupervisor, bot: Bot) -> Response:
    """Stop a bot and remove it."""
    # However long that takes, it takes no thread from other requests.
    await run_in_threadpool(supervisor.begin_removal, bot)
    while not await run_in_threadpool(supervisor.is_gone, bot):
        await asyncio.sleep(REMOVAL_POLL)
    return Response()


@bots_router.get("/{bot}/status")
def status(bot: Bot) -> ResourceStatus:
    """Return the state of a bot."""
    return bot.status


@bots_router.get("/{bot}/health")
def health(supervisor: TheSupervisor, bot: Bot) -> BotHealth:
    """Return the health of a bot."""
    return supervisor.health(bot)


@bots_router.post("/{bot}/start")
def start(supervisor: TheSupervisor, store: TheStore, paid: WhatIsPaid, bot: Bot) -> Response:
    """Start a bot."""
    if not bot.wanted:
        _check_paid(paid, [one for one in store.bots() if one.wanted], bot.configuration, supervisor)
    supervisor.start(bot)
    return Response()


@bots_router.post("/{bot}/stop")
def stop(supervisor: TheSupervisor, bot: Bot) -> Response:
    """Stop a bot; the answer doesn't wait until it has stopped."""
    supervisor.stop(bot)
    return Response()


@bots_router.get("/{bot}/errors")
def errors(supervisor: TheSupervisor, bot: Bot) -> list[str]:
    """Return what went wrong in the latest run of a bot."""
    return [one.message for one in supervisor.errors(bot)]


@bots_router.get("/{bot}/events")
def events(store: TheStore, bot: Bot) -> list[BotEvent]:
    """Return what happened to a bot, the oldest first."""
    return [BotEvent(time=event.time, kind=event.kind, reason=event.reason) for event in store.events(bot.id)]


@bots_router.get("/{bot}/logs", **LOG_ANSWER)
def logs(
    supervisor: TheSupervisor,
    bot: Bot,
    log_level: Annotated[str, Query()] = "INFO",
    follow: bool = False,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> StreamingResponse:
    """Return the log of a bot, a JSON entry a line."""
    wanted = Filter(_level(log_level), start_time, end_time)
    stays = (lambda: supervisor.store.bot(bot.id) is not None) if follow else None
    content = stream(supervisor.runtime.log_file(bot.id), wanted, stays)
    return StreamingResponse(content, media_type=LOG_TYPE)


removed_router = APIRouter(prefix="/removed-bots")


@removed_router.get("")
def removed_bots(store: TheStore) -> list[RemovedBotInfo]:
    """Return the removed bots whose log is kept, the one removed first first."""
    return [
        RemovedBotInfo(id=one.id, name=one.name, removed=one.removed, errors=list(one.errors))
        for one in store.removed_bots()
    ]


@removed_router.get("/{bot}/logs", **LOG_ANSWER)
def removed_logs(
    supervisor: TheSupervisor,
    bot: UUID,
    log_level: Annotated[str, Query()] = "INFO",
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> StreamingResponse:
    """Return the log of a removed bot, a JSON entry a line."""
    if not any(one.id == bot for one in supervisor.store.removed_bots()):
        raise HTTPException(404, f"no log of a removed bot with the id {bot} is kept")
    content = stream(supervisor.removed.log(bot), Filter(_level(log_level), start_time, end_time))
    return StreamingResponse(content, media_type=LOG_TYPE)


router = APIRouter()
router.include_router(bots_router)
router.include_router(removed_router)


def _check(configuration: BotConfiguration, supervisor: Supervisor) -> None:
    """Check that the cluster has what a bot needs.

    Raises:
        HTTPException: it hasn't: 422, an entry for each problem.
    """
    store = supervisor.store
    groups = {group.name: group.variables for group in store.groups()}
    credentials = {name for one in store.credentials() for name in (one.name, one.id)}
    problems = [
        problem(f"there is no variable group '{name}'", "body", "environment", kind="unknown")
        for name in configuration.environment
        if name not in groups
    ]
    if configuration.credential_name not in (None, *credentials):
        text = f"there is no registry credential '{configuration.credential_name}'"
        problems.append(problem(text, "body", "credential_name", kind="unknown"))
    variables = {name for group in configuration.environment for name in groups.get(group, ())}
    if configuration.heartbeat not in (None, *variables):
        text = f"no variable group of the bot has a variable '{configuration.heartbeat}'"
        problems.append(problem(text, "body", "heartbeat", kind="unknown"))
    try:
        supervisor.runtime.check(configuration.image)
    except ImageError as error:
        problems.append(problem(str(error), "body", "image", kind="image"))
    if problems:
        raise HTTPException(422, problems)


def _check_paid(
    paid: ClusterConfiguration | None,
    others: Sequence[BotRecord],
    new: BotConfiguration,
    supervisor: Supervisor | None = None,
) -> None:
    """Refuse a bot that would be more than is paid for, beside the others that should run.

    Args:
        supervisor: knows how much memory the others use; None for a bot that runs already.

    Raises:
        HTTPException: 402, with what is used and what is paid for.
    """
    if paid is None:
        return
    memory = supervisor.memory(others) if supervisor else None
    if why := refusal(paid, [bot.configuration for bot in others], new, memory):
        raise HTTPException(402, why)


def _credential_ids(store: Store) -> dict[str, str]:
    return {one.name: one.id for one in store.credentials()}


def _info(bot: BotRecord, credential_ids: Mapping[str, str], supervisor: Supervisor) -> BotInfo:
    """Return a bot as the API shows it: a request names credentials by name, an answer by id."""
    name = bot.configuration.credential_name
    shown = {**bot.configuration.model_dump(), "credential_name": credential_ids.get(name or "", name)}
    return BotInfo(
        id=bot.id,
        name=bot.name,
        created=bot.created,
        task=bot.task,
        restarts=bot.restarts,
        health=supervisor.health(bot),
        node=supervisor.seen(bot).node,
        unreachable_since=supervisor.seen(bot).unreachable_since,
        **shown,
    )


def _level(text: str) -> int:
    if text.upper() in LogLevel.__members__:
        return int(LogLevel[text.upper()])
    if text.isdecimal() and len(text) < 4:
        return int(text)
    raise invalid(f"'{text:.40}' isn't a valid log level", "query", "log_level")
