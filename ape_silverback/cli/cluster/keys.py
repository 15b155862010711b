"""``ape silverback cluster keys``: named API keys of a cluster of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.gate import connected_for_writing, no_verify_option
from ape_silverback.cli.shared.group import LazyGroup
from ape_silverback.cli.shared.options import cluster_options, connected, format_option, yes_option
from ape_silverback.cli.shared.output import age, show, show_table
from ape_silverback.cli.shared.selection import choose_one
from ape_silverback.cli.shared.terminal import confirm, echo, note

if TYPE_CHECKING:
    from ape_silverback.cluster.types import KeyRole

HERE = "ape_silverback.cli.cluster.keys"

keys = LazyGroup(
    name="keys",
    help="""Create, list and revoke the API keys of a cluster that you run yourself.

    Give each person and each program a key, so that one can be taken back without the others. A key with role `read`
    can look at everything but change nothing.
    """,
    commands_by_section={
        "Commands": {
            "new": (f"{HERE}:new", "Create an API key"),
            "list": (f"{HERE}:list_", "List API keys"),
            "revoke": (f"{HERE}:revoke", "Revoke an API key"),
        }
    },
)


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["read", "write"]), default="read", show_default=True, help="What it allows.")
@no_verify_option
@format_option
@cluster_options
def new(name: str, role: KeyRole, no_verify: bool, format_: str, profile: str | None, cluster: str | None) -> None:
    """Create an API key and print it on stdout. It can't be shown again: the cluster keeps only its hash.

    \b
    Example:
        ape silverback cluster keys new ci --role write
    """
    with connected_for_writing(profile, cluster, no_verify) as connection:
        made = connection.client.new_key(name, role)
    show(made.model_dump(mode="json"), format_, lambda: echo(made.key))
    if format_ == "text":
        note(f"Key '{made.name}' ({made.role}); keep it now, it can't be shown again.")


@click.command()
@format_option
@cluster_options
def list_(format_: str, profile: str | None, cluster: str | None) -> None:
    """List the API keys, with their roles and last uses.

    \b
    Example:
        ape silverback cluster keys list
    """
    with connected(profile, cluster) as connection:
        found = connection.client.keys

    def text() -> None:
        if not found:
            echo("The cluster has no named keys.")
            return
        used = [f"{age(one.last_use)} ago" if one.last_use else "never" for one in found]
        rows = [(one.name, one.role, f"{one.created:%Y-%m-%d}", when) for one, when in zip(found, used, strict=True)]
        show_table(("NAME", "ROLE", "CREATED", "LAST USE"), rows)

    show([one.model_dump(mode="json") for one in found], format_, text)


@click.command()
@click.argument("name")
@yes_option
@no_verify_option
@cluster_options
def revoke(name: str, yes: bool, no_verify: bool, profile: str | None, cluster: str | None) -> None:
    """Revoke an API key: it opens nothing from now on.

    \b
    Example:
        ape silverback cluster keys revoke ci --yes
    """
    with connected_for_writing(profile, cluster, no_verify) as connection:
        found = choose_one("key", {one.name: one for one in connection.client.keys}, name)
        confirm(f"Revoke key '{found.name}' of {connection.label}?", yes)
        connection.client.revoke_key(found)
    echo(f"Revoked key '{name}'.")
