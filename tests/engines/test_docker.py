"""What only containers have: limits, a volume for the work folder, images that are pulled or aren't there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import ResourceStatus
from tests.conftest import run_ape
from tests.engines.conftest import Server
from tests.engines.test_conformance import RUNNING, STOPPED, messages, new_bot, until
from tests.waiting import wait_for

pytestmark = [pytest.mark.xdist_group("engines"), pytest.mark.parametrize("server", ["docker"], indirect=True)]


def test_a_bot_that_takes_too_much_memory_is_ended_and_told_so(client: ClusterClient, server: Server) -> None:
    until(new_bot(client, server, "hungry"), STOPPED)
    assert client.bots["one"].task.stopped_reason.startswith("out of memory (it may use 64 MiB): ")


def test_what_a_bot_keeps_survives_its_container(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "remember"), RUNNING)
    wait_for(lambda: messages(bot).count("run") == 1)
    bot.stop()
    until(bot, STOPPED)
    bot.start()
    until(bot, RUNNING)
    wait_for(lambda: messages(bot).count("run") == 3)  # its first run, and both as the second one reads them


def test_variables_are_in_no_label_and_no_name(client: ClusterClient, server: Server) -> None:
    client.new_variable_group("secret", {"KEY": "tops3cret"})
    bot = until(new_bot(client, server, "steady", environment=["group-one", "secret"]), RUNNING)
    assert server.engine
    engine = server.engine.client()
    [listed] = engine.containers(filters={"label": [f"io.ape-silverback.bot={bot.id}"]})
    assert "tops3cret" not in str(listed)
    host = engine.inspect_container(listed["Id"])["HostConfig"]
    engine.close()
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert not [bind for bind in host["Binds"] if bind.startswith("/")], "a folder of this machine"


def test_status_shows_that_an_image_is_being_pulled_and_stop_ends_that(
    client: ClusterClient, server: Server, home: Path, project: Path
) -> None:
    client.new_variable_group("group-one", {})
    where = {"ecosystem": "ethereum", "network": "local", "provider": "foundry", "environment": ["group-one"]}
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a registry that doesn't answer
        image = f"127.0.0.1:{silent.getsockname()[1]}/never/there:1"
        bot = client.new_bot(name="one", image=image, **where)
        command = ("silverback", "cluster", "status")
        shown = lambda: run_ape(home, project, command, **server.environment).stdout  # noqa: E731
        wait_for(lambda: f"pulling {image}" in shown())
        assert bot.status is ResourceStatus.STARTUP
        bot.stop()
    until(bot, STOPPED)


def test_an_image_that_isnt_there_is_the_reason_why_a_bot_doesnt_start(client: ClusterClient, server: Server) -> None:
    client.new_variable_group("group-one", {})
    image = "127.0.0.1:1/no/such:1"
    bot = client.new_bot(
        name="one", image=image, ecosystem="ethereum", network="local", provider="foundry", environment=["group-one"]
    )
    until(bot, STOPPED)
    task = client.bots["one"].task
    assert task.stop_code == "failed-to-start"
    assert image in task.stopped_reason or "127.0.0.1:1" in task.stopped_reason
