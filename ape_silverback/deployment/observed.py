"""What a cluster has, read in a constant number of requests."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.concurrency import CONCURRENCY, map_threads
from ape_silverback.deployment.plan import LiveBot, LiveGroup, LiveState

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient


def read_live_state(client: ClusterClient, cluster: str, names: Iterable[str]) -> LiveState:
    """Read bots, groups and credentials at once.

    Args:
        client: of the cluster.
        cluster: how to call the cluster in what users read.
        names: the bots whose state is needed. Of a cluster that doesn't tell states in its list, only these are asked.

    Raises:
        ClusterError: a request failed.
    """
    wanted = set(names)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        groups = pool.submit(lambda: client.variable_groups)
        credentials = pool.submit(lambda: client.credentials)
        configuration = pool.submit(lambda: client.configuration)
        bots = client.bots
        asked = [bot for bot in bots.values() if bot.name in wanted]
        statuses = dict(zip((bot.name for bot in asked), statuses_of(asked), strict=True))
        paid = configuration.result()
        return LiveState(
            cluster=cluster,
            bots={name: _live_bot(bot, statuses.get(name)) for name, bot in bots.items()},
            groups={
                name: LiveGroup(group.id, name, frozenset(group.variables)) for name, group in groups.result().items()
            },
            credentials={name: credential.id for name, credential in credentials.result().items()},
            limit=paid.bots if paid else None,
        )


def statuses_of(bots: Iterable[Bot]) -> list[ResourceStatus]:
    """Give bots' statuses from what the cluster told with them, else by requests of their own, side by side."""

    def status_of(bot: Bot) -> ResourceStatus:
        if bot.task is not None and bot.task.last_status in ResourceStatus.__members__:
            return ResourceStatus[bot.task.last_status]
        return bot.status

    bots = list(bots)
    if all(bot.task is not None for bot in bots):  # nothing to ask: no threads
        return [status_of(bot) for bot in bots]
    return map_threads(status_of, bots)


def _live_bot(bot: Bot, status: ResourceStatus | None) -> LiveBot:
    return LiveBot(id=bot.id, name=bot.name, status=status, configuration=bot.configuration)
