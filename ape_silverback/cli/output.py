"""How commands show things: data on stdout, everything else on stderr; colours only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ape_silverback.cluster.types import ResourceStatus

STATE_COLOURS = {
    "running": "green",
    "stopped": "red",
    "startup": "yellow",
    "shutdown": "yellow",
    "provisioning": "yellow",
}


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show rows under headings, aligned; as wide as they are when piped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for row in rows:
        # From ANSI: a cell may be styled, and must not be read as markup.
        table.add_row(*(Text.from_ansi(cell) for cell in row))
    console = Console(highlight=False)
    if not sys.stdout.isatty():
        console = Console(highlight=False, width=max(10_000, console.width))
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def note(text: str) -> None:
    """Say something that is no data."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Say something that the user should look at."""
    click.secho(f"WARNING: {text}", fg="yellow", err=True)


def state_text(status: ResourceStatus) -> str:
    """Give a status as a coloured word."""
    word = str(status).lower()
    return click.style(word, fg=STATE_COLOURS.get(word))


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


def confirm(question: str, yes: bool) -> None:
    """Ask before something is done; go on only on "yes".

    Raises:
        click.UsageError: there is nobody to ask.
        click.exceptions.Exit: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is there to ask: say --yes.")
    if not click.confirm(question, err=True):
        note("Nothing was changed.")
        raise click.exceptions.Exit(1)
