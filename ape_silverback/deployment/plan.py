"""What has to happen on a cluster so that it has what the project wants.

Pure: no I/O, no clock, no terminal. A ``Plan`` is a value: frozen, serialisable, the same object that is shown, dumped
and applied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.exceptions import DeployError
from ape_silverback.project.desired import DesiredBot, DesiredGroup, DesiredState

ACTIVE = frozenset({ResourceStatus.PROVISIONING, ResourceStatus.STARTUP, ResourceStatus.RUNNING})
"""States of a bot that runs or is on its way to it."""


VERSION: Literal[1] = 1
"""Version of a written plan. A plan of another version is not applied."""


Value = str | bool | tuple[str, ...] | None
"""A value of a field of a bot."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class RecordedBot(_Frozen):
    """A bot as a deployment left it, or should have."""

    configuration: BotConfiguration

    protect: bool = False
    """Whether its removal is refused."""

    @classmethod
    def of(cls, bot: DesiredBot) -> RecordedBot:
        """Give what a project wants of a bot."""
        return cls(configuration=bot.configuration, protect=bot.protect)


@dataclass(frozen=True)
class LiveBot:
    """A bot as it is on the cluster.

    Attributes:
        status: None for a bot that the project doesn't have, whose state wasn't asked for.
        configuration: as the cluster returns it, with a credential's id where it takes the name.
    """

    id: UUID
    name: str
    status: ResourceStatus | None
    configuration: BotConfiguration


@dataclass(frozen=True)
class LiveGroup:
    """A variable group as it is on the cluster; values are write-only, so only names are known."""

    id: UUID
    name: str
    variables: frozenset[str]


@dataclass(frozen=True)
class LiveState:
    """What a cluster has, as far as a plan needs it.

    Attributes:
        cluster: how the cluster is called in what users read.
        bots: all of them.
        credentials: name of each registry credential → its id.
        limit: most bots that are paid for; None when the cluster doesn't say.
    """

    cluster: str
    bots: Mapping[str, LiveBot] = field(default_factory=dict)
    groups: Mapping[str, LiveGroup] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None


@dataclass(frozen=True)
class RecordedState:
    """What is remembered of earlier deployments of the project to the cluster.

    Attributes:
        bots: those that it has there, by name.
        groups: the variable groups that it made there → names of their variables.
        owed: id of each bot that runs with what it had before a change → why it has to be restarted.
    """

    bots: Mapping[str, RecordedBot] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pending_restarts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanOptions:
    """What is asked of one plan.

    Attributes:
        prune: remove what earlier deployments made and the project no longer has.
        push_variables: send the values of variables that are there already, too.
        restart: restart bots that need it; else they are left as they run.
        force: restart bots that need nothing, too.
    """

    prune: bool = False
    push_variables: bool = False
    restart: bool = True
    force: bool = False


DEFAULT_PLAN_OPTIONS = PlanOptions()
NOTHING_RECORDED = RecordedState()


class Change(_Frozen):
    """One field of a bot that differs; ``name`` for a bot that is renamed."""

    field: str
    old: Value
    new: Value


class CreateGroup(_Frozen):
    """Make a variable group. Values come from the environment when the plan is applied."""

    kind: Literal["create-group"] = "create-group"
    name: str
    variables: tuple[str, ...]


class UpdateGroup(_Frozen):
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


class RemoveGroup(_Frozen):
    """Remove a variable group that an earlier deployment made and no bot needs any more."""

    kind: Literal["remove-group"] = "remove-group"
    id: UUID
    name: str


class CreateBot(_Frozen):
    """Make a bot, which starts right away."""

    kind: Literal["create"] = "create"
    name: str
    configuration: BotConfiguration


class UpdateBot(_Frozen):
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

    @property
    def old(self) -> dict[str, Value]:
        """What it had, of what changes."""
        return {change.field: change.old for change in self.changes}

    @property
    def new(self) -> dict[str, Value]:
        """What it gets."""
        return {change.field: change.new for change in self.changes}


class RestartBot(_Frozen):
    """Stop and start a bot whose configuration is right, but which runs with something older."""

    kind: Literal["restart"] = "restart"
    id: UUID
    name: str
    reason: str


class StartBot(_Frozen):
    """Start a bot that is as it should be, but stopped."""

    kind: Literal["start"] = "start"
    id: UUID
    name: str


class KeepBot(_Frozen):
    """Leave a bot as it is: it is what the project wants, and it runs."""

    kind: Literal["keep"] = "keep"
    id: UUID
    name: str
    owes: str | None = None
    """Why it should be restarted, where a restart wasn't wanted."""


class RemoveBot(_Frozen):
    """Remove a bot that an earlier deployment made and the project no longer has."""

    kind: Literal["remove"] = "remove"
    id: UUID
    name: str
    protected: bool = False
    """It was protected when it was deployed, so the plan isn't applied."""


GroupAction = CreateGroup | UpdateGroup | RemoveGroup
BotAction = CreateBot | UpdateBot | RestartBot | StartBot | KeepBot | RemoveBot
Action = Annotated[GroupAction | BotAction, Field(discriminator="kind")]


class PlanScope(_Frozen):
    """What a plan depends on, by name."""

    bots: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()


class Plan(_Frozen):
    """What a deployment does: `plan`, `plan --out`, `deploy`."""

    version: Literal[1] = VERSION
    project: str
    cluster: str
    """How the cluster is called."""

    actions: tuple[Action, ...]
    """In order: groups, since bots need them; one action for each bot of the project; removals."""

    unknown: tuple[str, ...] = ()
    """What the plan can't know, a line each."""

    warnings: tuple[str, ...] = ()
    """What is worth knowing, but stops nothing, a line each."""

    bots: dict[str, RecordedBot] = Field(default_factory=dict)
    """The project's bots on the cluster after it."""

    leaving: dict[str, RecordedBot] = Field(default_factory=dict)
    """Those that it removes."""

    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The groups that the project made there → names of their variables."""

    looked_at: PlanScope = PlanScope()
    """What it depends on."""

    state: str = ""
    """Fingerprint of that when the plan was made."""

    def of(self, *kinds: type[_Frozen]) -> tuple[Any, ...]:
        """Give the actions of some kinds."""
        return tuple(action for action in self.actions if isinstance(action, kinds))

    @property
    def writes(self) -> tuple[Action, ...]:
        """The actions that change something on the cluster."""
        return tuple(action for action in self.actions if not isinstance(action, KeepBot))

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of the bots that run and are healthy when it is done."""
        return tuple(action.name for action in self.of(CreateBot, UpdateBot, RestartBot, StartBot, KeepBot))

    @property
    def needs(self) -> frozenset[str]:
        """Names of the variables whose values it sends."""
        named = [action.variables for action in self.of(CreateGroup)]
        named += [(*action.add, *action.push) for action in self.of(UpdateGroup)]
        return frozenset(name for names in named for name in names)

    @property
    def refused(self) -> tuple[str, ...]:
        """Why it isn't applied, a line each; nothing for a plan that may be."""
        return tuple(
            f"bot '{action.name}' is protected: it isn't removed. To remove it, deploy it once with `protect: false`"
            for action in self.of(RemoveBot)
            if action.protected
        )


def make_plan(
    desired: DesiredState,
    live: LiveState,
    values: Collection[str] = frozenset(),
    known: RecordedState = NOTHING_RECORDED,
    plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS,
) -> Plan:
    """Compare what the project wants with what the cluster has.

    Args:
        desired: what the project wants.
        live: what the cluster has.
        values: names of the variables whose values are at hand.
        known: what is remembered of earlier deployments.
        wishes: what is asked of the plan.

    Raises:
        DeployError: it can't be done, with every reason, a line each: a group or a credential that isn't there, a
            value that is missing, a name that is taken, a group that is still used.
    """
    return _Planner(desired, live, frozenset(values), known, plan_options).plan()


class _Planner:
    def __init__(
        self,
        desired: DesiredState,
        live: LiveState,
        values: frozenset[str],
        known: RecordedState,
        plan_options: PlanOptions,
    ) -> None:
        self.desired, self.live, self.values, self.known, self.plan_options = desired, live, values, known, plan_options
        self.declared = {group.name: group for group in desired.groups}
        self.renamed = {
            old.name: bot for bot in desired.bots if bot.name not in live.bots and (old := self._earlier(bot))
        }

    def plan(self) -> Plan:
        groups = [action for group in self.desired.groups if (action := self._group(group))]
        touched = {action.name for action in groups if isinstance(action, UpdateGroup)}
        bots = [self._bot(bot, touched) for bot in self.desired.bots]
        removals = self._removals()
        if problems := [*self._conflicts(), *self._missing(groups), *self._still_used(removals)]:
            raise DeployError("\n".join(problems))
        actions: tuple[Any, ...] = (*groups, *bots, *removals)
        gone = {action.name for action in removals}
        ours = {name: bot for name, bot in self.known.bots.items() if name in self.live.bots}
        stay = {name: bot for name, bot in ours.items() if name not in gone and name not in self.renamed}
        made = {name: names for name, names in self.known.groups.items() if name in self.live.groups}
        wanted = {bot.name: RecordedBot.of(bot) for bot in self.desired.bots}
        looked_at = self._looked_at()
        return Plan(
            project=self.desired.project,
            cluster=self.live.cluster,
            actions=actions,
            unknown=self._unknown(),
            warnings=self._warnings(actions),
            bots={**stay, **wanted},
            leaving={name: bot for name, bot in ours.items() if name in gone},
            groups={**made, **{group.name: group.variables for group in self.desired.groups}},
            looked_at=looked_at,
            state=fingerprint(self.live, looked_at),
        )

    def _group(self, group: DesiredGroup) -> CreateGroup | UpdateGroup | None:
        there = self.live.groups.get(group.name)
        if there is None:
            return CreateGroup(name=group.name, variables=group.variables)
        action = UpdateGroup(
            id=there.id,
            name=group.name,
            add=tuple(name for name in group.variables if name not in there.variables),
            push=tuple(
                name for name in group.variables if name in there.variables and self.plan_options.push_variables
            ),
            remove=tuple(sorted(there.variables.difference(group.variables))),
        )
        return action if action.add or action.push or action.remove else None

    def _earlier(self, bot: DesiredBot) -> LiveBot | None:
        """Return the bot on the cluster that a bot was before it was renamed or put on several networks."""
        names = {other.name for other in self.desired.bots}
        for name in bot.renamed_from:
            if name in self.live.bots and name not in names:
                return self.live.bots[name]
        if (
            bot.family in self.known.bots
            and bot.family not in names
            and (single := self.live.bots.get(str(bot.family)))
        ):
            where, before = bot.configuration, single.configuration
            if (where.ecosystem, where.network) == (before.ecosystem, before.network):
                return single
        return None

    def _bot(self, bot: DesiredBot, touched: Collection[str]) -> BotAction:
        there = self.live.bots.get(bot.name) or self._earlier(bot)
        if there is None:
            return CreateBot(name=bot.name, configuration=bot.configuration)
        runs = there.status in ACTIVE
        if changes := _changes(bot, there, self.live.credentials):
            return UpdateBot(
                id=there.id, name=bot.name, changes=changes, runs=runs, restart=runs and self.plan_options.restart
            )
        if not runs:
            return StartBot(id=there.id, name=bot.name)
        reason = self.known.pending_restarts.get(str(there.id))
        if changed := [group for group in bot.configuration.environment if group in touched]:
            reason = f"variables of {', '.join(changed)} change"
        if reason is None and self.plan_options.force:
            reason = "it was asked for"
        if reason is None:
            return KeepBot(id=there.id, name=bot.name)
        if not self.plan_options.restart:
            return KeepBot(id=there.id, name=bot.name, owes=reason)
        return RestartBot(id=there.id, name=bot.name, reason=reason)

    def _removals(self) -> list[RemoveBot | RemoveGroup]:
        if not self.plan_options.prune:
            return []
        wanted = {bot.name for bot in self.desired.bots} | set(self.renamed)
        bots = [
            RemoveBot(id=self.live.bots[name].id, name=name, protected=before.protect)
            for name, before in sorted(self.known.bots.items())
            if name in self.live.bots and name not in wanted
        ]
        used = {group for bot in self.desired.bots for group in bot.configuration.environment}
        groups = [
            RemoveGroup(id=self.live.groups[name].id, name=name)
            for name in sorted(self.known.groups)
            if name in self.live.groups and name not in used and name not in self.declared
        ]
        return [*bots, *groups]

    def _conflicts(self) -> list[str]:
        problems = []
        names = [bot.name for bot in self.desired.bots]
        problems += [f"two bots are called '{name}'" for name in dict.fromkeys(names) if names.count(name) > 1]
        for bot in self.desired.bots:
            for old in bot.renamed_from:
                if old in names:
                    problems.append(f"{bot.name}: renamed-from '{old}', which is a bot of the project")
                elif old in self.live.bots and old in self.known.bots and bot.name in self.live.bots:
                    problems.append(
                        f"{bot.name}: renamed-from '{old}', but both are on the cluster: remove one of them"
                    )
        sources = [name for bot in self.desired.bots for name in bot.renamed_from]
        problems += [f"two bots are renamed-from '{old}'" for old in dict.fromkeys(sources) if sources.count(old) > 1]
        return problems

    def _missing(self, groups: Iterable[CreateGroup | UpdateGroup]) -> list[str]:
        problems = []
        for bot in self.desired.bots:
            problems += [
                f"{bot.name}: variable group '{group}' ({bot.origins['environment']}) is neither on the cluster nor "
                f"under `variables:` of the section"
                for group in bot.configuration.environment
                if group not in self.declared and group not in self.live.groups
            ]
            if bot.configuration.credential_name and bot.configuration.credential_name not in self.live.credentials:
                there = ", ".join(sorted(self.live.credentials)) or "none"
                problems.append(
                    f"{bot.name}: the cluster has no registry credential '{bot.configuration.credential_name}' "
                    f"({bot.origins['credential_name']}); it has: {there}"
                )
        for action in groups:
            needed = action.variables if isinstance(action, CreateGroup) else (*action.add, *action.push)
            problems += [
                f"variable '{name}' of group '{action.name}' ({self.declared[action.name].origin}) has no value: set "
                f"it in the environment or in a file for --env-file"
                for name in needed
                if name not in self.values
            ]
        return problems

    def _still_used(self, removals: Collection[RemoveBot | RemoveGroup]) -> list[str]:
        gone = {action.name for action in removals if isinstance(action, RemoveBot)}
        ours = {bot.name for bot in self.desired.bots} | set(self.renamed)
        problems = []
        for action in removals:
            if isinstance(action, RemoveGroup):
                users = [
                    bot.name
                    for bot in self.live.bots.values()
                    if bot.name not in gone | ours and action.name in bot.configuration.environment
                ]
                if users:
                    problems.append(
                        f"variable group '{action.name}' can't be removed: {', '.join(sorted(users))} of the cluster "
                        f"{'uses' if len(users) == 1 else 'use'} it"
                    )
        return problems

    def _unknown(self) -> tuple[str, ...]:
        if self.plan_options.push_variables:
            return ()
        kept = [group.name for group in self.desired.groups if group.name in self.live.groups]
        if not kept:
            return ()
        return (f"values of the variables in {', '.join(kept)}: a cluster never tells them (--push-vars sends them)",)

    def _warnings(self, actions: Iterable[Any]) -> tuple[str, ...]:
        more = sum(isinstance(action, CreateBot) - isinstance(action, RemoveBot) for action in actions)
        after = len(self.live.bots) + more
        if self.live.limit is not None and more > 0 and after > self.live.limit:
            return (f"{after} bots would be on the cluster, which is paid for {self.live.limit}: some may not run",)
        return ()

    def _looked_at(self) -> PlanScope:
        bots = {bot.name for bot in self.desired.bots} | set(self.renamed)
        groups = set(self.declared) | {group for bot in self.desired.bots for group in bot.configuration.environment}
        if self.plan_options.prune:
            bots |= set(self.known.bots)
            groups |= set(self.known.groups)
        credentials = {
            bot.configuration.credential_name for bot in self.desired.bots if bot.configuration.credential_name
        }
        return PlanScope(bots=tuple(sorted(bots)), groups=tuple(sorted(groups)), credentials=tuple(sorted(credentials)))


def fingerprint(live: LiveState, looked_at: PlanScope) -> str:
    """Give what tells whether a cluster has moved since a plan was made, as far as the plan looked at it."""
    bots = [live.bots[name] for name in looked_at.bots if name in live.bots]
    groups = [live.groups[name] for name in looked_at.groups if name in live.groups]
    state = [
        [[str(bot.id), bot.name, bot.status in ACTIVE, bot.configuration.model_dump()] for bot in bots],
        [[str(group.id), group.name, sorted(group.variables)] for group in groups],
        [[name, live.credentials.get(name)] for name in looked_at.credentials],
    ]
    return hashlib.sha256(json.dumps(state, default=list).encode()).hexdigest()


def _changes(bot: DesiredBot, there: LiveBot, credentials: Mapping[str, str]) -> tuple[Change, ...]:
    changes = [Change(field="name", old=there.name, new=bot.name)] if there.name != bot.name else []
    for name, new in bot.configuration:
        old = getattr(there.configuration, name)
        # A cluster answers with the credential's id where it takes the credential's name.
        same_credential = name == "credential_name" and new is not None and old in (new, credentials.get(new))
        if old != new and not same_credential:
            changes.append(Change(field=name, old=old, new=new))
    return tuple(changes)
