"""What holds for any project and any cluster: several projects and targets, subsets, renames, lost history, drift.

A model of a cluster is deployed to again and again, with deployments that are cut off anywhere, and with another hand
that changes, renames, stops, removes and creates bots in between. What is recorded is read and written by the history
itself. The cluster may let its clients choose ids, and keep the records of both projects as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid5

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.deployment.apply import owed_restarts
from ape_silverback.deployment.creation import identify, with_creations
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.history import Records
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
from ape_silverback.deployment.planner import make_plan
from ape_silverback.deployment.planning.scope import fingerprint
from ape_silverback.deployment.record import UNKNOWN_SOURCE
from ape_silverback.deployment.state import LiveBot, LiveGroup, LiveState, LocalState, RecordedState
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
        chooses: whether clients choose ids.
        claims: id of a bot or a group → project → number of its claim, on a cluster that keeps records.
        owners: id of each bot and group → the projects that created it or took it over.
        runs: id of each running bot → what its process was started with.
        versions: name of each group → how often it changed.
        forgotten: bots whose owed restart was recorded in a history that was lost.
        holders: id of each bot and group → the project that created it or took it over last.
    """

    chooses: bool
    claims: dict[UUID, dict[str, int]] = field(default_factory=dict)
    holders: dict[UUID, str | None] = field(default_factory=dict)
    bots: dict[UUID, LiveBot] = field(default_factory=dict)
    groups: dict[str, LiveGroup] = field(default_factory=dict)
    owners: dict[UUID, set[str | None]] = field(default_factory=dict)
    runs: dict[UUID, Runs] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    made: int = 0
    forgotten: set[UUID] = field(default_factory=set)
    names: dict[UUID, str] = field(default_factory=dict)
    time: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)

    @property
    def state(self) -> LiveState:
        bots, extensions = {one.name: one for one in self.bots.values()}, {"chosen-ids"} if self.chooses else set()
        return LiveState("test", bots, dict(self.groups), extensions=frozenset(extensions), claims=self.claims)

    def new_id(self) -> UUID:
        self.made += 1
        return uuid5(SPACE, f"made {self.made}")

    def now(self, configuration: BotConfiguration) -> Runs:
        """What a bot with this configuration is started with now."""
        there = [name for name in configuration.environment if name in self.groups]
        return configuration, tuple((name, self.groups[name].variables, self.versions[name]) for name in there)

    def create(self, name: str, configuration: BotConfiguration, owner: str | None, chosen: UUID | None = None) -> UUID:
        assert name not in self.state.bots
        assert chosen not in self.owners
        identity = chosen or self.new_id()
        self.owners[identity], self.holders[identity] = {owner}, owner
        self.start(LiveBot(identity, name, ResourceStatus.RUNNING, configuration, created=self.time))
        return identity

    def start(self, one: LiveBot) -> None:
        self.bots[one.id] = replace(one, status=ResourceStatus.RUNNING)
        self.runs[one.id] = self.now(one.configuration)

    def create_group(self, name: str, variables: Iterable[str], owner: str | None, chosen: UUID | None = None) -> UUID:
        identity = chosen or self.new_id()
        self.owners[identity], self.holders[identity] = {owner}, owner
        if not self.chooses:  # one that is made again under its name is that of those who knew it
            for old, owners in self.owners.items():
                if self.names.get(old) == name:
                    self.owners[identity] |= owners
        self.names[identity] = name
        self.groups[name] = LiveGroup(identity, name, frozenset(), self.time)
        self.set_group(name, variables)
        return identity

    def set_group(self, name: str, variables: Iterable[str]) -> None:
        self.groups[name] = replace(self.groups[name], variables=frozenset(variables))
        self.versions[name] = self.versions.get(name, 0) + 1

    def remove(self, identity: UUID) -> None:
        del self.bots[identity]
        self.runs.pop(identity, None)

    def do(self, action: Action, project: str) -> UUID | None:
        """Do one action of a plan; return the id of a bot that it created."""
        match action:
            case CreateGroup():
                assert action.name not in self.groups
                return self.create_group(action.name, action.variables, project, action.id)
            case UpdateGroup():
                members = self.groups[action.name].variables
                assert not members & {*action.add}
                assert {*action.push, *action.remove} <= members
                self.set_group(action.name, (members | {*action.add}) - {*action.remove})
            case RemoveGroup():
                assert not self.state.users(action.name)
                del self.groups[action.name]
            case CreateBot():
                return self.create(action.name, action.configuration, project, action.id)
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
        return None


def touched_ids(plan: Plan) -> set[UUID]:
    """Return the bots that a plan changes, restarts, starts or removes."""
    return {action.id for action in plan.of(UpdateBot, RestartBot, StartBot, RemoveBot)}


def carry_out(world: World, plan: Plan, records: Records, step: Deploys) -> bool:
    """Carry a plan out and record it, as a deployment does; return whether it came to its end.

    One that is cut off has begun an action whose answer it never got.
    """
    before = records.known()
    removed = world.owners.keys() - world.bots.keys()
    plan = with_creations(plan, before, choose_ids=world.chooses, removed=removed, new_id=world.new_id)
    record = records.begin(UNKNOWN_SOURCE, plan)
    for action in plan.actions:
        if getattr(action, "adopts", False):  # from now on, also when this deployment is cut off before it acts
            world.owners[action.id].add(step.project)
            world.holders[action.id] = step.project
    for number, action in enumerate(plan.actions):
        if step.cut == number and not step.begins:
            return False
        time = world.time if isinstance(action, CreateBot | CreateGroup) else None
        records.journal.begin_action(action.kind, action.name, owed_restarts(plan, action), time)
        if step.cut == number and not step.arrives:
            return False
        made = world.do(action, step.project)
        if step.cut == number:
            return False
        started = isinstance(action, RestartBot | StartBot | RemoveBot)
        started = started or (isinstance(action, UpdateBot) and (action.restart or not action.runs))
        settles = action.id if started else None
        records.journal.end_action(action.kind, action.name, settles=settles, made=made)
    events = {action.name: Event("applied", action.name, "done") for action in plan.actions}
    records.end(record, plan, events, before)
    return True


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
    begins: bool
    arrives: bool


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
            st.booleans(),
            st.booleans(),
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


def deploys(project: str, cut: int | None = None, **plan_options: bool) -> Deploys:
    """Return a deployment of one bot, which may be cut off while it does one of its actions."""
    wanted = desired(bot("a", environment=("rpc",)), groups={"rpc": ("X",)})
    return Deploys(project, None, wanted, PlanOptions(**plan_options), False, cut, True, True)


def meddle(world: World, step: Meddles) -> None:
    """Let somebody else do something on the cluster."""
    configuration = bot("x", **step.configuration).configuration
    if step.what == "create":
        free = [name for name in (*NAMES, "old", "other") if name not in world.state.bots]
        if free:
            world.create(free[step.which % len(free)], configuration, None)
        return
    if step.what == "group":
        name, members = GROUPS[step.which % 2], "XYZ"[: 1 + step.which % 3]
        if name in world.groups:
            world.set_group(name, members)
        else:
            world.create_group(name, members, None)
        for one in world.state.users(name):
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
    if world.claims:
        mine = {identity for identity in mine if world.holders[identity] == step.project}
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
        assert adopts or group.id in mine, "a plan touches a group that isn't the project's"
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
        for one in world.bots.values():
            if changed & {*one.configuration.environment} and one.runs:
                told = {name for line in plan.pending for name in line.partition(":")[0].split(", ")}
                is_right = world.runs[one.id] == world.now(one.configuration)
                assert is_right or one.name in told, "a bot beside lost its restart"


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
@given(steps, st.sampled_from(["any", "chooses ids", "keeps records"]))
@example([deploys("one"), deploys("two", adopt=True, force=True), deploys("one", force=True)], "keeps records")
@example([deploys("one", cut=1), Meddles("remove", 0, {}), deploys("one")], "chooses ids")
def test_any_sequence_of_deployments_touches_only_what_is_owned_and_loses_no_restart(
    all_steps: list[Any], kind: str
) -> None:
    world, keeps = World(chooses=kind != "any"), kind == "keeps records"
    with TemporaryDirectory() as folder:
        records = {name: Records(Path(folder, name)) for name in ("one", "two")}
        for number, step in enumerate(all_steps):
            world.time += timedelta(hours=1)
            match step:
                case Meddles():
                    meddle(world, step)
                case Forgets() if not keeps:
                    world.forgotten |= set(records[step.project].known().pending_restarts)
                    records[step.project] = Records(Path(folder, f"{step.project} {number}"))
                case Deploys():
                    deploy(world, records[step.project], step)
                    if keeps:
                        world.claims = claims_of(records)


def claims_of(records: Mapping[str, Records]) -> dict[UUID, dict[str, int]]:
    """Return which project has what, as a cluster that keeps their records tells it."""
    claims: dict[UUID, dict[str, int]] = {}
    for project, kept in records.items():
        for last in kept.history()[-1:]:
            for thing in (*last.bots, *last.groups.values()):
                if thing.id is not None:
                    claims.setdefault(thing.id, {})[project] = thing.claim
    return claims


def deploy(world: World, records: Records, step: Deploys) -> None:
    """Deploy, and check that the plan is safe, and that the cluster is as it should be once it is carried out."""
    wanted, known = replace(narrowed(step), identity=step.project), records.known()
    try:
        plan = make_plan(wanted, world.state, known, VALUES, step.options)
    except DeployError:
        return
    assert fingerprint(world.state, plan.looked_at, known.last) == plan.state
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    if plan.refused:
        return
    check_safe(world, plan, step, wanted, identify(known, world.state))
    if not carry_out(world, plan, records, step) or not step.options.restart or step.options.keep_drift:
        return
    check_reached(world, plan, step, wanted)
    again = replace(step.options, push_variables=False, force=False)
    assert not make_plan(wanted, world.state, records.known(), VALUES, again).writes
