"""Whatever goes wrong between the client and a cluster is one error of ours, after so many requests, with no key in it.

``FAULTS`` is the table: fault, exception, requests that arrive for a GET and for a POST that makes a bot.
"""

from __future__ import annotations

import logging
import pickle
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ape_silverback import exceptions
from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.exceptions import ClusterError, RedirectRefused, SilverbackError
from tests.certificates import make_certificate
from tests.cluster.server import BOT, Behaviour, Reply, Server, answer, html, in_turn, serving

KEY = "key-that-must-not-leak"
ATTEMPTS = 3
QUICK = Retries(attempts=ATTEMPTS, first_delay=0.001, longest_delay=0.01, deadline=5.0)


def client_for(url: str, retries: Retries = QUICK, **more: Any) -> ClusterClient:
    return ClusterClient(base_url=url, headers={"X-API-Key": KEY}, retries=retries, timeout=0.3, **more)


def make_bot(client: ClusterClient) -> Any:
    return client.new_bot("a", "ghcr.io/a/b:1", "ethereum", "mainnet", "alchemy", look_first=False)


DETAIL = {"detail": [{"loc": ["body", 0, "name"], "msg": "too long", "type": "x"}]}
# fault → behaviour, exception, requests of a GET, POSTs that arrive when a bot is made, what the error says
FAULTS: dict[str, tuple[Behaviour, str, int, int, str]] = {
    "reset mid-body": (in_turn(Reply(200, b'[{"id"', reset_after=4)), "ConnectionBroken", ATTEMPTS, 1, "broke"),
    "reset before the answer": (in_turn(Reply(200, b"[]", reset_after=0)), "ConnectionBroken", ATTEMPTS, 1, "broke"),
    "slow": (in_turn(Reply(200, b"[]", wait=0.5)), "RequestTimeout", ATTEMPTS, 1, "in time"),
    "401": (in_turn(answer({"detail": "who are you"}, 401)), "Unauthorized", 1, 1, "check the key"),
    "403": (in_turn(answer({"detail": "not yours"}, 403)), "Forbidden", 1, 1, "not yours"),
    "404": (in_turn(answer({"detail": "no such bot"}, 404)), "NotFound", 1, 1, "no such bot"),
    "409": (in_turn(answer({"detail": "name is taken"}, 409)), "Conflict", 1, 1, "name is taken"),
    "422": (in_turn(answer(DETAIL, 422)), "ValidationFailed", 1, 1, "  0.name: too long"),
    "400 with fields": (in_turn(answer(DETAIL, 400)), "ValidationFailed", 1, 1, "  0.name: too long"),
    "418": (in_turn(answer({"detail": "teapot"}, 418)), "ClientError", 1, 1, "teapot"),
    "429": (in_turn(answer({"detail": "slow down"}, 429)), "RateLimited", ATTEMPTS, ATTEMPTS, "slow down"),
    "500": (in_turn(answer({"detail": "oops"}, 500)), "ServerError", 1, 1, "oops"),
    "501": (in_turn(html(501)), "ServerError", 1, 1, "501"),
    "502 HTML": (in_turn(html(502)), "ServerError", ATTEMPTS, 1, "502"),
    "503": (in_turn(Reply(503)), "ServerError", ATTEMPTS, 1, "503"),
    "504": (in_turn(html(504)), "ServerError", ATTEMPTS, 1, "504"),
    "HTML from a proxy": (in_turn(html()), "UnexpectedAnswer", 1, 1, "isn't JSON but '<html>"),
    "truncated JSON": (in_turn(Reply(200, b'[{"id": "1')), "UnexpectedAnswer", 1, 1, "isn't JSON"),
    "empty body": (in_turn(Reply(200, b"")), "UnexpectedAnswer", 1, 1, "isn't JSON"),
    "JSON of another type": (in_turn(answer({"bots": 5})), "UnexpectedAnswer", 1, 1, "isn't what the API promises"),
    "wrong field": (in_turn(answer([{**BOT, "id": 5}])), "UnexpectedAnswer", 1, 1, "isn't what the API promises"),
    "JSON that is too deep": (in_turn(Reply(200, b"[" * 100_000)), "UnexpectedAnswer", 1, 1, "isn't JSON"),
    "an error that is too deep": (in_turn(Reply(400, b"[" * 100_000)), "ClientError", 1, 1, "400 Bad Request"),
    "a number that is too long": (in_turn(Reply(200, b"1" * 5000)), "UnexpectedAnswer", 1, 1, "isn't JSON"),
    "422 of a number": (in_turn(answer({"detail": [{"loc": 5}]}, 422)), "ValidationFailed", 1, 1, "5: not accepted"),
    "422 of nothing": (in_turn(answer({"detail": [{}, 1]}, 422)), "ValidationFailed", 1, 1, "?: not accepted"),
    "401 that repeats the key": (in_turn(answer({"detail": f"bad {KEY}"}, 401)), "Unauthorized", 1, 1, "(bad …)"),
    "422 that repeats the key": (
        in_turn(answer({"detail": [{"loc": ["header"], "msg": f"not {KEY}"}]}, 422)),
        "ValidationFailed",
        1,
        1,
        "header: not …",
    ),
    "HTML that repeats the key": (
        in_turn(Reply(200, f"<b>{KEY}</b>".encode())),
        "UnexpectedAnswer",
        1,
        1,
        "'<b>…</b>'",
    ),
    "text for the terminal": (in_turn(answer({"detail": "\x1b[2Jgone\x07"}, 409)), "Conflict", 1, 1, "[2Jgone"),
    "bytes that are no text": (in_turn(Reply(200, b"\xff\xfe\xfa")), "UnexpectedAnswer", 1, 1, "isn't JSON"),
    "broken gzip": (
        in_turn(Reply(200, b"no gzip", {"Content-Encoding": "gzip"})),
        "UnexpectedAnswer",
        1,
        1,
        "can't be decompressed",
    ),
    "304": (in_turn(Reply(304)), "UnexpectedAnswer", 1, 1, "304"),
    "endless redirects": (in_turn(Reply(307, headers={"Location": "/again"})), "UnexpectedAnswer", 6, 6, "redirected"),
    "redirect to nowhere": (in_turn(Reply(307, headers={"Location": "http://[broken"})), "RedirectRefused", 1, 1, ""),
}


def check(error: ClusterError, name: str, says: str) -> None:
    assert type(error) is getattr(exceptions, name)
    assert isinstance(error, SilverbackError)
    assert says in str(error)
    assert error.method in ("GET", "POST")
    assert error.url is not None
    assert error.url.startswith("http")
    assert str(error).replace("\n", "").isprintable()
    assert KEY not in repr(error) + str(error) + str(error.args) + repr(vars(error))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_get_that_goes_wrong(fault: str) -> None:
    behave, exception, requests, _, says = FAULTS[fault]
    with serving(behave) as server, client_for(server.url) as client, pytest.raises(ClusterError) as caught:
        _ = client.bots
    check(caught.value, exception, says)
    assert len(server.requests) == requests


# Making a bot has a longer time-out than this one's.
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "slow"])
def test_a_create_that_goes_wrong_is_never_sent_twice_without_a_look(fault: str) -> None:
    behave, exception, _, posts, says = FAULTS[fault]
    with serving(behave) as server, client_for(server.url) as client, pytest.raises(ClusterError) as caught:
        make_bot(client)
    check(caught.value, exception, says)
    assert len([line for line in server.lines if line == "POST /bots"]) <= posts
    for before, after in zip(server.lines, server.lines[1:], strict=False):
        assert (before, after) != ("POST /bots", "POST /bots") or fault == "429", "sent again without a look"


# No server at all


def refused() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_nobody_listens_is_said_at_once() -> None:
    begun = time.monotonic()
    with client_for(refused(), retries=Retries()) as client, pytest.raises(ClusterError) as caught:
        _ = client.bots
    check(caught.value, "ConnectionRefused", "nothing listens at http://127.0.0.1")
    assert "ape silverback cluster up" in str(caught.value)
    assert time.monotonic() - begun < 1.0


def test_a_name_without_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with client_for("https://nowhere.invalid", retries=Retries()) as client, pytest.raises(ClusterError) as caught:
        _ = client.bots
    check(caught.value, "NameNotResolved", "nowhere.invalid")


def test_plain_http_where_tls_should_be() -> None:
    with (
        serving(in_turn(answer([]))) as server,
        client_for(server.url.replace("http:", "https:")) as client,
        pytest.raises(ClusterError) as caught,
    ):
        _ = client.bots
    check(caught.value, "TLSFailed", "no secure connection")
    assert not server.requests


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(in_turn(answer([]))) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with (
            client_for(server.url.replace("http:", "https:")) as client,
            pytest.raises(ClusterError) as caught,
        ):
            _ = client.bots
    check(caught.value, "TLSFailed", "certificate")
    assert not server.requests


# Redirects


@contextmanager
def two_servers(status: int) -> Iterator[tuple[Server, Server]]:
    with serving(in_turn(answer([]))) as other:
        location = {"Location": f"{other.url}/bots"}
        with serving(in_turn(Reply(status, headers=location))) as first:
            yield first, other


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_is_refused_before_the_key_leaves(status: int) -> None:
    with two_servers(status) as (first, other), client_for(first.url) as client:
        for ask in (lambda: client.bots, lambda: make_bot(client), lambda: list(stream_of(client))):
            with pytest.raises(RedirectRefused) as caught:
                ask()
            check(caught.value, "RedirectRefused", other.url)
        assert first.requests
        assert not other.requests


@pytest.mark.parametrize("way", ["in a header", "in the answer"])
def test_a_next_page_of_another_origin_is_refused_before_the_key_leaves(way: str) -> None:
    with serving(in_turn(answer([]))) as other:
        following = f"{other.url}/bots?page=2"
        page = answer([BOT], headers={"Link": f'<{following}>; rel="next"'})
        if way == "in the answer":
            page = answer({"items": [BOT], "next": following})
        with serving(in_turn(page)) as first, client_for(first.url) as client:
            with pytest.raises(RedirectRefused) as caught:
                _ = client.bots
            check(caught.value, "RedirectRefused", other.url)
            with pytest.raises(RedirectRefused):
                client.get(following)
        assert not other.requests


def stream_of(client: ClusterClient) -> Iterator[Any]:
    from ape_silverback.cluster.client import Bot

    return Bot.model_validate(BOT)._bind(client).get_logs()


def test_a_client_that_was_told_to_follow_redirects_still_refuses_them() -> None:
    with (
        two_servers(302) as (first, other),
        client_for(first.url, follow_redirects=True) as client,
        pytest.raises(RedirectRefused),
    ):
        client.get("/bots", follow_redirects=True)
    assert not other.requests


def test_a_redirect_within_the_origin_is_followed() -> None:
    with serving(in_turn(Reply(307, headers={"Location": "/bots/"}), answer([BOT]))) as server:
        with client_for(server.url) as client:
            assert set(client.bots) == {"a"}
        assert [request.headers["X-API-Key"] for request in server.requests] == [KEY, KEY]


def test_a_redirect_that_would_make_a_get_of_a_post_is_refused() -> None:
    with (
        serving(in_turn(Reply(302, headers={"Location": "/elsewhere"}))) as server,
        client_for(server.url) as client,
        pytest.raises(RedirectRefused),
    ):
        make_bot(client)
    assert "GET /elsewhere" not in server.lines


# Time


def test_an_answer_that_drips_has_to_be_whole_in_time() -> None:
    begun = time.monotonic()
    retries = Retries(attempts=2, first_delay=0.001, deadline=0.5)
    with (
        serving(in_turn(Reply(200, b"[" + b" " * 1000 + b"]", drip=0.05))) as server,
        client_for(server.url, retries=retries) as client,
        pytest.raises(ClusterError) as caught,
    ):
        _ = client.bots
    check(caught.value, "RequestTimeout", "in time")
    assert time.monotonic() - begun < 2.0


def test_the_time_outs_are_those_of_the_api() -> None:
    with ClusterClient(base_url="http://127.0.0.1:9") as client:
        assert client.timeout == httpx.Timeout(5.0)
    seen: list[Any] = []

    def behave(request: Any) -> Reply:
        return answer(BOT)

    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        client.event_hooks = {"request": [lambda request: seen.append(request.extensions["timeout"])]}
        bot = make_bot(client)
        bot.update(image="x")
        bot.start()
        bot.stop()
        list(bot.get_logs())
        bot.remove()
        assert {timeout["read"] for timeout in seen} == {10.0}
        seen.clear()
        _ = client.health
        assert [timeout["read"] for timeout in seen] == [5.0]


# Nothing secret


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "ape"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield caplog
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_debug_logs_hold_no_key_and_no_value(logged: pytest.LogCaptureFixture) -> None:
    with serving(in_turn(answer({"detail": "x"}, 422), answer(BOT))) as server, client_for(server.url) as client:
        with pytest.raises(ClusterError):
            client.new_variable_group("rpc", {"TOKEN": "value-that-must-not-leak"})
        client.cookies.set("session", "session-that-must-not-leak")
        make_bot(client)
    assert server.requests
    assert "must-not-leak" not in logged.text


def test_a_client_shows_and_gives_away_no_key() -> None:
    with client_for("http://user:password-that-must-not-leak@127.0.0.1:9/") as client:
        assert "must-not-leak" not in repr(client)
        with pytest.raises(TypeError, match="holds a key"):
            pickle.dumps(client)


def test_what_a_client_made_can_be_pickled_without_it() -> None:
    with serving(in_turn(answer([BOT]))) as server, client_for(server.url) as client:
        bot = client.bots["a"]
        content = pickle.dumps(bot)
        assert KEY.encode() not in content
        again = pickle.loads(content)
    assert again == bot
    with pytest.raises(RuntimeError, match="has no client"):
        _ = again.status


def test_an_error_of_many_threads_is_each_ones_own() -> None:
    with serving(in_turn(answer({"detail": "no"}, 404))) as server, client_for(server.url) as client:
        errors: list[ClusterError] = []

        def ask() -> None:
            try:
                _ = client.bots
            except ClusterError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({id(error) for error in errors}) == 16


def test_an_error_reaches_ape_without_a_traceback(home: Path, project: Path) -> None:
    from tests.conftest import run_ape

    with serving(in_turn(html(500))) as server:
        environment = {"SILVERBACK_CLUSTER_URI": server.url, "SILVERBACK_CLUSTER_API_KEY": KEY}
        result: subprocess.CompletedProcess[str] = run_ape(
            home, project, ["silverback", "cluster", "bots", "list", "-v", "DEBUG"], **environment
        )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: GET http://127.0.0.1")
    assert "Traceback" not in result.stdout + result.stderr
    assert KEY not in result.stdout + result.stderr
