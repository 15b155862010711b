"""Messages to people when something breaks: grouped, limited in rate, and sent through apprise.

The addresses hold secrets. They come from the environment of the server, are never written down, and never show in a
log or an error.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ape_silverback.config.models import NoticeKind
from ape_silverback.exceptions import ConfigurationError

logger = logging.getLogger(__name__)

TITLES: Mapping[NoticeKind, str] = {
    "crashed": "crashed",
    "restart-loop": "keeps crashing, and is no longer restarted",
    "unhealthy": "unhealthy",
    "recovered": "recovered",
    "circuit-breaker": "stopped after too many failed tasks",
    "deploy-failed": "deployment failed",
    "rolled-back": "deployment rolled back",
    "stream-low": "running out",
    "balance-low": "balance is low",
    "disk-low": "almost full",
}

GROUP_FOR = 10.0
"""Seconds for which events are collected into one message."""

QUIET_FOR = 600.0
"""Seconds in which the same event of the same thing is told once."""

MOST_LINES = 30
"""Lines of one message; the rest is counted."""

RETRY_AFTER = (5.0, 30.0, 120.0)
"""Seconds before a message that couldn't be sent is tried again."""


@dataclass(frozen=True)
class Notice:
    """Something that people are told of.

    Attributes:
        subject: what it happened to: the name of a bot, an account, a project.
        text: why, in one line.
    """

    kind: NoticeKind
    subject: str
    text: str = ""


@dataclass(frozen=True)
class Message:
    """A message, ready to be sent."""

    title: str
    body: str


@dataclass
class Digest:
    """Collects events into messages. Times are seconds of any clock that only goes forward; it doesn't read one itself.

    Attributes:
        kinds: events that are told; all others are dropped.
    """

    cluster: str
    kinds: frozenset[NoticeKind] = frozenset(TITLES)
    group_for: float = GROUP_FOR
    quiet_for: float = QUIET_FOR
    _waiting: list[Notice] = field(default_factory=list)
    _since: float | None = None
    _told: dict[tuple[NoticeKind, str], float] = field(default_factory=dict)
    _repeated: dict[tuple[NoticeKind, str], int] = field(default_factory=dict)

    def add(self, event: Notice, now: float) -> None:
        """Take an event in."""
        if event.kind not in self.kinds:
            return
        key = (event.kind, event.subject)
        if key in self._told and now - self._told[key] < self.quiet_for:
            self._repeated[key] = self._repeated.get(key, 0) + 1
            return
        self._told[key] = now
        self._waiting.append(event)
        self._since = now if self._since is None else self._since

    def due(self) -> float | None:
        """Return the time at which the next message is due; None while nothing waits."""
        return None if self._since is None else self._since + self.group_for

    def take(self, now: float) -> Message | None:
        """Return the message that is due, if one is, and begin the next one."""
        due = self.due()
        if due is None or now < due:
            return None
        events, self._waiting, self._since = self._waiting, [], None
        self._told = {key: told for key, told in self._told.items() if now - told < self.quiet_for}
        return self._message(events)

    def _message(self, events: Sequence[Notice]) -> Message:
        by_kind: dict[NoticeKind, list[Notice]] = {}
        for event in events:
            by_kind.setdefault(event.kind, []).append(event)
        title = "; ".join(
            f"{found[0].subject}: {TITLES[kind]}" if len(found) == 1 else f"{len(found)} x {TITLES[kind]}"
            for kind, found in by_kind.items()
        )
        lines = [self._line(event) for event in events]
        more = len(lines) - MOST_LINES
        body = "\n".join([*lines[:MOST_LINES], *([f"… and {more} more"] if more > 0 else [])])
        return Message(f"[{self.cluster}] {title}", body)

    def _line(self, event: Notice) -> str:
        again = self._repeated.pop((event.kind, event.subject), 0)
        often = f" ({again} more since the last message)" if again else ""
        return f"{event.subject}: {TITLES[event.kind]}{often}{': ' + event.text if event.text else ''}"


Send = Callable[[Message], bool]
"""Sends a message; returns whether every service took it."""


class Notifier:
    """Sends messages in the background, so that nothing that happens waits for a service.

    Args:
        digest: collects events.
        send: sends a message.
    """

    def __init__(self, digest: Digest, send: Send) -> None:
        self._digest = digest
        self._send = send
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def begin(self) -> None:
        """Begin to send."""
        self._thread.start()

    def end(self) -> None:
        """Send what waits, and stop; waits a few seconds at most."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def tell(self, event: Notice) -> None:
        """Notify people of an event, soon."""
        with self._changed:
            self._digest.add(event, time.monotonic())
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended:
                    due = self._digest.due()
                    left = None if due is None else due - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    self._changed.wait(left)
                ended = self._ended
                message = self._digest.take(float("inf") if ended else time.monotonic())
            if message is not None:
                self._deliver(message, () if ended else RETRY_AFTER)
            if ended:
                return

    def _deliver(self, message: Message, delays: Sequence[float]) -> None:
        for delay in (*delays, None):
            try:
                if self._send(message):
                    return
            except Exception as error:  # noqa: BLE001 - a service's failure must not end the thread
                logger.warning("a notification couldn't be sent: %s", type(error).__name__)
            if delay is None:
                break
            with self._changed:
                if self._ended or self._changed.wait_for(lambda: self._ended, delay):
                    break
        logger.warning("a notification wasn't delivered: %s", message.title)


class NotifySettings(BaseModel):
    """What a server was told of notifications. It names variables of the environment and never holds an address.

    Attributes:
        variables: names of the variables that hold the addresses.
        events: what is told.
        minimum_balance: balance of a signer below which it is low, in the currency of its network.
    """

    model_config = ConfigDict(frozen=True)

    variables: tuple[str, ...] = ()
    events: tuple[NoticeKind, ...] = tuple(TITLES)
    minimum_balance: Decimal = Decimal("0.01")

    def addresses(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the address that each variable holds.

        Args:
            environ: the environment; default: that of this process.

        Raises:
            ConfigurationError: a variable isn't set; names it.
        """
        environ = os.environ if environ is None else environ
        if missing := [name for name in self.variables if not environ.get(name, "").strip()]:
            verb = "isn't" if len(missing) == 1 else "aren't"
            raise ConfigurationError(
                f"{', '.join(missing)} {verb} set: `notify.urls` of the section, or --notify, takes the address for "
                "notifications from the environment; set it to one such as slack://…"
            )
        return {name: environ[name].strip() for name in self.variables}


def settings_file(folder: Path) -> Path:
    """Return the file of a cluster's folder that names what notifications need; it holds no address."""
    return folder / "notify.json"


def read_settings(file: Path) -> NotifySettings:
    """Return what was set up; nothing when nothing was, or when the file can't be read."""
    try:
        return NotifySettings.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return NotifySettings()
    except (OSError, ValueError) as error:
        logger.warning("%s can't be read, and no notifications are sent: %s", file, type(error).__name__)
        return NotifySettings()


def apprise_sender(addresses: Mapping[str, str]) -> Send:
    """Return what sends a message to each of some addresses, in apprise's notation.

    Args:
        addresses: name of a variable → the address that it holds, such as ``mailto://…``; it is a secret.

    Raises:
        ConfigurationError: an address isn't one that apprise knows; names the variable, not the address.
    """
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs parts of addresses
    services = apprise.Apprise()
    for name, address in addresses.items():
        if not services.add(address):
            raise ConfigurationError(
                f"{name} doesn't hold an address that apprise knows, such as slack://… or mailto://…"
            )

    def send(message: Message) -> bool:
        return bool(services.notify(title=message.title, body=message.body))

    return send
