"""Errors that bots tell again and again are counted as one; different ones are not."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.cluster.bot_errors import count_errors

told = st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from(["no gas", "exit code 1", "exit code 3"])))


@given(told)
def test_every_error_is_counted_once_and_the_most_frequent_come_first(told: dict[str, list[str]]) -> None:
    found = count_errors(told)
    counted = {(one.message, bot): count for one in found for bot, count in one.bots.items()}
    assert counted == {(message, bot): told[bot].count(message) for bot in told for message in told[bot]}
    assert [one.count for one in found] == sorted((one.count for one in found), reverse=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("beat[block=0x12345678ab] - 0.010s (1.0%)", "beat[block=0xffffffff00] - 12s (100.0%)"),
        (f"task {uuid.UUID(int=1)} failed", f"task {uuid.UUID(int=2)} failed"),
        ("block 123456 is gone", "block 123457 is gone"),
        ("late since 2026-01-01T00:00:00Z", "late since 2026-02-02 10:11:12.5+01:00"),
        ("no answer after 150ms", "no answer after 30ms"),
    ],
)
def test_what_changes_each_time_makes_no_other_error_and_the_last_is_shown(first: str, second: str) -> None:
    [one] = count_errors({"bot": [first, second]})
    assert (one.message, one.count) == (second, 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("exited with code 1", "exited with code 3"),
        ("status 429", "status 503"),
        ("chain 1 is down", "chain 8453 is down"),
        ("ValueError: a", "KeyError: a"),
    ],
)
def test_what_tells_errors_apart_is_kept(first: str, second: str) -> None:
    assert len(count_errors({"bot": [first, second]})) == 2
