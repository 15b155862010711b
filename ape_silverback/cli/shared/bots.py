"""Bots as a table and as facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ape_silverback.cli.shared.output import age, show_table, state_text
from ape_silverback.cli.shared.terminal import note

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import BotDocument

GIVING_WAY = {"IMAGE": 14, "ACCOUNT": 8, "NETWORK": 14}
"""What gives way to a narrow terminal, and how far it can be cropped before it is left out."""


def show_bots(bots: Sequence[BotDocument]) -> None:
    """Show bots as a table."""
    if not bots:
        note("No bots. `ape silverback cluster deploy` deploys those of the project.")
        return
    show_table(
        ("NAME", "STATE", "UPTIME", "NETWORK", "ACCOUNT", "IMAGE", "REASON"),
        [
            (
                bot.name,
                state_text(bot.state),
                age(bot.started) if bot.started and bot.state in ("startup", "running") else "-",
                f"{bot.ecosystem}:{bot.network}:{bot.provider}",
                bot.account or "-",
                bot.image,
                (bot.reason or "").partition("\n")[0] if bot.state == "stopped" else "",
            )
            for bot in bots
        ],
        giving_way=GIVING_WAY,
    )
