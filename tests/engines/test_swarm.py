"""What services of a swarm may do and keep."""

from __future__ import annotations

import pytest

from ape_silverback.cluster.client import Bot, ClusterClient
from tests.engines.conftest import Server
from tests.engines.engine import KEEPING_IMAGE
from tests.engines.test_conformance import RUNNING, STOPPED, messages, until
from tests.waiting import wait_for

pytestmark = [pytest.mark.xdist_group("engines"), pytest.mark.parametrize("server", ["swarm"], indirect=True)]


def remembering(client: ClusterClient, name: str, account: str | None) -> Bot:
    """Create a bot that notes each of its runs in the folder that the bot SDK keeps its state in, and shows them."""
    client.new_variable_group(f"group-{name}", {"BEHAVIOUR": "remember"})
    where = {"ecosystem": "ethereum", "network": "local", "provider": "foundry"}
    bot = client.new_bot(name=name, image=KEEPING_IMAGE, environment=[f"group-{name}"], account=account, **where)
    return until(bot, RUNNING)


def test_a_signer_keeps_its_state_over_restarts_and_other_bots_begin_anew(
    client: ClusterClient, server: Server
) -> None:
    signer, watcher = remembering(client, "signer", "TEST::0"), remembering(client, "watcher", None)
    for bot in (signer, watcher):
        wait_for(lambda bot=bot: messages(bot).count("run") == 1)
        bot.stop()
        until(bot, STOPPED)
        bot.start()
    for bot in (signer, watcher):
        until(bot, RUNNING)
    wait_for(lambda: messages(signer).count("run") == 3)  # its first run, and both as the second one reads them
    wait_for(lambda: messages(watcher).count("run") == 2)
    assert server.engine
    engine = server.engine.client()
    [volume] = engine.volumes(filters={"label": [f"io.ape-silverback.bot={signer.id}"]})["Volumes"]
    assert str(signer.id) in volume["Name"]
    for bot in (signer, watcher):
        bot.remove()
    wait_for(lambda: not engine.volumes()["Volumes"])
    engine.close()


def test_a_service_has_the_bounds_that_a_container_has(client: ClusterClient, server: Server) -> None:
    bot = remembering(client, "one", None)
    assert server.engine
    engine = server.engine.client()
    [listed] = engine.containers(filters={"label": [f"io.ape-silverback.bot={bot.id}"]})
    container = engine.inspect_container(listed["Id"])
    engine.close()
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["PidsLimit"] == 512
    assert host["Memory"] == 64 * 1024 * 1024
    assert {mount["Type"] for mount in container["Mounts"]} <= {"volume", "tmpfs"}, "a folder of this machine"
