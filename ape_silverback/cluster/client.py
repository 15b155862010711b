"""The clients of a cluster and of the platform, and what they answer.

Methods and properties have the names of the public SDK's module ``silverback.cluster.client``, so that code written for
it works here. Every object knows the client that made it. A property of a client asks the cluster each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import httpx
from ape.logging import LogLevel
from eth_typing import ChecksumAddress
from pydantic import BaseModel, BeforeValidator, PrivateAttr, RootModel

from ape_silverback.cluster.logs import follow, read_entry, read_lines
from ape_silverback.cluster.settings import ClusterProfile, PlatformProfile
from ape_silverback.cluster.transport import (
    SLOW_TIMEOUT,
    ApiClient,
    mapped_errors,
    read_answer,
)
from ape_silverback.cluster.types import (
    BotInfo,
    BotLogEntry,
    ClusterConfiguration,
    ClusterHealth,
    ClusterInfo,
    RegistryCredentialsInfo,
    ResourceStatus,
    ServiceHealth,
    StreamInfo,
    VariableGroupInfo,
    WorkspaceInfo,
    checksummed_address,
)
from ape_silverback.exceptions import ProfileError, UnexpectedAnswer

if TYPE_CHECKING:
    from ape_silverback.cluster.settings import Choice

NO_CHANGE = "<no-change>"
"""What keeps ``account`` and ``credential_name`` of a bot; null clears them."""

Bound = TypeVar("Bound", bound="_Bound")


class _Bound(BaseModel):
    """Something that a client made. It can be pickled, but then has no client any more."""

    _client: Any = PrivateAttr(default=None)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__pydantic_private__": {"_client": None}}

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

    def __hash__(self) -> int:
        return hash(self.id)

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

    def __hash__(self) -> int:
        return hash(self.id)

    def update(self, **variables: str | None) -> VariableGroup:
        """Set variables, and remove those that are None. Gives the group's new revision."""
        response = self.cluster.call("PATCH", f"/vars/{self.id}", json={"variables": variables}, idempotent=True)
        return read_answer(VariableGroup, response)._bind(self.cluster)

    def remove(self) -> None:
        """Remove it. Refused while a bot uses any revision of it."""
        self.cluster.delete_thing(f"/vars/{self.id}")


class Bot(BotInfo, _Bound):
    """A bot of a cluster."""

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def vargroups(self) -> list[VariableGroup]:
        """Its variable groups. Asks the cluster for all groups: for many bots ask once and look them up."""
        groups = self.cluster.variable_groups
        return [groups[name] for name in self.environment if name in groups]

    @property
    def credential(self) -> RegistryCredentials | None:
        """Its registry credentials, by id or by name. Asks the cluster."""
        if self.credential_name is None:
            return None
        known = self.cluster.credentials.values()
        return next((one for one in known if self.credential_name in (one.id, one.name)), None)

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
        return self.cluster.ask(ResourceStatus, f"/bots/{self.id}/status")

    @property
    def is_healthy(self) -> bool:
        """Whether it is healthy now."""
        return self.cluster.ask(ServiceHealth, f"/bots/{self.id}/health").healthy

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
        return self.cluster.ask(list[str], f"/bots/{self.id}/errors")

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


class ClusterClient(ApiClient):
    """Client of one cluster, constructed as an ``httpx.Client``.

    ``ClusterClient(base_url=…, headers={"X-API-Key": …})`` for a cluster that is reached directly.
    """

    @property
    def openapi_schema(self) -> dict[str, Any]:
        """The description of the cluster's API, asked for once."""
        if "_openapi" not in self.__dict__:
            self.__dict__["_openapi"] = self.ask(dict[str, Any], "/openapi.json")
        schema: dict[str, Any] = self.__dict__["_openapi"]
        return schema

    @property
    def version(self) -> str:
        """The cluster's version."""
        return str(self._info.get("version", "unknown"))

    @property
    def configuration(self) -> ClusterConfiguration | None:
        """The configuration that is paid for; None for a cluster that hosts itself."""
        raw = self._info.get("x-config")
        return None if raw is None else ClusterConfiguration.model_validate(raw)

    @property
    def runtime(self) -> str | None:
        """What a local cluster runs its bots with, such as ``process``; None for all other clusters."""
        runtime = self._info.get("x-runtime")
        return runtime if isinstance(runtime, str) else None

    @property
    def _info(self) -> dict[str, Any]:
        info = self.openapi_schema.get("info")
        if not isinstance(info, dict):
            raise UnexpectedAnswer(f"{self!r} has an API description without 'info'")
        return info

    @property
    def health(self) -> ClusterHealth:
        """Health of the cluster, its networks and its bots."""
        return self.ask(ClusterHealth, "/health")

    @property
    def credentials(self) -> dict[str, RegistryCredentials]:
        """Registry credentials by name."""
        return {one.name: one._bind(self) for one in self.ask_all(RegistryCredentials, "/credentials")}

    def new_credentials(
        self, name: str, hostname: str, email: str, username: str, password: str
    ) -> RegistryCredentials:
        """Make registry credentials.

        Raises:
            Conflict: there are some of this name.
        """
        content = {"name": name, "hostname": hostname, "email": email, "username": username, "password": password}
        found = self.create(RegistryCredentials, "/credentials", lambda: self.credentials.get(name), json=content)
        return found._bind(self)

    @property
    def variable_groups(self) -> dict[str, VariableGroup]:
        """Variable groups by name."""
        return {one.name: one._bind(self) for one in self.ask_all(VariableGroup, "/vars")}

    def new_variable_group(self, name: str, variables: dict[str, str]) -> VariableGroup:
        """Make a variable group.

        Raises:
            Conflict: there is one of this name.
        """
        found = self.create(
            VariableGroup, "/vars", lambda: self.variable_groups.get(name), params={"name": name}, json=variables
        )
        return found._bind(self)

    @property
    def bots(self) -> dict[str, Bot]:
        """Bots by name."""
        return {one.name: one._bind(self) for one in self.ask_all(Bot, "/bots")}

    def new_bot(
        self,
        name: str,
        image: str,
        ecosystem: str,
        network: str,
        provider: str,
        account: str | None = None,
        environment: list[str] | None = None,
        credential_name: str | None = None,
        cluster_access: bool = False,
    ) -> Bot:
        """Make a bot, which starts right away.

        Raises:
            Conflict: there is one of this name.
            ValidationFailed: the cluster refuses a value.
        """
        content = {
            "name": name,
            "image": image,
            "ecosystem": ecosystem,
            "network": network,
            "provider": provider,
            "account": account,
            "environment": environment or [],
            "credential_name": credential_name,
            "cluster_access": cluster_access,
        }
        found = self.create(Bot, "/bots", lambda: self.bots.get(name), json=content, timeout=SLOW_TIMEOUT)
        return found._bind(self)

    def _logs(
        self, bot: Bot, log_level: LogLevel, start_time: datetime | None, end_time: datetime | None, stay: bool
    ) -> Iterator[BotLogEntry]:
        @contextmanager
        def connect(since: datetime | None) -> Iterator[httpx.Response]:
            query: dict[str, Any] = {"log_level": log_level.name, "follow": stay}
            query |= {"start_time": since.isoformat()} if since else {}
            query |= {"end_time": end_time.isoformat()} if end_time else {}
            # A followed log may be silent for as long as it likes.
            timeout = httpx.Timeout(5.0, read=None) if stay else SLOW_TIMEOUT
            request = self.build_request("GET", f"/bots/{bot.id}/logs", params=query, timeout=timeout)
            response = self.send(request, stream=True)
            try:
                self.check(response)
                with mapped_errors(request):
                    yield response
            finally:
                response.close()

        if stay:
            yield from follow(connect, start_time, self.retries.delays, self.retries.sleep)
            return
        with connect(start_time) as response:
            yield from map(read_entry, read_lines(response))


class Workspace(WorkspaceInfo, _Bound):
    """A workspace of the platform."""

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def client(self) -> PlatformClient:
        """The client that made this object."""
        return cast("PlatformClient", self.cluster)  # the same look-up, of a client of the other kind

    @property
    def owner(self) -> str:
        """Name of the user that owns it."""
        return str(self.client.ask(dict[str, Any], f"/users/{self.owner_id}").get("username"))

    @property
    def clusters(self) -> dict[str, ClusterInfo]:
        """Its clusters by slug."""
        found = self.client.ask_all(ClusterInfo, "/clusters", params=self._of_this())
        return {cluster.slug: cluster for cluster in found}

    def get_cluster_client(self, cluster_name: str) -> ClusterClient:
        """Give a client for one of its clusters, by slug.

        Raises:
            ProfileError: it has no such cluster.
        """
        clusters = self.clusters
        if cluster_name not in clusters:
            known = ", ".join(sorted(clusters)) or "none"
            raise ProfileError(f"workspace '{self.slug}' has no cluster '{cluster_name}'; it has: {known}")
        return self.client.cluster_client(self.slug, cluster_name)

    def create_cluster(self, cluster_slug: str | None = None, cluster_name: str | None = None) -> ClusterInfo:
        """Make a cluster, which is CREATED until it is paid for."""
        content = {"name": cluster_name, "slug": cluster_slug}
        return self.client.create(
            ClusterInfo,
            "/clusters/",
            lambda: self.clusters.get(cluster_slug or ""),
            params=self._of_this(),
            data=content,
        )

    def update_cluster(self, cluster_id: str, name: str | None = None, slug: str | None = None) -> ClusterInfo:
        """Rename a cluster; None keeps a value."""
        path = f"/clusters/{cluster_id}"
        data = _given(name=name, slug=slug)
        response = self.client.call("PATCH", path, params=self._of_this(), data=data, idempotent=True)
        return read_answer(ClusterInfo, response)

    @property
    def available_versions(self) -> list[str]:
        """The versions that a cluster can be migrated to."""
        return self.client.ask(list[str], "/versions")

    def migrate_cluster(self, cluster_id: str, version: str | None = None) -> None:
        """Start a migration of a cluster, to the stable version when none is named."""
        path = f"/clusters/{cluster_id}"
        self.client.call("PUT", path, params=self._of_this(), data=_given(version=version), timeout=SLOW_TIMEOUT)

    def get_stream_info(self, cluster: ClusterInfo) -> StreamInfo | None:
        """Give the payment stream that the platform names for a cluster. To be verified before it is believed."""
        return self.client.ask(_MaybeStream, f"/clusters/{cluster.id}/stream", params=self._of_this()).root

    def update(self, name: str | None = None, slug: str | None = None) -> Workspace:
        """Rename it; None keeps a value."""
        data = _given(name=name, slug=slug)
        response = self.client.call("PATCH", f"/workspaces/{self.id}", data=data, idempotent=True)
        return read_answer(Workspace, response)._bind(self.client)

    def remove(self) -> None:
        """Remove it. Refused while it holds a cluster."""
        self.client.delete_thing(f"/workspaces/{self.id}")

    def _of_this(self) -> dict[str, str]:
        return {"workspace": str(self.id)}


class PlatformClient(ApiClient):
    """Client of the platform, constructed as an ``httpx.Client`` with the session's cookie."""

    @property
    def workspaces(self) -> dict[str, Workspace]:
        """The user's workspaces by slug."""
        return {one.slug: one._bind(self) for one in self.ask_all(Workspace, "/workspaces")}

    def create_workspace(self, workspace_slug: str | None = None, workspace_name: str | None = None) -> Workspace:
        """Make a workspace."""
        content = {"slug": workspace_slug, "name": workspace_name}
        found = self.create(Workspace, "/workspaces", lambda: self.workspaces.get(workspace_slug or ""), data=content)
        return found._bind(self)

    def get_cluster_client(self, workspace_name: str, cluster_name: str) -> ClusterClient:
        """Give a client for a cluster, by the slugs of its workspace and its own.

        Raises:
            ProfileError: there is no such workspace or cluster.
        """
        workspaces = self.workspaces
        if workspace_name not in workspaces:
            known = ", ".join(sorted(workspaces)) or "none"
            raise ProfileError(f"there is no workspace '{workspace_name}'; there are: {known}")
        return workspaces[workspace_name].get_cluster_client(cluster_name)

    def cluster_client(self, workspace_slug: str, cluster_slug: str) -> ClusterClient:
        """Give a client for a cluster whose slugs are known, without asking the platform."""
        return ClusterClient(
            base_url=f"{str(self.base_url).rstrip('/')}/c/{workspace_slug}/{cluster_slug}",
            cookies=self.cookies,
            retries=self.retries,
            hint=self.hint,
        )

    def get_stream_manager(self, chain_id: int) -> ChecksumAddress:
        """Give the address that the platform names as its StreamManager on a chain."""
        return self.ask(_Address, f"/streams/manager/{chain_id}").root

    def get_accepted_tokens(self, chain_id: int) -> dict[str, ChecksumAddress]:
        """Give the tokens that are accepted for payment on a chain: symbol → address."""
        tokens = self.ask_all(_Token, f"/streams/tokens/{chain_id}")
        return {token.symbol: token.address for token in tokens}


class _MaybeStream(RootModel[StreamInfo | None]):
    pass


class _Address(RootModel[Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]]):
    pass


class _Token(BaseModel):
    symbol: str
    address: Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]


def connect(choice: Choice, cluster: tuple[str, str] | None) -> ClusterClient:
    """Give the client for a profile that was chosen.

    Args:
        choice: the profile.
        cluster: slugs of workspace and cluster, for a profile of the platform.

    Raises:
        Unauthorized: nobody is logged in to the platform.
    """
    from ape_silverback.cluster.auth import LOG_IN, read_access_token
    from ape_silverback.cluster.settings import warn_of_plain_http

    profile = choice.profile
    warn_of_plain_http(profile)
    if isinstance(profile, ClusterProfile):
        hint = f"check `api-key` of profile '{choice.name}'"
        if choice.name == "environment":
            hint = "check SILVERBACK_CLUSTER_API_KEY"
        return ClusterClient(base_url=profile.host, headers={"X-API-Key": profile.api_key}, hint=hint)
    assert isinstance(profile, PlatformProfile)  # noqa: S101 - the other of the two
    assert cluster is not None  # noqa: S101 - choose_cluster gives one for a platform's profile
    platform = PlatformClient(
        base_url=profile.host, cookies={"session": read_access_token(profile.auth)}, hint=f"{LOG_IN} again"
    )
    return platform.cluster_client(*cluster)


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
