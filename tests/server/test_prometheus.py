"""A real Prometheus scrapes a cluster, and its checker reads the example rules."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import ROOT
from tests.server.machine import KEY, Cluster, serving_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with a bot that recorded tasks, and one that died."""
    work = tmp_path_factory.mktemp("work")
    with serving_cluster(tmp_path_factory.mktemp("cluster"), expires=lambda: time.time() + 3600) as cluster:
        cluster.machine.work_folder = lambda bot: work / str(bot)  # type: ignore[method-assign]
        client = cluster.client()
        for name in ("steady", "dead"):
            client.new_bot(name, "me/bot:1", "ethereum", "mainnet", "node", account=f"{name}-account")
        folder = work / str(client.bots["steady"].id) / ".silverback-sessions"
        folder.mkdir(parents=True)
        lines = [
            {
                "task_name": "watch",
                "execution_time": seconds,
                "error": error,
                "completed": datetime.now(timezone.utc).isoformat(),
                "metrics": {"gas_price": {"type": "scalar", "data": 20.5}},
            }
            for seconds, error in ((0.02, None), (0.3, None), (70.0, "boom"))
        ]
        (folder / "session-1.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
        told = {"amount": "0.25", "symbol": "ETH", "time": datetime.now(timezone.utc).isoformat()}
        heartbeat = work / str(client.bots["steady"].id) / "heartbeat.json"
        heartbeat.write_text(json.dumps({"balance": told}))
        stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        cluster.log("steady", f"{stamp} INFO:     fine", f"{stamp} ERROR:    boom", f"{stamp} more of it")
        cluster.die("dead", 1)
        deadline = time.monotonic() + 20
        while client.bots["dead"].task.last_status != "STOPPED":  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield cluster


def found(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(name)]


def test_everything_is_told_in_the_text_format(cluster: Cluster) -> None:
    url = f"{cluster.url}/metrics"
    assert httpx.get(url, trust_env=False).status_code == 401
    text = httpx.get(url, headers={"X-API-Key": KEY}, trust_env=False).text
    assert 'silverback_bots{state="running"} 1.0' in text
    assert 'silverback_bots{state="stopped"} 1.0' in text
    assert 'silverback_bot_healthy{bot="steady",network="ethereum:mainnet"} 1.0' in text
    assert 'silverback_bot_healthy{bot="dead",network="ethereum:mainnet"} 0.0' in text
    assert 'silverback_bot_tasks_total{bot="steady",task="watch"} 3.0' in text
    assert 'silverback_bot_task_errors_total{bot="steady",task="watch"} 1.0' in text
    assert 'silverback_bot_metric{bot="steady",name="gas_price"} 20.5' in text
    assert 'silverback_bot_task_seconds_bucket{bot="steady",le="0.025",task="watch"} 1.0' in text
    assert 'silverback_bot_task_seconds_bucket{bot="steady",le="+Inf",task="watch"} 3.0' in text
    balance = 'silverback_bot_balance{account="steady-account",bot="steady",currency="ETH",network="ethereum:mainnet"}'
    assert f"{balance} 0.25" in text
    assert 'silverback_bot_log_lines_total{bot="steady",level="info"} 1.0' in text
    assert 'silverback_bot_log_lines_total{bot="steady",level="error"} 2.0' in text
    assert 'silverback_bot_restarts_total{bot="steady"} 0.0' in text
    assert 'silverback_bot_watch_failures_total{bot="steady"} 0.0' in text
    [left] = found(text, "silverback_paid_seconds_left")
    assert 3500 < float(left.split()[1]) <= 3600
    assert found(text, 'silverback_http_request_seconds_count{method="POST",route="/bots",status="200"}')


def test_a_prometheus_scrapes_it_and_answers_queries(cluster: Cluster, tmp_path: Path) -> None:
    if (prometheus := shutil.which("prometheus")) is None:
        pytest.skip("Prometheus isn't installed (Debian's package `prometheus`)")
    (tmp_path / "key").write_text(KEY)
    config: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "prometheus.example.yaml").read_text())
    [job] = config["scrape_configs"]
    job |= {"scrape_interval": "1s", "static_configs": [{"targets": [cluster.url.removeprefix("http://")]}]}
    job["authorization"]["credentials_file"] = str(tmp_path / "key")
    config["rule_files"] = [str(ROOT / "docs" / "alerts.example.yaml")]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "log").open("wb"),
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as api:
            result = wait_for_value(api, "silverback_bot_healthy == 0", tmp_path / "log")
            assert result[0]["metric"]["bot"] == "dead"
            [target] = api.get("/targets").json()["data"]["activeTargets"]
            assert (target["health"], target["lastError"]) == ("up", "")
            [latency] = wait_for_value(api, "histogram_quantile(0.5, silverback_bot_task_seconds_bucket)", tmp_path)
            assert 0.25 < float(latency["value"][1]) <= 0.5
            rules = api.get("/rules").json()["data"]["groups"][0]["rules"]
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    finally:
        process.terminate()
        process.wait(30)


def wait_for_value(api: httpx.Client, query: str, log: Path) -> list[dict[str, Any]]:
    """Return what a query finds, once it finds something."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if result := api.get("/query", params={"query": query}).json()["data"]["result"]:
                return list(result)
        except (httpx.TransportError, KeyError, ValueError):
            pass
        time.sleep(0.2)
    pytest.fail(f"{query} found nothing: {log.read_text()[-500:] if log.is_file() else ''}")


def test_the_example_rules_are_valid() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool isn't installed (Debian's package `prometheus`)")
    checked = subprocess.run(
        [promtool, "check", "rules", ROOT / "docs" / "alerts.example.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "7 rules found" in checked.stdout


def test_every_metric_is_in_the_guide(cluster: Cluster) -> None:
    text = httpx.get(f"{cluster.url}/metrics", headers={"X-API-Key": KEY}, trust_env=False).text
    guide = (ROOT / "docs" / "userguides" / "watching.md").read_text()
    names = set(re.findall(r"^# TYPE (silverback_\w+) ", text, re.MULTILINE))
    assert {name for name in names if not name.endswith("_created")} <= set(re.findall(r"`(silverback_\w+)", guide))
