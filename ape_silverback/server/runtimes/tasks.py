"""What the tasks of a swarm's service mean for its bot: decided by pure functions, from what the engine shows.

A node that the managers lost sight of may still run its tasks. That decides whether a bot that signs has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ape_silverback.server.runtimes import GONE, Node, Observation, State
from ape_silverback.server.runtimes.engine import moment

BEFORE = frozenset({"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"})
ENDED = frozenset({"complete", "failed", "shutdown", "rejected", "remove"})
"""States of a task whose container isn't running any more. Of an orphaned one the engine only doesn't know."""

BY_ITSELF = frozenset({"complete", "failed", "rejected"})
"""Those of them that weren't requested."""


@dataclass(frozen=True)
class Task:
    """One run of a service's container, as the engine shows it.

    Attributes:
        node: id; None while it isn't placed.
        at: when the engine last heard of it.
    """

    id: str
    state: str
    created: str
    node: str | None
    at: datetime | None
    started: bool
    exit_code: int | None
    error: str | None

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Task:
        """Return a task of the Engine API."""
        status = task["Status"]
        container = status.get("ContainerStatus") or {}
        return cls(
            id=task["ID"],
            state=status["State"],
            created=task["CreatedAt"],
            node=task.get("NodeID") or None,
            at=moment(status["Timestamp"]),
            started=bool(container.get("ContainerID")),
            exit_code=container.get("ExitCode", 0) if container.get("ContainerID") else None,
            error=status.get("Err"),
        )


@dataclass(frozen=True)
class Verdict:
    """What the tasks of a service mean for its bot.

    Attributes:
        task: id of the one that decided, if any.
        node: id of its node.
    """

    observation: Observation
    task: str | None = None
    node: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the bot runs, or may run."""
        return self.observation.alive


def judge(
    tasks: Sequence[Task],
    nodes: Mapping[str, Node],
    state: State,
    *,
    asked: bool,
    there: bool,
    now: datetime | None = None,
) -> Verdict:
    """Return how a bot is, from the tasks of its service.

    Of a bot without an account the newest task counts. One with an account has ended only when the engine has seen all
    of its tasks end: a task that vanished while its node was away has not.

    Args:
        tasks: of its service.
        nodes: of the swarm, by id.
        state: what was remembered of the bot.
        asked: whether it was asked to end.
        there: whether it has a service.
        now: the time (default: the real one).
    """
    ordered = sorted(tasks, key=lambda task: task.created)
    signer = bool(state.get("signer"))
    if signer:
        ordered = [task for task in ordered if task.state not in ENDED] or ordered[-1:]
    bound = state.get("node")
    if not ordered:
        if signer and state.get("unreachable_since") and not _answers(nodes, bound):
            return Verdict(_unreachable(state, nodes, bound, now), node=bound)
        if not there:
            return Verdict(GONE)
        if asked:
            return Verdict(Observation(alive=False), node=bound)
        return Verdict(Observation(alive=True, note="waiting for a node"), node=bound)
    task = ordered[-1]
    if len(ordered) > 1 and task.state in BEFORE and ordered[-2].state in BY_ITSELF:
        task = ordered[-2]  # the engine would start it again soon: what follows a crash isn't the engine's to decide
    node = task.node or bound
    name = _name(nodes, node)
    if task.state in ENDED:
        started = task.started or task.exit_code is not None
        return Verdict(
            Observation(
                alive=False,
                exit_code=task.exit_code,
                stopped_at=task.at,
                failure=None if started else (task.error or "the engine doesn't tell why"),
                interrupted=task.state == "shutdown" and not asked,
                node=name,
            ),
            task.id,
            node,
        )
    if signer and node and (task.state == "orphaned" or not _answers(nodes, node)):  # also one that waits for its node
        return Verdict(_unreachable(state, nodes, node, now), task.id, node)
    note = None
    if task.state in BEFORE:
        note = task.error or {"preparing": f"being prepared on {name}, which pulls its image if need be"}.get(
            task.state, "waiting for a node"
        )
    kept = None
    if signer and (state.get("unreachable_since") or state.get("node") != node):
        kept = kept_of(state, node)
    running = task.at if task.state == "running" else None
    return Verdict(Observation(alive=True, note=note, node=name, started_at=running, state=kept), task.id, node)


def kept_of(state: State, node: str | None) -> dict[str, Any]:
    """Return what is kept of a bot's state for its next run, bound to a node."""
    kept = {key: state[key] for key in ("signer", "moves") if key in state}
    return {"signer": False, **kept, "node": node}


def _unreachable(state: State, nodes: Mapping[str, Node], node: str | None, now: datetime | None) -> Observation:
    since = state.get("unreachable_since")
    moment_ = datetime.fromisoformat(since) if since else now or datetime.now(timezone.utc)
    name = _name(nodes, node)
    kept = {**kept_of(state, node), "unreachable_since": moment_.isoformat()}
    return Observation(
        alive=True,
        note=f"its node {name} doesn't answer",
        unreachable_since=moment_,
        node=name,
        state=None if since else kept,
    )


def _answers(nodes: Mapping[str, Node], node: str | None) -> bool:
    return node is not None and node in nodes and nodes[node].state == "ready"


def _name(nodes: Mapping[str, Node], node: str | None) -> str | None:
    return nodes[node].name if node is not None and node in nodes else node
