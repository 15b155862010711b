"""Carries a plan out: groups first, then the bots side by side, then waits until they run and are healthy.

What happens is told as events while it happens. A bot that fails doesn't stop the others, unless it is asked for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.deployment.observed import statuses_of
from ape_silverback.deployment.plan import (
    ACTIVE,
    CreateBot,
    CreateGroup,
    KeepBot,
    Plan,
    RemoveBot,
    RemoveGroup,
    RestartBot,
    StartBot,
    UpdateBot,
    UpdateGroup,
)
from ape_silverback.exceptions import DeployError, SilverbackError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient, VariableGroup

LOG_LINES = 15
"""Log lines that are shown of a bot that fails."""

NOT_STARTED = "not started"


@dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds.

    Attributes:
        timeout: for a bot to be running and healthy, from the end of the writes.
        settle: for it to stay so.
        stop: for a running bot to stop before it is started again.
        poll: between two looks at the cluster.
        grace: how long a bot may still look stopped after it was started, on a cluster that is slow to say so.
    """

    timeout: float = 180.0
    settle: float = 0.0
    stop: float = 60.0
    poll: float = 0.5
    grace: float = 15.0


@dataclass(frozen=True)
class ApplyOptions:
    """In what manner a plan is carried out.

    Attributes:
        concurrency: most actions under way at once.
        max_unavailable: most running bots that are restarted at once, each healthy before the next; None for all.
        fail_fast: begin nothing more once something failed.
        rollback: give a bot that fails after a change what it had before.
        wait: wait until the bots run and are healthy.
    """

    concurrency: int = CONCURRENCY
    max_unavailable: int | None = None
    fail_fast: bool = False
    rollback: bool = False
    wait: bool = True
    timing: Timing = field(default_factory=Timing)


DEFAULT_APPLY_OPTIONS = ApplyOptions()

Kind = Literal["built", "applied", "state", "ready", "failed", "skipped", "rolled-back"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a bot or to a variable group.

    Attributes:
        kind: ``built`` - the image of a bot was made; ``applied`` - a write was done; ``state`` - a bot is seen in
            another state; ``ready`` - it runs and is healthy; ``failed`` - it isn't what the project wants, and the
            text says why; ``skipped`` - it wasn't begun, or not waited for; ``rolled-back`` - after a failure it has
            what it had before.
        errors: of a failed bot, what the cluster tells as its errors.
        log: of a failed bot, its last log lines.
    """

    kind: Kind
    name: str
    text: str
    status: ResourceStatus | None = None
    errors: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


class Journal(Protocol):
    """Remembers what was begun, and which restarts are owed."""

    def begin_action(self, kind: str, name: str, owes: Mapping[str, str]) -> None:
        """An action is about to be done; once it is, the bots of these ids have to be restarted."""

    def end_action(self, kind: str, name: str, settles: str | None = None) -> None:
        """An action was done; the bot of this id no longer has to be restarted."""


class _Forgetful:
    """A journal of nothing."""

    def begin_action(self, kind: str, name: str, owes: Mapping[str, str]) -> None:
        pass

    def end_action(self, kind: str, name: str, settles: str | None = None) -> None:
        pass


def apply_plan(
    plan: Plan,
    client: ClusterClient,
    values: Mapping[str, str],
    apply_options: ApplyOptions = DEFAULT_APPLY_OPTIONS,
    journal: Journal | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Carry a plan out.

    Args:
        plan: what to do, on the cluster of ``client``.
        values: the values of the variables that the plan sends.
        manner: how.
        journal: told of every action before it is done, and after.
        stop: set to begin nothing more; what is under way is finished.

    Yields:
        Events as they happen, the last one of each bot being ``ready``, ``failed``, ``skipped`` or ``rolled-back``, or
        ``applied`` for one that is removed or isn't waited for.
    """
    return _Application(plan, client, values, apply_options, journal or _Forgetful(), stop or threading.Event()).run()


class _Application:
    def __init__(
        self,
        plan: Plan,
        client: ClusterClient,
        values: Mapping[str, str],
        apply_options: ApplyOptions,
        journal: Journal,
        stop: threading.Event,
    ) -> None:
        self.plan, self.client, self.values, self.apply_options, self.journal = (
            plan,
            client,
            values,
            apply_options,
            journal,
        )
        self.stop = stop
        self.failed: dict[str, Event] = {}
        self.skipped: set[str] = set()
        self.ready: set[str] = set()
        self.live: Mapping[str, Bot] = {}

    @property
    def halted(self) -> bool:
        """Whether nothing more is begun."""
        return self.stop.is_set() or (self.apply_options.fail_fast and bool(self.failed))

    def run(self) -> Iterator[Event]:
        """Do all of it."""
        plan = self.plan
        with ThreadPoolExecutor(self.apply_options.concurrency) as pool, self._ended_with_its_reader():
            yield from self._do(pool, plan.of(CreateGroup, UpdateGroup))
            bots = plan.of(CreateBot, UpdateBot, RestartBot, StartBot)
            if self.failed or self.halted:
                # A bot started without its variables would do the wrong thing: none is touched.
                reason = "a variable group could not be written" if self.failed else "interrupted"
                for action in (*plan.of(CreateBot, UpdateBot, RestartBot, StartBot, KeepBot, RemoveBot, RemoveGroup),):
                    yield Event("skipped", action.name, f"{NOT_STARTED}: {reason}")
                return
            if plan.of(UpdateBot, RestartBot, StartBot, RemoveBot):
                self.live = {str(bot.id): bot for bot in self.client.bots.values()}
            slow = [one for one in bots if isinstance(one, RestartBot) or (isinstance(one, UpdateBot) and one.restart)]
            size = self.apply_options.max_unavailable or max(1, len(slow))
            if self.apply_options.max_unavailable is None:
                yield from self._do(pool, bots)
                yield from self._wait([*(bot.name for bot in plan.of(KeepBot)), *(bot.name for bot in bots)])
            else:
                yield from self._do(pool, [one for one in bots if one not in slow])
                yield from self._wait([bot.name for bot in (*plan.of(KeepBot), *bots) if bot not in slow])
                for begin in range(0, len(slow), size):
                    some = slow[begin : begin + size]
                    yield from self._do(pool, some)
                    yield from self._wait([bot.name for bot in some])
            if self.apply_options.rollback:
                yield from self._roll_back(pool)
            yield from self._do(pool, plan.of(RemoveBot))
            yield from self._do(pool, plan.of(RemoveGroup))

    @contextmanager
    def _ended_with_its_reader(self) -> Iterator[None]:
        """Begin nothing more when nobody takes more events."""
        try:
            yield
        except BaseException:
            self.stop.set()
            raise

    def _do(self, pool: ThreadPoolExecutor, actions: Sequence[Any]) -> Generator[Event, None, None]:
        """Do actions side by side."""
        under_way = {pool.submit(self._act, action): action for action in actions}
        for future in as_completed(under_way):
            event = future.result()
            if event.kind == "failed":
                self.failed[event.name] = event
            elif event.kind == "skipped":
                self.skipped.add(event.name)
            yield event

    def _act(self, action: Any) -> Event:
        """Do one action, unless nothing more is begun; gives what became of it."""
        if self.halted:
            return Event("skipped", action.name, f"{NOT_STARTED}: {_why(self.stop)}")
        try:
            self.journal.begin_action(action.kind, action.name, self._owes(action))
            text, settles = self._write(action)
            self.journal.end_action(action.kind, action.name, settles)
        except SilverbackError as error:
            return Event("failed", action.name, str(error))
        return Event("applied", action.name, text)

    def _owes(self, action: Any) -> dict[str, str]:
        """Give the restarts that are owed once an action is done: id of the bot → why."""
        if isinstance(action, UpdateBot):
            return {str(action.id): "it was changed without a restart"} if action.runs else {}
        if isinstance(action, UpdateGroup):
            restarts = {str(one.id): one.reason for one in self.plan.of(RestartBot)}
            return restarts | {str(one.id): one.owes for one in self.plan.of(KeepBot) if one.owes}
        if isinstance(action, RestartBot):
            return {str(action.id): action.reason}
        return {}

    def _write(self, action: Any) -> tuple[str, str | None]:
        """Do one action; gives what to say of it, and the id of the bot whose restart is no longer owed."""
        name: str = action.name
        if isinstance(action, CreateGroup):
            self.client.new_variable_group(name, {variable: self.values[variable] for variable in action.variables})
            return f"created variable group ({', '.join(action.variables)})", None
        if isinstance(action, UpdateGroup):
            self._group(action).update(
                **{variable: self.values[variable] for variable in (*action.add, *action.push)},
                **dict.fromkeys(action.remove),
            )
            return "updated variable group", None
        if isinstance(action, RemoveGroup):
            self._group(action).remove()
            return "removed variable group", None
        if isinstance(action, CreateBot):
            self.client.new_bot(name, **action.configuration.model_dump())
            return "created", None
        bot = self.live.get(str(action.id))
        if isinstance(action, RemoveBot):
            if bot is None:
                return "was removed already", str(action.id)
            bot.remove()
            return "removed", str(bot.id)
        if bot is None:
            raise DeployError("it was removed from the cluster in the meantime; run deploy again")
        if isinstance(action, UpdateBot):
            return self._update(bot, action)
        if isinstance(action, RestartBot):
            _restart(bot, self.apply_options.timing)
            return f"restarted: {action.reason}", str(bot.id)
        bot.start()
        return "started", str(bot.id)

    def _update(self, bot: Bot, action: UpdateBot) -> tuple[str, str | None]:
        moved = [
            change.field
            for change in action.changes
            if (bot.name if change.field == "name" else getattr(bot.configuration, change.field))
            not in (change.old, change.new)
        ]
        if moved:
            raise DeployError(f"its {', '.join(moved)} changed in the meantime; run deploy again")
        new: dict[str, Any] = dict(action.new)
        bot = bot.update(**new)
        if not action.runs:
            bot.start()
            return "updated and started", str(bot.id)
        if not action.restart:
            return "updated; it runs with what it had until it is restarted", None
        _restart(bot, self.apply_options.timing)
        return "updated and restarted", str(bot.id)

    def _group(self, action: UpdateGroup | RemoveGroup) -> VariableGroup:
        for group in self.client.variable_groups.values():
            if group.name == action.name:
                return group
        raise DeployError("it was removed from the cluster in the meantime; run deploy again")

    def _wait(self, names: Iterable[str]) -> Iterator[Event]:
        if not self.apply_options.wait:
            return
        began = [name for name in names if name not in self.failed and name not in self.skipped]
        if self.apply_options.fail_fast and self.failed:
            yield from (Event("skipped", name, "not waited for: another failed") for name in began)
            return
        for event in wait_until_ready(self.client, began, self.apply_options.timing, self._stop_waiting):
            if event.kind == "failed":
                self.failed[event.name] = event
            elif event.kind == "ready":
                self.ready.add(event.name)
            yield event

    def _stop_waiting(self) -> str | None:
        if self.stop.is_set():
            return "interrupted"
        return "another failed" if self.apply_options.fail_fast and self.failed else None

    # Going back

    def _roll_back(self, pool: ThreadPoolExecutor) -> Iterator[Event]:
        """Give bots that failed after a change what they had, groups first; then wait for them."""
        bots = [one for one in self.plan.of(UpdateBot, RestartBot) if one.name in self.failed]
        if not bots:
            return
        users = {bot.name: set(bot.environment) for bot in self.client.bots.values()}
        for group in self.plan.of(UpdateGroup):
            if any(group.name in users.get(bot.name, ()) for bot in bots):
                happy = sorted(name for name in self.ready if group.name in users.get(name, ()))
                yield self._roll_group_back(group, happy)
        under_way = {pool.submit(self._roll_bot_back, action): action.name for action in bots}
        back = []
        for future in as_completed(under_way):
            event = future.result()
            if event.kind == "applied":
                back.append(event.name)
            yield event
        for event in wait_until_ready(self.client, back, self.apply_options.timing, lambda: None):
            if event.kind == "ready":
                yield Event("rolled-back", event.name, "it has what it had before, and is running and healthy")
            else:
                yield event

    def _roll_bot_back(self, action: UpdateBot | RestartBot) -> Event:
        try:
            bots = {str(bot.id): bot for bot in self.client.bots.values()}
            if (bot := bots.get(str(action.id))) is None:
                return Event("failed", action.name, "can't go back: it is no longer on the cluster")
            if isinstance(action, UpdateBot):
                old: dict[str, Any] = dict(action.old)
                if old.get("credential_name"):  # the cluster told its id, and takes its name
                    names = {one.id: one.name for one in self.client.credentials.values()}
                    old["credential_name"] = names.get(old["credential_name"], old["credential_name"])
                bot = bot.update(**old)
            _restart(bot, self.apply_options.timing)
            self.journal.end_action("rollback", action.name, str(bot.id))
        except SilverbackError as error:
            return Event("failed", action.name, f"can't go back: {error}")
        return Event("applied", bot.name, "gets back what it had")

    def _roll_group_back(self, action: UpdateGroup, happy: Sequence[str]) -> Event:
        if happy:
            return Event("skipped", action.name, f"keeps its new variables: {', '.join(happy)} runs well with them")
        known = [name for name in action.remove if name in self.values]
        lost = [*(name for name in action.remove if name not in self.values), *action.push]
        try:
            self._group(action).update(**dict.fromkeys(action.add), **{name: self.values[name] for name in known})
        except SilverbackError as error:
            return Event("failed", action.name, f"can't go back: {error}")
        text = f"; nobody knows the old values of {', '.join(lost)}" if lost else ""
        return Event("rolled-back", action.name, f"has the variables that it had{text}")


def _why(stop: threading.Event) -> str:
    return "interrupted" if stop.is_set() else "another failed"


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
    """What was seen of one bot while waiting.

    Attributes:
        ready: seconds from the begin of the waiting to when it was first seen running and healthy, and stayed so.
    """

    status: ResourceStatus | None = None
    was_active: bool = False
    ready: float | None = None


def wait_until_ready(
    client: ClusterClient,
    names: Iterable[str],
    timing: Timing,
    given_up: Callable[[], str | None] = lambda: None,
) -> Iterator[Event]:
    """Look at all bots at once until each runs and is healthy, or has failed.

    Args:
        client: of their cluster.
        names: the bots to wait for.
        timing: how long, and for how long they have to stay so.
        given_up: says why nobody waits any longer, if so.

    Yields:
        A ``state`` event whenever a bot is seen in another state, and at last ``ready``, ``failed`` or ``skipped`` for
        each.
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
                seen.ready = elapsed if seen.ready is None else seen.ready
                if elapsed - seen.ready >= timing.settle:
                    del watched[name]
                    yield Event("ready", name, "running and healthy", status)
            elif status is ResourceStatus.STOPPED and (seen.was_active or bot.task or elapsed > timing.grace):
                del watched[name]
                yield _failure(bot, status, _stopped_text(bot))
            elif seen.ready is not None:
                del watched[name]
                bot = client.bots.get(name, bot)  # it may have stopped between the two answers
                [status] = statuses_of([bot])
                stopped = status is ResourceStatus.STOPPED
                text = _stopped_text(bot) if stopped else f"it was healthy for {elapsed - seen.ready:.0f} s only"
                yield _failure(bot, status, text)
            elif elapsed > timing.timeout:
                del watched[name]
                state = "running but not healthy" if status is ResourceStatus.RUNNING else str(status).lower()
                yield _failure(bot, status, f"still {state} after {timing.timeout:g} s")
        if watched and (reason := given_up()):
            for name in watched:
                yield Event("skipped", name, f"not waited for: {reason}")
            return
        if watched:
            time.sleep(timing.poll)


def _stopped_text(bot: Bot) -> str:
    reason = bot.task.stopped_reason if bot.task else None
    return f"it stopped{': ' + reason if reason else ''}"


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
    except SilverbackError:
        errors = ()
    try:
        entries = bot.get_logs(start_time=bot.task.started_at if bot.task else None)
        log = tuple(entry.message for entry in deque(entries, maxlen=LOG_LINES))
    except SilverbackError:
        log = ()
    return Event("failed", bot.name, text, status, errors, log)
