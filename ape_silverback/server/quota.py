"""What a paid cluster may use: what would be more is refused, and each bot gets its part of the machine."""

from __future__ import annotations

from collections.abc import Sequence

from ape_silverback.cluster.types import BotConfiguration, ClusterConfiguration
from ape_silverback.plurals import plural
from ape_silverback.server.runtimes import Limits

GIB = 1024**3


def limits_of(own: Limits, paid: ClusterConfiguration | None) -> Limits:
    """Return what each bot may use at most.

    Together bots never have more than is paid for: each gets an equal part of it, whether the others run or not.

    Args:
        own: what the cluster gives each bot.
        paid: what is paid for; None for a cluster that hosts itself.
    """
    if paid is None:
        return own
    cpus, memory = paid.cpu / paid.bots, paid.memory * GIB // paid.bots
    return Limits(min(own.cpus or cpus, cpus), min(own.memory or memory, memory))


def refusal(
    paid: ClusterConfiguration, others: Sequence[BotConfiguration], new: BotConfiguration, memory: int | None = None
) -> str | None:
    """Return why a bot would be more than is paid for; None if it wouldn't.

    Args:
        paid: what is paid for.
        others: the other bots that should run.
        new: the bot.
        memory: bytes that the others use, where a runtime doesn't hold each to its part; None where it does.
    """
    more = "stop or remove one, or pay for more"
    if len(others) >= paid.bots:
        return f"{_paid(paid.bots, 'bot')} paid for, and {len(others)} in use; {more}"
    networks = sorted({f"{one.ecosystem}:{one.network}" for one in others})
    if f"{new.ecosystem}:{new.network}" not in networks and len(networks) >= paid.networks:
        return (
            f"{_paid(paid.networks, 'network')} paid for, and bots use {', '.join(networks)}; "
            f"{new.ecosystem}:{new.network} would be one more"
        )
    if memory is not None and memory >= paid.memory * GIB:
        return f"{paid.memory} GiB of memory is paid for, and bots use {memory / GIB:.1f} GiB; {more}"
    return None


def _paid(count: int, thing: str) -> str:
    return f"{plural(count, thing)} {'is' if count == 1 else 'are'}"
