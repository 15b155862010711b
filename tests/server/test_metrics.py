"""What bots record: read in order, in bounds, and counted without reading anything twice."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ape_silverback.cluster.task_results import frame_of, percentile, summarise
from ape_silverback.server import metrics
from ape_silverback.server.measurements import Measurements
from ape_silverback.server.metrics import BotCounters, prune, read_results, session_files
from ape_silverback.server.store import Store
from ape_silverback.server.supervisor import Supervisor
from tests.server.machine import Machine

BEGIN = datetime(2026, 11, 1, 12, 0, tzinfo=timezone.utc)


def line(second: float, task: str = "watch", error: str | None = None, **values: object) -> str:
    """Return a line as the bot SDK's recorder writes it."""
    return json.dumps(
        {
            "task_name": task,
            "execution_time": 0.1 * (second % 10 + 1),
            "error": error,
            "completed": (BEGIN + timedelta(seconds=second)).isoformat(),
            "block_number": int(second),
            "metrics": {name: {"type": "scalar", "data": value} for name, value in values.items()},
        }
    )


@pytest.fixture
def session(tmp_path: Path) -> Path:
    folder = tmp_path / ".silverback-sessions" / "bot" / "ethereum" / "local"
    folder.mkdir(parents=True)
    return folder / "session-2026-11-01T12:00:00.jsonl"


def test_results_come_in_order_and_in_their_time(tmp_path: Path, session: Path) -> None:
    session.write_text("".join(f"{line(second, price=second)}\n" for second in range(10)))
    found = list(read_results(tmp_path, since=BEGIN + timedelta(seconds=3), until=BEGIN + timedelta(seconds=6)))
    assert [one.block_number for one in found] == [3, 4, 5, 6]
    assert [one.metrics for one in found] == [{"price": value} for value in (3, 4, 5, 6)]


def test_only_tasks_with_a_named_metric_are_read_when_one_is_named(tmp_path: Path, session: Path) -> None:
    session.write_text(f"{line(1, price=1, gas=2)}\n{line(2, gas=3)}\n{line(3)}\n")
    assert [one.metrics for one in read_results(tmp_path, ["price"])] == [{"price": 1}]


@pytest.mark.parametrize(
    "bad",
    ["{", "[]", "7", '{"task_name": "a"}', line(1).replace('"watch"', "7"), '{"completed": "x"}', "[" * 5000, "\x00"],
)
def test_a_line_that_isnt_a_result_is_skipped(tmp_path: Path, session: Path, bad: str) -> None:
    session.write_text(f"{line(1)}\n{bad}\n{line(2)}\n")
    assert [one.block_number for one in read_results(tmp_path)] == [1, 2]


def test_a_line_that_is_still_being_written_is_read_once_it_is_whole(tmp_path: Path, session: Path) -> None:
    whole = line(1)
    session.write_text(f"{line(0)}\n{whole[:20]}")
    counters = BotCounters(tmp_path)
    counters.update()
    assert counters.tasks["watch"].handled == 1
    with session.open("a") as file:
        file.write(f"{whole[20:]}\n")
    counters.update()
    counters.update()
    assert counters.tasks["watch"].handled == 2


def test_text_and_numbers_that_arent_finite_are_left_out(tmp_path: Path, session: Path) -> None:
    session.write_text(f"{line(1, name='x', price=1.5, odd=float('nan'), up=True)}\n")
    assert [one.metrics for one in read_results(tmp_path)] == [{"price": 1.5, "up": True}]


def test_counting_goes_on_across_a_rotation(tmp_path: Path, session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "ROTATE_AT", 100)
    session.write_text("".join(f"{line(second, error='boom' if second == 2 else None)}\n" for second in range(5)))
    counters = BotCounters(tmp_path)
    counters.update()
    prune(tmp_path)
    assert not session.exists()
    session.write_text(f"{line(5)}\n")  # the recorder opens its file for each line
    counters.update()
    assert (counters.tasks["watch"].handled, counters.tasks["watch"].failed) == (6, 1)
    assert sum(counters.tasks["watch"].buckets) == 6
    assert [one.block_number for one in read_results(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_what_is_kept_is_bounded_by_size_and_age(tmp_path: Path, session: Path) -> None:
    for number in range(4):
        file = session.with_name(f"session-{number}.jsonl")
        file.write_text(f"{line(number)}\n")
        age = (BEGIN - timedelta(days=number)).timestamp()
        os.utime(file, (age, age))
    size = session.with_name("session-0.jsonl").stat().st_size
    prune(tmp_path, BEGIN, most_age=timedelta(days=2.5))
    assert [file.stem[-1] for file in session_files(tmp_path)] == ["2", "1", "0"]
    prune(tmp_path, BEGIN, most_bytes=size)
    assert [file.stem[-1] for file in session_files(tmp_path)] == ["0"]


def test_a_summary_tells_rate_failures_and_latency_of_each_task(tmp_path: Path, session: Path) -> None:
    lines = [line(second, error="boom" if second % 4 == 0 else None) for second in range(0, 121, 2)]
    session.write_text("\n".join([*lines, line(60, task="cron:hourly")]) + "\n")
    [watch, cron] = summarise(read_results(tmp_path))
    assert (watch.task, watch.handled, cron.task, cron.handled) == ("watch", 61, "cron:hourly", 1)
    assert watch.per_minute == pytest.approx(30.5)
    assert watch.error_rate == pytest.approx(31 / 61)
    assert (watch.p50, watch.p95) == (pytest.approx(0.5), pytest.approx(0.9))


def test_a_percentile_is_the_value_at_its_rank() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.25, 0.5, 0.51, 1.0)] == [1, 1, 2, 3, 4]


def test_a_frame_has_the_columns_of_the_bot_sdks_own_reader(tmp_path: Path, session: Path) -> None:
    session.write_text(f"{line(1, price=1.5, up=True)}\n{line(2, price=2.5)}\n{line(3, error='boom')}\n")
    from silverback.recorder import get_metrics

    theirs, ours = get_metrics(session.parent), frame_of(read_results(tmp_path))
    assert list(ours.columns) == list(theirs.columns)
    assert ours["price"].tolist() == theirs["price"].tolist()
    assert [moment.isoformat() for moment in ours.index] == [moment.isoformat() for moment in theirs.index]
    assert frame_of(read_results(tmp_path), tasks=True)["error"].tolist() == [None, None, "boom"]


def test_holding_files_within_bounds_ends_with_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, machine = Store(tmp_path / "cluster"), Machine(tmp_path)
    supervisor = Supervisor(store, machine, lambda _: {})
    measurements = Measurements(supervisor, prune_every=0.01)
    before = set(threading.enumerate())
    measurements.begin()
    [thread] = set(threading.enumerate()) - before
    time.sleep(0.05)
    assert thread.is_alive()
    store.close()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert not caplog.records
