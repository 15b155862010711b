"""A swarm whose worker is cut off while it lives: who moves, who doesn't, and that nobody signs twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from ape_silverback.cluster.client import Bot
from ape_silverback.exceptions import Conflict
from ape_silverback.server.runtimes.loading import RuntimeChoice, write_choice
from demo.chain import free_port, running_anvil
from demo.engine import Engine, end_processes_of, missing
from tests.conftest import anvil_binary
from tests.engines.conftest import Server
from tests.engines.engine import IMAGE
from tests.engines.nodes import CHAIN_HOST, Nodes, two_nodes
from tests.engines.test_conformance import RUNNING, beats, until
from tests.waiting import wait_for

pytestmark = pytest.mark.trial

CUT_FOR = 120.0
"""Seconds."""

WATCHERS = ("watch-1", "watch-2", "watch-3")


class Sampler(threading.Thread):
    """Counts the running copies of a bot on both nodes, every 100 ms, whatever the swarm tells."""

    def __init__(self, engines: list[Engine], bot: Bot) -> None:
        super().__init__(daemon=True)
        self.clients = [engine.client() for engine in engines]
        self.filters = {"label": [f"io.ape-silverback.bot={bot.id}"]}
        self.counts: list[int] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.1):
            count = 0
            for client in self.clients:
                with suppress(Exception):  # a daemon that was killed
                    count += len(client.containers(filters=self.filters))
            self.counts.append(count)


@contextmanager
def sampled(engines: list[Engine], bot: Bot) -> Iterator[Sampler]:
    sampler = Sampler(engines, bot)
    sampler.start()
    yield sampler
    sampler.stopped.set()
    sampler.join()


def rpc(url: str, method: str, *parameters: Any) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=10) as answer:
        return json.load(answer)["result"]


def signed(url: str) -> list[tuple[int, str]]:
    """Return block and copy of each transaction of the signer, in their order."""
    found = []
    for number in range(int(rpc(url, "eth_blockNumber"), 16) + 1):
        block = rpc(url, "eth_getBlockByNumber", hex(number), True)
        found += [(number, one["input"]) for one in block["transactions"]]
    return found


def copies_in_turn(transactions: list[tuple[int, str]]) -> list[str]:
    """Return the copies that signed, in the order of their first transaction; fails if two signed by turns."""
    turns: list[str] = []
    for _, copy in transactions:
        if not turns or turns[-1] != copy:
            assert copy not in turns, "a copy signed again after another one had"
            turns.append(copy)
    return turns


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if reason := missing():
        pytest.skip(reason)
    with two_nodes() as made:
        yield made


def test_a_signer_never_runs_twice_whatever_happens_to_its_node(nodes: Nodes, tmp_path: Path) -> None:
    port = free_port()
    with running_anvil(anvil_binary(), port=port, options=("--host", "0.0.0.0")) as chain:
        write_choice(
            tmp_path / "cluster", RuntimeChoice("swarm", options={"host": nodes.manager.host, "network": "host"})
        )
        server = Server("swarm", tmp_path / "cluster", IMAGE, nodes.manager, free_port())
        server.start()
        try:
            _play(nodes, server, chain, f"{CHAIN_HOST} {port}")
        finally:
            server.end()


def _play(nodes: Nodes, server: Server, chain: str, chain_of_bots: str) -> None:
    manager, worker = nodes.namespaces
    figures: dict[str, float] = {}
    with server.client() as client:
        _set_availability(nodes, manager, "drain")
        client.new_variable_group("watch", {"BEHAVIOUR": "steady"})
        client.new_variable_group("sign", {"BEHAVIOUR": "sign", "CHAIN": chain_of_bots})
        network = {"ecosystem": "ethereum", "network": "local", "provider": "foundry"}
        for name in WATCHERS:
            client.new_bot(name=name, image=IMAGE, environment=["watch"], **network)
        signer = client.new_bot(name="signer", image=IMAGE, environment=["sign"], account="TEST::0", **network)
        for bot in client.bots.values():
            until(bot, RUNNING)
        assert {bot.node for bot in client.bots.values()} == {worker}
        _set_availability(nodes, manager, "active")
        wait_for(lambda: signed(chain))

        with sampled([nodes.manager, nodes.worker], signer) as sampler:
            nodes.cut()
            began = time.monotonic()
            wait_for(lambda: client.bots["signer"].unreachable_since, 90)
            figures["the signer is shown as unreachable after"] = time.monotonic() - began
            assert not client.bots["signer"].is_healthy
            wait_for(lambda: {client.bots[name].node for name in WATCHERS} == {manager}, 120)
            for name in WATCHERS:
                until(client.bots[name], RUNNING)
            figures["all watchers run on the other node after"] = time.monotonic() - began
            before = len(signed(chain))
            with pytest.raises(Conflict, match="may still be running and signing"):
                client.bots["signer"].move(manager)
            with pytest.raises(Conflict, match="doesn't answer"):
                client.bots["signer"].remove()
            time.sleep(max(0.0, CUT_FOR - (time.monotonic() - began)))
            assert len(signed(chain)) > before, "the signer that is cut off goes on"
            assert len(copies_in_turn(signed(chain))) == 1
            nodes.mend()
            mended = time.monotonic()
            wait_for(lambda: client.bots["signer"].unreachable_since is None, 90)
            until(client.bots["signer"], RUNNING)
            wait_for(lambda: client.bots["signer"].is_healthy)
            figures["after the node is back, the signer is healthy after"] = time.monotonic() - mended
            assert client.bots["signer"].node == worker
            count = len(signed(chain))
            wait_for(lambda: len(signed(chain)) > count)
            time.sleep(5)
        figures["samples"] = len(sampler.counts)
        assert max(sampler.counts) == 1, "two copies ran at once"
        figures["copies of the signer after the node came back"] = len(copies_in_turn(signed(chain)))

        # The node is gone for good, with all that ran there.
        nodes.worker.process.kill()
        end_processes_of(Path(nodes.worker.host.removeprefix("unix://")).parent)
        died = time.monotonic()
        wait_for(lambda: client.bots["signer"].unreachable_since, 90)
        figures["after the node was killed, the signer is shown as unreachable after"] = time.monotonic() - died
        [down] = [node for node in client.nodes if node.name == worker]
        assert down.state == "down"
        assert "signer" in down.bots
        asked = time.monotonic()
        client.bots["signer"].move(manager, fenced=True)
        until(client.bots["signer"], RUNNING)
        count = len(signed(chain))
        wait_for(lambda: len(signed(chain)) > count)
        figures["moved, the signer signs after"] = time.monotonic() - asked
        assert client.bots["signer"].node == manager
        copies_in_turn(signed(chain))
        assert [beats(client.bots[name]) for name in WATCHERS]
    for what, figure in figures.items():
        print(f"{what}: {figure:.1f}")


def _set_availability(nodes: Nodes, name: str, availability: str) -> None:
    client = nodes.manager.client()
    [node] = [one for one in client.nodes() if one["Description"]["Hostname"] == name]
    client.update_node(
        node["ID"], node["Version"]["Index"], {"Role": node["Spec"]["Role"], "Availability": availability}
    )
    client.close()
