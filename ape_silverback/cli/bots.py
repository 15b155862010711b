"""``ape silverback cluster bots``: the bots that are on a cluster."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.connection import connected
from ape_silverback.cli.group import LazyGroup
from ape_silverback.cli.options import Function, cluster_options
from ape_silverback.cli.output import age, confirm, note, state_text

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient

HERE = "ape_silverback.cli.bots"
CONCURRENCY = 16

bots = LazyGroup(
    name="bots",
    help="Show, start, stop and remove the bots that are on a cluster.",
    commands_by_section={
        "Look": {name: f"{HERE}:{name}_" for name in ("list", "info", "logs", "health")},
        "Change": {name: f"{HERE}:{name}" for name in ("start", "stop", "remove")},
    },
)


def _selection(function: Function) -> Function:
    """Add what chooses bots: names or globs, or ``--all``."""
    function = click.option("--all", "every", is_flag=True, help="Every bot of the cluster.")(function)
    return click.argument("names", metavar="[BOT]...", nargs=-1)(function)


_yes = click.option("-y", "--yes", is_flag=True, help="Don't ask.")


@click.command("list", short_help="List the bots")
@cluster_options
def list_(profile: str | None, cluster: str | None) -> None:
    """List the bots of the cluster, with state, uptime, network, and why one stopped.

    \b
    Example:
        ape silverback cluster bots list
    """
    from ape_silverback.cli.status import show_bots

    with connected(profile, cluster) as connection:
        show_bots(list(connection.client.bots.values()))


@click.command("info", short_help="Show one bot")
@click.argument("name", metavar="BOT")
@cluster_options
def info_(name: str, profile: str | None, cluster: str | None) -> None:
    """Show the configuration of a bot and what is known of its run.

    \b
    Example:
        ape silverback cluster bots info blocks
    """
    from ape_silverback.deploy.live import statuses_of

    with connected(profile, cluster) as connection:
        [bot] = _select(connection.client, (name,), every=False)
        [state] = statuses_of([bot])
        facts = {
            "name": bot.name,
            "id": str(bot.id),
            "state": state_text(state),
            "created": f"{bot.created.astimezone():%Y-%m-%d %H:%M:%S %Z}",
            "image": bot.image,
            "network": f"{bot.ecosystem}:{bot.network}:{bot.provider}",
            "account": bot.account or "-",
            "environment": ", ".join(bot.environment) or "-",
            "credential": bot.credential_name or "-",
            "cluster-access": "yes" if bot.cluster_access else "no",
        }
        if task := bot.task:
            facts |= {
                "started": f"{age(task.started_at)} ago" if task.started_at else "-",
                "stopped": f"{age(task.stopped_at)} ago" if task.stopped_at else "-",
                "exit-code": "-" if task.exit_code is None else str(task.exit_code),
                "reason": task.stopped_reason or "-",
            }
        for key, value in facts.items():
            click.echo(f"{key + ':':<16}{value}")
        if errors := bot.errors:
            click.echo("errors:")
            for error in errors:
                click.echo("  " + error.replace("\n", "\n  "))


@click.command("logs", short_help="Show a bot's log")
@click.argument("name", metavar="BOT")
@click.option("-f", "--follow", is_flag=True, help="Stay and show new lines as they come.")
@click.option(
    "-l",
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="Lowest level to show.",
)
@cluster_options
def logs_(name: str, follow: bool, log_level: str, profile: str | None, cluster: str | None) -> None:
    """Show the log of a bot.

    \b
    Example:
        ape silverback cluster bots logs blocks -f
    """
    from ape.logging import LogLevel

    with connected(profile, cluster) as connection:
        [bot] = _select(connection.client, (name,), every=False)
        for entry in bot.get_logs(LogLevel[log_level.upper()], follow=follow):
            click.echo(str(entry))


@click.command("health", short_help="Say whether bots are healthy")
@_selection
@cluster_options
def health_(names: tuple[str, ...], every: bool, profile: str | None, cluster: str | None) -> None:
    """Say whether bots are healthy: each BOT by name or glob, by default all. Exit code 1 if one isn't.

    \b
    Example:
        ape silverback cluster bots health
    """
    with connected(profile, cluster) as connection:
        chosen = _select(connection.client, names, every or not names)
        known = connection.client.health.bots
        unhealthy = []
        for bot in chosen:
            healthy = bot.name in known and known[bot.name].healthy
            unhealthy += [] if healthy else [bot.name]
            click.echo(f"{bot.name}: {'healthy' if healthy else 'not healthy'}")
    if unhealthy:
        raise click.ClickException(f"not healthy: {', '.join(unhealthy)}")


@click.command(short_help="Start bots")
@_selection
@cluster_options
def start(names: tuple[str, ...], every: bool, profile: str | None, cluster: str | None) -> None:
    """Start bots, each BOT by name or glob, and wait until they run and are healthy.

    \b
    Example:
        ape silverback cluster bots start blocks
    """
    from ape_silverback.cli.progress import progress, show_failure
    from ape_silverback.deploy.apply import Timing, wait_until_ready

    with connected(profile, cluster) as connection:
        chosen = _select(connection.client, names, every)
        started = _each(chosen, lambda bot: bot.start(), None)
        failures = []
        with progress() as shown:
            for event in wait_until_ready(connection.client, started, Timing()):
                shown.show(event)
                failures += [event] if event.kind == "failed" else []
        for event in failures:
            show_failure(event)
    _fail_for([*({bot.name for bot in chosen} - set(started)), *(event.name for event in failures)])


@click.command(short_help="Stop bots")
@_selection
@_yes
@cluster_options
def stop(names: tuple[str, ...], every: bool, yes: bool, profile: str | None, cluster: str | None) -> None:
    """Stop bots, each BOT by name or glob, and wait until they have stopped.

    \b
    Example:
        ape silverback cluster bots stop blocks --yes
    """
    from ape_silverback.deploy.apply import Timing, stop_and_wait

    with connected(profile, cluster) as connection:
        chosen = _select(connection.client, names, every)
        confirm(f"Stop {', '.join(bot.name for bot in chosen)} on {connection.label}?", yes)
        stopped = _each(chosen, lambda bot: stop_and_wait(bot, Timing()), "stopped")
    _fail_for(sorted({bot.name for bot in chosen} - set(stopped)))


@click.command(short_help="Remove bots")
@_selection
@_yes
@cluster_options
def remove(names: tuple[str, ...], every: bool, yes: bool, profile: str | None, cluster: str | None) -> None:
    """Remove bots from the cluster, each BOT by name or glob. A running bot is stopped first; its log goes with it.

    \b
    Example:
        ape silverback cluster bots remove blocks --yes
    """
    with connected(profile, cluster) as connection:
        chosen = _select(connection.client, names, every)
        confirm(f"Remove {', '.join(bot.name for bot in chosen)} from {connection.label}?", yes)
        removed = _each(chosen, lambda bot: bot.remove(), "removed")
    _fail_for(sorted({bot.name for bot in chosen} - set(removed)))


def _select(client: ClusterClient, names: Sequence[str], every: bool) -> list[Bot]:
    """Give the bots that names or globs choose.

    Raises:
        click.UsageError: nothing is named and all aren't meant.
        click.ClickException: a name matches no bot.
    """
    if not names and not every:
        raise click.UsageError("Name the bots, or say --all.")
    known: Mapping[str, Bot] = client.bots
    if every:
        return list(known.values())
    chosen: dict[str, Bot] = {}
    for name in names:
        matches = [name] if name in known else fnmatch.filter(known, name)
        if not matches:
            there = ", ".join(sorted(known)) or "none"
            raise click.ClickException(f"no bot '{name}' on the cluster; it has: {there}")
        chosen |= {match: known[match] for match in matches}
    return list(chosen.values())


def _each(chosen: Sequence[Bot], act: Callable[[Bot], None], done: str | None) -> list[str]:
    """Do something to bots side by side and say how each went; give the names of those where it worked."""
    from ape_silverback.exceptions import SilverbackError

    worked = []
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        futures = {bot.name: pool.submit(act, bot) for bot in chosen}
        for name, future in futures.items():
            try:
                future.result()
            except SilverbackError as error:
                note(f"{name}: {error}")
            else:
                worked.append(name)
                if done:
                    click.echo(f"{name}: {done}")
    return worked


def _fail_for(names: Sequence[str]) -> None:
    if names:
        raise click.ClickException(f"failed: {', '.join(names)}")
