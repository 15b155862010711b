"""What `status` shows, over time, of bots that go wrong in five ways: the bot SDK on a real chain."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from demo.chain import free_port, running_anvil
from tests.conftest import anvil_binary
from tests.engines.split_brain import rpc
from tests.place import Place

pytestmark = [pytest.mark.trial, pytest.mark.xdist_group("staying-up")]

HEAD = """
import asyncio, os, signal, sys, threading, time
from itertools import pairwise
from pathlib import Path
from ape import chain
from silverback import SilverbackBot

bot = SilverbackBot()
started = time.monotonic()
"""

BOTS = {
    "at_start": 'raise ValueError("no pool at this address")\n',
    "after_a_minute": """
@bot.on_(chain.blocks)
def watch(block):
    if time.monotonic() - started > 60:
        print("ERROR:    the price feed ended", flush=True)
        os._exit(3)
""",
    "breaker": """
@bot.on_(chain.blocks)
def watch(block):
    raise ValueError("no price")
""",
    "hangs": """
@bot.on_(chain.blocks)
def watch(block):
    if time.monotonic() - started > 15:
        threading.Event().wait()
""",
    "waits": """
@bot.on_(chain.blocks)
async def watch(block):
    if time.monotonic() - started > 15:
        await asyncio.Event().wait()
""",
    "daemon": """
@bot.on_startup()
def begin(state):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path("daemon.pid").write_text(str(os.getpid()))
            deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(900)"
            os.execve(sys.executable, [sys.executable, "-c", deaf], {})
        os._exit(0)

@bot.on_(chain.blocks)
def watch(block):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
""",
}

SECTION = """
silverback:
  network: ethereum:local:foundry
  healthy:
    silent: 30s
"""

SIGNER = """
from ape import chain
from ape.logging import logger
from silverback import SilverbackBot, StateSnapshot

bot = SilverbackBot()

@bot.on_startup()
def begin(state: StateSnapshot):
    logger.info(f"begins after block {state.last_block_processed} with nonce {bot.nonce}")

@bot.on_(chain.blocks)
def sign(block):
    receipt = bot.signer.transfer(bot.signer, 1, required_confirmations=0)
    logger.info(f"signed at block {int(block.number)} with nonce {receipt.nonce}")
"""


class Table:
    """What `status -o wide` shows, with the seconds since the deployment; only what differs from the time before."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.begun = time.monotonic()
        self.lines: list[str] = []
        self.seen: dict[str, str] = {}

    def look(self) -> dict[str, str]:
        """Return state and reason of each bot."""
        shown = self.place.cluster("status", "-o", "wide", COLUMNS="400").stdout
        rows = {}
        titles: list[tuple[str, int, int]] = []
        for line in shown.splitlines():
            if line.startswith("NAME "):
                starts = [match.start() for match in re.finditer(r"\S+", line)] + [1000]
                titles = [(line[a:b].strip(), a, b) for a, b in pairwise(starts)]
            elif titles and line.split() and line.split()[0] in BOTS:
                cells = {title: line[a:b].strip() for title, a, b in titles}
                rows[cells["NAME"]] = f"{cells['STATE']} {cells['REASON']}"
                told = "  ".join(f"{cells[title]:<{width}}" for title, width in SHOWN.items()).rstrip()
                known = re.sub(r"\d+ ?(s|m|min)\b", "", " ".join(cells[one] for one in ("STATE", "RESTARTS", "REASON")))
                if self.seen.get(cells["NAME"]) != known:
                    self.lines.append(f"{time.monotonic() - self.begun:4.0f} s  {told}")
                self.seen[cells["NAME"]] = known
        return rows

    def until(self, condition: Callable[[dict[str, str]], bool], seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition(self.look()):
            assert time.monotonic() < deadline, "\n".join(self.lines)
            time.sleep(1)


SHOWN = {"NAME": 14, "STATE": 8, "UPTIME": 6, "RESTARTS": 8, "HEARTBEAT": 9, "LAG": 9, "REASON": 0}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with running_anvil(anvil_binary()) as chain:
        made = Place(tmp_path, chain)
        for old in (made.project / "bots").iterdir():
            old.unlink()
        made.cluster("up")
        try:
            yield made
        finally:
            made.cluster("down")


def test_what_status_shows_of_bots_that_go_wrong(place: Place) -> None:
    for name, code in BOTS.items():
        (place.project / "bots" / f"{name}.py").write_text(HEAD + code)
    place.configure(SECTION)
    place.cluster("deploy", "--yes", "--no-wait")
    table = Table(place)
    table.until(lambda rows: rows["daemon"].startswith("running") and (place.project / "daemon.pid").exists())
    daemon = psutil.Process(int((place.project / "daemon.pid").read_text()))
    time.sleep(5)
    process = psutil.Process(place.pid_of("daemon"))
    assert daemon.is_running()
    stopped = threading.Thread(target=lambda: place.cluster("bots", "stop", "daemon", "--yes"))
    stopped.start()
    table.until(lambda rows: rows["daemon"].startswith("stopped"))
    stopped.join()
    for one in (process, daemon):
        assert not one.is_running() or one.status() == psutil.STATUS_ZOMBIE
    table.until(lambda rows: "crashed 5 times in" in rows["at_start"])
    table.until(lambda rows: "no sign of work" in rows["hangs"] and "handled no block" in rows["waits"])
    table.until(lambda rows: "the price feed ended" in rows["after_a_minute"])
    table.until(lambda rows: rows["after_a_minute"].startswith("running"))
    rows = table.look()
    health = place.cluster("bots", "health", code=1)
    print("", *table.lines, health.stdout, health.stderr, sep="\n")
    assert "circuit breaker" in rows["breaker"]
    assert "no price" in rows["breaker"]
    assert "no pool at this address" in rows["at_start"]


@pytest.mark.parametrize("kept", [False, True], ids=["a new chain", "the same chain"])
def test_a_signing_bot_handles_blocks_again_when_its_node_was_restarted(tmp_path: Path, kept: bool) -> None:
    port = free_port()
    options = ["--dump-state", str(tmp_path / "state"), "--load-state", str(tmp_path / "state")] if kept else []
    place = None
    try:
        with running_anvil(anvil_binary(), port=port, options=options[:2]) as chain:
            place = Place(tmp_path, chain)
            for old in (place.project / "bots").iterdir():
                old.unlink()
            (place.project / "bots" / "signer.py").write_text(SIGNER)
            place.configure("silverback:\n  network: ethereum:local:foundry\n  account: TEST::0\n")
            place.cluster("up")
            place.cluster("deploy", "--yes")
            before = signed(place, 10)
        time.sleep(3)
        with running_anvil(anvil_binary(), port=port, options=options) as chain:
            account = rpc(chain, "eth_accounts")[0]
            count = int(rpc(chain, "eth_getTransactionCount", account, "latest"), 16)
            begun = time.monotonic()
            after = signed(place, 5, lines_before=len(log_of(place)))
            took = time.monotonic() - begun
            told = [line for line in log_of(place) if "begins after" in line or "was reset" in line]
            info = place.cluster("bots", "info", "signer").stdout
        print(f"\nsigned before (block, nonce): {before[-3:]}; the chain then had {count} transactions of the account")
        print(f"signed again {took:.0f} s after the restart, five times: {after}")
        print(*told, info, sep="\n")
        assert any("was reset" in line for line in told) is not kept
        assert (count > 0) is kept
        assert [nonce for _, nonce in after] == list(range(count, count + len(after))), "those of the chain"
    finally:
        if place:
            place.cluster("down")


def log_of(place: Place) -> list[str]:
    return place.cluster("bots", "logs", "signer", "--level", "DEBUG").stdout.splitlines()


def signed(place: Place, count: int, lines_before: int = 0) -> list[tuple[int, int]]:
    """Return block and nonce of what the bot has signed, once it has signed so often."""
    deadline = time.monotonic() + 120
    while True:
        text = "\n".join(log_of(place)[lines_before:])
        found = [(int(a), int(b)) for a, b in re.findall(r"signed at block (\d+) with nonce (\d+)", text)]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, text[-3000:]
        time.sleep(1)
