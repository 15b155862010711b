"""``ape silverback cluster vars``: variable groups. Their values are sent and never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ape_silverback.cli.shared.bots import statuses_of
from ape_silverback.cli.shared.completion import complete_groups
from ape_silverback.cli.shared.gate import connected_for_writing, no_verify_option
from ape_silverback.cli.shared.group import LazyGroup
from ape_silverback.cli.shared.options import (
    Function,
    all_option,
    allow_commands_option,
    cluster_options,
    connected,
    format_option,
    yes_option,
)
from ape_silverback.cli.shared.output import age, show, show_facts, show_table, time_text
from ape_silverback.cli.shared.selection import choose_one, remove_chosen, show_results
from ape_silverback.cli.shared.terminal import echo, note, warn
from ape_silverback.config.env_file import NAME, Commands, read_env_file
from ape_silverback.config.private_keys import looks_like_private_key, private_key_text, refused_text

HERE = "ape_silverback.cli.cluster.vars"

vars_ = LazyGroup(
    name="vars",
    help="List, create, update and remove groups of environment variables. Values are never shown.",
    commands_by_section={
        "Inspect": {"list": (f"{HERE}:list_", "List groups"), "info": (f"{HERE}:info", "Show a group")},
        "Change": {
            "new": (f"{HERE}:new", "Create a group"),
            "update": (f"{HERE}:update", "Update a group"),
            "remove": (f"{HERE}:remove", "Remove groups"),
        },
    },
)


def _values(function: Function) -> Function:
    """Add the options that give variables their values."""
    function = click.option(
        "--env-file",
        "env_files",
        metavar="FILE",
        multiple=True,
        help="File with NAME=VALUE lines, or - for stdin; repeatable.",
    )(function)
    function = allow_commands_option(function)
    return click.option(
        "-e",
        "--env",
        "variables",
        metavar="NAME[=VALUE]",
        multiple=True,
        help="A variable; without a value it is taken from the environment. Repeatable, and wins over --env-file.",
    )(function)


_group = click.argument("name", metavar="GROUP", shell_complete=complete_groups)


@click.command("list")
@format_option
@cluster_options
def list_(format_: str, profile: str | None, cluster: str | None) -> None:
    """List the variable groups of the cluster with the names of their variables.

    \b
    Example:
        ape silverback cluster vars list
    """
    from ape_silverback.cli.shared.documents import GroupDocument

    with connected(profile, cluster) as connection:
        groups = [GroupDocument.of(group) for group in connection.client.variable_groups.values()]
    groups.sort(key=lambda group: group.name)

    def text() -> None:
        if not groups:
            note("No variable groups. Create one with `ape silverback cluster vars new`.")
            return
        rows = [(group.name, ", ".join(group.variables) or "-", f"{age(group.created)} ago") for group in groups]
        show_table(("NAME", "VARIABLES", "CREATED"), rows)

    show([group.data() for group in groups], format_, text)


@click.command()
@_group
@format_option
@cluster_options
def info(name: str, format_: str, profile: str | None, cluster: str | None) -> None:
    """Show a variable group: the names of its variables and the bots that use it.

    \b
    Example:
        ape silverback cluster vars info rpc
    """
    from ape_silverback.cli.shared.documents import GroupDocument

    with connected(profile, cluster) as connection:
        group = choose_one("variable group", connection.client.variable_groups, name)
        users = [bot.name for bot in connection.client.bots.values() if group.name in bot.environment]
    document = GroupDocument.of(group, sorted(users))

    def text() -> None:
        show_facts(
            {
                "name": document.name,
                "id": str(document.id),
                "variables": ", ".join(document.variables) or "-",
                "created": time_text(document.created),
                "used by": ", ".join(users) or "-",
            }
        )

    show(document.data(), format_, text)


@click.command()
@click.argument("name", metavar="NAME")
@_values
@no_verify_option
@format_option
@cluster_options
def new(
    name: str,
    variables: tuple[str, ...],
    env_files: tuple[str, ...],
    commands: Commands | None,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Create a variable group.

    \b
    Example:
        ape silverback cluster vars new rpc -e ALCHEMY_API_KEY -e LIMIT=5
        pass show rpc | ape silverback cluster vars new rpc --env-file -
    """
    from ape_silverback.cli.shared.documents import GroupDocument

    values = _read(variables, env_files, commands)
    if not values:
        raise click.UsageError("Pass at least one variable with -e or --env-file.")
    _check_private_keys(name, values)
    with connected_for_writing(profile, cluster, no_verify) as connection:
        group = connection.client.new_variable_group(name, values, connection.client.new_id())
    show(GroupDocument.of(group).data(), format_, lambda: echo(f"{group.name}: created"))


@click.command()
@_group
@_values
@click.option("-d", "--del", "deleted", metavar="NAME", multiple=True, help="Variable to remove; repeatable.")
@no_verify_option
@format_option
@cluster_options
def update(
    name: str,
    variables: tuple[str, ...],
    env_files: tuple[str, ...],
    commands: Commands | None,
    deleted: tuple[str, ...],
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Set and remove variables of a group. The others stay as they are.

    A running bot keeps the old values until it restarts.

    \b
    Example:
        ape silverback cluster vars update rpc -e ALCHEMY_API_KEY -d OLD_KEY
    """
    from ape_silverback.cli.shared.documents import GroupDocument
    from ape_silverback.deployment.state import ACTIVE

    values = _read(variables, env_files, commands)
    if both := sorted(set(values) & set(deleted)):
        raise click.UsageError(f"-e and -d name the same variable: {', '.join(both)}.")
    _check_private_keys(name, values)
    with connected_for_writing(profile, cluster, no_verify) as connection:
        group = choose_one("variable group", connection.client.variable_groups, name)
        if unknown := [one for one in deleted if one not in group.variables]:
            there = ", ".join(group.variables) or "none"
            raise click.ClickException(f"group '{group.name}' has no variable {', '.join(unknown)}; it has: {there}")
        if not values and not deleted:
            note(f"{group.name}: nothing to change")
            done = "unchanged"
        else:
            group = group.update(**values, **dict.fromkeys(deleted))
            done = "updated"
            users = [bot for bot in connection.client.bots.values() if group.name in bot.environment]
            running = [
                bot.name
                for bot, state in zip(users, statuses_of(connection.client, users), strict=True)
                if state in ACTIVE
            ]
            if running:
                note(f"{', '.join(running)}: the old values are used until a restart.")
    show(GroupDocument.of(group).data(), format_, lambda: echo(f"{group.name}: {done}"))


@click.command()
@click.argument("names", metavar="[GROUP]...", nargs=-1, shell_complete=complete_groups)
@all_option
@yes_option
@no_verify_option
@format_option
@cluster_options
def remove(
    names: tuple[str, ...],
    every: bool,
    yes: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Remove variable groups. GROUP is a name or a glob. Groups that a bot uses are kept.

    \b
    Example:
        ape silverback cluster vars remove rpc --yes
    """
    with connected_for_writing(profile, cluster, no_verify) as connection:
        known = connection.client.variable_groups
        results = remove_chosen("variable group", known, names, every, place=connection.label, yes=yes)
    show_results(results, format_)


def _check_private_keys(group: str, values: Mapping[str, str]) -> None:
    """Warn of values that look like private keys, by the names of their variables.

    Raises:
        click.ClickException: there is one, and the section is strict.
    """
    from ape_silverback.config.reader import read_section

    texts = [private_key_text(name, group) for name, value in values.items() if looks_like_private_key(value)]
    if texts and read_section(Path.cwd()).section.strict:
        raise click.ClickException(refused_text(texts[0]))
    for text in texts:
        warn(text)


def _read(variables: Sequence[str], env_files: Sequence[str], commands: Commands | None) -> dict[str, str]:
    """Return the values of variables; the later of two wins, and an option wins over a file.

    Raises:
        click.UsageError: a name isn't valid, a file can't be read, or a variable isn't set. Never shows what may be
            a value.
    """
    values: dict[str, str] = {}
    for file in env_files:
        values |= read_env_file(file, commands)
    for number, given in enumerate(variables, 1):
        name, has_value, value = given.partition("=")
        if not NAME.fullmatch(name):
            raise click.UsageError(f"-e number {number} isn't NAME=VALUE or NAME.")
        if not has_value:
            shown = f"-e {name}" if name.isupper() else f"-e number {number}"
            if name not in os.environ:
                raise click.UsageError(f"{shown}: not set in the environment; pass a value.")
            if not (value := os.environ[name]):  # as a secret is that CI doesn't have
                raise click.UsageError(f"{shown}: empty in the environment; pass -e NAME= for an empty value.")
        values[name] = value
    return values
