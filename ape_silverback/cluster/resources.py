"""What the clients answer: bots, variable groups, credentials and workspaces, each with its operations.

Each knows the client that made it, per instance, so that two clients can live in one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ape.logging import LogLevel
from pydantic import BaseModel, PrivateAttr, RootModel

from ape_silverback.cluster.base_client import SLOW_TIMEOUT, ApiClient
from ape_silverback.cluster.http_errors import read_answer
from ape_silverback.cluster.types import (
    BotInfo,
    BotLogEntry,
    ClusterInfo,
    RegistryCredentialsInfo,
    ResourceStatus,
    ServiceHealth,
    StreamClaim,
    StreamInfo,
    VariableGroupInfo,
    WorkspaceInfo,
)
from ape_silverback.exceptions import ProfileError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient, PlatformClient

NO_CHANGE = "<no-change>"
"""What keeps ``account`` and ``credential_name`` of a bot; null clears them."""

Bound = TypeVar("Bound", bound="_Bound")
Named = TypeVar("Named", WorkspaceInfo, ClusterInfo, "Workspace")


class _Bound(BaseModel):
    """Something that a client made. It can be pickled, but then has no client any more."""

    _client: Any = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Compare what they say, not who made them."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.__dict__["id"])  # which every one of them has

    def __getstate__(self) -> dict[Any, Any]:
        nothing = dict.fromkeys(self.__private_attributes__)
        return {**super().__getstate__(), "__pydantic_private__": nothing}

    def _bind(self: Bound, client: ApiClient) -> Bound:
        self._client = client
        return self

    @property
    def cluster(self) -> ClusterClient:
        """The client that made this object."""
        if self._client is None:
            raise RuntimeError(f"this {type(self).__name__} has no client: it was made by itself or unpickled")
        client: ClusterClient = self._client
        return client


class RegistryCredentials(RegistryCredentialsInfo, _Bound):
    """Credentials of a cluster for a container registry."""

    def update(
        self,
        hostname: str | None = None,
        email: str | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> RegistryCredentials:
        """Change what is given; None keeps a value. Gives the credentials as they are then."""
        changes = {"hostname": hostname, "email": email, "username": username, "password": password}
        response = self.cluster.call("PATCH", f"/credentials/{self.name}", json=changes, idempotent=True)
        return read_answer(RegistryCredentials, response)._bind(self.cluster)

    def remove(self) -> None:
        """Remove them. Refused while a bot uses them."""
        self.cluster.delete_thing(f"/credentials/{self.name}")


class VariableGroup(VariableGroupInfo, _Bound):
    """A group of environment variables of a cluster."""

    def update(self, **variables: str | None) -> VariableGroup:
        """Set variables, and remove those that are None. Gives the group's new revision."""
        response = self.cluster.call("PATCH", f"/vars/{self.id}", json={"variables": variables}, idempotent=True)
        return read_answer(VariableGroup, response)._bind(self.cluster)

    def remove(self) -> None:
        """Remove it. Refused while a bot uses any revision of it."""
        self.cluster.delete_thing(f"/vars/{self.id}")


class Listing:
    """What the bots of one answer share: groups and credentials are asked for once, and only if one is needed."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client

    @cached_property
    def groups(self) -> dict[str, VariableGroup]:
        """Variable groups by name."""
        return self._client.variable_groups

    @cached_property
    def credentials(self) -> dict[str, RegistryCredentials]:
        """Registry credentials by id and by name: a cluster answers with the id where it takes the name."""
        found = self._client.credentials.values()
        return {one.name: one for one in found} | {one.id: one for one in found}


class Bot(BotInfo, _Bound):
    """A bot of a cluster."""

    _listing: Listing | None = PrivateAttr(default=None)

    def _list_in(self, listing: Listing) -> Bot:
        self._listing = listing
        return self._bind(listing._client)

    @property
    def _others(self) -> Listing:
        if self._listing is None:
            self._listing = Listing(self.cluster)
        return self._listing

    @property
    def vargroups(self) -> list[VariableGroup]:
        """Its variable groups. All bots of one listing ask the cluster once."""
        groups = self._others.groups
        return [groups[name] for name in self.environment if name in groups]

    @property
    def credential(self) -> RegistryCredentials | None:
        """Its registry credentials. All bots of one listing ask the cluster once."""
        return self._others.credentials.get(self.credential_name) if self.credential_name else None

    def update(
        self,
        name: str | None = None,
        image: str | None = None,
        credential_name: str | None = NO_CHANGE,
        ecosystem: str | None = None,
        network: str | None = None,
        provider: str | None = None,
        account: str | None = NO_CHANGE,
        environment: list[str] | None = None,
        cluster_access: bool | None = None,
    ) -> Bot:
        """Change what is given; None keeps a value, but clears ``account`` and ``credential_name``.

        A running bot keeps its old configuration until it is stopped and started.
        """
        changes = {
            "name": name,
            "image": image,
            "credential_name": credential_name,
            "ecosystem": ecosystem,
            "network": network,
            "provider": provider,
            "account": account,
            "environment": environment,
            "cluster_access": cluster_access,
        }
        response = self.cluster.call("PATCH", f"/bots/{self.id}", json=changes, idempotent=True, timeout=SLOW_TIMEOUT)
        return read_answer(Bot, response)._bind(self.cluster)

    @property
    def status(self) -> ResourceStatus:
        """Its status now."""
        return self.cluster.get_as(ResourceStatus, f"/bots/{self.id}/status")

    @property
    def is_healthy(self) -> bool:
        """Whether it is healthy now."""
        return self.cluster.get_as(ServiceHealth, f"/bots/{self.id}/health").healthy

    def start(self) -> None:
        """Start it. A running bot stays as it is."""
        self.cluster.call("POST", f"/bots/{self.id}/start", idempotent=True, timeout=SLOW_TIMEOUT)

    def stop(self) -> None:
        """Ask it to stop; it has stopped when its status says so."""
        self.cluster.call("POST", f"/bots/{self.id}/stop", idempotent=True, timeout=SLOW_TIMEOUT)

    def remove(self) -> None:
        """Remove it; a running one is shut down first."""
        self.cluster.delete_thing(f"/bots/{self.id}", timeout=SLOW_TIMEOUT)

    @property
    def errors(self) -> list[str]:
        """What went wrong in it, as its cluster tells."""
        return self.cluster.get_as(list[str], f"/bots/{self.id}/errors")

    @property
    def logs(self) -> list[BotLogEntry]:
        """Its whole log from level INFO on."""
        return list(self.get_logs())

    def get_logs(
        self,
        log_level: LogLevel = LogLevel.INFO,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[BotLogEntry]:
        """Read its log as a stream, in constant memory.

        Args:
            log_level: lowest level.
            start_time: time from which on.
            end_time: time up to which.
            follow: stay for new entries, over broken connections, until the bot is removed.

        Raises:
            ClusterError: the log can't be read.
        """
        return self.cluster._logs(self, log_level, start_time, end_time, follow)


class Workspace(WorkspaceInfo, _Bound):
    """A workspace of the platform."""

    @property
    def client(self) -> PlatformClient:
        """The client that made this object."""
        return cast("PlatformClient", self.cluster)  # the same look-up, of a client of the other kind

    @property
    def owner(self) -> str:
        """Name of the user that owns it."""
        return str(self.client.get_as(dict[str, Any], f"/users/{self.owner_id}").get("username"))

    def build_display_fields(self) -> dict[str, str]:
        """Give what a list of workspaces shows of it. Asks for the owner's name."""
        return {"name": self.name, "slug": self.slug, "owner": self.owner}

    @property
    def clusters(self) -> dict[str, ClusterInfo]:
        """Its clusters by slug."""
        found = self.client.get_all(ClusterInfo, "/clusters", params=self._of_this())
        return {cluster.slug: cluster for cluster in found}

    def get_cluster_client(self, cluster_name: str) -> ClusterClient:
        """Give a client for one of its clusters, by slug.

        Raises:
            ProfileError: it has no such cluster.
        """
        return self.client.cluster_client(self.slug, self.cluster_named(cluster_name).slug)

    def cluster_named(self, slug: str) -> ClusterInfo:
        """Give the record of one of its clusters, by slug.

        Raises:
            ProfileError: it has no such cluster.
        """
        clusters = self.clusters
        if slug not in clusters:
            known = ", ".join(sorted(clusters)) or "none"
            raise ProfileError(f"workspace '{self.slug}' has no cluster '{slug}'; it has: {known}")
        return clusters[slug]

    def create_cluster(self, cluster_slug: str | None = None, cluster_name: str | None = None) -> ClusterInfo:
        """Make a cluster, which is CREATED until it is paid for."""
        return self.client.create(
            ClusterInfo,
            "/clusters/",
            lambda: find_named(self.clusters.values(), cluster_slug, cluster_name),
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
        """The versions that a cluster can be migrated to."""
        return self.client.get_as(list[str], "/versions")

    def migrate_cluster(self, cluster_id: str, version: str | None = None) -> None:
        """Start a migration of a cluster, to the stable version when none is named."""
        path = f"/clusters/{cluster_id}"
        self.client.call("PUT", path, params=self._of_this(), data=given(version=version), timeout=SLOW_TIMEOUT)

    def get_stream_info(self, cluster: ClusterInfo) -> StreamInfo | None:
        """Give the payment stream that the platform names for a cluster. To be verified before it is believed."""
        return self.client.get_as(_MaybeStream, f"/clusters/{cluster.id}/stream", params=self._of_this()).root

    def get_stream_claim(self, cluster: ClusterInfo) -> StreamClaim | None:
        """Give the same letter by letter, for the verification to look at."""
        return self.client.get_as(_MaybeClaim, f"/clusters/{cluster.id}/stream", params=self._of_this()).root

    def update(self, name: str | None = None, slug: str | None = None) -> Workspace:
        """Rename it; None keeps a value."""
        data = given(name=name, slug=slug)
        response = self.client.call("PATCH", f"/workspaces/{self.id}", data=data, idempotent=True)
        return read_answer(Workspace, response)._bind(self.client)

    def remove(self) -> None:
        """Remove it. Refused while it holds a cluster."""
        self.client.delete_thing(f"/workspaces/{self.id}")

    def _of_this(self) -> dict[str, str]:
        return {"workspace": str(self.id)}


class _MaybeStream(RootModel[StreamInfo | None]):
    pass


class _MaybeClaim(RootModel[StreamClaim | None]):
    pass


def given(**values: str | None) -> dict[str, str]:
    """Give what isn't None, for a form."""
    return {name: value for name, value in values.items() if value is not None}


def find_named(among: Iterable[Named], slug: str | None, name: str | None) -> Named | None:
    """Find what was made with a slug, or with a name only, from which the platform makes the slug."""
    return next((one for one in among if (one.slug == slug if slug else one.name == name)), None)
