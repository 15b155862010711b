"""What is killed at random, and what it costs to do nothing. Each trial prints its figures: ``pytest -m trial -s``."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from ape_silverback.server.logs import files_of_log, read_log
from tests.trials.light_cluster import LightCluster
from tests.waiting import wait_for

pytestmark = [pytest.mark.trial, pytest.mark.xdist_group("staying-up")]


@pytest.fixture
def light(tmp_path: Path) -> Iterator[LightCluster]:
    made = LightCluster(tmp_path / "place")
    yield made
    if made.server and made.server.poll() is not None:
        made.up().close()
    made.down()


def beats_of(log: Path) -> dict[int, list[int]]:
    """Return the numbers of the beats in a log, for each process."""
    found: dict[int, list[int]] = {}
    for pid, number in re.findall(rb"beat (\d+) (\d+)\n", read_log(log)):
        found.setdefault(int(pid), []).append(int(number))
    return found


@pytest.mark.parametrize("kills", [pytest.param(5, marks=pytest.mark.sample), 50])
def test_kills_of_the_server_lose_nothing_and_run_nothing_twice(light: LightCluster, kills: int) -> None:
    chance = random.Random(14)
    client = light.up()
    untouched = [
        client.post("/bots", json=light.body(f"untouched-{number}", "beat")).json()["id"] for number in range(4)
    ]
    for bot in untouched:
        wait_for(lambda bot=bot: light.run_file(bot).get("ready"))
    pids = {bot: light.run_file(bot)["bot"] for bot in untouched}
    groups: list[str] = []
    bots: dict[str, str] = {}
    writes = 0
    for life in range(kills):
        stop_at = time.monotonic() + chance.uniform(0.05, 1.2)
        killer = threading.Timer(stop_at - time.monotonic(), light.kill)
        killer.start()
        number = 0
        with suppress(httpx.TransportError):
            while True:
                number += 1
                name = f"g-{life}-{number}"
                if client.post("/vars", params={"name": name}, json={"A": name}).status_code == 200:
                    groups.append(name)
                made = client.post("/bots", json=light.body(f"b-{life}-{number}", "rest"))
                if made.status_code == 200:
                    bots[made.json()["name"]] = made.json()["id"]
                writes += 2
                if bots and chance.random() < 0.6:
                    some = chance.choice([*bots])
                    act = chance.choice(["stop", "start", "remove"])
                    if act == "remove":
                        if client.delete(f"/bots/{bots.pop(some)}").status_code != 200:
                            raise AssertionError("a removal was refused")
                    else:
                        client.post(f"/bots/{bots[some]}/{act}")
                    writes += 1
        killer.join()
        client.close()
        client = light.up()
        there = {bot["name"]: bot for bot in client.get("/bots").json()}
        assert set(groups) <= {group["name"] for group in client.get("/vars").json()}
        assert set(bots) <= set(there)
        bots = {name: bot["id"] for name, bot in there.items() if name.startswith("b-")}
        while len(bots) > 15:  # as many processes as the machine can bear
            client.delete(f"/bots/{bots.popitem()[1]}")
    there = client.get("/bots").json()
    settled = ("RUNNING", "STOPPED")
    wait_for(lambda: all(bot["task"]["last_status"] in settled for bot in client.get("/bots").json()))
    for bot in client.get("/bots").json():
        running = bot["task"]["last_status"] == "RUNNING"
        assert len(light.processes(bot["id"])) == running, (bot["name"], bot["task"])
        assert "TWICE" not in light.witness(bot["id"])
    lines = 0
    for bot, pid in pids.items():
        assert light.witness(bot) == [str(pid)], "it was never interrupted"
        [(seen, numbers)] = beats_of(light.log(bot)).items()
        assert seen == pid
        assert numbers == list(range(1, len(numbers) + 1)), "no line is lost or doubled"
        lines += len(numbers)
    print(f"\n{kills} kills, {writes} writes, {len(there)} bots at the end, {lines} lines of 4 bots without a gap")
    client.close()


@pytest.mark.parametrize("kills", [pytest.param(5, marks=pytest.mark.sample), 60])
def test_kills_between_a_start_and_its_record_run_nothing_twice_and_forget_nothing(
    light: LightCluster, kills: int
) -> None:
    chance = random.Random(34)
    twice = 0
    for _ in range(kills):
        client = light.up()
        bots = {bot["name"]: bot["id"] for bot in client.get("/bots").json()}
        if "aimed" not in bots:
            bots["aimed"] = client.post("/bots", json=light.body("aimed", "rest")).json()["id"]
        bot = bots["aimed"]
        client.post(f"/bots/{bot}/stop")
        wait_for(lambda bot=bot, client=client: client.get(f"/bots/{bot}/status").json() == 7)
        asked = threading.Thread(target=lambda bot=bot, client=client: _started(client, bot))
        asked.start()
        time.sleep(chance.uniform(0.0, 0.08))
        light.kill()
        asked.join()
        client.close()
        client = light.up()
        if client.get(f"/bots/{bot}/status").json() == 7:
            client.post(f"/bots/{bot}/start")
        wait_for(lambda bot=bot, client=client: client.get(f"/bots/{bot}/status").json() == 4)
        twice += len(light.processes(bot)) != 1
        client.close()
        light.kill()
    assert twice == 0
    assert "TWICE" not in light.witness(bot)
    print(f"\n{kills} aimed kills, {len(light.witness(bot))} starts, none twice")


def _started(client: httpx.Client, bot: str) -> None:
    with suppress(httpx.TransportError):
        client.post(f"/bots/{bot}/start")


@pytest.mark.parametrize("which", ["shim", "bot", pytest.param("both", marks=pytest.mark.sample)])
def test_twenty_kills_of_what_runs_a_bot_leave_one_bot_each_time(light: LightCluster, which: str) -> None:
    client = light.up()
    bot = client.post("/bots", json=light.body("one", "beat")).json()["id"]
    took = []
    for _ in range(20):
        wait_for(lambda: client.get(f"/bots/{bot}/status").json() == 4)
        run = light.run_file(bot)
        begun = time.monotonic()
        for key, name in (("pid", "shim"), ("bot", "bot")):
            if which in (name, "both"):
                with suppress(ProcessLookupError):
                    os.kill(run[key], signal.SIGKILL)
        wait_for(lambda run=run: light.run_file(bot).get("bot") not in (None, 0, run["bot"]))
        wait_for(lambda: client.get(f"/bots/{bot}/status").json() == 4)
        took.append(time.monotonic() - begun)
        assert len(light.processes(bot)) == 1
    assert "TWICE" not in light.witness(bot)
    assert len(light.witness(bot)) == 21
    took.sort()
    print(f"\n20 kills of {which}: back after {took[10]:.1f} s (median), {took[-1]:.1f} s at most")
    client.close()


def test_a_flood_is_bounded_on_disk_and_in_memory(light: LightCluster) -> None:
    client = light.up()
    bot = client.post("/bots", json=light.body("flood", "flood")).json()["id"]
    other = client.post("/bots", json=light.body("other", "beat")).json()["id"]
    wait_for(lambda: light.run_file(bot).get("bot"))
    shim = psutil.Process(light.run_file(bot)["pid"])
    begun, most_disk, most_memory, most_of_server, slowest = time.monotonic(), 0, 0, 0, 0.0
    written = psutil.Process(light.run_file(bot)["bot"])
    assert light.server is not None
    server = psutil.Process(light.server.pid)
    seconds = float(os.environ.get("FLOOD_SECONDS", "60"))
    while time.monotonic() - begun < seconds:
        asked = time.monotonic()
        client.get("/bots")
        slowest = max(slowest, time.monotonic() - asked)
        sizes = 0
        for file in files_of_log(light.log(bot)):
            with suppress(FileNotFoundError):
                sizes += file.stat().st_size
        most_disk, most_memory = max(most_disk, sizes), max(most_memory, shim.memory_info().rss)
        most_of_server = max(most_of_server, server.memory_info().rss)
        time.sleep(0.5)
    rate = written.io_counters().write_chars / (time.monotonic() - begun) / 1e6
    assert most_disk <= 50 * 1024 * 1024
    assert most_memory < 30e6
    beats = beats_of(light.log(other))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in beats.values())
    print(
        f"\na flood of {rate:.0f} MB/s for {seconds:.0f} s: at most {most_disk / 1e6:.0f} MB of log, "
        f"{most_memory / 1e6:.1f} MB for its shim, {most_of_server / 1e6:.0f} MB for the server; "
        f"{sum(shim.cpu_times()[:2]) / (time.monotonic() - begun):.0%} of a core for the shim, "
        f"{sum(server.cpu_times()[:2]) / (time.monotonic() - begun):.1%} for the server; "
        f"GET /bots at most {slowest * 1000:.0f} ms"
    )
    client.close()


@pytest.mark.sample
def test_bots_live_on_a_full_disk_of_four_megabytes_and_the_loss_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs {home}") != 0:
        pytest.skip("only root can mount a small disk")
    light = LightCluster(home / "place")
    try:
        client = light.up()
        filler = home / "filler"
        filler.write_bytes(b"x" * 1_500_000)
        bots = [client.post("/bots", json=light.body(f"beat-{number}", "beat")).json()["id"] for number in range(3)]
        bots.append(client.post("/bots", json=light.body("burst", "burst")).json()["id"])
        wait_for(lambda: all(light.run_file(bot).get("ready") for bot in bots))
        pids = {bot: light.run_file(bot)["bot"] for bot in bots}
        wait_for(lambda: shutil.disk_usage(home).free < 8192)
        refused = client.post("/vars", params={"name": "group"}, json={"A": "x" * 60_000}).status_code
        begun, slowest = time.monotonic(), 0.0
        while time.monotonic() - begun < 15:
            asked = time.monotonic()
            assert len(client.get("/bots").json()) == 4
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.1)
        assert {bot: light.run_file(bot)["bot"] for bot in bots} == pids, "none was started again"
        assert all(psutil.Process(pid).is_running() for pid in pids.values())
        filler.unlink()
        told = rb" WARNING:  (\d+) lines of this log were dropped: there was no room on the disk\n"
        wait_for(lambda: all(re.search(told, read_log(light.log(bot))) for bot in bots))
        time.sleep(2)
        lost = {}
        for bot, pid in pids.items():
            lines = read_log(light.log(bot))
            lost[bot] = sum(map(int, re.findall(told, lines)))
            [(seen, numbers)] = beats_of(light.log(bot)).items()
            assert seen == pid
            burst = 120_000 - lines.count(b" " + b"x" * 99 + b"\n") if bot == bots[-1] else 0
            assert lost[bot] == numbers[-1] - len(numbers) + burst, "what is missing is what is told"
        assert client.post("/vars", params={"name": "group"}, json={"A": "x"}).status_code == 200
        print(
            f"\n4 bots on a full disk of 4 MB for {time.monotonic() - begun:.0f} s: none ended; lines lost and told: "
            f"{', '.join(map(str, lost.values()))}; a write meanwhile: {refused}; "
            f"GET /bots at most {slowest * 1000:.0f} ms"
        )
        client.close()
    finally:
        light.down()
        os.system(f"umount -l {home}")


def test_what_bots_that_rest_cost(light: LightCluster) -> None:
    client, lines = light.up(), []
    assert light.server is not None
    server = psutil.Process(light.server.pid)
    bots: list[str] = []
    for count in (0, 20, 100):
        while len(bots) < count:
            bots.append(client.post("/bots", json=light.body(f"rest-{len(bots)}", "rest")).json()["id"])
        wait_for(lambda: all(bot["task"]["last_status"] == "RUNNING" for bot in client.get("/bots").json()), 300)
        time.sleep(5)
        before, begun = sum(server.cpu_times()[:2]), time.monotonic()
        time.sleep(30)
        share = (sum(server.cpu_times()[:2]) - before) / (time.monotonic() - begun)
        shims = [psutil.Process(light.run_file(bot)["pid"]) for bot in bots]
        resident = [shim.memory_info().rss for shim in shims] or [0]
        own = [shim.memory_full_info().pss for shim in shims] or [0]
        spent = sum(sum(shim.cpu_times()[:2]) for shim in shims)
        lines.append(
            f"{count} bots: {share:.2%} of a core, {server.memory_info().rss / 1e6:.0f} MB the server; a shim "
            f"{sum(resident) / len(resident) / 1e6:.1f} MB resident, {sum(own) / len(own) / 1e6:.1f} MB its share, "
            f"{spent:.1f} s of CPU all shims since their start"
        )
        assert share < 0.02
        assert sum(own) / len(own) < 8e6
    for number in range(150):
        bot = client.post("/bots", json=light.body(f"stopped-{number}", "rest")).json()["id"]
        client.post(f"/bots/{bot}/stop")
    times = []
    for _ in range(20):
        begun = time.monotonic()
        count = len(client.get("/bots").json())
        times.append(time.monotonic() - begun)
    lines.append(f"GET /bots of {count}: {sorted(times)[10] * 1000:.0f} ms (median)")
    print("\n" + "\n".join(lines))
    client.close()
