"""``ape silverback cluster open``: the cluster's dashboard in a browser."""

from __future__ import annotations

import click

from ape_silverback.cli.shared.options import cluster_options, connected
from ape_silverback.cli.shared.terminal import echo, note


@click.command("open")
@click.option("--print", "only_print", is_flag=True, help="Print the address instead of opening a browser.")
@cluster_options
def open_(only_print: bool, profile: str | None, cluster: str | None) -> None:
    """Open the cluster's dashboard in a browser, logged in by a link that works once, for a minute.

    The hosted platform has its own dashboard; this one belongs to the cluster that `up` or `serve` starts.

    \b
    Example:
        ape silverback cluster open
        ape silverback cluster open --print
    """
    import webbrowser

    with connected(profile, cluster) as connection:
        address = connection.client.dashboard_link()
    if only_print:
        echo(address)
    elif webbrowser.open(address):
        note("Opened the dashboard in your browser.")
    else:
        note("No browser could be opened. Open this address, which works once, for a minute:")
        echo(address)
