"""``ape silverback cluster registry``: credentials for container registries. Passwords are sent and never shown."""

from __future__ import annotations

import sys

import click

from ape_silverback.cli.shared.completion import complete_credentials
from ape_silverback.cli.shared.gate import connected_for_writing, no_verify_option
from ape_silverback.cli.shared.group import LazyGroup
from ape_silverback.cli.shared.options import (
    Function,
    all_option,
    cluster_options,
    connected,
    format_option,
    yes_option,
)
from ape_silverback.cli.shared.output import age, show, show_facts, show_table, time_text
from ape_silverback.cli.shared.selection import choose_one, remove_chosen, show_results
from ape_silverback.cli.shared.terminal import answered, ask, echo, note

HERE = "ape_silverback.cli.cluster.registry"

registry = LazyGroup(
    name="registry",
    help="List, create, update and remove credentials for container registries. Passwords are never shown.",
    commands_by_section={
        "Inspect": {"list": (f"{HERE}:list_", "List credentials"), "info": (f"{HERE}:info", "Show credentials")},
        "Change": {
            "new": (f"{HERE}:new", "Create credentials"),
            "update": (f"{HERE}:update", "Update credentials"),
            "remove": (f"{HERE}:remove", "Remove credentials"),
        },
    },
)

_name = click.argument("name", metavar="NAME", shell_complete=complete_credentials)


def _login(function: Function) -> Function:
    """Add the options that are prompted for at a terminal."""
    for option in (
        click.option("--password-stdin", is_flag=True, help="Read the password from stdin."),
        click.option("--username", metavar="NAME", help="User name at the registry."),
        click.option("--email", metavar="ADDRESS", help="Email address of the account at the registry."),
    ):
        function = option(function)
    return function


@click.command("list")
@format_option
@cluster_options
def list_(format_: str, profile: str | None, cluster: str | None) -> None:
    """List the registry credentials of the cluster.

    \b
    Example:
        ape silverback cluster registry list
    """
    from ape_silverback.cli.shared.documents import CredentialDocument

    with connected(profile, cluster) as connection:
        found = [CredentialDocument.of(one) for one in connection.client.credentials.values()]
    found.sort(key=lambda one: one.name)

    def text() -> None:
        if not found:
            note("No registry credentials. Create some with `ape silverback cluster registry new`.")
            return
        rows = [(one.name, one.hostname, f"{age(one.updated)} ago") for one in found]
        show_table(("NAME", "REGISTRY", "UPDATED"), rows)

    show([one.data() for one in found], format_, text)


@click.command()
@_name
@format_option
@cluster_options
def info(name: str, format_: str, profile: str | None, cluster: str | None) -> None:
    """Show registry credentials, without the password, and the bots that use them.

    \b
    Example:
        ape silverback cluster registry info ghcr
    """
    from ape_silverback.cli.shared.documents import CredentialDocument

    with connected(profile, cluster) as connection:
        found = choose_one("registry credential", connection.client.credentials, name)
        bots = connection.client.bots.values()
        users = sorted(bot.name for bot in bots if bot.credential_name in (found.id, found.name))
    document = CredentialDocument.of(found, users)

    def text() -> None:
        show_facts(
            {
                "name": document.name,
                "registry": document.hostname,
                "created": time_text(document.created),
                "updated": time_text(document.updated),
                "used by": ", ".join(users) or "-",
            }
        )

    show(document.data(), format_, text)


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("registry", metavar="REGISTRY")
@_login
@no_verify_option
@format_option
@cluster_options
def new(
    name: str,
    registry: str,
    email: str | None,
    username: str | None,
    password_stdin: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Create credentials for a container registry. Missing options are prompted for.

    \b
    Example:
        ape silverback cluster registry new ghcr ghcr.io
        pass show ghcr | ape silverback cluster registry new ghcr ghcr.io --email me@example.org --username me \\
            --password-stdin
    """
    from ape_silverback.cli.shared.documents import CredentialDocument

    password = _from_stdin() if password_stdin else None
    email = email if email is not None else _ask("Email", "--email")
    username = username if username is not None else _ask("User name", "--username")
    password = password if password is not None else _ask("Password", "--password-stdin", hidden=True)
    with connected_for_writing(profile, cluster, no_verify) as connection:
        made = connection.client.new_credentials(name, registry, email, username, password)
    show(CredentialDocument.of(made).data(), format_, lambda: echo(f"{made.name}: created"))


@click.command()
@_name
@click.option("-r", "--registry", metavar="HOST", help="Address of the registry.")
@_login
@no_verify_option
@format_option
@cluster_options
def update(
    name: str,
    registry: str | None,
    email: str | None,
    username: str | None,
    password_stdin: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Update credentials for a container registry. Missing options stay as they are; with none, all are prompted for.

    \b
    Example:
        ape silverback cluster registry update ghcr --registry ghcr.io
        pass show ghcr | ape silverback cluster registry update ghcr --password-stdin
    """
    from ape_silverback.cli.shared.documents import CredentialDocument

    password = _from_stdin() if password_stdin else None
    with connected_for_writing(profile, cluster, no_verify) as connection:
        found = choose_one("registry credential", connection.client.credentials, name)
        if registry == found.hostname:
            registry = None
        changes = (registry, email, username, password)
        if not any(one is not None for one in changes) and sys.stdin.isatty() and not password_stdin:
            note("Press Enter to keep a value.")
            email, username = (_ask(text, "", default="") or None for text in ("Email", "User name"))
            password = _ask("Password", "", hidden=True, default="") or None
            changes = (registry, email, username, password)
        if any(one is not None for one in changes):
            found = found.update(*changes)
            done = "updated"
        else:
            note(f"{found.name}: nothing to change")
            done = "unchanged"
    show(CredentialDocument.of(found).data(), format_, lambda: echo(f"{found.name}: {done}"))


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_credentials)
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
    """Remove registry credentials. NAME is a name or a glob. Credentials that a bot uses are kept.

    \b
    Example:
        ape silverback cluster registry remove ghcr --yes
    """
    with connected_for_writing(profile, cluster, no_verify) as connection:
        known = connection.client.credentials
        results = remove_chosen("registry credential", known, names, every, place=connection.label, yes=yes)
    show_results(results, format_)


def _from_stdin() -> str:
    """Read a password, without the end of its line.

    Raises:
        click.UsageError: stdin is empty, or isn't UTF-8.
    """
    from ape_silverback.config.reader import is_utf8

    try:
        password = sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        password = None
    if password is None or not is_utf8(password):  # Python's C locale carries such bytes as lone surrogates
        raise click.UsageError("--password-stdin: stdin isn't UTF-8 text.")
    if not password:
        raise click.UsageError("--password-stdin: stdin is empty.")
    return password


def _ask(text: str, option: str, *, hidden: bool = False, default: str | None = None) -> str:
    """Ask the terminal for a missing option.

    Raises:
        click.UsageError: stdin isn't a terminal; names the option.
        click.exceptions.Exit: Ctrl-C, or the input ended.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"{text} is missing, and stdin isn't a terminal; pass {option}.")
    with answered():
        return ask(text, hidden=hidden, default=default)
