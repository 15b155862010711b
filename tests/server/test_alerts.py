"""What goes out when something happens on a cluster."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ape_silverback.cluster.types import BotConfiguration, RestartPolicy
from ape_silverback.server.alerts import Alerts
from ape_silverback.server.notify import Digest, Notifier, apprise_sender
from ape_silverback.server.store import Store
from ape_silverback.server.supervisor import Supervisor
from tests.conftest import Ape
from tests.server.machine import Machine
from tests.server.sink import running_sink


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_twenty_bots_that_crash_at_once_make_one_message(tmp_path: Path) -> None:
    store, machine = Store(tmp_path / "cluster"), Machine(tmp_path)
    machine.ready_at_once = True
    supervisor = Supervisor(
        store, machine, lambda _: {}, poll=0.02, stop_grace=0.2, restart=RestartPolicy(policy="never")
    )
    with running_sink() as sink:
        notifier = Notifier(Digest("demo", group_for=1.0), apprise_sender({"URL": sink.address}))
        alerts = Alerts(supervisor, notifier, tmp_path)
        supervisor.begin()
        alerts.begin()
        configuration = BotConfiguration(image="me/bot:1", ecosystem="ethereum", network="local", provider="node")
        bots = [supervisor.create(f"bot-{number}", configuration) for number in range(20)]
        wait_until(lambda: all(bot.task.last_status == "RUNNING" for bot in store.bots()))
        for bot in bots:
            machine.end(bot.id, 1)
        wait_until(lambda: sink.received)
        alerts.end()
        supervisor.end()
    titles = [message["title"] for message in sink.received]
    assert titles == ["[demo] 20 x crashed"]
    assert len(sink.received[0]["message"].splitlines()) == 20
    assert "bot-7: crashed: exited with code 1" in sink.received[0]["message"]


def test_a_full_disk_and_a_stream_that_ends_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(Store(tmp_path / "cluster"), Machine(tmp_path), lambda _: {})
    digest = Digest("demo", group_for=0.0)
    alerts = Alerts(supervisor, Notifier(digest, lambda _: True), tmp_path, expires=lambda: time.time() + 7200.5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * 1024**3, 97 * 1024**3, 3 * 1024**3))
    alerts.look()
    message = digest.take(float("inf"))
    assert message is not None
    assert message.body.splitlines() == [
        "disk of the cluster: disk is almost full: 3072 MiB of 102400 MiB are free",
        "payment stream: payment stream runs low: 2 hours left",
    ]


def test_a_cluster_doesnt_start_while_an_address_is_missing(ape: Ape, home: Path, project: Path) -> None:
    (project / "ape-config.yaml").write_text("silverback:\n  notify: {urls: [SLACK_URL]}\n")
    for value, reason in (("", "SLACK_URL isn't set"), ("hunter2", "SLACK_URL doesn't hold an address")):
        refused = ape("silverback", "cluster", "up", SLACK_URL=value)
        assert refused.returncode == 1
        assert reason in refused.stderr
        assert "hunter2" not in refused.stderr
    assert not (home / ".silverback" / "local" / "server.json").exists()
