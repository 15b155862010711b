"""What serves one cluster of this machine: its folder, what runs its bots, and what they find in their environment."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from ape_silverback.server.runtimes import Runtime, State
from ape_silverback.server.runtimes.loading import runtime_of
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.supervisor import Supervisor


def supervisor_of(folder: Path, address: Callable[[], str], api_key: str) -> Supervisor:
    """Make the supervisor of a cluster's bots.

    Args:
        folder: everything that the cluster keeps.
        address: returns the cluster's address, for bots that have access to it.
        api_key: what these bots get as their key.
    """
    store = Store(folder)

    def variables_of(bot: BotRecord) -> Mapping[str, str]:
        """Return the environment of a bot: its groups, and over them what its configuration sets."""
        variables: dict[str, str] = {}
        for group in bot.configuration.environment:
            variables |= store.values_of(group)
        configuration = bot.configuration
        network = f"{configuration.ecosystem}:{configuration.network}:{configuration.provider}"
        variables |= {"SILVERBACK_BOT_NAME": bot.name, "SILVERBACK_NETWORK_CHOICE": network}
        if account := bot.configuration.account:
            variables["SILVERBACK_SIGNER_ALIAS"] = account
        if bot.configuration.cluster_access:
            variables |= {"SILVERBACK_CLUSTER_URI": address(), "SILVERBACK_CLUSTER_API_KEY": api_key}
        return variables

    return Supervisor(store, runtime_of(folder), variables_of)


@contextmanager
def exit_by_sigterm() -> Iterator[None]:
    """Make SIGTERM an exit that passes through what closes databases.

    uvicorn ends by it, and then sends it to this process once more, which would be killed by that.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_bots(folder: Path, grace: float, *, discard: bool = False) -> bool:
    """End the bots of a cluster that has no server, and return whether any ran.

    Args:
        folder: everything that the cluster keeps.
        grace: seconds that they have to end by themselves.
        discard: whether to delete what is kept of them as well.
    """
    if not (folder / "cluster.db").exists():
        return False
    store, runtime = Store(folder, with_secret=False), runtime_of(folder)
    try:
        states = store.runtime_states()
        alive = _alive(runtime, states)
        for bot in alive:
            runtime.stop(bot, states[bot])
        deadline, left = time.monotonic() + grace, alive
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = _alive(runtime, states)
        for bot in left:
            runtime.kill(bot, states[bot])
        if discard:
            for bot, state in states.items():
                runtime.discard(bot, state)
        return bool(alive)
    finally:
        runtime.close()
        store.close()


def _alive(runtime: Runtime, states: Mapping[UUID, State]) -> list[UUID]:
    return [bot for bot, seen in runtime.poll(states).items() if seen.alive]
