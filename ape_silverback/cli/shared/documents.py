"""What commands print with ``--format json`` and ``yaml`` where that isn't a model of another room, dumped as it is.

The documentation is made from these models: the text below a key documents it. A key keeps its meaning; new keys may be
added. Times are ISO 8601 in UTC; an unknown value is null.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ape_silverback.cluster.types import (
    BotHealth,
    ClusterConfiguration,
    HealthPolicy,
    RegistryCredentialsInfo,
    ResourceStatus,
    RestartPolicy,
    RestartStatus,
    VariableGroupInfo,
)

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, RegistryCredentials, VariableGroup, Workspace
    from ape_silverback.cluster.log_stream import LogLine
    from ape_silverback.cluster.types import ClusterInfo
    from ape_silverback.server.platform.payments import Payments


class Document(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(defer_build=True)  # a command uses one or two of them

    def data(self) -> dict[str, Any]:
        """Return it as plain values."""
        return self.model_dump(mode="json")


class BotDocument(Document):
    """A bot: `bots list`, `bots info`, `bots new`, `bots update`, `status`."""

    name: str
    id: str
    state: str
    """`created`, `provisioning`, `startup`, `running`, `shutdown`, `stopped`, `deprovisioning` or `removed`."""
    image: str
    ecosystem: str
    network: str
    provider: str
    account: str | None
    """Alias of the account that it signs with."""
    environment: list[str]
    """Names of its variable groups; of two that set one variable the later wins."""
    credential: str | None
    """Registry credential, by name where the cluster's credentials were read, else as the cluster returns it."""
    cluster_access: bool
    created: datetime
    started: datetime | None = None
    """Begin of its latest run, from clusters that tell."""
    stopped: datetime | None = None
    """End of its latest run, from clusters that tell."""
    exit_code: int | None = None
    reason: str | None = None
    """Why it stopped, or what its start waits for, such as its image; from clusters that tell."""
    health: BotHealth | None = None
    """Whether it does its work, from clusters that announce `health-details`."""
    restarts: RestartStatus | None = None
    """How often its cluster started it again, from clusters that announce `restarts`."""
    restart: RestartPolicy | None = None
    """When it is started again; null for the cluster's own policy."""
    healthy: HealthPolicy | None = None
    """What is expected of it; null for what the cluster expects."""
    heartbeat: str | None = None
    """Variable with the address that is requested while it is healthy."""

    @classmethod
    def of(cls, bot: Bot, state: ResourceStatus, credential: str | None = None) -> BotDocument:
        """Describe a bot."""
        task = bot.task
        return cls(
            name=bot.name,
            id=str(bot.id),
            state=str(state).lower(),
            image=bot.image,
            ecosystem=bot.ecosystem,
            network=bot.network,
            provider=bot.provider,
            account=bot.account,
            environment=bot.environment,
            credential=credential or bot.credential_name,
            cluster_access=bot.cluster_access,
            created=bot.created,
            started=task.started_at if task else None,
            stopped=task.stopped_at if task else None,
            exit_code=task.exit_code if task else None,
            reason=(task.reason if state is ResourceStatus.STARTUP else task.stopped_reason) if task else None,
            health=bot.health,
            restarts=bot.restarts,
            restart=bot.restart,
            healthy=bot.healthy,
            heartbeat=bot.heartbeat,
        )


class GroupDocument(VariableGroupInfo, Document):
    """A variable group: `vars list`, `vars info`, `vars new`, `vars update`."""

    used_by: list[str] | None = None
    """Names of the bots that use it; only in `vars info`."""

    @classmethod
    def of(cls, group: VariableGroup, used_by: list[str] | None = None) -> GroupDocument:
        """Describe a variable group."""
        return cls(**group.model_dump(), used_by=used_by)


class CredentialDocument(RegistryCredentialsInfo, Document):
    """A registry credential: `registry list`, `registry info`, `registry new`, `registry update`."""

    used_by: list[str] | None = None
    """Names of the bots that use it; only in `registry info`."""

    @classmethod
    def of(cls, credential: RegistryCredentials, used_by: list[str] | None = None) -> CredentialDocument:
        """Describe a registry credential."""
        return cls(**credential.model_dump(), used_by=used_by)


class WorkspaceDocument(Document):
    """A workspace: `workspaces list`, `workspaces info`, `workspaces new`, `workspaces update`."""

    name: str
    slug: str
    id: str
    owner: str | None = None
    """Name of its owner; `workspaces list` doesn't ask for it."""
    created: datetime

    @classmethod
    def of(cls, workspace: Workspace, owner: str | None = None) -> WorkspaceDocument:
        """Describe a workspace."""
        return cls(
            name=workspace.name, slug=workspace.slug, id=str(workspace.id), owner=owner, created=workspace.created
        )


class ClusterDocument(Document):
    """The platform's record of a cluster: `list`, `new`, `update`, `info`. Its id is a secret of the workspace."""

    workspace: str
    """Slug of its workspace."""
    name: str
    slug: str
    status: str
    """As the state of a bot; `created` means that it isn't paid for."""
    version: str | None
    configuration: ClusterConfiguration | None
    created: datetime
    last_updated: datetime
    expiration: datetime | None
    """End of what is paid for."""
    stream: str | None = None
    """Its payment stream as `eip155:CHAIN:MANAGER/ID`; only `info` reads it. Not verified."""

    @classmethod
    def of(cls, workspace: str, cluster: ClusterInfo, stream: str | None = None) -> ClusterDocument:
        """Describe a cluster of the platform."""
        return cls(
            workspace=workspace,
            name=cluster.name,
            slug=cluster.slug,
            status=str(cluster.status).lower(),
            version=cluster.version,
            configuration=cluster.configuration,
            created=cluster.created,
            last_updated=cluster.last_updated,
            expiration=cluster.expiration,
            stream=stream,
        )


class DirectClusterDocument(Document):
    """A cluster that is reached directly: `info`."""

    profile: str
    host: str
    version: str
    configuration: ClusterConfiguration | None
    """What is paid for; null for a cluster that hosts itself."""
    runtime: str | None
    """What a local cluster runs its bots with; null for all others."""


class HealthDocument(Document):
    """Health of a cluster: `health`."""

    healthy: bool
    """Whether all of it is."""
    networks: dict[str, bool]
    """`ecosystem:network` → whether it is healthy."""
    bots: dict[str, bool]
    """Name → whether it is healthy."""


class BotHealthDocument(BotHealth, Document):
    """Health of a bot: `bots health`, and without the name as `health` of a bot.

    All but `healthy` comes from clusters that announce `health-details`; others give the reason of a stopped bot.
    """

    name: str

    @classmethod
    def of(cls, name: str, bot: Bot, healthy: bool) -> BotHealthDocument:
        """Describe the health of a bot.

        Args:
            name: that it was chosen by.
            bot: as it was listed.
            healthy: whether the cluster's health has it as healthy.
        """
        known = bot.health or BotHealth(healthy=healthy)
        reason = None
        if not healthy:
            reason = known.reason or (bot.task.stopped_reason if bot.task else None)
        return cls(**{**known.model_dump(), "name": name, "healthy": healthy, "reason": reason})


class LogDocument(Document):
    """A line of a log: `bots logs`, a document a line."""

    bot: str
    timestamp: datetime | None
    level: str | None
    """`DEBUG`, `INFO`, `SUCCESS`, `WARNING`, `ERROR`, or null for a line without one."""
    message: str

    @classmethod
    def of(cls, bot: str, entry: LogLine) -> LogDocument:
        """Describe a line of a bot's log."""
        level = entry.level.name if entry.level is not None else None
        return cls(bot=bot, timestamp=entry.time, level=level, message=entry.message)


class ResultDocument(Document):
    """What became of one thing: `start`, `stop` and `remove` of bots, `remove` of others."""

    name: str
    result: Literal["started", "stopped", "removed", "moved", "failed"]
    error: str | None = None
    """Why it failed."""


class StatusDocument(Document):
    """A cluster on one page: `status`."""

    cluster: str
    version: str
    healthy: bool
    networks: dict[str, bool]
    bots: list[BotDocument]
    errors: dict[str, list[str]] = Field(default_factory=dict)
    """Name of a bot → its recent errors, for bots that have some."""
    expiration: datetime | None = None
    """End of what is paid for, of a cluster of the platform."""


class EventDocument(Document):
    """Something that happens in a deployment: `deploy` and `rollback`, a document a line."""

    version: Literal[1] = 1
    """Version of these lines."""
    event: str
    """`plan` first; then `built`, `applied`, `state`, `ready`, `failed`, `skipped` or `rolled-back` for a bot or a
    variable group; `done` last."""
    name: str | None = None
    """The bot or the group."""
    text: str | None = None
    """What happened, in words."""
    state: str | None = None
    """The bot's state, where it was looked at."""
    errors: list[str] = Field(default_factory=list)
    """Of a bot that failed, its errors as the cluster returns them."""
    log: list[str] = Field(default_factory=list)
    """Of a bot that failed, its last log lines."""
    plan: dict[str, Any] | None = None
    """The plan, as `plan --format json` prints it."""


class StreamDocument(Document):
    """The payment stream of a cluster: `pay info`, `pay create`, `pay add-time`, `pay cancel`."""

    cluster: str
    chain_id: int
    """Chain that it is on (EIP-155)."""
    manager: str
    """Address of its StreamManager."""
    stream_id: int
    """Its number there."""
    owner: str
    """Address of who may cancel it and gets the rest."""
    token: str
    """Symbol of the token that it is paid in."""
    token_address: str
    """Address of that."""
    rest: str
    """What isn't spent yet, with the token's symbol."""
    per_day: str
    """What it costs a day, with the token's symbol."""
    seconds_left: int
    """Seconds for which is paid, at the time of the chain."""
    expires: datetime | None
    """When it runs out."""
    cancelable: bool
    """Whether its owner may cancel it now."""
    products: list[str]
    """What it pays for, as hexadecimal text of 32 bytes each."""
    configuration: ClusterConfiguration | None
    """What the first of them that is a cluster's decodes to."""
    transaction: str | None = None
    """Hash of the payment or the cancellation; null for `pay info`."""
    refund: str | None = None
    """What the cancellation gave back."""
    verification: dict[str, Any] | None = None
    """Whether it can be trusted; only `pay info` sets it here."""


class LocalPlatformDocument(Document):
    """The platform that a local cluster has as well: part of `up`."""

    profile: str
    """Profile that leads to it."""
    chain_id: int
    """Chain on which its clusters are paid for."""
    stream_manager: str
    """Address of the contract that takes the payments."""
    tokens: dict[str, str]
    """Symbol → address of what is accepted."""

    @classmethod
    def of(cls, profile: str, payments: Payments) -> LocalPlatformDocument:
        """Describe it."""
        return cls(
            profile=profile,
            chain_id=payments.chain_id,
            stream_manager=payments.manager,
            tokens=dict(payments.tokens),
        )


class LocalClusterDocument(Document):
    """The local cluster of this machine: `up`."""

    host: str
    profile: str
    """Profile that leads to it."""
    pid: int
    """Process of its server."""
    version: str
    started: datetime
    """When the server was started."""
    already: bool
    """Whether it ran before."""
    platform: LocalPlatformDocument | None = None
    """The platform that it has as well, from `up --chain` on."""


class UserDocument(Document):
    """Who is logged in to the platform: `whoami`."""

    user: str
    """Name or mail address."""
    auth: str
    """Name of the login in the profile file."""
    host: str
    """Who the login is with."""
    expires: datetime | None
    """End of what the login's token is good for."""
    renewable: bool
    """Whether it is renewed then."""


DOCUMENTS: tuple[type[Document], ...] = (
    BotDocument,
    GroupDocument,
    CredentialDocument,
    WorkspaceDocument,
    ClusterDocument,
    DirectClusterDocument,
    HealthDocument,
    BotHealthDocument,
    LogDocument,
    ResultDocument,
    StatusDocument,
    EventDocument,
    StreamDocument,
    LocalClusterDocument,
    LocalPlatformDocument,
    UserDocument,
)
"""The models of this file; other commands dump models of other rooms as they are."""
