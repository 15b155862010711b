"""``ape silverback cluster workspaces``: the owners of clusters on the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.completion import complete_workspaces
from ape_silverback.cli.shared.group import LazyGroup
from ape_silverback.cli.shared.options import all_option, format_option, platform, platform_options, yes_option
from ape_silverback.cli.shared.output import age, show, show_facts, show_table, time_text
from ape_silverback.cli.shared.selection import choose, choose_one, each, show_results
from ape_silverback.cli.shared.terminal import confirm, echo, note

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import WorkspaceDocument

HERE = "ape_silverback.cli.cluster.workspaces"

workspaces = LazyGroup(
    name="workspaces",
    help="List, create, rename and delete workspaces, which hold the clusters of the platform.",
    commands_by_section={
        "Inspect": {"list": (f"{HERE}:list_", "List workspaces"), "info": (f"{HERE}:info", "Show a workspace")},
        "Change": {
            "new": (f"{HERE}:new", "Create a workspace"),
            "update": (f"{HERE}:update", "Rename a workspace"),
            "delete": (f"{HERE}:delete", "Delete workspaces"),
        },
    },
)

_workspace = click.argument("slug", metavar="WORKSPACE", shell_complete=complete_workspaces)


@click.command("list")
@format_option
@platform_options
def list_(format_: str, profile: str | None) -> None:
    """List your workspaces.

    \b
    Example:
        ape silverback cluster workspaces list
    """
    from ape_silverback.cli.shared.documents import WorkspaceDocument

    with platform(profile) as connection:
        found = [WorkspaceDocument.of(one) for one in connection.client.workspaces.values()]
    found.sort(key=lambda one: one.slug)

    def text() -> None:
        if not found:
            note("No workspaces. Create one with `ape silverback cluster workspaces new`.")
            return
        show_table(("SLUG", "NAME", "CREATED"), [(one.slug, one.name, f"{age(one.created)} ago") for one in found])

    show([one.data() for one in found], format_, text)


@click.command()
@_workspace
@format_option
@platform_options
def info(slug: str, format_: str, profile: str | None) -> None:
    """Show a workspace and its owner.

    \b
    Example:
        ape silverback cluster workspaces info my-workspace
    """
    from ape_silverback.cli.shared.documents import WorkspaceDocument

    with platform(profile) as connection:
        found = choose_one("workspace", connection.client.workspaces, slug)
        document = WorkspaceDocument.of(found, found.owner)
    show(document.data(), format_, lambda: _show(document))


@click.command()
@click.option("-n", "--name", metavar="NAME", help="Name.")
@click.option("-s", "--slug", metavar="SLUG", help="Name in addresses and on the command line.")
@format_option
@platform_options
def new(name: str | None, slug: str | None, format_: str, profile: str | None) -> None:
    """Create a workspace. The platform chooses missing options.

    \b
    Example:
        ape silverback cluster workspaces new --name "My bots" --slug my-bots
    """
    from ape_silverback.cli.shared.documents import WorkspaceDocument

    with platform(profile) as connection:
        made = connection.client.create_workspace(slug, name)
    show(WorkspaceDocument.of(made).data(), format_, lambda: echo(f"{made.slug}: created"))


@click.command()
@_workspace
@click.option("-n", "--name", metavar="NAME", help="New name.")
@click.option("-s", "--slug", "new_slug", metavar="SLUG", help="New name in addresses and on the command line.")
@format_option
@platform_options
def update(slug: str, name: str | None, new_slug: str | None, format_: str, profile: str | None) -> None:
    """Change the name or slug of a workspace.

    \b
    Example:
        ape silverback cluster workspaces update my-bots --name "Our bots"
    """
    from ape_silverback.cli.shared.documents import WorkspaceDocument

    with platform(profile) as connection:
        found = choose_one("workspace", connection.client.workspaces, slug)
        changes = (name if name != found.name else None, new_slug if new_slug != found.slug else None)
        if any(changes):
            found, done = found.update(*changes), "updated"
        else:
            note(f"{found.slug}: nothing to change")
            done = "unchanged"
    show(WorkspaceDocument.of(found).data(), format_, lambda: echo(f"{found.slug}: {done}"))


@click.command()
@click.argument("slugs", metavar="[WORKSPACE]...", nargs=-1, shell_complete=complete_workspaces)
@all_option
@yes_option
@format_option
@platform_options
def delete(slugs: tuple[str, ...], every: bool, yes: bool, format_: str, profile: str | None) -> None:
    """Delete workspaces. WORKSPACE is a slug or a glob. Workspaces with clusters are kept.

    \b
    Example:
        ape silverback cluster workspaces delete my-bots --yes
    """
    with platform(profile) as connection:
        chosen = choose("workspace", connection.client.workspaces, slugs, every)
        if chosen:
            what = "workspace" if len(chosen) == 1 else "workspaces"
            confirm(f"Delete the {what} {', '.join(chosen)} of {connection.profile.host}?", yes)
        results = each(chosen, lambda one: one.remove(), "removed")
    show_results(results, format_)


def _show(workspace: WorkspaceDocument) -> None:
    show_facts(
        {
            "name": workspace.name,
            "slug": workspace.slug,
            "id": workspace.id,
            "owner": workspace.owner or "-",
            "created": time_text(workspace.created),
        }
    )
