"""Carries a plan out: groups first, then the bots side by side, then waits until they run and are healthy.

What happens is an event while it happens. A bot that fails doesn't stop the others, unless that is requested.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.deployment.events import AGAIN, NOT_STARTED, Event
from ape_silverback.deployment.journal import ActionJournal
from ape_silverback.deployment.plan import (
    Action,
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
    Value,
    field_of,
    started_after,
)
from ape_silverback.deployment.rollback import Rollback, find_group
from ape_silverback.deployment.wait import Timing, wait_until_ready, wait_until_stopped
from ape_silverback.exceptions import ClientError, DeployError, SilverbackError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient


@dataclass(frozen=True)
class ApplyOptions:
    """How a plan is carried out.

    Attributes:
        concurrency: most requests under way at once.
        max_unavailable: most running bots that may be down at once, those that failed included; each is healthy before
            the next is restarted. None to restart all at once.
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

    def __post_init__(self) -> None:
        if self.max_unavailable is not None and self.max_unavailable < 1:
            raise ValueError(f"max_unavailable is at least 1, or None for all at once; got {self.max_unavailable}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency is at least 1; got {self.concurrency}")


DEFAULT_APPLY_OPTIONS = ApplyOptions()


@dataclass(frozen=True)
class _Done:
    """What was written.

    Attributes:
        settles: the bot whose restart is no longer owed.
        made: the bot or the variable group that was created.
    """

    text: str
    settles: UUID | None = None
    made: UUID | None = None


@dataclass(frozen=True)
class _Stopping:
    """A bot that is about to stop, and is started once it has."""

    bot: Bot
    text: str


BotWrite = CreateBot | UpdateBot | RestartBot | StartBot


def apply_plan(
    plan: Plan,
    client: ClusterClient,
    values: Mapping[str, str],
    apply_options: ApplyOptions,
    journal: ActionJournal,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Carry a plan out.

    Args:
        plan: what to do, on the cluster of ``client``.
        client: client of the cluster.
        values: the values of the variables that the plan sends.
        apply_options: how.
        journal: is told of every action before it is done, and after.
        stop: set to begin nothing more; what is under way is finished.

    Yields:
        Events as they happen, the last one of each bot being ``ready``, ``failed``, ``skipped`` or ``rolled-back``, or
        ``applied`` for one that is removed or isn't waited for.
    """
    return _Application(plan, client, values, apply_options, journal, stop or threading.Event()).run()


@dataclass
class _Application:
    """A plan that is being carried out.

    Attributes:
        failed: names of what failed.
        skipped: names of what wasn't begun.
        ready: names of the bots that run and are healthy.
        stopped: bots that have stopped since it began.
        live: the bots of the cluster by id, as they were before the first write to one.
    """

    plan: Plan
    client: ClusterClient
    values: Mapping[str, str]
    options: ApplyOptions
    journal: ActionJournal
    stop: threading.Event
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    stopped: set[UUID] = field(default_factory=set)
    live: Mapping[UUID, Bot] = field(default_factory=dict)

    def run(self) -> Iterator[Event]:
        """Do all of it."""
        plan = self.plan
        with ThreadPoolExecutor(self.options.concurrency) as pool, self._ended_with_its_reader():
            yield from self._do(pool, plan.of(CreateGroup, UpdateGroup))
            if self.failed or self._halted() is not None:
                # A bot started without its variables would do the wrong thing: none is touched.
                reason = "a variable group couldn't be written" if self.failed else "interrupted"
                yield from self._skip((*plan.bot_actions, *plan.of(KeepBot, RemoveBot, RemoveGroup)), reason)
                return
            if plan.of(UpdateBot, RestartBot, StartBot, RemoveBot):
                self.live = {bot.id: bot for bot in self.client.bots.values()}
            yield from self._deploy_bots(pool)
            if self.options.rollback:
                yield from self._rollback().run(pool)
            yield from self._do(pool, plan.of(RemoveBot))
            yield from self._do(pool, plan.of(RemoveGroup))

    def _deploy_bots(self, pool: ThreadPoolExecutor) -> Iterator[Event]:
        """Write all bots at once, or those that are restarted so that only so many are down."""
        kept, bots, most = self.plan.of(KeepBot), self.plan.bot_actions, self.options.max_unavailable
        slow = [one for one in bots if most is not None and any(map(_is_restarted, _linked(one, bots)))]
        yield from self._do(pool, [one for one in bots if one not in slow])
        yield from self._wait([*(bot.name for bot in kept), *(bot.name for bot in bots if bot not in slow)])
        while most is not None and slow:
            down = sorted(self.failed.intersection(one.name for one in (*bots, *kept)))
            if len(down) >= most:
                verb = "is" if len(down) == 1 else "are"
                yield from self._skip(slow, f"{', '.join(down)} {verb} down, and no more than {most} may be at once")
                return
            wave = _next_wave(slow, most - len(down))
            slow = [one for one in slow if one not in wave]
            yield from self._do(pool, wave)
            yield from self._wait([bot.name for bot in wave])

    def _halted(self) -> str | None:
        """Return why nothing more is begun; None while it is."""
        if self.stop.is_set():
            return "interrupted"
        return "another failed" if self.options.fail_fast and self.failed else None

    @contextmanager
    def _ended_with_its_reader(self) -> Iterator[None]:
        """Begin nothing more when no more events are taken."""
        try:
            yield
        except BaseException:
            self.stop.set()
            raise

    def _skip(self, actions: Iterable[Action], reason: str) -> Iterator[Event]:
        for action in actions:
            self.skipped.add(action.name)
            yield Event("skipped", action.name, f"{NOT_STARTED}: {reason}")

    # Writing

    def _do(self, pool: ThreadPoolExecutor, actions: Sequence[Action]) -> Iterator[Event]:
        """Do actions side by side; bots that have to stop first are started as each has stopped.

        One that takes over the account of another bot is started once that one has stopped too.
        """
        held = [one for one in actions if _starts_at_once(one) and not self._may_start(one)]
        under_way = {pool.submit(self._act, action): action for action in actions if action not in held}
        stopping: dict[str, tuple[Action, _Stopping]] = {}
        for future in as_completed(under_way):
            outcome = future.result()
            if isinstance(outcome, _Stopping):
                action = under_way[future]
                stopping[outcome.bot.name] = action, outcome
                yield Event("state", action.name, "stopping", ResourceStatus.SHUTDOWN)
            else:
                yield self._noted(outcome)
        starting: set[Future[Event]] = set()
        down: list[tuple[Action, _Stopping]] = []
        for event in wait_until_stopped(self.client, list(stopping), self.options.timing):
            if event.kind == "state":
                continue
            action, stopped = stopping[event.name]
            if event.kind == "applied":
                self.stopped.add(stopped.bot.id)
            if event.kind == "applied" and event.status is not None:
                down.append((action, stopped))
            else:
                text = event.text if event.status is not None else f"it was removed in the meantime; {AGAIN}"
                self._end(action, failed=True)
                yield self._noted(Event("failed", action.name, text))
            for one in [one for one in down if self._may_start(one[0])]:
                down.remove(one)
                starting.add(pool.submit(self._start, *one))
            for started in [one for one in starting if one.done()]:
                starting.remove(started)
                yield self._noted(started.result())
        for action, _ in down:
            self._end(action, failed=True)
            text = f"stopped, and not started again: {self._former_signers(action)}; {AGAIN}"
            yield self._noted(Event("failed", action.name, text))
        for action in held:
            if self._may_start(action):
                starting.add(pool.submit(self._start_held, action))
            else:
                yield self._noted(Event("skipped", action.name, f"{NOT_STARTED}: {self._former_signers(action)}"))
        for started in as_completed(starting):
            yield self._noted(started.result())

    def _may_start(self, action: Action) -> bool:
        """Return whether no other bot runs any more with the account that a bot is started with."""
        return self.stopped.issuperset(started_after(action))

    def _former_signers(self, action: Action) -> str:
        """Return which bots still sign with the account of one."""
        names = [self.live[one].name if one in self.live else str(one) for one in started_after(action)]
        return f"{', '.join(names)} may still sign with its account"

    def _start_held(self, action: Action) -> Event:
        outcome = self._act(action)
        return outcome if isinstance(outcome, Event) else self._start(action, outcome)

    def _noted(self, event: Event) -> Event:
        if event.kind == "failed":
            self.failed.add(event.name)
        elif event.kind == "skipped":
            self.skipped.add(event.name)
        elif event.kind == "ready":
            self.ready.add(event.name)
        return event

    def _act(self, action: Action) -> Event | _Stopping:
        """Do one action, unless nothing more is begun."""
        if (reason := self._halted()) is not None:
            return Event("skipped", action.name, f"{NOT_STARTED}: {reason}")
        try:
            time = self.client.cluster_time() if isinstance(action, CreateBot | CreateGroup) else None
            self.journal.begin_action(action.kind, action.name, owed_restarts(self.plan, action), time)
            outcome = self._write(action)
        except SilverbackError as error:
            self._end(action, failed=True, refused=isinstance(error, ClientError))
            return Event("failed", action.name, str(error))
        if isinstance(outcome, _Stopping):
            return outcome
        self._end(action, outcome)
        return Event("applied", action.name, outcome.text, id=outcome.made if isinstance(action, CreateBot) else None)

    def _start(self, action: Action, stopped: _Stopping) -> Event:
        """Start a bot that has stopped. What was stopped is started, also when nothing more is begun."""
        try:
            stopped.bot.start()
        except SilverbackError as error:
            self._end(action, failed=True)
            return Event("failed", action.name, f"stopped, and not started again: {error}")
        self._end(action, _Done(stopped.text, settles=stopped.bot.id))
        return Event("applied", action.name, stopped.text)

    def _end(self, action: Action, done: _Done | None = None, *, failed: bool = False, refused: bool = False) -> None:
        settles, made = (done.settles, done.made) if done else (None, None)
        self.journal.end_action(action.kind, action.name, settles=settles, made=made, failed=failed, refused=refused)

    def _write(self, action: Action) -> _Done | _Stopping:
        """Do one action.

        Raises:
            ClusterError: a request failed.
            DeployError: the cluster isn't as the plan expects it.
        """
        match action:
            case CreateGroup():
                values = {variable: self.values[variable] for variable in action.variables}
                group = self.client.new_variable_group(action.name, values, identity=action.id)
                return _Done(f"created variable group ({', '.join(action.variables)})", made=group.id)
            case UpdateGroup():
                values = {variable: self.values[variable] for variable in (*action.add, *action.push)}
                find_group(self.client, action.name).update(**values, **dict.fromkeys(action.remove))
                return _Done("updated variable group")
            case RemoveGroup():
                find_group(self.client, action.name).remove()
                return _Done("removed variable group")
            case CreateBot():
                configuration = dict(action.configuration)
                made = self.client.new_bot(action.name, **configuration, identity=action.id, look_first=False)
                return _Done("created", made=made.id)
            case RemoveBot():
                return self._remove(action)
            case UpdateBot():
                return self._update(self._bot(action.id), action)
            case RestartBot():
                bot = self._bot(action.id)
                bot.stop()
                return _Stopping(bot, f"restarted: {action.reason}")
            case StartBot():
                bot = self._bot(action.id)
                if action.stopping:
                    return _Stopping(bot, "started")
                bot.start()
                return _Done("started", settles=bot.id)
            case KeepBot():
                return _Done("kept")

    def _bot(self, identity: UUID) -> Bot:
        if identity not in self.live:
            raise DeployError(f"it was removed from the cluster in the meantime; {AGAIN}")
        return self.live[identity]

    def _remove(self, action: RemoveBot) -> _Done:
        if (bot := self.live.get(action.id)) is None:
            return _Done("was removed already", settles=action.id)
        bot.remove()
        return _Done("removed", settles=action.id)

    def _update(self, bot: Bot, action: UpdateBot) -> _Done | _Stopping:
        moved = [change.field for change in action.changes if not self._is_expected(bot, change.field, action)]
        if moved:
            raise DeployError(f"its {', '.join(moved)} changed in the meantime; {AGAIN}")
        new: dict[str, Any] = action.new
        bot = bot.update(**new)
        if action.runs and action.holds_at_once:
            return _Done("updated")
        if action.runs and not action.restart:
            return _Done("updated; it runs with what it had until it is restarted")
        if action.restart:
            bot.stop()
            return _Stopping(bot, "updated and restarted")
        if action.stopping:
            return _Stopping(bot, "updated and started")
        bot.start()
        return _Done("updated and started", settles=bot.id)

    def _is_expected(self, bot: Bot, name: str, action: UpdateBot) -> bool:
        """Return whether a field of a bot is as the plan saw it, or as it is to be."""
        now: Value = field_of(bot.configuration, bot.name, name)
        if name == "credential_name" and bot.credential is not None:  # a cluster may answer with its id
            now = bot.credential.name
        return now in (action.old[name], action.new[name])

    # Waiting and going back

    def _rollback(self) -> Rollback:
        return Rollback(
            plan=self.plan,
            client=self.client,
            values=self.values,
            journal=self.journal,
            timing=self.options.timing,
            failed=self.failed,
            skipped=self.skipped,
            ready=self.ready,
        )

    def _wait(self, names: Iterable[str]) -> Iterator[Event]:
        if not self.options.wait:
            return
        begun = [name for name in names if name not in self.failed and name not in self.skipped]
        if self.options.fail_fast and self.failed:
            yield from (Event("skipped", name, "not waited for: another failed") for name in begun)
            return
        kept = frozenset(one.name for one in self.plan.of(KeepBot, UpdateBot) if one.runs_on)
        yield from map(self._noted, wait_until_ready(self.client, begun, self.options.timing, self._halted, kept))


def owed_restarts(plan: Plan, action: Action) -> dict[UUID, str]:
    """Return the restarts that are owed once an action of a plan is done: id of the bot → why."""
    match action:
        case UpdateBot():
            return {action.id: "it was changed without a restart"} if action.runs and not action.holds_at_once else {}
        case UpdateGroup():
            restarts = {one.id: one.reason for one in plan.of(RestartBot)}
            return restarts | {one.id: one.owes for one in plan.of(KeepBot) if one.owes}
        case RestartBot():
            return {action.id: action.reason}
        case KeepBot() | CreateGroup() | RemoveGroup() | CreateBot() | StartBot() | RemoveBot():
            return {}


def _starts_at_once(action: Action) -> bool:
    """Return whether an action starts its bot without stopping it first."""
    match action:
        case CreateBot():
            return True
        case StartBot():
            return not action.stopping
        case UpdateBot():
            return not action.runs and not action.stopping
        case _:
            return False


def _linked(action: BotWrite, bots: Sequence[BotWrite]) -> list[BotWrite]:
    """Return a bot's action with those of the bots that it exchanges accounts with, directly or not."""
    found, queue = [action], [action]
    while queue:
        one = queue.pop()
        for other in bots:
            ids = [getattr(other, "id", None) in one.after, getattr(one, "id", None) in other.after]
            if other not in found and any(ids):
                found.append(other)
                queue.append(other)
    return found


def _next_wave(slow: Sequence[BotWrite], room: int) -> list[BotWrite]:
    """Return the bots that are restarted next: as many as may be down at once, and those that exchange accounts."""
    wave: list[BotWrite] = []
    for action in slow:
        more = [one for one in _linked(action, slow) if one not in wave]
        if more and (not wave or sum(map(_is_restarted, [*wave, *more])) <= room):
            wave += more
    return wave


def _is_restarted(action: BotWrite) -> bool:
    """Return whether an action takes a running bot down for a while."""
    return isinstance(action, RestartBot) or (isinstance(action, UpdateBot) and action.restart)
