"""How a run ended, and what follows that: from what was seen of it to a verdict. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ape_silverback.cluster.bot_errors import last_error_line
from ape_silverback.cluster.types import Crash, RestartPolicy, RestartStatus
from ape_silverback.server.lifecycle import (
    BY_CLUSTER,
    BY_ITSELF,
    BY_SIGNAL,
    BY_USER,
    NEVER_RAN,
    SHUTDOWN,
    STOP_REASONS,
    end_text,
)
from ape_silverback.server.logs import LastWords
from ape_silverback.server.restarts import CRASHES_SHOWN, GiveUp, Restart, after_crash, after_end
from ape_silverback.server.runtimes import EngineError, Observation
from ape_silverback.server.store import BotRecord


@dataclass(frozen=True)
class End:
    """The end of a run.

    Attributes:
        kind: of the event that tells of it.
        code: the stop code.
        reason: why it ended, in one line.
        error: the last one that the bot logged.
        exit_code: as a shell shows it; None if it wasn't seen, or there was no process.
        time: when it ended, where that was seen.
        then: why the bot is started again at once; None if it isn't.
        recurs: whether each new start would end the same way.
    """

    kind: Literal["stopped", "crashed", "circuit-breaker", "ended"]
    code: str
    reason: str
    error: str | None = None
    exit_code: int | None = None
    time: datetime | None = None
    then: str | None = None
    recurs: bool = False


@dataclass(frozen=True)
class Verdict:
    """What follows an end that wasn't asked for.

    Attributes:
        restarts: the bot's crashes, this one included, and when it is started again, if it is.
        gave_up: why it isn't started again, if it has ended too often.
    """

    restarts: RestartStatus
    gave_up: str | None = None


def asked_end(bot: BotRecord, seen: Observation) -> End | None:
    """Return how a run ended that was told to end: by the user, the cluster or the engine; None for another end."""
    code = bot.task.stop_code if bot.status is SHUTDOWN else None
    if code in STOP_REASONS:
        again = bot.wanted and code == BY_USER  # asked to start while it stopped
        then = "by the user" if again else None
        return End("stopped", code, STOP_REASONS[code], None, seen.exit_code, seen.stopped_at, then)
    if seen.interrupted:  # its node was away, or was told to take no bots
        reason = "ended by the engine"
        where = f"{reason} on node {seen.node}" if seen.node else reason
        return End("stopped", BY_CLUSTER, where, None, seen.exit_code, seen.stopped_at, reason)
    return None


def own_end(seen: Observation, words: LastWords) -> End:
    """Return how a run ended that wasn't told to.

    The bot SDK ends a bot without failing when too many of its tasks fail: that is its circuit breaker.
    """
    if seen.failure:
        return End("crashed", NEVER_RAN, f"can't be started: {seen.failure}", None, seen.exit_code, seen.stopped_at)
    if seen.exit_code == 0:
        error = last_error_line(words.errors)
        if error is None:
            return End("ended", BY_ITSELF, "ended by itself, without an error", None, 0, seen.stopped_at)
        return End("circuit-breaker", BY_ITSELF, f"stopped by its circuit breaker: {error}", error, 0, seen.stopped_at)
    error = last_error_line(words.errors or [words.lines])
    killed = seen.exit_code is not None and seen.exit_code > 128
    reason = f"{seen.note}: {end_text(seen.exit_code)}" if seen.note else end_text(seen.exit_code)
    if error and not killed:
        reason += f": {error}"
    return End("crashed", BY_SIGNAL if killed else BY_ITSELF, reason, error, seen.exit_code, seen.stopped_at)


def failed_start(error: Exception) -> End:
    """Return the end of a run that the runtime couldn't start."""
    passing = isinstance(error, EngineError | OSError)
    return End("crashed", NEVER_RAN, f"can't be started: {error or type(error).__name__}", recurs=not passing)


def verdict(end: End, bot: BotRecord, policy: RestartPolicy, now: datetime, chance: float) -> Verdict:
    """Return what follows an end that wasn't asked for.

    Args:
        bot: as it was before the end.
        policy: when it is started again.
        chance: from 0 up to 1.
    """
    restarts = bot.restarts
    ends = [*restarts.crashes, Crash(time=now, reason=end.reason, started=bot.task.started_at)]
    decide = after_crash if end.kind == "crashed" else after_end
    follows = None if end.recurs else decide(policy, ends, chance)
    if follows is not None or end.kind == "crashed":
        kept = ends[-max(CRASHES_SHOWN, policy.max_restarts) :]
        restarts = restarts.model_copy(update={"crashes": kept})
    match follows:
        case Restart(at=at):
            return Verdict(restarts.model_copy(update={"next_start": at}))
        case GiveUp(reason=reason):
            return Verdict(restarts, reason)
        case None:
            return Verdict(restarts)
