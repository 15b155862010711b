"""What `serve` answers under load: 200 people who follow logs, and 50 clients that ask without a pause."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import statistics
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from ape_silverback.cluster.client import ClusterClient
from demo.chain import free_port
from tests.certificates import make_certificate
from tests.server.test_serve import serving
from tests.waiting import wait_for

pytestmark = pytest.mark.trial

BOTS = 4
FOLLOWERS, CLIENTS = 200, 50
SECONDS = 20.0

TALKER = """
import itertools, time
for number in itertools.count():
    print(f"INFO:     line {number}", flush=True)
    time.sleep(0.1)
"""
"""A module of a bot that talks as soon as it is imported, ten lines a second."""


class Load:
    """What followers and clients ask of one cluster, and what they saw."""

    def __init__(self, url: str, key: str, trust: ssl.SSLContext, bots: list[str]) -> None:
        self.options = {"base_url": url, "headers": {"X-API-Key": key}, "verify": trust, "timeout": 60.0}
        self.bots = bots
        self.lines: Counter[int] = Counter()
        self.times: list[float] = []
        self.errors: list[str] = []

    async def follow(self, number: int) -> None:
        """Follow the log of a bot until this is cancelled."""
        bot = self.bots[number % len(self.bots)]
        async with (
            httpx.AsyncClient(**self.options) as client,
            client.stream("GET", f"/bots/{bot}/logs", params={"follow": "true"}) as answer,
        ):
            if answer.status_code != 200:
                self.errors.append(f"follower: {answer.status_code}")
            async for part in answer.aiter_bytes():
                self.lines[number] += part.count(b"\n")

    async def ask(self, number: int, until: float) -> None:
        """Ask one question after the other, as a page that shows the cluster does."""
        bot = self.bots[number % len(self.bots)]
        async with httpx.AsyncClient(**self.options) as client:
            for path in itertools.cycle(["/bots", "/health", f"/bots/{bot}/status", f"/bots/{bot}/errors", "/vars"]):
                if time.monotonic() > until:
                    return
                began = time.monotonic()
                answer = await client.get(path)
                self.times.append(time.monotonic() - began)
                if answer.status_code != 200:
                    self.errors.append(f"{path}: {answer.status_code}")

    async def run(self, followers: int) -> None:
        """Let clients ask for a while, beside so many followers."""
        following = [asyncio.create_task(self.follow(number)) for number in range(followers)]
        deadline = time.monotonic() + 60
        while len(self.lines) < followers and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        self.lines.clear()
        self.times.clear()
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(self.ask(number, until) for number in range(CLIENTS)))
        for task in following:
            self.errors += [f"a follower ended: {task!r}"] if task.done() else []
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


def test_two_hundred_followers_and_fifty_clients_are_served(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "talkers"
    (project / "bots").mkdir(parents=True)
    (project / "bots" / "talker.py").write_text(TALKER)
    certificate, key_file = make_certificate(tmp_path)
    port, folder = free_port(), home / "served"
    options = ("--folder", str(folder), "--port", str(port), "--tls-cert", str(certificate), "--tls-key", str(key_file))
    trust = ssl.create_default_context(cafile=str(certificate))
    with serving(home, *options):
        key, url = (folder / "api-key").read_text(), f"https://127.0.0.1:{port}"
        with ClusterClient(base_url=url, headers={"X-API-Key": key}, verify=trust) as client:
            where = {"ecosystem": "ethereum", "network": "local", "provider": "test"}
            made = [
                client.new_bot(name=f"talker-{number}", image=f"project:{project}#talker", **where)
                for number in range(BOTS)
            ]
            for bot in made:
                wait_for(lambda bot=bot: any("line 1" in entry.message for entry in bot.get_logs()), 300)
            [listens] = {one.pid for one in psutil.net_connections("tcp") if one.laddr.port == port and not one.raddr}
            served = psutil.Process(listens)
            for followers in (0, FOLLOWERS):
                load = Load(url, key, trust, [str(bot.id) for bot in made])
                before = sum(served.cpu_times()[:2])
                asyncio.run(load.run(followers))
                used = sum(served.cpu_times()[:2]) - before
                tenths = statistics.quantiles(load.times, n=20)
                print(
                    f"{CLIENTS} clients, {followers} followers: {len(load.times)} answers in {SECONDS:.0f} s, "
                    f"p50 {statistics.median(load.times) * 1000:.0f} ms, p95 {tenths[-1] * 1000:.0f} ms, "
                    f"max {max(load.times) * 1000:.0f} ms; {sum(load.lines.values()) / SECONDS:.0f} lines/s; "
                    f"{used / SECONDS:.0%} of a core, {served.memory_info().rss / 2**20:.0f} MiB"
                )
                assert not load.errors
                assert len(load.lines) == followers
                assert served.memory_info().rss < 400 * 2**20
                assert statistics.median(load.times) < 10
