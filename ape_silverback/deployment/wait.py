"""Waits until bots run and are healthy, or have stopped. Looking isn't judging: a bad answer is looked at again.

``verdict`` decides, and is pure. The cluster's ``/health`` shows in one request which bots are ready; only of the
others more is asked, and that less and less often.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.observed import status_or_error
from ape_silverback.deployment.state import ACTIVE
from ape_silverback.exceptions import (
    ClusterError,
    ConfigurationError,
    Forbidden,
    NotFound,
    SilverbackError,
    Unauthorized,
)
from ape_silverback.transport import deadline

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient
    from ape_silverback.cluster.types import Crash

LOG_LINES = 15
"""Log lines that are shown of a bot that fails."""

LOG_TIMEOUT = 20.0
"""Seconds that reading them takes at most: then they are the last ones of what was read."""

BEFORE_CRASH = timedelta(minutes=1)
"""How long before a crash its reason may be in the log."""

GROWTH = 1.25
"""Factor between two delays."""

LONGEST_DELAY = 10
"""Longest delay between two looks, in units of ``Timing.poll``."""


SETTLE = "SILVERBACK_SETTLE"
"""The environment variable for ``Timing.settle``."""


def _settle() -> float:
    """Return what ``SILVERBACK_SETTLE`` sets, or the default."""
    text = os.environ.get(SETTLE)
    if not text:
        return 7.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{SETTLE}={text}: expected a number of seconds, 0 or more")
    return seconds


@dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds.

    Attributes:
        timeout: for a bot to be running and healthy, from the end of the writes.
        settle: for it to stay so, without a break: a bot that dies after some seconds isn't taken for healthy.
            Default: the environment variable ``SILVERBACK_SETTLE``, or 7.
        start: for a bot to leave the state STOPPED after it was started, on a cluster that is slow to show it; no
            longer than ``timeout``.
        stop: for a running bot to stop before it is started again.
        poll: between the first two looks at the cluster; the delays grow to ten times as much.
    """

    timeout: float = 180.0
    settle: float = field(default_factory=_settle)
    start: float = 60.0
    stop: float = 60.0
    poll: float = 0.5

    def delays(self) -> Iterator[float]:
        """Return the delays between two looks, which grow."""
        delay = self.poll
        while True:
            yield delay
            delay = min(delay * GROWTH, self.poll * LONGEST_DELAY)


@dataclass(frozen=True)
class Sight:
    """What one look showed of one bot.

    Attributes:
        present: whether the cluster has it.
        status: None where this look doesn't show it.
        healthy: whether the cluster calls it healthy.
        is_sure: whether the cluster reports what became of the bot's task, so that a bot that looks stopped is.
        reason: why it stopped.
        crash: why it last crashed while it was waited for, on a cluster that has started it again since.
    """

    present: bool = True
    status: ResourceStatus | None = None
    healthy: bool = False
    is_sure: bool = False
    reason: str | None = None
    crash: str | None = None


@dataclass(frozen=True)
class Watched:
    """What is known of a bot that is waited for.

    Attributes:
        settle: seconds for which it has to stay healthy; none for one that runs on as it did.
        status: its last status.
        was_active: whether it was ever seen running, or on its way to it.
        ready: seconds from the begin of the waiting to when it was first seen healthy, and stayed so.
    """

    settle: float
    status: ResourceStatus | None = None
    was_active: bool = False
    ready: float | None = None

    def has_settled(self, elapsed: float) -> bool:
        """Return whether it had to stay healthy for a while, and that is over."""
        return self.ready is not None and elapsed - self.ready >= self.settle


@dataclass(frozen=True)
class Verdict:
    """What is decided of a bot: it is ready, or failed."""

    ready: bool
    text: str


def verdict(watched: Watched, sight: Sight, elapsed: float, timing: Timing) -> tuple[Watched, Verdict | None]:
    """Decide what one look means for one bot.

    Args:
        watched: what is known of it.
        sight: what was seen.
        elapsed: seconds since the waiting began.
        timing: how long to wait.

    Returns:
        What is known of it now, and what is decided; None while it isn't.
    """
    if not sight.present:
        return watched, Verdict(False, "it is no longer on the cluster")
    status = ResourceStatus.RUNNING if sight.healthy else sight.status or watched.status
    now = replace(watched, status=status, was_active=watched.was_active or status in ACTIVE)
    if sight.healthy:
        now = replace(now, ready=elapsed if watched.ready is None else watched.ready)
        return now, Verdict(True, "running and healthy") if now.has_settled(elapsed) else None
    now = replace(now, ready=None)
    if sight.crash is not None:
        return now, Verdict(False, f"it stopped: {sight.crash}")
    if status is ResourceStatus.STOPPED and sight.status is not None:
        if now.was_active or sight.is_sure:
            return now, Verdict(False, f"it stopped{': ' + sight.reason if sight.reason else ''}")
        if elapsed > min(timing.start, timing.timeout):
            return now, Verdict(False, f"still stopped {elapsed:.0f} s after it was started")
    if elapsed > timing.timeout:
        return now, Verdict(False, f"still {_state(now)} after {timing.timeout:g} s")
    return now, None


def _state(watched: Watched) -> str:
    if watched.status is None:
        return "in an unknown state"
    return "running but not healthy" if watched.status is ResourceStatus.RUNNING else str(watched.status).lower()


def wait_until_ready(
    client: ClusterClient,
    names: Iterable[str],
    timing: Timing,
    given_up: Callable[[], str | None] = lambda: None,
    kept: frozenset[str] = frozenset(),
) -> Iterator[Event]:
    """Wait for all bots at once until each runs and is healthy, or has failed.

    Args:
        client: client of their cluster.
        names: the bots to wait for.
        timing: how long, and for how long they have to stay so.
        given_up: returns why to wait no longer; None to go on.
        kept: those that run on as they did, so that they don't have to settle.

    Yields:
        A ``state`` event whenever a bot is seen in another state, and at last ``ready``, ``failed`` or ``skipped`` for
        each. No error is raised: an answer that makes no sense is asked for again until the time-out.
    """
    watched = {name: Watched(0.0 if name in kept else timing.settle) for name in names}
    look = _Look(client, timing, kept)
    started = time.monotonic()
    for delay in timing.delays():
        if not watched:
            return
        elapsed = time.monotonic() - started
        try:
            sights = look.at(watched, elapsed)
        except ClusterError as error:
            if isinstance(error, Unauthorized | Forbidden):
                yield from (Event("skipped", name, f"not waited for: {error}") for name in watched)
                return
            if elapsed > timing.timeout:
                yield from (Event("failed", name, f"its state couldn't be read: {error}") for name in watched)
                return
            sights = {}
        for name, sight in sights.items():
            before = watched[name]
            watched[name], decided = verdict(before, sight, elapsed, timing)
            yield from _seen(name, before, watched[name], decided)
            if decided is not None:
                status = watched.pop(name).status
                if decided.ready:
                    yield Event("ready", name, decided.text, status)
                else:
                    yield failure_of(client, look.bots.get(name), name, decided.text, status)
        if watched and (reason := given_up()):
            yield from (Event("skipped", name, f"not waited for: {reason}") for name in watched)
            return
        if watched:
            time.sleep(_until_next_look(watched.values(), time.monotonic() - started, delay, timing))


def _until_next_look(watched: Collection[Watched], elapsed: float, delay: float, timing: Timing) -> float:
    """Return the seconds until the next look: the delay, or an even share of the time that healthy bots settle."""
    ends = [one.ready + one.settle for one in watched if one.ready is not None]
    longest = timing.poll * LONGEST_DELAY
    if len(ends) < len(watched) or longest <= 0:
        return delay
    left = max(max(ends) - elapsed, 0.0)
    return left / max(math.ceil(left / longest), 1)


def _seen(name: str, before: Watched, now: Watched, decided: Verdict | None) -> Iterator[Event]:
    """Return what is worth telling of a look: another state, and the begin or the break of the settling."""
    if now.status is not None and now.status is not before.status:
        yield Event("state", name, str(now.status).lower(), now.status)
    if decided is None and before.ready is None and now.ready is not None:
        yield Event("state", name, f"healthy; has to stay so for {now.settle:g} s", now.status)
    if before.ready is not None and now.ready is None and now.status is ResourceStatus.RUNNING and decided is None:
        yield Event("state", name, "no longer healthy; waiting again", now.status)


class _Look:
    """Looks at a cluster, with as few requests as it takes.

    Args:
        kept: bots that run on as they did: what they crashed of before isn't the deployment's doing. The others were
            started, with which a cluster begins to count anew.

    Attributes:
        bots: as the cluster listed them last.
    """

    def __init__(self, client: ClusterClient, timing: Timing, kept: frozenset[str]) -> None:
        self._client = client
        self._timing = timing
        self._kept = kept
        self._crashed_before: dict[str, datetime | None] = {}
        self._due: dict[str, float] = {}
        self.bots: Mapping[str, Bot] = {}

    def at(self, watched: Mapping[str, Watched], elapsed: float) -> dict[str, Sight]:
        """Return what is seen of some bots now.

        Raises:
            ClusterError: the cluster doesn't answer as it should.
        """
        health = self._client.health.bots
        healthy = {name for name in watched if (service := health.get(name)) is not None and service.healthy}
        sights = {name: Sight(healthy=True) for name in healthy}
        if "restarts" in self._client.extensions and any(one.has_settled(elapsed) for one in watched.values()):
            self.bots = self._client.bots  # one may have crashed and come back between two looks
            crashes = {name: self._new_crash(name, self.bots[name]) for name in healthy if name in self.bots}
            sights |= {name: Sight(crash=crash.reason) for name, crash in crashes.items() if crash}
        others = [name for name in watched if name not in healthy]
        if not others:
            return sights
        asked = others if "task" in self._client.extensions else [one for one in others if self._is_due(one, elapsed)]
        if not asked:  # the list of bots wouldn't show their states either
            return sights | {name: Sight() for name in others}
        self.bots = self._client.bots
        asked = [name for name in asked if name in self.bots]
        statuses = status_or_error([self.bots[name] for name in asked])
        for name in others:
            if name not in self.bots:
                sights[name] = Sight(present=False)
                continue
            bot, status = self.bots[name], statuses.get(name)
            reason = bot.task.stopped_reason if bot.task else None
            if isinstance(status, NotFound):
                sights[name] = Sight(present=False)
            else:
                known = status if isinstance(status, ResourceStatus) else None
                crash = self._new_crash(name, bot)
                sights[name] = Sight(
                    status=known,
                    is_sure=bot.task is not None,
                    reason=reason,
                    crash=crash.reason if crash and known is not ResourceStatus.STOPPED else None,
                )
        return sights

    def _new_crash(self, name: str, bot: Bot) -> Crash | None:
        """Return the last crash of a bot; None for that which a bot to which nothing was done had before."""
        last = bot.restarts.crashes[-1] if bot.restarts and bot.restarts.crashes else None
        before = self._crashed_before.setdefault(name, last.time if last and name in self._kept else None)
        return last if last and (before is None or last.time > before) else None

    def _is_due(self, name: str, elapsed: float) -> bool:
        """Return whether to ask for this bot's own status: of one that is unhealthy for long, less and less often.

        Most bots are healthy soon, which the cluster's health shows for all of them at once. When one that still looks
        stopped would count as failed, it is asked.
        """
        first = self._timing.poll * LONGEST_DELAY
        if elapsed < self._due.get(name, first):
            return False
        start = min(self._timing.start, self._timing.timeout)
        later = elapsed + max(first, elapsed / 2)
        self._due[name] = start if elapsed < start < later else later
        return True


def wait_until_stopped(client: ClusterClient, names: Iterable[str], timing: Timing) -> Iterator[Event]:
    """Wait for all bots at once until each has stopped or its time is over.

    Args:
        client: client of their cluster.
        names: the bots to wait for.
        timing: how long.

    Yields:
        A ``state`` event whenever a bot is seen in another state, and at last ``applied`` or ``failed`` for each. No
        error is raised, as in ``wait_until_ready``.
    """
    left: dict[str, ResourceStatus | None] = dict.fromkeys(names)
    deadline = time.monotonic() + timing.stop
    for delay in timing.delays():
        if not left:
            return
        over = time.monotonic() > deadline
        try:
            bots = client.bots
        except ClusterError as error:
            if over or isinstance(error, Unauthorized | Forbidden):
                yield from (Event("failed", name, f"its state couldn't be read: {error}") for name in left)
                return
            time.sleep(delay)
            continue
        statuses = status_or_error(bots[name] for name in left if name in bots)
        for name, before in list(left.items()):
            status = statuses.get(name)
            if name not in bots or isinstance(status, NotFound):
                del left[name]
                yield Event("applied", name, "no longer on the cluster")
            elif status is ResourceStatus.STOPPED:
                del left[name]
                yield Event("applied", name, "stopped", status)
            elif over:
                del left[name]
                known = status if isinstance(status, ResourceStatus) else None
                yield Event("failed", name, f"asked to stop, but it still runs after {timing.stop:g} s", known)
            elif isinstance(status, ResourceStatus) and status is not before:
                left[name] = status
                yield Event("state", name, str(status).lower(), status)
        if left:
            time.sleep(delay)


def failure_of(client: ClusterClient, bot: Bot | None, name: str, text: str, status: ResourceStatus | None) -> Event:
    """Return the event of a failure, with what the bot last wrote. What can't be read is left out."""
    errors: tuple[str, ...] = ()
    log: deque[str] = deque(maxlen=LOG_LINES)
    try:
        bot = bot or client.bots.get(name)
        errors = tuple(bot.errors) if bot else ()
    except SilverbackError:
        pass
    try:
        with deadline(LOG_TIMEOUT):
            log.extend(entry.message for entry in (bot.get_logs(start_time=_log_since(bot)) if bot else ()))
    except SilverbackError:
        pass
    return Event("failed", name, text, status, errors, tuple(log))


def _log_since(bot: Bot) -> datetime | None:
    """Return since when a bot's log shows why it failed: since its start, and since before its last crash."""
    if bot.task is None or bot.task.started_at is None:
        return None
    crashes = bot.restarts.crashes if bot.restarts else []
    try:
        return min([bot.task.started_at, *(crash.time - BEFORE_CRASH for crash in crashes[-1:])])
    except OverflowError:  # a crash at the begin of the calendar
        return bot.task.started_at
