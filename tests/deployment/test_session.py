"""One run: what happens side by side in it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from ape_silverback import api
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.deployment import session
from ape_silverback.exceptions import ClusterError
from ape_silverback.project.desired import DesiredState
from tests.cluster.server import Reply, Request, answer, serving

PATIENCE = 20

ANSWERS = {
    "/openapi.json": answer({"info": {}}),
    "/health": answer({"networks": {}, "bots": {}}),
    "/bots": answer([]),
    "/vars": answer([]),
}


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, threading.Event]:
    """When Ape begins to load the project, and when its bots begin to be resolved."""
    begun = {"load": threading.Event(), "resolve": threading.Event()}

    def load() -> str:
        begun["load"].set()
        return "app"

    def resolve(*_: Any, **__: Any) -> DesiredState:
        begun["resolve"].set()
        return DesiredState("app", tmp_path, (), ())

    monkeypatch.setattr(api, "project_folder", lambda: tmp_path)
    monkeypatch.setattr(session, "project_name", load)
    monkeypatch.setattr(session, "resolve", resolve)
    return begun


def test_the_cluster_is_asked_while_ape_loads_and_resolves(moments: dict[str, threading.Event]) -> None:
    held = {"/openapi.json": moments["load"], "/bots": moments["resolve"], "/vars": moments["resolve"]}
    in_time: dict[str, bool] = {}

    def behave(request: Request) -> Reply:
        if moment := held.get(request.path):
            in_time[request.path] = moment.wait(PATIENCE)  # an answer that comes only once Ape is at work
        return ANSWERS[request.path]

    with serving(behave) as server, ClusterClient(base_url=server.url, timeout=2 * PATIENCE) as client:
        assert not api.plan(client=client).writes
    assert in_time == dict.fromkeys(held, True)


def test_a_cluster_that_doesnt_answer_is_named_though_it_was_asked_beside(moments: dict[str, threading.Event]) -> None:
    with (
        serving(lambda request: {**ANSWERS, "/bots": answer({"detail": "oops"}, 500)}[request.path]) as server,
        ClusterClient(base_url=server.url) as client,
        pytest.raises(ClusterError, match="/bots"),
    ):
        api.plan(client=client)
