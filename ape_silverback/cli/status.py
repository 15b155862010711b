"""``ape silverback cluster status``: the cluster and its bots on one page."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.connection import connected
from ape_silverback.cli.options import cluster_options
from ape_silverback.cli.output import age, note, show_table, state_text

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot
    from ape_silverback.cluster.types import ClusterHealth, ResourceStatus


@click.command(short_help="Show the cluster and its bots")
@cluster_options
def status(profile: str | None, cluster: str | None) -> None:
    """Show the cluster: its version and health, its networks, and each bot with state and uptime.

    \b
    Example:
        ape silverback cluster status
    """
    with connected(profile, cluster) as connection, ThreadPoolExecutor(3) as pool:
        version = pool.submit(lambda: connection.client.version)
        health = pool.submit(lambda: connection.client.health)
        bots = list(connection.client.bots.values())
        click.echo(f"{click.style('Cluster', bold=True)}   {connection.label}, version {version.result()}")
        click.echo(f"{click.style('Health', bold=True)}    {_health_text(health.result())}")
        networks = (f"{name} {_healthy(service.healthy)}" for name, service in health.result().networks.items())
        click.echo(f"{click.style('Networks', bold=True)}  {', '.join(networks) or '-'}")
        click.echo()
        show_bots(bots)


def show_bots(bots: Sequence[Bot]) -> None:
    """Show bots as a table, with what went wrong below it."""
    from ape_silverback.deploy.live import statuses_of

    if not bots:
        note("No bots. `ape silverback cluster deploy` deploys those of the project.")
        return
    bots = sorted(bots, key=lambda bot: bot.name)
    statuses = statuses_of(bots)
    show_table(
        ("NAME", "STATE", "UPTIME", "NETWORK", "ACCOUNT", "IMAGE", "REASON"),
        [
            (
                bot.name,
                state_text(state),
                _uptime(bot, state),
                f"{bot.ecosystem}:{bot.network}:{bot.provider}",
                bot.account or "-",
                bot.image,
                _reason(bot, state),
            )
            for bot, state in zip(bots, statuses, strict=True)
        ],
    )


def _uptime(bot: Bot, state: ResourceStatus) -> str:
    from ape_silverback.cluster.types import ResourceStatus

    runs = state in (ResourceStatus.STARTUP, ResourceStatus.RUNNING)
    return age(bot.task.started_at) if bot.task and runs else "-"


def _reason(bot: Bot, state: ResourceStatus) -> str:
    from ape_silverback.cluster.types import ResourceStatus

    if state is not ResourceStatus.STOPPED or not bot.task:
        return ""
    return (bot.task.stopped_reason or "").partition("\n")[0]


def _health_text(health: ClusterHealth) -> str:
    if health.cluster.healthy:
        return _healthy(True)
    services = [*health.networks.items(), *health.bots.items()]
    return f"{_healthy(False)}: {', '.join(name for name, service in services if not service.healthy)}"


def _healthy(healthy: bool) -> str:
    return click.style("healthy", fg="green") if healthy else click.style("not healthy", fg="red")
