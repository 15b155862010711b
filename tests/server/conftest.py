"""A real local cluster in a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.server.daemon import LocalCluster, Started
from tests.conftest import run_ape

BOT = """
import os
from silverback import SilverbackBot

bot = SilverbackBot()
print("WARNING:  variables " + " ".join(f"{name}={os.environ[name]}" for name in sorted(os.environ) if "LOUD" in name))

@bot.cron("* * * * *")
def tick(time):
    pass
"""

BLOCKS = """
from ape import chain
from silverback import SilverbackBot

bot = SilverbackBot()

@bot.on_(chain.blocks)
def beat(block):
    return {"number": block.number}
"""

CRASHING = """
from silverback import SilverbackBot

bot = SilverbackBot()

@bot.on_startup()
def begin(state):
    raise ValueError("nobody told me the price")
"""


@pytest.fixture(scope="module")
def bots_folder(tmp_path_factory: pytest.TempPathFactory, anvil: str) -> Path:
    """An Ape project with two bots that run on a real chain, and one that doesn't get far."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "bots").mkdir()
    for name in ("one", "two"):
        (folder / "bots" / f"{name}.py").write_text(BOT)
    (folder / "bots" / "blocks.py").write_text(BLOCKS)
    (folder / "bots" / "crashing.py").write_text(CRASHING)
    node = f"node:\n  ethereum:\n    local:\n      uri: {anvil}\n"
    (folder / "ape-config.yaml").write_text(f"foundry:\n  host: {anvil}\n{node}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cluster keeps."""
    return tmp_path_factory.mktemp("home") / ".silverback" / "local"


def local_cluster(folder: Path, *options: str) -> LocalCluster:
    """Start a local cluster with `ape`, whose server and bots are forked, and return it."""
    home = folder.parents[1]
    result = run_ape(home, home, ["silverback", "cluster", "up", *options])
    assert result.returncode == 0, result.stderr
    return LocalCluster(folder)


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[Started]:
    """The server, started."""
    cluster = local_cluster(folder)
    yield cluster.up()
    cluster.down()


@pytest.fixture
def client(started: Started) -> Iterator[ClusterClient]:
    """Our client for it."""
    headers = {"X-API-Key": started.api_key}
    with ClusterClient(base_url=started.running.host, headers=headers, retries=Retries(attempts=1)) as made:
        yield made
        for bot in made.bots.values():
            bot.remove()
        for group in made.variable_groups.values():
            group.remove()
        for credential in made.credentials.values():
            credential.remove()
