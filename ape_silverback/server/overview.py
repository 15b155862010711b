"""What there is to see of each bot, for the dashboard and for Prometheus, sorted by trouble."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
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
        uptime: seconds since it was started; None while it doesn't run.
        heartbeat_age: seconds since it last told that it works.
        lag: blocks between the head of its chain and the last block that it handled.
        restarts: how often the cluster started it again after a crash.
    """

    id: UUID
    name: str
    status: ResourceStatus
    healthy: bool
    trouble: int
    why: str | None
    uptime: float | None
    network: str
    account: str | None
    image: str
    last_error: str | None
    heartbeat_age: float | None = None
    lag: int | None = None
    restarts: int = 0


def overview(supervisor: Supervisor, now: datetime | None = None) -> list[BotOverview]:
    """Return all bots at a glance, those in the worst trouble first, else by name.

    Args:
        supervisor: of the bots.
        now: the time; default: that of the clock.
    """
    now = now or datetime.now(timezone.utc)
    bots = [overview_of(bot, now) for bot in supervisor.store.bots() if bot.status < ResourceStatus.DEPROVISIONING]
    return sorted(bots, key=lambda bot: (-bot.trouble, bot.name))


def overview_of(bot: BotRecord, now: datetime | None = None) -> BotOverview:
    """Return one bot at a glance; ``now`` as for ``overview``."""
    now = now or datetime.now(timezone.utc)
    task, configuration = bot.task, bot.configuration
    runs = bot.status in (ResourceStatus.STARTUP, ResourceStatus.RUNNING)
    return BotOverview(
        id=bot.id,
        name=bot.name,
        status=bot.status,
        healthy=bot.status is ResourceStatus.RUNNING,
        trouble=_trouble(bot),
        why=(task.stopped_reason or "").partition("\n")[0] or None if bot.status is ResourceStatus.STOPPED else None,
        uptime=max(0.0, (now - task.started_at).total_seconds()) if runs and task.started_at else None,
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
