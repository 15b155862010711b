"""What people are told of: events of bots and, looked at each minute, the disk and the time that is paid for."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ape_silverback.config.models import NoticeKind
from ape_silverback.durations import span_text
from ape_silverback.server.notify import Digest, Notice, Notifier, apprise_sender, read_settings, settings_file
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
    """

    def __init__(
        self,
        supervisor: Supervisor,
        notifier: Notifier,
        folder: Path,
        expires: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.notifier = notifier
        self._folder = folder
        self._expires = expires
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

    def look(self) -> None:
        """Look at the disk and at the time that is paid for."""
        try:
            disk = shutil.disk_usage(self._folder)
        except OSError as error:
            logger.warning("the disk of %s can't be looked at: %s", self._folder, error.strerror)
        else:
            if disk.free < max(FREE_SHARE * disk.total, FREE_BYTES):
                text = f"{disk.free // 1024**2} MiB of {disk.total // 1024**2} MiB are free"
                self.notifier.tell(Notice("disk-low", "disk of the cluster", text))
        expires = self._expires()
        if expires is not None and expires - time.time() < PAID_TIME:
            left = span_text(max(0, int(expires - time.time())))
            self.notifier.tell(Notice("stream-low", "payment stream", f"{left} left"))

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            self.look()


def alerts_of(supervisor: Supervisor, folder: Path, cluster: str, environ: Mapping[str, str]) -> Alerts | None:
    """Return what tells people, as ``notify.json`` in a cluster's folder sets it up; None where nobody is told.

    Args:
        supervisor: of the bots.
        folder: everything that the cluster keeps.
        cluster: how to call the cluster in messages.
        environ: the environment, which holds the addresses.

    Raises:
        ConfigurationError: a variable isn't set, or doesn't hold an address.
    """
    settings = read_settings(settings_file(folder))
    if not settings.variables:
        return None
    send = apprise_sender(settings.addresses(environ))
    return Alerts(supervisor, Notifier(Digest(cluster, frozenset(settings.events)), send), folder)
