"""A swarm whose worker is cut off while it lives: who moves, who doesn't, and that nobody signs twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from ape_silverback.cluster.client import Bot, ClusterClient
from ape_silverback.exceptions import Conflict
from ape_silverback.server.runtimes.loading import RuntimeChoice, write_choice
from demo.chain import free_port, running_anvil
from demo.engine import Engine, end_processes_of
from tests.cli.conftest import terminal_session
from tests.conftest import anvil_binary, run_ape
from tests.engines.conftest import Server
from tests.engines.engine import IMAGE
from tests.engines.nodes import CHAIN_HOST, Nodes
from tests.engines.test_conformance import RUNNING, beats, until
from tests.waiting import wait_for


class Sampler(threading.Thread):
    """Counts the running copies of a bot on both nodes, every 100 ms, whatever the swarm tells."""

    def __init__(self, engines: list[Engine], bot: Bot) -> None:
        super().__init__(daemon=True)
        self.clients = [engine.client() for engine in engines]
        self.filters = {"label": [f"io.ape-silverback.bot={bot.id}"]}
        self.counts: list[int] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        next_at = time.monotonic()
        while not self.stopped.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at + 0.1, time.monotonic())
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


@dataclass(frozen=True)
class Play:
    """What happens to a swarm whose worker runs a signer and some watchers, and is cut off while it lives.

    Attributes:
        chain: URL of the chain for this process.
        home: of the user who looks and moves, with the real ``ape``.
        cut_for: seconds.
        settle: seconds until it is shown that everything is right again.
    """

    nodes: Nodes
    server: Server
    chain: str
    home: Path
    project: Path
    cut_for: float
    settle: float
    watchers: tuple[str, ...]

    def ape(self, *arguments: str, code: int = 0) -> str:
        """Return what ``ape silverback cluster …`` prints, with what it tells on stderr, which isn't a terminal's."""
        result = run_ape(
            self.home, self.project, ("silverback", "cluster", *arguments), **self.server.environment, timeout=120
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def show(self, *arguments: str) -> str:
        """Return what a command prints, and print it."""
        shown = self.ape(*arguments)
        print(f"$ ape silverback cluster {' '.join(arguments)}\n{shown}")
        return shown

    def row(self, *arguments: str, name: str) -> str:
        """Return the line of a table that begins with a name."""
        [found] = [line for line in self.show(*arguments).splitlines() if line.split()[:1] == [name]]
        return found

    def deploy(self, client: ClusterClient, chain_of_bots: str) -> None:
        """Start all bots on the worker; afterwards the manager takes bots too."""
        manager, worker = self.nodes.namespaces
        _set_availability(self.nodes, manager, "drain")
        client.new_variable_group("watch", {"BEHAVIOUR": "steady"})
        client.new_variable_group("sign", {"BEHAVIOUR": "sign", "CHAIN": chain_of_bots})
        network = {"ecosystem": "ethereum", "network": "local", "provider": "foundry"}
        for name in self.watchers:
            client.new_bot(name=name, image=IMAGE, environment=["watch"], **network)
        client.new_bot(name="signer", image=IMAGE, environment=["sign"], account="TEST::0", **network)
        for bot in client.bots.values():
            until(bot, RUNNING)
        assert {bot.node for bot in client.bots.values()} == {worker}
        _set_availability(self.nodes, manager, "active")
        wait_for(lambda: signed(self.chain))

    def cut_and_mend(self, client: ClusterClient) -> dict[str, float]:
        """Cut the worker off and join it again, with the running copies of the signer sampled; return figures."""
        manager, worker = self.nodes.namespaces
        figures: dict[str, float] = {}
        with sampled([self.nodes.manager, self.nodes.worker], client.bots["signer"]) as sampler:
            self.nodes.cut()
            began = time.monotonic()
            wait_for(lambda: client.bots["signer"].unreachable_since, 90)
            figures["the signer is shown as unreachable after"] = time.monotonic() - began
            assert not client.bots["signer"].is_healthy
            wait_for(lambda: {client.bots[name].node for name in self.watchers} == {manager}, 120)
            for name in self.watchers:
                until(client.bots[name], RUNNING)
            figures["all watchers run on the other node after"] = time.monotonic() - began
            assert "unreachable since" in self.row("status", name="signer")
            assert " down " in self.row("nodes", name=worker)
            before = len(signed(self.chain))
            refused = self.ape("bots", "move", "signer", manager, "--yes", code=2)
            assert f"moving a bot off {worker}, which doesn't answer, needs one" in refused
            self.at_terminal("bots", "move", "signer", manager, "--yes", typed=manager, code=1)
            with pytest.raises(Conflict, match="may still be running and signing"):
                client.bots["signer"].move(manager)
            with pytest.raises(Conflict, match="doesn't answer"):
                client.bots["signer"].remove()
            time.sleep(max(0.0, self.cut_for - (time.monotonic() - began)))
            wait_for(lambda: len(signed(self.chain)) > before)  # the signer that is cut off goes on
            assert len(copies_in_turn(signed(self.chain))) == 1
            self.nodes.mend()
            mended = time.monotonic()
            wait_for(lambda: client.bots["signer"].unreachable_since is None, 90)
            until(client.bots["signer"], RUNNING)
            wait_for(lambda: client.bots["signer"].is_healthy)
            figures["after the node is back, the signer is healthy after"] = time.monotonic() - mended
            # within some seconds the engine ends a copy that it lost sight of, and the server starts the bot again
            wait_for(lambda: len(copies_in_turn(signed(self.chain))) > 1)
            time.sleep(self.settle)
            wait_for(lambda: client.bots["signer"].is_healthy and client.bots["signer"].node == worker)
            row = self.row("status", name="signer")
            assert " running " in row
            assert "unreachable" not in row
            row = self.row("nodes", name=worker)
            assert " ready " in row
            assert "signer" in row
        assert max(sampler.counts) == 1, "two copies ran at once"
        figures["samples"] = len(sampler.counts)
        figures["copies of the signer since it was deployed, each after the other"] = len(
            copies_in_turn(signed(self.chain))
        )
        return figures

    def lose(self, client: ClusterClient) -> dict[str, float]:
        """Lose the worker for good, with all that ran there, and move the signer to the manager; return figures."""
        manager, worker = self.nodes.namespaces
        figures: dict[str, float] = {}
        assert self.nodes.worker.process
        self.nodes.worker.process.kill()
        end_processes_of(Path(self.nodes.worker.host.removeprefix("unix://")).parent)
        died = time.monotonic()
        wait_for(lambda: client.bots["signer"].unreachable_since, 90)
        figures["after the node was killed, the signer is shown as unreachable after"] = time.monotonic() - died
        row = self.row("nodes", name=worker)
        assert " down " in row
        assert "signer" in row
        asked = time.monotonic()
        shown = self.at_terminal("bots", "move", "signer", manager, typed=worker)
        print(shown)
        assert "Two copies that sign with one account can lose money." in " ".join(shown.split())
        until(client.bots["signer"], RUNNING)
        count = len(signed(self.chain))
        wait_for(lambda: len(signed(self.chain)) > count)
        figures["moved with the command, the signer signs after"] = time.monotonic() - asked
        assert "signer" in self.row("nodes", name=manager)
        assert " running " in self.row("status", name="signer")
        copies_in_turn(signed(self.chain))
        assert all(beats(client.bots[name]) for name in self.watchers)
        return figures

    def at_terminal(self, *arguments: str, typed: str, code: int = 0) -> str:
        """Return what a terminal shows of a command that asks for the name of a machine."""
        answers = (("to confirm that it is off", f"{typed}\r"),)
        return terminal_session(arguments, self.home, self.project, code, answers, **self.server.environment)


@contextmanager
def prepared(
    nodes: Nodes, folder: Path, home: Path, project: Path, *, cut_for: float, settle: float, watchers: tuple[str, ...]
) -> Iterator[tuple[Play, ClusterClient]]:
    """Yield a play whose bots run, and a client of its cluster."""
    port = free_port()
    with running_anvil(anvil_binary(), port=port, options=("--host", "0.0.0.0")) as chain:
        write_choice(folder, RuntimeChoice("swarm", options={"host": nodes.manager.host, "network": "host"}))
        server = Server("swarm", folder, IMAGE, nodes.manager, free_port())
        server.start()
        try:
            play = Play(nodes, server, chain, home, project, cut_for, settle, watchers)
            with server.client() as client:
                play.deploy(client, f"{CHAIN_HOST}:{port}")
                yield play, client
        finally:
            server.end()


def _set_availability(nodes: Nodes, name: str, availability: str) -> None:
    client = nodes.manager.client()
    [node] = [one for one in client.nodes() if one["Description"]["Hostname"] == name]
    client.update_node(
        node["ID"], node["Version"]["Index"], {"Role": node["Spec"]["Role"], "Availability": availability}
    )
    client.close()
