"""The clients of a cluster and of the platform.

Methods and properties have the names of the public SDK's module ``silverback.cluster.client``, so that code written for
it works here. What the clients answer is in ``resources``. A property of a client asks the cluster each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import httpx
from ape.logging import LogLevel, logger
from eth_typing import ChecksumAddress
from pydantic import BaseModel, BeforeValidator, RootModel

from ape_silverback.cluster.base_client import SLOW_TIMEOUT, ApiClient, Retries
from ape_silverback.cluster.http_errors import mapped_errors
from ape_silverback.cluster.log_stream import follow, read_entry, read_lines
from ape_silverback.cluster.resources import (
    NO_CHANGE,
    Bot,
    Listing,
    RegistryCredentials,
    VariableGroup,
    Workspace,
    find_named,
    given,
)
from ape_silverback.cluster.settings import ClusterProfile, PlatformProfile, danger_of
from ape_silverback.cluster.types import BotLogEntry, ClusterConfiguration, ClusterHealth, checksummed_address
from ape_silverback.exceptions import ProfileError, UnexpectedAnswer

if TYPE_CHECKING:
    from ape_silverback.cluster.settings import Choice

__all__ = [
    "NO_CHANGE",
    "Bot",
    "ClusterClient",
    "PlatformClient",
    "RegistryCredentials",
    "VariableGroup",
    "Workspace",
    "connect",
    "connect_platform",
]


class ClusterClient(ApiClient):
    """Client of one cluster, constructed as an ``httpx.Client``.

    ``ClusterClient(base_url=…, headers={"X-API-Key": …})`` for a cluster that is reached directly.
    """

    @property
    def openapi_schema(self) -> dict[str, Any]:
        """The description of the cluster's API, asked for once."""
        if "_openapi" not in self.__dict__:
            self.__dict__["_openapi"] = self.get_as(dict[str, Any], "/openapi.json")
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
        return self.get_as(ClusterHealth, "/health")

    @property
    def credentials(self) -> dict[str, RegistryCredentials]:
        """Registry credentials by name."""
        return {one.name: one._bind(self) for one in self.get_all(RegistryCredentials, "/credentials")}

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
        return {one.name: one._bind(self) for one in self.get_all(VariableGroup, "/vars")}

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
        listing = Listing(self)
        return {one.name: one._list_in(listing) for one in self.get_all(Bot, "/bots")}

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


class PlatformClient(ApiClient):
    """Client of the platform, constructed as an ``httpx.Client`` with the session's cookie."""

    @property
    def workspaces(self) -> dict[str, Workspace]:
        """The user's workspaces by slug."""
        return {one.slug: one._bind(self) for one in self.get_all(Workspace, "/workspaces")}

    def create_workspace(self, workspace_slug: str | None = None, workspace_name: str | None = None) -> Workspace:
        """Make a workspace."""
        found = self.create(
            Workspace,
            "/workspaces",
            lambda: find_named(self.workspaces.values(), workspace_slug, workspace_name),
            data=given(slug=workspace_slug, name=workspace_name),
        )
        return found._bind(self)

    def get_cluster_client(self, workspace_name: str, cluster_name: str) -> ClusterClient:
        """Give a client for a cluster, by the slugs of its workspace and its own.

        Raises:
            ProfileError: there is no such workspace or cluster.
        """
        return self.workspace(workspace_name).get_cluster_client(cluster_name)

    def workspace(self, slug: str) -> Workspace:
        """Give one of the user's workspaces, by slug.

        Raises:
            ProfileError: there is no such workspace.
        """
        workspaces = self.workspaces
        if slug not in workspaces:
            known = ", ".join(sorted(workspaces)) or "none"
            raise ProfileError(f"there is no workspace '{slug}'; there are: {known}")
        return workspaces[slug]

    def cluster_client(self, workspace_slug: str, cluster_slug: str) -> ClusterClient:
        """Give a client for a cluster whose slugs are known, without asking the platform."""
        return ClusterClient(
            base_url=f"{str(self.base_url).rstrip('/')}/c/{workspace_slug}/{cluster_slug}",
            cookies=self.cookies,
            timeout=self.timeout,
            retries=self.retries,
            hint=self.hint,
        )

    def get_stream_manager(self, chain_id: int) -> ChecksumAddress:
        """Give the address that the platform names as its StreamManager on a chain."""
        return self.get_as(_Address, f"/streams/manager/{chain_id}").root

    def get_accepted_tokens(self, chain_id: int) -> dict[str, ChecksumAddress]:
        """Give the tokens that are accepted for payment on a chain: symbol → address."""
        tokens = self.get_all(_Token, f"/streams/tokens/{chain_id}")
        return {token.symbol: token.address for token in tokens}


class _Address(RootModel[Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]]):
    pass


class _Token(BaseModel):
    symbol: str
    address: Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]


_warned: set[str] = set()


def connect(
    choice: Choice, warn: Callable[[str], None] = logger.warning, patience: float | None = None
) -> ClusterClient:
    """Give the client for a profile of one cluster that was chosen.

    Args:
        choice: the profile.
        warn: takes a warning about the profile; it comes once in a process.
        patience: seconds that the cluster gets, with one attempt only; None for the usual time and attempts.

    Raises:
        ProfileError: the profile's host is no address.
    """
    profile = choice.profile
    assert isinstance(profile, ClusterProfile)  # noqa: S101 - the caller looks
    hint = f"check `api-key` of profile '{choice.name}'"
    if choice.name == "environment":
        hint = "check SILVERBACK_CLUSTER_API_KEY"
    _warn_once(choice, warn)
    headers = {"X-API-Key": profile.api_key}
    return ClusterClient(base_url=profile.host, headers=headers, hint=hint, **_impatient(patience))


def connect_platform(
    choice: Choice, warn: Callable[[str], None] = logger.warning, patience: float | None = None
) -> PlatformClient:
    """Give the client for a profile of the platform that was chosen.

    Args:
        choice: the profile.
        warn: as for ``connect``.
        patience: as for ``connect``.

    Raises:
        ProfileError: as for ``connect``.
        Unauthorized: nobody is logged in to the platform.
    """
    from ape_silverback.cluster.auth.login import LOG_IN, read_access_token

    profile = choice.profile
    assert isinstance(profile, PlatformProfile)  # noqa: S101 - the caller looks
    _warn_once(choice, warn)
    session = {"session": read_access_token(profile.auth)}
    return PlatformClient(base_url=profile.host, cookies=session, hint=f"{LOG_IN} again", **_impatient(patience))


def _warn_once(choice: Choice, warn: Callable[[str], None]) -> None:
    if (danger := danger_of(choice)) and danger not in _warned:
        _warned.add(danger)
        warn(danger)


def _impatient(patience: float | None) -> dict[str, Any]:
    if patience is None:
        return {}
    return {"timeout": patience, "retries": Retries(attempts=1, deadline=patience)}
