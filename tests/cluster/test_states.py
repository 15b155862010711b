"""The states of bots take a constant number of requests on a cluster that has only what every cluster has."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.states import BotState, read_states, states_of
from ape_silverback.cluster.types import ResourceStatus
from tests.cluster.server import BOT, Behaviour, Reply, Request, answer, serving


def bots(number: int) -> list[dict[str, Any]]:
    return [{**BOT, "name": f"bot-{one}", "id": str(uuid.UUID(int=one))} for one in range(number)]


def cluster(listed: list[dict[str, Any]], unhealthy: dict[str, int], unnamed: set[str] | None = None) -> Behaviour:
    """Answer as a cluster without extensions; of unhealthy bots, the status that each tells is given."""

    def behave(request: Request) -> Reply:
        if request.path == "/bots":
            return answer(listed)
        if request.path == "/health":
            names = [one["name"] for one in listed if one["name"] not in (unnamed or ())]
            return answer({"networks": {}, "bots": {name: {"healthy": name not in unhealthy} for name in names}})
        identifier = request.path.split("/")[2]
        name = next((one["name"] for one in listed if one["id"] == identifier), None)
        if request.path.endswith("/status") and name in unhealthy and unhealthy[name] >= 0:
            return answer(unhealthy[name])
        return answer({"detail": "no such bot"}, 404)

    return behave


def states(behave: Behaviour) -> tuple[list[BotState], list[str]]:
    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        return read_states(client), sorted(server.lines)


@pytest.mark.parametrize("number", [1, 250])
def test_the_states_of_healthy_bots_take_two_requests(number: int) -> None:
    found, lines = states(cluster(bots(number), {}))
    assert [(one.bot.name, one.status, one.healthy) for one in found] == [
        (f"bot-{place}", ResourceStatus.RUNNING, True) for place in range(number)
    ]
    assert lines == ["GET /bots", "GET /health"]


def test_only_a_bot_that_neither_answer_tells_of_is_asked() -> None:
    behave = cluster(bots(50), {"bot-7": 7, "bot-9": -1}, unnamed={"bot-11"})
    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        found = states_of(client.list_bots(), client.health, ask=lambda bot: bot.name != "bot-11")
        lines = server.lines
    told = {one.bot.name: (one.status, one.healthy) for one in found}
    assert told["bot-7"] == (ResourceStatus.STOPPED, False)
    assert told["bot-9"] == (ResourceStatus.REMOVED, False)  # since it was listed
    assert told["bot-11"] == (None, None)
    assert told["bot-0"] == (ResourceStatus.RUNNING, True)
    assert len(lines) == 4


def test_what_the_list_tells_is_believed_and_nothing_is_asked() -> None:
    task = dict.fromkeys(["exit_code", "reason", "started_at", "stop_code", "stopped_at", "stopped_reason"])
    listed = [{**one, "task": {**task, "last_status": "STARTUP"}} for one in bots(3)]
    found, lines = states(cluster(listed, {"bot-1": 7}))
    assert [(one.status, one.healthy) for one in found] == [
        (ResourceStatus.STARTUP, True),
        (ResourceStatus.STARTUP, False),
        (ResourceStatus.STARTUP, True),
    ]
    assert lines == ["GET /bots", "GET /health"]


def test_two_bots_of_one_name_are_both_there_and_each_is_asked() -> None:
    twins = [{**one, "name": "twin"} for one in bots(2)]
    found, lines = states(cluster(twins, {"twin": 3}))
    assert [(one.bot.name, one.status, one.healthy) for one in found] == [("twin", ResourceStatus.STARTUP, None)] * 2
    assert len(lines) == 4
    with serving(cluster(twins, {})) as server, ClusterClient(base_url=server.url) as client:
        assert {bot.id for bot in client.bots.values()} == {uuid.UUID(int=0), uuid.UUID(int=1)}
        assert list(client.bots) == ["twin", "twin (00000000-0000-0000-0000-000000000001)"]
