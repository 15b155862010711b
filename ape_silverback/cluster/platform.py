"""The client of the platform, and what it makes of its answers: workspaces and their clusters.

Names are those of the public SDK's module ``silverback.cluster.client``, as in ``cluster``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BeforeValidator, RootModel

from ape_silverback.addresses import checksummed_address
from ape_silverback.cluster.base_client import SLOW_TIMEOUT, ApiClient
from ape_silverback.cluster.cluster import ClusterClient
from ape_silverback.cluster.http_errors import read_answer
from ape_silverback.cluster.resource import Resource
from ape_silverback.cluster.types import ClusterInfo, ResourceStatus, StreamClaim, StreamInfo, WireModel, WorkspaceInfo
from ape_silverback.exceptions import ProfileError

if TYPE_CHECKING:
    from eth_typing import ChecksumAddress
else:
    ChecksumAddress = str

Named = TypeVar("Named", WorkspaceInfo, ClusterInfo, "Workspace")


class Workspace(WorkspaceInfo, Resource):
    """A workspace of the platform."""

    @property
    def client(self) -> PlatformClient:
        """The client that made this object."""
        client: PlatformClient = self._bound_client()
        return client

    @property
    def owner(self) -> str:
        """Name of the user that owns it."""
        return str(self.client.get_as(dict[str, Any], f"/users/{self.owner_id}").get("username"))

    def build_display_fields(self) -> dict[str, str]:
        """Return what a list of workspaces shows. Asks for the owner's name."""
        return {"name": self.name, "slug": self.slug, "owner": self.owner}

    @property
    def clusters(self) -> dict[str, ClusterInfo]:
        """Its clusters by slug."""
        found = self.client.get_all(ClusterInfo, "/clusters", params=self._of_this())
        return {cluster.slug: cluster for cluster in found}

    def get_cluster_client(self, cluster_name: str) -> ClusterClient:
        """Return a client for one of its clusters, by slug.

        Raises:
            ProfileError: it has no such cluster.
        """
        return self.client.cluster_client(self.slug, self.cluster_named(cluster_name).slug)

    def cluster_named(self, slug: str) -> ClusterInfo:
        """Return the record of one of its clusters, by slug.

        Raises:
            ProfileError: it has no such cluster.
        """
        clusters = self.clusters
        if slug not in clusters:
            known = ", ".join(sorted(clusters)) or "none"
            raise ProfileError(f"workspace '{self.slug}' has no cluster '{slug}'; known: {known}")
        return clusters[slug]

    def create_cluster(self, cluster_slug: str | None = None, cluster_name: str | None = None) -> ClusterInfo:
        """Create a cluster, whose status is CREATED until it is paid for.

        Raises:
            Conflict: there is one of this slug or name.
        """

        def find() -> ClusterInfo | None:
            there = [cluster for cluster in self.clusters.values() if cluster.status is not ResourceStatus.REMOVED]
            return find_named(there, cluster_slug, cluster_name)

        return self.client.create(
            ClusterInfo,
            "/clusters/",
            f"cluster '{cluster_slug or cluster_name}'",
            find,
            given(slug=cluster_slug, name=cluster_name),
            params=self._of_this(),
            data=given(name=cluster_name, slug=cluster_slug),
        )

    def update_cluster(self, cluster_id: str, name: str | None = None, slug: str | None = None) -> ClusterInfo:
        """Rename a cluster; None keeps a value."""
        path = f"/clusters/{cluster_id}"
        data = given(name=name, slug=slug)
        response = self.client.call("PATCH", path, params=self._of_this(), data=data, idempotent=True)
        return read_answer(ClusterInfo, response)

    @property
    def available_versions(self) -> list[str]:
        """The versions to which a cluster can be migrated."""
        return self.client.get_as(list[str], "/versions")

    def migrate_cluster(self, cluster_id: str, version: str | None = None) -> None:
        """Start a migration of a cluster, by default to the stable version."""
        path = f"/clusters/{cluster_id}"
        self.client.call("PUT", path, params=self._of_this(), data=given(version=version), timeout=SLOW_TIMEOUT)

    def get_stream_info(self, cluster: ClusterInfo) -> StreamInfo | None:
        """Return the payment stream that the platform names for a cluster. Verify it before you trust it."""
        return self.client.get_as(_MaybeStream, f"/clusters/{cluster.id}/stream", params=self._of_this()).root

    def get_stream_claim(self, cluster: ClusterInfo) -> StreamClaim | None:
        """Return the same as the platform wrote it, for the verification."""
        return self.client.get_as(_MaybeClaim, f"/clusters/{cluster.id}/stream", params=self._of_this()).root

    def update(self, name: str | None = None, slug: str | None = None) -> Workspace:
        """Rename it; None keeps a value."""
        data = given(name=name, slug=slug)
        response = self.client.call("PATCH", f"/workspaces/{self.id}", data=data, idempotent=True)
        return read_answer(Workspace, response)._bind(self.client)

    def remove(self) -> None:
        """Remove it. Refused while it holds a cluster."""
        self.client.delete_resource(f"/workspaces/{self.id}")

    def _of_this(self) -> dict[str, str]:
        return {"workspace": str(self.id)}


class PlatformClient(ApiClient):
    """Client of the platform, constructed as an ``httpx.Client`` with the session's cookie or a ``PlatformSession``."""

    @property
    def workspaces(self) -> dict[str, Workspace]:
        """The user's workspaces by slug."""
        return {one.slug: one._bind(self) for one in self.get_all(Workspace, "/workspaces")}

    def create_workspace(self, workspace_slug: str | None = None, workspace_name: str | None = None) -> Workspace:
        """Create a workspace.

        Raises:
            Conflict: there is one of this slug or name.
        """
        found = self.create(
            Workspace,
            "/workspaces",
            f"workspace '{workspace_slug or workspace_name}'",
            lambda: find_named(self.workspaces.values(), workspace_slug, workspace_name),
            given(slug=workspace_slug, name=workspace_name),
            data=given(slug=workspace_slug, name=workspace_name),
        )
        return found._bind(self)

    def get_cluster_client(self, workspace_name: str, cluster_name: str) -> ClusterClient:
        """Return a client for a cluster, by the slugs of its workspace and its own.

        Raises:
            ProfileError: the workspace or cluster doesn't exist.
        """
        return self.workspace(workspace_name).get_cluster_client(cluster_name)

    def workspace(self, slug: str) -> Workspace:
        """Return one of the user's workspaces, by slug.

        Raises:
            ProfileError: the workspace doesn't exist.
        """
        workspaces = self.workspaces
        if slug not in workspaces:
            known = ", ".join(sorted(workspaces)) or "none"
            raise ProfileError(f"no workspace '{slug}'; known: {known}")
        return workspaces[slug]

    def cluster_client(self, workspace_slug: str, cluster_slug: str) -> ClusterClient:
        """Return a client for a cluster whose slugs are known, without asking the platform."""
        return ClusterClient(
            base_url=f"{str(self.base_url).rstrip('/')}/c/{workspace_slug}/{cluster_slug}",
            auth=self.auth,
            cookies=self.cookies,
            timeout=self.timeout,
            retries=self.retries,
            hint=self.hint,
        )

    def get_stream_manager(self, chain_id: int) -> ChecksumAddress:
        """Return the address that the platform names as its StreamManager on a chain."""
        return self.get_as(_Address, f"/streams/manager/{chain_id}").root

    def get_accepted_tokens(self, chain_id: int) -> dict[str, ChecksumAddress]:
        """Return the tokens that the platform accepts as payment on a chain: symbol → address."""
        tokens = self.get_all(_Token, f"/streams/tokens/{chain_id}")
        return {token.symbol: token.address for token in tokens}


class _Address(RootModel[Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]], defer_build=True):
    pass


class _Token(WireModel):
    symbol: str
    address: Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]


class _MaybeStream(RootModel[StreamInfo | None], defer_build=True):
    pass


class _MaybeClaim(RootModel[StreamClaim | None], defer_build=True):
    pass


def given(**values: str | None) -> dict[str, str]:
    """Return the values that aren't None, for a form."""
    return {name: value for name, value in values.items() if value is not None}


def find_named(among: Iterable[Named], slug: str | None, name: str | None) -> Named | None:
    """Return the one with a slug, or with a name where the platform made the slug from it."""
    return next((one for one in among if (one.slug == slug if slug else one.name == name)), None)
