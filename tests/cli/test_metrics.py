"""`bots metrics` through the real `ape` command."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pandas
import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import BotTaskResult
from tests.cli.conftest import Run
from tests.server.machine import Cluster

pytestmark = pytest.mark.xdist_group("cli-bots")


@pytest.fixture
def recorded(served: Cluster, client: ClusterClient, tmp_path: Path) -> Cluster:
    """A cluster with a bot that recorded ten tasks, one of which failed, and one that recorded nothing."""
    served.machine.work_folder = lambda bot: tmp_path / "work" / str(bot)  # type: ignore[method-assign]
    for name in ("measuring", "silent"):
        client.new_bot(name, "ghcr.io/me/bot:1", "ethereum", "mainnet", "alchemy")
    folder = tmp_path / "work" / str(client.bots["measuring"].id) / ".silverback-sessions"
    folder.mkdir(parents=True)
    now = datetime.now(timezone.utc)
    with (folder / "session-1.jsonl").open("w") as file:
        for number in range(10):
            document = {
                "task_name": "watch",
                "execution_time": 0.01 * (number + 1),
                "error": "boom" if number == 3 else None,
                "completed": (now - timedelta(seconds=60 - number)).isoformat(),
                "block_number": number,
                "metrics": {} if number == 3 else {"price": {"data": 2.5 * number}, "up": {"data": True}},
            }
            file.write(f"{json.dumps(document)}\n")
    return served


def test_tasks_and_metrics_are_summed_up(run: Run, recorded: Cluster) -> None:
    text = run("bots", "metrics", "measuring").stdout
    [_, watch, _, _, price, up] = [line.split() for line in text.splitlines()]
    assert [watch[0], watch[1], *watch[3:]] == ["watch", "10", "1", "10.0%", "50", "ms", "100", "ms"]
    assert price == ["price", "9", "22.5", "11.6667", "0", "22.5"]
    assert up == ["up", "9", "1", "1", "1", "1"]


def test_a_chart_shows_one_metric(run: Run, recorded: Cluster) -> None:
    text = run("bots", "metrics", "measuring", "price", "--plot").stdout
    assert "price" in text
    assert "22.5" in text
    assert "up" not in text
    assert "\x1b" not in text


def test_recorded_tasks_are_written_as_csv_json_and_parquet(run: Run, recorded: Cluster, tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(run("bots", "metrics", "measuring", "--format", "csv").stdout)))
    assert rows[0] == ["completed", "task", "execution_time", "error", "block_number", "price", "up"]
    assert (len(rows), rows[4][3:], rows[10][3:]) == (11, ["boom", "3", "", ""], ["", "9", "22.5", "True"])
    lines = run("bots", "metrics", "measuring", "price", "--format", "json").stdout.splitlines()
    assert [BotTaskResult.model_validate_json(line).metrics for line in lines][-1] == {"price": 22.5}
    file = tmp_path / "tasks.parquet"
    run("bots", "metrics", "measuring", "--format", "parquet", "-o", str(file))
    frame = pandas.read_parquet(file)
    assert frame["price"].max() == 22.5
    assert frame["error"].notna().sum() == 1


def test_what_cant_be_shown_is_refused(run: Run, recorded: Cluster) -> None:
    assert run("bots", "metrics", "silent").stderr == "Nothing was recorded in this time.\n"
    for wrong in (["--plot", "--format", "csv"], ["--format", "parquet"], ["-o", "x"], ["--since", "tomorrow"]):
        assert run("bots", "metrics", "measuring", *wrong, code=2).stdout == ""
    refused = run("bots", "metrics", "measuring", "--format", "csv", "-o", "/nonexistent/file", code=1)
    assert "/nonexistent/file: can't be written" in refused.stderr
