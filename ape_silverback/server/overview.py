"""What there is to see of each bot, for the dashboard and for Prometheus, sorted by trouble."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ape_silverback.cluster.types import BotHealth, ResourceStatus
from ape_silverback.server.health import read_balance
from ape_silverback.server.lifecycle import BY_CLUSTER, BY_USER
from ape_silverback.server.store import BotRecord
from ape_silverback.server.supervisor import Supervisor

STARTING = frozenset({ResourceStatus.CREATED, ResourceStatus.PROVISIONING, ResourceStatus.STARTUP})


@dataclass(frozen=True)
class BotOverview:
    """A bot at a glance.

    Attributes:
        healthy: whether it does its work.
        trouble: 0 for a bot that is fine or was stopped by somebody, 1 for one that is on its way, 2 for one that runs
            and isn't healthy, 3 for one that should run and doesn't.
        why: what is wrong, or why it stopped.
        started_at: since when it runs; None while it doesn't.
        balance: of its account, with the currency, as the bot last looked it up.
        heartbeat_at: when it last showed that it works.
        lag: blocks between the head of its chain and the last block that it handled.
        restarts: how often the cluster started it again after a crash.
        next_start: when it is started again.
    """

    id: UUID
    name: str
    status: ResourceStatus
    healthy: bool
    trouble: int
    why: str | None
    started_at: datetime | None
    network: str
    account: str | None
    image: str
    last_error: str | None
    balance: str | None = None
    heartbeat_at: datetime | None = None
    lag: int | None = None
    restarts: int = 0
    next_start: datetime | None = None


def overview(supervisor: Supervisor) -> list[BotOverview]:
    """Return all bots at a glance, those in the worst trouble first, else by name."""
    bots = [
        overview_of(supervisor, bot) for bot in supervisor.store.bots() if bot.status < ResourceStatus.DEPROVISIONING
    ]
    return sorted(bots, key=lambda bot: (-bot.trouble, bot.name))


def overview_of(supervisor: Supervisor, bot: BotRecord) -> BotOverview:
    """Return one bot at a glance."""
    task, configuration, health = bot.task, bot.configuration, supervisor.health(bot)
    runs = bot.status in (ResourceStatus.STARTUP, ResourceStatus.RUNNING)
    return BotOverview(
        id=bot.id,
        name=bot.name,
        status=bot.status,
        healthy=health.healthy,
        trouble=_trouble(bot, health.healthy),
        why=_why(bot, health),
        started_at=task.started_at if runs else None,
        network=f"{configuration.ecosystem}:{configuration.network}",
        account=configuration.account,
        image=_short(configuration.image),
        last_error=task.reason,
        balance=_balance(supervisor, bot) if configuration.account else None,
        heartbeat_at=health.heartbeat if runs else None,
        lag=health.lag if runs else None,
        restarts=bot.restarts.count,
        next_start=bot.restarts.next_start,
    )


def _trouble(bot: BotRecord, healthy: bool) -> int:
    if bot.status is ResourceStatus.RUNNING:
        return 0 if healthy else 2
    if bot.status in STARTING:
        return 1
    return 3 if bot.status is ResourceStatus.STOPPED and bot.task.stop_code not in (BY_USER, BY_CLUSTER) else 0


def _why(bot: BotRecord, health: BotHealth) -> str | None:
    """Return what is wrong with a bot, or why it stopped, in one line."""
    text = bot.task.stopped_reason if bot.status is ResourceStatus.STOPPED else None
    if bot.status is ResourceStatus.RUNNING:
        text = health.reason
    return (text or "").partition("\n")[0] or None


def _balance(supervisor: Supervisor, bot: BotRecord) -> str | None:
    balance = read_balance(supervisor.runtime.work_folder(bot.id))
    return str(balance) if balance else None


def _short(image: str) -> str:
    """Shorten an image that is a folder of this machine to its last name and the module."""
    return image.rpartition("/")[2] if image.startswith("project:") else image
