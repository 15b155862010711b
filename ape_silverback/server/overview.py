"""What there is to see of each bot, for the dashboard and for Prometheus, sorted by trouble."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.server.store import BotRecord
from ape_silverback.server.supervisor import BY_CLUSTER, BY_USER, Supervisor

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
        heartbeat_at: when it last showed that it works.
        lag: blocks between the head of its chain and the last block that it handled.
        restarts: how often the cluster started it again after a crash.
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
    heartbeat_at: datetime | None = None
    lag: int | None = None
    restarts: int = 0


def overview(supervisor: Supervisor) -> list[BotOverview]:
    """Return all bots at a glance, those in the worst trouble first, else by name."""
    bots = [overview_of(bot) for bot in supervisor.store.bots() if bot.status < ResourceStatus.DEPROVISIONING]
    return sorted(bots, key=lambda bot: (-bot.trouble, bot.name))


def overview_of(bot: BotRecord) -> BotOverview:
    """Return one bot at a glance."""
    task, configuration = bot.task, bot.configuration
    runs = bot.status in (ResourceStatus.STARTUP, ResourceStatus.RUNNING)
    return BotOverview(
        id=bot.id,
        name=bot.name,
        status=bot.status,
        healthy=bot.status is ResourceStatus.RUNNING,
        trouble=_trouble(bot),
        why=(task.stopped_reason or "").partition("\n")[0] or None if bot.status is ResourceStatus.STOPPED else None,
        started_at=task.started_at if runs else None,
        network=f"{configuration.ecosystem}:{configuration.network}",
        account=configuration.account,
        image=_short(configuration.image),
        last_error=task.reason,
    )


def _trouble(bot: BotRecord) -> int:
    if bot.status is ResourceStatus.RUNNING:
        return 0
    if bot.status in STARTING:
        return 1
    return 3 if bot.status is ResourceStatus.STOPPED and bot.task.stop_code not in (BY_USER, BY_CLUSTER) else 0


def _short(image: str) -> str:
    """Shorten an image that is a folder of this machine to its last name and the module."""
    return image.rpartition("/")[2] if image.startswith("project:") else image
