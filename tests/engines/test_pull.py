"""Images are pulled from a registry that wants a user and a password, with the bot's registry credential."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import docker
import pytest

from ape_silverback.cluster.client import Bot, ClusterClient
from demo.engine import Engine
from tests.engines.conftest import Server
from tests.engines.engine import IMAGE
from tests.engines.registry import PASSWORD, REGISTRY, USER, Registry, running_registry
from tests.engines.test_conformance import RUNNING, STOPPED, until
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.xdist_group("engines"),
    pytest.mark.parametrize("server", ["docker", "swarm"], indirect=True),
    pytest.mark.skipif(REGISTRY is None, reason="docker-registry is not installed (apt-get install docker-registry)"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture
def image(engine: Engine, registry: Registry, server: Server) -> Iterator[str]:
    """An image that only the registry has."""
    client = engine.client()
    name = registry.push(client, IMAGE, f"bots/{server.runtime}")
    yield name
    wait_for(lambda: _is_removed(client, name))
    client.close()


def _is_removed(client: docker.APIClient, image: str) -> bool:
    try:
        client.remove_image(image)
    except docker.errors.ImageNotFound:
        return True
    except docker.errors.APIError:  # a container of it is being removed
        return False
    return True


def pulled(client: ClusterClient, registry: Registry, image: str, password: str) -> Bot:
    """Create a bot whose image is pulled with this password."""
    client.new_credentials("registry", registry.host, "me@example.org", USER, password)
    client.new_variable_group("group-one", {"BEHAVIOUR": "steady"})
    return client.new_bot(
        name="one",
        image=image,
        ecosystem="ethereum",
        network="local",
        provider="foundry",
        environment=["group-one"],
        credential_name="registry",
    )


@pytest.fixture(autouse=True)
def no_credentials(client: ClusterClient) -> Iterator[None]:
    """Remove the bots, then the credentials that they pulled with."""
    yield
    for bot in client.bots.values():
        bot.remove()
    for credential in client.credentials.values():
        credential.remove()


def test_an_image_is_pulled_with_the_bots_credential(client: ClusterClient, registry: Registry, image: str) -> None:
    until(pulled(client, registry, image, PASSWORD), RUNNING)


def test_a_wrong_credential_is_the_reason_why_a_bot_doesnt_start(
    client: ClusterClient, registry: Registry, image: str
) -> None:
    until(pulled(client, registry, image, "wr0ng"), STOPPED)
    task = client.bots["one"].task
    assert task.stop_code == "failed-to-start"
    assert image in task.stopped_reason
    assert f"{registry.host} refused the bot's registry credential (user {USER})" in task.stopped_reason
    assert "wr0ng" not in task.stopped_reason


def test_a_bot_without_the_credential_of_another_doesnt_pull_with_it(
    client: ClusterClient, engine: Engine, registry: Registry, image: str
) -> None:
    until(pulled(client, registry, image, PASSWORD), RUNNING)
    client.bots["one"].remove()
    with closing(engine.client()) as docker_client:
        wait_for(lambda: _is_removed(docker_client, image))
    where = {"ecosystem": "ethereum", "network": "local", "provider": "foundry"}
    bot = until(client.new_bot(name="two", image=image, environment=["group-one"], **where), STOPPED)
    assert bot.name == "two"
    assert client.bots["two"].task.stop_code == "failed-to-start"
