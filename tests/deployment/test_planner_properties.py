"""What holds for any project and any cluster: several projects and targets, subsets, renames, lost history, drift.

A model of a cluster is deployed to again and again, with deployments that are cut off anywhere, and with another hand
that changes, renames, stops, removes and creates bots in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid5

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.deployment.plan import (
    Action,
    CreateBot,
    CreateGroup,
    KeepBot,
    Plan,
    PlanOptions,
    RemoveBot,
    RemoveGroup,
    RestartBot,
    StartBot,
    UpdateBot,
    UpdateGroup,
)
from ape_silverback.deployment.planner import fingerprint, make_plan
from ape_silverback.deployment.state import LiveBot, LiveGroup, LiveState, LocalState, PendingRestart, RecordedState
from ape_silverback.exceptions import DeployError
from ape_silverback.project.desired import DesiredBot, DesiredState
from tests.deployment.test_plan import SPACE, bot, desired

VALUES = LocalState({name: f"key:{name}" for name in "XYZ"})
NAMES = ("a", "b", "c")
GROUPS = ("rpc", "db")

Runs = tuple[BotConfiguration, tuple[tuple[str, frozenset[str], int], ...]]
"""What a process was started with: the configuration, and of each group its variables and its version."""


@dataclass
class World:
    """A cluster, and what really happened there.

    Attributes:
        owners: id of each bot → the projects that created it or took it over.
        runs: id of each running bot → what its process was started with.
        versions: name of each group → how often it changed.
        forgotten: bots whose owed restart was recorded in a history that was lost.
    """

    bots: dict[UUID, LiveBot] = field(default_factory=dict)
    groups: dict[str, LiveGroup] = field(default_factory=dict)
    owners: dict[UUID, set[str | None]] = field(default_factory=dict)
    group_owners: dict[str, set[str | None]] = field(default_factory=dict)
    runs: dict[UUID, Runs] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    made: int = 0
    forgotten: set[UUID] = field(default_factory=set)

    @property
    def state(self) -> LiveState:
        return LiveState("test", {one.name: one for one in self.bots.values()}, dict(self.groups))

    def now(self, configuration: BotConfiguration) -> Runs:
        """What a bot with this configuration is started with now."""
        there = [name for name in configuration.environment if name in self.groups]
        return configuration, tuple((name, self.groups[name].variables, self.versions[name]) for name in there)

    def create(self, name: str, configuration: BotConfiguration, owner: str | None) -> UUID:
        assert name not in self.state.bots
        self.made += 1
        identity = uuid5(SPACE, f"bot {self.made}")
        self.owners[identity] = {owner}
        self.start(LiveBot(identity, name, ResourceStatus.RUNNING, configuration))
        return identity

    def start(self, one: LiveBot) -> None:
        self.bots[one.id] = replace(one, status=ResourceStatus.RUNNING)
        self.runs[one.id] = self.now(one.configuration)

    def set_group(self, name: str, variables: Iterable[str]) -> None:
        self.groups[name] = LiveGroup(uuid5(SPACE, name), name, frozenset(variables))
        self.versions[name] = self.versions.get(name, 0) + 1

    def remove(self, identity: UUID) -> None:
        del self.bots[identity]
        self.runs.pop(identity, None)

    def do(self, action: Action, project: str) -> UUID | None:
        """Do one action of a plan; return the id of a bot that it created."""
        match action:
            case CreateGroup():
                assert action.name not in self.groups
                self.set_group(action.name, action.variables)
                self.group_owners[action.name] = {project}
            case UpdateGroup():
                members = self.groups[action.name].variables
                assert not members & {*action.add}
                assert {*action.push, *action.remove} <= members
                if action.adopts:
                    self.group_owners.setdefault(action.name, set()).add(project)
                self.set_group(action.name, (members | {*action.add}) - {*action.remove})
            case RemoveGroup():
                assert not self.state.users(action.name)
                del self.groups[action.name]
            case CreateBot():
                return self.create(action.name, action.configuration, project)
            case UpdateBot():
                old = self.bots[action.id]
                new: dict[str, Any] = {key: value for key, value in action.new.items() if key != "name"}
                changed = replace(old, name=action.name, configuration=old.configuration.model_copy(update=new))
                assert len({action.name, *(one.name for one in self.bots.values() if one.id != old.id)}) == len(
                    self.bots
                )
                if action.restart or not action.runs:
                    self.start(changed)
                else:
                    self.bots[action.id] = changed
            case RestartBot() | StartBot():
                self.start(self.bots[action.id])
            case RemoveBot():
                self.remove(action.id)
            case KeepBot():
                pass
        if getattr(action, "adopts", False) and not isinstance(action, UpdateGroup):
            self.owners[action.id].add(project)
        return None


def touched_ids(plan: Plan) -> set[UUID]:
    """Return the bots that a plan changes, restarts, starts or removes."""
    return {action.id for action in plan.of(UpdateBot, RestartBot, StartBot, RemoveBot)}


def record_of(plan: Plan, made: Mapping[str, UUID], done: list[Action], last: int, owed: Any) -> RecordedState:
    """Return what is recorded of a deployment that did some of its actions, as the history keeps it."""
    over = len(done) == len(plan.actions)
    bots = [one.model_copy(update={"id": one.id or made.get(one.name)}) for one in plan.bots]
    if over:
        bots = [one.model_copy(update={"previous": None}) for one in bots]
    leaving = [] if over else list(plan.leaving)
    removed = {action.name for action in done if isinstance(action, RemoveGroup)}
    groups = {name: group for name, group in plan.groups.items() if name not in removed}
    return RecordedState((*bots, *leaving), groups, owed, last)


def owed_after(plan: Plan, begun: list[Action], before: Mapping[UUID, PendingRestart]) -> dict[UUID, PendingRestart]:
    """Return the restarts that are owed, as the journal tells: those of what was begun without those that were done."""
    owed = dict(before)
    group_owes = {one.id: one.reason for one in plan.of(RestartBot)}
    group_owes |= {one.id: one.owes for one in plan.of(KeepBot) if one.owes}
    for action in begun:
        match action:
            case UpdateGroup():
                owed |= {identity: PendingRestart(reason=reason) for identity, reason in group_owes.items()}
            case UpdateBot():
                if action.runs and not action.restart:
                    owed[action.id] = PendingRestart(reason="changed")
                else:
                    owed.pop(action.id, None)
            case RestartBot() | StartBot() | RemoveBot():
                owed.pop(action.id, None)
            case KeepBot() | CreateGroup() | RemoveGroup() | CreateBot():
                pass
    return owed


configurations = st.fixed_dictionaries(
    {
        "network": st.sampled_from(["sepolia", "mainnet"]),
        "account": st.none() | st.just("me"),
        "environment": st.lists(st.sampled_from(GROUPS), unique=True).map(tuple),
    }
)
variables = st.frozensets(st.sampled_from(["X", "Y", "Z"]), min_size=1)


@st.composite
def wants(draw: Any) -> DesiredState:
    """What a project wants for one target: bots, some of them renamed, and the groups that they use."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    free = [name for name in (*NAMES, "old") if name not in names]
    bots = []
    for name in names:
        old: tuple[str, ...] = ()
        if free and draw(st.booleans()):
            old = (free.pop(),)
        bots.append(
            bot(name, renamed_from=old, protect=draw(st.booleans()), share_account=True, **draw(configurations))
        )
    groups = {name: tuple(sorted(draw(variables))) for name in GROUPS}
    used = {name for one in bots for name in one.configuration.environment}
    return desired(*bots, groups={name: members for name, members in groups.items() if name in used})


options = st.builds(
    PlanOptions,
    prune=st.booleans(),
    push_variables=st.booleans(),
    restart=st.booleans(),
    force=st.booleans(),
    adopt=st.booleans(),
    keep_drift=st.booleans(),
)


@dataclass(frozen=True)
class Deploys:
    project: str
    target: str | None
    wanted: DesiredState
    options: PlanOptions
    subset: bool
    cut: int | None


@dataclass(frozen=True)
class Meddles:
    what: str
    which: int
    configuration: dict[str, Any]


@dataclass(frozen=True)
class Forgets:
    project: str


steps = st.lists(
    st.one_of(
        st.builds(
            Deploys,
            st.sampled_from(["one", "two"]),
            st.sampled_from([None, "side"]),
            wants(),
            options,
            st.booleans(),
            st.none() | st.integers(0, 4),
        ),
        st.builds(
            Meddles,
            st.sampled_from(["change", "rename", "stop", "remove", "create", "group"]),
            st.integers(0, 5),
            configurations,
        ),
        st.builds(Forgets, st.sampled_from(["one", "two"])),
    ),
    min_size=2,
    max_size=8,
)


def meddle(world: World, step: Meddles) -> None:
    """Let somebody else do something on the cluster."""
    configuration = bot("x", **step.configuration).configuration
    if step.what == "create":
        free = [name for name in (*NAMES, "old", "other") if name not in world.state.bots]
        if free:
            world.create(free[step.which % len(free)], configuration, None)
        return
    if step.what == "group":
        world.set_group(GROUPS[step.which % 2], "XYZ"[: 1 + step.which % 3])
        for one in world.state.users(GROUPS[step.which % 2]):
            world.runs[one.id] = world.now(one.configuration)  # who does that by hand restarts them by hand
        return
    if not world.bots:
        return
    one = list(world.bots.values())[step.which % len(world.bots)]
    match step.what:
        case "change":
            world.start(replace(one, configuration=configuration))
        case "rename":
            new = f"{one.name}-by-hand"
            if new not in world.state.bots:
                world.bots[one.id] = replace(one, name=new)
        case "stop":
            world.bots[one.id] = replace(one, status=ResourceStatus.STOPPED)
        case "remove":
            world.remove(one.id)


def narrowed(step: Deploys) -> DesiredState:
    """Return what is deployed: all that is wanted for the target, or the first bot of it."""
    names = frozenset(one.name for one in step.wanted.bots)
    state = replace(step.wanted, target=step.target, names=names, group_names=frozenset(GROUPS))
    if not step.subset:
        return state
    first: DesiredBot = state.bots[0]
    used = [group for group in state.groups if group.name in first.configuration.environment]
    return replace(state, bots=(first,), groups=tuple(used), selected=(first.name,))


def check_safe(world: World, plan: Plan, step: Deploys, wanted: DesiredState, known: RecordedState) -> None:
    """Check that a plan touches only what is the project's, and makes no second copy of a bot."""
    mine = {identity for identity, owners in world.owners.items() if step.project in owners}
    adopted = {action.id for action in plan.of(UpdateBot, RestartBot, StartBot) if action.adopts}
    assert adopted == set() or step.options.adopt
    assert touched_ids(plan) - adopted <= mine, "a plan touches what isn't the project's"
    removed = {action.id for action in plan.of(RemoveBot)}
    if removed:
        assert step.options.prune
        targets = {one.id: one.target for one in known.bots}
        assert all(targets[identity] == step.target for identity in removed), "another target's bot is removed"
        assert not {world.bots[identity].name for identity in removed} & {one.name for one in wanted.bots}
    for group in plan.of(UpdateGroup, RemoveGroup):
        adopts = isinstance(group, UpdateGroup) and group.adopts
        assert adopts or step.project in world.group_owners.get(group.name, set())
    lineage = {one.name: (one.name, *one.renamed_from) for one in wanted.bots}
    for action in plan.of(CreateBot):
        twins = [
            one.id
            for one in known.bots
            if one.name in lineage[action.name] and one.id in world.bots and one.target == step.target
        ]
        assert not twins, "a second copy of a bot that is there"


def check_reached(world: World, plan: Plan, step: Deploys, wanted: DesiredState) -> None:
    """Check that the cluster is as the project wants it, and that every bot runs with what it has."""
    live = world.state
    for one in wanted.bots:
        assert live.bots[one.name].configuration == one.configuration
        assert live.bots[one.name].runs
    for group in wanted.groups:
        assert set(group.variables) == live.groups[group.name].variables
    if step.options.restart:
        for one in wanted.bots:
            identity = live.bots[one.name].id
            if world.owners[identity] == {step.project} and identity not in world.forgotten:
                assert world.runs[identity] == world.now(one.configuration), "a lost restart"
        changed = {action.name for action in plan.of(UpdateGroup)}
        for identity, owners in world.owners.items():
            there = world.bots.get(identity)
            if step.project in owners and there and changed & {*there.configuration.environment} and there.runs:
                assert world.runs[identity] == world.now(there.configuration), "a bot beside lost its restart"


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
@given(steps)
def test_any_sequence_of_deployments_touches_only_what_is_owned_and_loses_no_restart(all_steps: list[Any]) -> None:
    world = World()
    records = {"one": RecordedState(), "two": RecordedState()}
    unmade_groups: dict[str, set[str]] = {"one": set(), "two": set()}
    for step in all_steps:
        if isinstance(step, Meddles):
            meddle(world, step)
            continue
        if isinstance(step, Forgets):
            world.forgotten |= set(records[step.project].pending_restarts)
            records[step.project] = RecordedState()
            continue
        wanted, known = narrowed(step), records[step.project]
        try:
            plan = make_plan(wanted, world.state, known, VALUES, step.options)
        except DeployError:
            continue
        assert fingerprint(world.state, plan.looked_at, known.last) == plan.state
        assert Plan.model_validate_json(plan.model_dump_json()) == plan
        if plan.refused:
            continue
        identified = known.identified(world.state)
        # Of a deployment that was cut off nobody knows whether a bot that it was to create is its own: one that is as
        # it was to be is taken for it.
        unmade = {bot.name for bot in known.bots if bot.id is None}
        for one in identified.bots:
            if one.id in world.owners and one.name in unmade:
                world.owners[one.id].add(step.project)
        for name in unmade_groups[step.project] & set(world.group_owners):
            world.group_owners[name].add(step.project)
        check_safe(world, plan, step, wanted, identified)
        for action in plan.of(UpdateBot, RestartBot, StartBot):
            if action.adopts:  # allowed from now on, also when this deployment is cut off before it acts
                world.owners[action.id].add(step.project)
        unmade_groups[step.project] |= {action.name for action in plan.of(CreateGroup)}
        done = list(plan.actions if step.cut is None else plan.actions[: step.cut])
        pending = {identity: one for identity, one in known.pending_restarts.items() if identity in world.bots}
        made = {}
        for action in done:
            if (created := world.do(action, step.project)) is not None:
                made[action.name] = created
        records[step.project] = record_of(plan, made, done, known.last + 1, owed_after(plan, done, pending))
        if len(done) < len(plan.actions):
            continue
        if not step.options.keep_drift and step.options.restart:
            check_reached(world, plan, step, wanted)
        if step.options.restart and not step.options.keep_drift:
            again = replace(step.options, push_variables=False, force=False)
            assert not make_plan(wanted, world.state, records[step.project], VALUES, again).writes
