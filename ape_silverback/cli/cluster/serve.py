"""``ape silverback cluster serve``, ``backup`` and ``restore``: a cluster for a machine that is left alone."""

from __future__ import annotations

from pathlib import Path

import click
from ape.cli import verbosity_option

from ape_silverback.cli.cluster.server import notifications, notify_option, runtime_options
from ape_silverback.cli.shared.options import Number, allow_option, log_size_option
from ape_silverback.cli.shared.terminal import echo, note

MIB = 1024 * 1024


def _default_folder() -> Path:
    from ape_silverback.files import silverback_folder

    return silverback_folder() / "server"


_folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=_default_folder,
    help="Folder with the cluster's data.  [~/.silverback/server]",
)


@click.command()
@_folder_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port to listen on.")
@click.option("--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="TLS certificate, in PEM.")
@click.option(
    "--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="Private key of the certificate, in PEM."
)
@click.option("--insecure", is_flag=True, help="Allow listening beyond the loopback interface without TLS.")
@click.option("--address", metavar="URL", help="Address at which bots with cluster access reach it, if it differs.")
@click.option("--keep-bots", is_flag=True, help="Keep bots running when the server ends; the next one adopts them.")
@click.option(
    "--runtime",
    metavar="NAME",
    help="Where bots run: process, docker or swarm. Default: the last one used, initially process.",
)
@click.option(
    "--docker-network", metavar="NAME", help="Network of the containers: host, bridge or a network's name. [bridge]"
)
@allow_option
@click.option("--bot-cpus", type=Number(min=0.01), help="CPU cores that each bot may use (docker, swarm).")
@click.option("--bot-memory", metavar="MIB", type=click.IntRange(min=16), help="Memory that each bot may use, in MiB.")
@log_size_option
@notify_option
@verbosity_option()
def serve(
    folder: Path,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    address: str | None,
    keep_bots: bool,
    runtime: str | None,
    docker_network: str | None,
    allow: tuple[Path, ...],
    bot_cpus: float | None,
    bot_memory: int | None,
    log_size: int | None,
    notify: tuple[str, ...],
) -> None:
    """Serve a cluster in the foreground, for systemd or a container: logs go to stderr, and SIGTERM ends it.

    When it ends, requests are finished, then bots stop; the next server starts those again that ran. Its first API key
    is made in its folder, in `api-key`; make others with `keys new`.

    \b
    Example:
        ape silverback cluster serve --runtime docker
        ape silverback cluster serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
        SLACK_URL=slack://… ape silverback cluster serve --notify SLACK_URL
    """
    from ape_silverback.server.foreground import ServeOptions
    from ape_silverback.server.foreground import serve as serve_cluster
    from ape_silverback.server.runtimes import Limits

    if (bot_cpus or bot_memory) and runtime == "process":
        raise click.UsageError("--bot-cpus and --bot-memory need --runtime docker or --runtime swarm.")
    options = ServeOptions(
        folder=folder.absolute(),
        host=host,
        port=port,
        certificate=tls_cert,
        key=tls_key,
        insecure=insecure,
        address=address,
        keep_bots=keep_bots,
        runtime=runtime,
        runtime_options=runtime_options(runtime, docker_network, allow),
        log_size=log_size,
        limits=Limits(cpus=bot_cpus, memory=bot_memory * MIB if bot_memory else None),
        notify=notifications(notify),
    )
    serve_cluster(options, note)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_folder_option
@click.option("--with-key", is_flag=True, help="Include the key that decrypts values of variables and passwords.")
@verbosity_option()
def backup(file: Path, folder: Path, with_key: bool) -> None:
    """Back up a cluster of this machine to FILE: bots, variable groups, credentials, keys and events, but no logs.

    Its server may be running. Values stay encrypted; keep the cluster's file `secret.key` apart from the copy, since
    a restore needs it.

    \b
    Example:
        ape silverback cluster backup cluster.backup
    """
    from ape_silverback.server.backup import back_up

    back_up(folder.absolute(), file.absolute(), with_key=with_key)
    echo(f"Wrote {file}.")
    if not with_key:
        note(f"A restore needs {folder / 'secret.key'} too; keep it apart from the copy.")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_folder_option
@click.option(
    "--secret-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The secret.key file of the cluster that was backed up.",
)
@verbosity_option()
def restore(file: Path, folder: Path, secret_key: Path | None) -> None:
    """Restore a cluster on this machine from what `backup` wrote.

    Its bots stay stopped: those of the original may be running, and a bot that signs must not run twice. Start them
    once you know that they aren't: `bots start --all`.

    \b
    Example:
        ape silverback cluster restore cluster.backup --secret-key secret.key
    """
    from ape_silverback.server.backup import restore as restore_cluster

    bots = restore_cluster(file, folder.absolute(), secret_key)
    echo(f"Restored {', '.join(bots) or 'a cluster without bots'} into {folder}; nothing is started.")
    note("Next: `ape silverback cluster serve`, and `bots start` for what doesn't run elsewhere.")
