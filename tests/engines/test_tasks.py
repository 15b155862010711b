"""What a swarm's tasks mean for a bot: one that signs never counts as ended while a copy of it may run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.server.runtimes import Node
from ape_silverback.server.runtimes.tasks import BEFORE, ENDED, Task, Verdict, judge

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)


def node(name: str, state: str = "ready") -> Node:
    return Node(name, name.upper(), state, "active", manager=False, cpus=2, memory=2**30, engine="20.10")


def task(number: int, state: str, on: str | None = "a", exit_code: int | None = None, error: str | None = None) -> Task:
    created = (NOW + timedelta(seconds=number)).isoformat()
    return Task(f"task-{number}", state, created, on, NOW, state not in BEFORE, exit_code, error)


def judged(*tasks: Task, state: dict[str, Any], down: tuple[str, ...] = (), asked: bool = False) -> Verdict:
    nodes = {name: node(name, "down" if name in down else "ready") for name in ("a", "b")}
    return judge(tasks, nodes, state, asked=asked, there=bool(tasks), now=NOW)


SIGNER = {"signer": True, "node": "a"}
WATCHER = {"signer": False, "node": None}


def test_a_signer_whose_node_is_away_is_unreachable_since_then() -> None:
    seen = judged(task(1, "running"), state=SIGNER, down=("a",)).observation
    assert (seen.alive, seen.unreachable_since, seen.node) == (True, NOW, "A")
    assert seen.state == {**SIGNER, "unreachable_since": NOW.isoformat()}
    earlier = {**SIGNER, "unreachable_since": (NOW - timedelta(hours=1)).isoformat()}
    assert judged(task(1, "running"), state=earlier, down=("a",)).observation.unreachable_since == NOW - timedelta(
        hours=1
    )


def test_a_signer_that_waits_for_the_node_that_it_is_bound_to_is_unreachable_too() -> None:
    tasks = (task(1, "shutdown"), task(2, "pending", on=None, error="no suitable node"))
    seen = judged(*tasks, state=SIGNER, down=("a",)).observation
    assert (seen.alive, seen.unreachable_since, seen.node) == (True, NOW, "A")
    new = {"signer": True, "node": None}
    assert judged(tasks[1], state=new, down=("a",)).observation.note == "no suitable node", "it never was on one"
    assert judged(*tasks, state=SIGNER).observation.unreachable_since is None


def test_a_signer_whose_service_vanished_while_its_node_was_away_has_not_ended() -> None:
    away = {**SIGNER, "unreachable_since": NOW.isoformat()}
    assert judged(state=away, down=("a",)).alive
    assert not judged(state=away).alive, "its node is back, and has no such task"


def test_a_node_that_is_back_ends_the_waiting() -> None:
    seen = judged(task(1, "running"), state={**SIGNER, "unreachable_since": NOW.isoformat()}).observation
    assert (seen.unreachable_since, seen.state) == (None, SIGNER)


def test_a_watcher_is_where_its_newest_task_is() -> None:
    seen = judged(task(1, "running", on="a"), task(2, "running", on="b"), state=WATCHER, down=("a",)).observation
    assert (seen.alive, seen.unreachable_since, seen.node) == (True, None, "B")


def test_the_engine_doesnt_decide_what_follows_a_crash() -> None:
    seen = judged(task(1, "failed", exit_code=3), task(2, "ready"), state=WATCHER).observation
    assert (seen.alive, seen.exit_code) == (False, 3)


@pytest.mark.parametrize(("asked", "interrupted"), [(True, False), (False, True)])
def test_an_end_that_only_the_engine_wanted_is_an_interruption(asked: bool, interrupted: bool) -> None:
    seen = judged(task(1, "shutdown", exit_code=0), state=SIGNER, asked=asked).observation
    assert (seen.alive, seen.interrupted) == (False, interrupted)


def test_a_task_that_never_started_has_its_reason() -> None:
    rejected = Task("task-1", "rejected", "1", "a", NOW, False, None, "No such image: x")
    assert judged(rejected, state=WATCHER).observation.failure == "No such image: x"


@given(
    states=st.lists(
        st.tuples(st.sampled_from(sorted({*BEFORE, *ENDED, "running", "orphaned"})), st.sampled_from(["a", "b"])),
        min_size=1,
        max_size=4,
    ),
    down=st.sets(st.sampled_from(["a", "b"])),
)
def test_a_signer_never_counts_as_ended_while_one_of_its_tasks_may_run(
    states: list[tuple[str, str]], down: set[str]
) -> None:
    tasks = [task(number, state, on) for number, (state, on) in enumerate(states)]
    verdict = judged(*tasks, state=SIGNER, down=tuple(down))
    assert verdict.alive == any(one.state not in ENDED for one in tasks)
