"""The one gate before everything that writes: nothing is sent to a cluster whose payment stream isn't trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ape_silverback.apepay.rpc import Node
from ape_silverback.exceptions import StreamError, StreamNotVerified
from ape_silverback.stream.chain import connected_provider, network_with, node_of
from ape_silverback.stream.claims import PlatformCluster, read_claims
from ape_silverback.stream.verify import Report, verify, without_stream

if TYPE_CHECKING:
    from ape_silverback.cluster.client import PlatformClient
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.connect import Connection


def open_for_writing(
    connection: Connection, trust: StreamConfig, *, verify: bool = True, network: str | None = None
) -> Report | None:
    """Verify the stream of the cluster that was connected to, and let the client write. The one way to write.

    Args:
        connection: to the cluster.
        trust: what is pinned, and how much time should be left.
        verify: whether to verify at all.
        network: to read from, as Ape's ``--network`` takes it; by default the project's one that has the chain id.

    Returns:
        The report; None when nothing was verified.

    Raises:
        StreamError: the stream isn't trusted, with the checks that stop; or ``stream: require`` forbids to skip them.
        StreamNotVerified: the stream couldn't be verified.
        ClusterError: the platform doesn't answer which stream the cluster has.
    """
    report = None
    if verify:
        report = verify_connection(connection, trust, network)
        require_trust(report)
    else:
        check_skip(trust)
    if connection.guard is not None:
        connection.guard.open()
    return report


def verify_clusters(
    platform: PlatformClient, clusters: Sequence[PlatformCluster], trust: StreamConfig, network: str | None = None
) -> list[Report]:
    """Verify the streams of clusters; return a report for each, in order.

    Args:
        platform: the platform that they belong to.
        clusters: the clusters.
        trust: what is pinned, and how much time should be left.
        network: as for ``open_for_writing``.

    Raises:
        ClusterError: the platform doesn't answer which streams they have.
    """
    claims = read_claims(platform, clusters)

    @contextmanager
    def open_node(chain_id: int) -> Iterator[Node]:
        with connected_provider(network or network_with(chain_id)) as provider, node_of(provider) as node:
            yield node

    reports = iter(verify([claim for claim in claims if claim is not None], trust, open_node))
    return [
        next(reports)
        if claim is not None
        else without_stream(cluster.path, "the platform names no stream that pays for it", required=trust.require)
        for cluster, claim in zip(clusters, claims, strict=True)
    ]


def verify_connection(connection: Connection, trust: StreamConfig, network: str | None = None) -> Report:
    """Verify the stream of the one cluster that was connected to. One that isn't the platform's has none.

    Args:
        connection: to the cluster.
        trust: as for ``verify_clusters``.
        network: as for ``open_for_writing``.

    Raises:
        ClusterError: the platform doesn't answer which stream it has.
        ProfileError: the platform doesn't have the cluster.
    """
    if connection.platform is None:
        reason = "it is reached directly, and not paid for by a stream"
        return without_stream(connection.label, reason, required=trust.require)
    [report] = verify_clusters(connection.platform, [PlatformCluster(*connection.record())], trust, network)
    return report


def check_skip(trust: StreamConfig) -> None:
    """Check that the verification may be skipped.

    Raises:
        StreamError: the section requires it.
    """
    if trust.require:
        raise StreamError("the verification of the payment stream can't be skipped: `stream: require` asks for it")


def require_trust(report: Report) -> None:
    """Raise an error for a stream that isn't trusted.

    Raises:
        StreamError: a check failed; with the checks that stop, and why.
        StreamNotVerified: no check failed, but some couldn't be made.
    """
    lines = []
    for check in report.stopping:
        seen = f" (expected {check.expected}, found {check.found})" if check.expected and check.found else ""
        lines.append(f"  {check.name}: {check.text}{seen}")
    match report.verdict:
        case "untrusted":
            raise StreamError("\n".join([f"the payment stream of {report.cluster} isn't trusted:", *lines]))
        case "unverified":
            first = (
                f"the payment stream of {report.cluster} couldn't be verified, so nothing was sent; try again later:"
            )
            raise StreamNotVerified("\n".join([first, *lines]))
        case "trusted":
            return
