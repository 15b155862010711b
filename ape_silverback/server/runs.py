"""The runs of a cluster's bots on its runtime, and what the runtime has to remember of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from ape_silverback.server.runtimes import GONE, Credential, Limits, NodesRuntime, Observation, Run, Runtime, State
from ape_silverback.server.store import BotRecord, Store


class Runs:
    """Starts, polls and ends bots, and keeps what the runtime remembers of each.

    Args:
        store: where that is kept.
        runtime: where bots run.
        variables_of: returns the environment of a bot.
    """

    def __init__(self, store: Store, runtime: Runtime, variables_of: Callable[[BotRecord], Mapping[str, str]]) -> None:
        self.store = store
        self.runtime = runtime
        self.variables_of = variables_of
        self._seen: dict[UUID, Observation] = {}
        self._kill_at: dict[UUID, float] = {}

    def start(self, bot: BotRecord, limits: Limits, cores: int | None, grace: float) -> State:
        """Start a bot, and return what the runtime has to remember of it.

        Args:
            limits: what it may use at most.
            cores: CPU cores that all bots share; None for all of the machine.
            grace: seconds that it has to end after being asked to.

        Raises:
            Exception: anything that keeps the runtime from starting it, or its variables from being read.
        """
        configuration, credential = bot.configuration, None
        for one in self.store.credentials():
            if configuration.credential_name in (one.name, one.id):
                credential = Credential(one.hostname, one.username, self.store.password_of(one.name))
        run = Run(
            bot=bot.id,
            name=bot.name,
            image=configuration.image,
            variables=self.variables_of(bot),
            account=configuration.account,
            credential=credential,
            limits=limits,
            cores=cores,
            stop_grace=grace,
        )
        return self.runtime.start(run, self.store.runtime_state(bot.id))

    def poll(self, bots: Iterable[BotRecord]) -> Mapping[UUID, Observation]:
        """Return how the latest runs of bots are.

        Raises:
            EngineError: the engine doesn't answer.
        """
        bots = list(bots)
        if not bots:
            return {}
        states = self.store.runtime_states()
        return self.runtime.poll({bot.id: states.get(bot.id, {}) for bot in bots})

    def note(self, bot: BotRecord, polled: Mapping[UUID, Observation]) -> Observation:
        """Return what was seen of a bot, once what the runtime wants to remember of it is kept."""
        self._seen[bot.id] = seen = polled.get(bot.id, GONE)
        if seen.state is not None:
            self.store.set_runtime_state(bot.id, seen.state)
        return seen

    def seen(self, bot: BotRecord) -> Observation:
        """Return what was last seen of a bot."""
        return self._seen.get(bot.id, GONE)

    def ask_to_end(self, bot: BotRecord, grace: float) -> None:
        """Ask a bot to end within so many seconds."""
        self._kill_at[bot.id] = time.monotonic() + grace
        self.runtime.stop(bot.id, self.store.runtime_state(bot.id))

    def kill_if_due(self, bot: BotRecord, grace: float) -> float:
        """Kill a bot that was asked to end and hasn't in time, and return the seconds left until then; 0 for none.

        Args:
            grace: seconds that it gets if an earlier server asked it.
        """
        left = self._kill_at.setdefault(bot.id, time.monotonic() + grace) - time.monotonic()
        if left < 0:
            self.runtime.kill(bot.id, self.store.runtime_state(bot.id))
        return max(left, 0.0)

    def has_ended(self, bot: BotRecord) -> None:
        """Note that a bot has ended: there is nothing left to kill."""
        self._kill_at.pop(bot.id, None)

    def move(self, bot: BotRecord, runtime: NodesRuntime, node: str) -> None:
        """Bind a bot to another machine.

        Raises:
            PlacementError: the machine doesn't exist, or can't take a bot.
            EngineError: the engine doesn't answer.
        """
        self.store.set_runtime_state(bot.id, runtime.move(bot.id, self.store.runtime_state(bot.id), node))
        self._seen.pop(bot.id, None)

    def discard(self, bot: BotRecord) -> None:
        """Delete all that the runtime keeps of a bot that has ended."""
        self._seen.pop(bot.id, None)
        self.runtime.discard(bot.id, self.store.runtime_state(bot.id))
