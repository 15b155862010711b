"""Two Docker Engines in two network namespaces, joined by a cable that can be cut, and a swarm over them.

Each namespace has another link to this machine, so that a node that is cut off from its swarm still reaches a chain.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.chain import free_port
from demo.engine import Engine, running_engine
from tests.engines.engine import BOT_IMAGE, IMAGE, busybox_archive

CHAIN_HOST = "10.215.0.1"
"""Address of this machine as the bots of both nodes reach it."""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Nodes:
    """A swarm of two nodes.

    Attributes:
        cable: the manager's end of what joins the nodes.
    """

    manager: Engine
    worker: Engine
    namespaces: tuple[str, str]
    cable: str

    def cut(self) -> None:
        """Cut the nodes off from each other; both daemons live."""
        run("ip", "netns", "exec", self.namespaces[0], "ip", "link", "set", self.cable, "down")

    def mend(self) -> None:
        """Join them again."""
        run("ip", "netns", "exec", self.namespaces[0], "ip", "link", "set", self.cable, "up")


@contextmanager
def two_nodes(heartbeat: float = 5.0) -> Iterator[Nodes]:
    """Run a swarm of two nodes for as long as the context lasts.

    Args:
        heartbeat: seconds between two signs of life of a node; it is down after some that are missing.
    """
    tag = f"{free_port():x}"
    names = (f"sbm{tag}", f"sbw{tag}")
    with ExitStack() as stack:
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "delete", name)
            run("ip", "netns", "exec", name, "ip", "link", "set", "lo", "up")
        cables = (f"c{tag}m", f"c{tag}w")
        run("ip", "link", "add", cables[0], "netns", names[0], "type", "veth", "peer", cables[1], "netns", names[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
            run("ip", "netns", "exec", name, "ip", "addr", "add", f"10.214.0.{number}/24", "dev", cable)
            run("ip", "netns", "exec", name, "ip", "link", "set", cable, "up")
            _link_to_host(stack, name, f"h{tag}{number}", f"g{tag}{number}", number)
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="node-", dir="/tmp"))) for _ in names]
        manager, worker = (
            stack.enter_context(running_engine(folder, name)) for folder, name in zip(folders, names, strict=True)
        )
        archive = busybox_archive()
        for engine in (manager, worker):
            engine.import_image(archive, IMAGE, BOT_IMAGE)
        _join(manager, worker, heartbeat)
        yield Nodes(manager, worker, names, cables[0])


def _link_to_host(stack: ExitStack, namespace: str, here: str, there: str, number: int) -> None:
    run("ip", "link", "add", here, "type", "veth", "peer", there, "netns", namespace)
    stack.callback(subprocess.run, ["ip", "link", "delete", here], check=False, capture_output=True)
    run("ip", "addr", "add", f"10.213.{number}.1/24", "dev", here)
    run("ip", "link", "set", here, "up")
    run("ip", "netns", "exec", namespace, "ip", "addr", "add", f"10.213.{number}.2/24", "dev", there)
    run("ip", "netns", "exec", namespace, "ip", "link", "set", there, "up")
    # Both find this machine at one address, through their own link.
    run("ip", "netns", "exec", namespace, "ip", "route", "add", f"{CHAIN_HOST}/32", "via", f"10.213.{number}.1")
    subprocess.run(["ip", "addr", "add", f"{CHAIN_HOST}/32", "dev", "lo"], check=False, capture_output=True)
    stack.callback(
        subprocess.run, ["ip", "addr", "del", f"{CHAIN_HOST}/32", "dev", "lo"], check=False, capture_output=True
    )


def _join(manager: Engine, worker: Engine, heartbeat: float) -> None:
    first, second = manager.client(), worker.client()
    try:
        spec = first.create_swarm_spec(dispatcher_heartbeat_period=int(heartbeat * 1e9))
        first.init_swarm(advertise_addr="10.214.0.1", listen_addr="10.214.0.1:2377", swarm_spec=spec)
        token = first.inspect_swarm()["JoinTokens"]["Worker"]
        second.join_swarm(["10.214.0.1:2377"], token, listen_addr="10.214.0.2:2377", advertise_addr="10.214.0.2")
    finally:
        first.close()
        second.close()
