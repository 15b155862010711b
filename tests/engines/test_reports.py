"""What a bot in a container records reaches the cluster, on whatever node it runs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import httpx
import pytest

from ape_silverback.cluster.client import ClusterClient
from tests.engines.conftest import Server
from tests.engines.served import KEY
from tests.engines.test_conformance import RUNNING, beats, messages, new_bot, until
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("engines")


@pytest.mark.parametrize("server", ["docker", "swarm"], indirect=True)
def test_a_container_reports_its_work_its_tasks_and_its_balance_and_logs_nothing_of_that(
    client: ClusterClient, server: Server
) -> None:
    later = (datetime.now(timezone.utc) + timedelta(minutes=2)).isoformat()  # it counts from the start of the bot on
    client.new_variable_group("time", {"TIME": later})
    bot = until(new_bot(client, server, "report", account="deployer", environment=["group-one", "time"]), RUNNING)
    wait_for(lambda: beats(bot))
    results = list(bot.get_metrics())
    assert [(one.task, one.execution_time, one.metrics) for one in results] == [
        ("watch", 0.5, {"price": price}) for price in (1, 2, 3)
    ]
    health = wait_for(lambda: (found := client.bots["one"].health) and found.heartbeat and found)
    assert (health.healthy, health.last_block, health.lag) == (True, 7, 2)
    metrics = httpx.get(f"{server.url}/metrics", headers={"X-API-Key": KEY}, trust_env=False).text
    labels = 'account="deployer",bot="one",currency="ETH",network="ethereum:local"'
    assert f"silverback_bot_balance{{{labels}}} 0.25" in metrics
    assert 'silverback_bot_tasks_total{bot="one",task="watch"} 3.0' in metrics
    logged = [message for message in messages(bot) if not message.startswith("beat ")]
    assert logged[1:] == ["Startup complete", "extended", "half a line ", '\x1e{"of": "nobody"}']
    server.kill()
    server.start()  # and copies the rest of the log, not all of it
    before = beats(bot)[-1]
    wait_for(lambda: beats(bot)[-1] > before + 10)
    assert len(list(bot.get_metrics())) == 3
    bot.stop()
