"""A cluster that several people use, and that is paid for: keys with roles, a sign of life, and limits that hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import ClusterConfiguration
from ape_silverback.exceptions import ClientError, Conflict, Forbidden, Unauthorized
from tests.conftest import run_ape
from tests.server.machine import KEY, Cluster, serving_cluster

NETWORK = {"image": "a/b:1", "ecosystem": "ethereum", "network": "local", "provider": "foundry"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with serving_cluster(tmp_path) as served:
        yield served


def client_of(cluster: Cluster, key: str = KEY) -> ClusterClient:
    return ClusterClient(base_url=cluster.url, headers={"X-API-Key": key}, retries=Retries(attempts=1))


def test_a_key_to_read_reads_and_changes_nothing(cluster: Cluster) -> None:
    with client_of(cluster) as admin:
        bot = admin.new_bot(name="one", **NETWORK)
        made = admin.new_key("ci")
        assert (made.role, made.name) == ("read", "ci")
        assert made.key not in repr(made)
    with client_of(cluster, made.key) as reader:
        assert list(reader.bots) == ["one"]
        assert reader.health
        for change in (bot.stop, bot.remove):
            bot._bind(reader)
            with pytest.raises(Forbidden, match="can't change anything"):
                change()
        with pytest.raises(Forbidden, match="keys"):
            reader.keys  # noqa: B018 - asks the cluster


def test_keys_are_rotated_without_an_interruption_and_kept_as_hashes(cluster: Cluster, tmp_path: Path) -> None:
    with client_of(cluster) as admin:
        old = admin.new_key("deploys", "write")
        with pytest.raises(Conflict):
            admin.new_key("deploys")
        new = admin.new_key("deploys-2", "write")
        with client_of(cluster, old.key) as first, client_of(cluster, new.key) as second:
            second.new_bot(name="one", **NETWORK)
            assert list(first.bots) == ["one"]
            [listed] = [key for key in admin.keys if key.name == "deploys"]
            assert listed.last_use
            admin.revoke_key(listed)
            with pytest.raises(Unauthorized):
                list(first.bots)
            assert list(second.bots) == ["one"]
    content = b"".join(file.read_bytes() for file in (tmp_path / "cluster").iterdir() if file.is_file())
    assert new.key.encode() not in content


def test_keys_are_made_listed_and_revoked_on_the_command_line(cluster: Cluster, home: Path, project: Path) -> None:
    def keys(*arguments: str, code: int = 0) -> tuple[str, str]:
        result = run_ape(home, project, ("silverback", "cluster", "keys", *arguments), **cluster.environment)
        assert result.returncode == code, result.stderr
        return result.stdout, result.stderr

    key, said = keys("new", "grafana")
    assert key.startswith("sbk_")
    assert "can't be shown again" in said
    listed = json.loads(keys("list", "--format", "json")[0])
    assert [(one["name"], one["role"]) for one in listed] == [("grafana", "read")]
    assert key.strip() not in keys("list")[0]
    keys("revoke", "grafana", "--yes")
    assert "no named keys" in keys("list")[0]
    assert "grafana" in keys("revoke", "grafana", "--yes", code=1)[1]


def test_a_sign_of_life_needs_no_key_and_tells_nothing_more(cluster: Cluster) -> None:
    answer = httpx.get(f"{cluster.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})


def test_what_is_paid_for_is_what_can_run(tmp_path: Path) -> None:
    paid = ClusterConfiguration(bots=3, networks=1)
    with serving_cluster(tmp_path, configuration=paid) as cluster, client_of(cluster) as client:
        client.new_bot(name="one", **NETWORK)
        with pytest.raises(ClientError, match="1 network is paid for") as refused:
            client.new_bot(name="two", **{**NETWORK, "network": "sepolia"})
        assert refused.value.status == 402
        two = client.new_bot(name="two", **NETWORK)
        with pytest.raises(ClientError, match="ethereum:sepolia would be one more"):
            two.update(network="sepolia")
        three = client.new_bot(name="three", **NETWORK)
        with pytest.raises(ClientError, match="3 bots are paid for, and 3 in use"):
            client.new_bot(name="four", **NETWORK)
        three.stop()
        client.new_bot(name="four", **NETWORK)
        with pytest.raises(ClientError, match="3 bots are paid for"):
            three.start()
        assert list(client.bots) == ["one", "two", "three", "four"]
