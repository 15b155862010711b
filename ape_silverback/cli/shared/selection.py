"""Choosing things by name or glob, and doing something to many of them side by side."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from ape_silverback.cli.shared.output import show
from ape_silverback.cli.shared.terminal import echo, note
from ape_silverback.concurrency import map_threads

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import ResultDocument


T = TypeVar("T")


def choose(kind: str, known: Mapping[str, T], names: Sequence[str], every: bool = False) -> dict[str, T]:
    """Give what names or globs choose: names in their order, what a glob or all means by name.

    Args:
        kind: what it is, for errors: ``bot``.
        known: all that there is, by name.
        names: names or globs.
        every: whether all is meant.

    Raises:
        click.UsageError: nothing is named and not all is meant, or both.
        click.ClickException: a name matches nothing.
    """
    if every and names:
        raise click.UsageError(f"Name each {kind}, or say --all, not both.")
    if every:
        return dict(sorted(known.items()))
    if not names:
        raise click.UsageError(f"Name each {kind}, or say --all.")
    chosen: dict[str, T] = {}
    for name in names:
        matches = [name] if name in known else sorted(fnmatch.filter(known, name))
        if not matches:
            raise click.ClickException(f"no {kind} '{name}' there; there is: {', '.join(sorted(known)) or 'none'}")
        chosen |= {match: known[match] for match in matches}
    return chosen


def choose_one(kind: str, known: Mapping[str, T], name: str) -> T:
    """Give what one name means.

    Raises:
        click.ClickException: it matches nothing, or as a glob more than one.
    """
    chosen = choose(kind, known, (name,))
    if len(chosen) > 1:
        raise click.ClickException(f"'{name}' means more than one {kind}: {', '.join(sorted(chosen))}")
    return next(iter(chosen.values()))


def each(
    chosen: Mapping[str, T], act: Callable[[T], object], result: Literal["started", "stopped", "removed"]
) -> list[ResultDocument]:
    """Do something to things side by side, by name; one failure doesn't stop the others."""
    from ape_silverback.cli.shared.documents import ResultDocument
    from ape_silverback.exceptions import SilverbackError

    def one(name: str) -> ResultDocument:
        try:
            act(chosen[name])
        except SilverbackError as error:
            return ResultDocument(name=name, result="failed", error=str(error))
        return ResultDocument(name=name, result=result)

    return map_threads(one, chosen)


def show_results(results: Sequence[ResultDocument], format_: str) -> None:
    """Show what became of each.

    Raises:
        click.ClickException: one failed.
    """

    def text() -> None:
        for one in results:
            if one.error is None:
                echo(f"{one.name}: {one.result}")
            else:
                note(f"{one.name}: {one.error}")

    show([one.data() for one in results], format_, text)
    if failed := [one.name for one in results if one.error is not None]:
        raise click.ClickException(f"failed: {', '.join(failed)}")
