"""A plan carried out against the local cluster's application."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.deployment.apply import ApplyOptions, apply_plan
from ape_silverback.deployment.deployer import Deployer
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.journal import ActionJournal
from ape_silverback.deployment.plan import Plan, PlanOptions, RemoveBot, RestartBot, StartBot, UpdateBot
from ape_silverback.deployment.state import LocalState
from ape_silverback.deployment.wait import Timing
from ape_silverback.exceptions import DeployError
from tests.cluster.server import BOT, Reply, Request, answer, serving
from tests.deployment.conftest import QUICK, VALUES, Deploy, bot, wanted
from tests.server.machine import Cluster

pytestmark = pytest.mark.xdist_group("apply")
MACHINE = LocalState({name: f"key:{name}" for name in VALUES})


def runs(served: Cluster, name: str) -> dict[str, object]:
    """Return the configuration that a bot really runs with."""
    found: dict[str, object] = json.loads(served.runs_with(name)["configuration"])
    return found


def test_a_second_deployment_changes_nothing(deploy: Deploy, served: Cluster, deployer: Deployer) -> None:
    state = wanted(bot("a", environment=("rpc",)), bot("b"), rpc=("X",))
    assert deploy(state).ready == ["a", "b"]
    before = list(served.machine.starts)
    assert deploy(state).ready == ["a", "b"]
    assert served.machine.starts == before
    assert len(deployer.records.history()) == 1


def test_a_changed_bot_runs_with_its_new_configuration(deploy: Deploy, served: Cluster) -> None:
    deploy(wanted(bot("a")))
    assert deploy(wanted(bot("a", network="sepolia"))).succeeded
    assert runs(served, "a")["network"] == "sepolia"


def test_a_changed_group_reaches_the_bots_that_use_it_and_no_other(deploy: Deploy, served: Cluster) -> None:
    a, b = bot("a", environment=("rpc",)), bot("b")
    deploy(wanted(a, b, rpc=("X",)))
    began = len(served.machine.starts)
    deploy(wanted(a, b, rpc=("X", "Y")))
    assert served.runs_with("a")["Y"] == "y-1"
    assert served.machine.starts[began:] == [served.bot("a").id]


def test_pushed_values_reach_running_bots(deploy: Deploy, served: Cluster) -> None:
    state = wanted(bot("a", environment=("rpc",)), rpc=("X",))
    deploy(state)
    began = len(served.machine.starts)
    deploy(state)
    assert len(served.machine.starts) == began, "the same value is nothing to change"
    deploy(state, {"X": "x-2"})
    assert served.runs_with("a")["X"] == "x-2", "the record's fingerprint tells that the value changed"
    deploy(state, {"X": "x-2"}, plan_options=PlanOptions(push_variables=True))
    assert len(served.machine.starts) == began + 2


def test_a_renamed_bot_stays_the_same_bot(deploy: Deploy, served: Cluster, client: ClusterClient) -> None:
    deploy(wanted(bot("old")))
    before = client.bots["old"].id
    assert deploy(wanted(bot("new", renamed_from=("old",)))).succeeded
    assert {name: one.id for name, one in client.bots.items()} == {"new": before}


def test_pruning_removes_what_this_project_deployed_and_nothing_else(
    deploy: Deploy, client: ClusterClient, deployer: Deployer
) -> None:
    client.new_bot("stranger", "x/y:1", "ethereum", "mainnet", "node")
    client.new_variable_group("strange", {"A": "1"})
    deploy(wanted(bot("a"), bot("b", environment=("rpc",)), rpc=("X",)))
    assert set(client.bots) == {"a", "b", "stranger"}
    assert deploy(wanted(bot("a"))).succeeded
    assert set(client.bots) == {"a", "b", "stranger"}
    assert deploy(wanted(bot("a")), plan_options=PlanOptions(prune=True)).succeeded
    assert (set(client.bots), set(client.variable_groups)) == ({"a", "stranger"}, {"strange"})
    assert [one.name for one in deployer.records.known().bots] == ["a"]
    assert not deployer.plan(wanted(bot("a")), MACHINE, PlanOptions(prune=True)).writes


def test_a_protected_bot_is_not_removed_and_nothing_else_is_done(deploy: Deploy, client: ClusterClient) -> None:
    deploy(wanted(bot("a"), bot("b", protect=True)))
    with pytest.raises(DeployError, match="bot 'b' is protected"):
        deploy(wanted(bot("a", network="sepolia")), plan_options=PlanOptions(prune=True))
    assert client.bots["a"].network == "mainnet"
    deploy(wanted(bot("a"), bot("b")))
    deploy(wanted(bot("a")), plan_options=PlanOptions(prune=True))
    assert set(client.bots) == {"a"}


def test_a_restart_that_was_left_out_is_done_by_the_next_deployment(deploy: Deploy, served: Cluster) -> None:
    a, changed = bot("a", environment=("rpc",)), bot("a", environment=("rpc",), network="sepolia")
    deploy(wanted(a, rpc=("X",)))
    deploy(wanted(changed, rpc=("X", "Y")), plan_options=PlanOptions(restart=False))
    assert runs(served, "a")["network"] == "mainnet"
    deploy(wanted(changed, rpc=("X", "Y")), plan_options=PlanOptions(restart=False))
    assert runs(served, "a")["network"] == "mainnet"
    deploy(wanted(changed, rpc=("X", "Y")))
    assert (runs(served, "a")["network"], served.runs_with("a")["Y"]) == ("sepolia", "y-1")
    began = len(served.machine.starts)
    deploy(wanted(changed, rpc=("X", "Y")))
    assert len(served.machine.starts) == began


def test_force_restarts_what_needs_nothing(deploy: Deploy, served: Cluster) -> None:
    deploy(wanted(bot("a"), bot("b")))
    began = len(served.machine.starts)
    assert deploy(wanted(bot("a"), bot("b")), plan_options=PlanOptions(force=True)).succeeded
    assert len(served.machine.starts) == began + 2


def test_rolling_restarts_some_after_the_others(deploy: Deploy, served: Cluster) -> None:
    names = ["a", "b", "c", "d", "e"]
    deploy(wanted(*map(bot, names)))
    unavailable: list[int] = []
    order: list[tuple[str, str]] = []

    def look(event: Event) -> None:
        order.append((event.kind, event.name))
        unavailable.append(sum(not process.alive for process in served.machine.processes.values()))

    changed = wanted(*(bot(name, network="sepolia") for name in names))
    assert deploy(changed, on_event=look, max_unavailable=2).succeeded
    assert max(unavailable) <= 2
    kinds = [kind for kind, _ in order if kind in ("applied", "ready")]
    assert kinds == ["applied"] * 2 + ["ready"] * 2 + ["applied"] * 2 + ["ready"] * 2 + ["applied", "ready"]


@pytest.mark.parametrize("most", [None, 1], ids=["all at once", "one after the other"])
def test_bots_that_swap_accounts_never_sign_with_one_at_once(deploy: Deploy, served: Cluster, most: int | None) -> None:
    deploy(wanted(bot("a", account="me"), bot("b", account="you"), bot("c", account="third"), bot("d")))
    served.machine.stubborn, served.machine.twice = True, []
    try:
        swapped = (
            bot("a", account="you"),
            bot("b", account="third"),
            bot("c"),
            bot("d", network="sepolia"),
            bot("e", account="me"),
        )
        result = deploy(wanted(*swapped), max_unavailable=most)
    finally:
        served.machine.stubborn = False
    assert result.ready == ["a", "b", "c", "d", "e"]
    assert served.machine.twice == []
    assert [runs(served, name)["account"] for name in "abce"] == ["you", "third", None, "me"]


def test_an_account_that_was_taken_over_is_not_given_back(deploy: Deploy, served: Cluster) -> None:
    deploy(wanted(bot("a", account="me"), bot("b")))
    served.machine.crashing = {"bad:1"}
    result = deploy(wanted(bot("a", image="bad:1"), bot("b", account="me")), rollback=True)
    assert "b" in result.ready
    assert "can't be rolled back: b took over its account" in [one.text for one in result.failures if one.name == "a"]


def test_one_failure_stops_nothing(deploy: Deploy, served: Cluster) -> None:
    served.machine.crashing = {"broken:1"}
    result = deploy(wanted(*(bot(name, image="broken:1" if name == "b" else "fine:1") for name in "abcd")))
    assert (result.named("failed"), sorted(result.named("ready"))) == (["b"], ["a", "c", "d"])


def test_fail_fast_begins_nothing_more(deploy: Deploy, served: Cluster) -> None:
    deploy(wanted(*map(bot, "abcdef")))
    served.machine.crashing = {"broken:1"}
    changed = wanted(*(bot(name, image="broken:1" if name == "c" else "fine:1") for name in "abcdef"))
    result = deploy(changed, fail_fast=True, max_unavailable=1)
    assert (result.named("ready"), result.named("failed")) == (["a", "b"], ["c"])
    assert sorted(result.named("skipped")) == ["d", "e", "f"]
    assert [runs(served, name)["image"] for name in "abd"] == ["fine:1", "fine:1", "registry.example/app:1"]
    served.machine.crashing = set()
    assert deploy(changed).succeeded, "the same deployment again does the rest"


def test_what_somebody_else_changed_in_the_meantime_is_not_overwritten(
    deployer: Deployer, deploy: Deploy, client: ClusterClient
) -> None:
    deploy(wanted(bot("a"), bot("b")))
    plan = deployer.plan(wanted(bot("a", network="sepolia"), bot("b", network="sepolia")), MACHINE)
    client.bots["a"].update(network="holesky")
    events = list(deployer.apply(plan, VALUES, ApplyOptions(timing=QUICK)))
    [failed] = [event for event in events if event.kind == "failed"]
    assert (failed.name, failed.text) == ("a", "its network changed in the meantime; run deploy again")
    assert (client.bots["a"].network, client.bots["b"].network) == ("holesky", "sepolia")


def test_an_interrupt_finishes_what_is_under_way_and_begins_nothing_more(
    deployer: Deployer, client: ClusterClient
) -> None:
    plan = deployer.plan(wanted(*(bot(name) for name in "abcdef")), MACHINE)
    stop = threading.Event()
    events = []
    for event in deployer.apply(plan, VALUES, ApplyOptions(concurrency=1, timing=QUICK), stop=stop):
        events.append(event)
        stop.set()
    done = [event.name for event in events if event.kind == "applied"]
    assert 1 <= len(done) < 6
    assert set(client.bots) == set(done)
    last = {event.name: event.kind for event in events}
    assert {last[name] for name in set("abcdef") - set(done)} == {"skipped"}
    assert {last[name] for name in done} <= {"skipped", "ready"}
    assert not deployer.records.history()[-1].succeeded
    assert not deployer.records.unfinished()


def test_a_bot_has_to_stay_healthy_while_it_settles(deploy: Deploy, served: Cluster) -> None:
    def die(event: Event) -> None:
        if event.kind == "state" and event.text == "running":
            threading.Timer(0.15, lambda: served.die("a", 7)).start()

    result = deploy(wanted(bot("a")), on_event=die, timing=replace(QUICK, settle=0.6))
    [failure] = result.failures
    assert "exited with code 7" in failure.text


def test_a_start_is_posted_only_once_the_bot_has_stopped(tmp_path: Path) -> None:
    looks = 0

    def behave(request: Request) -> Reply:
        nonlocal looks
        if request.path == "/bots":
            return answer([BOT])
        if request.path.endswith("/status"):
            looks += 1
            return answer(int(ResourceStatus.SHUTDOWN if looks < 4 else ResourceStatus.STOPPED))
        strict = request.path.endswith("/start") and looks < 4
        return answer({"detail": "it is about to stop"}, 409) if strict else answer([])

    plan = Plan(
        project="app",
        cluster="here",
        actions=(StartBot(id=UUID(str(BOT["id"])), name=str(BOT["name"]), stopping=True),),
    )
    options = ApplyOptions(wait=False, timing=QUICK)
    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        events = list(apply_plan(plan, client, {}, options, ActionJournal(tmp_path / "journal")))
        assert server.lines.count(f"POST /bots/{BOT['id']}/start") == 1
    assert [event.kind for event in events] == ["state", "applied"]


def test_not_waiting_is_over_with_the_writes(deploy: Deploy, client: ClusterClient) -> None:
    result = deploy(wanted(bot("a"), bot("b")), wait=False)
    assert {event.kind for event in result.outcome.values()} == {"applied"}
    assert set(client.bots) == {"a", "b"}


# Going back


def test_a_bot_that_fails_after_a_change_gets_back_what_it_had(
    deploy: Deploy, served: Cluster, client: ClusterClient
) -> None:
    deploy(wanted(bot("a"), bot("b")))
    served.machine.crashing = {"broken:1"}
    result = deploy(wanted(bot("a", image="broken:1", account="me"), bot("b", network="sepolia")), rollback=True)
    assert (result.named("rolled-back"), result.named("ready")) == (["a"], ["b"])
    assert not result.succeeded
    assert (runs(served, "a")["image"], runs(served, "a")["account"]) == ("registry.example/app:1", None)
    assert client.bots["a"].is_healthy
    assert runs(served, "b")["network"] == "sepolia"


def test_a_group_goes_back_with_its_bots(deploy: Deploy, served: Cluster, client: ClusterClient) -> None:
    deploy(wanted(bot("a", environment=("rpc",)), rpc=("X", "Z")))
    served.machine.crashing = {"broken:1"}
    state = wanted(bot("a", environment=("rpc",), image="broken:1"), rpc=("X", "Y"))
    result = deploy(state, {"X": "x-9", "Y": "y-9", "Z": "z-9"}, rollback=True)
    assert sorted(result.named("rolled-back")) == ["a", "rpc"]
    assert {name: served.runs_with("a").get(name) for name in VALUES} == {"X": "x-9", "Y": None, "Z": "z-9"}
    assert "the old values of X aren't known" in result.outcome["rpc"].text


def test_a_group_that_others_run_well_with_stays(deploy: Deploy, served: Cluster) -> None:
    deploy(wanted(bot("a", environment=("rpc",)), bot("b", environment=("rpc",)), rpc=("X",)))
    served.machine.crashing = {"broken:1"}
    state = wanted(bot("a", environment=("rpc",), image="broken:1"), bot("b", environment=("rpc",)), rpc=("X", "Y"))
    result = deploy(state, rollback=True)
    assert result.named("rolled-back") == ["a"]
    assert "b runs well with them" in result.outcome["rpc"].text
    assert served.runs_with("b")["Y"] == "y-1"


def test_earlier_deployments_are_found_one_after_the_other(deploy: Deploy, deployer: Deployer) -> None:
    for network in ("mainnet", "sepolia", "holesky"):
        deploy(wanted(bot("a", network=network), bot("b")))
    record, state = deployer.earlier()
    assert (record.id, state.bots[0].configuration.network) == (2, "sepolia")
    assert deployer.earlier(to=1)[1].bots[0].configuration.network == "mainnet"
    assert [one.name for one in deployer.earlier(["a"], 1)[1].bots] == ["a"]
    with pytest.raises(DeployError, match="no deployment 9; the history has: 1, 2, 3"):
        deployer.earlier(to=9)
    with pytest.raises(DeployError, match="deployment 1 has no bot c; it has: a, b"):
        deployer.earlier(["c"], 1)
    with pytest.raises(DeployError, match="no deployment before 3 succeeded and differs"):
        deployer.earlier(["b"])


def test_a_deployment_that_did_not_end_well_is_none_to_go_back_to(
    deploy: Deploy, deployer: Deployer, served: Cluster
) -> None:
    deploy(wanted(bot("a")))
    served.machine.crashing = {"broken:1"}
    assert not deploy(wanted(bot("a", image="broken:1"))).succeeded
    deploy(wanted(bot("a", network="sepolia")))
    assert deployer.earlier()[0].id == 1


# What is remembered


def test_one_deployment_of_a_project_to_a_cluster_at_a_time(deployer: Deployer) -> None:
    code = (
        "import sys; from pathlib import Path; from ape_silverback.deployment.history import Records\n"
        "with Records(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(deployer.records.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = rf"by .+@.+, process {other.pid}, since \d{{4}}-"
        with pytest.raises(DeployError, match=said), deployer.lock():
            pass
        other.kill()
    with deployer.lock():
        pass


def test_what_is_remembered_has_no_values_and_is_for_the_owner_only(deploy: Deploy, deployer: Deployer) -> None:
    deploy(wanted(bot("a", environment=("rpc",)), rpc=("X",)), {"X": "hunter-2"})
    files = [file for file in deployer.records.folder.rglob("*") if file.is_file()]
    assert {file.name for file in files} == {"history.jsonl", "journal.jsonl", "lock", "project.json"}
    for file in files:
        assert "hunter" not in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
    [record] = deployer.records.history()
    assert record.succeeded
    assert record.outcome == {
        "rpc": "applied: created variable group (X)",
        "a": "ready: running and healthy",
    }


def test_a_line_that_was_torn_is_left_out(deploy: Deploy, deployer: Deployer) -> None:
    deploy(wanted(bot("a")))
    with (deployer.records.folder / "history.jsonl").open("a") as file:
        file.write('{"id": 2, "ti')
    assert [record.id for record in deployer.records.history()] == [1]
    deploy(wanted(bot("a"), bot("b")))
    assert [(record.id, record.succeeded) for record in deployer.records.history()] == [(1, True), (2, True)]


def test_another_project_or_cluster_has_records_of_its_own(deployer: Deployer, client: ClusterClient) -> None:
    folder = deployer.records.folder.parent
    others = [
        Deployer.of(client, "here", cluster, "app", project, folder).records.folder
        for cluster, project in (("here", "the-app"), ("there", "the-app"), ("here", "other"), ("th", "e-apphere"))
    ]
    assert others[0] == deployer.records.folder
    assert len(set(others)) == 4


def test_a_plan_of_earlier_is_refused_once_the_cluster_has_moved(
    deploy: Deploy, deployer: Deployer, client: ClusterClient
) -> None:
    deploy(wanted(bot("a"), bot("b")))
    plan = deployer.plan(wanted(bot("a", network="sepolia"), bot("b")), MACHINE)
    read = Plan.model_validate_json(plan.model_dump_json())
    client.new_bot("stranger", "x/y:1", "ethereum", "mainnet", "node")
    deployer.check(read)
    client.bots["a"].update(account="somebody")
    with pytest.raises(DeployError, match="here has changed since the plan was made"):
        deployer.check(read)
    with pytest.raises(DeployError, match="the plan is for here, not for there"):
        replace(deployer, cluster="there", cluster_identity="there").check(read)
    with pytest.raises(DeployError, match="the plan is of another project: app \\(the-app\\), not app \\(other\\)"):
        replace(deployer, identity="other").check(read)


def test_a_removal_that_was_done_already_is_fine(deploy: Deploy, deployer: Deployer, client: ClusterClient) -> None:
    deploy(wanted(bot("a"), bot("b")))
    plan = deployer.plan(wanted(bot("a")), MACHINE, PlanOptions(prune=True))
    assert plan.of(RemoveBot)
    client.bots["b"].remove()
    assert [event.text for event in deployer.apply(plan, VALUES, ApplyOptions(timing=QUICK)) if event.name == "b"] == [
        "was removed already"
    ]


def test_a_bot_that_was_removed_in_the_meantime_fails(
    deploy: Deploy, deployer: Deployer, client: ClusterClient
) -> None:
    deploy(wanted(bot("a"), bot("b")))
    plan = deployer.plan(wanted(bot("a", network="sepolia"), bot("b")), MACHINE, PlanOptions(force=True))
    assert plan.of(UpdateBot)
    assert plan.of(RestartBot)
    for one in client.bots.values():
        one.remove()
    events = list(deployer.apply(plan, VALUES, ApplyOptions(timing=Timing(timeout=1, settle=0, poll=0.02))))
    assert {event.text for event in events} == {"it was removed from the cluster in the meantime; run deploy again"}


def test_a_cluster_that_keeps_the_record_tells_every_machine(
    client: ClusterClient, tmp_path: Path, served: Cluster
) -> None:
    def machine(name: str) -> Deployer:
        return Deployer.of(client, "here", "here", "app", "kept-app", tmp_path / name)

    def apply(deployer: Deployer, plan: Plan) -> None:
        list(deployer.apply(plan, VALUES, ApplyOptions(timing=QUICK)))

    laptop = machine("laptop")
    apply(laptop, laptop.plan(wanted(bot("a"), bot("b")), MACHINE))
    runner = machine("runner")
    assert [record.id for record in runner.records.history()] == [1]
    plan = runner.plan(wanted(bot("a")), MACHINE, PlanOptions(prune=True))
    assert [action.name for action in plan.of(RemoveBot)] == ["b"]
    behind = machine("laptop")
    late = behind.plan(wanted(bot("a", network="sepolia"), bot("b")), MACHINE)
    apply(runner, plan)
    with pytest.raises(DeployError, match="was recorded in the meantime; run deploy again"):
        apply(behind, late)
    assert client.bots["a"].network == "mainnet", "nothing was changed"
    assert [record.succeeded for record in machine("third").records.history()] == [True, True]
    assert not list((tmp_path / "laptop").rglob("history.jsonl"))


def test_a_rolling_restart_stops_when_no_more_bots_may_be_down(deploy: Deploy, served: Cluster) -> None:
    deploy(wanted(*map(bot, "abcdef")))
    served.machine.crashing = {"broken:1"}
    changed = wanted(*(bot(name, image="broken:1" if name == "b" else "fine:1") for name in "abcdef"))
    result = deploy(changed, max_unavailable=1)
    assert (result.named("ready"), result.named("failed")) == (["a"], ["b"])
    assert result.outcome["c"].text == "not started: b is down, and no more than 1 may be at once"
    assert result.versions == "with the change: a, b; as before: c, d, e, f"
    assert runs(served, "f")["image"] == "registry.example/app:1"
    again = deploy(changed, max_unavailable=1)
    assert again.outcome["c"].text == "not started: b is down, and no more than 1 may be at once", "as b was before"
    assert runs(served, "c")["image"] == "registry.example/app:1"
    served.machine.crashing = set()
    assert deploy(changed, max_unavailable=1).succeeded
