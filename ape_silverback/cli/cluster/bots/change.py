"""``ape silverback cluster bots new`` and ``update``: one bot, created or changed by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.completion import (
    complete_bots,
    complete_credentials,
    complete_groups,
    complete_project_bots,
)
from ape_silverback.cli.shared.gate import connected_for_writing, no_verify_option
from ape_silverback.cli.shared.options import cluster_options, format_option, yes_option
from ape_silverback.cli.shared.output import show, show_table, value_text
from ape_silverback.cli.shared.selection import choose_one
from ape_silverback.cli.shared.terminal import confirm, echo, note, warn

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient

NETWORK = "ECOSYSTEM:NETWORK:PROVIDER"

image_option = click.option("-i", "--image", metavar="IMAGE", help="Container image.")
account_option = click.option("-a", "--account", metavar="ALIAS", help="Alias of the account that signs; '' for none.")
group_option = click.option(
    "-g",
    "--group",
    "groups",
    metavar="GROUP",
    multiple=True,
    shell_complete=complete_groups,
    help="Variable group; repeatable. If two groups set a variable, the later wins.",
)
credential_option = click.option(
    "--credential",
    metavar="NAME",
    shell_complete=complete_credentials,
    help="Registry credential for the image; '' for none.",
)
access_option = click.option(
    "--cluster-access/--no-cluster-access",
    "cluster_access",
    default=None,
    help="Whether the bot gets the address and the key of its cluster.",
)


@click.command()
@click.argument("name", metavar="NAME", shell_complete=complete_project_bots)
@image_option
@click.option("--network", metavar=NETWORK, help="Network; missing parts come from the project.")
@account_option
@group_option
@credential_option
@access_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the bot is healthy.")
@no_verify_option
@format_option
@cluster_options
def new(
    name: str,
    image: str | None,
    network: str | None,
    account: str | None,
    groups: tuple[str, ...],
    credential: str | None,
    cluster_access: bool | None,
    wait: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Create a bot and start it. Missing options come from the Ape project, as for `deploy`.

    \b
    Example:
        ape silverback cluster bots new blocks
        ape silverback cluster bots new watcher --image ghcr.io/me/watcher:1 --network ethereum:mainnet:alchemy
    """
    from ape_silverback.cli.shared.documents import BotDocument
    from ape_silverback.cli.shared.progress import show_until_ready
    from ape_silverback.config.reader import read_section
    from ape_silverback.deployment.planning.bots import unknown_policies, without_policies
    from ape_silverback.deployment.wait import Timing
    from ape_silverback.project.desired import Overrides
    from ape_silverback.project.resolver import resolve

    timing = Timing()
    options = Overrides(
        network=network,
        account=account,
        image=image,
        credential=credential,
        environment=groups or None,
        cluster_access=cluster_access,
    )
    reading = read_section(Path.cwd())
    with connected_for_writing(profile, cluster, no_verify, reading) as connection:
        desired = resolve(reading, Path.cwd(), kind=connection.kind(), names=(name,), options=options, new=True)
        unknown = unknown_policies(desired, connection.client.extensions)
        for warning in (*desired.warnings, *unknown.values()):
            warn(warning)
        [wanted] = without_policies(desired, unknown).bots
        made = connection.client.new_bot(name, **dict(wanted.configuration), identity=connection.client.new_id())
        note(f"{name}: created")
        failed = show_until_ready(connection.client, [name], timing) if wait else {}
        now = connection.client.bots.get(name, made)
        document = BotDocument.of(now, now.status)
    show(document.data(), format_, lambda: echo(f"{name}: {document.state}"))
    if failed:
        raise click.ClickException(f"failed: {name}")


@click.command()
@click.argument("name", metavar="BOT", shell_complete=complete_bots)
@click.option("--new-name", metavar="NAME", help="New name.")
@image_option
@click.option("-n", "--network", metavar=NETWORK, help="Network; missing parts stay as they are.")
@account_option
@group_option
@click.option("--clear-vars", is_flag=True, help="Remove all variable groups.")
@credential_option
@access_option
@click.option("--restart", is_flag=True, help="Restart the bot if it runs, and wait until it is healthy.")
@yes_option
@no_verify_option
@format_option
@cluster_options
def update(
    name: str,
    new_name: str | None,
    image: str | None,
    network: str | None,
    account: str | None,
    groups: tuple[str, ...],
    clear_vars: bool,
    credential: str | None,
    cluster_access: bool | None,
    restart: bool,
    yes: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Update the configuration of a bot, after showing what changes. Missing options stay as they are.

    A running bot keeps its old configuration until it restarts; pass --restart to restart it.

    \b
    Example:
        ape silverback cluster bots update blocks --account deployer --restart
    """
    from ape_silverback.cli.shared.documents import BotDocument
    from ape_silverback.cli.shared.progress import show_restart
    from ape_silverback.deployment.state import ACTIVE
    from ape_silverback.deployment.wait import Timing

    timing = Timing()
    if groups and clear_vars:
        raise click.UsageError("--group and --clear-vars can't be combined.")
    with connected_for_writing(profile, cluster, no_verify) as connection:
        client = connection.client
        known = client.bots
        bot = choose_one("bot", known, name)
        if new_name and new_name != bot.name and new_name in known:
            raise click.ClickException(f"a bot named '{new_name}' already exists")
        wanted: dict[str, Any] = {
            "name": new_name,
            "image": image,
            "environment": [] if clear_vars else list(groups) or None,
            "cluster_access": cluster_access,
            **(_network(bot, network) if network else {}),
        }
        changes = {key: value for key, value in wanted.items() if value is not None and value != getattr(bot, key)}
        if account is not None and (account or None) != bot.account:
            changes["account"] = account or None
        old_credential = bot.credential.name if bot.credential else bot.credential_name
        if credential is not None and (credential or None) != old_credential:
            changes["credential_name"] = credential or None
        _check(client, changes)
        runs = bot.status in ACTIVE
        if changes:
            _show_changes({**bot.model_dump(), "credential_name": old_credential}, changes)
            confirm(f"Update {bot.name} on {connection.label}{' and restart it' if runs and restart else ''}?", yes)
            bot = bot.update(**changes)
        else:
            note(f"{bot.name}: nothing to change")
        failed = {}
        if runs and restart:
            failed = show_restart(client, [bot], timing)
        elif runs and changes:
            note(f"{bot.name} keeps its old configuration until it restarts; pass --restart to restart it.")
        elif changes:
            note(f"{bot.name} isn't running; the new configuration applies when it starts.")
        now = client.bots.get(bot.name, bot)
        document = BotDocument.of(now, now.status)
    done = "updated" if changes else "unchanged"
    show(document.data(), format_, lambda: echo(f"{document.name}: {done}, {document.state}"))
    if failed:
        raise click.ClickException(f"{bot.name}: {failed[bot.name]}")


def _network(bot: Bot, choice: str) -> dict[str, str]:
    """Return the parts of a network choice; missing ones are the bot's."""
    from ape_silverback.project.networks import ConfigurationFiles, Sourced, resolve_network

    now = Sourced(f"{bot.ecosystem}:{bot.network}:{bot.provider}", "the bot's")
    found = resolve_network([Sourced(choice, "option --network"), now], ConfigurationFiles((), {}))
    for warning in found.warnings:
        warn(warning)
    return {
        "ecosystem": found.ecosystem.value,
        "network": found.network.value,
        "provider": found.provider.value,
    }


def _check(client: ClusterClient, changes: dict[str, Any]) -> None:
    """Refuse groups and credentials that the cluster doesn't have, before anything is sent."""
    if groups := changes.get("environment"):
        _check_there("variable group", groups, client.variable_groups)
    if credential := changes.get("credential_name"):
        _check_there("registry credential", [credential], client.credentials)


def _check_there(kind: str, names: Sequence[str], known: Collection[str]) -> None:
    if missing := [name for name in names if name not in known]:
        there = ", ".join(sorted(known)) or "none"
        raise click.ClickException(f"the cluster has no {kind} {', '.join(missing)}; it has: {there}")


def _show_changes(old: dict[str, Any], new: dict[str, Any]) -> None:
    rows = [(key.replace("_", "-"), value_text(old[key]), value_text(value)) for key, value in new.items()]
    show_table(("", "OLD", "NEW"), rows, err=True)
