"""The client of one cluster, and what it returns: bots, variable groups and registry credentials.

Methods and properties have the names of the public SDK's module ``silverback.cluster.client``, so that code written for
it works here. A property of a client asks the cluster each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from ape.logging import LogLevel
from pydantic import Field, PrivateAttr, ValidationError

from ape_silverback.cluster.base_client import SLOW_TIMEOUT, ApiClient
from ape_silverback.cluster.http_errors import mapped_errors, read_answer
from ape_silverback.cluster.log_stream import LogLine, read_entry, read_lines, read_log_lines, resumed
from ape_silverback.cluster.resource import Resource, by_name
from ape_silverback.cluster.types import (
    BotInfo,
    BotLogEntry,
    BotTaskResult,
    ClusterConfiguration,
    ClusterHealth,
    HealthPolicy,
    KeyInfo,
    KeyRole,
    NewKeyInfo,
    NodeInfo,
    RegistryCredentialsInfo,
    RemovedBotInfo,
    ResourceStatus,
    RestartPolicy,
    ServiceHealth,
    VariableGroupInfo,
    WireModel,
)
from ape_silverback.exceptions import NotOffered, UnexpectedAnswer, ValidationFailed

MOST_METRICS = 48 << 20
"""Most bytes of what a bot recorded: half more than the cluster that ships with this package keeps."""

NO_CHANGE: Final = "<no-change>"
"""The value that keeps ``account`` and ``credential_name`` of a bot; null clears them."""


class _OfCluster(Resource):
    @property
    def cluster(self) -> ClusterClient:
        """The client that made this object."""
        client: ClusterClient = self._bound_client()
        return client


class RegistryCredentials(RegistryCredentialsInfo, _OfCluster):
    """Credentials of a cluster for a container registry."""

    def update(
        self,
        hostname: str | None = None,
        email: str | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> RegistryCredentials:
        """Change what is given (None keeps a value) and return the credentials as they are then."""
        changes = {"hostname": hostname, "email": email, "username": username, "password": password}
        response = self.cluster.call(
            "PATCH", f"/credentials/{quote(self.name, safe='')}", json=changes, idempotent=True
        )
        return read_answer(RegistryCredentials, response)._bind(self.cluster)

    def remove(self) -> None:
        """Remove them.

        Raises:
            ClientError: a bot uses them.
        """
        self.cluster.delete_resource(f"/credentials/{quote(self.name, safe='')}")


class VariableGroup(VariableGroupInfo, _OfCluster):
    """A group of environment variables of a cluster."""

    def update(self, **variables: str | None) -> VariableGroup:
        """Set variables, remove those that are None, and return the group's new revision.

        Raises:
            ValidationFailed: a value isn't text.
        """
        _check_text(f"variable group '{self.name}'", variables)
        response = self.cluster.call("PATCH", f"/vars/{self.id}", json={"variables": variables}, idempotent=True)
        return read_answer(VariableGroup, response)._bind(self.cluster)

    def remove(self) -> None:
        """Remove it.

        Raises:
            ClientError: a bot uses a revision of it.
        """
        self.cluster.delete_resource(f"/vars/{self.id}")


class Listing:
    """What the bots of one answer share: groups and credentials, read once and only if one is needed."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client

    @cached_property
    def groups(self) -> dict[str, VariableGroup]:
        """Variable groups by name."""
        return self._client.variable_groups

    @cached_property
    def credentials(self) -> dict[str, RegistryCredentials]:
        """Registry credentials by id and by name: a cluster returns the id where it takes the name."""
        found = self._client.credentials.values()
        return {one.name: one for one in found} | {one.id: one for one in found}


class Bot(BotInfo, _OfCluster):
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
        """Its variable groups, read once for all bots of one listing."""
        groups = self._others.groups
        return [groups[name] for name in self.environment if name in groups]

    @property
    def credential(self) -> RegistryCredentials | None:
        """Its registry credentials, read once for all bots of one listing."""
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
        restart: RestartPolicy | Literal["<no-change>"] | None = NO_CHANGE,
        healthy: HealthPolicy | Literal["<no-change>"] | None = NO_CHANGE,
        heartbeat: str | None = NO_CHANGE,
    ) -> Bot:
        """Change what is given; None keeps a value, but clears ``account``, ``credential_name`` and the last three.

        A running bot keeps its old configuration until it is stopped and started. The last three hold at once; they are
        for clusters that announce ``restart-policy``, ``health-details`` and ``heartbeat``.
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
            **_policies(restart=restart, healthy=healthy, heartbeat=heartbeat),
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
        """Start it. A running bot goes on as it is."""
        self.cluster.call("POST", f"/bots/{self.id}/start", idempotent=True, timeout=SLOW_TIMEOUT)

    def stop(self) -> None:
        """Begin to stop it; it has stopped when its status is STOPPED."""
        self.cluster.call("POST", f"/bots/{self.id}/stop", idempotent=True, timeout=SLOW_TIMEOUT)

    def move(self, node: str, *, fenced: bool = False) -> None:
        """Bind it to another machine, and start it there if it should run.

        Args:
            node: name or id of the machine.
            fenced: whether you know that its former machine is off, or cut off from everything. Needed where that one
                doesn't answer: a bot that signs must not run twice.

        Raises:
            NotOffered: the cluster doesn't announce ``nodes``.
            Conflict: it runs, or may run out of sight, or the machine can't take it.
        """
        self.cluster.check_offers("nodes", "several machines")
        self.cluster.call("POST", f"/bots/{self.id}/move", json={"node": node, "fenced": fenced}, timeout=SLOW_TIMEOUT)

    def remove(self) -> None:
        """Remove it; a running one is shut down first."""
        self.cluster.delete_resource(f"/bots/{self.id}", timeout=SLOW_TIMEOUT)

    @property
    def errors(self) -> list[str]:
        """Its errors, as the cluster reports them."""
        return self.cluster.get_as(list[str], f"/bots/{self.id}/errors")

    def get_metrics(
        self, *names: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[BotTaskResult]:
        """Read what it recorded of its tasks as a stream, the oldest first.

        Args:
            names: metrics to read; every task when there are none, else only tasks that recorded one of them.
            since: earliest end of a task.
            until: latest end of a task.

        Raises:
            NotOffered: the cluster doesn't announce ``metrics``, as the hosted one.
            ClusterError: a request failed.
        """
        return self.cluster._metrics(self, names, since, until)

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
        lines = self.cluster._log_lines(f"/bots/{self.id}", log_level, start_time, end_time, follow)
        for some in lines:
            yield from map(read_entry, some)

    def read_log(
        self,
        level: LogLevel = LogLevel.INFO,
        since: datetime | None = None,
        until: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[list[LogLine]]:
        """Read its log as ``get_logs`` does, at less cost: lines come together as they arrive.

        Args:
            level: lowest level.
            since: time from which on.
            until: time up to which.
            follow: stay for new lines, over broken connections, until the bot is removed.

        Raises:
            ClusterError: the log can't be read.
        """
        return map(read_log_lines, self.cluster._log_lines(f"/bots/{self.id}", level, since, until, follow))


class RemovedBot(RemovedBotInfo, _OfCluster):
    """A bot that was removed from a cluster, which keeps its log for a while."""

    def read_log(
        self, level: LogLevel = LogLevel.INFO, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[list[LogLine]]:
        """Read its log as ``Bot.read_log`` does.

        Args:
            level: lowest level.
            since: time from which on.
            until: time up to which.

        Raises:
            ClusterError: the log can't be read, or is no longer kept.
        """
        return map(read_log_lines, self.cluster._log_lines(f"/removed-bots/{self.id}", level, since, until, stay=False))


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
        """The configuration that is paid for; None for a cluster that hosts itself, or one that can't be read."""
        raw = self._info.get("x-config")
        try:
            return None if raw is None else ClusterConfiguration.model_validate(raw)
        except ValidationError:  # a cluster may be newer than this package
            return None

    @property
    def runtime(self) -> str | None:
        """What a local cluster runs its bots with, such as ``process``; None for all other clusters."""
        runtime = self._info.get("x-runtime")
        return runtime if isinstance(runtime, str) else None

    @property
    def cluster_id(self) -> UUID | None:
        """The cluster's id, the same at every address; None for a cluster that doesn't announce one."""
        try:
            return UUID(str(self._info.get("x-cluster-id")))
        except ValueError:
            return None

    @property
    def extensions(self) -> frozenset[str]:
        """What the cluster offers beyond the API that every cluster has, by name."""
        names = self._info.get("x-extensions")
        return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()

    def new_id(self) -> UUID | None:
        """Return an id for something new; None where the cluster chooses ids itself."""
        return uuid4() if "chosen-ids" in self.extensions else None

    def check_offers(self, extension: str, what: str) -> None:
        """Raise if the cluster doesn't announce an extension.

        Raises:
            NotOffered: it doesn't.
        """
        if extension not in self.extensions:
            raise NotOffered(f"this cluster doesn't offer {what}; the cluster that ships with this package does")

    @property
    def nodes(self) -> list[NodeInfo]:
        """The machines of the cluster; none for a cluster that has one.

        Raises:
            NotOffered: the cluster doesn't announce ``nodes``.
        """
        self.check_offers("nodes", "several machines")
        return self.get_as(list[NodeInfo], "/nodes")

    @property
    def keys(self) -> list[KeyInfo]:
        """The named API keys of the cluster, without what opens it.

        Raises:
            NotOffered: the cluster doesn't announce ``keys``.
        """
        self.check_offers("keys", "named keys")
        return self.get_as(list[KeyInfo], "/keys")

    def new_key(self, name: str, role: KeyRole = "read") -> NewKeyInfo:
        """Make an API key, which is in this answer only.

        Raises:
            NotOffered: the cluster doesn't announce ``keys``.
            Conflict: there is one of this name.
        """
        self.check_offers("keys", "named keys")
        content = {"name": name, "role": role}
        return read_answer(NewKeyInfo, self.call("POST", "/keys", idempotent=False, json=content))

    def revoke_key(self, key: KeyInfo) -> None:
        """Revoke the key."""
        self.call("DELETE", f"/keys/{key.id}")

    def dashboard_link(self) -> str:
        """Return an address that opens the cluster's dashboard in a browser, logged in; it works once, for a minute.

        Raises:
            NotOffered: the cluster doesn't announce ``dashboard``.
            ClusterError: a request failed.
        """
        if "dashboard" not in self.extensions:
            raise NotOffered("this cluster has no dashboard; a cluster of `ape silverback cluster up` has")
        link = self.get_as(_Link, "/ui/links")
        return f"{str(self.base_url).rstrip('/')}{link.path}"

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
        """Registry credentials by name; of two of one name, the second is under ``NAME (ID)``."""
        return by_name(one._bind(self) for one in self.get_all(RegistryCredentials, "/credentials"))

    def new_credentials(
        self, name: str, hostname: str, email: str, username: str, password: str
    ) -> RegistryCredentials:
        """Create registry credentials.

        Raises:
            Conflict: there are some of this name.
        """
        content = {"name": name, "hostname": hostname, "email": email, "username": username, "password": password}
        found = self.create(
            RegistryCredentials,
            "/credentials",
            f"registry credential '{name}'",
            lambda: self.credentials.get(name),
            {"hostname": hostname},
            json=content,
        )
        return found._bind(self)

    @property
    def variable_groups(self) -> dict[str, VariableGroup]:
        """Variable groups by name; of two of one name, the second is under ``NAME (ID)``."""
        return by_name(one._bind(self) for one in self.get_all(VariableGroup, "/vars"))

    def new_variable_group(self, name: str, variables: dict[str, str], identity: UUID | None = None) -> VariableGroup:
        """Create a variable group.

        Args:
            name: its name.
            variables: its variables and their values.
            identity: as for ``new_bot``.

        Raises:
            Conflict: there is one of this name.
        """
        group = f"variable group '{name}'"
        _check_text(group, variables)
        if identity is not None:
            params = {"name": name, "id": str(identity)}
            response = self.call("POST", "/vars", params=params, json=variables, idempotent=True)
            return read_answer(VariableGroup, response)._bind(self)
        found = self.create(
            VariableGroup,
            "/vars",
            group,
            lambda: self.variable_groups.get(name),
            {"variables": frozenset(variables)},
            params={"name": name},
            json=variables,
        )
        return found._bind(self)

    @property
    def bots(self) -> dict[str, Bot]:
        """Bots by name; of two of one name, the second is under ``NAME (ID)``."""
        return by_name(self.list_bots())

    def list_bots(self) -> list[Bot]:
        """Return all bots, in the cluster's order."""
        listing = Listing(self)
        return [bot._list_in(listing) for bot in self.get_all(Bot, "/bots")]

    @property
    def removed_bots(self) -> dict[str, RemovedBot]:
        """Removed bots whose log is kept, by name: of those of one name the last, the others under ``NAME (ID)``.

        Raises:
            NotOffered: the cluster doesn't announce ``removed-logs``.
        """
        self.check_offers("removed-logs", "logs of removed bots")
        removed = self.get_all(RemovedBot, "/removed-bots")
        return by_name(bot._bind(self) for bot in sorted(removed, key=lambda bot: bot.removed, reverse=True))

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
        restart: RestartPolicy | None = None,
        healthy: HealthPolicy | None = None,
        heartbeat: str | None = None,
        identity: UUID | None = None,
        *,
        look_first: bool = True,
    ) -> Bot:
        """Create a bot, which starts right away.

        Args:
            name: its name.
            image: and the other fields: see ``BotInfo``.
            ecosystem: of its network.
            network: its network.
            provider: of its network.
            account: alias of the account that it signs with.
            environment: names of its variable groups.
            credential_name: registry credentials for its image.
            cluster_access: whether it gets the cluster's address and key.
            restart: for clusters that announce ``restart-policy``.
            healthy: for clusters that announce ``health-details``.
            heartbeat: for clusters that announce ``heartbeat``.
            identity: its id, for clusters that announce ``chosen-ids`` (see ``new_id``): a request that is sent again
                creates no second bot, and another bot of the same name is never taken for it. None lets the cluster
                choose.
            look_first: whether the cluster's bots are listed first, where no id is chosen: a bot that is there already
                is never taken for the new one, should the answer be lost. False for callers that have just listed them.

        Raises:
            Conflict: there is one of this name.
            ValidationFailed: the cluster refuses a value.
        """
        policies = {"restart": restart, "healthy": healthy, "heartbeat": heartbeat}
        content: dict[str, Any] = {
            "name": name,
            "image": image,
            "ecosystem": ecosystem,
            "network": network,
            "provider": provider,
            "account": account,
            "environment": environment or [],
            "credential_name": credential_name,
            "cluster_access": cluster_access,
            **_given_policies(**policies),
        }
        if identity is not None:
            content["id"] = str(identity)
            response = self.call("POST", "/bots", json=content, idempotent=True, timeout=SLOW_TIMEOUT)
            return read_answer(Bot, response)._bind(self)
        # A cluster returns a credential's id where it takes the name, so only whether there is one can be compared.
        wanted = {key: value for key, value in content.items() if key != "credential_name" or value is None}
        wanted |= {field: policy for field, policy in policies.items() if policy is not None}
        found = self.create(
            Bot,
            "/bots",
            f"bot '{name}'",
            lambda: self.bots.get(name),
            wanted,
            look_first=look_first,
            json=content,
            timeout=SLOW_TIMEOUT,
        )
        return found._bind(self)

    def _log_lines(
        self, path: str, log_level: LogLevel, start_time: datetime | None, end_time: datetime | None, stay: bool
    ) -> Iterator[list[str]]:
        @contextmanager
        def connect(since: datetime | None) -> Iterator[httpx.Response]:
            query: dict[str, Any] = {"log_level": log_level.name, "follow": stay}
            query |= {"start_time": since.isoformat()} if since else {}
            query |= {"end_time": end_time.isoformat()} if end_time else {}
            # A followed log may be silent for any time.
            timeout = httpx.Timeout(5.0, read=None) if stay else SLOW_TIMEOUT
            request = self.build_request("GET", f"{path}/logs", params=query, timeout=timeout)
            response = self.send(request, stream=True)
            try:
                self.check(response)
                with mapped_errors(request):
                    yield response
            finally:
                response.close()

        return resumed(connect, start_time, self.retries.delays, self.retries.sleep)

    def _metrics(
        self, bot: Bot, names: Sequence[str], since: datetime | None, until: datetime | None
    ) -> Iterator[BotTaskResult]:
        self.check_offers("metrics", "metrics of bots")
        query: dict[str, Any] = {"name": list(names)} if names else {}
        query |= {"since": since.isoformat()} if since else {}
        query |= {"until": until.isoformat()} if until else {}
        request = self.build_request("GET", f"/bots/{bot.id}/metrics", params=query, timeout=SLOW_TIMEOUT)
        request.extensions["max_bytes"] = MOST_METRICS
        response = self.send(request, stream=True)
        try:
            self.check(response)
            with mapped_errors(request):
                for line in chain.from_iterable(read_lines(response)):
                    yield BotTaskResult.model_validate_json(line)
        except ValidationError:
            raise UnexpectedAnswer(f"{self!r} answered a metric that isn't one") from None
        finally:
            response.close()


def _check_text(group: str, variables: Mapping[str, str | None]) -> None:
    """Refuse values that no JSON can carry, which come from an environment that isn't UTF-8.

    Raises:
        ValidationFailed: names the variable.
    """
    for name, value in variables.items():
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            text = "isn't text: it has bytes that aren't UTF-8"
            shown = name.encode(errors="replace").decode()
            raise ValidationFailed(f"{group}: variable {shown} {text}", fields={shown: text}) from None


class _Link(WireModel):
    """A one-time link to the dashboard; its path is below the cluster's address."""

    path: str = Field(pattern=r"^/ui/link/[A-Za-z0-9_-]+$")


def _given_policies(**given: RestartPolicy | HealthPolicy | str | None) -> dict[str, Any]:
    """Return what is set of a new bot's policies, as a request has it: not every cluster knows them."""
    return {
        name: policy if isinstance(policy, str) else policy.model_dump()
        for name, policy in given.items()
        if policy is not None
    }


def _policies(**given: RestartPolicy | HealthPolicy | str | None) -> dict[str, Any]:
    """Return the policies of a change as a request has them; None lets those of the cluster hold again."""
    changed = {name: policy for name, policy in given.items() if policy != NO_CHANGE}
    return dict.fromkeys(changed, "<default>") | _given_policies(**changed)
