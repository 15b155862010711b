"""Health of bots that run: what follows from the files in which they record their work."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ape_silverback.cluster.types import BotHealth, HealthPolicy
from ape_silverback.server.health import HEARTBEAT, Signs, judge, read_signs

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
POLICY = HealthPolicy(silent=300, lag=20)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def reason(signs: Signs | None, seconds: float, *, ready: bool = True) -> str | None:
    found = judge(POLICY, signs, START, at(seconds), ready=ready)
    assert found.healthy is (found.reason is None)
    return found.reason


def test_a_bot_that_has_told_nothing_is_healthy_while_its_start_may_take_as_long() -> None:
    assert reason(None, 299, ready=False) is None
    assert reason(None, 360, ready=False) == "hasn't finished starting after 6 min"
    assert reason(None, 90_000) is None


def test_a_bot_without_blocks_to_handle_has_to_show_a_sign_of_work() -> None:
    daily = Signs(at(1000))
    assert reason(daily, 1290) is None
    assert reason(daily, 1360) == "showed no sign of work for 6 min"
    assert reason(Signs(at(5000), blocks=True, processed=7, progress_at=at(10), lag=0), 5010) is None, "a quiet chain"


@pytest.mark.parametrize(
    "stuck",
    [
        Signs(at(1000), blocks=True, processed=7, progress_at=at(690), lag=3),
        Signs(at(1000), blocks=True, processed=10, progress_at=at(690), lag=0, under_way=3),
        Signs(at(1000), blocks=True, processed=None, progress_at=None, lag=None),
        Signs(at(690), blocks=True, processed=7, progress_at=at(690), lag=0),
    ],
    ids=["gets no blocks", "never finishes one", "never gets one", "can't even tell"],
)
def test_a_bot_that_hangs_is_unhealthy_though_it_is_alive(stuck: Signs) -> None:
    assert (reason(stuck, 1001) or "").startswith(("handled no block for", "showed no sign of work for"))


def test_a_bot_that_falls_behind_is_unhealthy_though_it_handles_blocks() -> None:
    slow = Signs(at(100), blocks=True, processed=7, progress_at=at(99), lag=21)
    assert judge(POLICY, slow, START, at(101)) == BotHealth(
        healthy=False, reason="21 blocks behind", heartbeat=at(99), last_block=7, lag=21
    )


def test_how_far_behind_a_bot_is_that_has_gone_silent_isnt_known() -> None:
    silent = judge(POLICY, Signs(at(690), blocks=True, processed=7, progress_at=at(690), lag=0), START, at(1000))
    assert (silent.reason, silent.last_block, silent.lag) == ("showed no sign of work for 5 min", 7, None)
    stuck = judge(POLICY, Signs(at(1000), blocks=True, processed=7, progress_at=at(690), lag=31), START, at(1000))
    assert (stuck.reason, stuck.lag) == ("handled no block for 5 min", 31)


def test_signs_of_a_former_run_or_of_nonsense_count_for_nothing(tmp_path: Path) -> None:
    beat = {"updated": at(0).isoformat(), "blocks": True, "processed": 5, "processed_at": None, "head": 9, "first": 3}
    (tmp_path / HEARTBEAT).write_text(json.dumps(beat))
    assert read_signs(tmp_path, at(-1)) == Signs(at(0), blocks=True, processed=5, lag=4)
    assert read_signs(tmp_path, at(1)) is None
    (tmp_path / HEARTBEAT).write_text(json.dumps({**beat, "under_way": 2}))
    assert read_signs(tmp_path, None) == Signs(at(0), blocks=True, under_way=2, processed=5, lag=4)
    for nonsense in ("", "[]", json.dumps({**beat, "updated": "soon"}), json.dumps({**beat, "processed": "all"})):
        (tmp_path / HEARTBEAT).write_text(nonsense)
        assert read_signs(tmp_path, None) is None
