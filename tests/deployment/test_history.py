"""The record of deployments: a history of an earlier version, a moved project, a cut that another machine left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.deployment.history import IDENTITY, Records
from ape_silverback.deployment.lines import ClusterLines
from ape_silverback.deployment.plan import KeepBot, Orphan, PlanOptions, RemoveBot, RestartBot
from ape_silverback.deployment.planner import make_plan
from ape_silverback.deployment.record import Source
from ape_silverback.deployment.state import LiveBot, LiveState, LocalState
from ape_silverback.exceptions import UnexpectedAnswer
from tests.cluster.server import answer, in_turn, serving
from tests.deployment.conftest import bot, wanted

# Written by the version before: alpha and beta, then gamma for target `side`, then a change without restarts.
VERSION_1 = Path(__file__).parent / "history-version-1"
IDS = {
    "alpha": UUID("5864ea85-e645-4b9c-b4dd-43b81a42516c"),
    "beta": UUID("98f98a17-33ae-4cd6-9841-418884ee5034"),
    "gamma": UUID("c1fcac43-a790-4c11-9362-cfab202b846a"),
}
LOCAL = LocalState({"X": "key:x", "Y": "key:y"})
ALPHA, BETA = bot("alpha", environment=("rpc",)), bot("beta", network="sepolia")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(VERSION_1, tmp_path / "deployments")
    return tmp_path / "deployments"


@pytest.fixture
def live() -> LiveState:
    def there(name: str, configuration: BotConfiguration) -> LiveBot:
        return LiveBot(IDS[name], name, ResourceStatus.RUNNING, configuration)

    bots = {one.name: there(one.name, one.configuration) for one in (ALPHA, BETA, bot("gamma"))}
    from ape_silverback.deployment.state import LiveGroup

    return LiveState("cluster", bots, {"rpc": LiveGroup(UUID(int=1), "rpc", frozenset({"X", "Y"}))})


def test_a_history_of_the_version_before_goes_on_and_nothing_of_it_is_removed(root: Path, live: LiveState) -> None:
    before = {file: file.read_text() for file in root.rglob("*.jsonl")}
    records = Records.of(root, "shop", "git:example.org/shop", "https://cluster.example")
    known = records.known()
    assert {(one.name, one.target, one.confirmed) for one in known.bots} == {
        ("alpha", None, False),
        ("beta", None, False),
        ("gamma", "side", False),
    }
    assert [record.id for record in records.history()] == [1, 2, 3]

    pruned = make_plan(wanted(ALPHA, rpc=("X", "Y")), live, known, LOCAL, PlanOptions(prune=True))
    assert not pruned.of(RemoveBot)
    assert pruned.orphans == (Orphan(kind="bot", name="beta", confirmed=False),)
    assert "history of an earlier version" in pruned.warnings[0]

    plan = make_plan(wanted(ALPHA, BETA, rpc=("X", "Y")), live, known, LOCAL)
    assert {one.name: one.reason for one in plan.of(RestartBot)} == {
        "alpha": "variables of rpc change",
        "beta": "it was changed without a restart",
    }, "what the version before owed is still owed"
    record = records.begin(Source(), plan)
    records.end(record, plan, {}, known)
    assert record.id == 4
    assert [one.id for one in records.history()] == [1, 2, 3, 4]
    after = {one.name: one for one in records.known().bots}
    assert (after["alpha"].confirmed, after["alpha"].id, after["gamma"].confirmed) == (True, IDS["alpha"], False)
    assert {file: file.read_text() for file in before} == before, "the old files stay as they are"


def test_a_project_that_moved_finds_its_record_by_the_file_that_names_it(root: Path, live: LiveState) -> None:
    records = Records.of(root, "shop", "file:///home/me/old", "https://cluster.example")
    plan = make_plan(wanted(ALPHA, rpc=("X", "Y")), live, records.known(), LOCAL)
    records.end(records.begin(Source(), plan), plan, {}, records.known())
    moved = Records.of(root, "shop", "file:///home/me/new", "https://cluster.example")
    assert moved.folder != records.folder
    file = records.folder / IDENTITY
    about = json.loads(file.read_text())
    assert about == {"project": "file:///home/me/old", "cluster": "https://cluster.example", "name": "shop"}
    file.write_text(json.dumps({**about, "project": "file:///home/me/new"}))
    found = Records.of(root, "shop", "file:///home/me/new", "https://cluster.example")
    assert found.folder == records.folder
    assert found.known().last == 4


def test_a_cluster_that_gets_an_id_keeps_the_record_of_its_address(root: Path, live: LiveState) -> None:
    address, identity = "https://cluster.example", "5864ea85-e645-4b9c-b4dd-43b81a42516c"
    before = Records.of(root, "shop", "git:example.org/shop", address)
    plan = make_plan(wanted(ALPHA, rpc=("X", "Y")), live, before.known(), LOCAL)
    before.end(before.begin(Source(), plan), plan, {}, before.known())
    now = Records.of(root, "shop", "git:example.org/shop", identity, address=address)
    assert (now.folder, now.known().last) == (before.folder, 4)
    again = make_plan(wanted(ALPHA, rpc=("X", "Y")), live, now.known(), LOCAL)
    now.end(now.begin(Source(), again), again, {}, now.known())
    elsewhere = Records.of(root, "shop", "git:example.org/shop", identity, address="http://10.0.0.7:8000")
    assert (elsewhere.folder, [one.id for one in elsewhere.history()]) == (before.folder, [1, 2, 3, 4, 5])
    another = Records.of(root, "shop", "git:example.org/shop", str(UUID(int=7)), address=address)
    assert another.folder != before.folder, "another cluster at that address"


def test_what_another_machine_left_cut_off_is_owed_whole(tmp_path: Path, live: LiveState) -> None:
    records = Records.of(tmp_path, "shop", "shop", "cluster")
    first = make_plan(wanted(ALPHA, BETA, rpc=("X", "Y")), live, local=LOCAL, plan_options=PlanOptions(adopt=True))
    records.end(records.begin(Source(), first), first, {}, records.known())
    forced = make_plan(wanted(ALPHA, BETA, rpc=("X", "Y")), live, records.known(), LOCAL, PlanOptions(force=True))
    records.begin(Source(), forced)
    assert records.known().pending_restarts == {}, "here the journal tells that nothing was begun"
    records.journal.file.unlink()
    again = make_plan(wanted(ALPHA, BETA, rpc=("X", "Y")), live, records.known(), LOCAL)
    assert [one.name for one in again.of(RestartBot)] == ["alpha", "beta"]


def test_a_restart_by_hand_settles_what_was_owed(live: LiveState) -> None:
    from dataclasses import replace
    from datetime import datetime, timedelta, timezone

    from ape_silverback.deployment.state import PendingRestart, RecordedBot, RecordedState

    started = datetime(2026, 1, 1, tzinfo=timezone.utc)
    alpha = replace(live.bots["alpha"], started_at=started)
    state = replace(live, bots={"alpha": alpha})
    owed = {IDS["alpha"]: PendingRestart(reason="it was changed without a restart", started_at=started)}
    known = RecordedState((RecordedBot(name="alpha", id=IDS["alpha"], configuration=ALPHA.configuration),), {}, owed, 1)
    assert make_plan(wanted(ALPHA), state, known).of(RestartBot)
    by_hand = replace(alpha, started_at=started - timedelta(minutes=5))  # whatever the cluster's clock says
    assert make_plan(wanted(ALPHA), replace(state, bots={"alpha": by_hand}), known).of(KeepBot)


@pytest.mark.parametrize(
    "told", [[], {}, {"last": "x", "lines": []}, {"last": 1, "lines": 5}, {"last": 1, "lines": [5]}, {"last": None}]
)
def test_a_record_of_a_cluster_that_isnt_one_is_an_error(told: object) -> None:
    with (
        serving(in_turn(answer(told))) as server,
        ClusterClient(base_url=server.url) as client,
        pytest.raises(UnexpectedAnswer, match="isn't what the API promises"),
    ):
        ClusterLines(client, "project").read()
