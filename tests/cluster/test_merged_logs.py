"""The logs of several bots: in order, side by side, of as many bots as a cluster has, in bounded memory."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from ape.logging import LogLevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import Bot, ClusterClient
from ape_silverback.cluster.log_stream import LogLine, read_entry, read_log_lines
from ape_silverback.cluster.merged_logs import MOST_BOTS, LogEnd, LogPiece, follow_logs, read_logs
from ape_silverback.exceptions import ClusterError, Forbidden
from tests.cluster.server import BOT, Reply, Request, answer, serving

BEGIN = datetime(2026, 11, 23, tzinfo=timezone.utc)
QUICK = Retries(attempts=3, first_delay=0.001, longest_delay=0.01)


def line(message: str, seconds: float | None = None) -> bytes:
    moment = None if seconds is None else (BEGIN + timedelta(seconds=seconds)).isoformat()
    return json.dumps({"level": "INFO", "timestamp": moment, "message": message}).encode() + b"\n"


Log = Callable[[Request], Reply]


@contextmanager
def cluster_with(logs: dict[str, Log]) -> Iterator[list[Bot]]:
    """Serve the logs of bots by their names."""
    ids = {name: str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in logs}
    by_path = {f"/bots/{ids[name]}/logs": log for name, log in logs.items()}
    with serving(lambda request: by_path[request.path](request)) as server:
        server.request_queue_size = 512
        server.socket.listen(512)
        with ClusterClient(base_url=server.url, retries=QUICK) as client:
            yield [Bot.model_validate({**BOT, "name": name, "id": ids[name]})._bind(client) for name in logs]


def holding(*lines: bytes) -> Log:
    """Answer a log as the API says: from its start time on; a line without a time is of the time before it."""
    times = list(itertools.accumulate((json.loads(one)["timestamp"] or "" for one in lines), max))

    def reply(request: Request) -> Reply:
        since = request.query.get("start_time", "")
        left = [one for one, moment in zip(lines, times, strict=True) if moment >= since]
        return Reply(chunks=[b"".join(left)] if left else [])

    return reply


def told(pieces: Iterator[LogPiece | LogEnd]) -> list[tuple[str, str]]:
    return [(piece.bot.name, one.message) for piece in pieces if isinstance(piece, LogPiece) for one in piece.lines]


# Reading


def test_logs_are_merged_by_time_and_a_line_without_one_stays_where_it_is() -> None:
    logs = {
        "a": holding(line("first", 1), line("traceback"), line("fourth", 4)),
        "b": holding(line("zeroth"), line("second", 2), line("third", 3)),
        "c": holding(),
    }
    with cluster_with(logs) as bots:
        assert told(read_logs(bots)) == [
            ("b", "zeroth"),
            ("a", "first"),
            ("a", "traceback"),
            ("b", "second"),
            ("b", "third"),
            ("a", "fourth"),
        ]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=12).map(sorted), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 5)),
)
def test_every_line_is_there_once_in_order_and_no_more_than_the_tail(times: list[list[int]], tail: int | None) -> None:
    logs = {
        str(number): holding(*(line(f"{place}", at) for place, at in enumerate(one)))
        for number, one in enumerate(times)
    }
    with cluster_with(logs) as bots:
        lines = [(piece.bot.name, one) for piece in read_logs(bots, tail=tail) for one in piece.lines]
    assert [one.time for _, one in lines] == sorted(one.time for _, one in lines if one.time)
    for number, one in enumerate(times):
        expected = [f"{place}" for place in range(len(one))]
        expected = expected if tail is None else expected[len(expected) - min(tail, len(expected)) :]
        assert [found.message for name, found in lines if name == str(number)] == expected


def test_a_log_whose_connection_breaks_is_read_on_without_losing_or_repeating_a_line() -> None:
    broken = itertools.count()
    lines = [line(f"{number}", number // 3) for number in range(30)]
    whole = holding(*lines)

    def flaky(request: Request) -> Reply:
        if next(broken) == 0:
            return Reply(chunks=[b"".join(lines)[:1000]], reset_after=0)
        return whole(request)

    with cluster_with({"a": flaky}) as bots:
        assert [message for _, message in told(read_logs(bots))] == [f"{number}" for number in range(30)]


def test_the_logs_of_a_full_cluster_are_read_at_once() -> None:
    logs = {f"bot-{number}": holding(line(f"{number}", number), line("last", 1000)) for number in range(250)}
    with cluster_with(logs) as bots:
        messages = [message for _, message in told(read_logs(bots))]
    assert messages == [*(f"{number}" for number in range(250)), *["last"] * 250]


def test_more_bots_than_any_cluster_has_are_refused() -> None:
    with ClusterClient(base_url="http://127.0.0.1:9") as client:
        bots = [Bot.model_validate(BOT)._bind(client)] * (MOST_BOTS + 1)
        for read in (read_logs, follow_logs):
            with pytest.raises(ClusterError, match=f"choose at most {MOST_BOTS}"):
                next(read(bots))


# Following


def test_following_a_full_cluster_shows_a_line_of_each_bot_while_all_stay_open() -> None:
    number = 250
    go = threading.Event()

    def log(name: str) -> Log:
        def chunks() -> Iterator[bytes]:
            yield line(f"{name} begins", 1)
            go.wait(60)
            yield line(f"{name} ends", 2)

        return lambda _: Reply(chunks=chunks())

    with cluster_with({f"{one}": log(f"{one}") for one in range(number)}) as bots:
        pieces = follow_logs(bots)
        begun = told(itertools.islice(pieces, number))
        assert sorted(begun) == sorted((f"{one}", f"{one} begins") for one in range(number))
        go.set()
        rest = list(pieces)
    assert sorted(told(iter(rest))) == sorted((f"{one}", f"{one} ends") for one in range(number))
    assert sum(isinstance(piece, LogEnd) and piece.error is None for piece in rest) == number


def test_a_bot_whose_log_cant_be_read_ends_with_the_error_and_the_others_go_on() -> None:
    logs: dict[str, Log] = {"a": lambda _: answer({"detail": "not yours"}, 403), "b": holding(line("here", 1))}
    with cluster_with(logs) as bots:
        pieces = list(follow_logs(bots))
    ends = {piece.bot.name: piece.error for piece in pieces if isinstance(piece, LogEnd)}
    assert isinstance(ends["a"], Forbidden)
    assert ends["b"] is None
    assert told(iter(pieces)) == [("b", "here")]


def test_a_defect_while_a_log_is_read_reaches_who_follows_it() -> None:
    with cluster_with({"a": holding(line("here", 1))}) as bots:
        bots[0]._bound_client().close()
        with pytest.raises(RuntimeError, match="closed"):
            list(follow_logs(bots))


@pytest.mark.parametrize("tail", range(8))
def test_a_log_is_followed_from_its_last_lines_on(tail: int) -> None:
    lines = [line(f"{number}", seconds) for number, seconds in enumerate([1, 1, 2, None, 2, 3])]
    requests = itertools.count()

    def log(request: Request) -> Reply:
        followed = request.query["follow"] == "true"
        assert followed == (next(requests) > 0)
        return holding(*lines, *([line("new", 4)] if followed else []))(request)

    with cluster_with({"a": log}) as bots:
        messages = [message for _, message in told(follow_logs(bots, tail=tail))]
    assert messages == [*[f"{number}" for number in range(6)][max(0, 6 - tail) :], "new"]


def test_who_takes_lines_slowly_leaves_them_in_the_cluster() -> None:
    sent = 0

    def endless(_: Request) -> Reply:
        def chunks() -> Iterator[bytes]:
            nonlocal sent
            while True:
                sent += 1
                yield line("x" * 1000, 1) * 60

        return Reply(chunks=chunks())

    with cluster_with({"a": endless}) as bots:
        pieces = follow_logs(bots)
        next(pieces)
        last = -1
        while last != sent:  # until it can't send any more
            last = sent
            time.sleep(1.0)
        assert sent * 60 * 1000 < 100 << 20
        pieces.close()  # type: ignore[attr-defined] - it is a generator


# Lines


json_lines = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from([20, "INFO", "success", None, 7, 20.5, True, []]),
        "timestamp": st.sampled_from(
            ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456+02:00", "2026-01-01", None, 5, "soon", "9999-99-99"]
        ),
        "message": st.one_of(st.text(), st.none(), st.just(5)),
        "more": st.just({"x": [1]}),
    },
).map(json.dumps)
raw_lines = st.sampled_from(
    ["2026-01-01T00:00:00Z INFO:     text", "", "}", "{", "{} {}", '{"message": "a"},{}', "text"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(json_lines, raw_lines), max_size=6))
def test_many_lines_are_read_as_each_of_them_is(lines: list[str]) -> None:
    entries = [read_entry(one) for one in lines]
    assert read_log_lines(lines) == [LogLine(entry.timestamp, entry.level, entry.message) for entry in entries]


def test_the_level_of_a_line_is_one_of_apes() -> None:
    [found] = read_log_lines(['{"level": 20, "message": "m"}'])
    assert found.level is LogLevel.INFO
