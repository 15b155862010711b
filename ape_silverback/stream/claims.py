"""What the platform claims of its clusters and the streams that pay for them. Nothing of it is believed yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from ape_silverback.cluster.types import ClusterConfiguration, ClusterInfo, StreamClaim
from ape_silverback.concurrency import map_threads
from ape_silverback.exceptions import ClusterError, NotFound, StreamError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import PlatformClient, Workspace


class PlatformCluster(NamedTuple):
    """A cluster of the platform and the workspace that it is in."""

    workspace: Workspace
    info: ClusterInfo

    @property
    def path(self) -> str:
        """Its slugs, as ``WORKSPACE/NAME``."""
        return f"{self.workspace.slug}/{self.info.slug}"


@dataclass(frozen=True)
class Claim:
    """What the platform claims of a cluster and its stream.

    Attributes:
        cluster: how to call the cluster in what users read.
        cluster_id: the key that its product code was signed with.
        configuration: what it should be paid for; None when the platform doesn't answer that.
        manager: the StreamManager that the platform names for the chain; an error when it doesn't.
        unopened: whether the stream is yet to be opened, so that there is only the manager to look at.
    """

    cluster: str
    cluster_id: UUID
    configuration: ClusterConfiguration | None
    stream: StreamClaim
    manager: str | Exception
    unopened: bool = False


def read_claims(platform: PlatformClient, clusters: Sequence[PlatformCluster]) -> list[Claim | None]:
    """Return what the platform claims of clusters and their streams; None for a cluster without a stream.

    Raises:
        ClusterError: the platform doesn't answer which streams they have.
    """

    def manager_on(chain_id: int) -> str | Exception:
        try:
            return platform.get_stream_manager(chain_id)
        except ClusterError as error:
            return error

    streams = map_threads(lambda cluster: cluster.workspace.get_stream_claim(cluster.info), clusters)
    chains = list(dict.fromkeys(stream.chain_id for stream in streams if stream is not None))
    managers = dict(zip(chains, map_threads(manager_on, chains), strict=True))
    return [
        Claim(one.path, one.info.id, one.info.configuration, stream, managers[stream.chain_id]) if stream else None
        for one, stream in zip(clusters, streams, strict=True)
    ]


def claim_for_new_stream(platform: PlatformClient, cluster: PlatformCluster, chain_id: int) -> Claim:
    """Return the claim for a stream that is yet to be opened, with the StreamManager that the platform names.

    Raises:
        StreamError: it names none for the chain.
        ClusterError: it doesn't answer.
    """
    try:
        manager = platform.get_stream_manager(chain_id)
    except NotFound as error:
        raise StreamError(f"the platform takes no payment on chain {chain_id}") from error
    stream = StreamClaim(chain_id=chain_id, manager=manager, stream_id=0)
    return Claim(cluster.path, cluster.info.id, cluster.info.configuration, stream, manager, unopened=True)
