"""A bot's log as a stream: any kind of line, constant memory, nothing lost or repeated over broken connections."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ape.logging import LogLevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import Bot, ClusterClient
from ape_silverback.cluster.log_stream import CUT, LONGEST_LINE
from ape_silverback.exceptions import ClusterError, ConnectionBroken, Unauthorized
from tests.cluster.server import BOT, Reply, Request, answer, in_turn, serving

QUICK = Retries(attempts=4, first_delay=0.001, longest_delay=0.01)
BEGIN = datetime(2026, 11, 23, tzinfo=timezone.utc)


def line(message: str, seconds: float = 0, level: str = "INFO") -> bytes:
    moment = BEGIN + timedelta(seconds=seconds)
    return json.dumps({"level": level, "timestamp": moment.isoformat(), "message": message}).encode() + b"\n"


def bot_of(client: ClusterClient) -> Bot:
    return Bot.model_validate(BOT)._bind(client)


def messages(behave: Any, **more: Any) -> list[str]:
    with serving(behave) as server, ClusterClient(base_url=server.url, retries=QUICK) as client:
        return [entry.message for entry in bot_of(client).get_logs(**more)]


def test_lines_of_every_kind_are_read() -> None:
    content = [
        line("json"),
        b"2026-11-23T00:00:01Z WARNING:  raw\n",
        b'  File "x.py", line 3\n',
        b'{"message": 5}\n',
        b'{"truncated": \n',
        b"\xff\xfe rubbish\r\n",
        b"\n",
        b"no end",
    ]
    with serving(in_turn(Reply(chunks=content))) as server, ClusterClient(base_url=server.url) as client:
        entries = bot_of(client).logs
    assert [entry.message for entry in entries] == [
        "json",
        "raw",
        '  File "x.py", line 3',
        '{"message": 5}',
        '{"truncated": ',
        "�� rubbish",
        "",
        "no end",
    ]
    assert [entry.level for entry in entries[:3]] == [LogLevel.INFO, LogLevel.WARNING, None]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"])), max_size=20), st.integers(1, 50))
def test_it_doesnt_matter_how_the_lines_are_cut_into_chunks(texts: list[str], size: int) -> None:
    content = b"".join(line(text) for text in texts)
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    assert messages(in_turn(Reply(chunks=chunks))) == texts


def test_what_is_asked_for_is_sent() -> None:
    with serving(in_turn(Reply(chunks=[]))) as server, ClusterClient(base_url=server.url) as client:
        end = BEGIN + timedelta(hours=1)
        assert list(bot_of(client).get_logs(LogLevel.ERROR, start_time=BEGIN, end_time=end)) == []
        [request] = server.requests
    assert request.query == {
        "log_level": "ERROR",
        "follow": "false",
        "start_time": BEGIN.isoformat(),
        "end_time": end.isoformat(),
    }


def test_a_line_of_ten_megabytes_is_cut_and_takes_no_more_memory() -> None:
    part = b"x" * 65536

    def behave(_: Request) -> Reply:
        return Reply(chunks=(chunk for chunk in [line("before"), *[part] * 160, b"\n", line("after")]))

    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        tracemalloc.start()
        entries = [(entry.message[:10], len(entry.message)) for entry in bot_of(client).get_logs()]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert entries == [("before", 6), ("x" * 10, LONGEST_LINE + len(CUT)), ("after", 5)]
    assert peak < 8 * LONGEST_LINE


def test_an_entry_that_is_cut_keeps_its_time_and_level() -> None:
    content = [line("x" * (2 * LONGEST_LINE), 1, "ERROR"), line("\u20ac" * LONGEST_LINE, 2), line("after", 3)]
    with serving(in_turn(Reply(chunks=content))) as server, ClusterClient(base_url=server.url) as client:
        entries = bot_of(client).logs
    assert [(entry.level, entry.timestamp) for entry in entries] == [
        (level, BEGIN + timedelta(seconds=seconds))
        for seconds, level in ((1, LogLevel.ERROR), (2, LogLevel.INFO), (3, LogLevel.INFO))
    ]
    first, second, _ = (entry.message for entry in entries)
    assert first.strip("x") == second.strip("\u20ac") == CUT
    assert len(first) < LONGEST_LINE + len(CUT)


def test_a_long_log_takes_no_more_memory_than_a_short_one() -> None:
    def behave(_: Request) -> Reply:
        return Reply(chunks=(line(f"number {number}", number) * 20 for number in range(2000)))

    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        tracemalloc.start()
        count = sum(1 for _ in bot_of(client).get_logs())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 40_000
    assert peak < 3_000_000


# Following


class Log:
    """A log that grows, served as the API says, and cut off where the test wants."""

    def __init__(self, entries: list[tuple[float, str]], cuts: list[int]) -> None:
        self.entries = entries
        self.cuts = list(cuts)

    def __call__(self, request: Request) -> Reply:
        start = request.query.get("start_time")
        since = (datetime.fromisoformat(start) - BEGIN).total_seconds() if start else -1.0
        left = b"".join(line(message, seconds) for seconds, message in self.entries if seconds >= since)
        if self.cuts:
            cut = self.cuts.pop(0) % (len(left) + 1)
            return Reply(chunks=[left[:cut]] if cut else [], reset_after=0)
        return Reply(chunks=[left] if left else [])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5]), st.sampled_from(["same", "same", "other"])), max_size=25),
    st.lists(st.integers(0, 5000), max_size=3),
)
def test_a_followed_log_loses_and_repeats_nothing_wherever_it_is_cut(
    steps: list[tuple[float, str]], cuts: list[int]
) -> None:
    seconds, entries = 0.0, []
    for step, message in steps:
        seconds += step
        entries.append((seconds, message))
    assert messages(Log(entries, cuts), follow=True) == [message for _, message in entries]


def test_lines_without_a_time_arent_repeated_either() -> None:
    content = line("first") + b"  second\n  third\n"
    replies = in_turn(Reply(chunks=[content + b"  four"], reset_after=0), Reply(chunks=[content + b"  fourth\n"]))
    assert messages(replies, follow=True) == ["first", "  second", "  third", "  fourth"]


def test_it_goes_on_from_where_it_broke() -> None:
    replies = in_turn(
        Reply(chunks=[line("a", 1), line("b", 2)], reset_after=0), Reply(503), Reply(chunks=[line("c", 3)])
    )
    with serving(replies) as server, ClusterClient(base_url=server.url, retries=QUICK) as client:
        assert [entry.message for entry in bot_of(client).get_logs(follow=True)] == ["a", "b", "c"]
        assert [request.query.get("start_time") for request in server.requests] == [
            None,
            *[(BEGIN + timedelta(seconds=2)).isoformat()] * 2,
        ]
        assert all(request.query["follow"] == "true" for request in server.requests)


def test_a_log_that_isnt_followed_says_that_it_broke() -> None:
    with pytest.raises(ConnectionBroken):
        messages(in_turn(Reply(chunks=[line("a")], reset_after=0)))


def test_following_gives_up_when_nobody_is_there_any_more() -> None:
    with pytest.raises(ClusterError):
        messages(in_turn(Reply(chunks=[line("a")], reset_after=0), Reply(503)), follow=True)


def test_the_end_of_the_bot_is_the_end_of_the_log() -> None:
    gone = answer({"detail": "no such bot"}, 404)
    assert messages(in_turn(Reply(chunks=[line("a")], reset_after=0), gone), follow=True) == ["a"]
    with pytest.raises(ClusterError, match="no such bot"):
        messages(in_turn(gone), follow=True)


def test_a_key_that_ends_meanwhile_ends_it_with_what_to_do() -> None:
    with pytest.raises(Unauthorized, match="check the key"):
        messages(in_turn(Reply(chunks=[line("a")], reset_after=0), answer({"detail": "no"}, 401)), follow=True)


def test_a_followed_log_may_be_silent_for_long_and_comes_line_by_line() -> None:
    go = threading.Event()

    def content() -> Iterator[bytes]:
        yield line("first")
        go.wait(10)
        yield line("second")

    with serving(in_turn(Reply(chunks=content()))) as server, ClusterClient(base_url=server.url, timeout=0.2) as client:
        log = bot_of(client).get_logs(follow=True)
        assert next(log).message == "first"
        time.sleep(0.5)
        go.set()
        assert [entry.message for entry in log] == ["second"]
        assert len(server.requests) == 1


def test_an_interrupt_closes_the_connection() -> None:
    closed = threading.Event()

    def content() -> Iterator[bytes]:
        try:
            while True:
                yield line("on and on")
                time.sleep(0.001)
        except OSError:
            closed.set()
            raise

    def endless(_: Request) -> Reply:
        return Reply(chunks=Watched(content(), closed))

    with serving(endless) as server, ClusterClient(base_url=server.url) as client:
        log = bot_of(client).get_logs(follow=True)
        for _ in range(10):
            next(log)
        with pytest.raises(KeyboardInterrupt):
            log.throw(KeyboardInterrupt())  # type: ignore[attr-defined] - it is a generator
        assert closed.wait(5)


class Watched:
    """Reports when the server can't send any more."""

    def __init__(self, inner: Iterator[bytes], closed: threading.Event) -> None:
        self.inner, self.closed = inner, closed

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.inner
        finally:
            self.closed.set()
