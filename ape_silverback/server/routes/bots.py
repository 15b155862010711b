"""Bots: ``/bots``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

from ape.logging import LogLevel
from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from ape_silverback.cluster.types import BotConfiguration, BotInfo, ResourceStatus, ServiceHealth
from ape_silverback.server.logs import Filter, stream
from ape_silverback.server.routes import TheStore, TheSupervisor, invalid, problem
from ape_silverback.server.routes.names import Name
from ape_silverback.server.runtimes import ImageError
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.supervisor import Supervisor

EXTENSIONS = ("task",)

NO_CHANGE = "<no-change>"

router = APIRouter(prefix="/bots")


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


def _found(bot: UUID, store: TheStore) -> BotRecord:
    if (record := store.bot(bot)) is None:
        raise HTTPException(404, f"there is no bot {bot}")
    return record


Bot = Annotated[BotRecord, Depends(_found)]


@router.get("")
def bots(store: TheStore) -> list[BotInfo]:
    """Return the bots, except those that are being removed."""
    ids = _credential_ids(store)
    return [_info(bot, ids) for bot in store.bots() if bot.status < ResourceStatus.DEPROVISIONING]


@router.post("")
def new_bot(supervisor: TheSupervisor, store: TheStore, body: NewBot) -> BotInfo:
    """Make a bot and start it."""
    configuration = BotConfiguration.model_validate(body.model_dump(exclude={"name"}))
    _check(configuration, supervisor)
    if any(bot.name == body.name for bot in store.bots()):
        raise HTTPException(409, f"there is a bot '{body.name}' already")
    return _info(supervisor.create(body.name, configuration), _credential_ids(store))


@router.patch("/{bot}")
def update_bot(supervisor: TheSupervisor, store: TheStore, bot: Bot, body: BotChanges) -> BotInfo:
    """Change a bot; one that runs keeps its configuration until it is started again."""
    clearable = {"account", "credential_name"}
    changes = {
        name: value
        for name, value in body.model_dump(exclude={"name"}).items()
        if (value != NO_CHANGE if name in clearable else value is not None)
    }
    configuration = BotConfiguration.model_validate({**bot.configuration.model_dump(), **changes})
    _check(configuration, supervisor)
    store.change_bot(bot.id, body.name or bot.name, configuration)
    return _info(_found(bot.id, store), _credential_ids(store))


@router.delete("/{bot}")
def remove_bot(supervisor: TheSupervisor, bot: Bot) -> Response:
    """Stop a bot and remove it."""
    supervisor.remove(bot)
    return Response()


@router.get("/{bot}/status")
def status(bot: Bot) -> ResourceStatus:
    """Return the state of a bot."""
    return bot.status


@router.get("/{bot}/health")
def health(bot: Bot) -> ServiceHealth:
    """Return the health of a bot."""
    return health_of(bot)


@router.post("/{bot}/start")
def start(supervisor: TheSupervisor, bot: Bot) -> Response:
    """Start a bot."""
    supervisor.start(bot)
    return Response()


@router.post("/{bot}/stop")
def stop(supervisor: TheSupervisor, bot: Bot) -> Response:
    """Stop a bot; the answer doesn't wait until it has stopped."""
    supervisor.stop(bot)
    return Response()


@router.get("/{bot}/errors")
def errors(supervisor: TheSupervisor, bot: Bot) -> list[str]:
    """Return what went wrong in the latest run of a bot."""
    return supervisor.errors(bot)


@router.get("/{bot}/logs")
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
    return StreamingResponse(content, media_type="application/x-ndjson")


def health_of(bot: BotRecord) -> ServiceHealth:
    """Return the health of a bot."""
    return ServiceHealth(healthy=bot.status is ResourceStatus.RUNNING)


def _check(configuration: BotConfiguration, supervisor: Supervisor) -> None:
    """Check that the cluster has what a bot needs.

    Raises:
        HTTPException: it hasn't: 422, an entry for each problem.
    """
    store = supervisor.store
    groups = {group.name for group in store.groups()}
    credentials = {name for one in store.credentials() for name in (one.name, one.id)}
    problems = [
        problem(f"there is no variable group '{name}'", "body", "environment", kind="unknown")
        for name in configuration.environment
        if name not in groups
    ]
    if configuration.credential_name not in (None, *credentials):
        text = f"there are no credentials '{configuration.credential_name}'"
        problems.append(problem(text, "body", "credential_name", kind="unknown"))
    try:
        supervisor.runtime.check(configuration.image)
    except ImageError as error:
        problems.append(problem(str(error), "body", "image", kind="image"))
    if problems:
        raise HTTPException(422, problems)


def _credential_ids(store: Store) -> dict[str, str]:
    return {one.name: one.id for one in store.credentials()}


def _info(bot: BotRecord, credential_ids: Mapping[str, str]) -> BotInfo:
    """Return a bot as the API shows it: a request names credentials by name, an answer by id."""
    name = bot.configuration.credential_name
    shown = {**bot.configuration.model_dump(), "credential_name": credential_ids.get(name or "", name)}
    return BotInfo(id=bot.id, name=bot.name, created=bot.created, task=bot.task, **shown)


def _level(text: str) -> int:
    if text.upper() in LogLevel.__members__:
        return int(LogLevel[text.upper()])
    if text.isdecimal() and len(text) < 4:
        return int(text)
    raise invalid(f"'{text:.40}' isn't a valid log level", "query", "log_level")
