"""Keeps bots in the state that they should be in: does what users ask for, and watches what the runtime sees."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Concatenate, ParamSpec

from ape_silverback.cluster.bot_errors import last_error_line
from ape_silverback.cluster.types import (
    BotConfiguration,
    BotHealth,
    BotTaskStatus,
    ClusterConfiguration,
    Crash,
    HealthPolicy,
    ResourceStatus,
    RestartPolicy,
    RestartStatus,
)
from ape_silverback.server.lifecycle import (
    ALIVE,
    BY_CLUSTER,
    BY_ITSELF,
    BY_SIGNAL,
    BY_USER,
    CREATED,
    DEPROVISIONING,
    NEVER_RAN,
    PROVISIONING,
    REMOVED,
    RUNNING,
    SHUTDOWN,
    STARTUP,
    STOP_REASONS,
    STOPPED,
    TRANSITIONS,
    WHAT_IT_DOES,
    BusyError,
    GoneError,
    ImpossibleTransition,
    end_text,
    seconds_since,
    went_down,
)
from ape_silverback.server.logs import LoggedError, errors_of_run, last_lines_of_run
from ape_silverback.server.quota import limits_of
from ape_silverback.server.removed import RemovedLogs
from ape_silverback.server.restarts import CRASHES_SHOWN, GiveUp, Restart, after_crash, after_end
from ape_silverback.server.runtimes import (
    GONE,
    Credential,
    EngineError,
    ImageError,
    Limits,
    MeasuringRuntime,
    NodesRuntime,
    Observation,
    Run,
    Runtime,
)
from ape_silverback.server.store import BotRecord, Event, Store
from ape_silverback.server.work import WorkWatch

SWEEP = 2.0
"""Seconds between two polls of a runtime that reports changes by itself."""

P = ParamSpec("P")

Decision = Callable[[RestartPolicy, Sequence[Crash], float], Restart | GiveUp | None]
"""Returns what follows an end: of the policy, the ends so far, and chance."""

log = logging.getLogger(__name__)


class Supervisor:
    """Keeps bots in the state that they should be in, and records each change.

    Args:
        store: where bots and states are kept.
        runtime: where bots run.
        variables_of: returns the environment of a bot.
        poll: seconds between two looks at a runtime that doesn't tell by itself when something changed.
        ready_after: seconds alive after which a bot counts as running though neither its log nor its work shows it.
        stop_grace: seconds that a bot has to stop before it is killed.
        remove_grace: likewise when it is removed, which its user waits for.
        limits: what each bot may use at most, where the runtime can hold it to that.
        restart: when bots without their own policy are started again.
        healthy: what is expected of bots for which nothing else is set.

    Attributes:
        paid: what is paid for; None for a cluster that hosts itself.
        keep_running: whether bots go on when this ends; the next server adopts them.
        listeners: called with each event, from any thread; they must not wait.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        variables_of: Callable[[BotRecord], Mapping[str, str]],
        *,
        poll: float = 0.2,
        ready_after: float = 60.0,
        stop_grace: float = 20.0,
        remove_grace: float = 5.0,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        restart: RestartPolicy = RestartPolicy(),  # noqa: B008 - frozen
        healthy: HealthPolicy = HealthPolicy(),  # noqa: B008 - frozen
    ) -> None:
        self.store = store
        self.runtime = runtime
        self.variables_of = variables_of
        self.poll = poll
        self.ready_after = ready_after
        self.stop_grace = stop_grace
        self.remove_grace = remove_grace
        self.limits = limits
        self.restart = restart
        self.work = WorkWatch(runtime, healthy)
        self.removed = RemovedLogs(store, runtime)
        self.paid: ClusterConfiguration | None = None
        self.keep_running = False
        self.listeners: list[Callable[[Event], None]] = []
        self._lock = threading.RLock()
        self._kill_at: dict[uuid.UUID, float] = {}
        self._seen: dict[uuid.UUID, Observation] = {}
        self._troubles: dict[uuid.UUID | None, str] = {}
        self._sweep = poll
        self._due = 0.0
        self._is_stopping = False
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    # The server's life

    def begin(self) -> None:
        """Adopt the bots of the last server, and watch."""
        if self.runtime.listen(self._woken.set):
            self._sweep = max(self.poll, SWEEP)
        self.adopt()
        self._thread.start()

    def adopt(self) -> None:
        """Adopt the bots of the last server: those that still run go on, those that ran at its end are started."""
        with self._lock:
            try:
                seen = self.runtime.poll(self.store.runtime_states())
            except EngineError as error:
                self._note_trouble(None, error)  # the watch goes on asking
                return
            for bot in self.store.bots():
                self._guarded(self._adopt_seen, bot, seen)

    def end(self) -> None:
        """Stop all bots and then watching. The next server starts those again that ran."""
        if not self.keep_running:
            self._stop_all()
        self._ended.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _stop_all(self) -> None:
        self._is_stopping = True
        deadline = time.monotonic() + self.stop_grace + 5.0
        while time.monotonic() < deadline:
            with self._lock:
                bots = self.store.bots()
                for bot in bots:  # one that was asked to start while it stopped has started meanwhile
                    if bot.status in (STARTUP, RUNNING):
                        self._guarded(self._shut_down, bot, BY_CLUSTER)
            if not any(bot.status in ALIVE for bot in bots):
                return
            if not self._thread.is_alive():
                self.look()
            time.sleep(self.poll / 2)

    # What users ask for

    def create(
        self,
        name: str,
        configuration: BotConfiguration,
        check: Callable[[], BotRecord | None] = lambda: None,
        bot_id: uuid.UUID | None = None,
    ) -> BotRecord:
        """Create a bot and start it.

        Args:
            name: its name.
            configuration: what it is.
            check: raises if it can't be created, and returns the bot if it was already; what it sees still holds when
                the bot is created.
            bot_id: its id; None for a new one.

        Raises:
            NameTakenError: there is one of this name.
        """
        with self._lock:
            with self.store.transaction():
                if (there := check()) is not None:
                    return there
                bot = self.store.add_bot(name, configuration, bot_id)
                self._enter(bot, PROVISIONING)
            self._start(self._reload(bot), "created")
            return self._reload(bot)

    def start(self, bot: BotRecord) -> None:
        """Start a bot; one that runs or starts stays as it is, one that is stopping starts once it has stopped.

        Raises:
            BusyError: it is being removed.
        """
        with self._lock:
            bot = self._reload(bot)
            match bot.status:
                case ResourceStatus.STOPPED:
                    self.store.set_restarts(bot.id, RestartStatus())
                    self._start(self._reload(bot), "by the user")
                case ResourceStatus.SHUTDOWN:
                    self._rewrite(bot, SHUTDOWN, wanted=True)
                case ResourceStatus.DEPROVISIONING:
                    raise BusyError(f"bot '{bot.name}' is being removed and can't be started")

    def stop(self, bot: BotRecord) -> None:
        """Begin to stop a bot; one that would be started again stays down."""
        with self._lock:
            bot = self._reload(bot)
            if bot.status in (STARTUP, RUNNING):
                self._shut_down(bot, BY_USER)
            elif bot.status in (SHUTDOWN, STOPPED):
                self._rewrite(bot, bot.status, wanted=False)
                if bot.restarts.next_start:
                    self.store.set_restarts(bot.id, bot.restarts.model_copy(update={"next_start": None}))

    def begin_removal(self, bot: BotRecord) -> None:
        """Begin to remove a bot, which stops it first.

        Raises:
            GoneError: it was removed, or another request removes it already.
        """
        with self._lock:
            bot = self._reload(bot)
            if bot.status is DEPROVISIONING:
                raise GoneError(f"bot '{bot.name}' is being removed")
            if bot.status in ALIVE and (seen := self.seen(bot)).unreachable_since:
                raise BusyError(
                    f"bot '{bot.name}' may still run on node {seen.node}, which doesn't answer; move it once that node "
                    f"is off, or wait for the node: `bots move {bot.name} NODE`"
                )
            self._enter(bot, DEPROVISIONING, wanted=False)
            self._kill_at[bot.id] = time.monotonic() + self.remove_grace
            self.runtime.stop(bot.id, self.store.runtime_state(bot.id))
            self._woken.set()

    def remove(self, bot: BotRecord) -> None:
        """Remove a bot, and wait until it is gone.

        Raises:
            GoneError: it was removed, or another request removes it already.
        """
        self.begin_removal(bot)
        while not self.is_gone(bot):
            time.sleep(self.poll / 4)

    def is_gone(self, bot: BotRecord) -> bool:
        """Return whether a bot is removed, after having a look at one that is being removed."""
        with self._lock:
            found = self.store.bot(bot.id)
            if found is None:
                return True
            if found.status is DEPROVISIONING:
                state = self.store.runtime_state(bot.id)
                with suppress(EngineError):
                    self._look_at(found, self._noted(found, self.runtime.poll({bot.id: state})))
            return self.store.bot(bot.id) is None

    def move(self, bot: BotRecord, node: str, *, fenced: bool) -> None:
        """Bind a bot to another machine, and start it there if it should run.

        Args:
            node: name or id of the machine.
            fenced: whether its user knows that its former machine is off, or can't reach anything.

        Raises:
            BusyError: it runs, or may run out of sight.
            EngineError: the machine doesn't exist or can't take it.
        """
        with self._lock:
            bot = self._reload(bot)
            if not isinstance(self.runtime, NodesRuntime):
                raise BusyError(f"this cluster runs its bots on one machine (runtime {self.runtime.name})")
            state = self.store.runtime_state(bot.id)
            seen = self._noted(bot, self.runtime.poll({bot.id: state}))
            if seen.alive and not seen.unreachable_since:
                raise BusyError(f"bot '{bot.name}' is running on node {seen.node}; stop it first")
            if seen.alive and not fenced:
                raise BusyError(
                    f"node {seen.node} doesn't answer, and bot '{bot.name}' may still be running and signing there; "
                    "move it only once that node is off or cut off from everything, and confirm that"
                )
            self.store.set_runtime_state(bot.id, self.runtime.move(bot.id, self.store.runtime_state(bot.id), node))
            self._seen.pop(bot.id, None)
            if bot.status in ALIVE:
                self._enter_stopped(bot, GONE, BY_CLUSTER, f"moved to node {node}", None)
            self._tell(bot, "moved", f"to node {node}")
            if bot.wanted:
                self._start(self._reload(bot), f"moved to node {node}")

    # What users see

    @property
    def is_watching(self) -> bool:
        """Whether the watch goes on, and the runtime answers it."""
        return self._thread.is_alive() and None not in self._troubles

    def seen(self, bot: BotRecord) -> Observation:
        """Return what the runtime last told of a bot."""
        return self._seen.get(bot.id, GONE)

    def memory(self, bots: Sequence[BotRecord]) -> int | None:
        """Return how many bytes of memory bots use; None where the runtime holds each of them to an amount."""
        if not isinstance(self.runtime, MeasuringRuntime):
            return None
        return self.runtime.memory([bot.id for bot in bots])

    def errors(self, bot: BotRecord) -> list[LoggedError]:
        """Return what went wrong in the latest run of a bot."""
        ended = bot.status in (STOPPED, DEPROVISIONING)
        died = ended and bot.task.stop_code in (BY_ITSELF, BY_SIGNAL, NEVER_RAN)
        base, started = self.runtime.log_file(bot.id), bot.task.started_at
        known = self.store.acknowledged(bot.id)
        logged = errors_of_run(base, max(known, started or known) if known else started)
        reason = bot.task.stopped_reason
        if not died or not reason or (known and bot.task.stopped_at and known >= bot.task.stopped_at):
            return logged
        ended_at = bot.task.stopped_at
        if logged or bot.task.exit_code == 0:
            return [LoggedError(ended_at, reason), *logged]
        # Its last lines aren't errors themselves: there may be nothing wrong in them.
        last = last_lines_of_run(base, started)
        return [LoggedError(ended_at, f"{reason}; before that:\n{last}" if last else reason)]

    def health(self, bot: BotRecord) -> BotHealth:
        """Return how healthy a bot is, as it was last looked at."""
        if trouble := self._troubles.get(bot.id):
            return BotHealth(healthy=False, reason=trouble)
        if bot.status in ALIVE and (seen := self.seen(bot)).unreachable_since:
            since = f"{seen.unreachable_since:%Y-%m-%d %H:%M:%S} UTC"
            return BotHealth(healthy=False, reason=f"unreachable since {since}: its node {seen.node} doesn't answer")
        if bot.status is not RUNNING:
            reason = bot.task.stopped_reason if bot.status is STOPPED else None
            return BotHealth(healthy=False, reason=reason or WHAT_IT_DOES[bot.status])
        return self.work.health(bot)

    # The watch

    def look(self) -> None:
        """Poll all bots once and record what changed. The watch does this all the time."""
        with self._lock:
            bots = self.store.bots()
            watched = [bot for bot in bots if bot.status in ALIVE or bot.status is DEPROVISIONING]
            states = self.store.runtime_states() if watched else {}
            seen = self.runtime.poll({bot.id: states.get(bot.id, {}) for bot in watched}) if watched else {}
            self._due = time.monotonic() + self._sweep
            for bot in watched:
                self._guarded(self._look_at_seen, bot, seen)
            for bot in bots:
                if bot.status is STOPPED and bot.restarts.next_start and not self._is_stopping:
                    self._guarded(self._start_if_due, bot)
            for bot, kind, reason in self.work.look(bots, lambda bot: self.seen(bot).ready):
                self._guarded(self._tell, bot, kind, reason)
            self.removed.purge()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self._woken.clear()
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the watch goes on
                self._note_trouble(None, error)
                self._due = time.monotonic() + max(self._sweep, self.poll)
            else:
                self._troubles.pop(None, None)
            self._woken.wait(max(self._due - time.monotonic(), 0.0))
            if self._sweep > self.poll:
                self._ended.wait(0.02)  # what happens at once is looked at once

    def _guarded(
        self, do: Callable[Concatenate[BotRecord, P], None], bot: BotRecord, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Do something for one bot. That it fails is logged, and touches no other one."""
        try:
            do(bot, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see above
            self._note_trouble(bot, error)
        else:
            self._troubles.pop(bot.id, None)

    def _note_trouble(self, bot: BotRecord | None, error: Exception) -> None:
        text = f"the cluster can't look after it: {error or type(error).__name__}"
        key = bot.id if bot else None
        if self._troubles.get(key) != text:  # once, and not at each attempt
            name = f"bot '{bot.name}'" if bot else "the bots"
            log.error("can't look after %s, tries again: %s", name, error, exc_info=not isinstance(error, EngineError))
        self._troubles[key] = text

    def _noted(self, bot: BotRecord, all_seen: Mapping[uuid.UUID, Observation]) -> Observation:
        """Return what was seen of a bot, once what the runtime wants to remember of it is kept."""
        self._seen[bot.id] = seen = all_seen.get(bot.id, GONE)
        if seen.state is not None:
            self.store.set_runtime_state(bot.id, seen.state)
        return seen

    def _adopt_seen(self, bot: BotRecord, seen: Mapping[uuid.UUID, Observation]) -> None:
        self._adopt(bot, self._noted(bot, seen))

    def _look_at_seen(self, bot: BotRecord, seen: Mapping[uuid.UUID, Observation]) -> None:
        self._look_at(bot, self._noted(bot, seen))

    def _look_at(self, bot: BotRecord, seen: Observation) -> None:
        if not seen.alive and bot.status is DEPROVISIONING:
            self._finish_removal(bot)
        elif not seen.alive:
            self._note_end(bot, seen)
        elif bot.status in (SHUTDOWN, DEPROVISIONING):
            kill_at = self._kill_at.setdefault(bot.id, time.monotonic() + self.stop_grace)
            if time.monotonic() > kill_at:
                self.runtime.kill(bot.id, self.store.runtime_state(bot.id))
                kill_at = time.monotonic() + self.poll
            self._due = min(self._due, kill_at)
        elif bot.status is STARTUP and seen.note != bot.task.reason:
            self._rewrite(bot, STARTUP, reason=seen.note)  # how far the pull of its image is
        elif bot.status is STARTUP and (
            seen.ready
            or self.work.has_begun(bot)
            or (seen.note is None and seconds_since(seen.started_at) > self.ready_after)
        ):
            self._enter(bot, RUNNING)
            self._tell(bot, "running")

    # What the watch does with one bot

    def _adopt(self, bot: BotRecord, seen: Observation) -> None:
        """Set the state of a bot right after the server was away."""
        if bot.status is DEPROVISIONING or (bot.status is SHUTDOWN and seen.alive):
            # The last server may have been killed before it asked.
            self._kill_at[bot.id] = time.monotonic() + self.stop_grace
            self.runtime.stop(bot.id, self.store.runtime_state(bot.id))
        elif bot.status in ALIVE and seen.alive:
            pass
        elif bot.status in ALIVE and not went_down(seen):
            self._note_end(bot, seen)
        elif bot.status in ALIVE or bot.status in (CREATED, PROVISIONING):
            # It ended together with the server, or never began.
            self._rewrite(bot, STOPPED, stop_code=BY_CLUSTER, stopped_reason="the cluster went down")
        bot = self._reload(bot)
        if bot.status is STOPPED and bot.wanted and bot.task.stop_code == BY_CLUSTER:
            self._start(bot, "the cluster is up again")

    def _finish_removal(self, bot: BotRecord) -> None:
        self._kill_at.pop(bot.id, None)
        self._seen.pop(bot.id, None)
        state = self.store.runtime_state(bot.id)
        errors = [one.message for one in self.errors(bot)] if bot.task.started_at else []
        self.removed.keep_log(bot.id)
        self.runtime.discard(bot.id, state)
        with self.store.transaction():
            self._enter(bot, REMOVED)
            self.store.add_removed_bot(bot, errors)
            self.store.remove_bot(bot.id)
        self._tell(bot, "removed")

    def _start_if_due(self, bot: BotRecord) -> None:
        due, now = bot.restarts.next_start, datetime.now(timezone.utc)
        policy = bot.configuration.restart or self.restart
        assert due  # noqa: S101 - the caller looked
        wait = (due - now).total_seconds()
        if wait > 2 * policy.max_backoff + policy.backoff:  # the clock was set back
            wait = 0.0
        if wait > 0:
            self._due = min(self._due, time.monotonic() + wait)
            return
        restarts = bot.restarts.model_copy(update={"count": bot.restarts.count + 1, "next_start": None})
        self.store.set_restarts(bot.id, restarts)
        self._start(self._reload(bot), f"restart {restarts.count}")

    def _start(self, bot: BotRecord, why: str) -> None:
        """Start a bot, once it is recorded that it starts."""
        self._enter_startup(bot)
        self._launch(self._reload(bot), why)

    def _enter_startup(self, bot: BotRecord) -> None:
        self._enter(
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

    def _launch(self, bot: BotRecord, why: str) -> None:
        try:
            state = self.runtime.start(self._run_of(bot), self.store.runtime_state(bot.id))
        except Exception as error:  # noqa: BLE001 - the failure becomes its reason
            reason = f"can't be started: {error or type(error).__name__}"
            log.warning("bot '%s' %s", bot.name, reason)
            passing = isinstance(error, EngineError | OSError) and not isinstance(error, ImageError)
            self._note_failure(bot, GONE, NEVER_RAN, reason, None, may_restart=passing)
            return
        self.store.set_runtime_state(bot.id, state)
        self._tell(bot, "started", why)

    def _run_of(self, bot: BotRecord) -> Run:
        configuration, credential = bot.configuration, None
        for one in self.store.credentials():
            if configuration.credential_name in (one.name, one.id):
                credential = Credential(one.hostname, one.username, self.store.password_of(one.name))
        return Run(
            bot=bot.id,
            name=bot.name,
            image=configuration.image,
            variables=self.variables_of(bot),
            account=configuration.account,
            credential=credential,
            limits=limits_of(self.limits, self.paid),
            cores=self.paid.cpu if self.paid else None,
            stop_grace=self.stop_grace,
        )

    def _shut_down(self, bot: BotRecord, stop_code: str) -> None:
        self._enter(bot, SHUTDOWN, wanted=stop_code != BY_USER, stop_code=stop_code)
        self._kill_at[bot.id] = time.monotonic() + self.stop_grace
        self.runtime.stop(bot.id, self.store.runtime_state(bot.id))
        self._woken.set()

    def _note_end(self, bot: BotRecord, seen: Observation) -> None:
        """Record the end of a run, and decide what follows it."""
        self._kill_at.pop(bot.id, None)
        base, started = self.runtime.log_file(bot.id), bot.task.started_at
        code = bot.task.stop_code if bot.status is SHUTDOWN else None
        if code in STOP_REASONS:
            # Asked to start meanwhile: it isn't shown as stopped in between.
            again = bot.wanted and code == BY_USER
            with self.store.transaction():
                self._enter_stopped(bot, seen, code, STOP_REASONS[code], None)
                self._tell(bot, "stopped", STOP_REASONS[code])
                if again:
                    self.store.set_restarts(bot.id, RestartStatus())
                    self._enter_startup(self._reload(bot))
            if again:
                self._launch(self._reload(bot), "by the user")
            return
        if seen.interrupted:  # no crash of the bot: its node was away, or was told to take no bots
            with self.store.transaction():
                self._enter_stopped(bot, seen, BY_CLUSTER, f"ended by the engine on node {seen.node}", None)
                self._tell(bot, "stopped", f"ended by the engine on node {seen.node}")
            self._start(self._reload(bot), "ended by the engine")
            return
        if seen.failure:
            self._note_failure(bot, seen, NEVER_RAN, f"can't be started: {seen.failure}", None, may_restart=True)
            return
        errors = [one.message for one in errors_of_run(base, started)]
        if seen.exit_code == 0 and not seen.interrupted:
            self._note_own_end(bot, seen, last_error_line(errors))
            return
        error = last_error_line(errors or [last_lines_of_run(base, started)])
        code = BY_SIGNAL if seen.exit_code is not None and seen.exit_code > 128 else BY_ITSELF
        end = f"{seen.note}: {end_text(seen.exit_code)}" if seen.note else end_text(seen.exit_code)
        reason = end + (f": {error}" if error and code == BY_ITSELF else "")
        self._note_failure(bot, seen, code, reason, error, may_restart=True)

    def _note_own_end(self, bot: BotRecord, seen: Observation, error: str | None) -> None:
        """Record that a bot ended without being asked and without failing: the SDK does so after failed tasks."""
        kind = "circuit-breaker" if error else "ended"
        reason = f"stopped by its circuit breaker: {error}" if error else "ended by itself, without an error"
        self._conclude(bot, seen, BY_ITSELF, kind, reason, error, after_end)

    def _note_failure(
        self, bot: BotRecord, seen: Observation, code: str, reason: str, error: str | None, *, may_restart: bool
    ) -> None:
        """Record a crash, or a start that failed, and when the bot is started again."""
        self._conclude(bot, seen, code, "crashed", reason, error, after_crash if may_restart else None)

    def _conclude(
        self,
        bot: BotRecord,
        seen: Observation,
        code: str,
        kind: str,
        reason: str,
        error: str | None,
        decide: Decision | None,
    ) -> None:
        """Record an end that wasn't asked for, and what is decided on it; without a decision the bot stays down."""
        policy = bot.configuration.restart or self.restart
        ends = [*bot.restarts.crashes, Crash(time=datetime.now(timezone.utc), reason=reason)]
        follows = decide(policy, ends, random.random()) if decide else None  # noqa: S311 - no secret
        counts = follows is not None or kind == "crashed"
        kept = ends[-max(CRASHES_SHOWN, policy.max_restarts) :] if counts else bot.restarts.crashes
        restarts = bot.restarts.model_copy(update={"crashes": kept})
        shown = follows.reason if isinstance(follows, GiveUp) else reason
        with self.store.transaction():
            self._enter_stopped(bot, seen, code, shown, error)
            if isinstance(follows, Restart):
                self._schedule(bot, restarts.model_copy(update={"next_start": follows.at}))
            else:
                self.store.set_restarts(bot.id, restarts)
            self._tell(bot, kind, reason)
            if isinstance(follows, GiveUp):
                self._tell(bot, "gave-up", follows.reason)

    def _schedule(self, bot: BotRecord, restarts: RestartStatus) -> None:
        self.store.set_restarts(bot.id, restarts)
        self._due = time.monotonic()
        self._woken.set()

    def _enter_stopped(self, bot: BotRecord, seen: Observation, code: str, reason: str, error: str | None) -> None:
        self._enter(
            bot,
            STOPPED,
            exit_code=seen.exit_code,
            reason=error,
            stop_code=code,
            stopped_at=seen.stopped_at or datetime.now(timezone.utc),
            stopped_reason=reason,
        )

    def _tell(self, bot: BotRecord, kind: str, reason: str | None = None) -> None:
        event = Event(bot.id, bot.name, datetime.now(timezone.utc), kind, reason)
        self.store.add_event(event)
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed with %s of bot '%s'", kind, bot.name)

    def _enter(self, bot: BotRecord, status: ResourceStatus, *, wanted: bool | None = None, **changes: Any) -> None:
        if status not in TRANSITIONS[bot.status]:
            raise ImpossibleTransition(f"bot '{bot.name}' can't go from {bot.status!r} to {status!r}")
        self._rewrite(bot, status, wanted=wanted, **changes)

    def _rewrite(self, bot: BotRecord, status: ResourceStatus, *, wanted: bool | None = None, **changes: Any) -> None:
        task = BotTaskStatus.model_validate({**bot.task.model_dump(), "last_status": status.name, **changes})
        self.store.set_bot_state(bot.id, task, bot.wanted if wanted is None else wanted)

    def _reload(self, bot: BotRecord) -> BotRecord:
        """Read a bot again, as it is now.

        Raises:
            GoneError: it was removed in the meantime.
        """
        if (now := self.store.bot(bot.id)) is None:
            raise GoneError(f"bot '{bot.name}' was removed")
        return now
