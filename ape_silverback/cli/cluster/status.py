"""``ape silverback cluster status``: the cluster and its bots on one page."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.bots import show_bots
from ape_silverback.cli.shared.options import cluster_options, connected, format_option
from ape_silverback.cli.shared.output import age, captured, health_text, one_line, show
from ape_silverback.cli.shared.terminal import echo, style
from ape_silverback.concurrency import CONCURRENCY

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import StatusDocument
    from ape_silverback.connect import Connection

MOST_ERRORS = 3
"""Errors that are shown of a bot, the most frequent first."""

MANY_BOTS = 20
"""With more bots, only errors of those that aren't healthy are asked for."""


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Keep the page up to date.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between updates.",
)
@format_option
@cluster_options
def status(watch: bool, interval: float, format_: str, profile: str | None, cluster: str | None) -> None:
    """Show the cluster on one page: version, health, networks, time left, and its bots with their recent errors.

    \b
    Example:
        ape silverback cluster status
        ape silverback cluster status --watch
    """
    if watch and format_ != "text":
        raise click.UsageError("--watch shows text; it can't be combined with --format.")
    with connected(profile, cluster) as connection:
        if watch:
            _watch(connection, interval)
        document = _ask(connection)
        show(document.data(), format_, lambda: _show(document))


def _watch(connection: Connection, interval: float) -> None:
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
                page = captured(partial(_show, _ask(connection)))
            except (ConnectionFailed, ServerError) as error:
                page = captured(partial(echo, style(str(error), fg="red")))
            footer = style(f"\n{datetime.now():%X}, every {interval:g} s; Ctrl-C to quit", dim=True)
            live.update(Text.from_ansi(page + footer), refresh=True)
            time.sleep(interval)


def _ask(connection: Connection) -> StatusDocument:
    from ape_silverback.cli.shared.documents import BotDocument, StatusDocument
    from ape_silverback.deployment.observed import statuses_of

    client = connection.client
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        version = pool.submit(lambda: client.version)
        asked_health = pool.submit(lambda: client.health)
        record = pool.submit(connection.record) if connection.is_platform else None
        bots = sorted(client.bots.values(), key=lambda bot: bot.name)
        health = asked_health.result()
        unwell = [bot for bot in bots if (found := health.bots.get(bot.name)) is None or not found.healthy]
        asked = bots if len(bots) <= MANY_BOTS else unwell
        errors = dict(zip([bot.name for bot in asked], pool.map(lambda bot: bot.errors, asked), strict=True))
        return StatusDocument(
            cluster=connection.label,
            version=version.result(),
            healthy=health.cluster.healthy,
            networks={name: service.healthy for name, service in health.networks.items()},
            bots=[BotDocument.of(*pair) for pair in zip(bots, statuses_of(bots), strict=True)],
            errors={name: told for name, told in errors.items() if told},
            expiration=record.result()[1].expiration if record else None,
        )


def _show(document: StatusDocument) -> None:
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
    show_bots(document.bots)
    for name, told in document.errors.items():
        echo(f"\n{style(f'Errors of {name}', bold=True)}")
        for error in count_errors({name: told})[:MOST_ERRORS]:
            echo(one_line(f"  {error.count} x {last_error_line([error.message]) or ''}"))
