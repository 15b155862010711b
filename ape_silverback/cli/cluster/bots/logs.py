"""``ape silverback cluster bots logs`` and ``errors``: what bots write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click
from ape.logging import CLICK_STYLE_KWARGS

from ape_silverback.cli.shared.options import Moment, all_option, bot_names, cluster_options, connected, format_option
from ape_silverback.cli.shared.output import show, width_of
from ape_silverback.cli.shared.selection import choose
from ape_silverback.cli.shared.terminal import (
    echo,
    echo_indented,
    echo_lines,
    note,
    safe_colours,
    safe_json,
    safe_line,
    safe_yaml,
    style,
)
from ape_silverback.concurrency import map_threads

if TYPE_CHECKING:
    from ape.logging import LogLevel

    from ape_silverback.cluster.client import Bot, RemovedBot
    from ape_silverback.cluster.log_stream import LogLine
    from ape_silverback.cluster.merged_logs import LogPiece

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
MOST_HEADS = 10_000
"""Times and levels that are kept as text."""

TIME_WIDTH, LEVEL_WIDTH = 17, 8
"""Characters of a time and of a level."""


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
        lines_of = _formatter(chosen, format_)
        try:
            for piece in pieces:
                echo_lines(lines_of(piece))
        except (KeyboardInterrupt, SystemExit):  # Ape makes an exit of an interrupt
            if sys.stderr.isatty():
                note("")  # what the shell shows next begins a line
            raise


def _formatter(bots: Sequence[Bot | RemovedBot], format_: str) -> Callable[[LogPiece], list[str]]:
    """Return what makes safe lines of pieces of logs."""
    if format_ == "json":
        return lambda piece: [_json_line(piece.bot.name, line) for line in piece.lines]
    if format_ == "yaml":
        from ape_silverback.cli.shared.documents import LogDocument

        return lambda piece: [
            f"---\n{safe_yaml(LogDocument.of(piece.bot.name, line).data())}".rstrip("\n") for line in piece.lines
        ]
    text = LogText()
    prefixes = _prefixes(bots)
    return lambda piece: [text.of(line, prefixes[piece.bot.name]) for line in piece.lines]


def _json_line(bot: str, line: LogLine) -> str:
    """Return a line as ``LogDocument`` has it, without making one: there may be a hundred thousand."""
    time = f'"{line.time.isoformat().replace("+00:00", "Z")}"' if line.time else "null"
    level = f'"{line.level.name}"' if line.level is not None else "null"
    return f'{{"bot": {safe_json(bot)}, "timestamp": {time}, "level": {level}, "message": {safe_json(line.message)}}}'


def _prefixes(bots: Sequence[Bot | RemovedBot]) -> dict[str, str]:
    names = {bot.name: safe_line(bot.name) for bot in bots}
    if len(names) <= 1:
        return dict.fromkeys(names, "")
    width = max(map(width_of, names.values()))
    return {
        name: style(shown + " " * (width - width_of(shown) + 2), fg=COLOURS[number % len(COLOURS)])
        for number, (name, shown) in enumerate(names.items())
    }


class LogText:
    """Log lines as people read them: local time, level, message. What the next line shares is kept."""

    def __init__(self) -> None:
        self._heads: dict[tuple[int, LogLevel | None], str] = {}

    def of(self, line: LogLine, prefix: str = "") -> str:
        """Return a line as safe text; a message of several lines is as many, each with the prefix."""
        head = f"{prefix}{self._head(line)} | "
        if line.message.isprintable():
            return head + line.message
        first, *more = safe_colours(line.message).split("\n")
        margin = f"{prefix}{' ' * (TIME_WIDTH + LEVEL_WIDTH + 1)} | "
        return "\n".join([head + first, *(margin + text for text in more)])

    def _head(self, line: LogLine) -> str:
        if line.time is None:
            return self._made(" " * TIME_WIDTH, line.level)
        try:
            key = int(line.time.timestamp()), line.level
        except (OverflowError, ValueError):  # the years 1 and 9999
            return self._made(f"{line.time:%Y-%m-%d %H:%M}", line.level)
        if key not in self._heads:
            if len(self._heads) > MOST_HEADS:
                self._heads.clear()
            self._heads[key] = self._made(_local(line.time), line.level)
        return self._heads[key]

    def _made(self, time: str, level: LogLevel | None) -> str:
        if not sys.stdout.isatty():
            return f"{time:<{TIME_WIDTH}} {level.name if level is not None else '':<{LEVEL_WIDTH}}"
        name = style(f"{level.name:<{LEVEL_WIDTH}}", **CLICK_STYLE_KWARGS.get(level, {})) if level is not None else ""
        return f"{style(f'{time:<{TIME_WIDTH}}', bold=True)} {name or ' ' * LEVEL_WIDTH}"


def _local(time: datetime) -> str:
    try:
        return f"{time.astimezone():%x %X}"
    except (OverflowError, ValueError):
        return f"{time:%x %X}"


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

    Errors that differ only in hashes, times or long numbers are counted together; the latest one is shown.

    \b
    Example:
        ape silverback cluster bots errors
    """
    from ape_silverback.cluster.bot_errors import count_errors

    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, not names).values())
        by_bot = dict(zip([bot.name for bot in chosen], map_threads(lambda bot: bot.errors, chosen), strict=True))
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
