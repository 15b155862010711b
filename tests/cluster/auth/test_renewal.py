"""Staying logged in: access tokens are renewed when they are about to end, once for all processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from ape_silverback.cluster.auth.login import Auth, read_access_token, who_am_i
from ape_silverback.cluster.auth.tokens import Login, read_login, token_file, write_login
from ape_silverback.cluster.client import connect_platform
from ape_silverback.cluster.settings import choose_profile
from ape_silverback.exceptions import Unauthorized
from tests.cluster.auth.conftest import Provider, let_it_end, stored
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


def test_a_client_of_the_platform_gets_a_renewed_token(login: Login, auth: Auth) -> None:
    let_it_end(auth)
    client = connect_platform(choose_profile(environ={}))
    assert client.cookies["session"] == stored(auth)["tokens"]["access_token"] != login.access_token


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
    with pytest.raises(Unauthorized, match=r"the login \(default\) has run out; log in"):
        read_access_token(auth.name)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"userinfo": {}, "tokens": {}}', '{"userinfo": {}, "tokens": 1}']
)
def test_a_broken_file_says_to_log_in(auth: Auth, text: str) -> None:
    token_file(auth.name).write_text(text)
    with pytest.raises(Unauthorized, match="doesn't hold what a login leaves; log in with `ape silverback login`"):
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
