"""Restarts bots beside any deployment: `bots restart`, `bots update --restart`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.wait import Timing, wait_until_stopped
from ape_silverback.exceptions import SilverbackError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient


def restart_bots(client: ClusterClient, bots: Sequence[Bot], timing: Timing) -> Iterator[Event]:
    """Stop running bots all at once, and start each as soon as it has stopped.

    Yields:
        ``state`` events, and at last ``applied`` or ``failed`` for each. To wait until they are healthy is up to the
        caller.
    """
    by_name = {bot.name: bot for bot in bots}

    def attempt(bot: Bot, do: Callable[[], None], done: str) -> Event:
        try:
            do()
        except SilverbackError as error:
            return Event("failed", bot.name, str(error))
        return Event("applied", bot.name, done)

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        asked = list(pool.map(lambda bot: attempt(bot, bot.stop, "asked to stop"), bots))
        yield from (event for event in asked if event.kind == "failed")
        stopping = [event.name for event in asked if event.kind == "applied"]
        starting = []
        for event in wait_until_stopped(client, stopping, timing):
            if event.kind == "applied" and event.status is not None:
                bot = by_name[event.name]
                starting.append(pool.submit(attempt, bot, bot.start, "restarted"))
            else:
                yield event
        for future in as_completed(starting):
            yield future.result()
