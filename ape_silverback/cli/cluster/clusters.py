"""``ape silverback cluster list|new|update|migrate|info|health``: clusters."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.completion import complete_clusters, complete_workspaces
from ape_silverback.cli.shared.options import (
    cluster_options,
    connected,
    format_option,
    platform,
    platform_options,
    yes_option,
)
from ape_silverback.cli.shared.output import (
    age,
    configuration_facts,
    health_text,
    show,
    show_facts,
    show_table,
    state_text,
    time_text,
)
from ape_silverback.cli.shared.terminal import confirm, echo, note

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Workspace
    from ape_silverback.cluster.types import ClusterInfo
    from ape_silverback.connect import Connection, PlatformConnection

_path = click.argument("path", metavar="CLUSTER_PATH", shell_complete=complete_clusters)
_workspace = click.argument("workspace", metavar="[WORKSPACE]", required=False, shell_complete=complete_workspaces)


@click.command("list")
@_workspace
@format_option
@platform_options
def list_(workspace: str | None, format_: str, profile: str | None) -> None:
    """List the clusters of a workspace. The default is the profile's default workspace.

    \b
    Example:
        ape silverback cluster list my-workspace
    """
    from ape_silverback.cli.shared.documents import ClusterDocument

    with platform(profile) as connection:
        space = connection.client.workspace(_workspace_of(connection, workspace))
        found = [ClusterDocument.of(space.slug, one) for one in space.clusters.values()]
    found.sort(key=lambda one: one.slug)

    def text() -> None:
        if not found:
            note(f"No clusters in {space.slug}. Create one with `ape silverback cluster new {space.slug}`.")
            return
        rows = [
            (
                f"{one.workspace}/{one.slug}",
                one.name,
                state_text(one.status),
                one.version or "-",
                "-" if one.status == "removed" else _left(one.expiration),
            )
            for one in found
        ]
        show_table(("CLUSTER", "NAME", "STATE", "VERSION", "PAID FOR"), rows)

    show([one.data() for one in found], format_, text)


@click.command()
@_workspace
@click.option("-n", "--name", metavar="NAME", help="Name. Default: chosen by the platform.")
@click.option("-s", "--slug", metavar="SLUG", help="Name in addresses and on the command line.")
@format_option
@platform_options
def new(workspace: str | None, name: str | None, slug: str | None, format_: str, profile: str | None) -> None:
    """Create a cluster in a workspace. The platform provisions it once it is paid for.

    \b
    Example:
        ape silverback cluster new my-workspace --name "Production" --slug prod
    """
    from ape_silverback.cli.shared.documents import ClusterDocument

    with platform(profile) as connection:
        space = connection.client.workspace(_workspace_of(connection, workspace))
        made = ClusterDocument.of(space.slug, space.create_cluster(slug, name))
    show(made.data(), format_, lambda: echo(f"{made.workspace}/{made.slug}: {made.status}"))
    note(f"Pay for it to run it: ape silverback cluster pay create {made.workspace}/{made.slug} --time '30 days'")


@click.command()
@_path
@click.option("-n", "--name", metavar="NAME", help="New name.")
@click.option("-s", "--slug", metavar="SLUG", help="New name in addresses and on the command line.")
@format_option
@platform_options
def update(path: str, name: str | None, slug: str | None, format_: str, profile: str | None) -> None:
    """Rename a cluster or change its slug. CLUSTER_PATH is WORKSPACE/NAME.

    \b
    Example:
        ape silverback cluster update my-workspace/prod --name "Production"
    """
    from ape_silverback.cli.shared.documents import ClusterDocument

    with platform(profile) as connection:
        space, found = _find(connection, path)
        changes = (name if name != found.name else None, slug if slug != found.slug else None)
        if any(changes):
            found, done = space.update_cluster(str(found.id), *changes), "updated"
        else:
            note(f"{path}: nothing to change")
            done = "unchanged"
    document = ClusterDocument.of(space.slug, found)
    show(document.data(), format_, lambda: echo(f"{document.workspace}/{document.slug}: {done}"))


@click.command()
@_path
@click.option("--version", metavar="VERSION", help="Version to migrate to. Default: the stable one.")
@yes_option
@format_option
@platform_options
def migrate(path: str, version: str | None, yes: bool, format_: str, profile: str | None) -> None:
    """Migrate a cluster to another version. CLUSTER_PATH is WORKSPACE/NAME.

    \b
    Example:
        ape silverback cluster migrate my-workspace/prod --version 0.9.1
    """
    from ape_silverback.cli.shared.documents import ClusterDocument
    from ape_silverback.suggestions import did_you_mean

    with platform(profile) as connection:
        space, found = _find(connection, path)
        if version is not None and version not in (known := space.available_versions):
            raise click.ClickException(f"no version '{version}'; {did_you_mean(version, known)}")
        wanted = f"version {version}" if version else "the stable version"
        confirm(f"Migrate {space.slug}/{found.slug} from version {found.version or 'unknown'} to {wanted}?", yes)
        space.migrate_cluster(str(found.id), version)
        document = ClusterDocument.of(space.slug, space.clusters.get(found.slug, found))
    show(document.data(), format_, lambda: echo(f"{space.slug}/{found.slug}: migrating to {wanted}"))


@click.command()
@format_option
@cluster_options
def info(format_: str, profile: str | None, cluster: str | None) -> None:
    """Show a cluster: its configuration and version, and on the platform its expiry and payment stream.

    \b
    Example:
        ape silverback cluster info --cluster my-workspace/prod
    """
    with connected(profile, cluster) as connection:
        if connection.is_platform:
            _show_record(connection, format_)
        else:
            _show_direct(connection, format_)


def _show_record(connection: Connection, format_: str) -> None:
    from ape_silverback.cli.shared.documents import ClusterDocument

    space, found = connection.record()
    stream = space.get_stream_info(found)
    document = ClusterDocument.of(space.slug, found, str(stream) if stream else None)

    def text() -> None:
        show_facts(
            {
                "cluster": f"{document.workspace}/{document.slug}",
                "name": document.name,
                "state": state_text(document.status),
                "version": document.version or "-",
                "created": time_text(document.created),
                "updated": time_text(document.last_updated),
                "expires": f"{time_text(document.expiration)} ({_left(document.expiration)})"
                if document.expiration
                else "-",
                "stream": document.stream or "-",
                **configuration_facts(document.configuration),
            }
        )

    show(document.data(), format_, text)


def _show_direct(connection: Connection, format_: str) -> None:
    from ape_silverback.cli.shared.documents import DirectClusterDocument

    client = connection.client
    document = DirectClusterDocument(
        profile=connection.profile,
        host=connection.host,
        version=client.version,
        configuration=client.configuration,
        runtime=client.runtime,
    )

    def text() -> None:
        show_facts(
            {
                "profile": document.profile,
                "host": document.host,
                "version": document.version,
                "runtime": document.runtime or "-",
                **configuration_facts(document.configuration),
            }
        )

    show(document.data(), format_, text)


@click.command()
@format_option
@cluster_options
def health(format_: str, profile: str | None, cluster: str | None) -> None:
    """Check whether a cluster, its networks and its bots are healthy; exit with 1 if one isn't.

    \b
    Example:
        ape silverback cluster health
    """
    from ape_silverback.cli.shared.documents import HealthDocument

    with connected(profile, cluster) as connection:
        found = connection.client.health
    document = HealthDocument(
        healthy=found.cluster.healthy,
        networks={name: service.healthy for name, service in sorted(found.networks.items())},
        bots={name: service.healthy for name, service in sorted(found.bots.items())},
    )

    def text() -> None:
        echo(f"cluster: {health_text(document.healthy)}")
        for kind, services in (("network", document.networks), ("bot", document.bots)):
            for name, healthy in services.items():
                echo(f"{kind} {name}: {health_text(healthy)}")

    show(document.data(), format_, text)
    if unwell := [name for name, healthy in {**document.networks, **document.bots}.items() if not healthy]:
        raise click.ClickException(f"not healthy: {', '.join(unwell)}")


def _workspace_of(connection: PlatformConnection, given: str | None) -> str:
    """Return the workspace that was named, else the profile's default.

    Raises:
        click.UsageError: neither is given.
    """
    if workspace := given or connection.profile.default_workspace:
        return workspace
    known = ", ".join(sorted(connection.client.workspaces)) or "none"
    raise click.UsageError(f"Pass a WORKSPACE, or set `default-workspace` in the profile. Your workspaces: {known}.")


def _find(connection: PlatformConnection, path: str) -> tuple[Workspace, ClusterInfo]:
    """Find the cluster of a path, or of a name in the profile's default workspace."""
    from ape_silverback.cluster.choice import choose_cluster
    from ape_silverback.connect import find_cluster

    return find_cluster(connection.client, *choose_cluster(connection.profile, path))


def _left(expiration: datetime | None) -> str:
    """Return how long a cluster is paid for, for people."""
    if expiration is None:
        return "-"
    now = datetime.now(timezone.utc)
    return f"{age(now, expiration)} left" if expiration > now else "expired"
