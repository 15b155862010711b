"""``ape silverback cluster up`` and ``down``: the local cluster."""

from __future__ import annotations

import click
from ape.cli import verbosity_option

from ape_silverback.cli.options import format_option
from ape_silverback.cli.output import note, show

PROFILE = "local"


@click.command(short_help="Start the local cluster")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on. Default: the last one, else a free one."
)
@format_option
@verbosity_option()
def up(port: int | None, format_: str) -> None:
    """Start the local cluster in the background and write the profile 'local' for it.

    It listens on the loopback interface only and runs each bot as a process of this machine. Bots that ran when it
    was last taken down start again.

    \b
    Example:
        ape silverback cluster up
    """
    from ape_silverback.cli.documents import LocalClusterDocument
    from ape_silverback.cluster.settings import ClusterProfile, profile_path, save_profile
    from ape_silverback.local.control import LocalCluster

    _check_profile_is_free()
    cluster = LocalCluster()
    started = cluster.up(port)
    running = started.running
    save_profile(PROFILE, ClusterProfile(host=running.host, api_key=started.api_key))
    document = LocalClusterDocument(
        host=running.host,
        profile=PROFILE,
        pid=running.pid,
        version=running.version,
        started=running.started_at,
        already=started.already,
    )
    begun = "The local cluster runs already" if started.already else "Started the local cluster"
    show(document.data(), format_, lambda: click.echo(f"{begun} at {running.host} (pid {running.pid})."))
    if not started.already:
        note(f"Profile '{PROFILE}' is in {profile_path()}, the server's log in {cluster.server_log}.")
        note("Next: ape silverback cluster deploy")
    elif port is not None and not running.host.endswith(f":{port}"):
        note(f"It doesn't listen on port {port}: `ape silverback cluster down` first to move it.")


@click.command(short_help="Stop the local cluster and its bots")
@verbosity_option()
def down() -> None:
    """Stop the bots of the local cluster, then the cluster, and take back the profile 'local'.

    Its bots, variable groups and logs stay: the next `up` has them again.

    \b
    Example:
        ape silverback cluster down
    """
    from ape_silverback.cluster.settings import remove_profile
    from ape_silverback.local.control import LocalCluster

    stopped = LocalCluster().down()
    if _is_ours():
        remove_profile(PROFILE)
    click.echo("Stopped the local cluster and its bots." if stopped else "The local cluster doesn't run.")


def _is_ours() -> bool:
    """Say whether there is a profile of this name and it was written by ``up``, which only knows the loopback."""
    from ape_silverback.cluster.settings import ClusterProfile, read_profiles

    profile = read_profiles().profile.get(PROFILE)
    return isinstance(profile, ClusterProfile) and profile.host.startswith("http://127.0.0.1:")


def _check_profile_is_free() -> None:
    from ape_silverback.cluster.settings import profile_path, read_profiles
    from ape_silverback.exceptions import ProfileError

    if PROFILE in read_profiles().profile and not _is_ours():
        raise ProfileError(
            f"profile '{PROFILE}' in {profile_path()} belongs to another cluster; rename it, since the local cluster's "
            "key is kept under this name"
        )
