"""The models of a plan: what has to happen on a cluster so that it has what the project wants.

A ``Plan`` is a value: frozen, serialisable, the same object that is shown, dumped, saved and applied. ``planner`` makes
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar, overload
from uuid import UUID

from pydantic import Field

from ape_silverback.cluster.types import POLICIES, BotConfiguration, HealthPolicy, RestartPolicy
from ape_silverback.deployment.state import Frozen, PendingRestart, RecordedBot, RecordedGroup

VERSION: Literal[2] = 2
"""Version of a written plan. A plan of another version isn't applied."""

Value = str | bool | tuple[str, ...] | RestartPolicy | HealthPolicy | None
"""A value of a field of a bot."""


Author = Literal["project", "cluster", "both", "unknown"]
"""Who changed something since the last deployment: the project, someone on the cluster, or both.

``unknown`` where nothing is recorded of it.
"""


@dataclass(frozen=True)
class PlanOptions:
    """What a plan may do.

    Attributes:
        prune: remove what earlier deployments of this project made for this target and the project no longer has.
        push_variables: send the values of variables that are there already, too.
        restart: restart bots that need it; else they are left as they run.
        force: restart bots that need nothing, too.
        adopt: take over bots and variable groups that this project didn't deploy, where they have one of its names.
        keep_drift: leave what was changed on the cluster and not in the project.
    """

    prune: bool = False
    push_variables: bool = False
    restart: bool = True
    force: bool = False
    adopt: bool = False
    keep_drift: bool = False


DEFAULT_PLAN_OPTIONS = PlanOptions()


class Change(Frozen):
    """One field of a bot that differs; ``name`` for a bot that is renamed."""

    field: str

    old: Value
    """What the cluster has."""

    new: Value
    """What the project wants."""

    by: Author = "unknown"
    """Who changed it since the last deployment."""

    recorded: Value = None
    """What the last deployment left; the same as ``old`` or ``new`` unless both changed it."""


class Drift(Frozen):
    """Something that was changed on the cluster since the last deployment."""

    name: str
    """Bot or variable group, as the record names it."""

    kind: Literal["changed", "removed", "stopped", "group-changed", "group-removed"]

    field: str | None = None
    """Field of the bot, or ``variables`` of a group."""

    recorded: Value = None
    live: Value = None


class Orphan(Frozen):
    """What this project deployed before for this target, and no longer has."""

    kind: Literal["bot", "group"]
    name: str
    confirmed: bool = True
    """False for one of a history of an earlier version, which ``--prune`` doesn't remove."""


class CreateGroup(Frozen):
    """Create a variable group. Values come from the environment when the plan is applied."""

    kind: Literal["create-group"] = "create-group"
    name: str
    id: UUID | None = None
    """Its id, chosen when the plan is carried out, on clusters that let their clients choose ids."""

    variables: tuple[str, ...]


class UpdateGroup(Frozen):
    """Change a variable group. The values of the variables that aren't named stay as they are."""

    kind: Literal["update-group"] = "update-group"
    id: UUID
    name: str
    add: tuple[str, ...] = ()
    """Variables that it doesn't have."""

    push: tuple[str, ...] = ()
    """Variables that it has, whose values are sent again."""

    remove: tuple[str, ...] = ()
    """Variables that are taken out of it."""

    drift: tuple[str, ...] = ()
    """Those of ``add`` and ``remove`` that were changed on the cluster."""

    adopts: bool = False
    """Whether it takes over a group that this project didn't deploy."""


class RemoveGroup(Frozen):
    """Remove a variable group that an earlier deployment made and no bot needs any more."""

    kind: Literal["remove-group"] = "remove-group"
    id: UUID
    name: str


class CreateBot(Frozen):
    """Create a bot, which starts right away."""

    kind: Literal["create"] = "create"
    name: str
    configuration: BotConfiguration
    removed: bool = False
    """Whether it was deployed before and was removed from the cluster since."""

    id: UUID | None = None
    """As for ``CreateGroup``."""

    after: tuple[UUID, ...] = ()
    """Bots that have to have stopped before it starts, since they sign with its account until then."""


class UpdateBot(Frozen):
    """Change a bot."""

    kind: Literal["update"] = "update"
    id: UUID
    name: str
    """Its name after it."""

    changes: tuple[Change, ...]
    runs: bool
    """Whether it runs. A running bot keeps its old configuration until it is stopped and started."""

    restart: bool
    """Whether that is done; a bot that doesn't run is started."""

    stopping: bool = False
    """Whether it is about to stop, so that it can be started only when it has."""

    adopts: bool = False
    """Whether it takes over a bot that this project didn't deploy."""

    after: tuple[UUID, ...] = ()
    """As for ``CreateBot``."""

    @property
    def runs_on(self) -> bool:
        """Whether it runs on with what it was started with."""
        return self.runs and not self.restart

    @property
    def holds_at_once(self) -> bool:
        """Whether the bot has what changes without a restart."""
        return all(change.field in POLICIES for change in self.changes)

    @property
    def old(self) -> dict[str, Value]:
        """What it had, of what changes."""
        return {change.field: change.old for change in self.changes}

    @property
    def new(self) -> dict[str, Value]:
        """What it gets."""
        return {change.field: change.new for change in self.changes}


class RestartBot(Frozen):
    """Stop and start a bot whose configuration is right, but which runs with something older."""

    kind: Literal["restart"] = "restart"
    id: UUID
    name: str
    reason: str
    adopts: bool = False

    after: tuple[UUID, ...] = ()
    """As for ``CreateBot``."""


class StartBot(Frozen):
    """Start a bot that is as it should be, but stopped."""

    kind: Literal["start"] = "start"
    id: UUID
    name: str
    stopping: bool = False
    """As for ``UpdateBot``."""

    adopts: bool = False

    after: tuple[UUID, ...] = ()
    """As for ``CreateBot``."""


class KeepBot(Frozen):
    """Leave a bot as it is: it is what the project wants, and it runs."""

    kind: Literal["keep"] = "keep"
    id: UUID
    name: str
    owes: str | None = None
    """Why it should be restarted, where a restart wasn't wanted."""

    adopts: bool = False

    runs_on: ClassVar[bool] = True
    """As for ``UpdateBot``."""


class RemoveBot(Frozen):
    """Remove a bot that an earlier deployment of this project made and the project no longer has."""

    kind: Literal["remove"] = "remove"
    id: UUID
    name: str
    protected: bool = False
    """It was protected when it was deployed, so the plan isn't applied."""


GroupAction = CreateGroup | UpdateGroup | RemoveGroup
BotAction = CreateBot | UpdateBot | RestartBot | StartBot | KeepBot | RemoveBot
Action = GroupAction | BotAction
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class PlanScope(Frozen):
    """What a plan depends on, by name."""

    bots: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


class Usage(Frozen):
    """What the bots of a cluster use of what is paid for, all of them, once the plan is carried out."""

    bots: int
    """Number of bots."""

    bots_paid: int
    """Bots that are paid for."""

    networks: tuple[str, ...]
    """Networks that bots use, as `ethereum:mainnet`."""

    networks_paid: int
    """Networks that are paid for."""


class Plan(Frozen):
    """What a deployment does: `plan`, `plan --out`, `deploy`."""

    version: Literal[2] = VERSION
    project: str
    """Name of the project."""

    identity: str = ""
    """Identity of the project; names needn't be unique."""

    target: str | None = None
    """Target of the section."""

    cluster: str
    """Label of the cluster."""

    cluster_identity: str = ""
    """Identity of the cluster, the same under every profile."""

    restores: int | None = None
    """Number of the earlier deployment that it goes back to; None for one to what the project wants now."""

    actions: tuple[Annotated[Action, Field(discriminator="kind")], ...]
    """In order: groups, since bots need them; the bots of the project; removals."""

    orphans: tuple[Orphan, ...] = ()
    """What the project deployed before for this target and no longer has, where it isn't removed."""

    drift: tuple[Drift, ...] = ()
    """What was changed on the cluster since the last deployment."""

    unknown: tuple[str, ...] = ()
    """What the plan can't know, a line each."""

    pending: tuple[str, ...] = ()
    """Bots that run with older settings until they are restarted, a line each."""

    warnings: tuple[str, ...] = ()
    """What is worth knowing, but stops nothing, a line each."""

    usage: Usage | None = None
    """What is used then of what is paid for; null if the cluster doesn't tell that."""

    strangers: tuple[str, ...] = ()
    """Bots and groups that it would change, and that this project didn't deploy."""

    owners: dict[str, str] = Field(default_factory=dict)
    """Bot or group that this project hasn't → the project that has it, where the cluster keeps records of both."""

    taken_over: dict[str, str] = Field(default_factory=dict)
    """Bot or group that this project deployed before → the project that took it over since; as for ``owners``."""

    bots: tuple[RecordedBot, ...] = ()
    """The project's bots on the cluster after it, of all targets."""

    leaving: tuple[RecordedBot, ...] = ()
    """Those that it removes."""

    groups: dict[str, RecordedGroup] = Field(default_factory=dict)
    """The variable groups that the project made there, of all targets."""

    origins: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Name of a bot of the project → where each value that is set of its configuration came from."""

    started_at: dict[UUID, datetime] = Field(default_factory=dict)
    """Start times of the tasks of bots that have to be restarted, where the cluster has them."""

    settled: tuple[UUID, ...] = ()
    """Bots with a pending restart that someone else restarted or removed since."""

    looked_at: PlanScope = PlanScope()
    """What it depends on."""

    state: str = ""
    """Fingerprint of that, and of the record, when the plan was made."""

    @overload
    def of(self, kind: type[A], /) -> tuple[A, ...]: ...
    @overload
    def of(self, kind: type[A], other: type[B], /) -> tuple[A | B, ...]: ...
    @overload
    def of(self, kind: type[A], other: type[B], third: type[C], /) -> tuple[A | B | C, ...]: ...
    @overload
    def of(self, kind: type[A], other: type[B], third: type[C], fourth: type[D], /) -> tuple[A | B | C | D, ...]: ...

    def of(self, *kinds: Any) -> tuple[Any, ...]:
        """Return the actions of some kinds."""
        return tuple(action for action in self.actions if isinstance(action, kinds))

    @property
    def writes(self) -> tuple[Action, ...]:
        """The actions that change something on the cluster."""
        return tuple(action for action in self.actions if not isinstance(action, KeepBot))

    @property
    def bot_actions(self) -> tuple[CreateBot | UpdateBot | RestartBot | StartBot, ...]:
        """The actions after which a bot runs that didn't, or with something newer."""
        return self.of(CreateBot, UpdateBot, RestartBot, StartBot)

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of the bots that run and are healthy when it is done."""
        return tuple(
            action.name
            for action in self.actions
            if isinstance(action, CreateBot | UpdateBot | RestartBot | StartBot | KeepBot)
        )

    @property
    def needs(self) -> frozenset[str]:
        """Names of the variables whose values it sends."""
        created = [action.variables for action in self.of(CreateGroup)]
        updated = [(*action.add, *action.push) for action in self.of(UpdateGroup)]
        return frozenset(name for names in (*created, *updated) for name in names)

    @property
    def owes(self) -> dict[UUID, PendingRestart]:
        """The restarts that it makes necessary: id of the bot → why."""
        owes = {action.id: action.reason for action in self.of(RestartBot)}
        owes |= {action.id: action.owes for action in self.of(KeepBot) if action.owes}
        owes |= {action.id: "it was changed without a restart" for action in self.of(UpdateBot) if action.runs}
        return {
            identity: PendingRestart(reason=reason, started_at=self.started_at.get(identity))
            for identity, reason in owes.items()
        }

    @property
    def differs(self) -> bool:
        """Whether the cluster isn't as the project wants it: something to do, or something left over."""
        return bool(self.writes or self.orphans)

    @property
    def accepted_drift(self) -> tuple[Drift, ...]:
        """What was changed on the cluster, and the plan leaves."""
        changed = {
            (action.changes[0].old if change.field == "name" else action.name, change.field)
            for action in self.of(UpdateBot)
            for change in action.changes
        }
        names = {action.name for action in self.of(UpdateBot)}
        made = {action.name for action in self.of(CreateBot, StartBot, CreateGroup, UpdateGroup)}
        started = {action.name for action in self.of(StartBot)} | names
        return tuple(
            drift
            for drift in self.drift
            if drift.name not in (started if drift.kind == "stopped" else made)
            and (drift.name, drift.field) not in changed
            and not (drift.field == "name" and any(field == "name" for _, field in changed))
        )

    @property
    def refused(self) -> tuple[str, ...]:
        """Why it isn't applied, a line each; nothing for a plan that may be."""
        lines = [
            f"bot '{action.name}' is protected and isn't removed. To remove it, deploy it once with `protect: false`"
            for action in self.of(RemoveBot)
            if action.protected
        ]
        return (*lines, *self._refused_strangers())

    def _refused_strangers(self) -> Iterator[str]:
        """Return why what isn't this project's isn't changed."""
        project = self.identity or self.project
        if strange := [name for name in self.strangers if name not in self.taken_over]:
            owners = "".join(f"{name} belongs to {self.owners[name]}; " for name in strange if name in self.owners)
            yield (
                f"{', '.join(strange)}: on the cluster, but not deployed by this project ({project}); {owners}pass "
                f"--adopt to take {_them(strange)} over, or choose other names"
            )
        for owner in dict.fromkeys(self.taken_over.values()):
            if taken := [name for name in self.strangers if self.taken_over.get(name) == owner]:
                yield (
                    f"{', '.join(taken)}: taken over by {owner} since this project ({project}) deployed "
                    f"{_them(taken)}; pass --adopt to take {_them(taken)} back, or choose other names"
                )


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def field_of(configuration: BotConfiguration, name: str, field: str) -> Value:
    """Return a field of a bot as a plan names it: one of its configuration, or its name."""
    value: Any = name if field == "name" else getattr(configuration, field)
    return tuple(value) if isinstance(value, list | tuple) else value


def started_after(action: Action) -> tuple[UUID, ...]:
    """Return the bots that have to have stopped before an action starts its bot."""
    return action.after if isinstance(action, CreateBot | UpdateBot | RestartBot | StartBot) else ()
