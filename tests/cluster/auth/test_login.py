"""Logging in, being asked who one is, and logging out, with the real command and a real provider."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ape_silverback.cli.shared.documents import UserDocument
from ape_silverback.cluster.auth.callback import Callback
from ape_silverback.cluster.auth.login import Auth, choose_auth, log_in, log_in_by_hand, log_out
from ape_silverback.cluster.auth.tokens import Login, token_file
from ape_silverback.exceptions import LoginFailed, ProfileError
from demo.chain import free_port
from tests.cluster.auth import browser
from tests.cluster.auth.conftest import USER, Provider, stored, write_profile
from tests.conftest import Ape, ape_command

Browse = Callable[..., dict[str, str]]


def secrets_of(auth: Auth) -> list[str]:
    tokens = stored(auth)["tokens"]
    return [tokens[name] for name in ("access_token", "refresh_token", "id_token")]


def in_background(address: str, name: str = USER) -> None:
    """Log in as a browser does that the command has opened."""
    threading.Thread(target=lambda: httpx.get(browser.log_in(address, name)), daemon=True).start()


@pytest.mark.parametrize("command", ["login", "logout", "whoami"])
def test_every_command_has_help(ape: Ape, command: str) -> None:
    result = ape("silverback", command, "--help")
    assert result.returncode == 0
    assert f"ape silverback {command}" in result.stdout


def test_a_login_from_beginning_to_end(ape: Ape, auth: Auth, browse: Browse, provider: Provider) -> None:
    before = ape("silverback", "whoami")
    assert before.returncode == 1
    assert "not logged in to the platform (default); log in with `ape silverback login`" in before.stderr

    done = ape("silverback", "login", "-v", "DEBUG", **browse(USER))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Logged in to {provider.issuer} as {USER}@example.test.\n"
    assert not [secret for secret in secrets_of(auth) if secret in done.stdout + done.stderr]
    assert "Warning" not in done.stderr
    assert token_file(auth.name).stat().st_mode & 0o777 == 0o600

    who = ape("silverback", "whoami", "-v", "DEBUG")
    assert who.returncode == 0, who.stderr
    lines = dict(line.split(None, 1) for line in who.stdout.splitlines())
    assert lines["User:"] == f"{USER}@example.test"
    assert lines["Auth:"] == "default"
    assert lines["Host:"] == provider.issuer
    assert lines["Expires:"].endswith(", then renewed")
    data = ape("silverback", "whoami", "--format", "json")
    found = UserDocument.model_validate_json(data.stdout)
    assert (found.user, found.host, found.renewable) == (f"{USER}@example.test", provider.issuer, True)
    assert found.expires is not None
    assert 3000 < (found.expires - datetime.now(timezone.utc)).total_seconds() < 3700
    assert not [secret for secret in secrets_of(auth) if secret in who.stdout + who.stderr + data.stdout]

    refresh_token = stored(auth)["tokens"]["refresh_token"]
    out = ape("silverback", "logout")
    assert (out.returncode, out.stdout, out.stderr) == (0, f"Logged out of {provider.issuer}.\n", "")
    assert not token_file(auth.name).exists()
    renewal = {"client_id": "native", "grant_type": "refresh_token", "refresh_token": refresh_token}
    assert httpx.post(f"{provider.issuer}/token", data=renewal).json()["error"] == "invalid_grant"

    again = ape("silverback", "logout")
    assert (again.returncode, again.stdout) == (0, f"You weren't logged in to {provider.issuer}.\n")
    assert ape("silverback", "whoami").returncode == 1


def test_the_pasted_redirect_logs_in_without_a_browser(auth: Auth, ape: Ape, project: Path) -> None:
    command = [ape_command(), "silverback", "login", "--no-browser"]
    with subprocess.Popen(
        command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        address = next(line.strip() for line in process.stderr if line.startswith(auth.host))
        redirect = browser.log_in(address, USER)
        assert redirect.startswith("http://localhost:51562/callback?")  # what the public SDK is registered with
        stdout, stderr = process.communicate(redirect + "\n", timeout=60)
    assert process.returncode == 0, stderr
    assert stdout == f"Logged in to {auth.host} as {USER}@example.test.\n"
    assert parse_qs(urlsplit(redirect).query)["code"][0] not in stdout + stderr
    assert stored(auth)["userinfo"]["sub"] == USER


@pytest.mark.parametrize("pasted", ["", "nonsense", "http://[", "http://localhost:51562/callback?code=c"])
def test_what_is_pasted_must_be_the_redirect(auth: Auth, pasted: str) -> None:
    with pytest.raises(LoginFailed, match="state isn't ours"):
        log_in_by_hand(auth, lambda address: pasted)
    assert not token_file(auth.name).exists()


def test_a_free_port_is_taken_where_the_provider_allows_it(auth: Auth) -> None:
    addresses = []

    def show(address: str) -> None:
        addresses.append(parse_qs(urlsplit(address).query))
        in_background(address)

    log_in(auth, show, timeout=30)
    port = urlsplit(addresses[0]["redirect_uri"][0]).port
    assert port not in (None, 51562)
    assert addresses[0]["code_challenge_method"] == ["S256"]
    assert len(addresses[0]["code_challenge"][0]) == 43
    assert len(addresses[0]["state"][0]) >= 43
    assert len(addresses[0]["nonce"][0]) >= 43


@pytest.mark.xdist_group("registered port")
def test_else_the_registered_port_is_taken_and_when_it_is_in_use_the_error_says_so(
    provider: Provider, home: Path
) -> None:
    fixed = write_profile(home, provider.issuer, "fixed")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 51562))
            other.listen()
        except OSError:
            pass  # somebody else has it: just as well
        with pytest.raises(LoginFailed, match=r"port 51562 of 127.0.0.1.*--no-browser"):
            log_in(fixed, lambda address: None, timeout=1)


def test_a_port_can_be_named(provider: Provider, home: Path) -> None:
    fixed = write_profile(home, provider.issuer, "fixed")
    login = log_in(fixed, in_background, timeout=30, port=provider.fixed_port)
    assert login.user == f"{USER}@example.test"


def test_a_user_who_refuses_is_an_error(ape: Ape, auth: Auth, browse: Browse) -> None:
    result = ape("silverback", "login", **browse(USER, "deny"))
    assert result.returncode == 1
    assert "refused the login: access_denied: End-User aborted interaction" in result.stderr
    assert "Traceback" not in result.stderr
    assert not token_file(auth.name).exists()


def test_an_answer_with_another_state_stores_nothing(auth: Auth) -> None:
    pages = []

    def show(address: str) -> None:
        redirect = browser.log_in(address, USER)
        wrong = redirect.replace("state=", "state=x")
        threading.Thread(target=lambda: pages.append(httpx.get(wrong)), daemon=True).start()

    with pytest.raises(LoginFailed, match="belongs to another login"):
        log_in(auth, show, timeout=30)
    assert "Login failed" in wait_for(pages).text
    assert not token_file(auth.name).exists()


def test_an_error_of_somebody_else_is_not_shown_as_the_providers(auth: Auth) -> None:
    with pytest.raises(LoginFailed, match="belongs to another login"):
        log_in_by_hand(auth, lambda address: "http://localhost:51562/callback?error=access_denied&state=x")


def test_an_answer_of_another_issuer_stores_nothing(auth: Auth) -> None:
    def mix_up(address: str) -> str:
        state = parse_qs(urlsplit(address).query)["state"][0]
        return f"http://localhost:51562/callback?code=c&state={state}&iss=https://other.example"

    with pytest.raises(LoginFailed, match="it names another issuer"):
        log_in_by_hand(auth, mix_up)
    assert not token_file(auth.name).exists()


def test_a_code_that_the_provider_does_not_know_is_refused(auth: Auth) -> None:
    def forge(address: str) -> str:
        return browser.log_in(address, USER).replace("code=", "code=x")

    with pytest.raises(LoginFailed, match="refused the login: invalid_grant"):
        log_in_by_hand(auth, forge)


def test_nobody_comes(ape: Ape, auth: Auth) -> None:
    result = ape("silverback", "login", "--timeout", "0.5", BROWSER="true")
    assert result.returncode == 1
    assert "no login within 0.5 s; try again, or pass --timeout for more time" in result.stderr
    assert f"{auth.host}/auth?" in result.stderr


def test_ctrl_c_ends_a_login_cleanly(auth: Auth, ape: Ape, project: Path) -> None:
    command = [ape_command(), "silverback", "login"]
    with subprocess.Popen(
        command, cwd=project, env={**os.environ, "BROWSER": "true"}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith(auth.host) for line in process.stderr)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not token_file(auth.name).exists()


def test_no_provider_there(ape: Ape, home: Path) -> None:
    write_profile(home, f"http://127.0.0.1:{free_port()}", "us")
    result = ape("silverback", "login", BROWSER="true")
    assert result.returncode == 1
    assert "nothing listens at" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_provider_that_can_be_listened_to_is_refused(home: Path) -> None:
    with pytest.raises(ProfileError, match="must begin with https://"):
        log_in_by_hand(Auth("default", "http://accounts.example", "us"), lambda address: "")


# --- logging out ---


def test_logging_out_revokes_both_tokens(login: Login, auth: Auth, provider: Provider) -> None:
    headers = {"Authorization": f"Bearer {login.access_token}"}
    assert httpx.get(f"{auth.host}/me", headers=headers).status_code == 200
    assert log_out(auth).warning is None
    assert httpx.get(f"{auth.host}/me", headers=headers).status_code == 401


def test_a_provider_that_is_gone_does_not_keep_anybody_logged_in(
    ape: Ape, login: Login, auth: Auth, home: Path
) -> None:
    (home / ".silverback/profile.toml").unlink()
    gone = write_profile(home, f"http://127.0.0.1:{free_port()}", "native")
    result = ape("silverback", "logout")
    assert result.returncode == 0
    assert "WARNING: you are logged out here" in result.stderr
    assert "nothing listens at" in result.stderr
    assert result.stdout == f"Logged out of {gone.host}.\n"
    assert not token_file(auth.name).exists()


def test_a_broken_file_is_removed_by_logging_out(auth: Auth) -> None:
    token_file(auth.name).write_text("{")
    done = log_out(auth)
    assert done.was_logged_in
    assert not token_file(auth.name).exists()


# --- the callback ---


def wait_for(found: list[httpx.Response], timeout: float = 10) -> httpx.Response:
    deadline = time.monotonic() + timeout
    while not found and time.monotonic() < deadline:
        time.sleep(0.01)
    return found[0]


def test_the_callback_answers_one_redirect_on_the_loopback_interface_only() -> None:
    pages: list[httpx.Response] = []
    with Callback() as callback:
        port = urlsplit(callback.redirect_uri).port
        assert port
        with pytest.raises(OSError, match=r"refused|unreachable|timed out|assign"):
            socket.create_connection(("127.0.0.2", port), timeout=1)
        assert httpx.get(f"http://127.0.0.1:{port}/favicon.ico").status_code == 404
        silent = socket.create_connection(("127.0.0.1", port))  # browsers open some that they don't use
        address = f"{callback.redirect_uri}?state=s&code=<script>"
        threading.Thread(target=lambda: pages.append(httpx.get(address)), daemon=True).start()
        assert parse_qs(urlsplit(callback.wait(10)).query) == {"state": ["s"], "code": ["<script>"]}
        assert httpx.get(f"{callback.redirect_uri}?state=t").status_code == 410
    page = wait_for(pages)
    assert page.status_code == 200
    assert "Logged in" in page.text
    assert "<script>" not in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    silent.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(callback.redirect_uri)


# --- which authentication ---


def test_the_profile_says_where_to_log_in(home: Path) -> None:
    write_profile(home, "https://one.example", "one")
    write_profile(home, "https://two.example", "two", name="other")
    assert choose_auth(None, {}).host == "https://one.example"
    assert choose_auth("other", {}).host == "https://two.example"
    assert choose_auth(None, {"SILVERBACK_PROFILE": "other"}).host == "https://two.example"


def test_the_only_authentication_is_taken(home: Path) -> None:
    write_profile(home, "https://two.example", "two", name="other")
    assert choose_auth(None, {}) == Auth("other", "https://two.example", "two")
    write_profile(home, "https://three.example", "three", name="third")
    with pytest.raises(ProfileError, match=r"--profile .* has \[auth\] other, third"):
        choose_auth(None, {})


def test_without_a_profile_file_it_is_the_hosted_platform(home: Path) -> None:
    assert choose_auth(None, {}).host == "https://account.apeworx.io"
    assert not (home / ".silverback").exists()


def test_nobody_logs_in_to_a_profile_with_a_key(ape: Ape, auth: Auth, home: Path) -> None:
    with (home / ".silverback/profile.toml").open("a") as file:
        file.write('[profile.direct]\nhost = "http://127.0.0.1:9"\napi-key = "k"\n')
    result = ape("silverback", "login", "--profile", "direct")
    assert result.returncode == 1
    assert "profile 'direct' (option --profile) uses an API key; no login needed" in result.stderr
