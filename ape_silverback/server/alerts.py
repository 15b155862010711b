"""What people are told of: events of bots, deployments that went wrong, and what runs low.

The disk, the time that is paid for and the balances of signers are looked at each minute. That one is low is told when
it becomes so, and then once a day for as long as it stays so.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.config.models import NoticeKind
from ape_silverback.durations import span_text
from ape_silverback.server.health import read_balance
from ape_silverback.server.notify import Digest, Notice, Notifier, NotifySettings, apprise_sender
from ape_silverback.server.store import Event
from ape_silverback.server.supervisor import Supervisor

logger = logging.getLogger(__name__)

LOOK_EVERY = 60.0
"""Seconds between two looks at what doesn't tell by itself."""

FREE_SHARE = 0.05
"""Share of the disk below which little is free."""

FREE_BYTES = 512 * 1024 * 1024
"""Bytes below which little is free, on a disk of any size."""

PAID_TIME = 3 * 86400.0
"""Seconds of paid time below which the stream runs low."""

TELL_AGAIN = 86400.0
"""Seconds after which it is told again that something is low."""

BALANCE_HOLDS = 600.0
"""Seconds for which a balance that a bot looked up counts."""

MOST_OUTCOMES = 5
"""Things of a deployment that a message names; the rest is counted."""

KINDS: Mapping[str, NoticeKind] = {
    "crashed": "crashed",
    "gave-up": "restart-loop",
    "circuit-breaker": "circuit-breaker",
    "unhealthy": "unhealthy",
    "recovered": "recovered",
}
"""Kind of an event of a bot → what people are told; they aren't told of the others."""


class Alerts:
    """Notifies people of what happens on one cluster.

    Args:
        supervisor: of the bots.
        notifier: sends the messages.
        folder: everything that the cluster keeps; its disk is looked at.
        expires: returns the Unix time up to which the cluster is paid for; None for one that hosts itself.
        minimum_balance: balance of a signer below which it is low, in the currency of its network.
        free_bytes: bytes of the disk below which little is free.
        every: seconds between two looks.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        notifier: Notifier,
        folder: Path,
        expires: Callable[[], float | None] = lambda: None,
        *,
        minimum_balance: Decimal = Decimal("0.01"),
        free_bytes: int = FREE_BYTES,
        every: float = LOOK_EVERY,
    ) -> None:
        self.notifier = notifier
        self._supervisor = supervisor
        self._folder = folder
        self._expires = expires
        self._minimum_balance = minimum_balance
        self._free_bytes = free_bytes
        self._every = every
        self._low: dict[tuple[NoticeKind, str], float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="alerts", daemon=True)
        supervisor.listeners.append(self.hear)

    def begin(self) -> None:
        """Begin to look and to send."""
        self.notifier.begin()
        self._thread.start()

    def end(self) -> None:
        """Send what waits, and stop."""
        self._ended.set()
        self._thread.join(timeout=5.0)
        self.notifier.end()

    def hear(self, event: Event) -> None:
        """Notify people of an event of a bot, if it is one for them."""
        if kind := KINDS.get(event.kind):
            self.notifier.tell(Notice(kind, event.name, event.reason or ""))

    def hear_outcome(self, project: str, line: Mapping[str, Any], by: str | None) -> None:
        """Notify people of a deployment that went wrong, from a line of a project's record.

        Args:
            project: what the record calls the project.
            line: was written at the end of the deployment, else it is left alone.
            by: who deployed, where that is known.
        """
        for notice in outcome_notices(project, line, by):
            self.notifier.tell(notice)

    def look(self) -> None:
        """Check what runs low, and send notices of what has become so."""
        low = {(notice.kind, notice.subject): notice for notice in self._all_low()}
        now = time.monotonic()
        for key, notice in low.items():
            if key not in self._low or now - self._low[key] >= TELL_AGAIN:
                self._low[key] = now
                self.notifier.tell(notice)
        self._low = {key: told for key, told in self._low.items() if key in low}

    def _all_low(self) -> Iterator[Notice]:
        try:
            disk = shutil.disk_usage(self._folder)
        except OSError as error:
            logger.warning("can't check the free space of %s: %s", self._folder, error.strerror)
        else:
            if disk.free < max(FREE_SHARE * disk.total, self._free_bytes):
                text = f"{disk.free // 1024**2} MiB of {disk.total // 1024**2} MiB are free"
                yield Notice("disk-low", "disk of the cluster", text)
        expires = self._expires()
        if expires is not None and expires - time.time() < PAID_TIME:
            left = span_text(max(0, int(expires - time.time())))
            yield Notice("stream-low", "payment stream", f"{left} left")
        for bot in self._supervisor.store.bots():
            configuration = bot.configuration
            if not configuration.account or bot.status is not ResourceStatus.RUNNING:
                continue
            balance = read_balance(self._supervisor.runtime.work_folder(bot.id))
            if balance is None or balance.amount >= self._minimum_balance:
                continue
            if (datetime.now(timezone.utc) - balance.time).total_seconds() < BALANCE_HOLDS:
                where = f"{configuration.account} on {configuration.ecosystem}:{configuration.network}"
                text = f"{balance} left, less than {self._minimum_balance:f}; bot '{bot.name}' signs with it"
                yield Notice("balance-low", where, text)

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self.look()
            except sqlite3.Error as error:
                if self._supervisor.store.is_closed:
                    return
                logger.warning("can't check what runs low: %s", error)


def outcome_notices(project: str, line: Mapping[str, Any], by: str | None) -> list[Notice]:
    """Return what people are told of the end of a deployment: nothing for one that succeeded. Pure."""
    outcome, number = line.get("outcome"), line.get("id")
    if not isinstance(outcome, dict):
        return []
    who = f" by {by}" if by else ""
    notices = []
    kinds: tuple[tuple[NoticeKind, str], ...] = (("deploy-failed", "failed"), ("rolled-back", "rolled-back"))
    for kind, word in kinds:
        touched = [f"{name} {text}" for name, text in outcome.items() if str(text).startswith(word)]
        if touched:
            more = len(touched) - MOST_OUTCOMES
            told = "; ".join([*touched[:MOST_OUTCOMES], *([f"and {more} more"] if more > 0 else [])])
            notices.append(Notice(kind, f"{project}, deployment {number}{who}", told))
    return notices


def alerts_of(
    settings: NotifySettings,
    supervisor: Supervisor,
    folder: Path,
    cluster: str,
    environ: Mapping[str, str],
    expires: Callable[[], float | None] = lambda: None,
) -> Alerts | None:
    """Return what notifies people of one cluster; None if notifications aren't configured.

    Args:
        settings: whom, and of what.
        supervisor: of the bots.
        folder: everything that the cluster keeps.
        cluster: how to call the cluster in messages.
        environ: the environment, which holds the addresses.
        expires: returns the Unix time up to which the cluster is paid for; None for one that hosts itself.

    Raises:
        ConfigurationError: a variable isn't set, or doesn't hold an address.
    """
    if not settings.variables:
        return None
    send = apprise_sender(settings.addresses(environ))
    notifier = Notifier(Digest(cluster, frozenset(settings.events)), send)
    return Alerts(supervisor, notifier, folder, expires, minimum_balance=settings.minimum_balance)
