"""Carries a plan out: groups first, then the bots side by side, then waits until they run and are healthy.

What happens is told as events while it happens. A bot that fails doesn't stop the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.deployment.live import CONCURRENCY, statuses_of
from ape_silverback.deployment.plan import (
    ACTIVE,
    BotAction,
    CreateBot,
    CreateGroup,
    GroupAction,
    KeepBot,
    Plan,
    RestartBot,
    UpdateBot,
)
from ape_silverback.exceptions import ClusterError, DeployError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient

LOG_LINES = 15
"""Log lines that are shown of a bot that fails."""


@dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds.

    Attributes:
        timeout: for a bot to be running and healthy, from the end of the writes.
        stop: for a running bot to stop before it is started again.
        poll: between two looks at the cluster.
        grace: how long a bot may still look stopped after it was started, on a cluster that is slow to say so.
    """

    timeout: float = 180.0
    stop: float = 60.0
    poll: float = 0.5
    grace: float = 15.0


@dataclass(frozen=True)
class Event:
    """Something that happened to a bot or to a variable group.

    Attributes:
        kind: ``applied`` - a write was done; ``state`` - a bot is seen in another state; ``ready`` - it runs and is
            healthy; ``failed`` - it isn't what the project wants, and the text says why.
        errors: of a failed bot, what the cluster tells as its errors.
        log: of a failed bot, its last log lines.
    """

    kind: Literal["applied", "state", "ready", "failed"]
    name: str
    text: str
    status: ResourceStatus | None = None
    errors: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


def apply_plan(
    plan: Plan,
    client: ClusterClient,
    values: Mapping[str, str],
    timing: Timing = Timing(),
) -> Iterator[Event]:
    """Carry a plan out.

    Args:
        plan: what to do, on the cluster of ``client``.
        values: the values of the variables that the plan sends.
        timing: how long to wait.

    Yields:
        Events as they happen, the last one of each bot being ``ready`` or ``failed``.
    """
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        failed = yield from _run(pool, plan.groups, lambda action: _apply_group(action, client, values))
        if failed:
            # A bot started without its variables would do the wrong thing: none is touched.
            for action in plan.bots:
                yield Event("failed", action.name, "not started: a variable group could not be written")
            return
        live = client.bots if any(not isinstance(action, CreateBot | KeepBot) for action in plan.bots) else {}
        failed = yield from _run(pool, plan.bots, lambda action: _apply_bot(action, client, live, timing))
        waiting = [action.name for action in plan.bots if action.name not in failed]
        yield from wait_until_ready(client, waiting, timing)


def _run(
    pool: ThreadPoolExecutor,
    actions: tuple[GroupAction, ...] | tuple[BotAction, ...],
    act: Callable[..., str | None],
) -> Generator[Event, None, set[str]]:
    """Do actions side by side; give the names of those that failed."""
    failed: set[str] = set()
    under_way = {pool.submit(act, action): action.name for action in actions}
    for future in as_completed(under_way):
        name = under_way[future]
        try:
            text = future.result()
        except (ClusterError, DeployError) as error:
            failed.add(name)
            yield Event("failed", name, str(error))
        else:
            if text:
                yield Event("applied", name, text)
    return failed


def _apply_group(action: GroupAction, client: ClusterClient, values: Mapping[str, str]) -> str:
    if isinstance(action, CreateGroup):
        client.new_variable_group(action.name, {name: values[name] for name in action.variables})
        return f"created variable group ({', '.join(action.variables)})"
    group = client.variable_groups[action.name]
    changes: dict[str, str | None] = {name: values[name] for name in action.add}
    group.update(**changes, **dict.fromkeys(action.remove))
    return "updated variable group"


def _apply_bot(action: BotAction, client: ClusterClient, live: Mapping[str, Bot], timing: Timing) -> str | None:
    if isinstance(action, KeepBot):
        return None
    if isinstance(action, CreateBot):
        client.new_bot(action.name, **action.configuration)
        return "created"
    if (bot := live.get(action.name)) is None:
        raise DeployError("it was removed from the cluster in the meantime; run deploy again")
    if isinstance(action, UpdateBot):
        bot = bot.update(**{change.field: change.new for change in action.changes})
        if action.restart:
            _restart(bot, timing)
            return "updated and restarted"
        bot.start()
        return "updated and started"
    if isinstance(action, RestartBot):
        _restart(bot, timing)
        return f"restarted: {action.reason}"
    bot.start()
    return "started"


def _restart(bot: Bot, timing: Timing) -> None:
    stop_and_wait(bot, timing)
    bot.start()


def stop_and_wait(bot: Bot, timing: Timing) -> None:
    """Stop a bot and wait until it has stopped.

    Raises:
        ClusterError: a request failed.
        DeployError: it didn't stop in time.
    """
    bot.stop()
    deadline = time.monotonic() + timing.stop
    while bot.status is not ResourceStatus.STOPPED:
        if time.monotonic() > deadline:
            raise DeployError(f"asked to stop, but it still runs after {timing.stop:g} s")
        time.sleep(timing.poll)


@dataclass
class _Watched:
    """What was seen of one bot while waiting."""

    status: ResourceStatus | None = None
    was_active: bool = False


def wait_until_ready(client: ClusterClient, names: Iterable[str], timing: Timing) -> Iterator[Event]:
    """Look at all bots at once until each runs and is healthy, or has failed.

    Args:
        client: of their cluster.
        names: the bots to wait for.
        timing: how long.

    Yields:
        A ``state`` event whenever a bot is seen in another state, and at last ``ready`` or ``failed`` for each.
    """
    watched = {name: _Watched() for name in names}
    started = time.monotonic()
    while watched:
        elapsed = time.monotonic() - started
        bots, health = client.bots, client.health
        present = {name: bots[name] for name in watched if name in bots}
        statuses = dict(zip(present, statuses_of(present.values()), strict=True))
        for name in list(watched):
            seen = watched[name]
            if name not in present:
                del watched[name]
                yield Event("failed", name, "it is no longer on the cluster")
                continue
            bot, status = present[name], statuses[name]
            healthy = (service := health.bots.get(name)) is not None and service.healthy
            if status is not seen.status:
                seen.status = status
                yield Event("state", name, str(status).lower(), status)
            seen.was_active |= status in ACTIVE
            if status is ResourceStatus.RUNNING and healthy:
                del watched[name]
                yield Event("ready", name, "running and healthy", status)
            elif status is ResourceStatus.STOPPED and (seen.was_active or bot.task or elapsed > timing.grace):
                del watched[name]
                reason = bot.task.stopped_reason if bot.task else None
                yield _failure(bot, status, f"it stopped{': ' + reason if reason else ''}")
            elif elapsed > timing.timeout:
                del watched[name]
                state = "running but not healthy" if status is ResourceStatus.RUNNING else str(status).lower()
                yield _failure(bot, status, f"still {state} after {timing.timeout:g} s")
        if watched:
            time.sleep(timing.poll)


def wait_until_stopped(client: ClusterClient, names: Iterable[str], timing: Timing) -> Iterator[Event]:
    """Look at all bots at once until each has stopped or its time is over.

    Args:
        client: of their cluster.
        names: the bots to wait for.
        timing: how long.

    Yields:
        A ``state`` event whenever a bot is seen in another state, and at last ``applied`` or ``failed`` for each.
    """
    left: dict[str, ResourceStatus | None] = dict.fromkeys(names)
    deadline = time.monotonic() + timing.stop
    while left:
        bots = client.bots
        present = {name: bots[name] for name in left if name in bots}
        statuses = dict(zip(present, statuses_of(present.values()), strict=True))
        for name, seen in list(left.items()):
            status = statuses.get(name)
            if status is None or status is ResourceStatus.STOPPED:
                del left[name]
                yield Event("applied", name, "stopped" if status else "no longer on the cluster", status)
            elif time.monotonic() > deadline:
                del left[name]
                yield Event("failed", name, f"asked to stop, but it still runs after {timing.stop:g} s", status)
            elif status is not seen:
                left[name] = status
                yield Event("state", name, str(status).lower(), status)
        if left:
            time.sleep(timing.poll)


def _failure(bot: Bot, status: ResourceStatus, text: str) -> Event:
    """Tell a failure with what the bot last said. What can't be read is left out: the failure is the news."""
    try:
        errors = tuple(bot.errors)
    except ClusterError:
        errors = ()
    try:
        entries = bot.get_logs(start_time=bot.task.started_at if bot.task else None)
        log = tuple(entry.message for entry in deque(entries, maxlen=LOG_LINES))
    except ClusterError:
        log = ()
    return Event("failed", bot.name, text, status, errors, log)
