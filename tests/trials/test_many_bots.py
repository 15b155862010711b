"""What a deployment of 250 bots costs: requests and wall time of a restart, and of a minute of waiting."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.deployment.restart import restart_bots
from ape_silverback.deployment.wait import Timing, wait_until_ready
from tests.cluster.server import BOT, Reply, Request, answer, serving

pytestmark = pytest.mark.trial
MANY = 250
STOP = 5.0
"""Seconds that a bot takes to stop."""


class Slow:
    """A cluster whose bots take their time to stop and to be healthy, and that tells states only one by one."""

    def __init__(self, healthy_after: float) -> None:
        self.bots = {f"{number:08x}-1111-4111-8111-111111111111": f"bot-{number}" for number in range(MANY)}
        self.healthy_after = healthy_after
        self.stopped_at: dict[str, float] = {}
        self.began = time.monotonic()
        self.started: dict[str, float] = dict.fromkeys(self.bots, self.began)
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()

    def status(self, identity: str) -> ResourceStatus:
        now = time.monotonic()
        if identity in self.stopped_at:
            return ResourceStatus.STOPPED if now >= self.stopped_at[identity] else ResourceStatus.SHUTDOWN
        ready = now - self.started[identity] >= self.healthy_after
        return ResourceStatus.RUNNING if ready else ResourceStatus.STARTUP

    def __call__(self, request: Request) -> Reply:
        with self.lock:
            parts = request.path.strip("/").split("/")
            self.asked[f"{request.method} {'/'.join(['bots', 'ID', *parts[2:]]) if len(parts) > 1 else parts[0]}"] += 1
            if request.path == "/bots":
                return answer([{**BOT, "id": one, "name": name} for one, name in self.bots.items()])
            if request.path == "/openapi.json":
                return answer({"info": {}})
            if request.path == "/health":
                healthy = {
                    name: {"healthy": self.status(one) is ResourceStatus.RUNNING} for one, name in self.bots.items()
                }
                return answer({"networks": {}, "bots": healthy})
            identity = parts[1] if len(parts) > 2 else ""
            if parts[-1] == "status":
                return answer(int(self.status(identity)))
            if parts[-1] == "stop":
                self.stopped_at[identity] = time.monotonic() + STOP
            if parts[-1] == "start":
                assert self.status(identity) is ResourceStatus.STOPPED, "a start of a bot that hasn't stopped"
                del self.stopped_at[identity]
                self.started[identity] = time.monotonic()
            return answer([])


@pytest.mark.sample
def test_a_restart_of_all_takes_little_longer_than_one(tmp_path: Path) -> None:
    cluster = Slow(healthy_after=0)
    with serving(cluster) as server, ClusterClient(base_url=server.url) as client:
        bots = list(client.bots.values())
        cluster.asked.clear()
        began = time.monotonic()
        events = list(restart_bots(client, bots, Timing()))
        took = time.monotonic() - began
    print(
        f"\nrestart of {MANY} with stops of {STOP:g} s: {took:.1f} s, {cluster.asked.total()} requests {cluster.asked}"
    )
    assert Counter(event.kind for event in events if event.kind != "state") == {"applied": MANY}
    assert took < 86 / 2  # it took 86 s when a thread waited for each


def test_a_minute_of_waiting_asks_little() -> None:
    cluster = Slow(healthy_after=60)
    with serving(cluster) as server, ClusterClient(base_url=server.url) as client:
        began = time.monotonic()
        events = list(wait_until_ready(client, cluster.bots.values(), Timing(settle=0)))
        took = time.monotonic() - began
    print(f"\n{took:.1f} s of waiting for {MANY}: {cluster.asked.total()} requests {cluster.asked}")
    assert Counter(event.kind for event in events if event.kind != "state") == {"ready": MANY}
    assert cluster.asked.total() < 5500  # in 20 s when every bot was asked at every look
