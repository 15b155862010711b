"""``ape silverback cluster bots logs`` and ``errors``: what bots say."""

from __future__ import annotations

import heapq
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
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
    from ape_silverback.cluster.types import BotLogEntry

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
TIME_WIDTH, LEVEL_WIDTH = 17, 8
"""Characters of a time and of a level."""

BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)

Line = tuple["Bot", "BotLogEntry"]


@click.command(short_help="Show logs of bots")
@bot_names
@all_option
@click.option("-f", "--follow", is_flag=True, help="Stay and show new lines as they come.")
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
@click.option("-s", "--since", metavar="TIME", type=Moment(), help="From when on: 10m, 2h, 3 days ago, or ISO 8601.")
@click.option("--until", metavar="TIME", type=Moment(), help="Up to when, likewise.")
@click.option("--tail", metavar="N", type=click.IntRange(min=0), help="Only the last N lines of each bot.")
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
    """Show the logs of bots: each BOT by name or glob. Those of several are merged by time, with the name before it.

    \b
    Example:
        ape silverback cluster bots logs blocks --since 10m -f
        ape silverback cluster bots logs '*' --level ERROR --format json
    """
    from ape.logging import LogLevel

    if follow and until:
        raise click.UsageError("What is followed has no end: --follow or --until, not both.")
    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, every).values())
        level = LogLevel[log_level.upper()]
        lines = _follow(chosen, level, since, tail) if follow else _read(chosen, level, since, until, tail)
        prefixes = _prefixes(chosen)
        try:
            for bot, entry in lines:
                _show_line(bot, entry, prefixes, format_)
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


def _show_line(bot: Bot, entry: BotLogEntry, prefixes: dict[str, str], format_: str) -> None:
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


def entry_text(entry: BotLogEntry) -> str:
    """Return an entry of a log as people read it: local time, level, message."""
    time = style(f"{entry.timestamp.astimezone():%x %X}", bold=True) if entry.timestamp else " " * TIME_WIDTH
    level = " " * LEVEL_WIDTH
    if entry.level is not None:
        level = style(f"{entry.level.name:<{LEVEL_WIDTH}}", **CLICK_STYLE_KWARGS.get(entry.level, {}))
    message = safe_colours(entry.message).replace("\n", f"\n{' ' * (TIME_WIDTH + LEVEL_WIDTH + 2)}| ")
    return f"{time} {level} | {message}"


def _read(
    bots: Sequence[Bot], level: LogLevel, since: datetime | None, until: datetime | None, tail: int | None
) -> Iterator[Line]:
    """Read logs to their ends, merged by time; a line without a time stays behind the one before it."""

    def timed(number: int, bot: Bot) -> Iterator[tuple[datetime, int, int, Line]]:
        last = BEGINNING
        entries: Iterator[BotLogEntry] = bot.get_logs(level, start_time=since, end_time=until)
        if tail is not None:
            entries = iter(deque(entries, maxlen=tail))
        for place, entry in enumerate(entries):
            last = entry.timestamp or last
            yield (last if last.tzinfo else last.replace(tzinfo=timezone.utc)), number, place, (bot, entry)

    for *_, line in heapq.merge(*(timed(number, bot) for number, bot in enumerate(bots)), key=lambda one: one[:3]):
        yield line


def _follow(bots: Sequence[Bot], level: LogLevel, since: datetime | None, tail: int | None) -> Iterator[Line]:
    """Follow logs side by side, until the last bot is gone.

    Raises:
        click.ClickException: at last, when one couldn't be read (any more).
    """
    from ape_silverback.exceptions import SilverbackError

    lines: queue.SimpleQueue[Line | tuple[Bot, SilverbackError | None]] = queue.SimpleQueue()

    def read(bot: Bot) -> None:
        try:
            for entry in _from_tail(bot, level, since, tail):
                lines.put((bot, entry))
        except SilverbackError as error:
            lines.put((bot, error))
        else:
            lines.put((bot, None))

    for bot in bots:
        # Not waited for when this process ends.
        threading.Thread(target=read, args=(bot,), daemon=True).start()
    left, failed = len(bots), []
    while left:
        bot, what = lines.get()
        if isinstance(what, SilverbackError):
            note(f"{bot.name}: {what}")
            failed.append(bot.name)
        elif what is None:
            note(f"{bot.name}: no longer on the cluster")
        else:
            yield bot, what
            continue
        left -= 1
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def _from_tail(bot: Bot, level: LogLevel, since: datetime | None, tail: int | None) -> Iterator[BotLogEntry]:
    """Follow a log from its last lines on. The cluster knows no such thing: what is there already is read first."""
    if tail is None:
        yield from bot.get_logs(level, start_time=since, follow=True)
        return
    there = 0
    skipped: datetime | None = since
    before = 0  # lines at that time that are too old
    window: deque[BotLogEntry] = deque()
    for entry in bot.get_logs(level, start_time=since):
        there += 1
        window.append(entry)
        if len(window) > tail:
            gone = window.popleft()
            if gone.timestamp is not None and gone.timestamp != skipped:
                skipped, before = gone.timestamp, 0
            before += 1
    if there <= tail:
        skipped, before = since, 0
    for number, entry in enumerate(bot.get_logs(level, start_time=skipped, follow=True)):
        if number >= before:
            yield entry


@click.command(short_help="Show errors of bots")
@bot_names
@format_option
@cluster_options
def errors(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """Show what went wrong in bots, the most frequent first: each BOT by name or glob, by default all.

    Errors that differ in hashes, times and long numbers only are counted as one, and the last of them is shown.

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
