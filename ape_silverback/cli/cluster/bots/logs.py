"""``ape silverback cluster bots logs`` and ``errors``: what bots write."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.log_text import log_formatter
from ape_silverback.cli.shared.options import Moment, all_option, bot_names, cluster_options, connected, format_option
from ape_silverback.cli.shared.output import show
from ape_silverback.cli.shared.selection import choose
from ape_silverback.cli.shared.terminal import (
    echo,
    echo_indented,
    echo_lines,
    note,
    style,
)
from ape_silverback.concurrency import map_threads

if TYPE_CHECKING:
    from ape.logging import LogLevel

    from ape_silverback.cluster.client import Bot, RemovedBot
    from ape_silverback.cluster.merged_logs import LogPiece


@click.command()
@bot_names
@all_option
@click.option("-f", "--follow", is_flag=True, help="Follow the logs.")
@click.option(
    "-l",
    "--log-level",
    "--level",
    "log_level",
    type=click.Choice(["DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="Lowest level to show.",
)
@click.option(
    "-s",
    "--since",
    metavar="TIME",
    type=Moment(),
    help="Show lines since 10m, 2h or 3 days ago, or ISO 8601.",
)
@click.option("--until", metavar="TIME", type=Moment(), help="Show lines up to a time.")
@click.option("--tail", metavar="N", type=click.IntRange(min=0), help="Show only the last N lines of each bot.")
@click.option("--removed", is_flag=True, help="Show logs of removed bots, which some clusters keep for a while.")
@format_option
@cluster_options
def logs(
    names: tuple[str, ...],
    every: bool,
    follow: bool,
    log_level: str,
    since: datetime | None,
    until: datetime | None,
    tail: int | None,
    removed: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Show the logs of bots, those of several bots merged by time. BOT is a name or a glob.

    With --removed it is the last removed bot of a name; earlier ones are 'NAME (ID)'.

    \b
    Example:
        ape silverback cluster bots logs blocks --since 10m -f
        ape silverback cluster bots logs '*' --level ERROR --format json
        ape silverback cluster bots logs blocks --removed --tail 50
    """
    from ape.logging import LogLevel

    from ape_silverback.cluster.merged_logs import read_logs

    if follow and until:
        raise click.UsageError("--follow and --until can't be combined.")
    if follow and removed:
        raise click.UsageError("--follow and --removed can't be combined: a removed bot writes nothing more.")
    with connected(profile, cluster) as connection:
        level = LogLevel[log_level.upper()]
        chosen: Sequence[Bot | RemovedBot]
        if removed:
            chosen = list(choose("removed bot", connection.client.removed_bots, names, every).values())
            pieces = read_logs(chosen, level, since, until, tail)
        else:
            chosen = bots = list(choose("bot", connection.client.bots, names, every).values())
            pieces = _follow(bots, level, since, tail) if follow else read_logs(bots, level, since, until, tail)
        lines_of = log_formatter(chosen, format_)
        try:
            for piece in pieces:
                echo_lines(lines_of(piece))
        except (KeyboardInterrupt, SystemExit):  # Ape makes an exit of an interrupt
            if sys.stderr.isatty():
                note("")  # what the shell shows next begins a line
            raise


def _follow(bots: Sequence[Bot], level: LogLevel, since: datetime | None, tail: int | None) -> Iterator[LogPiece]:
    """Follow logs side by side, and tell of each that ends.

    Raises:
        click.ClickException: at last, when one couldn't be read, or no longer.
    """
    from ape_silverback.cluster.merged_logs import LogEnd, follow_logs

    failed = []
    for piece in follow_logs(bots, level, since, tail):
        if not isinstance(piece, LogEnd):
            yield piece
        elif piece.error is None:
            note(f"{piece.bot.name}: no longer on the cluster")
        else:
            note(f"{piece.bot.name}: {piece.error}")
            failed.append(piece.bot.name)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


@click.command()
@bot_names
@format_option
@cluster_options
def errors(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """Show the errors of bots, the most frequent first. BOT is a name or a glob; the default is all.

    Errors that differ only in hashes, times or long numbers are counted together; the latest one is shown. Those of a
    bot that crashed and was started again by its cluster stay until its user starts it.

    \b
    Example:
        ape silverback cluster bots errors
    """
    from ape_silverback.cluster.bot_errors import count_errors

    with connected(profile, cluster) as connection:
        bots = choose("bot", connection.client.bots, names, not names)
        by_bot = dict(zip(bots, map_threads(lambda bot: bot.errors, bots.values()), strict=True))
    found = count_errors(by_bot)

    def text() -> None:
        if not found:
            note("No errors.")
        for one in found:
            shares = (f"{name} ({count})" if 1 < count < one.count else name for name, count in one.bots.items())
            where = ", ".join(shares)
            echo(f"{style(f'{one.count} x', bold=True)} {style(where, fg='red')}")
            echo_indented(one.message, 4)

    show([one.model_dump(mode="json") for one in found], format_, text)
