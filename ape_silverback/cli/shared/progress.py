"""Live progress of bots: a table on a terminal, plain lines elsewhere. Both on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ape_silverback.cli.shared.terminal import complain, echo_indented, note, safe_line

if TYPE_CHECKING:
    from rich.spinner import Spinner
    from rich.table import Table

    from ape_silverback.cluster.client import Bot, ClusterClient
    from ape_silverback.deployment.events import Event
    from ape_silverback.deployment.wait import Timing

COLOURS = {"ready": "green", "failed": "red", "state": "yellow"}


class Progress(Protocol):
    """Shows events while they happen."""

    def show(self, event: Event) -> None:
        """Show one event."""


class _Lines:
    """A line an event."""

    def show(self, event: Event) -> None:
        note(f"{event.name}: {_first_line(event.text)}")


class _Table:
    """One row a bot, redrawn in place."""

    def __init__(self, done: str) -> None:
        self.done = done
        self.rows: dict[str, Event] = {}
        self.spinners: dict[str, Spinner] = {}  # kept between redraws, or they would not turn

    def show(self, event: Event) -> None:
        self.rows = {**self.rows, event.name: event}  # another thread draws: what it goes through stays as it is

    def __rich__(self) -> Table:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, event in self.rows.items():
            mark = {self.done: Text("✓", "green"), "failed": Text("✗", "red")}.get(event.kind)
            spinner = self.spinners.setdefault(name, Spinner("dots"))
            table.add_row(
                mark or spinner,
                Text(safe_line(name), "bold"),
                Text(_first_line(event.text), COLOURS.get(event.kind, "")),
            )
        return table


@contextmanager
def progress(interrupted: str, done: str = "ready") -> Iterator[Progress]:
    """Show progress for as long as the context lasts.

    Args:
        interrupted: what is said after an interrupt: the state that the cluster is left in.
        done: kind of the event with which all is well with a bot.
    """
    try:
        if not sys.stderr.isatty():
            yield _Lines()
            return
        from rich.console import Console
        from rich.live import Live

        table = _Table(done)
        with Live(table, console=Console(stderr=True), refresh_per_second=8):
            yield table
    except (KeyboardInterrupt, SystemExit):  # Ape makes an exit of an interrupt
        note(f"Interrupted. {interrupted}")
        raise


def show_until_ready(client: ClusterClient, names: Sequence[str], timing: Timing) -> dict[str, str]:
    """Wait until bots run and are healthy, with progress; return those that failed, and why."""
    from ape_silverback.deployment.wait import wait_until_ready

    failures = []
    with progress(f"Started, but no longer waiting for: {', '.join(names)}.") as shown:
        for event in wait_until_ready(client, names, timing):
            shown.show(event)
            failures += [event] if event.kind in ("failed", "skipped") else []
    for event in failures:
        show_failure(event)
    return {event.name: event.text for event in failures}


def show_until_stopped(client: ClusterClient, names: Sequence[str], timing: Timing) -> dict[str, str]:
    """Wait until bots have stopped, with progress; return those that haven't, and why."""
    from ape_silverback.deployment.wait import wait_until_stopped

    failed: dict[str, str] = {}
    with progress(f"The cluster is still stopping: {', '.join(names)}.", done="applied") as shown:
        for event in wait_until_stopped(client, names, timing):
            shown.show(event)
            failed |= {event.name: event.text} if event.kind == "failed" else {}
    return failed


def show_restart(client: ClusterClient, bots: Sequence[Bot], timing: Timing) -> dict[str, str]:
    """Restart bots, and wait until they run and are healthy, with progress; return those that failed, and why."""
    from ape_silverback.deployment.restart import restart_bots

    failed: dict[str, str] = {}
    names = [bot.name for bot in bots]
    with progress(f"The cluster is still restarting: {', '.join(names)}.", done="applied") as shown:
        for event in restart_bots(client, bots, timing):
            shown.show(event)
            failed |= {event.name: event.text} if event.kind == "failed" else {}
    return failed | show_until_ready(client, [name for name in names if name not in failed], timing)


def show_failure(event: Event) -> None:
    """Show why a bot failed: the reason, its errors, its last log lines."""
    complain(f"\n{event.name}: {event.text}")
    for heading, lines in (("errors", event.errors), ("last log lines", event.log)):
        if lines:
            note(f"  {heading}:")
            for line in lines:
                echo_indented(line, 4, err=True)


def _first_line(text: str) -> str:
    return safe_line(text.partition("\n")[0])
