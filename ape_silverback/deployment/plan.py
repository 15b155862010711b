"""What has to happen on a cluster so that it has what the project wants.

Pure: no I/O, no clock, no terminal. A ``Plan`` is a value: frozen, serialisable, the same object that is shown, dumped
and applied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.desired import DesiredBot, DesiredState
from ape_silverback.exceptions import DeployError

ACTIVE = frozenset({ResourceStatus.PROVISIONING, ResourceStatus.STARTUP, ResourceStatus.RUNNING})
"""States of a bot that runs or is on its way to it."""


@dataclass(frozen=True)
class LiveBot:
    """A bot as it is on the cluster.

    Attributes:
        configuration: the fields of ``DesiredBot.FIELDS``, as the cluster answers them.
    """

    id: UUID
    name: str
    status: ResourceStatus
    configuration: Mapping[str, Any]


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
        credentials: name of each registry credential → its id.
    """

    cluster: str
    bots: Mapping[str, LiveBot] = field(default_factory=dict)
    groups: Mapping[str, LiveGroup] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Frozen):
    """One field of a bot that differs."""

    field: str
    old: Any
    new: Any


class CreateGroup(_Frozen):
    """Make a variable group. Values come from the environment when the plan is applied."""

    kind: Literal["create-group"] = "create-group"
    name: str
    variables: tuple[str, ...]


class UpdateGroup(_Frozen):
    """Add variables to a group and take others out of it. The values of the rest stay as they are."""

    kind: Literal["update-group"] = "update-group"
    id: UUID
    name: str
    add: tuple[str, ...]
    remove: tuple[str, ...]


class CreateBot(_Frozen):
    """Make a bot, which starts right away."""

    kind: Literal["create"] = "create"
    name: str
    configuration: dict[str, Any]


class UpdateBot(_Frozen):
    """Change a bot.

    Attributes:
        restart: it runs, and a running bot keeps its old configuration until it is stopped and started.
    """

    kind: Literal["update"] = "update"
    id: UUID
    name: str
    changes: tuple[Change, ...]
    restart: bool


class RestartBot(_Frozen):
    """Stop and start a bot whose configuration is right but whose variables change."""

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


GroupAction = CreateGroup | UpdateGroup
BotAction = CreateBot | UpdateBot | RestartBot | StartBot | KeepBot
Action = Annotated[GroupAction | BotAction, Field(discriminator="kind")]


class Plan(_Frozen):
    """What a deployment does.

    Attributes:
        actions: groups first, since bots need them; then one action for each bot of the project.
        unknown: what the plan can't know, a line each.
    """

    project: str
    cluster: str
    actions: tuple[Action, ...]
    unknown: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[GroupAction, ...]:
        """The actions on variable groups."""
        return tuple(action for action in self.actions if isinstance(action, GroupAction))

    @property
    def bots(self) -> tuple[BotAction, ...]:
        """The actions on bots, one for each bot of the project."""
        return tuple(action for action in self.actions if not isinstance(action, GroupAction))

    @property
    def writes(self) -> tuple[Action, ...]:
        """The actions that change something on the cluster."""
        return tuple(action for action in self.actions if not isinstance(action, KeepBot))


def make_plan(desired: DesiredState, live: LiveState, values: Collection[str] = frozenset()) -> Plan:
    """Compare what the project wants with what the cluster has.

    Args:
        desired: the project's bots, resolved.
        live: the state of the cluster.
        values: names of the variables that have a value to send.

    Raises:
        DeployError: with every reason, a line each, why the plan could not be carried out.
    """
    groups = [action for group in desired.groups if (action := _plan_group(group.name, group.variables, live))]
    if problems := _problems(desired, live, groups, values):
        raise DeployError("\n".join(problems))
    touched = {group.name for group in groups if isinstance(group, UpdateGroup)}
    return Plan(
        project=desired.project,
        cluster=live.cluster,
        actions=(*groups, *(_plan_bot(bot, live, touched) for bot in desired.bots)),
        unknown=_unknown(desired, live),
    )


def _plan_group(name: str, variables: tuple[str, ...], live: LiveState) -> GroupAction | None:
    if (group := live.groups.get(name)) is None:
        return CreateGroup(name=name, variables=variables)
    add = tuple(variable for variable in variables if variable not in group.variables)
    remove = tuple(sorted(group.variables.difference(variables)))
    return UpdateGroup(id=group.id, name=name, add=add, remove=remove) if add or remove else None


def _plan_bot(bot: DesiredBot, live: LiveState, touched_groups: Collection[str]) -> BotAction:
    if (there := live.bots.get(bot.name)) is None:
        return CreateBot(name=bot.name, configuration=bot.configuration())
    runs = there.status in ACTIVE
    if changes := _changes(bot, there, live.credentials):
        return UpdateBot(id=there.id, name=bot.name, changes=changes, restart=runs)
    if not runs:
        return StartBot(id=there.id, name=bot.name)
    if changed := [group for group in bot.environment if group in touched_groups]:
        return RestartBot(id=there.id, name=bot.name, reason=f"variables of {', '.join(changed)} change")
    return KeepBot(id=there.id, name=bot.name)


def _changes(bot: DesiredBot, there: LiveBot, credentials: Mapping[str, str]) -> tuple[Change, ...]:
    changes = []
    for name, new in bot.configuration().items():
        old = there.configuration.get(name)
        # A cluster answers with the credential's id where it takes the credential's name.
        same_credential = name == "credential_name" and new is not None and old in (new, credentials.get(new))
        if old != new and not same_credential:
            changes.append(Change(field=name, old=old, new=new))
    return tuple(changes)


def _problems(
    desired: DesiredState, live: LiveState, groups: Collection[GroupAction], values: Collection[str]
) -> list[str]:
    problems = []
    declared = {group.name: group for group in desired.groups}
    for bot in desired.bots:
        problems += [
            f"{bot.name}: variable group '{group}' ({bot.origins['environment']}) is neither on the cluster nor under "
            f"`variables:` of the section"
            for group in bot.environment
            if group not in declared and group not in live.groups
        ]
        if bot.credential_name and bot.credential_name not in live.credentials:
            known = ", ".join(sorted(live.credentials)) or "none"
            problems.append(
                f"{bot.name}: the cluster has no registry credential '{bot.credential_name}' "
                f"({bot.origins['credential_name']}); it has: {known}"
            )
    for group in groups:
        needed = group.variables if isinstance(group, CreateGroup) else group.add
        problems += [
            f"variable '{name}' of group '{group.name}' ({declared[group.name].origin}) has no value: set it in the "
            f"environment or in a file for --env-file"
            for name in needed
            if name not in values
        ]
    return problems


def _unknown(desired: DesiredState, live: LiveState) -> tuple[str, ...]:
    kept = [group.name for group in desired.groups if group.name in live.groups]
    return (f"values of the variables in {', '.join(kept)}: a cluster never tells them",) if kept else ()
