"""What the server costs: an answer with 250 bots beside a bare route of its framework, and bots that rest."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import uvicorn
from fastapi import FastAPI, Response

from benchmarks.measure import shown
from tests.server.machine import KEY, serving_cluster
from tests.trials.light_cluster import LightCluster
from tests.waiting import wait_for

BOTS = 250
REQUESTS = 50
ROUNDS = 10
RESTING = (0, 20, 100)
SECONDS = 20
"""How long the server is watched while its bots rest."""


def answers() -> Iterator[str]:
    """Yield a table of what ``GET /bots`` costs, beside a bare route with the same bytes."""
    with tempfile.TemporaryDirectory() as name, serving_cluster(Path(name)) as cluster, cluster.client() as client:
        for number in range(BOTS):
            client.new_bot(f"bot{number}", "a/b:1", "ethereum", "mainnet", "node")
        wait_for(lambda: all(bot.status.name == "RUNNING" for bot in client.bots.values()))
        body = httpx.get(f"{cluster.url}/bots", headers={"X-API-Key": KEY}).content
        with bare_route(body) as bare:
            sides = {"GET /bots": f"{cluster.url}/bots", "a bare route": bare}
            costs = {side: [cost_of(url) for _ in range(ROUNDS + 1)][1:] for side, url in sides.items()}
    medians = {side: statistics.median(of) for side, of in costs.items()}
    yield from shown(
        f"| {BOTS} bots, {len(body):,} bytes | ms of processor time, client included | ratio | wanted |",
        "| --- | --- | --- | --- |",
        f"| a bare route of the framework with the same bytes | {medians['a bare route'] * 1000:.2f} | | |",
        f"| GET /bots | {medians['GET /bots'] * 1000:.2f} | {medians['GET /bots'] / medians['a bare route']:.2f} | 3 |",
    )


def cost_of(url: str) -> float:
    """Return the seconds of processor time that a request takes in this process, which serves, too."""
    with httpx.Client(headers={"X-API-Key": KEY}) as client:
        client.get(url).raise_for_status()
        before = time.process_time()
        for _ in range(REQUESTS):
            client.get(url).raise_for_status()
        return (time.process_time() - before) / REQUESTS


@contextmanager
def bare_route(body: bytes) -> Iterator[str]:
    """Serve some bytes; yields their URL."""
    app = FastAPI()

    @app.get("/bare")
    def bare() -> Response:
        return Response(body, media_type="application/json")

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/bare"
    finally:
        server.should_exit = True
        thread.join()


def rest() -> Iterator[str]:
    """Yield a table of what the server costs while its bots, real processes, do nothing."""
    yield from shown(
        "| bots that run | share of a core | wanted | server, MB | a shim, MB resident | its own share, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    )
    with tempfile.TemporaryDirectory() as name:
        light = LightCluster(Path(name) / "place")
        client, bots = light.up(), []
        assert light.server is not None
        server = psutil.Process(light.server.pid)
        try:
            for count in RESTING:
                while len(bots) < count:
                    made = client.post("/bots", json=light.body(f"rest-{len(bots)}", "rest")).raise_for_status()
                    bots.append(made.json()["id"])
                wait_for(lambda: all(bot["task"]["last_status"] == "RUNNING" for bot in client.get("/bots").json()))
                time.sleep(5)
                before, begun = sum(server.cpu_times()[:2]), time.monotonic()
                time.sleep(SECONDS)
                share = (sum(server.cpu_times()[:2]) - before) / (time.monotonic() - begun)
                shims = [psutil.Process(light.run_file(bot)["pid"]).memory_full_info() for bot in bots]
                sizes = [
                    f"{statistics.mean(getattr(one, kind) for one in shims) / 1e6:.1f}" if shims else ""
                    for kind in ("rss", "pss")
                ]
                yield from shown(
                    f"| {count} | {share:.2%} | {'2%' if count == RESTING[-1] else ''} | "
                    f"{server.memory_info().rss / 1e6:.0f} | {' | '.join(sizes)} |"
                )
        finally:
            for bot in bots:
                client.delete(f"/bots/{bot}")
            wait_for(lambda: not client.get("/bots").json())
            client.close()
            light.down()
