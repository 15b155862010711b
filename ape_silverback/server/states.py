"""Records what becomes of bots: their states, and the events that listeners hear of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from ape_silverback.cluster.types import BotTaskStatus, ResourceStatus
from ape_silverback.server.end_of_run import End
from ape_silverback.server.lifecycle import STARTUP, STOPPED, TRANSITIONS, GoneError, ImpossibleTransition
from ape_silverback.server.store import BotRecord, Event, Store

log = logging.getLogger(__name__)


class States:
    """The states of a cluster's bots, as the store keeps them.

    Args:
        store: where they are kept.

    Attributes:
        listeners: called with each event, from any thread; they must not wait.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.listeners: list[Callable[[Event], None]] = []

    def reload(self, bot: BotRecord) -> BotRecord:
        """Return a bot as it is now.

        Raises:
            GoneError: it was removed in the meantime.
        """
        if (now := self.store.bot(bot.id)) is None:
            raise GoneError(f"bot '{bot.name}' was removed")
        return now

    def enter(self, bot: BotRecord, status: ResourceStatus, *, wanted: bool | None = None, **changes: Any) -> None:
        """Record that a bot is in another state.

        Args:
            wanted: whether it should run; None to leave that as it was.
            changes: of its ``BotTaskStatus``.

        Raises:
            ImpossibleTransition: that state can't follow the one that the bot is in.
        """
        if status not in TRANSITIONS[bot.status]:
            raise ImpossibleTransition(f"bot '{bot.name}' can't go from {bot.status!r} to {status!r}")
        self.rewrite(bot, status, wanted=wanted, **changes)

    def enter_startup(self, bot: BotRecord) -> None:
        """Record that a bot is being started, and forget how its last run ended."""
        self.enter(
            bot,
            STARTUP,
            wanted=True,
            started_at=datetime.now(timezone.utc),
            exit_code=None,
            reason=None,
            stop_code=None,
            stopped_at=None,
            stopped_reason=None,
        )

    def enter_stopped(self, bot: BotRecord, end: End, reason: str | None = None) -> None:
        """Record that a bot's run has ended.

        Args:
            reason: why it stays down, if there is more to it than how the run ended.
        """
        self.enter(
            bot,
            STOPPED,
            exit_code=end.exit_code,
            reason=end.error,
            stop_code=end.code,
            stopped_at=end.time or datetime.now(timezone.utc),
            stopped_reason=reason or end.reason,
        )

    def rewrite(self, bot: BotRecord, status: ResourceStatus, *, wanted: bool | None = None, **changes: Any) -> None:
        """Record what is known of a bot now, whatever state it was in; with the arguments of ``enter``."""
        task = BotTaskStatus.model_validate({**bot.task.model_dump(), "last_status": status.name, **changes})
        self.store.set_bot_state(bot.id, task, bot.wanted if wanted is None else wanted)

    def tell(self, bot: BotRecord, kind: str, reason: str | None = None) -> None:
        """Record an event of a bot, and tell the listeners."""
        event = Event(bot.id, bot.name, datetime.now(timezone.utc), kind, reason)
        self.store.add_event(event)
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed with %s of bot '%s'", kind, bot.name)
