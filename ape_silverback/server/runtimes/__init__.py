"""Where bots run: the one small contract that every runtime keeps.

A runtime starts bots, polls them, stops them and copies what they print to a file. It knows nothing of the states of
the API, of restart policies or of the store: the supervisor decides, and hands back the state that the runtime gave it.

Runtimes are found through the entry point group ``ape_silverback.runtimes``; see ``loading.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from ape_silverback.server.runtimes.shim import LOG_BOUND

State = Mapping[str, Any]
"""What a runtime has to remember of a bot, as JSON takes it. The store keeps it from one run of the bot to the next and
from one server to the next; only the runtime that returned it knows what is in it."""


class ImageError(ValueError):
    """An image can't be run by this runtime; the text is the reason."""


class EngineError(RuntimeError):
    """The engine that runs the bots doesn't answer or refuses; the text says what to do."""


class PlacementError(ValueError):
    """A bot can't be moved to a machine; the text is the reason."""


@dataclass(frozen=True)
class Capabilities:
    """What a runtime can do besides starting and stopping.

    Attributes:
        limits: holds a bot to an amount of memory and CPU.
        move: moves a bot to another node when told to.
        restart: its engine starts a bot again by itself, on another node when a node is lost.
    """

    limits: bool = False
    move: bool = False
    restart: bool = False


@dataclass(frozen=True)
class Limits:
    """What a bot may use at most; None for no bound.

    Attributes:
        cpus: CPU cores; 0.5 is half of one.
        memory: bytes.
    """

    cpus: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Credential:
    """Login to a registry, for pulling an image."""

    hostname: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Run:
    """What is started: one run of a bot.

    Attributes:
        variables: the bot's environment, the contract's own variables included.
        account: alias of the account that the bot signs with, if it has one.
        credential: for the registry of the image.
        cores: CPU cores that all bots of the cluster share, where the runtime has no limits of its own for each.
        stop_grace: seconds to end after being asked to, where the engine enforces it.
    """

    bot: UUID
    name: str
    image: str
    variables: Mapping[str, str] = field(repr=False)
    account: str | None = None
    credential: Credential | None = None
    limits: Limits = Limits()
    cores: int | None = None
    stop_grace: float = 20.0


@dataclass(frozen=True)
class Observation:
    """What a runtime sees of a bot's latest run.

    Attributes:
        alive: it runs, or is about to: its image is being pulled, or its node doesn't answer.
        ready: its log shows that its start is complete.
        exit_code: as a shell shows it, 128 + n for signal n; None while it runs, and when its end wasn't seen.
        note: what there is to know beyond that: how far a pull is, or that it ran out of memory.
        failure: why it couldn't be started.
        interrupted: the engine ended it; neither the bot itself nor a request did.
        unreachable_since: since when its node hasn't answered, so that it may or may not run.
        node: name of the machine that it runs on, where there are several.
        state: what to keep in place of the state that was given; None to keep that.
    """

    alive: bool
    ready: bool = False
    started_at: datetime | None = None
    exit_code: int | None = None
    stopped_at: datetime | None = None
    note: str | None = None
    failure: str | None = None
    interrupted: bool = False
    unreachable_since: datetime | None = None
    node: str | None = None
    state: State | None = None


GONE = Observation(alive=False)
"""No run exists, or none is known."""


@dataclass(frozen=True)
class Node:
    """A machine of a runtime that has several.

    Attributes:
        state: ``ready``, ``down``, or another word of the engine.
        availability: ``active``, ``pause`` or ``drain``.
        manager: whether it takes part in the decisions of the engine.
        memory: bytes.
        engine: version of its engine.
    """

    id: str
    name: str
    state: str
    availability: str
    manager: bool
    cpus: float
    memory: int
    engine: str

    @property
    def available(self) -> bool:
        """Whether bots can be placed there."""
        return self.state == "ready" and self.availability == "active"


class Runtime(Protocol):
    """Runs bots.

    All methods may be called from several threads, but for one bot by one thread at a time. None of them waits for a
    bot to start or to end, or for an image to be pulled.

    A server can be killed at any point, so a state can be older than what really runs: each method that gets one finds
    the run of a bot by the bot's id as well.
    """

    @classmethod
    def settle(cls, options: Mapping[str, str]) -> dict[str, str]:
        """Return the options that a cluster keeps: those given, and what the environment sets now."""

    @classmethod
    def create(cls, settings: RuntimeSettings) -> Runtime:
        """Return the runtime of a cluster.

        Raises:
            EngineError: its engine doesn't answer.
        """

    @property
    def name(self) -> str:
        """Name of the entry point."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def check(self, image: str) -> None:
        """Raise if an image can't be run here. Asks no registry.

        Raises:
            ImageError: it can't.
        """

    def start(self, run: Run, state: State) -> State:
        """Start a bot that doesn't run, and return what to remember of it.

        Raises:
            ImageError: the image can't be run.
            EngineError: the engine refuses.
            OSError: the machine refuses.
        """

    def poll(self, bots: Mapping[UUID, State]) -> Mapping[UUID, Observation]:
        """Return how the latest run of each of these bots is, whichever server started it.

        Asks the engine a constant number of questions.

        Raises:
            EngineError: the engine doesn't answer.
        """

    def stop(self, bot: UUID, state: State) -> None:
        """Ask a bot to end, as SIGTERM does; one that doesn't run stays as it is."""

    def kill(self, bot: UUID, state: State) -> None:
        """End a bot, and all that it started, at once."""

    def discard(self, bot: UUID, state: State) -> None:
        """Delete all that is kept of a bot that doesn't run, its log and its work folder included."""

    def log_file(self, bot: UUID) -> Path:
        """Return the base of a bot's log: raw lines of all its runs, each stamped with the time.

        The log's files are that one, where it exists, then ``.1``, ``.2`` and so on after its name; ``LogWriter`` of
        ``shim.py`` writes them.
        """

    def work_folder(self, bot: UUID) -> Path:
        """Return a folder of this machine that shows what the bot has in its work folder: ``.silverback-sessions``.

        A runtime whose bots work elsewhere copies it there, as far as it can. It may not exist yet.
        """

    def listen(self, changed: Callable[[], None]) -> bool:
        """Call a function, from another thread, when bots may have started or ended; until ``close``.

        Returns:
            Whether that can be relied on; otherwise the runtime has to be polled often.
        """

    def close(self) -> None:
        """Close the connection to the engine. Bots go on."""


@runtime_checkable
class NodesRuntime(Runtime, Protocol):
    """Runs bots on several machines: what a runtime with the capability ``move`` has besides."""

    def nodes(self) -> list[Node]:
        """Return the machines.

        Raises:
            EngineError: the engine doesn't answer.
        """

    def move(self, bot: UUID, state: State, node: str) -> State:
        """Bind a bot that doesn't run to another machine, by its name or id, and return what to remember of it.

        Raises:
            PlacementError: the machine doesn't exist, or can't take a bot.
            EngineError: the engine doesn't answer.
        """


@runtime_checkable
class MeasuringRuntime(Protocol):
    """What a runtime has besides that can't hold each bot to an amount: it measures what they use."""

    def memory(self, bots: Iterable[UUID]) -> int:
        """Return how many bytes of memory bots use, with all that they started."""


@dataclass(frozen=True)
class RuntimeSettings:
    """How a runtime was chosen for a cluster.

    Attributes:
        folder: holds a folder for each bot, named by its id.
        cluster: id of the cluster, which marks its bots on a shared engine.
        options: of this runtime, such as ``{"network": "host"}``.
        log_size: bytes of a bot's log, all its files together.
    """

    folder: Path
    cluster: str
    options: Mapping[str, str] = field(default_factory=dict)
    log_size: int = LOG_BOUND
