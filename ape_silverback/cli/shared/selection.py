"""Choosing things by name or glob, and acting on many of them side by side."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import click

from ape_silverback.cli.shared.output import show
from ape_silverback.cli.shared.terminal import confirm, echo, note
from ape_silverback.concurrency import map_threads

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import ResultDocument


T = TypeVar("T")


class Removable(Protocol):
    """Something of a cluster that can be removed."""

    def remove(self) -> None:
        """Remove it."""


def choose(kind: str, known: Mapping[str, T], names: Sequence[str], every: bool = False) -> dict[str, T]:
    """Return what names or globs choose: names in their order, matches of a glob and all of them by name.

    Args:
        kind: what they are, for errors: ``bot``.
        known: all of them by name.
        names: names or globs.
        every: whether to choose all.

    Raises:
        click.UsageError: neither names nor ``every``, or both.
        click.ClickException: a name matches nothing.
    """
    if every and names:
        raise click.UsageError(f"Pass names of {kind}s or --all, not both.")
    if every:
        return dict(sorted(known.items()))
    if not names:
        raise click.UsageError(f"Pass the name of a {kind}, or --all.")
    chosen: dict[str, T] = {}
    for name in names:
        matches = [name] if name in known else sorted(fnmatch.filter(known, name))
        if not matches:
            raise click.ClickException(f"no {kind} '{name}'; there is: {', '.join(sorted(known)) or 'none'}")
        chosen |= {match: known[match] for match in matches}
    return chosen


def choose_one(kind: str, known: Mapping[str, T], name: str) -> T:
    """Return what one name chooses.

    Raises:
        click.ClickException: it matches nothing, or as a glob more than one.
    """
    chosen = choose(kind, known, (name,))
    if len(chosen) > 1:
        raise click.ClickException(f"'{name}' matches more than one {kind}: {', '.join(sorted(chosen))}")
    return next(iter(chosen.values()))


def each(
    chosen: Mapping[str, T], act: Callable[[T], object], result: Literal["started", "stopped", "removed", "moved"]
) -> list[ResultDocument]:
    """Act on things side by side and return the results by name; a failure doesn't stop the others."""
    from ape_silverback.cli.shared.documents import ResultDocument
    from ape_silverback.exceptions import SilverbackError

    def one(name: str) -> ResultDocument:
        try:
            act(chosen[name])
        except SilverbackError as error:
            return ResultDocument(name=name, result="failed", error=str(error))
        return ResultDocument(name=name, result=result)

    return map_threads(one, chosen)


def remove_chosen(
    kind: str, known: Mapping[str, Removable], names: Sequence[str], every: bool, *, place: str, yes: bool
) -> list[ResultDocument]:
    """Ask whether to remove what names or globs choose, remove it, and return the results by name.

    Args:
        kind: as for ``choose``.
        known: all of them by name.
        names: names or globs.
        every: whether to choose all.
        place: what they are removed from, for the question.
        yes: whether not to ask.

    Raises:
        click.UsageError: as ``choose``; or it has to be asked, and stdin isn't a terminal.
        click.ClickException: a name matches nothing.
    """
    chosen = choose(kind, known, names, every)
    if chosen:
        kinds = kind if len(chosen) == 1 else f"{kind}s"
        confirm(f"Remove the {kinds} {', '.join(chosen)} from {place}?", yes)
    return each(chosen, lambda one: one.remove(), "removed")


def show_results(results: Sequence[ResultDocument], format_: str) -> None:
    """Show the results.

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
