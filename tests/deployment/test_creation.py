"""A deployment that was cut off while it created something: what of the cluster is its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import ResourceStatus, RestartPolicy
from ape_silverback.deployment.creation import identify, with_creations
from ape_silverback.deployment.deployer import Deployer
from ape_silverback.deployment.plan import CreateBot, CreateGroup, KeepBot, Plan, PlanOptions
from ape_silverback.deployment.record import UNKNOWN_SOURCE
from ape_silverback.deployment.state import (
    LiveBot,
    LiveGroup,
    LiveState,
    LocalState,
    RecordedBot,
    RecordedGroup,
    RecordedState,
)
from tests.deployment.conftest import Deploy, bot, wanted

pytestmark = pytest.mark.xdist_group("apply")
LOCAL = LocalState({"X": "key:x"})
STATE = wanted(bot("a", environment=("rpc",)), rpc=("X",))
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def begin(deployer: Deployer) -> Plan:
    """Begin a deployment, and end before its first request."""
    plan = with_creations(deployer.plan(STATE, LOCAL), deployer.records.known(), choose_ids=True)
    deployer.records.begin(UNKNOWN_SOURCE, plan)
    return plan


def journal(deployer: Deployer, client: ClusterClient) -> None:
    """Begin the creations, as if they were cut off there."""
    deployer.records.journal.begin_action("create-group", "rpc", {}, client.cluster_time())
    deployer.records.journal.begin_action("create", "a", {}, client.cluster_time())


def create(client: ClusterClient, plan: Plan) -> None:
    [group], [made] = plan.of(CreateGroup), plan.of(CreateBot)
    client.new_variable_group(group.name, {"X": "x"}, identity=group.id)
    client.new_bot(made.name, **dict(made.configuration), identity=made.id)


def create_unheard(deployer: Deployer, client: ClusterClient) -> UUID:
    """Begin a deployment that creates everything and hears no answer; return the id of its bot."""
    plan = begin(deployer)
    [made] = plan.of(CreateBot)
    journal(deployer, client)
    create(client, plan)
    assert made.id is not None
    return made.id


@pytest.mark.parametrize("was_begun", [False, True])
def test_what_another_project_made_since_isnt_taken_for_its_own(
    deployer: Deployer, client: ClusterClient, was_begun: bool
) -> None:
    plan = begin(deployer)
    if was_begun:
        journal(deployer, client)
    create(client, with_creations(plan, RecordedState(), choose_ids=True))
    client.bots["a"].stop()
    again = deployer.plan(STATE, LOCAL, PlanOptions(push_variables=True))
    assert again.strangers == ("a", "variable group rpc")
    assert ("nothing proves that the bot of this name is the one" in " ".join(again.warnings)) == was_begun


def test_what_it_made_itself_is_its_own_though_no_answer_came(
    deployer: Deployer, client: ClusterClient, deploy: Deploy
) -> None:
    made = create_unheard(deployer, client)
    again = deployer.plan(STATE, LOCAL, PlanOptions(push_variables=True))
    assert (again.strangers, again.of(CreateBot)) == ((), ())
    assert deploy(STATE).succeeded
    assert [one.id for one in client.bots.values()] == [made]
    assert not deployer.plan(STATE, LOCAL).writes


def test_a_creation_that_arrives_late_is_met_with_its_own_id(
    deployer: Deployer, client: ClusterClient, deploy: Deploy
) -> None:
    plan = begin(deployer)
    [made] = plan.of(CreateBot)
    journal(deployer, client)
    assert deploy(STATE).succeeded
    assert client.bots["a"].id == made.id


def test_what_was_made_without_an_answer_and_removed_by_hand_is_made_anew(
    deployer: Deployer, client: ClusterClient, deploy: Deploy
) -> None:
    made = create_unheard(deployer, client)
    client.bots["a"].remove()
    assert deploy(STATE).succeeded, "an id is used once"
    assert client.bots["a"].id != made


def test_a_new_bot_gets_its_restart_policy(deploy: Deploy, client: ClusterClient) -> None:
    policy = RestartPolicy(max_restarts=2)
    assert deploy(wanted(bot("a", restart=policy))).succeeded
    assert client.bots["a"].restart == policy


# A cluster that chooses the ids itself


@pytest.mark.parametrize(
    ("begun", "created", "is_ours"),
    [
        (NOON, NOON + timedelta(seconds=20), True),
        (NOON, NOON.replace(tzinfo=None), True),
        (NOON, NOON + timedelta(minutes=10), False),
        (NOON, NOON - timedelta(minutes=1), False),
        (NOON, None, False),
        (None, NOON, False),
    ],
)
def test_elsewhere_only_what_came_into_being_during_the_request_counts(
    begun: datetime | None, created: datetime | None, is_ours: bool
) -> None:
    [one] = STATE.bots
    live = LiveBot(uuid4(), "a", ResourceStatus.RUNNING, one.configuration, created=created)
    group = LiveGroup(uuid4(), "rpc", frozenset({"X"}), created)
    recorded = RecordedState(
        (RecordedBot(name="a", configuration=one.configuration, creating=True, begun=begun),),
        {"rpc": RecordedGroup(variables=("X",), creating=True, begun=begun)},
        last=1,
    )
    found = identify(recorded, LiveState("cluster", {"a": live}, {"rpc": group}))
    assert (found.bots[0].id == live.id, "rpc" in found.groups) == (is_ours, is_ours)
    other = replace(live, configuration=one.configuration.model_copy(update={"network": "sepolia"}))
    found = identify(recorded, LiveState("cluster", {"a": other}, {"rpc": replace(group, variables=frozenset("Y"))}))
    assert (found.bots[0].id, dict(found.groups)) == (None, {})


def test_a_creation_that_the_cluster_refused_claims_nothing(
    deploy: Deploy, deployer: Deployer, client: ClusterClient
) -> None:
    plan = deployer.plan(wanted(bot("a")))
    client.new_bot("a", **dict(bot("a").configuration))  # between the plan and its application
    events = list(deployer.apply(plan, {}))
    assert any(event.kind == "failed" and "'a'" in event.text for event in events)
    again = deployer.plan(wanted(bot("a", network="sepolia")))
    assert again.strangers == ("a",)
    assert deployer.plan(wanted(bot("a")), plan_options=PlanOptions(adopt=True)).of(KeepBot)
