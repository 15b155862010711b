"""What state bots are in, in as few requests as any cluster allows.

The cluster that ships with this package has each bot's state in the list. On others, ``GET /health`` shows in one
answer which bots are healthy, and a healthy bot runs: only the rest has to be asked one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ape_silverback.cluster.cluster import Bot, ClusterClient
from ape_silverback.cluster.types import ClusterHealth, ResourceStatus
from ape_silverback.concurrency import map_threads
from ape_silverback.exceptions import NotFound


@dataclass(frozen=True)
class BotState:
    """A bot, and how it is.

    Attributes:
        bot: with its configuration.
        status: its status; None if only the bot itself could have been asked, and wasn't.
        healthy: whether it is healthy; None if the cluster's health doesn't name it.
    """

    bot: Bot
    status: ResourceStatus | None
    healthy: bool | None


def read_states(client: ClusterClient) -> list[BotState]:
    """Read every bot of a cluster with its state: two requests, and one for each bot whose state neither of them shows.

    Args:
        client: of the cluster.

    Raises:
        ClusterError: a request failed.
    """
    with ThreadPoolExecutor(1) as pool:
        health = pool.submit(lambda: client.health)
        bots = client.list_bots()
        return states_of(bots, health.result())


def states_of(
    bots: Iterable[Bot], health: ClusterHealth | None, ask: Callable[[Bot], bool] = lambda _: True
) -> list[BotState]:
    """Return the states of bots, in order, from what the cluster has told.

    Args:
        bots: as they were listed.
        health: of their cluster, read with them; None if it wasn't.
        ask: whether a bot may be asked for its status, where nothing else shows it.

    Raises:
        ClusterError: a request failed.
    """
    bots = list(bots)
    number = Counter(bot.name for bot in bots)  # health goes by name: of two with one name, it shows nothing
    services = health.bots if health else {}
    healthy = [found.healthy if (found := services.get(bot.name)) and number[bot.name] == 1 else None for bot in bots]

    def status_of(bot: Bot, well: bool | None) -> ResourceStatus | None:
        if bot.task is not None and bot.task.last_status in ResourceStatus.__members__:
            return ResourceStatus[bot.task.last_status]
        return ResourceStatus.RUNNING if well else None

    statuses = [status_of(bot, well) for bot, well in zip(bots, healthy, strict=True)]
    unknown = [bot for bot, status in zip(bots, statuses, strict=True) if status is None and ask(bot)]
    asked = dict(zip((bot.id for bot in unknown), map_threads(_ask, unknown), strict=True))
    return [
        BotState(bot, asked.get(bot.id, status), well)
        for bot, status, well in zip(bots, statuses, healthy, strict=True)
    ]


def _ask(bot: Bot) -> ResourceStatus:
    try:
        return bot.status
    except NotFound:  # removed since it was listed
        return ResourceStatus.REMOVED
