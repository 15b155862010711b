"""``ape silverback cluster mcp``: the cluster as tools for language models."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from ape_silverback.cli.shared.gate import no_verify_option, pass_gate
from ape_silverback.cli.shared.options import cluster_options, connected
from ape_silverback.cli.shared.terminal import note

TOKEN = "SILVERBACK_MCP_TOKEN"  # noqa: S105 - the name of a variable
PORT = 8717


@click.command()
@click.option("--allow-changes", is_flag=True, help="Offer tools that start, stop, create, update, remove and deploy.")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    show_default=True,
    help="stdio for a client that starts this command; http for streamable HTTP on the loopback interface.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=PORT, show_default=True, help="Port, with --transport http."
)
@click.option("--target", metavar="NAME", help="Target of the section, for plans and deployments.")
@no_verify_option
@cluster_options
def mcp(
    allow_changes: bool,
    transport: str,
    port: int,
    target: str | None,
    no_verify: bool,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Serve the cluster to language models over the Model Context Protocol. Read-only without --allow-changes.

    A deployment applies only a plan that was shown before, by its hash. Values of variables are never in an answer.
    With --transport http, clients send `Authorization: Bearer TOKEN`; the token is that of SILVERBACK_MCP_TOKEN, else a
    new one, which is shown.

    \b
    Example:
        ape silverback cluster mcp
        ape silverback cluster mcp --transport http --allow-changes
    """
    from ape_silverback.config.reader import read_section
    from ape_silverback.deployment.session import DeployRequest

    try:
        from ape_silverback.mcp_server import Served, make_server, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("mcp", "uvicorn"):
            raise
        raise click.ClickException('the MCP server needs an extra: pip install "ape-silverback[mcp]"') from None

    reading = read_section(Path.cwd())
    with connected(profile, cluster, reading, target) as connection:
        if allow_changes:
            pass_gate(connection, reading.section.stream_of(target), no_verify=no_verify)
        request = DeployRequest(Path.cwd(), target=target, profile=profile, cluster=cluster)
        server = make_server(Served(connection, request, verify=not no_verify), allow_changes)
        if transport == "stdio":
            serve_stdio(server)
            return
        token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
        note(f"Serving {connection.label} at http://127.0.0.1:{port}/mcp; Ctrl-C to quit.")
        if not os.environ.get(TOKEN):
            note(f"Token: {token}")
        serve_http(server, port, token)
