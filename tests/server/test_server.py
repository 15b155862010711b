"""The local cluster's server, as its clients see it: the real process, over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from ape.logging import LogLevel
from silverback.cluster.client import ClusterClient as PublicClient

from ape_silverback.cluster.client import Bot, ClusterClient
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.exceptions import ClientError, Conflict, LocalClusterError, NotFound, Unauthorized, ValidationFailed
from ape_silverback.server.daemon import LocalCluster, Started
from tests.conftest import Ape
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("local-server")
STATUS = ResourceStatus


def new_bot(client: ClusterClient, project: Path, module: str, **more: Any) -> Bot:
    image = f"project:{project}#{module}"
    return client.new_bot(more.pop("name", module), image, "ethereum", "local", "foundry", **more)


def pid_of(folder: Path, bot: Bot) -> int:
    """Return the process of a bot; 0 for one that has none yet."""
    run = folder / "bots" / str(bot.id) / "run.json"
    return int(json.loads(run.read_text() or "{}").get("bot") or 0) if run.exists() else 0


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# Who gets in


@pytest.mark.parametrize("path", ["/bots", "/vars", "/credentials", "/health"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": "wröng".encode()}])
def test_without_the_key_nothing_is_told(started: Started, path: str, headers: dict[str, Any]) -> None:
    answer = httpx.get(started.running.host + path, headers=headers)
    assert answer.status_code == 401
    assert "X-API-Key" in answer.json()["detail"]


def test_the_description_needs_no_key_and_names_version_and_runtime(started: Started) -> None:
    info = httpx.get(f"{started.running.host}/openapi.json").json()["info"]
    assert info["version"].startswith("0.8")
    assert (info["x-config"], info["x-runtime"]) == (None, "process")
    assert "task" in info["x-extensions"]
    with ClusterClient(base_url=started.running.host) as client:
        assert str(client.cluster_id) == info["x-cluster-id"]


def test_a_page_whose_name_was_pointed_at_loopback_is_refused(started: Started) -> None:
    headers = {"X-API-Key": started.api_key, "Host": "rebound.example"}
    assert httpx.get(f"{started.running.host}/bots", headers=headers).status_code == 400


def test_it_listens_on_the_loopback_interface_only(started: Started) -> None:
    listening = psutil.Process(started.running.pid).net_connections("tcp")
    assert {one.laddr.ip for one in listening if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


# What it keeps


def test_nothing_that_was_answered_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "local")
    answered: list[str] = []
    try:
        for life in range(3):
            started = cluster.up()
            with httpx.Client(base_url=started.running.host, headers={"X-API-Key": started.api_key}) as raw:
                killer = threading.Timer(0.5, os.kill, (started.running.pid, signal.SIGKILL))
                killer.start()
                try:
                    for number in range(100_000):
                        name = f"group-{life}-{number}"
                        raw.post("/vars", params={"name": name}, json={"A": name}).raise_for_status()
                        answered.append(name)
                except httpx.TransportError:
                    killer.join()
        started = cluster.up()
        with ClusterClient(base_url=started.running.host, headers={"X-API-Key": started.api_key}) as client:
            assert set(answered) <= set(client.variable_groups)
        assert len({name.split("-")[1] for name in answered}) == 3
    finally:
        cluster.down()


# Up and down


def test_a_second_up_finds_the_first_and_keeps_its_key(started: Started, folder: Path) -> None:
    again = LocalCluster(folder).up()
    assert again.already
    assert (again.running.pid, again.api_key) == (started.running.pid, started.api_key)


def test_a_port_in_use_is_named(started: Started, tmp_path: Path) -> None:
    port = int(started.running.host.rpartition(":")[2])
    with pytest.raises(LocalClusterError, match=f"port {port} .* in use"):
        LocalCluster(tmp_path / "local").up(port)
    assert LocalCluster(tmp_path / "local").running() is None


def test_two_ups_at_once_start_one_server(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "local")
    results: list[Started] = []
    threads = [threading.Thread(target=lambda: results.append(cluster.up())) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({one.running.pid for one in results}) == 1
        assert sorted(one.already for one in results) == [False, True, True]
    finally:
        assert cluster.down()
    assert not cluster.down()


def test_bots_outlive_a_killed_server_and_those_that_ran_at_down_run_again_at_up(
    tmp_path: Path, bots_folder: Path
) -> None:
    cluster = LocalCluster(tmp_path / "local")

    def client_of(started: Started) -> ClusterClient:
        return ClusterClient(base_url=started.running.host, headers={"X-API-Key": started.api_key})

    def kill() -> None:
        os.kill(started.running.pid, signal.SIGKILL)
        wait_for(lambda: cluster.running() is None)

    try:
        started = cluster.up()
        with client_of(started) as client:
            running, stopped = new_bot(client, bots_folder, "one"), new_bot(client, bots_folder, "two")
            stopped.stop()
            wait_for(lambda: running.status is STATUS.RUNNING)
            wait_for(lambda: stopped.status is STATUS.STOPPED)
            pid = pid_of(cluster.folder, running)
        kill()
        assert not gone(pid)
        key, started = started.api_key, cluster.up()
        assert started.api_key == key  # which bots with access to the cluster go on with
        with client_of(started) as client:
            assert client.bots["one"].status is STATUS.RUNNING
            assert pid_of(cluster.folder, running) == pid
        assert cluster.down()
        assert gone(pid)
        assert cluster.running() is None
        assert [file.name for file in cluster.folder.glob("cluster.db*")] == ["cluster.db"], "a copy of it is whole"
        started = cluster.up()
        with client_of(started) as client:
            wait_for(lambda: client.bots["one"].status is STATUS.RUNNING)
            assert client.bots["two"].status is STATUS.STOPPED
            pid = pid_of(cluster.folder, running)
        kill()
        (cluster.folder / "secret.key").write_bytes(b"")
    finally:
        assert cluster.down(), "without a server, and with a key that a full disk has emptied, it ends its bots"
    assert gone(pid)


# Bots


def test_a_bot_starts_gets_its_variables_and_logs_and_what_is_kept_shows_no_secret(
    client: ClusterClient, folder: Path, bots_folder: Path
) -> None:
    client.new_variable_group("first", {"LOUD_A": "first", "LOUD_B": "first"})
    client.new_variable_group("second", {"LOUD_B": "second", "TOKEN": "plain-value-of-a-variable"})
    client.new_credentials("registry", "ghcr.io", "me@example.org", "me", "plain-password")
    bot = new_bot(client, bots_folder, "one", environment=["first", "second"], account="TEST::0")
    wait_for(lambda: bot.status is STATUS.RUNNING)
    assert bot.is_healthy
    assert client.health.cluster.healthy
    assert client.health.networks["ethereum:local"].healthy
    messages = [entry.message for entry in bot.logs]
    assert "variables LOUD_A=first LOUD_B=second" in messages, "of two groups the later wins"
    assert any("Startup complete" in message for message in messages)
    levels = {entry.level for entry in bot.get_logs(LogLevel.WARNING)}
    assert LogLevel.WARNING in levels
    assert LogLevel.INFO not in levels

    for path in [folder, folder.parent, *folder.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, f"{path} is for its owner only"
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"TOKEN" in kept
    assert b"plain-value-of-a-variable" not in kept
    assert b"plain-password" not in kept


def test_a_bot_keeps_its_configuration_until_it_starts_again_and_a_followed_log_goes_on_until_it_is_removed(
    client: ClusterClient, bots_folder: Path, folder: Path
) -> None:
    group = client.new_variable_group("loud", {"LOUD": "old"})
    bot = new_bot(client, bots_folder, "one", environment=["loud"])
    seen: list[str] = []

    def follow() -> None:
        for entry in bot.get_logs(follow=True):
            seen.append(entry.message)  # noqa: PERF401 - the test looks at it meanwhile

    reader = threading.Thread(target=follow)
    reader.start()
    wait_for(lambda: bot.status is STATUS.RUNNING)
    wait_for(lambda: any("Startup complete" in message for message in seen))
    group.update(LOUD="new")
    time.sleep(0.3)
    assert "variables LOUD=old" in seen
    assert "variables LOUD=new" not in seen
    bot.stop()
    wait_for(lambda: bot.status is STATUS.STOPPED)
    assert reader.is_alive()
    bot.start()
    wait_for(lambda: "variables LOUD=new" in seen)
    bot.remove()
    reader.join(30)
    assert not reader.is_alive()


def test_a_killed_bot_is_stopped_with_its_reason_within_five_seconds(
    client: ClusterClient, bots_folder: Path, folder: Path
) -> None:
    bot = new_bot(client, bots_folder, "one")
    os.kill(wait_for(lambda: pid_of(folder, bot)), signal.SIGKILL)
    wait_for(lambda: bot.status is STATUS.STOPPED, 5)
    task = client.bots["one"].task
    assert task is not None
    assert (task.exit_code, task.stopped_reason) == (137, "killed by signal 9 (SIGKILL)")
    assert not bot.is_healthy
    assert not client.health.cluster.healthy


def test_a_bot_on_a_node_with_an_address_of_its_own_runs_and_tells_how_far_it_is(
    client: ClusterClient, bots_folder: Path, folder: Path, started: Started, ape: Ape
) -> None:
    """The SDK spells such a provider by its address, and compares."""
    bot = client.new_bot("blocks", f"project:{bots_folder}#blocks", "ethereum", "local", "node")
    wait_for(lambda: bot.status is STATUS.RUNNING, 90)
    health = wait_for(lambda: (now := client.bots["blocks"].health) and now.lag is not None and now, 90)
    assert (health.healthy, health.reason) == (True, None)
    assert health.heartbeat
    assert health.lag in range(5)
    assert not list((bots_folder).rglob(".silverback-sessions")), "its state is its own, and not the project's"
    assert list((folder / "bots" / str(bot.id) / "work").rglob("state.json"))
    wait_for(lambda: (health := client.bots["blocks"].health) and health.last_block, 60)
    there = {"SILVERBACK_CLUSTER_URI": started.running.host, "SILVERBACK_CLUSTER_API_KEY": started.api_key}
    shown = ape("silverback", "cluster", "bots", "metrics", "blocks", **there).stdout
    assert re.search(r"^beat +\d+ +\d+\.\d +0 +0\.0% ", shown, re.MULTILINE), shown
    assert (found := re.search(r"^Block lag: (\d+) \(last block handled: (\d+)\)$", shown, re.MULTILINE)), shown
    assert int(found[1]) < 20
    assert int(found[2]) > 0
    assert re.search(r"^number +\d+ +\d+ ", shown, re.MULTILINE), shown


def test_a_bot_that_fails_at_its_start_is_stopped_with_its_error(client: ClusterClient, bots_folder: Path) -> None:
    bot = new_bot(client, bots_folder, "crashing")
    wait_for(lambda: bot.status is STATUS.STOPPED)
    task = client.bots["crashing"].task
    assert task is not None
    assert task.exit_code == 1
    assert "nobody told me the price" in (task.stopped_reason or "")
    assert any("nobody told me the price" in error for error in bot.errors)


# Refusals


def test_names_are_given_once(client: ClusterClient, bots_folder: Path) -> None:
    new_bot(client, bots_folder, "one")
    with pytest.raises(Conflict, match="'one'"):
        new_bot(client, bots_folder, "two", name="one")
    client.new_variable_group("group", {})
    with pytest.raises(Conflict, match="'group'"):
        client.new_variable_group("group", {})
    client.new_credentials("registry", "h", "e", "u", "p")
    with pytest.raises(Conflict, match="'registry'"):
        client.new_credentials("registry", "h", "e", "u", "p")


def test_what_a_bot_uses_cant_be_removed(client: ClusterClient, bots_folder: Path) -> None:
    group = client.new_variable_group("group", {})
    credential = client.new_credentials("registry", "h", "e", "u", "p")
    new_bot(client, bots_folder, "one", environment=["group"], credential_name="registry")
    for thing in (group, credential):
        with pytest.raises(Conflict, match="used by one"):
            thing.remove()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "no spaces"}, "name"),
        ({"name": ""}, "name"),
        ({"environment": ["missing"]}, "no variable group 'missing'"),
        ({"credential_name": "missing"}, "no registry credential 'missing'"),
        ({"image": "ghcr.io/a/b:1"}, "runs bots as processes"),
        ({"image": 5}, "image"),
    ],
)
def test_a_bot_that_cant_be_is_refused_and_leaves_nothing(
    client: ClusterClient, bots_folder: Path, change: dict[str, Any], says: str
) -> None:
    wanted = {"name": "one", "image": f"project:{bots_folder}#one", **change}
    with pytest.raises(ValidationFailed, match=says):
        client.new_bot(ecosystem="ethereum", network="local", provider="foundry", **wanted)
    assert client.bots == {}


@pytest.mark.parametrize("variables", [{"1A": "x"}, {"SILVERBACK_BOT_NAME": "x"}, {"A": 5}])
def test_variables_that_cant_be_are_refused(client: ClusterClient, variables: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        client.new_variable_group("group", variables)
    assert client.variable_groups == {}


def test_what_isnt_there_is_not_found(client: ClusterClient, bots_folder: Path) -> None:
    bot = new_bot(client, bots_folder, "one")
    group = client.new_variable_group("group", {"A": "1"})
    assert client.bots["one"].id == bot.id
    bot.remove()
    group.remove()
    for ask in (bot.start, bot.stop, bot.remove, group.remove, lambda: bot.status, lambda: bot.errors):
        with pytest.raises(NotFound):
            ask()
    with pytest.raises(ClientError):
        client.call("GET", "/bots/no-uuid/status")


def test_a_wrong_key_says_what_to_do(started: Started) -> None:
    with (
        ClusterClient(base_url=started.running.host, headers={"X-API-Key": "wrong"}) as stranger,
        pytest.raises(Unauthorized),
    ):
        _ = stranger.bots


def test_a_group_and_credentials_change_as_the_contract_says(client: ClusterClient) -> None:
    group = client.new_variable_group("group", {"A": "1", "B": "2"}).update(B=None, C="3")
    assert sorted(group.variables) == ["A", "C"]
    credential = client.new_credentials("registry", "old.example", "e", "u", "p")
    changed = credential.update(hostname="new.example")
    assert (changed.hostname, changed.name) == ("new.example", "registry")
    assert changed.updated > credential.updated


def test_a_bot_changes_as_the_contract_says(client: ClusterClient, bots_folder: Path) -> None:
    bot = new_bot(client, bots_folder, "one", account="TEST::0")
    bot.stop()
    assert bot.update(network="sepolia").account == "TEST::0"
    renamed = bot.update(name="other", account=None)
    assert (renamed.name, renamed.account, renamed.network) == ("other", None, "sepolia")
    assert set(client.bots) == {"other"}


# The public SDK's own client


def test_the_public_client_works_against_it(started: Started, bots_folder: Path, client: ClusterClient) -> None:
    public = PublicClient(base_url=started.running.host, headers={"X-API-Key": started.api_key})
    group = public.new_variable_group("loud", {"LOUD": "yes"})
    public.new_credentials("registry", "ghcr.io", "me@example.org", "me", "secret")
    made = public.new_bot(
        "one",
        f"project:{bots_folder}#one",
        "ethereum",
        "local",
        "foundry",
        account="TEST::0",
        environment=["loud"],
        credential_name="registry",
    )
    assert public.version == client.version
    assert public.configuration is None
    wait_for(lambda: made.status.name == "RUNNING")
    assert made.is_healthy
    assert public.health.cluster.healthy
    assert set(public.bots) == {"one"}
    assert made.credential is not None
    assert [one.name for one in made.vargroups] == ["loud"]
    assert any("LOUD=yes" in entry.message for entry in made.logs)
    assert all(entry.timestamp for entry in made.logs if entry.level)

    made.stop()
    wait_for(lambda: made.status.name == "STOPPED")
    made.start()
    assert made.status.name in ("PROVISIONING", "STARTUP", "RUNNING")
    assert made.errors == []
    assert made.update(account=None).account is None
    with pytest.raises(Exception, match="used by one"):
        group.remove()
    made.remove()
    group.remove()
    public.credentials["registry"].update(hostname="elsewhere.example")
    public.credentials["registry"].remove()
    assert (public.bots, public.variable_groups, public.credentials) == ({}, {}, {})
