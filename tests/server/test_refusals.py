"""What the server refuses: values that no bot could start with, requests that cost too much, and how it answers."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ape_silverback.server.bounds import MOST_BYTES, MOST_BYTES_OF_STRANGERS
from tests.server.machine import KEY, Cluster, serving_cluster

BOT = {"name": "a", "image": "image", "ecosystem": "ethereum", "network": "local", "provider": "foundry"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serving_cluster(tmp_path_factory.mktemp("cluster")) as served:
        yield served


@pytest.fixture(scope="module")
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, headers={"X-API-Key": KEY}, timeout=30) as client:
        yield client


def send(http: httpx.Client, method: str, path: str, body: Any) -> httpx.Response:
    """Send a body that a careful client wouldn't: with lone surrogates and numbers that aren't any."""
    return http.request(method, path, content=json.dumps(body), headers={"Content-Type": "application/json"})


POISON = [
    ("account", "a\0b"),
    ("account", "\ud800"),
    ("network", "local\0"),
    ("ecosystem", "\udfff"),
    ("provider", "x" * 5000),
    ("image", "project:/" + "x" * 5000 + "#a"),
    ("name", "\ud800"),
    ("environment", ["\ud800"]),
    ("environment", ["a"] * 101),
    ("cluster_access", float("nan")),
    ("restart", {"policy": "sometimes"}),
    ("restart", {"backoff": float("nan")}),
    ("healthy", {"silent": -1}),
]


@pytest.mark.parametrize(("field", "value"), POISON)
def test_a_bot_that_could_never_start_is_refused(http: httpx.Client, field: str, value: Any) -> None:
    answer = send(http, "POST", "/bots", {**BOT, field: value})
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"][:2] == ["body", field]
    assert http.get("/bots").json() == []


@pytest.mark.parametrize(
    "values",
    [
        {"A": "x\0y"},
        {"A": "\ud800"},
        {"\ud800": "x"},
        {"A" * 300: "x"},
        {"A": "x" * 100_001},
        {f"A{number}": "x" for number in range(1001)},
    ],
)
def test_variables_that_no_process_can_have_are_refused(http: httpx.Client, values: dict[str, str]) -> None:
    answer = send(http, "POST", "/vars?name=group", values)
    assert answer.status_code == 422, answer.text
    assert http.get("/vars").json() == []


def test_a_refusal_repeats_nothing_that_was_sent(http: httpx.Client) -> None:
    wrong = {"name": "no spaces", "hostname": 5, "email": "e", "username": "u", "password": ["the-password"]}
    answer = send(http, "POST", "/credentials", wrong)
    assert answer.status_code == 422
    assert {tuple(one["loc"]) for one in answer.json()["detail"]} >= {("body", "name"), ("body", "password")}
    assert "the-password" not in answer.text
    answer = send(http, "POST", "/vars?name=group", {"A": {"nested": "the-value"}})
    assert answer.status_code == 422
    assert "the-value" not in answer.text


@pytest.mark.parametrize("level", ["9" * 5000, "LOUD", "", "-1"])
def test_a_level_that_is_none_is_refused(http: httpx.Client, level: str) -> None:
    bot = send(http, "POST", "/bots", BOT).json()
    try:
        answer = http.get(f"/bots/{bot['id']}/logs", params={"log_level": level})
        assert answer.status_code == 422
        assert len(answer.text) < 500
        for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
            assert http.get(f"/bots/{bot['id']}/logs", params={"start_time": moment}).status_code == 200
    finally:
        http.delete(f"/bots/{bot['id']}")


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}])
def test_a_strangers_body_isnt_read(cluster: Cluster, headers: dict[str, str]) -> None:
    body = b'{"A": "' + b"x" * (MOST_BYTES_OF_STRANGERS + 1) + b'"}'
    assert httpx.post(f"{cluster.url}/vars?name=a", content=body, headers=headers).status_code == 401

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"x" * 1000

    assert httpx.post(f"{cluster.url}/vars?name=a", content=endless(), headers=headers).status_code == 401


def test_a_body_has_a_bound(http: httpx.Client) -> None:
    assert http.post("/vars?name=a", content=b"x" * (MOST_BYTES + 1)).status_code == 413


def test_two_changes_at_once_are_both_kept(http: httpx.Client) -> None:
    bot = send(http, "POST", "/bots", BOT).json()
    try:
        for number in range(10):
            fields = {"network": f"network-{number}", "provider": f"provider-{number}", "account": f"account-{number}"}
            threads = [
                threading.Thread(target=send, args=(http, "PATCH", f"/bots/{bot['id']}", {name: value}))
                for name, value in fields.items()
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            [found] = http.get("/bots").json()
            assert {name: found[name] for name in fields} == fields
    finally:
        http.delete(f"/bots/{bot['id']}")


def test_a_group_is_changed_or_gone_but_never_a_server_error(http: httpx.Client) -> None:
    for _ in range(10):
        group = send(http, "POST", "/vars?name=short", {"A": "1"}).json()["id"]
        answers: list[int] = []

        def change(group: str = group, answers: list[int] = answers) -> None:
            answers.append(send(http, "PATCH", f"/vars/{group}", {"variables": {"A": "2"}}).status_code)

        threads = [threading.Thread(target=change) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert http.delete(f"/vars/{group}").status_code == 200
        for thread in threads:
            thread.join()
        assert set(answers) <= {200, 404}


def test_a_group_is_never_removed_under_a_bot_that_uses_it(http: httpx.Client) -> None:
    for number in range(10):
        group = send(http, "POST", "/vars?name=used", {"A": "1"}).json()["id"]
        made: list[httpx.Response] = []
        body = {**BOT, "name": f"user-{number}", "environment": ["used"]}
        maker = threading.Thread(target=lambda body=body, made=made: made.append(send(http, "POST", "/bots", body)))
        maker.start()
        removed = http.delete(f"/vars/{group}").status_code
        maker.join()
        assert {removed, made[0].status_code} in ({200, 422}, {409, 200})
        if made[0].status_code == 200:
            http.delete(f"/bots/{made[0].json()['id']}")
            http.delete(f"/vars/{group}")


def test_the_description_names_every_refusal_and_what_a_log_is(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    for path in ("/bots", "/bots/{bot}", "/vars", "/credentials", "/health"):
        for method in paths[path].values():
            assert {"400", "401", "404", "409", "413", "422"} <= set(method["responses"]), path
    assert "application/x-ndjson" in paths["/bots/{bot}/logs"]["get"]["responses"]["200"]["content"]


def test_a_bot_that_isnt_there_is_not_found_but_a_defect_would_be_an_error(http: httpx.Client) -> None:
    assert http.get(f"/bots/{uuid.uuid4()}/status").status_code == 404
    assert http.get("/bots/no-uuid/status").status_code == 422


def test_policies_of_a_bot_are_kept_changed_and_reset(http: httpx.Client) -> None:
    asked = {"policy": "always", "max_restarts": 3, "window": 60, "backoff": 2, "max_backoff": 9}
    bot = send(http, "POST", "/bots", {**BOT, "restart": asked, "healthy": {"silent": 60, "lag": 5}}).json()
    try:
        assert (bot["restart"], bot["healthy"]) == (asked, {"silent": 60, "lag": 5})
        path = f"/bots/{bot['id']}"
        assert send(http, "PATCH", path, {"network": "sepolia"}).json()["restart"] == asked
        assert send(http, "PATCH", path, {"restart": "<default>"}).json()["restart"] is None
        assert send(http, "PATCH", path, {"healthy": {"silent": 5}}).json()["healthy"] == {"silent": 5, "lag": 20}
    finally:
        http.delete(f"/bots/{bot['id']}")


def test_what_is_created_with_an_id_of_the_clients_is_created_once(http: httpx.Client) -> None:
    chosen = {"id": str(uuid4())}
    body = {"name": "chosen", "image": "x/y:1", "ecosystem": "ethereum", "network": "mainnet", "provider": "node"}
    made = http.post("/bots", json=body | chosen)
    assert (made.status_code, made.json()["id"]) == (200, chosen["id"])
    assert http.post("/bots", json=body | chosen).json()["created"] == made.json()["created"]
    assert http.post("/bots", json=body | chosen | {"network": "sepolia"}).status_code == 409
    assert http.post("/bots", json=body).status_code == 409, "the name is taken"
    http.delete(f"/bots/{chosen['id']}")
    assert http.post("/bots", json=body | chosen).status_code == 409, "it was removed"

    group = http.post("/vars", params={"name": "chosen"} | chosen, json={"A": "1"})
    assert group.json()["id"] == chosen["id"]
    assert http.post("/vars", params={"name": "chosen"} | chosen, json={"A": "1"}).json() == group.json()
    assert http.post("/vars", params={"name": "chosen"} | chosen, json={"B": "1"}).status_code == 409
    assert http.post("/vars", params={"name": "chosen"}, json={"A": "1"}).status_code == 409


def test_a_half_sent_request_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ape_silverback.server.bounds.REQUEST_TIMEOUT", 0.3)
    with serving_cluster(tmp_path) as served:
        port = int(served.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as half:
            half.sendall(b"GET /bots HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
            assert half.recv(1000) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=30) as whole:
            request = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            whole.sendall(request)
            assert whole.recv(1000).startswith(b"HTTP/1.1 200")
