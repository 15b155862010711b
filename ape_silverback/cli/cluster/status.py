"""``ape silverback cluster status``: the cluster and its bots on one page."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.bots import FILTERED_BY, SORTED_BY, filter_bots, show_bots
from ape_silverback.cli.shared.options import (
    Number,
    cluster_options,
    connected,
    format_option,
    platform,
    wide_option,
)
from ape_silverback.cli.shared.output import age, captured, health_text, one_line, show
from ape_silverback.cli.shared.terminal import echo, note, style
from ape_silverback.concurrency import CONCURRENCY, map_threads

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import StatusDocument
    from ape_silverback.connect import Connection

MOST_ERRORS = 3
"""Errors that are shown of a bot, the most frequent first."""

MANY_BOTS = 20
"""With more bots, only errors of those that aren't healthy are asked for."""

MANY_CLUSTERS = 4
"""Most clusters that are asked at once."""


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Keep the page up to date.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=Number(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between updates.",
)
@wide_option
@click.option(
    "--sort", "by", type=click.Choice(list(SORTED_BY)), default="name", show_default=True, help="Sort the bots."
)
@click.option(
    "--filter",
    "filters",
    metavar="KEY=VALUE",
    multiple=True,
    help=f"Show only some bots, such as state=stopped or 'name=price-*'; repeatable. Keys: {', '.join(FILTERED_BY)}.",
)
@click.option("--all-clusters", is_flag=True, help="Every cluster of every workspace of the platform.")
@format_option
@cluster_options
def status(
    watch: bool,
    interval: float,
    output: str | None,
    by: str,
    filters: tuple[str, ...],
    all_clusters: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Show the cluster on one page: version, health, networks, time left, and its bots with their recent errors.

    \b
    Example:
        ape silverback cluster status
        ape silverback cluster status --watch
        ape silverback cluster status --filter state=stopped --sort uptime -o wide
    """
    if watch and format_ != "text":
        raise click.UsageError("--watch shows text; it can't be combined with --format.")
    page = Page(by, filters, wide=output == "wide")
    page.check()
    if all_clusters:
        if watch or cluster:
            raise click.UsageError("--all-clusters can't be combined with --watch or --cluster.")
        _show_all(page, format_, profile)
        return
    with connected(profile, cluster) as connection:
        if watch:
            _watch(connection, interval, page)
        document = page.of(connection)
        show(document.data(), format_, lambda: _show(document, page))


@dataclass(frozen=True)
class Page:
    """What is shown of the bots of a cluster."""

    by: str
    filters: Sequence[str]
    wide: bool

    def check(self) -> None:
        """Raise click.UsageError for a filter that isn't one."""
        filter_bots((), self.filters, self.by)

    def of(self, connection: Connection) -> StatusDocument:
        """Ask a cluster and return its page."""
        document = _ask(connection)
        bots = filter_bots(document.bots, self.filters, self.by)
        names = {bot.name for bot in bots}
        errors = {name: told for name, told in document.errors.items() if name in names}
        return document.model_copy(update={"bots": bots, "errors": errors})


def _show_all(page: Page, format_: str, profile: str | None) -> None:
    """Show every cluster of the platform, one after the other; those that don't answer are named at the end."""
    from ape_silverback.connect import cluster_paths
    from ape_silverback.exceptions import SilverbackError

    def ask(path: str) -> StatusDocument | SilverbackError:
        try:
            with connected(profile, path) as connection:
                return page.of(connection)
        except SilverbackError as error:
            return error

    with platform(profile) as above:
        paths = sorted(cluster_paths(above.client))
    answers = dict(zip(paths, map_threads(ask, paths, MANY_CLUSTERS), strict=True))
    documents = [answer for answer in answers.values() if not isinstance(answer, SilverbackError)]
    failed = {path: answer for path, answer in answers.items() if isinstance(answer, SilverbackError)}

    def text() -> None:
        for number, document in enumerate(documents):
            if number:
                echo()
            _show(document, page)
        if not paths:
            note("No clusters. Create one with `ape silverback cluster new`.")

    show([document.data() for document in documents], format_, text)
    if failed:
        lines = "\n".join(f"{path}: {error}" for path, error in failed.items())
        raise click.ClickException(f"{len(failed)} of {len(paths)} clusters can't be shown:\n{lines}")


def _watch(connection: Connection, interval: float, page: Page) -> None:
    """Show the page until an interrupt, also while the cluster doesn't answer."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from ape_silverback.exceptions import ConnectionFailed, ServerError

    if not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal.")
    with Live(console=Console(), auto_refresh=False, screen=True) as live:
        while True:
            try:
                shown = captured(partial(_show, page.of(connection), page))
            except (ConnectionFailed, ServerError) as error:
                shown = captured(partial(echo, style(str(error), fg="red")))
            footer = style(f"\n{datetime.now():%X}, every {interval:g} s; Ctrl-C to quit", dim=True)
            live.update(Text.from_ansi(shown + footer), refresh=True)
            time.sleep(interval)


def _ask(connection: Connection) -> StatusDocument:
    from ape_silverback.cli.shared.documents import BotDocument, StatusDocument
    from ape_silverback.cluster.states import states_of

    client = connection.client
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        version = pool.submit(lambda: client.version)
        asked_health = pool.submit(lambda: client.health)
        record = pool.submit(connection.record) if connection.is_platform else None
        bots = sorted(client.list_bots(), key=lambda bot: bot.name)
        health = asked_health.result()
        unwell = [bot for bot in bots if (found := health.bots.get(bot.name)) is None or not found.healthy]
        asked = bots if len(bots) <= MANY_BOTS else unwell
        errors: dict[str, list[str]] = {}
        for bot, told in zip(asked, pool.map(lambda bot: bot.errors, asked), strict=True):
            errors.setdefault(bot.name, []).extend(told)
        return StatusDocument(
            cluster=connection.label,
            version=version.result(),
            healthy=health.cluster.healthy,
            networks={name: service.healthy for name, service in health.networks.items()},
            bots=[BotDocument.of(one.bot, one.status) for one in states_of(bots, health) if one.status is not None],
            errors={name: told for name, told in errors.items() if told},
            expiration=record.result()[1].expiration if record else None,
        )


def _show(document: StatusDocument, page: Page) -> None:
    from ape_silverback.cluster.bot_errors import count_errors, last_error_line

    def fact(name: str, text: str) -> None:
        echo(f"{style(name, bold=True)}{' ' * (10 - len(name))}{text}")

    unwell = [name for name, healthy in document.networks.items() if not healthy]
    unwell += [bot.name for bot in document.bots if bot.state != "running"]
    fact("Cluster", f"{document.cluster}, version {document.version}")
    fact("Health", health_text(document.healthy) + (f": {', '.join(unwell)}" if not document.healthy else ""))
    fact("Networks", ", ".join(f"{name} {health_text(well)}" for name, well in document.networks.items()) or "-")
    if document.expiration:
        now = datetime.now(timezone.utc)
        over = document.expiration <= now
        left = style("expired", fg="red") if over else f"{age(now, document.expiration)} left"
        fact("Stream", left)
    echo()
    if page.filters and not document.bots:
        note(f"No bot matches {' '.join(page.filters)}.")
    else:
        show_bots(document.bots, wide=page.wide)
    for name, told in document.errors.items():
        echo()
        echo(style(f"Errors of {name}", bold=True))
        for error in count_errors({name: told})[:MOST_ERRORS]:
            echo(one_line(f"  {error.count} x {last_error_line([error.message]) or ''}"))
