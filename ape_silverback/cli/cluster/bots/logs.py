"""``ape silverback cluster bots logs`` and ``errors``: what bots write."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click
from ape.logging import CLICK_STYLE_KWARGS

from ape_silverback.cli.shared.options import Moment, all_option, bot_names, cluster_options, connected, format_option
from ape_silverback.cli.shared.output import show
from ape_silverback.cli.shared.selection import choose
from ape_silverback.cli.shared.terminal import echo, echo_indented, echo_text, note, safe_colours, safe_json, style
from ape_silverback.concurrency import map_threads

if TYPE_CHECKING:
    from ape.logging import LogLevel

    from ape_silverback.cluster.client import Bot
    from ape_silverback.cluster.log_stream import LogLine
    from ape_silverback.cluster.merged_logs import LogPiece

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
TIME_WIDTH, LEVEL_WIDTH = 17, 8
"""Characters of a time and of a level."""


@click.command(short_help="Show logs of bots")
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
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Show the logs of bots, those of several bots merged by time. BOT is a name or a glob.

    \b
    Example:
        ape silverback cluster bots logs blocks --since 10m -f
        ape silverback cluster bots logs '*' --level ERROR --format json
    """
    from ape.logging import LogLevel

    from ape_silverback.cluster.merged_logs import read_logs

    if follow and until:
        raise click.UsageError("--follow and --until can't be combined.")
    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, every).values())
        level = LogLevel[log_level.upper()]
        pieces = _follow(chosen, level, since, tail) if follow else read_logs(chosen, level, since, until, tail)
        prefixes = _prefixes(chosen)
        try:
            for piece in pieces:
                for line in piece.lines:
                    _show_line(piece.bot, line, prefixes, format_)
        except (KeyboardInterrupt, SystemExit):  # Ape makes an exit of an interrupt
            if sys.stderr.isatty():
                note("")  # what the shell shows next begins a line
            raise


def _prefixes(bots: Sequence[Bot]) -> dict[str, str]:
    if len(bots) == 1:
        return {bots[0].name: ""}
    width = max(len(bot.name) for bot in bots)
    return {
        bot.name: style(f"{bot.name:<{width}}  ", fg=COLOURS[number % len(COLOURS)]) for number, bot in enumerate(bots)
    }


def _show_line(bot: Bot, entry: LogLine, prefixes: dict[str, str], format_: str) -> None:
    from ape_silverback.cli.shared.documents import LogDocument

    if format_ == "json":
        echo_text(safe_json(LogDocument.of(bot.name, entry).data()))
    elif format_ == "yaml":
        echo("---")
        show(LogDocument.of(bot.name, entry).data(), "yaml", lambda: None)
    else:
        prefix = prefixes[bot.name]
        for line in entry_text(entry).split("\n"):
            echo(f"{prefix}{line}")


def entry_text(entry: LogLine) -> str:
    """Return an entry of a log as people read it: local time, level, message."""
    time = style(f"{entry.time.astimezone():%x %X}", bold=True) if entry.time else " " * TIME_WIDTH
    level = " " * LEVEL_WIDTH
    if entry.level is not None:
        level = style(f"{entry.level.name:<{LEVEL_WIDTH}}", **CLICK_STYLE_KWARGS.get(entry.level, {}))
    message = safe_colours(entry.message).replace("\n", f"\n{' ' * (TIME_WIDTH + LEVEL_WIDTH + 2)}| ")
    return f"{time} {level} | {message}"


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


@click.command(short_help="Show errors of bots")
@bot_names
@format_option
@cluster_options
def errors(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """Show the errors of bots, the most frequent first. BOT is a name or a glob; the default is all.

    Errors that differ only in hashes, times or long numbers are counted together; the latest one is shown.

    \b
    Example:
        ape silverback cluster bots errors
    """
    from ape_silverback.cli.shared.documents import ErrorDocument
    from ape_silverback.cluster.bot_errors import count_errors

    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, not names).values())
        told = dict(zip([bot.name for bot in chosen], map_threads(lambda bot: bot.errors, chosen), strict=True))
    documents = [ErrorDocument(message=one.message, count=one.count, bots=dict(one.bots)) for one in count_errors(told)]

    def text() -> None:
        if not documents:
            note("No errors.")
        for one in documents:
            shares = (f"{name} ({count})" if 1 < count < one.count else name for name, count in one.bots.items())
            where = ", ".join(shares)
            echo(f"{style(f'{one.count} x', bold=True)} {style(where, fg='red')}")
            echo_indented(one.message, 4)

    show([one.data() for one in documents], format_, text)
