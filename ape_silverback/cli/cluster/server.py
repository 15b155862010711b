"""``ape silverback cluster up`` and ``down``: the local cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from ape.cli import verbosity_option

from ape_silverback.cli.shared.options import allow_option, format_option, log_size_option
from ape_silverback.cli.shared.output import show
from ape_silverback.cli.shared.terminal import echo, note

if TYPE_CHECKING:
    from ape_silverback.server.daemon import Started, StartedPlatform
    from ape_silverback.server.notify import NotifySettings
    from ape_silverback.server.platform.payments import Payments, Wanted

PROFILE = "local"
PLATFORM = "local-platform"
"""Name of the profile of the platform, and of the login in it."""


def _check_variables(_: click.Context, option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what isn't a name: an address on the command line would show in the list of processes."""
    if any(not name.isidentifier() for name in names):
        raise click.BadParameter(
            "expected the name of a variable of the environment, such as SLACK_URL; an address would show in the list "
            "of processes.",
            param=option,
        )
    return names


notify_option = click.option(
    "--notify",
    metavar="VARIABLE",
    multiple=True,
    callback=_check_variables,
    help="Environment variable that holds an address to notify when something breaks, such as slack://…; repeatable. "
    "Default: `notify.urls` of the section.",
)


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on. Default: the last one, else a free one."
)
@click.option(
    "--chain", metavar="URL", help="Also run a platform, whose clusters are paid for on the chain of this node."
)
@click.option("--stream-manager", metavar="ADDRESS", help="StreamManager on that chain that takes the payments.")
@click.option("--token", "tokens", metavar="ADDRESS", multiple=True, help="Token that it accepts; repeatable.")
@click.option(
    "--dev-payments", is_flag=True, help="Deploy a StreamManager and a test token there, on a development chain only."
)
@click.option(
    "--runtime",
    metavar="NAME",
    help="Where bots run: process, docker or swarm. Default: the last one used, initially process.",
)
@click.option(
    "--docker-network", metavar="NAME", help="Network of the containers: host, bridge or a network's name. [bridge]"
)
@allow_option
@log_size_option
@notify_option
@format_option
@verbosity_option()
def up(
    port: int | None,
    chain: str | None,
    stream_manager: str | None,
    tokens: tuple[str, ...],
    dev_payments: bool,
    runtime: str | None,
    docker_network: str | None,
    allow: tuple[Path, ...],
    log_size: int | None,
    notify: tuple[str, ...],
    format_: str,
) -> None:
    """Start the local cluster in the background and write the profile 'local' for it.

    It listens on the loopback interface only and runs each bot as a process of this machine, or as a container with
    --runtime docker, or as a service of a Docker Swarm with --runtime swarm. Bots that ran when it was last taken down
    start again.

    With --chain it is a platform as well, with workspaces and clusters that run once they are paid for on that chain;
    the profile 'local-platform' leads there. On a development chain --dev-payments deploys what is needed and gives
    test tokens to the node's accounts.

    \b
    Example:
        ape silverback cluster up
        ape silverback cluster up --allow ~/bots
        ape silverback cluster up --runtime docker --docker-network host
        ape silverback cluster up --chain http://127.0.0.1:8545 --dev-payments
    """
    from ape_silverback.cli.shared.documents import LocalClusterDocument, LocalPlatformDocument
    from ape_silverback.cluster.settings import profile_path
    from ape_silverback.server.daemon import LocalCluster

    wanted = _wanted(chain, stream_manager, tokens, dev_payments)
    for name in (PROFILE, PLATFORM) if wanted else (PROFILE,):
        _check_profile_is_free(name)
    cluster = LocalCluster()
    started = cluster.up(
        port,
        wanted=wanted,
        runtime=runtime,
        runtime_options=runtime_options(runtime, docker_network, allow),
        notify=notifications(notify),
        log_size=log_size,
    )
    _write_profiles(started)
    running, platform = started.running, started.platform
    document = LocalClusterDocument(
        host=running.host,
        profile=PROFILE,
        pid=running.pid,
        version=running.version,
        started=running.started_at,
        already=started.already,
        platform=LocalPlatformDocument.of(PLATFORM, platform.payments) if platform else None,
    )
    begun = "The local cluster is already running" if started.already else "Started the local cluster"
    show(document.data(), format_, lambda: echo(f"{begun} at {running.host} (pid {running.pid})."))
    if platform:
        note(_payments_text(platform.payments))
    if not started.already:
        note(f"Profile '{PROFILE}' is in {profile_path()}, the server's log in {cluster.server_log}.")
        note(f"Next: ape silverback cluster {f'workspaces new -p {PLATFORM}' if platform else 'deploy'}")
    elif port is not None and not running.host.endswith(f":{port}"):
        note(f"It doesn't listen on port {port}: run `ape silverback cluster down` first to move it.")


@click.command()
@verbosity_option()
def down() -> None:
    """Stop the bots of the local cluster, then the cluster, and take back the profiles that `up` wrote.

    Its bots, variable groups and logs stay: the next `up` has them again. So do the platform's clusters, for the next
    `up` with the same chain.

    \b
    Example:
        ape silverback cluster down
    """
    from ape_silverback.cluster.settings import remove_profile
    from ape_silverback.server.daemon import LocalCluster

    stopped = LocalCluster().down()
    try:
        if _is_ours(PROFILE):
            remove_profile(PROFILE)
        _forget_platform()
    finally:  # also where the profile file is broken
        echo("Stopped the local cluster and its bots." if stopped else "The local cluster isn't running.")


def _wanted(chain: str | None, manager: str | None, tokens: tuple[str, ...], deploy: bool) -> Wanted | None:
    """Return what should pay for clusters; None without ``--chain``.

    Raises:
        click.UsageError: the options don't fit.
        LocalClusterError: a value of them is wrong.
    """
    if chain is None:
        for option, given in (("--stream-manager", manager), ("--token", tokens), ("--dev-payments", deploy)):
            if given:
                raise click.UsageError(f"{option} needs --chain URL.")
        return None
    if deploy == (manager is not None):
        raise click.UsageError(
            "--chain needs one of --stream-manager ADDRESS, which is on that chain, and --dev-payments, which deploys "
            "one on a development chain."
        )
    if deploy and tokens:
        raise click.UsageError("--token needs --stream-manager ADDRESS: --dev-payments deploys a token.")
    from ape_silverback.server.platform.payments import Wanted

    return Wanted.of(chain, manager, tokens)


def notifications(variables: tuple[str, ...]) -> NotifySettings:
    """Return who is told when something breaks.

    Args:
        variables: names of variables that hold addresses, from the command line; none for those of the section of the
            project in the current folder.
    """
    from ape_silverback.connect import read_section_here
    from ape_silverback.server.notify import NotifySettings

    config = read_section_here().section.notify
    return NotifySettings(
        variables=variables or config.urls, events=config.events, minimum_balance=config.minimum_balance
    )


def runtime_options(runtime: str | None, network: str | None, allow: tuple[Path, ...]) -> dict[str, str]:
    """Return the options of a runtime.

    Raises:
        click.UsageError: an option belongs to another runtime.
    """
    if network is not None and runtime not in ("docker", "swarm"):
        raise click.UsageError("--docker-network needs --runtime docker or --runtime swarm.")
    if allow and runtime not in (None, "process"):
        raise click.UsageError("--allow needs --runtime process: other runtimes run images.")
    if colons := [str(folder) for folder in allow if os.pathsep in str(folder)]:
        raise click.UsageError(f"--allow can't take a path with '{os.pathsep}' in it: {colons[0]}")
    options = {"network": network} if network else {}
    return options | ({"allow": os.pathsep.join(map(str, allow))} if allow else {})


def _write_profiles(started: Started) -> None:
    from ape_silverback.cluster.settings import ClusterProfile, save_profile

    host = started.running.host
    save_profile(PROFILE, ClusterProfile(host=host, api_key=started.api_key))
    if started.platform:
        _log_in(host, started.platform)
    else:
        _forget_platform()  # of a server that was killed


def _log_in(host: str, platform: StartedPlatform) -> None:
    """Write the platform's profile and the login for it, as if a user had logged in there."""
    from getpass import getuser

    from ape_silverback.cluster.auth.tokens import Login, locked_tokens, write_login
    from ape_silverback.cluster.settings import AuthenticationConfig, PlatformProfile, save_profile

    save_profile(
        PLATFORM, PlatformProfile(host=host, auth=PLATFORM), AuthenticationConfig(host=host, client_id=PLATFORM)
    )
    login = Login(
        {"sub": PLATFORM, "preferred_username": getuser()}, {"access_token": platform.session, "token_type": "Bearer"}
    )
    with locked_tokens(PLATFORM):
        write_login(PLATFORM, login)


def _forget_platform() -> None:
    from ape_silverback.cluster.auth.tokens import token_file
    from ape_silverback.cluster.settings import remove_profile

    if _is_ours(PLATFORM):
        remove_profile(PLATFORM, auth=PLATFORM)
        token_file(PLATFORM).unlink(missing_ok=True)


def _payments_text(payments: Payments) -> str:
    tokens = ", ".join(f"{symbol} ({address})" for symbol, address in payments.tokens.items())
    return (
        f"Profile '{PLATFORM}' is a platform whose clusters are paid for on chain {payments.chain_id}: StreamManager "
        f"{payments.manager}, tokens {tokens or 'unknown'}."
    )


def _is_ours(name: str) -> bool:
    """Return whether there is a profile of this name that ``up`` wrote, which only knows the loopback."""
    from ape_silverback.cluster.settings import ClusterProfile, read_profiles

    profile = read_profiles().profile.get(name)
    kind_fits = isinstance(profile, ClusterProfile) == (name == PROFILE)
    return profile is not None and kind_fits and profile.host.startswith("http://127.0.0.1:")


def _check_profile_is_free(name: str) -> None:
    from ape_silverback.cluster.settings import profile_path, read_profiles
    from ape_silverback.exceptions import ProfileError

    if name in read_profiles().profile and not _is_ours(name):
        raise ProfileError(
            f"profile '{name}' in {profile_path()} belongs to another cluster; rename it, since the local cluster's "
            "key is kept under this name"
        )
