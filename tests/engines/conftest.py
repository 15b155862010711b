"""Engines, and a cluster's server on each runtime."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.exceptions import ClusterError
from ape_silverback.server.runtimes.loading import RuntimeChoice, write_choice
from demo.chain import free_port
from demo.engine import Engine, missing, running_engine
from tests.conftest import ROOT
from tests.engines.engine import BOT_IMAGE, IMAGE, KEEPING_IMAGE, busybox_archive
from tests.engines.served import KEY

RUNTIMES = ("process", "docker", "swarm")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker Engine that is the only node of a swarm too, and has the image of ``bot.sh``."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir="/tmp"))
    try:
        with running_engine(folder) as started:
            client = started.client()
            client.init_swarm(advertise_addr="127.0.0.1", listen_addr=f"127.0.0.1:{free_port()}")
            client.close()
            started.import_image(busybox_archive(), IMAGE, BOT_IMAGE)
            started.import_image(busybox_archive("home/harambe/project/.silverback-sessions"), KEEPING_IMAGE, BOT_IMAGE)
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Server:
    """A cluster's server, in a process.

    Attributes:
        image: of ``bot.sh``, as this runtime takes it.
    """

    runtime: str
    folder: Path
    image: str
    engine: Engine | None
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes ``ape`` use it."""
        return {"SILVERBACK_CLUSTER_URI": self.url, "SILVERBACK_CLUSTER_API_KEY": KEY}

    def client(self) -> ClusterClient:
        """Return our client for it."""
        return ClusterClient(base_url=self.url, headers={"X-API-Key": KEY}, retries=Retries(attempts=1))

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.engines.served", str(self.folder), str(self.port)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            with suppress(ClusterError), self.client() as client:
                list(client.bots)
                return
            said = (self.folder / "server.log").read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """Take it down with its bots."""
        assert self.process
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module", params=RUNTIMES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A cluster's server on each of the runtimes."""
    runtime: str = request.param
    folder = tmp_path_factory.mktemp(runtime)
    engine: Engine | None = request.getfixturevalue("engine") if runtime != "process" else None
    image = IMAGE
    if engine is None:
        (folder / "project").mkdir()
        (folder / "project" / "bot.py").touch()
        image = f"project:{folder / 'project'}#bot"
    else:
        write_choice(folder / "cluster", RuntimeChoice(runtime, options={"host": engine.host, "network": "host"}))
    made = Server(runtime, folder / "cluster", image, engine, free_port())
    made.start()
    yield made
    made.end()


@pytest.fixture
def client(server: Server) -> Iterator[ClusterClient]:
    """Our client of the server; its bots are removed afterwards."""
    with server.client() as made:
        yield made
        for bot in made.bots.values():
            bot.remove()
        for group in made.variable_groups.values():
            group.remove()
