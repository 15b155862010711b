"""``ape silverback cluster verify``: whether a cluster's payment stream is genuine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from ape.cli import verbosity_option

from ape_silverback.cli.shared.completion import complete_clusters
from ape_silverback.cli.shared.gate import pin_hint, show_report
from ape_silverback.cli.shared.options import connected, format_option, platform, profile_option
from ape_silverback.cli.shared.output import messages_on_stderr, show
from ape_silverback.cli.shared.terminal import echo, note

if TYPE_CHECKING:
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.stream.verify import Report


@click.command()
@click.option(
    "-c",
    "--cluster",
    "clusters",
    metavar="WORKSPACE/NAME",
    multiple=True,
    help="Cluster of the platform; repeatable.",
    shell_complete=complete_clusters,
)
@click.option("--all", "every", is_flag=True, help="Every cluster of every workspace.")
@click.option("--pin", is_flag=True, help="Write trusted managers and controllers into the project's configuration.")
@click.option("--target", metavar="NAME", help="Target of the section whose cluster it is.")
@click.option(
    "--network",
    metavar="ECOSYSTEM:NETWORK:PROVIDER",
    help="Network to read the chain from. Default: the project's one with the stream's chain id.",
)
@format_option
@profile_option
@verbosity_option()
def verify(
    clusters: tuple[str, ...],
    every: bool,
    pin: bool,
    target: str | None,
    network: str | None,
    format_: str,
    profile: str | None,
) -> None:
    """Check that a cluster is paid for by the StreamManager that it should be, on chain. Exit code 1 if it isn't.

    The checks, in order: `address`, `pinned` in the section, named by the `platform`, the right `chain`, the genuine
    `code`, the pinned `controller`, the `stream` itself, its `product` made for this cluster, `time` left. A check
    that depends on one that didn't pass is skipped.

    \b
    Examples:
        ape silverback cluster verify --cluster my-workspace/prod
        ape silverback cluster verify --all --pin
    """
    from ape_silverback.config.reader import read_section

    if every and clusters:
        raise click.UsageError("Pass --cluster or --all, not both.")
    reading = read_section(Path.cwd(), target=target)
    trust = reading.section.stream_of(target)
    with messages_on_stderr():
        reports = _reports(reading, clusters, every, profile, target, trust, network)

    def text() -> None:
        for number, report in enumerate(reports):
            if number:
                echo()
            show_report(report)

    show([report.model_dump(mode="json") for report in reports], format_, text)
    if pin:
        _pin(reading, reports, target)
    else:
        for line in dict.fromkeys(line for report in reports if (line := pin_hint(report))):
            note(line)
    problems = []
    if untrusted := [report.cluster for report in reports if report.verdict == "untrusted"]:
        problems.append(f"not trusted: {', '.join(untrusted)}")
    if unverified := [report.cluster for report in reports if report.verdict == "unverified"]:
        problems.append(f"couldn't be verified, try again later: {', '.join(unverified)}")
    if problems:
        raise click.ClickException("; ".join(problems))


def _reports(
    reading: SectionReading,
    clusters: tuple[str, ...],
    every: bool,
    profile: str | None,
    target: str | None,
    trust: StreamConfig,
    network: str | None,
) -> list[Report]:
    from ape_silverback.cluster.choice import choose_cluster
    from ape_silverback.connect import find_cluster
    from ape_silverback.stream.claims import PlatformCluster
    from ape_silverback.stream.gate import verify_clusters, verify_connection

    if not every and len(clusters) < 2:
        with connected(profile, clusters[0] if clusters else None, reading, target) as connection:
            return [verify_connection(connection, trust, network)]
    with platform(profile, reading, target) as above:
        if every:
            found = [
                PlatformCluster(space, cluster)
                for _, space in sorted(above.client.workspaces.items())
                for _, cluster in sorted(space.clusters.items())
            ]
        else:
            found = [
                PlatformCluster(*find_cluster(above.client, *choose_cluster(above.profile, path))) for path in clusters
            ]
        return verify_clusters(above.client, found, trust, network)


def _pin(reading: SectionReading, reports: list[Report], target: str | None) -> None:
    from ape_silverback.stream.pins import pins_from, write_pins

    pins = pins_from(reports)
    if not pins["managers"]:
        note("Nothing to pin: no stream is trusted.")
        return
    own = target is not None and reading.section.targets[target].stream is not None
    file = write_pins(Path.cwd(), reading.file, pins, target if own else None)
    for what, found in pins.items():
        for chain_id, address in found.items():
            note(f"Pinned in {file.name}: {what.removesuffix('s')} {address} for chain {chain_id}.")
