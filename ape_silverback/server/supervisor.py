"""Life of a bot: one table says which state may follow which, and one thread watches what the runtime sees."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ape_silverback.cluster.bot_errors import last_error_line
from ape_silverback.cluster.types import BotConfiguration, BotTaskStatus, ResourceStatus
from ape_silverback.server.logs import errors_of_run, last_lines_of_run
from ape_silverback.server.runtimes import (
    GONE,
    Credential,
    EngineError,
    ImageError,
    Limits,
    Observation,
    Run,
    Runtime,
)
from ape_silverback.server.store import BotRecord, Store

CREATED, PROVISIONING, STARTUP, RUNNING, SHUTDOWN, STOPPED, DEPROVISIONING, REMOVED = ResourceStatus

TRANSITIONS: Mapping[ResourceStatus, frozenset[ResourceStatus]] = {
    CREATED: frozenset({PROVISIONING, DEPROVISIONING}),
    PROVISIONING: frozenset({STARTUP, STOPPED, DEPROVISIONING}),
    STARTUP: frozenset({RUNNING, SHUTDOWN, STOPPED, DEPROVISIONING}),
    RUNNING: frozenset({SHUTDOWN, STOPPED, DEPROVISIONING}),
    SHUTDOWN: frozenset({STOPPED, DEPROVISIONING}),
    STOPPED: frozenset({STARTUP, DEPROVISIONING}),
    DEPROVISIONING: frozenset({REMOVED}),
    REMOVED: frozenset(),
}
"""State → the states that may follow it."""

ALIVE = frozenset({STARTUP, RUNNING, SHUTDOWN})
"""States in which there is a process."""

BY_USER, BY_CLUSTER, BY_ITSELF, BY_SIGNAL, NEVER_RAN = "user", "cluster", "exited", "signal", "failed-to-start"
"""Stop codes."""


class ImpossibleTransition(Exception):
    """A state that can't follow the one before: a defect, never a bot's doing."""


class BusyError(Exception):
    """A bot is in a state in which what was asked can't be done now."""


class GoneError(LookupError):
    """A bot was removed, or is being removed."""


class Supervisor:
    """Keeps bots in the state that they should be in, and writes down each change.

    Args:
        store: where bots and states are kept.
        runtime: where bots run.
        variables_of: gives the environment of a bot.
        poll: seconds between two looks at the runtime.
        ready_after: seconds alive after which a bot counts as running though it didn't say so.
        stop_grace: seconds that a bot has to stop before it is killed.
        remove_grace: likewise when it is removed, which its user waits for.
        limits: what each bot may use at most, where the runtime can hold it to that.
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
    ) -> None:
        self.store = store
        self.runtime = runtime
        self.variables_of = variables_of
        self.poll = poll
        self.ready_after = ready_after
        self.stop_grace = stop_grace
        self.remove_grace = remove_grace
        self.limits = limits
        self._lock = threading.RLock()
        self._kill_at: dict[uuid.UUID, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def begin(self) -> None:
        """Take up the bots of the last server, and watch."""
        self.adopt()
        self._thread.start()

    def adopt(self) -> None:
        """Find out how the bots of the last server are, and start those that ran when it was taken down."""
        with self._lock:
            seen = self.runtime.poll(self.store.runtime_states())
            for bot in self.store.bots():
                self._take_up(bot, self._noted(bot, seen))

    def end(self) -> None:
        """Stop all bots and then watching. The next server starts those again that ran."""
        with self._lock:
            for bot in self.store.bots():
                if bot.status in (STARTUP, RUNNING):
                    self._shut_down(bot, BY_CLUSTER, wanted=True)
        deadline = time.monotonic() + self.stop_grace + 2.0
        while any(bot.status in ALIVE for bot in self.store.bots()) and time.monotonic() < deadline:
            time.sleep(self.poll / 2)
        self._ended.set()
        self._thread.join(timeout=5.0)

    def create(self, name: str, configuration: BotConfiguration) -> BotRecord:
        """Create a bot and start it.

        Raises:
            NameTakenError: there is one of this name.
        """
        with self._lock:
            bot = self.store.add_bot(name, configuration)
            self._enter(bot, PROVISIONING)
            self._start(self._reload(bot))
            return self._reload(bot)

    def start(self, bot: BotRecord) -> None:
        """Start a bot; one that runs or starts stays as it is, one that is stopping is started once it has stopped.

        Raises:
            BusyError: it is being removed, or it doesn't stop.
        """
        deadline = time.monotonic() + self.stop_grace + 2.0
        while True:
            with self._lock:
                bot = self._reload(bot)
                if bot.status is STOPPED:
                    self._start(bot)
                if bot.status not in (SHUTDOWN, DEPROVISIONING):
                    return
            if bot.status is DEPROVISIONING or time.monotonic() > deadline:
                raise BusyError(f"bot '{bot.name}' is in state {bot.status} and can't be started")
            time.sleep(self.poll / 2)

    def stop(self, bot: BotRecord) -> None:
        """Begin to stop a bot; one that doesn't run stays as it is."""
        with self._lock:
            bot = self._reload(bot)
            if bot.status in (STARTUP, RUNNING):
                self._shut_down(bot, BY_USER, wanted=False)

    def remove(self, bot: BotRecord) -> None:
        """Stop a bot if it runs, and remove it with its log.

        Raises:
            GoneError: it was removed, or another request removes it already.
        """
        with self._lock:
            bot = self._reload(bot)
            if bot.status is DEPROVISIONING:
                raise GoneError(f"bot '{bot.name}' is being removed")
            self._enter(bot, DEPROVISIONING, wanted=False)
            state = self.store.runtime_state(bot.id)
            self.runtime.stop(bot.id, state)
        deadline = time.monotonic() + self.remove_grace
        while self.runtime.poll({bot.id: state})[bot.id].alive:
            if time.monotonic() > deadline:
                self.runtime.kill(bot.id, state)
            time.sleep(self.poll / 4)
        with self._lock:
            self._enter(self._reload(bot), REMOVED)
            self.store.remove_bot(bot.id)
            self.runtime.discard(bot.id, state)

    def errors(self, bot: BotRecord) -> list[str]:
        """Give what went wrong in the latest run of a bot."""
        died = bot.status is STOPPED and bot.task.stop_code in (BY_ITSELF, BY_SIGNAL, NEVER_RAN)
        log, started = self.runtime.log_file(bot.id), bot.task.started_at
        known = self.store.acknowledged(bot.id)
        logged = errors_of_run(log, max(known, started or known) if known else started)
        reason = bot.task.stopped_reason
        if not died or not reason or (known and bot.task.stopped_at and known >= bot.task.stopped_at):
            return logged
        if logged:
            return [reason, *logged]
        # Its last lines are no error of their own: there may be nothing wrong in them.
        last = last_lines_of_run(log, started)
        return [f"{reason}; before that:\n{last}" if last else reason]

    def look(self) -> None:
        """Look at all bots once and write down what changed. The watch does this all the time."""
        with self._lock:
            alive = [bot for bot in self.store.bots() if bot.status in ALIVE]
            if not alive:
                return
            states = self.store.runtime_states()
            seen = self.runtime.poll({bot.id: states[bot.id] for bot in alive})
            for bot in alive:
                self._look_at(bot, self._noted(bot, seen))

    def _watch(self) -> None:
        while not self._ended.wait(self.poll):
            self.look()

    def _noted(self, bot: BotRecord, all_seen: Mapping[uuid.UUID, Observation]) -> Observation:
        """Return what was seen of a bot, once what the runtime wants to remember of it is kept."""
        seen = all_seen.get(bot.id, GONE)
        if seen.state is not None:
            self.store.set_runtime_state(bot.id, seen.state)
        return seen

    def _look_at(self, bot: BotRecord, seen: Observation) -> None:
        if not seen.alive:
            self._note_end(bot, seen)
        elif bot.status is SHUTDOWN:
            if time.monotonic() > self._kill_at.get(bot.id, 0.0):
                self.runtime.kill(bot.id, self.store.runtime_state(bot.id))
        elif bot.status is STARTUP and seen.note != bot.task.reason:
            self._rewrite(bot, STARTUP, reason=seen.note)  # how far the pull of its image is
        elif bot.status is STARTUP and (
            seen.ready or (seen.note is None and _seconds_since(seen.started_at) > self.ready_after)
        ):
            self._enter(bot, RUNNING)

    def _take_up(self, bot: BotRecord, seen: Observation) -> None:
        """Set the state of a bot right after the server was away."""
        if bot.status is DEPROVISIONING:
            self._finish_removal(bot)
        elif bot.status in ALIVE and seen.alive:
            if bot.status is SHUTDOWN:
                self._kill_at[bot.id] = time.monotonic() + self.stop_grace
        elif bot.status in ALIVE and seen.exit_code is not None:
            self._note_end(bot, seen)
        elif bot.status in ALIVE or bot.status in (CREATED, PROVISIONING):
            # Nobody saw it end, or it never began: the machine went down.
            self._rewrite(bot, STOPPED, stop_code=BY_CLUSTER, stopped_reason="the cluster went down")
        bot = self._reload(bot)
        if bot.status is STOPPED and bot.wanted and bot.task.stop_code == BY_CLUSTER:
            self._start(bot)

    def _finish_removal(self, bot: BotRecord) -> None:
        """Finish a removal that the end of the last server interrupted."""
        state = self.store.runtime_state(bot.id)
        self.runtime.kill(bot.id, state)
        self.store.remove_bot(bot.id)
        self.runtime.discard(bot.id, state)

    def _start(self, bot: BotRecord) -> None:
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
        try:
            state = self.runtime.start(self._run_of(bot), self.store.runtime_state(bot.id))
            self.store.set_runtime_state(bot.id, state)
        except (ImageError, EngineError, OSError) as error:
            now = datetime.now(timezone.utc)
            reason = f"can't be started: {error}"
            self._enter(self._reload(bot), STOPPED, stop_code=NEVER_RAN, stopped_at=now, stopped_reason=reason)

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
            limits=self.limits,
            stop_grace=self.stop_grace,
        )

    def _shut_down(self, bot: BotRecord, stop_code: str, *, wanted: bool) -> None:
        self._enter(bot, SHUTDOWN, wanted=wanted, stop_code=stop_code)
        self._kill_at[bot.id] = time.monotonic() + self.stop_grace
        self.runtime.stop(bot.id, self.store.runtime_state(bot.id))

    def _note_end(self, bot: BotRecord, seen: Observation) -> None:
        self._kill_at.pop(bot.id, None)
        code = bot.task.stop_code if bot.status is SHUTDOWN else None
        reason = {BY_USER: "stopped by its user", BY_CLUSTER: "the cluster was taken down"}.get(code or "")
        last_error = None
        if seen.failure and reason is None:
            code, reason = NEVER_RAN, f"can't be started: {seen.failure}"
        elif reason is None:
            code = BY_SIGNAL if seen.exit_code is not None and seen.exit_code > 128 else BY_ITSELF
            log, started = self.runtime.log_file(bot.id), bot.task.started_at
            last_error = last_error_line(errors_of_run(log, started) or [last_lines_of_run(log, started)])
            end = f"{seen.note}: {_end_text(seen.exit_code)}" if seen.note else _end_text(seen.exit_code)
            reason = end + (f": {last_error}" if last_error and code == BY_ITSELF else "")
        self._enter(
            bot,
            STOPPED,
            exit_code=seen.exit_code,
            reason=last_error,
            stop_code=code,
            stopped_at=seen.stopped_at or datetime.now(timezone.utc),
            stopped_reason=reason,
        )

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


def _seconds_since(moment: datetime | None) -> float:
    return (datetime.now(timezone.utc) - moment).total_seconds() if moment else 0.0


def _end_text(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended while nobody watched"
    if exit_code > 128:
        number = exit_code - 128
        try:
            return f"killed by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            pass
    return f"exited with code {exit_code}"
