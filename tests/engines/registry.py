"""A real container registry on the loopback interface that wants a user and a password."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx

from demo.chain import free_port

REGISTRY = shutil.which("docker-registry")
USER, PASSWORD = "puller", "pa55w0rd"
HASHED = "$2y$05$kstVsDLVgwOGuxwkdnMNDOaUfDl/Q1IN8TeWhuUu6AUHWhQ5Zor3e"
"""The password as an htpasswd file has it (bcrypt)."""

CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{host}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""


@dataclass(frozen=True)
class Registry:
    """A registry that runs.

    Attributes:
        host: with its port.
    """

    host: str

    def push(self, engine: docker.APIClient, image: str, name: str) -> str:
        """Push an image of an engine, forget it there, and return its name in the registry."""
        repository = f"{self.host}/{name}"
        engine.tag(image, repository, "1")
        login = {"username": USER, "password": PASSWORD}
        for event in engine.push(repository, "1", stream=True, decode=True, auth_config=login):
            assert "error" not in event, event
        engine.remove_image(f"{repository}:1")
        return f"{repository}:1"


@contextmanager
def running_registry(folder: Path) -> Iterator[Registry]:
    """Run a registry for as long as the context lasts."""
    assert REGISTRY
    registry = Registry(f"127.0.0.1:{free_port()}")
    (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    (folder / "config.yml").write_text(CONFIGURATION.format(folder=folder, host=registry.host))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([REGISTRY, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        answered = False
        while not answered:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the registry doesn't answer"
            with suppress(httpx.TransportError):
                answered = httpx.get(f"http://{registry.host}/v2/").status_code == 401
            time.sleep(0.05)
        yield registry
    finally:
        process.terminate()
        process.wait(30)
