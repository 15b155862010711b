"""A cluster with light bots, from outside: its server can be killed and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from ape_silverback.server.processes import read_json, with_variable
from tests.conftest import ROOT
from tests.trials.light_server import KEY, prepare
from tests.waiting import wait_for


class LightCluster:
    """A folder with light bots, and the server for it, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prepare(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.server: subprocess.Popen[bytes] | None = None

    def up(self) -> httpx.Client:
        with (self.folder / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.trials.light_server", str(self.folder), str(self.port)]
            self.server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers={"X-API-Key": KEY}, timeout=60)

        def answers() -> bool:
            assert self.server is not None
            assert self.server.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            with suppress(httpx.TransportError):
                return client.get("/health").status_code == 200
            return False

        try:
            wait_for(answers)
        except AssertionError:
            self.server.send_signal(signal.SIGUSR1)
            time.sleep(2)
            raise AssertionError((self.folder / "server.log").read_text()[-5000:]) from None
        return client

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def down(self) -> None:
        if self.server and self.server.poll() is None:
            self.server.terminate()
            self.server.wait(60)

    def body(self, name: str, kind: str) -> dict[str, Any]:
        image = f"project:{self.folder}#{kind}"
        return {"name": name, "image": image, "ecosystem": "ethereum", "network": "local", "provider": "foundry"}

    def run_file(self, bot: str) -> dict[str, Any]:
        return read_json(self.folder / "kept" / "bots" / bot / "run.json") or {}

    def log(self, bot: str) -> Path:
        return self.folder / "kept" / "bots" / bot / "log"

    def processes(self, bot: str) -> list[int]:
        return with_variable(f"_SILVERBACK_BOT={bot}")

    def witness(self, bot: str) -> list[str]:
        file = self.folder / "witness" / bot
        return file.read_text().split() if file.exists() else []
