"""The streams of the platform's clusters: asks the platform what it claims, and has it verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ape_silverback.apepay.rpc import Node
from ape_silverback.cluster.types import StreamClaim
from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.exceptions import ClusterError, NotFound, StreamError
from ape_silverback.stream.chain import connected_provider, network_with, node_of
from ape_silverback.stream.verify import Claim, Report, verify, without_stream

if TYPE_CHECKING:
    from ape_silverback.cluster.client import PlatformClient, Workspace
    from ape_silverback.cluster.types import ClusterInfo
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.connect import Connection

Place = tuple["Workspace", "ClusterInfo"]
"""A cluster of the platform and the workspace that it is in."""


def verify_clusters(
    platform: PlatformClient, places: Sequence[Place], trust: StreamConfig, network: str | None = None
) -> list[Report]:
    """Verify the streams of clusters; gives a report for each, in order.

    Args:
        platform: what they are clusters of.
        places: the clusters.
        trust: what is pinned, and how much time should be left.
        network: to read from, as Ape's ``--network`` takes it; by default the project's one that has the chain id.

    Raises:
        ClusterError: the platform doesn't say what streams they have.
    """
    claims = claims_of(platform, places)

    @contextmanager
    def open_node(chain_id: int) -> Iterator[Node]:
        with connected_provider(network or network_with(chain_id)) as provider, node_of(provider) as node:
            yield node

    reports = iter(verify([claim for claim in claims if claim is not None], trust, open_node))
    return [
        next(reports)
        if claim is not None
        else without_stream(name_of(place), "the platform names no stream that pays for it", required=trust.require)
        for place, claim in zip(places, claims, strict=True)
    ]


def verify_connection(connection: Connection, trust: StreamConfig, network: str | None = None) -> Report:
    """Verify the stream of the one cluster that was connected to. One that isn't the platform's has none.

    Args:
        connection: to the cluster.
        trust: as for ``verify_clusters``; likewise the network.

    Raises:
        ClusterError: the platform doesn't say what stream it has.
        ProfileError: the platform doesn't have the cluster.
    """
    if connection.platform is None:
        reason = "it is reached directly, and not paid for by a stream"
        return without_stream(connection.label, reason, required=trust.require)
    [report] = verify_clusters(connection.platform, [connection.record()], trust, network)
    return report


def open_for_writing(
    connection: Connection, trust: StreamConfig, *, verify: bool = True, network: str | None = None
) -> Report | None:
    """Verify the stream of the cluster that was connected to, and let the client write. The one way to write.

    Args:
        connection: to the cluster.
        trust: as for ``verify_clusters``; likewise the network.
        verify: whether to verify at all.

    Returns:
        The report; None when nothing was verified.

    Raises:
        StreamError: the stream isn't trusted, with the checks that stop; or ``stream: require`` forbids to skip them.
        ClusterError: the platform doesn't answer what stream the cluster has.
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


def check_skip(trust: StreamConfig) -> None:
    """Check that the verification may be left out.

    Raises:
        StreamError: the section requires it.
    """
    if trust.require:
        raise StreamError("the verification of the payment stream can't be left out: `stream: require` asks for it")


def require_trust(report: Report) -> None:
    """Raise for a stream that isn't to be trusted.

    Raises:
        StreamError: names the checks that stop, and why.
    """
    if report.trusted:
        return
    lines = []
    for check in report.stopping:
        seen = f" (expected {check.expected}, found {check.found})" if check.expected and check.found else ""
        lines.append(f"  {check.name}: {check.text}{seen}")
    raise StreamError("\n".join([f"the payment stream of {report.cluster} isn't trusted:", *lines]))


def claims_of(platform: PlatformClient, places: Sequence[Place]) -> list[Claim | None]:
    """Ask the platform what it says of clusters and their streams, side by side; None for one without a stream.

    Raises:
        ClusterError: it doesn't say.
    """

    def manager_on(chain_id: int) -> str | Exception:
        try:
            return platform.get_stream_manager(chain_id)
        except ClusterError as error:
            return error

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        streams = list(pool.map(lambda place: place[0].get_stream_claim(place[1]), places))
        chains = list(dict.fromkeys(stream.chain_id for stream in streams if stream is not None))
        managers = dict(zip(chains, pool.map(manager_on, chains), strict=True))
    return [
        stream and Claim(name_of(place), place[1].id, place[1].configuration, stream, managers[stream.chain_id])
        for place, stream in zip(places, streams, strict=True)
    ]


def claim_of_new(platform: PlatformClient, place: Place, chain_id: int) -> Claim:
    """Give the claim for a stream that is yet to be opened: with the StreamManager that the platform names for a chain.

    Raises:
        StreamError: it names none.
        ClusterError: it doesn't say.
    """
    try:
        manager = platform.get_stream_manager(chain_id)
    except NotFound as error:
        raise StreamError(f"the platform takes no payment on chain {chain_id}") from error
    stream = StreamClaim(chain_id=chain_id, manager=manager, stream_id=0)
    return Claim(name_of(place), place[1].id, place[1].configuration, stream, manager, unopened=True)


def name_of(place: Place) -> str:
    """Call a cluster by its slugs, as ``WORKSPACE/NAME``."""
    workspace, cluster = place
    return f"{workspace.slug}/{cluster.slug}"


def pins_of(reports: Sequence[Report]) -> dict[str, dict[int, str]]:
    """Give ``managers`` and ``controllers`` of trusted streams, by chain id.

    Raises:
        StreamError: two of them differ on one chain.
    """
    pins: dict[str, dict[int, str]] = {"managers": {}, "controllers": {}}
    for report in reports:
        if not report.trusted or report.chain_id is None:
            continue
        for what, found in (("managers", report.manager), ("controllers", report.controller)):
            if found is not None and pins[what].setdefault(report.chain_id, found) != found:
                raise StreamError(
                    f"the clusters have different {what} on chain {report.chain_id}, {pins[what][report.chain_id]} and "
                    f"{found}: only one can be pinned"
                )
    return pins
