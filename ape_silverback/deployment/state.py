"""What a plan compares with the project: what the cluster has, what is recorded of earlier deployments, what is here.

Values only: ``observed`` and ``history`` read them, ``planner`` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus

ACTIVE = frozenset(
    {ResourceStatus.CREATED, ResourceStatus.PROVISIONING, ResourceStatus.STARTUP, ResourceStatus.RUNNING}
)
"""States of a bot that runs or is on its way to it. One that was just created gets there by itself."""


class Frozen(BaseModel):
    """Base of what is written down: unknown keys are errors, values don't change."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


# The cluster


@dataclass(frozen=True)
class LiveBot:
    """A bot as it is on the cluster.

    Attributes:
        status: None for a bot whose status wasn't asked for.
        configuration: as it is deployed, with the name of a registry credential.
        started_at: when its task started; None where the cluster doesn't report it.
    """

    id: UUID
    name: str
    status: ResourceStatus | None
    configuration: BotConfiguration
    started_at: datetime | None = None
    created: datetime | None = None

    @property
    def runs(self) -> bool:
        """Whether it runs or is on its way to it."""
        return self.status in ACTIVE


@dataclass(frozen=True)
class LiveGroup:
    """A variable group as it is on the cluster; values are write-only, so only names are known."""

    id: UUID
    name: str
    variables: frozenset[str]
    created: datetime | None = None


@dataclass(frozen=True)
class LiveState:
    """What a cluster has.

    Attributes:
        cluster: label of the cluster in messages.
        identity: identifies the cluster, on every run and under every profile.
        bots: all of them, by name.
        credentials: names of the registry credentials; none where no bot uses one.
        limit: most bots that are paid for; None when the cluster doesn't report it.
        extensions: what it offers beyond the API that every cluster has.
        network_limit: likewise for the networks that they use.
        claims: id of a bot or a variable group → project that has it in its record → number of the claim, where the
            cluster keeps the records of all projects. The project that took it over last has the highest one.
    """

    cluster: str
    bots: Mapping[str, LiveBot] = field(default_factory=dict)
    groups: Mapping[str, LiveGroup] = field(default_factory=dict)
    credentials: frozenset[str] = frozenset()
    limit: int | None = None
    network_limit: int | None = None
    identity: str = ""
    extensions: frozenset[str] = frozenset()
    claims: Mapping[UUID, Mapping[str, int]] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> Mapping[UUID, LiveBot]:
        """The bots by id."""
        return {bot.id: bot for bot in self.bots.values()}

    def users(self, group: str) -> list[LiveBot]:
        """Return the bots that use a variable group, by name."""
        return [bot for _, bot in sorted(self.bots.items()) if group in bot.configuration.environment]


# The record


class RecordedBot(Frozen):
    """A bot as the last deployment left it, or should have."""

    name: str
    """Its name on the cluster."""

    id: UUID | None = None
    """Its id; None for one that isn't on the cluster, or not known there, and in records of versions before 0.8.1."""

    creating: bool = False
    """Whether it was to be created, and isn't known to be there. An id was chosen for it then."""

    begun: datetime | None = None
    """When its creation was begun, by the cluster's clock, if no answer to it is known."""

    target: str | None = None
    """Target of the section that it belongs to."""

    configuration: BotConfiguration

    previous: BotConfiguration | None = None
    """What it had before, while it isn't known whether the change was made."""

    protect: bool = False
    """Whether a deployment may not remove it."""

    share_account: bool = False
    """Whether it may sign with an account that another bot uses on the same network."""

    family: str | None = None
    """Bot of the section that it is one of, for a bot that the section has on several networks."""

    code: str | None = None
    """Digest of the project's files that it was started with, where the cluster runs the project's folder."""

    digest: str | None = None
    """Digest of the image that it was started with, where an engine or the reference has it."""

    claim: int = 0
    """Number of the claim with which this project took it over; 0 for one that it made. A later one is higher."""

    confirmed: bool = True
    """False for a bot of an older record, in which projects go by the folder's name: it is never removed."""

    @property
    def was_there(self) -> bool:
        """Whether the cluster had it."""
        return self.id is not None and not self.creating


class RecordedGroup(Frozen):
    """A variable group as the last deployment left it."""

    variables: tuple[str, ...] = ()

    id: UUID | None = None
    """Its id, on clusters that let their clients choose ids. On others the group is known by its name."""

    creating: bool = False
    """As for ``RecordedBot``."""

    begun: datetime | None = None
    """As for ``RecordedBot``."""

    targets: tuple[str | None, ...] = (None,)
    """Targets of the section that declare it."""

    fingerprints: dict[str, str] = Field(default_factory=dict)
    """Variable → keyed fingerprint of the value that was sent."""

    claim: int = 0
    """As for ``RecordedBot``."""

    confirmed: bool = True
    """As for ``RecordedBot``."""


class PendingRestart(Frozen):
    """A bot that runs with something older than what it has on the cluster."""

    reason: str

    started_at: datetime | None = None
    """When its task started, from the cluster; with another task it has been restarted."""


@dataclass(frozen=True)
class RecordedState:
    """What is recorded of earlier deployments of the project to the cluster, of all its targets.

    Attributes:
        last: number of the last deployment; 0 when nothing is known.
        pending_restarts: id of each bot that has to be restarted → why.
        origin: where this comes from, when it isn't the project's own record: a history of an earlier version.
    """

    bots: tuple[RecordedBot, ...] = ()
    groups: Mapping[str, RecordedGroup] = field(default_factory=dict)
    pending_restarts: Mapping[UUID, PendingRestart] = field(default_factory=dict)
    last: int = 0
    origin: str | None = None


NOTHING_RECORDED = RecordedState()


# This machine


@dataclass(frozen=True)
class Code:
    """The project's files that a bot runs with.

    Attributes:
        digest: of their names and contents.
        modified: when the newest of them was written.
    """

    digest: str
    modified: datetime


@dataclass(frozen=True)
class LocalState:
    """What this machine has of what a deployment needs.

    Attributes:
        values: name of each variable whose value is here → fingerprint of the value.
        empty: those whose value is empty.
        code: bot → the project's files that it runs with, for a cluster that runs the project's folder.
        digests: image → its digest, where an engine or the reference has it.
        private_keys: names of the variables whose value looks like a private key.
        keyfiles: alias of each account that Ape has here as a keyfile → its address.
        missing_plugins: bot whose image is built of the project → package of its account, if the image has it not.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()
    code: Mapping[str, Code] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    private_keys: frozenset[str] = frozenset()
    keyfiles: Mapping[str, str] = field(default_factory=dict)
    missing_plugins: Mapping[str, str] = field(default_factory=dict)


NOTHING_LOCAL = LocalState()
