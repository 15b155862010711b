"""A bot's heartbeat goes out while it is healthy, and not otherwise."""

from __future__ import annotations

import logging
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from ape_silverback.cluster.types import BotConfiguration, RestartPolicy
from ape_silverback.exceptions import ValidationFailed
from ape_silverback.server.heartbeats import Heartbeats
from ape_silverback.server.store import Store
from ape_silverback.server.supervisor import Supervisor
from tests.server.machine import KEY, NEVER, Machine, serving_cluster
from tests.server.sink import serving
from tests.waiting import wait_for


class Judge(ThreadingHTTPServer):
    """A service that waits for heartbeats: of ``/slow`` it answers late, of ``/refused`` with an error."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: Counter[str] = Counter()

    def address(self, path: str) -> str:
        """Return an address of it, with a secret."""
        return f"http://127.0.0.1:{self.server_port}/{path}?token=hunter2"


class Handler(BaseHTTPRequestHandler):
    server: Judge

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.server.heard[path] += 1
        if path == "slow":
            time.sleep(2.0)
        self.send_response(500 if path == "refused" else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_only_healthy_bots_send_heartbeats_and_failures_hold_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # loopback goes around it
    store, machine = Store(tmp_path / "cluster"), Machine(tmp_path)
    machine.ready_at_once = True
    supervisor = Supervisor(store, machine, lambda _: {}, poll=0.02, stop_grace=0.2, restart=NEVER)
    with serving(Judge()) as judge, caplog.at_level(logging.DEBUG):
        heartbeats = Heartbeats(supervisor, every=0.1)
        supervisor.begin()
        values = {"image": "me/bot:1", "ecosystem": "ethereum", "network": "mainnet", "provider": "node"}
        bots = {}
        for name in ("good", "slow", "refused", "dies"):
            store.add_group(name, {"BEAT": judge.address(name)})
            bots[name] = supervisor.create(name, BotConfiguration(**values, environment=(name,), heartbeat="BEAT"))
        store.add_group("broken", {"BEAT": "ftp://hunter2"})
        supervisor.create("broken", BotConfiguration(**values, environment=("broken",), heartbeat="BEAT"))
        wait_for(lambda: all(bot.task.last_status == "RUNNING" for bot in store.bots()))
        heartbeats.begin()
        wait_for(lambda: judge.heard["dies"] > 2)
        machine.end(bots["dies"].id, 1)
        wait_for(lambda: store.bot(bots["dies"].id).task.last_status == "STOPPED")  # type: ignore[union-attr]
        time.sleep(0.2)
        heard = judge.heard["dies"]
        before = judge.heard["good"]
        wait_for(lambda: judge.heard["good"] > before + 5)
        heartbeats.end()
        supervisor.end()
        assert judge.heard["dies"] == heard, "a bot that died has no heartbeat"
        assert judge.heard["refused"] > 5
        assert judge.heard["slow"] < judge.heard["good"]
    assert "the heartbeat of bot 'refused' (variable BEAT) wasn't sent: HTTP 500" in caplog.text
    assert "'broken' (variable BEAT) wasn't sent: it doesn't hold an http:// or https:// address" in caplog.text
    assert caplog.text.count("'refused'") == 1, "a failure is logged once"
    assert "hunter2" not in caplog.text


def test_a_bot_is_made_and_changed_with_its_policies_and_its_heartbeat(tmp_path: Path) -> None:
    with serving_cluster(tmp_path) as cluster, serving(Judge()) as judge:
        client = cluster.client()
        assert "heartbeat" in client.extensions
        client.new_variable_group("watch", {"BEAT": judge.address("beat")})
        configuration = BotConfiguration(
            image="me/bot:1",
            ecosystem="ethereum",
            network="mainnet",
            provider="node",
            environment=("watch",),
            restart=RestartPolicy(policy="never"),
            heartbeat="BEAT",
        )
        bot = client.new_bot("watched", **dict(configuration))
        assert bot.configuration == configuration
        with pytest.raises(ValidationFailed, match="no variable group of the bot has a variable 'OTHER'"):
            bot.update(heartbeat="OTHER")
        cleared = bot.update(heartbeat=None, restart=None)
        assert (cleared.heartbeat, cleared.restart, cleared.environment) == (None, None, ["watch"])
        assert (
            judge.address("beat")
            not in httpx.get(f"{cluster.url}/bots", headers={"X-API-Key": KEY}, trust_env=False).text
        )
