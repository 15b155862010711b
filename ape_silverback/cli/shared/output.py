"""How commands show data: tables, facts, JSON and YAML, on stdout."""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ape_silverback.cli.shared.terminal import cut, echo, echo_text, plain, safe_json, safe_line, safe_yaml, style
from ape_silverback.timezones import local_time

if TYPE_CHECKING:
    from ape_silverback.cluster.types import ClusterConfiguration

STATE_COLOURS = {
    "running": "green",
    "stopped": "red",
    "startup": "yellow",
    "shutdown": "yellow",
    "provisioning": "yellow",
}

GAP = 3
"""Characters between two columns."""

NARROWEST = 8
"""Fewest characters to which a column is folded."""

WHOLE = 10_000
"""Fewest characters of a column that is shown in full or left out."""

LONGEST_CELL = 2_000
"""Most characters of a cell that are shown: a longer one would make each row of the table as wide."""

LAST_COLUMN = 30
"""Characters at which a last column is folded when there is no room for more."""


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    err: bool = False,
    giving_way: Mapping[str, int] | None = None,
) -> None:
    """Show rows under headings, aligned; as wide as they are when piped.

    Args:
        columns: headings.
        rows: cells, each of which may have one style.
        err: on stderr.
        giving_way: as for ``fit``, to a terminal that is too narrow; all other columns but the first are folded there.
    """
    table = [[*columns], *([_cell(text) for text in row] for row in rows)]
    widest = None
    if (sys.stderr if err else sys.stdout).isatty():
        widest = shutil.get_terminal_size().columns
        table = fit(table, widest, giving_way) if giving_way is not None else table
    widths = [max(width_of(cell) for cell in column) for column in zip(*table, strict=True)]
    if widest is not None:
        widths = _folded_widths(widths, widest)
    table[0] = [style(heading, bold=True) for heading in table[0]]
    for row in table:
        cells = [_fold(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            padded = (cell + " " * (width - width_of(cell) + GAP) for cell, width in zip(line, widths, strict=True))
            echo("".join(padded).rstrip(), err=err)


def _cell(text: str) -> str:
    """Return a text as a safe line of a bounded length, in its style."""
    cell = safe_line(text)
    if len(cell) <= LONGEST_CELL:
        return cell
    text = plain(cell)
    return cell.replace(text, cut(text, LONGEST_CELL))


def width_of(text: str) -> int:
    """Return how many characters of a terminal's line a text takes."""
    text = plain(text)
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _folded_widths(widths: list[int], widest: int) -> list[int]:
    """Return widths that fit, the widest columns but the first made narrower."""
    widths = [*widths]
    while sum(widths) + GAP * (len(widths) - 1) > widest and len(widths) > 1:
        place = max(range(1, len(widths)), key=lambda place: widths[place])
        if widths[place] <= NARROWEST:
            break
        widths[place] -= 1
    return widths


def _fold(cell: str, width: int) -> list[str]:
    """Break a cell into lines of a width, each in its style."""
    if width_of(cell) <= width:
        return [cell]
    text = plain(cell)
    before, _, after = cell.partition(text)
    lines, line, taken = [], "", 0
    for character in text:
        if taken + _width(character) > width:
            lines.append(line)
            line, taken = "", 0
        line += character
        taken += _width(character)
    return [f"{before}{one}{after}" for one in [*lines, line]]


def one_line(text: str) -> str:
    """Return a line, cut where a terminal would break it."""
    text = _cell(text)
    if not sys.stdout.isatty() or width_of(text) <= (width := shutil.get_terminal_size().columns):
        return text
    return f"{_fold(text, width - 1)[0]}…"


def fit(table: Sequence[Sequence[str]], width: int, giving_way: Mapping[str, int]) -> list[list[str]]:
    """Make a table narrower: what matters less gives way to what matters more.

    Args:
        table: headings, then rows.
        width: characters of a line.
        giving_way: heading of a column → fewest characters that it can be cropped to, in the order in which they give
            way. One that would have to be shorter is left out.

    Returns:
        The table without columns in which nothing stands, and cropped as far as it has to be. The last column will be
        folded, so that not all of it has to fit.
    """
    columns = [list(column) for column in zip(*table, strict=True) if len(table) == 1 or any(column[1:])]
    for heading, fewest in giving_way.items():
        widths = [max(width_of(cell) for cell in column) for column in columns]
        widths[-1] = min(widths[-1], LAST_COLUMN)
        over = sum(widths) + GAP * (len(widths) - 1) - width
        if over <= 0:
            break
        place = next((place for place, column in enumerate(columns) if column[0] == heading), None)
        if place is None:
            continue
        if widths[place] - over >= fewest:
            columns[place] = [crop(cell, widths[place] - over) for cell in columns[place]]
        else:
            del columns[place]
    return [list(row) for row in zip(*columns, strict=True)]


def crop(text: str, width: int) -> str:
    """Shorten a text in its middle, where the names of images and networks say least."""
    if len(text) <= width:
        return text
    end = (width - 1) * 2 // 3
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def show(data: Any, format_: str, text: Callable[[], None]) -> None:
    """Show data as it was asked for.

    Args:
        data: plain values, as the documents of this package give them.
        format_: ``text``, ``json`` or ``yaml``.
        text: shows it for people.
    """
    if format_ == "json":
        echo_text(safe_json(data, indent=2))
    elif format_ == "yaml":
        echo_text(safe_yaml(data).rstrip("\n"))
    else:
        text()


def show_facts(facts: Mapping[str, str], err: bool = False) -> None:
    """Show one thing: a line a fact, aligned. ``err``: on stderr."""
    width = max(map(len, facts)) + 3
    for key, value in facts.items():
        echo(f"{style(f'{key}:', bold=True)}{' ' * (width - len(key) - 1)}{cut(value)}", err=err)


def configuration_facts(configuration: ClusterConfiguration | None) -> dict[str, str]:
    """Return the settings of a cluster for ``show_facts``."""
    if configuration is None:
        return {"configuration": "-"}
    parts = configuration.settings_display_dict()
    parts.pop("version")
    return {key: str(value) for part in parts.values() for key, value in part.items()}


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Send Ape's messages about connections and transactions to stderr, since stdout is for data."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def time_text(moment: datetime | None) -> str:
    """Return a time in local time."""
    return "-" if moment is None else f"{local_time(moment):%Y-%m-%d %H:%M:%S %Z}"


def state_text(state: str) -> str:
    """Return a state as a coloured word."""
    return style(state, fg=STATE_COLOURS.get(state))


def health_text(healthy: bool) -> str:
    """Return a health as coloured words."""
    return style("healthy", fg="green") if healthy else style("not healthy", fg="red")


def value_text(value: Any) -> str:
    """Return a value of a configuration for people."""
    if value is None or value == () or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return safe_line(", ".join(value) if isinstance(value, list | tuple) else str(value))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True  # or click would take the colours away


def captured(text: Callable[[], None]) -> str:
    """Return what a function shows, with its colours."""
    lines = _Terminal()
    with contextlib.redirect_stdout(lines):
        text()
    return lines.getvalue()


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Return the time since a moment in its two largest units, as ``2h 5m``; empty for None."""
    if moment is None:
        return ""
    seconds = max(0, int(((now or datetime.now(timezone.utc)) - moment).total_seconds()))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size or (unit == "s" and not parts):
            parts.append(f"{seconds // size}{unit}")
            seconds %= size
    return " ".join(parts[:2])
