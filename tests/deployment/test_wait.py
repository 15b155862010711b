"""Waiting for bots: what one look means, and what a cluster's bad answers don't mean."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import Bot, ClusterClient
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.wait import (
    LOG_LINES,
    SETTLE,
    Sight,
    Timing,
    Watched,
    failure_of,
    verdict,
    wait_until_ready,
)
from ape_silverback.exceptions import ConfigurationError
from tests.cluster.server import BOT, Reply, Request, answer, in_turn, serving

TIMING = Timing(timeout=100, settle=7, start=60)
RUNNING, STOPPED = ResourceStatus.RUNNING, ResourceStatus.STOPPED


def looks(*sights: tuple[float, Sight], settle: float = 7) -> tuple[bool | None, str]:
    """Return what is decided of a bot after looks at certain seconds, and when not yet, in what state it is."""
    watched = Watched(settle)
    for elapsed, sight in sights:
        watched, decided = verdict(watched, sight, elapsed, TIMING)
        if decided is not None:
            return decided.ready, f"{decided.text} ({elapsed:g})"
    return None, str(watched.status)


HEALTHY, SICK = Sight(healthy=True), Sight(status=RUNNING)


@pytest.mark.parametrize(
    ("sights", "ready", "text"),
    [
        ([(0, HEALTHY), (6.9, HEALTHY)], None, "RUNNING"),
        ([(0, HEALTHY), (7, HEALTHY)], True, "running and healthy (7)"),
        ([(0, HEALTHY), (5, Sight(status=STOPPED, reason="killed"))], False, "it stopped: killed (5)"),
        ([(0, HEALTHY), (3, SICK), (4, HEALTHY), (10, HEALTHY)], None, "RUNNING"),
        ([(0, HEALTHY), (3, SICK), (4, HEALTHY), (11, HEALTHY)], True, "running and healthy (11)"),
        ([(0, Sight(status=STOPPED)), (59, Sight(status=STOPPED)), (60, HEALTHY), (67, HEALTHY)], True, "running"),
        ([(0, Sight(status=STOPPED)), (61, Sight(status=STOPPED))], False, "still stopped 61 s after it was started"),
        ([(0, Sight(status=STOPPED, is_sure=True))], False, "it stopped (0)"),
        ([(0, SICK), (101, SICK)], False, "still running but not healthy after 100 s"),
        ([(0, Sight()), (101, Sight())], False, "still in an unknown state after 100 s"),
        ([(0, SICK), (99, HEALTHY), (105, HEALTHY), (106, HEALTHY)], True, "running and healthy (106)"),
        ([(0, SICK), (5, Sight(status=ResourceStatus.STARTUP, crash="no pool"))], False, "it stopped: no pool (5)"),
        ([(0, Sight(present=False))], False, "it is no longer on the cluster"),
    ],
)
def test_a_look_means_what_it_shows(sights: list[tuple[float, Sight]], ready: bool | None, text: str) -> None:
    decided, shown = looks(*sights)
    assert decided is ready
    assert text.lower() in shown.lower()


@pytest.mark.parametrize(("text", "seconds"), [(None, 7), ("", 7), ("0", 0), ("2.5", 2.5)])
def test_a_variable_sets_how_long_bots_settle(text: str | None, seconds: float, monkeypatch: Any) -> None:
    monkeypatch.delenv(SETTLE, raising=False)
    if text is not None:
        monkeypatch.setenv(SETTLE, text)
    assert Timing().settle == seconds
    assert Timing(settle=1).settle == 1


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_variable_that_isnt_a_number_of_seconds_is_refused(text: str, monkeypatch: Any) -> None:
    monkeypatch.setenv(SETTLE, text)
    with pytest.raises(ConfigurationError, match=f"{SETTLE}={text}: expected a number of seconds, 0 or more"):
        Timing()


def test_a_bot_that_nothing_was_done_to_need_not_settle() -> None:
    assert looks((0, HEALTHY), settle=0)[0] is True


def bots(*names: str) -> list[dict[str, Any]]:
    return [
        {**BOT, "name": name, "id": f"11111111-1111-4111-8111-1111111111{index:02}"} for index, name in enumerate(names)
    ]


def waited(behave: Callable[[Request], Reply], *names: str, **timing: float) -> tuple[list[Event], Counter[str]]:
    """Wait for bots of a cluster that doesn't tell of tasks; return the events, and how often what was asked."""
    quick = Timing(**{"timeout": 5, "settle": 0, "start": 5, "poll": 0.02, **timing})
    with serving(behave) as server, ClusterClient(base_url=server.url, retries=Retries(attempts=1)) as client:
        events = list(wait_until_ready(client, names, quick))
        return events, Counter(request.path.rpartition("/")[2] for request in server.requests)


def cluster(health: Callable[[int], Reply], status: Callable[[str, int], Reply], *names: str) -> Callable[..., Reply]:
    """A cluster whose answers for health and states depend on how often it was asked."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def behave(request: Request) -> Reply:
        with lock:
            counts[request.path] += 1
            number = counts[request.path]
        if request.path == "/openapi.json":
            return answer({"info": {}})
        if request.path == "/health":
            return health(number)
        if request.path == "/bots":
            return answer(bots(*names))
        if request.path.endswith("/status"):
            return status(request.path.split("/")[2][-2:], number)
        return answer([])

    return behave


def healthy(*names: str) -> Reply:
    return answer({"networks": {}, "bots": {name: {"healthy": True} for name in names}})


def test_bad_answers_are_asked_again_and_decide_nothing() -> None:
    replies = [
        answer({"detail": "oops"}, 500),
        healthy(),
        answer({"detail": "oops"}, 502),
        healthy("a"),
        healthy("a", "b"),
    ]

    def health(number: int) -> Reply:
        return replies[min(number, len(replies)) - 1]

    def status(bot: str, number: int) -> Reply:
        return answer({"detail": "oops"}, 500) if number == 1 else answer(int(ResourceStatus.STARTUP))

    events, _ = waited(cluster(health, status, "a", "b"), "a", "b")
    assert {event.name: event.kind for event in events} == {"a": "ready", "b": "ready"}


def test_a_bots_own_404_is_that_bots() -> None:
    def status(bot: str, number: int) -> Reply:
        return answer({"detail": "no such bot"}, 404) if bot == "00" else answer(int(ResourceStatus.STARTUP))

    events, _ = waited(cluster(lambda number: healthy(*("b" if number > 3 else ())), status, "a", "b"), "a", "b")
    last = {event.name: event for event in events}
    assert (last["a"].kind, last["b"].kind) == ("failed", "ready")
    assert "no longer on the cluster" in last["a"].text


def test_answers_that_stay_bad_fail_at_the_time_out_and_a_refused_key_at_once() -> None:
    down, _ = waited(lambda _: answer({"detail": "oops"}, 500), "a", timeout=0.2)
    assert [event.kind for event in down] == ["failed"]
    assert "its state couldn't be read" in down[0].text
    refused, counts = waited(lambda _: answer({"detail": "no"}, 401), "a")
    assert [event.kind for event in refused] == ["skipped"]
    assert counts.total() == 1


def test_states_of_their_own_are_asked_less_and_less_often() -> None:
    names = [f"bot-{number}" for number in range(20)]
    starting = cluster(lambda _: healthy(), lambda *_: answer(int(ResourceStatus.STARTUP)), *names)
    events, counts = waited(starting, *names, timeout=4.0, poll=0.05)
    assert {event.kind for event in events} == {"state", "failed"}
    assert counts["status"] < 20 * counts["health"] * 0.7


def test_bots_that_settle_are_looked_at_a_few_times() -> None:
    steady = cluster(lambda _: healthy("a", "b"), lambda *_: answer(int(RUNNING)), "a", "b")
    events, counts = waited(steady, "a", "b", settle=1.4, poll=0.1)
    assert [event.kind for event in events if event.kind != "state"] == ["ready", "ready"]
    assert counts["health"] in (3, 4), "at the begin, in the middle and at the end; a clock may round"


def test_a_crash_between_two_looks_at_a_bot_that_settles_is_noticed() -> None:
    crash = {"time": "2026-01-01T00:00:00Z", "reason": "no pool"}
    task = {"last_status": "RUNNING", "exit_code": None, "reason": None, "started_at": "2026-01-01T00:00:01Z"}
    task |= {"stop_code": None, "stopped_at": None, "stopped_reason": None}
    back = [{**one, "task": task, "restarts": {"count": 1, "crashes": [crash]}} for one in bots("a", "b")]
    back[1]["restarts"] = {"count": 0, "crashes": []}
    answers = {"/openapi.json": {"info": {"x-extensions": ["task", "restarts"]}}, "/bots": back}

    def behave(request: Request) -> Reply:
        return healthy("a", "b") if request.path == "/health" else answer(answers.get(request.path, []))

    last = {event.name: event for event in waited(behave, "a", "b", settle=0.2)[0]}
    assert (last["a"].kind, last["a"].text) == ("failed", "it stopped: no pool")
    assert last["b"].kind == "ready"


def test_delays_grow_and_stay_bounded() -> None:
    delays = list(itertools.islice(Timing(poll=0.5).delays(), 30))
    assert delays[0] == 0.5
    assert delays == sorted(delays)
    assert max(delays) == 5.0


def test_the_last_lines_of_a_log_without_end_are_those_that_came_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ape_silverback.deployment.wait.LOG_TIMEOUT", 0.5)
    lines = (f"2026-01-01T00:00:00Z INFO:     number {number}\n".encode() for number in itertools.count())

    def behave(request: Request) -> Reply:
        return Reply(chunks=lines) if request.path.endswith("/logs") else answer([])

    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        bot = Bot.model_validate(BOT)._bind(client)
        failed = failure_of(client, bot, "a", "it stopped", ResourceStatus.STOPPED)
    assert len(failed.log) == LOG_LINES
    assert failed.log[-1].startswith("number ")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59Z"])
def test_a_crash_at_an_end_of_the_calendar_is_told_like_any_other(moment: str) -> None:
    task = {"last_status": "STOPPED", "exit_code": 1, "reason": None, "started_at": "2026-01-01T00:00:00"}
    task |= {"stop_code": None, "stopped_at": moment, "stopped_reason": "x"}
    restarts = {"count": 1, "crashes": [{"time": moment, "reason": "x"}]}
    line = b"2026-01-01T00:00:00Z INFO:     the last one\n"
    replies = in_turn(answer(["an error"]), Reply(chunks=[line]))
    with serving(replies) as server, ClusterClient(base_url=server.url) as client:
        bot = Bot.model_validate({**BOT, "task": task, "restarts": restarts})._bind(client)
        failed = failure_of(client, bot, "a", "it stopped", ResourceStatus.STOPPED)
    assert (failed.errors, failed.log) == (("an error",), ("the last one",))
