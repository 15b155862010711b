"""Life of a bot: which state may follow which, how a run ends, and what can't be asked of a bot. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import datetime, timezone

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.server.runtimes import Observation

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

WHAT_IT_DOES: Mapping[ResourceStatus, str] = {
    CREATED: "it is starting",
    PROVISIONING: "it is starting",
    STARTUP: "it is starting",
    RUNNING: "it is running",
    SHUTDOWN: "it is stopping",
    STOPPED: "it has stopped",
    DEPROVISIONING: "it is being removed",
    REMOVED: "it was removed",
}
"""State → what a bot in it does, for people."""

ALIVE = frozenset({STARTUP, RUNNING, SHUTDOWN})
"""States in which there is a process."""

BY_USER, BY_CLUSTER, BY_ITSELF, BY_SIGNAL, NEVER_RAN = "user", "cluster", "exited", "signal", "failed-to-start"
"""Stop codes."""

STOP_REASONS = {BY_USER: "stopped by its user", BY_CLUSTER: "the cluster was taken down"}


class ImpossibleTransition(Exception):
    """A state can't follow the one before: a defect of the cluster, never of a bot."""


class BusyError(Exception):
    """A bot is in a state in which what was asked can't be done now."""


class GoneError(LookupError):
    """A bot was removed, or is being removed."""


def went_down(seen: Observation) -> bool:
    """Return whether a run ended because its machine or its cluster did: its end wasn't seen."""
    unseen = seen.exit_code is None or (seen.exit_code == 128 + signal.SIGKILL and seen.stopped_at is None)
    return seen.failure is None and (seen.interrupted or unseen)


def seconds_since(moment: datetime | None) -> float:
    """Return the seconds that have passed since; 0 for no moment."""
    return (datetime.now(timezone.utc) - moment).total_seconds() if moment else 0.0


def end_text(exit_code: int | None) -> str:
    """Return how a run ended, by its exit code."""
    if exit_code is None:
        return "ended while the cluster was down"
    if exit_code > 128:
        number = exit_code - 128
        try:
            return f"killed by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            pass
    return f"exited with code {exit_code}"
