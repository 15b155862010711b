"""The watch over the bots: a thread that looks at them when something happened or is due, whatever fails."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Concatenate, ParamSpec
from uuid import UUID

from ape_silverback.server.runtimes import EngineError
from ape_silverback.server.store import BotRecord

P = ParamSpec("P")

GATHER = 0.02
"""Seconds for which more is waited for once something has happened: what happens at once is looked at once."""

log = logging.getLogger(__name__)


class Watch:
    """Looks at all bots again and again, until it is ended.

    A look that fails is logged and tried again. So is what fails with one bot, which is counted and touches no other
    one.

    Args:
        look: looks at all bots once.
        every: seconds between two looks when nothing happens.

    Attributes:
        every: as given.
    """

    def __init__(self, look: Callable[[], None], every: float) -> None:
        self.every = every
        self._look = look
        self._due = 0.0
        self._troubles: dict[UUID | None, str] = {}
        self._failures: Counter[UUID] = Counter()
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether it looks."""
        return self._thread.is_alive()

    @property
    def works(self) -> bool:
        """Whether it looks, and sees something: the last look as a whole didn't fail."""
        return self.is_alive and None not in self._troubles

    def begin(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Stop looking; waits for the end of a look, but not for long."""
        self._ended.set()
        self._woken.set()
        if self.is_alive:
            self._thread.join(timeout=5.0)

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def look_by(self, moment: float) -> None:
        """Look again by then, a time of ``time.monotonic``; only for the time until the next look."""
        self._due = min(self._due, moment)

    def trouble(self, bot: UUID) -> str | None:
        """Return what keeps a bot from being looked after; None if nothing does."""
        return self._troubles.get(bot)

    def failures(self, bot: UUID) -> int:
        """Return how often looking after a bot has failed."""
        return self._failures[bot]

    def guard(
        self, bot: BotRecord, do: Callable[Concatenate[BotRecord, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Do something for one bot; that it fails is logged and counted."""
        try:
            do(bot, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - it must touch no other bot
            self._failures[bot.id] += 1
            self.note_trouble(bot, error)
        else:
            if self._troubles.pop(bot.id, None):
                log.warning("bot '%s' is looked after again; that failed %d times", bot.name, self._failures[bot.id])

    def note_trouble(self, bot: BotRecord | None, error: Exception) -> None:
        """Note that a bot, or all of them, can't be looked after, and log it once for as long as it stays so."""
        key = bot.id if bot else None
        text = f"the cluster can't look after it: {error or type(error).__name__}"
        if self._troubles.get(key) != text:
            name = f"bot '{bot.name}'" if bot else "the bots"
            log.error(
                "can't look after %s, will try again: %s", name, error, exc_info=not isinstance(error, EngineError)
            )
        self._troubles[key] = text

    def _run(self) -> None:
        while not self._ended.is_set():
            self._woken.clear()
            self._due = float("inf")
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the watch goes on
                self.note_trouble(None, error)
            else:
                self._troubles.pop(None, None)
            self.look_by(time.monotonic() + self.every)
            self._woken.wait(max(self._due - time.monotonic(), 0.0))
            self._ended.wait(GATHER)
