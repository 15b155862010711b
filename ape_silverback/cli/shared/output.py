"""How commands show things: data on stdout, everything else on stderr; colours only on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

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

LAST_COLUMN = 30
"""Characters at which a last column is folded when there is no room for more."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    err: bool = False,
    giving_way: Mapping[str, int] | None = None,
) -> None:
    """Show rows under headings, aligned; as wide as they are when piped.

    Args:
        columns: headings.
        rows: cells, which may be styled.
        err: on stderr.
        giving_way: as for ``fit``, to a terminal that is too narrow; all other columns but the first are folded there.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console(highlight=False)
    if not (sys.stderr if err else sys.stdout).isatty():
        console = Console(highlight=False, width=max(10_000, console.width))
    elif giving_way is not None:
        columns, *rows = fit([columns, *rows], console.width, giving_way)
    first, *others = columns
    headers = Column(first, no_wrap=True), *(Column(name, overflow="fold") for name in others)
    table = Table(*headers, box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for row in rows:
        # From ANSI: a cell may be styled, and must not be read as markup.
        table.add_row(*(Text.from_ansi(cell) for cell in row))
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip(), err=err)


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
        widths = [max(len(click.unstyle(cell)) for cell in column) for column in columns]
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
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif format_ == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
    else:
        text()


def show_facts(facts: Mapping[str, str], err: bool = False) -> None:
    """Show one thing: a line a fact, aligned. ``err``: on stderr."""
    width = max(map(len, facts)) + 3
    for key, value in facts.items():
        click.echo(f"{click.style(f'{key}:', bold=True)}{' ' * (width - len(key) - 1)}{value}", err=err)


def configuration_facts(configuration: ClusterConfiguration | None) -> dict[str, str]:
    """Give what a cluster is configured to, a fact a setting, for ``show_facts``."""
    if configuration is None:
        return {"configuration": "-"}
    parts = configuration.settings_display_dict()
    parts.pop("version")
    return {key: str(value) for part in parts.values() for key, value in part.items()}


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Send what Ape says of connections and transactions, which it prints to stdout, to stderr: stdout is for data."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def time_text(moment: datetime | None) -> str:
    """Give a moment in local time."""
    return "-" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def note(text: str) -> None:
    """Say something that is no data."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Say something that the user should look at."""
    click.secho(f"WARNING: {text}", fg="yellow", err=True)


def state_text(state: str) -> str:
    """Give a state as a coloured word."""
    return click.style(state, fg=STATE_COLOURS.get(state))


def health_text(healthy: bool) -> str:
    """Give a health as coloured words."""
    return click.style("healthy", fg="green") if healthy else click.style("not healthy", fg="red")


def value_text(value: Any) -> str:
    """Give a value of a configuration for people."""
    if value is None or value == () or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True  # or click would take the colours away


def captured(text: Callable[[], None]) -> str:
    """Give what something would show, with its colours."""
    lines = _Terminal()
    with contextlib.redirect_stdout(lines):
        text()
    return lines.getvalue()


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Give the time since a moment in its two largest units, as ``2h 5m``; nothing for none."""
    if moment is None:
        return ""
    seconds = max(0, int(((now or datetime.now(timezone.utc)) - moment).total_seconds()))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size or (unit == "s" and not parts):
            parts.append(f"{seconds // size}{unit}")
            seconds %= size
    return " ".join(parts[:2])


@contextmanager
def answered() -> Iterator[None]:
    """Let a terminal be asked before anything is changed.

    Raises:
        click.exceptions.Exit: there was no answer, but Ctrl-C or the end of the input.
    """
    try:
        yield
    except (click.Abort, SystemExit):  # Ape makes an exit of an interrupt
        note("\nNothing was changed.")
        raise click.exceptions.Exit(INTERRUPTED) from None


def confirm(question: str, yes: bool) -> None:
    """Ask before something is done; go on only on "yes".

    Raises:
        click.UsageError: there is nobody to ask.
        click.exceptions.Exit: the answer was no, or none.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is there to ask: say --yes.")
    with answered():
        answer = click.confirm(question, err=True)
    if not answer:
        note("Nothing was changed.")
        raise click.exceptions.Exit(1)
