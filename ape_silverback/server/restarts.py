"""When a bot that ended is started again. Pure: times are given, and so is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ape_silverback.cluster.types import Crash, RestartPolicy
from ape_silverback.durations import short_span_text

CRASHES_SHOWN = 10
"""Crashes of a bot that are kept, the last ones."""

JITTER = 0.25
"""Share by which a delay is shorter or longer, so that bots that ended together don't start together."""


@dataclass(frozen=True)
class Restart:
    """A bot is started again.

    Attributes:
        at: no earlier than that.
    """

    at: datetime


@dataclass(frozen=True)
class GiveUp:
    """A bot has ended too often, and stays down."""

    reason: str


def after_crash(policy: RestartPolicy, ends: Sequence[Crash], chance: float) -> Restart | GiveUp | None:
    """Return what follows a crash; None for nothing.

    Args:
        policy: of the bot.
        ends: since its user started it, the oldest first; the last one is that which is decided on.
        chance: from 0 up to 1.
    """
    return None if policy.policy == "never" else _decide(policy, ends, chance, "crashed")


def after_end(policy: RestartPolicy, ends: Sequence[Crash], chance: float) -> Restart | GiveUp | None:
    """Return what follows an end that is neither a crash nor was asked for, with the arguments of ``after_crash``.

    Such ends count like crashes: a bot that has nothing to do isn't started over and over again.
    """
    return _decide(policy, ends, chance, "ended") if policy.policy == "always" else None


def _decide(policy: RestartPolicy, ends: Sequence[Crash], chance: float, verb: str) -> Restart | GiveUp:
    last = ends[-1]
    recent = [end for end in ends if last.time - end.time < timedelta(seconds=policy.window)]
    if len(recent) >= policy.max_restarts:
        took = max((last.time - recent[0].time).total_seconds(), 1.0)
        times = f"{len(recent)} times in {short_span_text(took)}" if len(recent) > 1 else "once"
        return GiveUp(f"{verb} {times}: {last.reason}")
    delay = min(policy.backoff * 2 ** (len(recent) - 1), policy.max_backoff)
    return Restart(last.time + timedelta(seconds=delay * (1 - JITTER + 2 * JITTER * chance)))
