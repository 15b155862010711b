"""Watches the work of running bots: reads the files in which they record it, and notices when their health changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from uuid import UUID

from ape_silverback.cluster.types import BotHealth, HealthPolicy, ResourceStatus
from ape_silverback.server.health import judge, read_signs
from ape_silverback.server.runtimes import Runtime
from ape_silverback.server.store import BotRecord

LOOK_EVERY = 5.0
"""Seconds between two looks."""

HEALTHY = BotHealth(healthy=True)
"""Health of a bot that hasn't been looked at in this run."""


class WorkWatch:
    """The health of bots, as it was last looked at.

    Args:
        runtime: where bots run.
        policy: what is expected of bots without their own policy.
    """

    def __init__(self, runtime: Runtime, policy: HealthPolicy) -> None:
        self.policy = policy
        self._runtime = runtime
        self._health: dict[UUID, tuple[datetime | None, BotHealth]] = {}
        self._look_at = 0.0

    def health(self, bot: BotRecord) -> BotHealth:
        """Return the health of a running bot; what was seen of a former run doesn't count."""
        run, known = self._health.get(bot.id, (None, None))
        return known if known and run == bot.task.started_at else HEALTHY

    def has_begun(self, bot: BotRecord) -> bool:
        """Return whether a bot has shown in this run that it works, which it does once its start is complete."""
        return read_signs(self._runtime.work_folder(bot.id), bot.task.started_at) is not None

    def look(
        self, bots: Iterable[BotRecord], is_ready: Callable[[BotRecord], bool], *, every: float = LOOK_EVERY
    ) -> Iterator[tuple[BotRecord, str, str | None]]:
        """Judge running bots by what they record; yield those that turned unhealthy or recovered, and why.

        Args:
            bots: all bots.
            is_ready: returns whether a bot's log shows that its start is complete.
            every: seconds since the last look within which nothing is done.
        """
        if every and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + every
        now = datetime.now(timezone.utc)
        running = [bot for bot in bots if bot.status is ResourceStatus.RUNNING]
        for gone in self._health.keys() - {bot.id for bot in running}:
            del self._health[gone]
        for bot in running:
            signs = read_signs(self._runtime.work_folder(bot.id), bot.task.started_at)
            policy = bot.configuration.healthy or self.policy
            health = judge(policy, signs, bot.task.started_at, now, ready=is_ready(bot))
            before = self.health(bot)
            self._health[bot.id] = (bot.task.started_at, health)
            if health.healthy is not before.healthy:
                yield bot, "recovered" if health.healthy else "unhealthy", health.reason
