"""What goes out when something happens on a cluster."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path

from ape_silverback.cluster.types import BotConfiguration, RestartPolicy
from ape_silverback.server.alerts import Alerts
from ape_silverback.server.notify import Digest, Notifier, apprise_sender
from ape_silverback.server.store import Store
from ape_silverback.server.supervisor import Supervisor
from tests.conftest import Ape
from tests.server.machine import Machine, serving_cluster
from tests.server.sink import MailServer, Sink, serving
from tests.waiting import wait_for


def test_twenty_bots_that_crash_at_once_make_one_message(tmp_path: Path) -> None:
    store, machine = Store(tmp_path / "cluster"), Machine(tmp_path)
    machine.ready_at_once = True
    supervisor = Supervisor(
        store, machine, lambda _: {}, poll=0.02, stop_grace=0.2, restart=RestartPolicy(policy="never")
    )
    with serving(Sink()) as sink:
        notifier = Notifier(Digest("demo", group_for=1.0), apprise_sender({"URL": sink.address}))
        alerts = Alerts(supervisor, notifier, tmp_path)
        supervisor.begin()
        alerts.begin()
        configuration = BotConfiguration(image="me/bot:1", ecosystem="ethereum", network="local", provider="node")
        bots = [supervisor.create(f"bot-{number}", configuration) for number in range(20)]
        wait_for(lambda: all(bot.task.last_status == "RUNNING" for bot in store.bots()))
        for bot in bots:
            machine.end(bot.id, 1)
        wait_for(lambda: sink.received)
        alerts.end()
        supervisor.end()
    titles = [message["title"] for message in sink.received]
    assert titles == ["[demo] 20 x crashed"]
    assert len(sink.received[0]["message"].splitlines()) == 20
    assert "bot-7: crashed: exited with code 1" in sink.received[0]["message"]


def test_what_runs_low_is_told_once_by_mail(tmp_path: Path) -> None:
    store, machine = Store(tmp_path / "cluster"), Machine(tmp_path)
    machine.ready_at_once = True
    machine.work_folder = lambda bot: tmp_path / "work" / str(bot)  # type: ignore[method-assign]
    supervisor = Supervisor(store, machine, lambda _: {}, poll=0.02, stop_grace=0.2)
    with serving(MailServer()) as server:
        notifier = Notifier(Digest("demo", group_for=0.5, quiet_for=0.0), apprise_sender({"URL": server.address}))
        alerts = Alerts(supervisor, notifier, tmp_path, lambda: time.time() + 7200.5, free_bytes=1 << 62, every=0.02)
        supervisor.begin()
        values = {"image": "me/bot:1", "ecosystem": "ethereum", "network": "mainnet", "provider": "node"}
        for name, amount in (("poor", "0.0021"), ("poor-too", "0.0021"), ("rich", "3.2")):
            bot = supervisor.create(name, BotConfiguration(**values, account=name.removesuffix("-too")))
            write_balance(tmp_path / "work" / str(bot.id), amount)
        wait_for(lambda: all(bot.task.last_status == "RUNNING" for bot in store.bots()))
        alerts.begin()
        wait_for(lambda: server.received)
        time.sleep(1.0)  # many looks
        alerts.end()
        supervisor.end()
    [mail] = server.received
    body = mail.get_body(("plain", "html"))
    assert body is not None
    text = body.get_content()
    assert "disk of the cluster: almost full: " in text
    assert "payment stream: running out: 2 hours left" in text
    assert "poor on ethereum:mainnet: balance is low: 0.0021 ETH left, less than 0.01" in text
    assert text.count("balance is low") == 1
    assert "rich" not in text


def write_balance(work: Path, amount: str) -> None:
    """Write what a bot tells of its account's balance."""
    work.mkdir(parents=True)
    told = {"amount": amount, "symbol": "ETH", "time": datetime.now(timezone.utc).isoformat()}
    (work / "heartbeat.json").write_text(json.dumps({"balance": told}))


def test_a_deployment_that_fails_or_is_rolled_back_is_told(tmp_path: Path) -> None:
    with serving(Sink()) as sink:

        def alerts(supervisor: Supervisor) -> Alerts:
            notifier = Notifier(Digest("demo", group_for=0.2), apprise_sender({"URL": sink.address}))
            return Alerts(supervisor, notifier, tmp_path)

        with serving_cluster(tmp_path, alerts=alerts) as cluster:
            lines: list[dict[str, object]] = [
                {"id": 1, "by": "me@laptop"},
                {"id": 1, "outcome": {"alpha": "ready: running and healthy"}},
                {"id": 2, "by": "me@laptop"},
                {"id": 2, "outcome": {"alpha": "failed: it stopped", "beta": "rolled-back: it has what it had before"}},
            ]
            cluster.record_deployments("shop", lines)
            wait_for(lambda: sink.received)
    [message] = sink.received
    assert message["message"].splitlines() == [
        "shop, deployment 2 by me@laptop: deployment failed: alpha failed: it stopped",
        "shop, deployment 2 by me@laptop: deployment rolled back: beta rolled-back: it has what it had before",
    ]


def test_a_cluster_doesnt_start_while_an_address_is_missing(ape: Ape, home: Path, project: Path) -> None:
    (project / "ape-config.yaml").write_text("silverback:\n  notify: {urls: [SLACK_URL]}\n")
    for value, reason in (("", "SLACK_URL isn't set"), ("hunter2", "SLACK_URL doesn't hold an address")):
        refused = ape("silverback", "cluster", "up", SLACK_URL=value)
        assert refused.returncode == 1
        assert reason in refused.stderr
        assert "hunter2" not in refused.stderr
    assert not (home / ".silverback" / "local" / "server.json").exists()


def test_variables_for_notifications_are_named_on_the_command_line(ape: Ape, home: Path) -> None:
    for command in ("up", "serve"):
        unset = ape("silverback", "cluster", command, "--notify", "SLACK_URL")
        assert (unset.returncode, "SLACK_URL isn't set: `notify.urls`" in unset.stderr) == (1, True)
        shown = ape("silverback", "cluster", command, "--notify", "slack://hunter2")
        assert (shown.returncode, "expected the name of a variable" in shown.stderr) == (2, True)
        assert "hunter2" not in shown.stderr
