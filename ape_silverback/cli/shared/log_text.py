"""Lines of logs as commands show them: text with the bot's name in front, JSON, or YAML."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ape.logging import CLICK_STYLE_KWARGS

from ape_silverback.cli.shared.output import width_of
from ape_silverback.cli.shared.terminal import cut, safe_colours, safe_json, safe_line, safe_yaml, style
from ape_silverback.timezones import local_time

if TYPE_CHECKING:
    from ape.logging import LogLevel

    from ape_silverback.cluster.client import Bot, RemovedBot
    from ape_silverback.cluster.log_stream import LogLine
    from ape_silverback.cluster.merged_logs import LogPiece

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
MOST_HEADS = 10_000
"""Times and levels that are kept as text."""

LONGEST_NAME = 200
"""Most characters of a bot's name in front of each of its lines."""

TIME_WIDTH, LEVEL_WIDTH = 17, 8
"""Characters of a time and of a level."""


def log_formatter(bots: Sequence[Bot | RemovedBot], format_: str) -> Callable[[LogPiece], list[str]]:
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
    names = {bot.name: cut(safe_line(bot.name), LONGEST_NAME) for bot in bots}
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
            self._heads[key] = self._made(f"{local_time(line.time):%x %X}", line.level)
        return self._heads[key]

    def _made(self, time: str, level: LogLevel | None) -> str:
        if not sys.stdout.isatty():
            return f"{time:<{TIME_WIDTH}} {level.name if level is not None else '':<{LEVEL_WIDTH}}"
        name = style(f"{level.name:<{LEVEL_WIDTH}}", **CLICK_STYLE_KWARGS.get(level, {})) if level is not None else ""
        return f"{style(f'{time:<{TIME_WIDTH}}', bold=True)} {name or ' ' * LEVEL_WIDTH}"
