"""Bots as a table and as facts."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.output import WHOLE, age, show_table, state_text, time_text
from ape_silverback.cli.shared.terminal import note
from ape_silverback.plurals import plural

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import BotDocument
    from ape_silverback.cluster.client import Bot, ClusterClient
    from ape_silverback.cluster.types import ResourceStatus

GIVING_WAY = {"IMAGE": WHOLE, "ACCOUNT": WHOLE, "NETWORK": 14}
"""Columns that give way to a narrow terminal, and how far each can be cropped before it is left out."""

SORTED_BY: dict[str, Callable[[BotDocument], Any]] = {
    "name": lambda bot: bot.name,
    "state": lambda bot: (bot.state == "running", bot.state, bot.name),
    "network": lambda bot: (bot.ecosystem, bot.network, bot.provider, bot.name),
    "account": lambda bot: (bot.account or "", bot.name),
    "image": lambda bot: (bot.image, bot.name),
    "uptime": lambda bot: (bot.started is None, bot.started and -bot.started.timestamp(), bot.name),
}
"""What bots can be sorted by; by state, those in trouble come first, by uptime the youngest."""

FILTERED_BY = ("name", "state", "ecosystem", "network", "provider", "account", "image")
"""What bots can be filtered by, each with a glob."""


def filter_bots(bots: Sequence[BotDocument], filters: Sequence[str], by: str) -> list[BotDocument]:
    """Return the bots that every filter chooses, sorted.

    Args:
        filters: as ``state=stopped``; a glob as in ``name=price-*``.
        by: a key of ``SORTED_BY``.

    Raises:
        click.UsageError: a filter isn't KEY=GLOB with a known key.
    """
    found = list(bots)
    for one in filters:
        key, is_one, glob = one.partition("=")
        if not is_one or key not in FILTERED_BY:
            raise click.UsageError(f"--filter {one}: expected KEY=VALUE with one of the keys {', '.join(FILTERED_BY)}.")
        found = [bot for bot in found if fnmatch.fnmatchcase(getattr(bot, key) or "", glob)]
    return sorted(found, key=SORTED_BY[by])


def statuses_of(client: ClusterClient, bots: Sequence[Bot]) -> list[ResourceStatus]:
    """Return the status of each bot, in as few requests as the cluster allows: none where its list told already."""
    from ape_silverback.cluster.states import states_of
    from ape_silverback.cluster.types import ClusterHealth

    health = ClusterHealth() if all(bot.task is not None for bot in bots) else client.health
    return [one.status for one in states_of(bots, health) if one.status is not None]


def show_bots(bots: Sequence[BotDocument], *, wide: bool = False) -> None:
    """Show bots as a table; a wide one has every column in full, and more of them."""
    if not bots:
        note("No bots. `ape silverback cluster deploy` deploys those of the project.")
        return
    work = ("RESTARTS", "HEARTBEAT", "LAG") if wide else ()
    more = ("ENVIRONMENT", "CREDENTIAL", "CREATED") if wide else ()
    show_table(
        ("NAME", "STATE", "UPTIME", *work, "NETWORK", "ACCOUNT", "IMAGE", *more, "REASON"),
        [
            (
                bot.name,
                state_text(bot.state),
                age(bot.started) if bot.started and bot.state in ("startup", "running") else "-",
                *(_work_of(bot) if wide else ()),
                f"{bot.ecosystem}:{bot.network}:{bot.provider}",
                bot.account or "-",
                bot.image,
                *((", ".join(bot.environment) or "-", bot.credential or "-", time_text(bot.created)) if wide else ()),
                _reason_of(bot),
            )
            for bot in bots
        ],
        giving_way=None if wide else GIVING_WAY,
    )


def _work_of(bot: BotDocument) -> tuple[str, str, str]:
    """Return restarts, age of the heartbeat and lag; a dash for what the cluster doesn't tell."""
    health = bot.health
    return (
        str(bot.restarts.count) if bot.restarts else "-",
        age(health.heartbeat) if health and health.heartbeat else "-",
        plural(health.lag, "block") if health and health.lag is not None else "-",
    )


def _reason_of(bot: BotDocument) -> str:
    """Return why a bot is or was down and when it starts again, what its start waits for, or what is wrong with it."""
    match bot.state:
        case "stopped":
            reason = bot.reason
            if bot.restarts and bot.restarts.next_start:
                reason = f"{next_start_text(bot.restarts.next_start)}: {reason or 'it ended'}"
        case "startup" if bot.reason:
            reason = bot.reason
        case "startup" if bot.restarts and bot.restarts.count and bot.restarts.crashes:
            reason = f"restart {bot.restarts.count}: {bot.restarts.crashes[-1].reason}"
        case "running" if bot.health and not bot.health.healthy:
            reason = bot.health.reason
        case _:
            reason = None
    return (reason or "").partition("\n")[0]


def next_start_text(at: datetime) -> str:
    """Return when a bot is started again, as ``starts again in 30s``."""
    now = datetime.now(timezone.utc)
    return f"starts again in {age(now, at)}" if at - now >= timedelta(seconds=1) else "starts again now"
