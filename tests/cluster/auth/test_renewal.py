"""Staying logged in: access tokens are renewed when they are about to end, once for all processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from ape_silverback.cluster.auth.login import Auth, read_access_token, who_am_i
from ape_silverback.cluster.auth.tokens import Login, read_login, token_file, write_login
from ape_silverback.cluster.choice import Choice
from ape_silverback.cluster.client import Bot, PlatformClient, connect_platform
from ape_silverback.cluster.settings import PlatformProfile
from ape_silverback.exceptions import Unauthorized
from tests.cluster.auth.conftest import Provider, let_it_end, stored
from tests.cluster.server import BOT, WORKSPACE, Reply, Request, Server, answer, in_turn, serving
from tests.conftest import Ape


def change(auth: Auth, **tokens: object) -> None:
    content = stored(auth)
    content["tokens"] |= tokens
    content["tokens"] = {name: value for name, value in content["tokens"].items() if value is not None}
    token_file(auth.name).write_text(json.dumps(content))


def test_a_token_that_lasts_is_used_without_asking_anybody(login: Login, auth: Auth, provider: Provider) -> None:
    before = provider.counts()
    assert read_access_token(auth.name) == login.access_token
    assert provider.counts() == before


@pytest.mark.parametrize("seconds", [-3600, 10])
def test_a_token_that_ends_is_renewed_and_stored(login: Login, auth: Auth, provider: Provider, seconds: int) -> None:
    change(auth, expires_at=int(time.time()) + seconds)
    token_file(auth.name).chmod(0o644)  # as the public SDK leaves it
    before = provider.counts()["refreshed"]
    token = read_access_token(auth.name)
    assert token != login.access_token
    assert provider.counts()["refreshed"] == before + 1
    renewed = read_login(auth.name)
    assert renewed.access_token == token
    assert renewed.refresh_token != login.refresh_token  # this provider accepts one only once
    assert renewed.lasts(3000)
    assert renewed.userinfo["email"] == login.userinfo["email"]
    assert token_file(auth.name).stat().st_mode & 0o777 == 0o600
    assert read_access_token(auth.name) == token


@contextmanager
def platform(refused: set[str], **more: Any) -> Iterator[tuple[Server, Callable[[], PlatformClient]]]:
    """Serve a platform that refuses some tokens, and make clients for it."""

    def behave(request: Request) -> Reply:
        if token_of(request) in refused:
            return answer({"detail": "expired"}, 401)
        return answer([BOT] if request.path.endswith("/bots") else [WORKSPACE])

    with serving(behave) as server:
        profile = PlatformProfile(host=server.url, auth="default")
        yield server, lambda: connect_platform(Choice("default", profile, "a test"), **more)


def token_of(request: Request) -> str:
    return request.headers["Cookie"].removeprefix("session=")


def test_a_client_of_the_platform_renews_a_token_that_ends_while_it_is_used(login: Login, auth: Auth) -> None:
    with platform(set()) as (server, new_client), new_client() as client:
        _ = client.workspaces
        let_it_end(auth)
        _ = client.workspaces
        _ = client.cluster_client("space", "cluster").bots
        tokens = [token_of(request) for request in server.requests]
    assert tokens[0] == login.access_token
    assert tokens[1:] == [stored(auth)["tokens"]["access_token"]] * 2
    assert tokens[0] != tokens[1]


def test_clients_of_many_threads_whose_token_is_refused_renew_it_once(
    login: Login, auth: Auth, provider: Provider
) -> None:
    before = provider.counts()["refreshed"]
    with platform({login.access_token}) as (server, new_client), ThreadPoolExecutor(8) as pool:
        clients = [new_client() for _ in range(8)]
        assert [set(found) for found in pool.map(lambda client: client.workspaces, clients)] == [{"space"}] * 8
        tokens = {token_of(request) for request in server.requests}
    assert provider.counts()["refreshed"] == before + 1
    assert tokens == {login.access_token, stored(auth)["tokens"]["access_token"]}


def test_a_token_that_another_process_renewed_is_taken_over(login: Login, auth: Auth, provider: Provider) -> None:
    with platform({login.access_token}) as (_, new_client), new_client() as client:
        change(auth, access_token="renewed-elsewhere")
        before = provider.counts()["refreshed"]
        assert set(client.workspaces) == {"space"}
    assert provider.counts()["refreshed"] == before


def test_what_is_refused_again_is_an_error_after_one_renewal(login: Login, auth: Auth, provider: Provider) -> None:
    before = provider.counts()["refreshed"]
    with serving(in_turn(answer({"detail": "go away"}, 401))) as server:
        profile = PlatformProfile(host=server.url, auth="default")
        with connect_platform(Choice("default", profile, "a test")) as client, pytest.raises(Unauthorized) as caught:
            _ = client.workspaces
        assert len(server.requests) == 2
        assert token_of(server.requests[1]) not in str(caught.value)
    assert "authentication failed (go away); log in with `ape silverback login` again" in str(caught.value)
    assert provider.counts()["refreshed"] == before + 1


def test_a_followed_log_survives_the_end_of_its_token(login: Login, auth: Auth) -> None:
    line = b'{"timestamp": "2026-01-01T00:00:0%d+00:00", "message": "m"}\n'
    refused: set[str] = set()

    def behave(request: Request) -> Reply:
        if token_of(request) in refused:
            return answer({"detail": "expired"}, 401)
        if refused:
            return Reply(200, chunks=[line % 2])
        refused.add(token_of(request))
        return Reply(200, chunks=[line % 1], reset_after=0)

    with serving(behave) as server:
        profile = PlatformProfile(host=server.url, auth="default")
        with connect_platform(Choice("default", profile, "a test")) as client:
            bot = Bot.model_validate(BOT)._bind(client.cluster_client("space", "cluster"))
            seconds = [entry.timestamp.second for entry in bot.get_logs(follow=True) if entry.timestamp]
    assert seconds == [1, 2]


def test_who_am_i_renews(login: Login, auth: Auth) -> None:
    let_it_end(auth)
    assert who_am_i(auth).access_token == stored(auth)["tokens"]["access_token"] != login.access_token


def test_processes_at_once_renew_once(login: Login, auth: Auth, provider: Provider) -> None:
    let_it_end(auth)
    before = provider.counts()
    code = (
        "import sys; from ape_silverback.cluster.auth.login import read_access_token\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(read_access_token('default'))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    tokens = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert tokens == {stored(auth)["tokens"]["access_token"]}
    after = provider.counts()
    assert (after["refreshed"], after["refused"]) == (before["refreshed"] + 1, before["refused"])


def test_a_login_that_was_ended_elsewhere_says_to_log_in_again(
    login: Login, auth: Auth, provider: Provider, ape: Ape
) -> None:
    provider.revoke(auth, str(login.refresh_token))
    let_it_end(auth)
    before = token_file(auth.name).read_bytes()
    result = ape("silverback", "whoami")
    assert result.returncode == 1
    assert f"the login has ended: {auth.host} doesn't renew it (invalid_grant" in result.stderr
    assert "log in with `ape silverback login` again" in result.stderr
    assert str(login.refresh_token) not in result.stderr
    assert token_file(auth.name).read_bytes() == before


def test_a_login_that_cannot_be_renewed_lasts_until_its_end(login: Login, auth: Auth) -> None:
    change(auth, refresh_token=None, expires_at=int(time.time()) + 10)
    assert read_access_token(auth.name) == login.access_token
    let_it_end(auth)
    with pytest.raises(Unauthorized, match=r"the login \(default\) has expired; log in"):
        read_access_token(auth.name)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"userinfo": {}, "tokens": {}}', '{"userinfo": {}, "tokens": 1}']
)
def test_a_broken_file_says_to_log_in(auth: Auth, text: str) -> None:
    token_file(auth.name).write_text(text)
    with pytest.raises(Unauthorized, match="isn't a stored login; log in with `ape silverback login`"):
        read_access_token(auth.name)


@pytest.mark.parametrize("end", [10**400, -1, float("nan"), "soon", True])
def test_a_file_that_names_no_time_is_believed_about_its_tokens(login: Login, auth: Auth, end: object) -> None:
    change(auth, expires_at=end)
    assert read_access_token(auth.name) == login.access_token
    assert who_am_i(auth).lasts(3000)


def test_a_reader_never_sees_half_a_file(home: object) -> None:
    login = Login({"sub": "x" * 100_000}, {"access_token": "t"})
    write_login("default", login)
    done = threading.Event()

    def write() -> None:
        for _ in range(50):
            write_login("default", login)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    while not done.is_set():
        assert read_login("default") == login
    assert sorted(file.name for file in token_file("default").parent.iterdir()) == ["default.json"]


def test_reading_a_token_loads_nothing_of_what_a_login_needs(login: Login, auth: Auth) -> None:
    code = (
        "import sys; from ape_silverback.cluster.auth.login import read_access_token; read_access_token('default')\n"
        "import ape_silverback.cli.login\n"
        "print(*sys.modules, sep='\\n')"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"authlib", "joserfc", "cryptography", "httpx", "pydantic"}.intersection(loaded)
