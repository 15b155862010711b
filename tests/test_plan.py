"""The plan: what has to happen so that a cluster has what the project wants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.cluster.types import ResourceStatus
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
    RestartBot,
    StartBot,
    UpdateBot,
    UpdateGroup,
    make_plan,
)
from ape_silverback.desired import DesiredBot, DesiredGroup, DesiredState
from ape_silverback.exceptions import DeployError

SPACE = UUID("12345678-1234-4234-9234-123456789abc")


def bot(name: str = "a", **fields: Any) -> DesiredBot:
    values: dict[str, Any] = {
        "image": "registry.example/app-a:1",
        "ecosystem": "ethereum",
        "network": "sepolia",
        "provider": "node",
        "account": None,
        "environment": (),
        "credential_name": None,
        "cluster_access": False,
    }
    return DesiredBot(
        name=name, origin="here", module=name, **values | fields, origins=dict.fromkeys(DesiredBot.FIELDS, "here")
    )


def desired(*bots: DesiredBot, groups: dict[str, tuple[str, ...]] | None = None) -> DesiredState:
    declared = tuple(DesiredGroup(name, names, "variables") for name, names in (groups or {}).items())
    return DesiredState("app", Path("/app"), bots, declared)


def there(like: DesiredBot, status: ResourceStatus = ResourceStatus.RUNNING, **fields: Any) -> LiveBot:
    return LiveBot(uuid5(SPACE, like.name), like.name, status, like.configuration() | fields)


def live(*bots: LiveBot, groups: dict[str, set[str]] | None = None, **fields: Any) -> LiveState:
    known = {name: LiveGroup(uuid5(SPACE, name), name, frozenset(names)) for name, names in (groups or {}).items()}
    return LiveState("test", {bot.name: bot for bot in bots}, known, **fields)


def test_a_bot_that_is_not_there_is_created_with_its_whole_configuration() -> None:
    plan = make_plan(desired(bot()), live())
    assert plan.actions == (CreateBot(name="a", configuration=bot().configuration()),)


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
    state = live(there(bot(), environment=["two", "one"]), groups=groups)
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


# What follows holds for any project and any cluster.

names = st.sampled_from(["a", "b", "c"])
group_names = st.sampled_from(["rpc", "db"])
variables = st.frozensets(st.sampled_from(["X", "Y", "Z"]), min_size=1)
statuses = st.sampled_from([ResourceStatus.RUNNING, ResourceStatus.STARTUP, ResourceStatus.STOPPED])
fields = st.fixed_dictionaries(
    {
        "network": st.sampled_from(["sepolia", "mainnet"]),
        "account": st.none() | st.just("deployer"),
        "environment": st.lists(group_names, unique=True).map(tuple),
        "credential_name": st.none() | st.just("hub"),
        "cluster_access": st.booleans(),
    }
)
desired_states = st.builds(
    lambda bots, groups: desired(
        *(bot(name, **values) for name, values in bots.items()),
        groups={name: tuple(sorted(members)) for name, members in groups.items()},
    ),
    st.dictionaries(names, fields, min_size=1),
    st.fixed_dictionaries({"rpc": variables, "db": variables}),
)
live_states = st.builds(
    lambda bots, groups: live(
        *(there(bot(name, **values), status) for name, (values, status) in bots.items()),
        groups=groups,
        credentials={"hub": "cred-1"},
    ),
    st.dictionaries(names, st.tuples(fields, statuses)),
    st.dictionaries(group_names, variables),
)


def applied(plan: Plan, state: LiveState) -> LiveState:
    """Do to a model of a cluster what a plan says."""
    bots, groups = dict(state.bots), dict(state.groups)
    for action in plan.actions:
        identity = uuid5(SPACE, action.name)
        match action:
            case CreateGroup():
                groups[action.name] = LiveGroup(identity, action.name, frozenset(action.variables))
            case UpdateGroup():
                members = groups[action.name].variables
                groups[action.name] = LiveGroup(identity, action.name, (members | {*action.add}) - {*action.remove})
            case CreateBot():
                assert action.name not in bots
                bots[action.name] = LiveBot(identity, action.name, ResourceStatus.RUNNING, action.configuration)
            case UpdateBot():
                changes = {change.field: change.new for change in action.changes}
                old = bots[action.name]
                configuration = {**old.configuration, **changes}
                bots[action.name] = LiveBot(identity, action.name, ResourceStatus.RUNNING, configuration)
            case _:
                bots[action.name] = replace(bots[action.name], status=ResourceStatus.RUNNING)
    return replace(state, bots=bots, groups=groups)


@given(desired_states, live_states)
def test_applying_a_plan_reaches_what_the_project_wants_and_planning_again_gives_nothing(
    wanted: DesiredState, state: LiveState
) -> None:
    after = applied(make_plan(wanted, state, {"X", "Y", "Z"}), state)
    for one in wanted.bots:
        assert after.bots[one.name].configuration == one.configuration()
        assert after.bots[one.name].status in ACTIVE
    for group in wanted.groups:
        assert after.groups[group.name].variables == set(group.variables)
    assert not make_plan(wanted, after, {"X", "Y", "Z"}).writes


@given(desired_states, live_states)
def test_a_plan_touches_nothing_outside_the_project(wanted: DesiredState, state: LiveState) -> None:
    ours = {one.name for one in wanted.bots} | {group.name for group in wanted.groups}
    assert {action.name for action in make_plan(wanted, state, {"X", "Y", "Z"}).actions} <= ours


@given(desired_states, live_states)
def test_a_plan_survives_being_written_down(wanted: DesiredState, state: LiveState) -> None:
    plan = make_plan(wanted, state, {"X", "Y", "Z"})
    assert Plan.model_validate_json(plan.model_dump_json()).model_dump(mode="json") == plan.model_dump(mode="json")
