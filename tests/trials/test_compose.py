"""The documented compose file: its container is started on a real engine, with the values that the file has.

Compose itself isn't used: its networks need packet filters, which a container such as those of CI may not set. What
differs from the file: the network is the engine's own, and the socket is where this engine has it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from demo.chain import free_port
from demo.engine import Engine, missing, running_engine
from demo.sdk_image import SDK_IMAGE_CHANGES, UNUSED, sdk_archive
from tests.conftest import APE, ROOT, environment_of
from tests.engines.engine import BOT_IMAGE, IMAGE, busybox_archive
from tests.engines.nodes import run
from tests.waiting import wait_for

pytestmark = pytest.mark.trial

SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "server" / "compose.yaml").read_text())["services"]["cluster"]
URL = "http://127.0.0.1:8080"
SERVED = re.compile(UNUSED.pattern.replace("docker|", "").replace("fastapi|uvicorn|", ""))
"""What a server doesn't need of this environment: it needs what a bot doesn't."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine in a network namespace of its own, so that the file's port is free, with the images."""
    if reason := missing():
        pytest.skip(reason)
    namespace = f"sbc{free_port():x}"
    run("ip", "netns", "add", namespace)
    try:
        run("ip", "netns", "exec", namespace, "ip", "link", "set", "lo", "up")
        with (
            tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as folder,
            running_engine(Path(folder), namespace) as started,
        ):
            started.import_image(busybox_archive(), IMAGE, BOT_IMAGE)
            environment = [line for line in SDK_IMAGE_CHANGES if line.startswith("ENV")]
            archive = sdk_archive(SERVED, ROOT / "ape_silverback")
            started.import_image(archive, f"{SERVICE['image']}:latest", environment)
            yield started
    finally:
        run("ip", "netns", "delete", namespace)


def start(client: docker.APIClient, engine: Engine) -> str:
    """Start what the file describes; return the container's id."""
    volume, target = SERVICE["volumes"][0].split(":")
    socket = SERVICE["volumes"][1].split(":")
    assert socket == ["/var/run/docker.sock", "/var/run/docker.sock"]
    assert SERVICE["ports"] == ["127.0.0.1:8080:8080"]
    check = SERVICE["healthcheck"]
    host = client.create_host_config(
        binds=[f"{volume}:{target}", f"{engine.host.removeprefix('unix://')}:{socket[1]}"],
        restart_policy={"Name": SERVICE["restart"]},
        network_mode="host",
    )
    assert check["interval"] == "30s"
    made = client.create_container(
        SERVICE["image"],
        entrypoint=SERVICE["entrypoint"],
        command=[*SERVICE["command"], "--docker-network=host"],
        environment=SERVICE["environment"],
        healthcheck={"test": check["test"], "interval": 2 * 10**9},
        host_config=host,
    )
    client.start(made["Id"])
    return str(made["Id"])


def test_the_cluster_of_the_compose_file_runs_bots_beside_itself_which_outlive_it(engine: Engine, home: Path) -> None:
    client = engine.client()
    container = start(client, engine)

    def state() -> dict[str, Any]:
        found: dict[str, Any] = client.inspect_container(container)["State"]
        assert found["Running"], client.logs(container).decode()
        return found

    def ape(*arguments: str) -> str:
        key = client.exec_create(container, ["cat", "/var/lib/silverback/api-key"])
        environment = {
            **environment_of(home),
            "SILVERBACK_CLUSTER_URI": URL,
            "SILVERBACK_CLUSTER_API_KEY": client.exec_start(key).decode().strip(),
        }
        command = ["nsenter", f"--net=/var/run/netns/{engine.namespace}", str(APE), "silverback", "cluster", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=home)
        print(f"$ ape {shlex.join(arguments)}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0
        return done.stdout

    def bots() -> list[str]:
        return [one["Id"] for one in client.containers(filters={"label": ["io.ape-silverback.bot"]})]

    try:
        wait_for(lambda: state()["Health"]["Status"] == "healthy", 120)
        print(client.logs(container).decode())
        ape("vars", "new", "group", "-e", "BEHAVIOUR=steady")
        ape("bots", "new", "one", "--image", IMAGE, "--network", "ethereum:local:foundry", "-g", "group")
        assert "running" in ape("status")
        [bot] = bots()
        client.restart(container, timeout=60)
        wait_for(lambda: state()["Health"]["Status"] == "healthy", 120)
        assert bots() == [bot], "the bot was started again"
        assert "running" in ape("status")
        ape("bots", "remove", "one", "--yes")
        assert bots() == []
        assert client.inspect_container(container)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    finally:
        client.remove_container(container, force=True, v=True)
        client.close()
