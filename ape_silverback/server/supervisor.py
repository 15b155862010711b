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

from ape_silverback.cluster.types import (
    BotConfiguration,
    BotHealth,
    ClusterConfiguration,
    HealthPolicy,
    ResourceStatus,
    RestartPolicy,
    RestartStatus,
)
from ape_silverback.server.end_of_run import End, asked_end, failed_start, own_end, verdict
from ape_silverback.server.last_errors import last_errors
from ape_silverback.server.lifecycle import (
    ALIVE,
    BY_CLUSTER,
    BY_USER,
    CREATED,
    DEPROVISIONING,
    PROVISIONING,
    REMOVED,
    RUNNING,
    SHUTDOWN,
    STARTUP,
    STOPPED,
    WHAT_IT_DOES,
    BusyError,
    GoneError,
    seconds_since,
    went_down,
)
from ape_silverback.server.logs import LoggedError, last_words
from ape_silverback.server.quota import limits_of
from ape_silverback.server.removed import RemovedLogs
from ape_silverback.server.runs import Runs
from ape_silverback.server.runtimes import (
    EngineError,
    Limits,
    MeasuringRuntime,
    NodesRuntime,
    Observation,
    Runtime,
)
from ape_silverback.server.states import States
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.watch import Watch
from ape_silverback.server.work import WorkWatch

SWEEP = 2.0
"""Seconds between two polls of a runtime that reports changes by itself."""

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
        self._states = States(store)
        self._runs = Runs(store, runtime, variables_of)
        self.listeners = self._states.listeners
        self._lock = threading.RLock()
        self._is_stopping = False
        self._watch = Watch(self.look, poll)

    # The server's life

    def begin(self) -> None:
        """Adopt the bots of the last server, and watch."""
        reports = self.runtime.listen(self._watch.wake)
        self._watch.every = max(self.poll, SWEEP) if reports else self.poll
        self.adopt()
        self._watch.begin()

    def adopt(self) -> None:
        """Adopt the bots of the last server: those that still run go on, those that ran at its end are started."""
        with self._lock:
            try:
                polled = self._runs.poll(self.store.bots())
            except EngineError as error:
                self._watch.note_trouble(None, error)  # it goes on asking
                return
            for bot in self.store.bots():
                self._watch.guard(bot, self._adopt, polled)

    def end(self) -> None:
        """Stop all bots and then watching. The next server starts those again that ran."""
        if not self.keep_running:
            self._stop_all()
        self._watch.end()

    def _stop_all(self) -> None:
        self._is_stopping = True
        deadline = time.monotonic() + self.stop_grace + 5.0
        while time.monotonic() < deadline:
            with self._lock:
                bots = self.store.bots()
                for bot in bots:  # one that was asked to start while it stopped has started meanwhile
                    if bot.status in (STARTUP, RUNNING):
                        self._watch.guard(bot, self._shut_down, BY_CLUSTER)
            if not any(bot.status in ALIVE for bot in bots):
                return
            if not self._watch.is_alive:
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
                self._states.enter(bot, PROVISIONING)
            self._start(self._states.reload(bot), "created")
            return self._states.reload(bot)

    def start(self, bot: BotRecord) -> None:
        """Start a bot; one that runs or starts goes on, one that is stopping starts once it has stopped.

        What it has crashed of counts no longer, also if the cluster has started it again just before.

        Raises:
            BusyError: it is being removed.
        """
        with self._lock:
            bot = self._states.reload(bot)
            match bot.status:
                case ResourceStatus.STOPPED:
                    self.store.set_restarts(bot.id, RestartStatus())
                    self._start(self._states.reload(bot), "by the user")
                case ResourceStatus.STARTUP | ResourceStatus.RUNNING if bot.restarts.count:
                    self.store.set_restarts(bot.id, RestartStatus())
                case ResourceStatus.SHUTDOWN:
                    self._states.rewrite(bot, SHUTDOWN, wanted=True)
                case ResourceStatus.DEPROVISIONING:
                    raise BusyError(f"bot '{bot.name}' is being removed and can't be started")

    def stop(self, bot: BotRecord) -> None:
        """Begin to stop a bot; one that would be started again stays down."""
        with self._lock:
            bot = self._states.reload(bot)
            if bot.status in (STARTUP, RUNNING):
                self._shut_down(bot, BY_USER)
            elif bot.status in (SHUTDOWN, STOPPED):
                self._states.rewrite(bot, bot.status, wanted=False)
                if bot.restarts.next_start:
                    self.store.set_restarts(bot.id, bot.restarts.model_copy(update={"next_start": None}))

    def begin_removal(self, bot: BotRecord) -> None:
        """Begin to remove a bot, which stops it first.

        Raises:
            GoneError: it was removed, or another request removes it already.
        """
        with self._lock:
            bot = self._states.reload(bot)
            if bot.status is DEPROVISIONING:
                raise GoneError(f"bot '{bot.name}' is being removed")
            if bot.status in ALIVE and (seen := self.seen(bot)).unreachable_since:
                raise BusyError(
                    f"bot '{bot.name}' may still be running on node {seen.node}, which doesn't answer; wait for the "
                    f"node, or move the bot once that node is off: `bots move {bot.name} NODE`"
                )
            self._states.enter(bot, DEPROVISIONING, wanted=False)
            self._ask_to_end(bot, self.remove_grace)

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
                with suppress(EngineError):
                    self._look_at(found, self._runs.poll([found]))
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
            bot = self._states.reload(bot)
            if not isinstance(self.runtime, NodesRuntime):
                raise BusyError(f"this cluster runs its bots on one machine (runtime {self.runtime.name})")
            seen = self._runs.note(bot, self._runs.poll([bot]))
            if seen.alive and not seen.unreachable_since:
                raise BusyError(f"bot '{bot.name}' is running on node {seen.node}; stop it first")
            if seen.alive and not fenced:
                raise BusyError(
                    f"node {seen.node} doesn't answer, and bot '{bot.name}' may still be running and signing there; "
                    "move it only once that node is off or cut off from everything, and confirm that"
                )
            self._runs.move(bot, self.runtime, node)
            if bot.status in ALIVE:
                self._states.enter_stopped(bot, End("stopped", BY_CLUSTER, f"moved to node {node}"))
            self._states.tell(bot, "moved", f"to node {node}")
            if bot.wanted:
                self._start(self._states.reload(bot), f"moved to node {node}")

    # What users see

    @property
    def is_watching(self) -> bool:
        """Whether the watch goes on, and the runtime answers it."""
        return self._watch.works

    def seen(self, bot: BotRecord) -> Observation:
        """Return what the runtime last told of a bot."""
        return self._runs.seen(bot)

    def failures(self, bot: BotRecord) -> int:
        """Return how often looking after a bot has failed, since the server started."""
        return self._watch.failures(bot.id)

    def memory(self, bots: Sequence[BotRecord]) -> int | None:
        """Return how many bytes of memory bots use; None where the runtime holds each of them to an amount."""
        if not isinstance(self.runtime, MeasuringRuntime):
            return None
        return self.runtime.memory([bot.id for bot in bots])

    def errors(self, bot: BotRecord) -> list[LoggedError]:
        """Return what went wrong in the latest run of a bot, and in those that the cluster has started again since."""
        return last_errors(bot, self.runtime.log_file(bot.id), self.store.acknowledged(bot.id))

    def health(self, bot: BotRecord) -> BotHealth:
        """Return how healthy a bot is, as it was last looked at."""
        if trouble := self._watch.trouble(bot.id):
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
            polled = self._runs.poll(watched)
            for bot in watched:
                self._watch.guard(bot, self._look_at, polled)
            for bot in bots:
                if bot.status is STOPPED and bot.restarts.next_start and not self._is_stopping:
                    self._watch.guard(bot, self._start_if_due, bot.restarts.next_start)
            for bot, kind, reason in self.work.look(bots, lambda bot: self.seen(bot).ready):
                self._watch.guard(bot, self._states.tell, kind, reason)
            self.removed.purge()

    def _look_at(self, bot: BotRecord, polled: Mapping[uuid.UUID, Observation]) -> None:
        seen = self._runs.note(bot, polled)
        if not seen.alive and bot.status is DEPROVISIONING:
            self._finish_removal(bot)
        elif not seen.alive:
            self._note_end(bot, seen)
        elif bot.status in (SHUTDOWN, DEPROVISIONING):
            left = self._runs.kill_if_due(bot, self.stop_grace)
            self._watch.look_by(time.monotonic() + (left or self.poll))
        elif bot.status is STARTUP and seen.note != bot.task.reason:
            self._states.rewrite(bot, STARTUP, reason=seen.note)  # how far the pull of its image is
        elif bot.status is STARTUP and (
            seen.ready
            or self.work.has_begun(bot)
            or (seen.note is None and seconds_since(seen.started_at) > self.ready_after)
        ):
            self._states.enter(bot, RUNNING)
            self._states.tell(bot, "running")

    def _adopt(self, bot: BotRecord, polled: Mapping[uuid.UUID, Observation]) -> None:
        """Set the state of a bot right after the server was away."""
        seen = self._runs.note(bot, polled)
        if bot.status is DEPROVISIONING or (bot.status is SHUTDOWN and seen.alive):
            # The last server may have been killed before it asked.
            self._ask_to_end(bot, self.stop_grace)
        elif bot.status in ALIVE and seen.alive:
            pass
        elif bot.status in ALIVE and not went_down(seen):
            self._note_end(bot, seen)
        elif bot.status in ALIVE or bot.status in (CREATED, PROVISIONING):
            # It ended together with the server, or never began.
            reason = seen.note if seen.interrupted and seen.note else "the cluster went down"
            self._states.rewrite(bot, STOPPED, stop_code=BY_CLUSTER, stopped_reason=reason)
            self._states.tell(bot, "stopped", reason)
        bot = self._states.reload(bot)
        if bot.status is STOPPED and bot.wanted and bot.task.stop_code == BY_CLUSTER:
            self._start(bot, "the cluster is up again")

    # Starts

    def _start_if_due(self, bot: BotRecord, due: datetime) -> None:
        policy = bot.configuration.restart or self.restart
        wait = (due - datetime.now(timezone.utc)).total_seconds()
        if wait > 2 * policy.max_backoff + policy.backoff:  # the clock was set back
            wait = 0.0
        if wait > 0:
            self._watch.look_by(time.monotonic() + wait)
            return
        restarts = bot.restarts.model_copy(update={"count": bot.restarts.count + 1, "next_start": None})
        self.store.set_restarts(bot.id, restarts)
        self._start(self._states.reload(bot), f"restart {restarts.count}")

    def _start(self, bot: BotRecord, why: str) -> None:
        """Start a bot, once it is recorded that it starts."""
        self._states.enter_startup(bot)
        self._launch(self._states.reload(bot), why)

    def _launch(self, bot: BotRecord, why: str) -> None:
        try:
            cores = self.paid.cpu if self.paid else None
            state = self._runs.start(bot, limits_of(self.limits, self.paid), cores, self.stop_grace)
        except Exception as error:  # noqa: BLE001 - the failure becomes its reason
            end = failed_start(error)
            log.warning("bot '%s' %s", bot.name, end.reason)
            self._conclude(bot, end)
            return
        self.store.set_runtime_state(bot.id, state)  # it runs, even if that fails
        self._states.tell(bot, "started", why)

    # Ends

    def _shut_down(self, bot: BotRecord, stop_code: str) -> None:
        self._states.enter(bot, SHUTDOWN, wanted=stop_code != BY_USER, stop_code=stop_code)
        self._ask_to_end(bot, self.stop_grace)

    def _ask_to_end(self, bot: BotRecord, grace: float) -> None:
        self._runs.ask_to_end(bot, grace)
        self._watch.wake()

    def _note_end(self, bot: BotRecord, seen: Observation) -> None:
        """Record the end of a run, and do what follows it."""
        self._runs.has_ended(bot)
        if end := asked_end(bot, seen):
            self._note_asked_end(bot, end)
        else:
            self._conclude(bot, own_end(seen, last_words(self.runtime.log_file(bot.id), bot.task.started_at)))

    def _note_asked_end(self, bot: BotRecord, end: End) -> None:
        with self.store.transaction():  # one that is started at once isn't shown as stopped in between
            self._states.enter_stopped(bot, end)
            self._states.tell(bot, end.kind, end.reason)
            if end.then:
                if end.code == BY_USER:
                    self.store.set_restarts(bot.id, RestartStatus())
                self._states.enter_startup(self._states.reload(bot))
        if end.then:
            self._launch(self._states.reload(bot), end.then)

    def _conclude(self, bot: BotRecord, end: End) -> None:
        """Record an end that wasn't asked for, and what follows it."""
        policy = bot.configuration.restart or self.restart
        follows = verdict(end, bot, policy, datetime.now(timezone.utc), random.random())  # noqa: S311 - no secret
        with self.store.transaction():
            self._states.enter_stopped(bot, end, follows.gave_up)
            self.store.set_restarts(bot.id, follows.restarts)
            self._states.tell(bot, end.kind, end.reason)
            if follows.gave_up:
                self._states.tell(bot, "gave-up", follows.gave_up)
        if follows.restarts.next_start:
            self._watch.wake()

    def _finish_removal(self, bot: BotRecord) -> None:
        self._runs.has_ended(bot)
        errors = [one.message for one in self.errors(bot)] if bot.task.started_at else []
        self.removed.keep_log(bot.id)
        self._runs.discard(bot)
        with self.store.transaction():
            self._states.enter(bot, REMOVED)
            self.store.add_removed_bot(bot, errors)
            self.store.remove_bot(bot.id)
        self._states.tell(bot, "removed")
