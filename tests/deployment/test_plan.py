"""The plan: what has to happen so that a cluster has what the project wants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.deployment.plan import (
    ACTIVE,
    Change,
    CreateBot,
    CreateGroup,
    KeepBot,
    LiveBot,
    LiveGroup,
    LiveState,
    Plan,
    PlanOptions,
    RecordedBot,
    RecordedState,
    RemoveBot,
    RemoveGroup,
    RestartBot,
    StartBot,
    UpdateBot,
    UpdateGroup,
    fingerprint,
    make_plan,
)
from ape_silverback.exceptions import DeployError
from ape_silverback.project.desired import DesiredBot, DesiredGroup, DesiredState

SPACE = UUID("12345678-1234-4234-9234-123456789abc")


def bot(name: str = "a", **fields: Any) -> DesiredBot:
    values = {"image": "registry.example/app-a:1", "ecosystem": "ethereum", "network": "sepolia", "provider": "node"}
    others = {name: fields.pop(name) for name in ("protect", "renamed_from") if name in fields}
    others |= {"renamed_from": (old,) if isinstance(old := others.get("renamed_from"), str) else ()}
    configuration = BotConfiguration.model_validate(values | fields)
    origins = dict.fromkeys(BotConfiguration.model_fields, "here")
    return DesiredBot(name, "here", name, configuration, origins, **others)


def desired(*bots: DesiredBot, groups: dict[str, tuple[str, ...]] | None = None) -> DesiredState:
    declared = tuple(DesiredGroup(name, names, "variables") for name, names in (groups or {}).items())
    return DesiredState("app", Path("/app"), bots, declared)


def there(like: DesiredBot, status: ResourceStatus = ResourceStatus.RUNNING, **fields: Any) -> LiveBot:
    return LiveBot(uuid5(SPACE, like.name), like.name, status, like.configuration.model_copy(update=fields))


def live(*bots: LiveBot, groups: dict[str, set[str]] | None = None, **fields: Any) -> LiveState:
    known = {name: LiveGroup(uuid5(SPACE, name), name, frozenset(names)) for name, names in (groups or {}).items()}
    return LiveState("test", {bot.name: bot for bot in bots}, known, **fields)


def test_a_bot_that_is_not_there_is_created_with_its_whole_configuration() -> None:
    plan = make_plan(desired(bot()), live())
    assert plan.actions == (CreateBot(name="a", configuration=bot().configuration),)


def test_a_bot_that_is_as_it_should_be_is_kept() -> None:
    plan = make_plan(desired(bot()), live(there(bot())))
    assert plan.actions == (KeepBot(id=uuid5(SPACE, "a"), name="a"),)
    assert not plan.writes


def test_a_changed_field_is_told_with_old_and_new_and_a_running_bot_is_restarted() -> None:
    plan = make_plan(desired(bot(network="mainnet")), live(there(bot())))
    assert plan.actions == (
        UpdateBot(
            id=uuid5(SPACE, "a"),
            name="a",
            changes=(Change(field="network", old="sepolia", new="mainnet"),),
            runs=True,
            restart=True,
        ),
    )


def test_a_stopped_bot_that_changes_needs_no_restart() -> None:
    [action] = make_plan(desired(bot(network="mainnet")), live(there(bot(), ResourceStatus.STOPPED))).actions
    assert isinstance(action, UpdateBot)
    assert not action.restart


def test_a_stopped_bot_that_is_as_it_should_be_is_started() -> None:
    plan = make_plan(desired(bot()), live(there(bot(), ResourceStatus.STOPPED)))
    assert plan.actions == (StartBot(id=uuid5(SPACE, "a"), name="a"),)


def test_taking_an_account_away_is_a_change_to_nothing() -> None:
    [action] = make_plan(desired(bot(account=None)), live(there(bot(), account="deployer"))).actions
    assert isinstance(action, UpdateBot)
    assert action.changes == (Change(field="account", old="deployer", new=None),)


@pytest.mark.parametrize("answer", ["hub", "cred-1"])
def test_a_credential_is_the_same_by_its_name_and_by_its_id(answer: str) -> None:
    state = live(there(bot(), credential_name=answer), credentials={"hub": "cred-1"})
    assert not make_plan(desired(bot(credential_name="hub")), state).writes


def test_the_order_of_groups_matters_since_the_later_wins() -> None:
    groups = {"one": {"A"}, "two": {"A"}}
    state = live(there(bot(), environment=("two", "one")), groups=groups)
    [action] = make_plan(desired(bot(environment=("one", "two"))), state).actions
    assert isinstance(action, UpdateBot)


def test_a_declared_group_that_is_not_there_is_created_before_the_bots() -> None:
    plan = make_plan(desired(bot(environment=("rpc",)), groups={"rpc": ("KEY",)}), live(), {"KEY"})
    assert plan.actions[0] == CreateGroup(name="rpc", variables=("KEY",))
    assert isinstance(plan.actions[1], CreateBot)


def test_a_group_with_other_variables_is_updated_and_its_running_bots_restarted() -> None:
    wanted = bot(environment=("rpc",))
    plan = make_plan(desired(wanted, groups={"rpc": ("NEW",)}), live(there(wanted), groups={"rpc": {"OLD"}}), {"NEW"})
    assert plan.actions == (
        UpdateGroup(id=uuid5(SPACE, "rpc"), name="rpc", add=("NEW",), remove=("OLD",)),
        RestartBot(id=uuid5(SPACE, "a"), name="a", reason="variables of rpc change"),
    )
    assert "rpc" in plan.unknown[0]


def test_a_group_of_the_cluster_that_the_project_does_not_declare_is_used_as_it_is() -> None:
    plan = make_plan(desired(bot(environment=("shared",))), live(groups={"shared": {"X"}}))
    assert [action.kind for action in plan.actions] == ["create"]


def test_all_problems_of_all_bots_are_told_at_once() -> None:
    wanted = desired(
        bot("a", environment=("nowhere",)),
        bot("b", credential_name="hub"),
        bot("c", environment=("rpc",)),
        groups={"rpc": ("KEY",)},
    )
    with pytest.raises(DeployError) as error:
        make_plan(wanted, live(credentials={"other": "1"}))
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "a: variable group 'nowhere'" in lines[0]
    assert "b: the cluster has no registry credential 'hub'" in lines[1]
    assert "other" in lines[1]
    assert "variable 'KEY' of group 'rpc'" in lines[2]


def test_bots_of_the_cluster_that_are_not_in_the_project_are_left_alone() -> None:
    plan = make_plan(desired(bot("a")), live(there(bot("a")), there(bot("stranger"))))
    assert [action.name for action in plan.actions] == ["a"]


def test_what_only_earlier_deployments_made_is_removed_when_it_is_asked_for() -> None:
    state = live(there(bot("a")), there(bot("b")), there(bot("stranger")), groups={"rpc": {"X"}, "other": {"X"}})
    known = RecordedState(
        bots={"b": RecordedBot.of(bot("b")), "gone": RecordedBot.of(bot("gone"))}, groups={"rpc": ("X",)}
    )
    assert not make_plan(desired(bot("a")), state, known=known).writes
    plan = make_plan(desired(bot("a")), state, known=known, plan_options=PlanOptions(prune=True))
    assert plan.writes == (
        RemoveBot(id=uuid5(SPACE, "b"), name="b"),
        RemoveGroup(id=uuid5(SPACE, "rpc"), name="rpc"),
    )
    assert (set(plan.bots), set(plan.leaving)) == ({"a"}, {"b"})


def test_a_protected_bot_is_shown_to_be_removed_and_the_plan_is_refused() -> None:
    known = RecordedState(bots={"b": RecordedBot.of(bot("b", protect=True))})
    plan = make_plan(desired(bot("a")), live(there(bot("b"))), known=known, plan_options=PlanOptions(prune=True))
    assert RemoveBot(id=uuid5(SPACE, "b"), name="b", protected=True) in plan.actions
    assert "bot 'b' is protected" in plan.refused[0]
    assert not make_plan(desired(bot("a")), live(there(bot("b"))), known=known).refused


def test_a_group_that_a_strange_bot_uses_is_not_removed() -> None:
    state = live(there(bot("stranger", environment=("rpc",))), groups={"rpc": {"X"}})
    known = RecordedState(groups={"rpc": ("X",)})
    with pytest.raises(DeployError, match="'rpc' can't be removed: stranger of the cluster uses it"):
        make_plan(desired(bot("a")), state, known=known, plan_options=PlanOptions(prune=True))


def test_a_renamed_bot_is_changed_and_not_made_anew() -> None:
    plan = make_plan(desired(bot("new", renamed_from="old")), live(there(bot("old"))))
    [action] = plan.actions
    assert isinstance(action, UpdateBot)
    assert (action.id, action.changes) == (uuid5(SPACE, "old"), (Change(field="name", old="old", new="new"),))
    again = make_plan(desired(bot("new", renamed_from="old")), live(there(bot("new"))))
    assert not again.writes


@pytest.mark.parametrize(
    ("bots", "says"),
    [
        ((bot("a"), bot("a")), "two bots are called 'a'"),
        ((bot("a", renamed_from="b"), bot("b")), "renamed-from 'b', which is a bot of the project"),
        ((bot("c", renamed_from="b"), bot("d", renamed_from="b")), "two bots are renamed-from 'b'"),
    ],
)
def test_names_that_clash_are_refused(bots: tuple[DesiredBot, ...], says: str) -> None:
    with pytest.raises(DeployError, match=says):
        make_plan(desired(*bots), live(there(bot("b"))))


def test_a_restart_that_is_owed_is_done_and_one_that_isnt_wanted_is_told() -> None:
    known = RecordedState(pending_restarts={str(uuid5(SPACE, "a")): "it was changed without a restart"})
    plan = make_plan(desired(bot()), live(there(bot())), known=known)
    assert plan.writes == (RestartBot(id=uuid5(SPACE, "a"), name="a", reason="it was changed without a restart"),)
    left = make_plan(desired(bot()), live(there(bot())), known=known, plan_options=PlanOptions(restart=False))
    assert left.actions == (KeepBot(id=uuid5(SPACE, "a"), name="a", owes="it was changed without a restart"),)


def test_a_bot_that_needs_nothing_is_restarted_when_it_is_forced() -> None:
    state = live(there(bot("a")), there(bot("b"), ResourceStatus.STOPPED))
    plan = make_plan(desired(bot("a"), bot("b")), state, plan_options=PlanOptions(force=True))
    assert [action.kind for action in plan.actions] == ["restart", "start"]


def test_values_of_variables_that_are_there_are_sent_when_it_is_asked_for() -> None:
    wanted = desired(bot(environment=("rpc",)), groups={"rpc": ("X", "Y")})
    state = live(there(bot(environment=("rpc",))), groups={"rpc": {"X", "Z"}})
    plan = make_plan(wanted, state, {"X", "Y"}, plan_options=PlanOptions(push_variables=True))
    assert plan.actions[0] == UpdateGroup(id=uuid5(SPACE, "rpc"), name="rpc", add=("Y",), push=("X",), remove=("Z",))
    assert (plan.needs, plan.unknown) == ({"X", "Y"}, ())
    with pytest.raises(DeployError, match="variable 'X' of group 'rpc'"):
        make_plan(wanted, state, {"Y"}, plan_options=PlanOptions(push_variables=True))


def test_more_bots_than_are_paid_for_is_a_warning() -> None:
    state = live(there(bot("a")), limit=2)
    assert not make_plan(desired(bot("a"), bot("b")), state).warnings
    [warning] = make_plan(desired(bot("a"), bot("b"), bot("c")), state).warnings
    assert warning.startswith("3 bots would be on the cluster, which is paid for 2")


def test_a_fingerprint_tells_whether_what_a_plan_looked_at_has_moved() -> None:
    wanted = desired(bot("a", environment=("rpc",)))
    state = live(there(bot("a", environment=("rpc",))), groups={"rpc": {"X"}, "other": {"X"}})
    plan = make_plan(wanted, state)
    same = live(there(bot("a", environment=("rpc",))), there(bot("z")), groups={"rpc": {"X"}, "other": {"Y"}})
    assert fingerprint(same, plan.looked_at) == plan.state
    for moved in (
        live(there(bot("a", environment=("rpc",), image="x/y:2")), groups={"rpc": {"X"}}),
        live(there(bot("a", environment=("rpc",)), ResourceStatus.STOPPED), groups={"rpc": {"X"}}),
        live(there(bot("a", environment=("rpc",))), groups={"rpc": {"X", "Y"}}),
        live(there(bot("a", environment=("rpc",)))),
        live(groups={"rpc": {"X"}}),
    ):
        assert fingerprint(moved, plan.looked_at) != plan.state


# What follows holds for any project and any cluster.

names = st.sampled_from(["a", "b", "c", "d"])
group_names = st.sampled_from(["rpc", "db"])
variables = st.frozensets(st.sampled_from(["X", "Y", "Z"]), min_size=1)
statuses = st.sampled_from([ResourceStatus.RUNNING, ResourceStatus.STARTUP, ResourceStatus.STOPPED])
live_fields = {
    "network": st.sampled_from(["sepolia", "mainnet"]),
    "account": st.none() | st.just("deployer"),
    "environment": st.lists(group_names, unique=True).map(tuple),
    "credential_name": st.none() | st.just("hub"),
    "cluster_access": st.booleans(),
}
fields = st.fixed_dictionaries(live_fields)
desired_fields = st.fixed_dictionaries(
    {**live_fields, "protect": st.booleans(), "renamed_from": st.none() | names | st.just("elder")}
)
desired_states = st.builds(
    lambda bots, groups: desired(
        *(bot(name, **values) for name, values in bots.items()),
        groups={
            name: tuple(sorted(members))
            for name, members in groups.items()
            if any(name in values["environment"] for values in bots.values())
        },
    ),
    st.dictionaries(names, desired_fields, min_size=1),
    st.fixed_dictionaries({"rpc": variables, "db": variables}),
)
live_states = st.builds(
    lambda bots, groups: live(
        *(there(bot(name, **values), status) for name, (values, status) in bots.items()),
        groups=groups,
        credentials={"hub": "cred-1"},
    ),
    st.dictionaries(names | st.sampled_from(["elder", "stranger"]), st.tuples(fields, statuses)),
    st.dictionaries(group_names, variables),
)
remembered = st.builds(
    lambda bots, groups, pending_restarts: RecordedState(
        {name: RecordedBot.of(bot(name, protect=protect)) for name, protect in bots.items()},
        dict.fromkeys(groups, ("X",)),
        dict.fromkeys((str(uuid5(SPACE, name)) for name in pending_restarts), "it is owed"),
    ),
    st.dictionaries(names | st.just("elder"), st.booleans()),
    st.frozensets(group_names),
    st.frozensets(names),
)
wished = st.builds(PlanOptions, st.booleans(), st.booleans(), st.booleans(), st.booleans())
VALUES = {"X", "Y", "Z"}


def planned(wanted: DesiredState, state: LiveState, known: RecordedState, plan_options: PlanOptions) -> Plan:
    """Make a plan, of what can be planned."""
    try:
        return make_plan(wanted, state, VALUES, known, plan_options)
    except DeployError as error:
        event(str(error).partition("'")[0])
        reject()


def applied(plan: Plan, state: LiveState) -> LiveState:
    """Do to a model of a cluster what a plan says."""
    bots, groups = dict(state.bots), dict(state.groups)
    for action in plan.actions:
        identity = uuid5(SPACE, action.name)
        match action:
            case CreateGroup():
                assert action.name not in groups
                groups[action.name] = LiveGroup(identity, action.name, frozenset(action.variables))
            case UpdateGroup():
                members = groups[action.name].variables
                assert not members & {*action.add}
                assert {*action.push, *action.remove} <= members
                groups[action.name] = LiveGroup(identity, action.name, (members | {*action.add}) - {*action.remove})
            case RemoveGroup():
                assert not any(action.name in one.configuration.environment for one in bots.values())
                del groups[action.name]
            case CreateBot():
                assert action.name not in bots
                bots[action.name] = LiveBot(identity, action.name, ResourceStatus.RUNNING, action.configuration)
            case UpdateBot():
                [old] = [one for one in bots.values() if one.id == action.id]
                assert {**dict(old.configuration), "name": old.name}.items() >= action.old.items()
                del bots[old.name]
                assert action.name not in bots
                new = {key: value for key, value in action.new.items() if key != "name"}
                bots[action.name] = LiveBot(
                    action.id, action.name, ResourceStatus.RUNNING, old.configuration.model_copy(update=new)
                )
            case RemoveBot():
                del bots[action.name]
            case _:
                bots[action.name] = replace(bots[action.name], status=ResourceStatus.RUNNING)
    return replace(state, bots=bots, groups=groups)


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(desired_states, live_states, remembered, wished)
def test_applying_a_plan_reaches_what_the_project_wants_and_planning_again_gives_nothing(
    wanted: DesiredState, state: LiveState, known: RecordedState, plan_options: PlanOptions
) -> None:
    plan = planned(wanted, state, known, plan_options)
    after = applied(plan, state)
    for one in wanted.bots:
        assert after.bots[one.name].configuration == one.configuration
        assert after.bots[one.name].status in ACTIVE
    for group in wanted.groups:
        assert after.groups[group.name].variables == set(group.variables)
    then = RecordedState({**plan.bots, **plan.leaving}, plan.groups)
    assert not make_plan(wanted, after, VALUES, then, PlanOptions(prune=plan_options.prune)).writes


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(desired_states, live_states, remembered, wished)
def test_a_plan_touches_nothing_outside_the_project(
    wanted: DesiredState, state: LiveState, known: RecordedState, plan_options: PlanOptions
) -> None:
    plan = planned(wanted, state, known, plan_options)
    ours = {one.name for one in wanted.bots} | {group.name for group in wanted.groups}
    after = applied(plan, state)
    renamed = {name for one in wanted.bots for name in one.renamed_from}
    for name, one in state.bots.items():
        if name not in ours | renamed and not (plan_options.prune and name in known.bots):
            assert after.bots[name] == one
    for name, group in state.groups.items():
        if name not in ours and not (plan_options.prune and name in known.groups):
            assert after.groups[name] == group
    removed = {action.name for action in plan.of(RemoveBot)}
    assert removed <= (set(known.bots) - ours if plan_options.prune else set())
    if any(known.bots[name].protect for name in removed):
        assert plan.refused


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(desired_states, live_states, remembered, wished)
def test_a_plan_survives_being_written_down(
    wanted: DesiredState, state: LiveState, known: RecordedState, plan_options: PlanOptions
) -> None:
    plan = planned(wanted, state, known, plan_options)
    read = Plan.model_validate_json(plan.model_dump_json())
    assert read.model_dump(mode="json") == plan.model_dump(mode="json")
    assert fingerprint(state, read.looked_at) == read.state
