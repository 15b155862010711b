"""``ape silverback cluster nodes``: the machines of a cluster that has several."""

from __future__ import annotations

import click

from ape_silverback.cli.shared.options import cluster_options, connected, format_option
from ape_silverback.cli.shared.output import show, show_table
from ape_silverback.cli.shared.terminal import echo


@click.command()
@format_option
@cluster_options
def nodes(format_: str, profile: str | None, cluster: str | None) -> None:
    """List the machines that the cluster runs bots on, with their state, size and bots.

    Only a cluster on a Docker Swarm has several.

    \b
    Example:
        ape silverback cluster nodes
    """
    with connected(profile, cluster) as connection:
        found = connection.client.nodes

    def text() -> None:
        if not found:
            echo("This cluster runs its bots on one machine.")
            return
        rows = [
            (
                node.name,
                node.state if node.availability == "active" else f"{node.state}, {node.availability}",
                "manager" if node.manager else "worker",
                f"{node.cpus:g}",
                f"{node.memory / 2**30:.1f} GiB",
                ", ".join(node.bots) or "-",
            )
            for node in found
        ]
        show_table(("NAME", "STATE", "ROLE", "CPUS", "MEMORY", "BOTS"), rows)

    show([node.model_dump(mode="json") for node in found], format_, text)
