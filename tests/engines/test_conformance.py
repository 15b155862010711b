"""What a bot's user sees is the same on every runtime: one suite over processes, containers and services of a swarm."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from silverback.cluster.client import ClusterClient as PublicClient

from ape_silverback.cluster.client import Bot, ClusterClient
from ape_silverback.cluster.types import ResourceStatus, RestartPolicy
from ape_silverback.exceptions import ValidationFailed
from tests.engines.conftest import Server
from tests.engines.engine import IMAGE
from tests.engines.served import KEY
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("engines")

RUNNING, STOPPED = ResourceStatus.RUNNING, ResourceStatus.STOPPED


def new_bot(client: ClusterClient, server: Server, behaviour: str, name: str = "one", **values: Any) -> Bot:
    """Create a bot that behaves so."""
    client.new_variable_group(f"group-{name}", {"BEHAVIOUR": behaviour})
    given = {"ecosystem": "ethereum", "network": "local", "provider": "foundry", "environment": [f"group-{name}"]}
    return client.new_bot(name=name, image=server.image, **{**given, **values})


def until(bot: Bot, status: ResourceStatus) -> Bot:
    wait_for(lambda: bot.status is status)
    return bot


def messages(bot: Bot, **filters: Any) -> list[str]:
    return [entry.message for entry in bot.get_logs(**filters)]


def beats(bot: Bot) -> list[int]:
    return [int(found[1]) for message in messages(bot) if (found := re.fullmatch(r"beat (\d+)", message))]


def test_a_bot_starts_runs_and_stops(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "steady"), RUNNING)
    assert bot.is_healthy
    wait_for(lambda: len(beats(bot)) >= 3)
    bot.stop()
    until(bot, STOPPED)
    last = messages(bot)
    assert last[-1] == "goodbye", last
    task = client.bots["one"].task
    assert (task.stop_code, task.stopped_reason) == ("user", "stopped by the user")
    assert not bot.errors
    bot.start()
    until(bot, RUNNING)
    wait_for(lambda: messages(bot).count("beat 0") == 2)


def test_a_crash_is_told_with_its_code_and_last_error(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "crash"), STOPPED)
    task = client.bots["one"].task
    assert (task.exit_code, task.stop_code) == (3, "exited")
    assert "the pool has no such token" in task.stopped_reason
    assert any("the pool has no such token" in error for error in bot.errors)
    assert not bot.is_healthy


@pytest.mark.parametrize(("behaviour", "code"), [("finish", 0), ("suicide", 137)])
def test_an_end_has_its_exit_code(client: ClusterClient, server: Server, behaviour: str, code: int) -> None:
    until(new_bot(client, server, behaviour), STOPPED)
    task = client.bots["one"].task
    assert task.exit_code == code
    assert task.stop_code == ("exited" if code == 0 else "signal")


def test_a_bot_that_ignores_sigterm_is_killed(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "deaf"), RUNNING)
    bot.stop()
    assert bot.status is ResourceStatus.SHUTDOWN
    until(bot, STOPPED)
    seen = beats(bot)
    time.sleep(0.5)
    assert beats(bot) == seen


def test_a_bot_gets_its_variables_and_nothing_of_the_server(client: ClusterClient, server: Server) -> None:
    client.new_variable_group("more", {"TOKEN": "s3cret = with 'quotes'", "EMPTY": ""})
    bot = new_bot(client, server, "show", environment=["group-one", "more"], account="TEST::0", cluster_access=True)
    until(bot, RUNNING)
    seen = wait_for(lambda: (found := messages(bot)) and any("root is" in line for line in found) and found)
    assert "TOKEN=s3cret = with 'quotes'" in seen
    assert "EMPTY=" in seen
    assert "SILVERBACK_BOT_NAME=one" in seen
    assert "SILVERBACK_NETWORK_CHOICE=ethereum:local:foundry" in seen
    assert "SILVERBACK_SIGNER_ALIAS=TEST::0" in seen
    assert f"SILVERBACK_CLUSTER_URI={server.url}" in seen
    assert not [line for line in seen if line.startswith(("PYTEST_", "TESTS_"))]
    assert any(line.startswith("command run") for line in seen)
    if server.engine:
        assert any("uid=1000(harambe)" in line for line in seen)
        assert not {"/root/.ape", "/var/run/docker.sock"}.intersection(seen)
        assert "root is read-only" in seen


def test_bots_go_on_without_the_server_and_are_adopted_once(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "steady"), RUNNING)
    wait_for(lambda: len(beats(bot)) > 3)
    before = len(beats(bot))
    server.kill()
    time.sleep(0.7)
    server.start()
    assert bot.status is RUNNING
    wait_for(lambda: len(beats(bot)) > before + 10)
    seen = beats(bot)
    assert seen == list(range(len(seen))), "a line was lost or doubled, or the bot was started again"
    bot.stop()
    until(bot, STOPPED)


def test_an_end_that_no_server_saw_is_told_by_the_next(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "crash-later"), RUNNING)
    server.kill()
    time.sleep(3.5)
    server.start()
    until(bot, STOPPED)
    assert client.bots["one"].task.exit_code == 4
    assert any("the price is gone" in error for error in bot.errors)


def test_logs_are_followed_and_found_by_time(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "steady"), RUNNING)
    followed = []
    for entry in bot.get_logs(follow=True):
        followed.append(entry)
        if entry.message == "beat 10":
            break
    numbers = [int(one.message.split()[1]) for one in followed if one.message.startswith("beat")]
    assert numbers == list(range(11))
    stamps = [entry.timestamp for entry in followed]
    assert stamps == sorted(stamps)
    assert abs((datetime.now(timezone.utc) - stamps[-1]).total_seconds()) < 30
    middle = next(one.timestamp for one in followed if one.message == "beat 5")
    since = messages(bot, start_time=middle)
    assert since[0] == "beat 5"
    assert messages(bot, end_time=middle)[-1] in ("beat 5", "beat 4")


def test_a_line_of_any_length_is_one_of_the_log(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "long"), STOPPED)
    assert max(len(message) for message in messages(bot)) == 40000


def test_a_bot_that_never_says_that_it_is_ready_stays_in_its_start(client: ClusterClient, server: Server) -> None:
    bot = new_bot(client, server, "unready")
    wait_for(lambda: messages(bot))
    time.sleep(0.5)
    assert bot.status is ResourceStatus.STARTUP
    assert not bot.is_healthy


def test_removal_leaves_nothing(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "deaf"), RUNNING)
    log = server.folder / "bots" / str(bot.id)
    assert log.exists()
    bot.remove()
    assert bot.name not in client.bots
    assert not [path for path in log.rglob("*") if path.name in ("work", "run.json", "copied.json")]
    if server.engine:
        engine = server.engine.client()
        wait_for(lambda: not engine.containers(all=True, filters={"label": [f"io.ape-silverback.bot={bot.id}"]}))
        assert not [one for one in engine.volumes()["Volumes"] or () if str(bot.id) in one["Name"]]
        assert not engine.services(filters={"label": [f"io.ape-silverback.bot={bot.id}"]})
        engine.close()


def test_an_image_that_cant_be_run_is_an_error_that_names_it(client: ClusterClient, server: Server) -> None:
    wrong = "project:/nowhere#bot" if server.engine else IMAGE
    with pytest.raises(ValidationFailed, match=re.escape(wrong)):
        client.new_bot(name="one", image=wrong, ecosystem="ethereum", network="local", provider="foundry")


def test_several_bots_start_and_stop_side_by_side(client: ClusterClient, server: Server) -> None:
    made = [new_bot(client, server, "steady", name=f"bot-{number}") for number in range(4)]
    for bot in made:
        until(bot, RUNNING)
    health = client.health
    assert {name: one.healthy for name, one in health.bots.items()} == {bot.name: True for bot in made}
    for bot in made:
        bot.stop()
    for bot in made:
        until(bot, STOPPED)


def test_a_bot_that_crashes_is_started_again_until_its_policy_gives_up(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "crash"), STOPPED)
    bot.update(restart=RestartPolicy(max_restarts=2, backoff=0.1))
    bot.start()
    wait_for(lambda: (client.bots["one"].task.stopped_reason or "").startswith("crashed 2 times"))
    found = client.bots["one"]
    assert found.status is STOPPED
    assert found.restarts.count == 1
    assert len(found.restarts.crashes) == 2
    assert "the pool has no such token" in found.task.stopped_reason
    assert [message.startswith("command run") for message in messages(bot)].count(True) == 3


def test_a_bot_that_its_circuit_breaker_ended_stays_down(client: ClusterClient, server: Server) -> None:
    bot = new_bot(client, server, "breaker")
    bot.update(restart=RestartPolicy(backoff=0.1))
    until(bot, STOPPED)
    assert "circuit breaker: CircuitBreaker: too many failures" in client.bots["one"].task.stopped_reason
    time.sleep(1)
    assert bot.status is STOPPED
    assert [message.startswith("command run") for message in messages(bot)].count(True) == 1


def test_the_public_client_works(client: ClusterClient, server: Server) -> None:
    public = PublicClient(base_url=server.url, headers={"X-API-Key": KEY})
    group = public.new_variable_group("group-one", {"BEHAVIOUR": "show"})
    bot = public.new_bot("one", server.image, "ethereum", "local", "foundry", environment=["group-one"])
    wait_for(lambda: bot.status.name == "RUNNING")
    assert bot.is_healthy
    assert [one.healthy for one in public.health.bots.values()] == [True]
    wait_for(lambda: any("BEHAVIOUR=show" in entry.message for entry in bot.logs))
    bot.stop()
    wait_for(lambda: bot.status.name == "STOPPED")
    bot.start()
    wait_for(lambda: bot.status.name == "RUNNING")
    assert bot.errors == []
    bot.remove()
    group.remove()
    assert (public.bots, public.variable_groups) == ({}, {})
