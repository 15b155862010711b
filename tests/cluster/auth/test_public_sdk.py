"""Who is logged in with the public SDK is logged in here, and the other way round: its own code reads and writes."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs, urlsplit

import pytest
from silverback.cluster.auth import Auth as SDKAuth
from silverback.cluster.auth import AuthClient
from silverback.cluster.utils import get_code_challenge, get_code_verifier

from ape_silverback.cluster.auth.login import Auth, log_in_by_hand, log_out, read_access_token, who_am_i
from ape_silverback.cluster.auth.tokens import read_login, token_file
from tests.cluster.auth import browser
from tests.cluster.auth.conftest import USER, Provider, stored, write_profile


@pytest.fixture
def auth(provider: Provider, home: object) -> Auth:
    """The public SDK reads access tokens, so they have to be JWTs."""
    return write_profile(home, provider.issuer, "jwt")  # type: ignore[arg-type]


def sdk(auth: Auth) -> SDKAuth:
    return SDKAuth(AuthClient(auth.host, auth.client_id), str(token_file(auth.name)))


def log_in_with_the_sdk(auth: Auth) -> SDKAuth:
    """What the SDK's ``authorize`` does, without its one port that only one test may listen on."""
    theirs = sdk(auth)
    verifier = get_code_verifier()
    redirect_uri = "http://localhost:51562/callback"
    address = theirs.client.auth_url(
        redirect_uri,
        scope=["openid", "offline_access", "profile"],
        code_challenge=get_code_challenge(verifier),
        code_challenge_method="S256",
        # This provider gives a refresh token only after it asked for consent, which the SDK doesn't ask it to.
        extras_params={"state": secrets.token_urlsafe(), "prompt": "consent"},
    )
    code = parse_qs(urlsplit(browser.log_in(address, USER)).query)["code"][0]
    tokens, userinfo = theirs.client.auth_callback(code, redirect_uri, code_verifier=verifier)
    theirs._save_credentials(tokens, userinfo)
    return theirs


def test_the_sdk_reads_what_we_wrote(auth: Auth) -> None:
    login = log_in_by_hand(auth, lambda address: browser.log_in(address, USER))
    theirs = sdk(auth)
    assert theirs.current_user()["sub"] == USER
    assert theirs.current_user()["preferred_username"] == f"name-of-{USER}"
    info = theirs.access_token_info()
    assert info["access_token"] == login.access_token
    assert str(info["id"]) == USER


def test_the_sdk_renews_what_we_wrote_and_we_read_that(auth: Auth) -> None:
    login = log_in_by_hand(auth, lambda address: browser.log_in(address, USER))
    sdk(auth)._refresh_access_token()
    assert read_access_token(auth.name) == stored(auth)["tokens"]["access_token"] != login.access_token
    assert who_am_i(auth).userinfo["sub"] == USER
    assert token_file(auth.name).stat().st_mode & 0o777 == 0o600


def test_we_read_verify_renew_and_revoke_what_the_sdk_wrote(auth: Auth, provider: Provider) -> None:
    theirs = log_in_with_the_sdk(auth)
    there = stored(auth)["tokens"]
    assert "expires_at" not in there
    assert read_access_token(auth.name) == there["access_token"]
    login = who_am_i(auth)
    assert login.user in (USER, f"{USER}@example.test")
    assert login.expires == pytest.approx(read_login(auth.name).expires)
    assert login.lasts(3000)

    ended = stored(auth)
    ended["tokens"]["expires_at"] = 1
    theirs._save_credentials(ended["tokens"], ended["userinfo"])
    assert read_access_token(auth.name) != there["access_token"]
    assert sdk(auth).access_token_info()["access_token"] == read_access_token(auth.name)

    assert log_out(auth).warning is None
    assert provider.counts()["revoked"]


def test_the_sdk_knows_nobody_after_we_logged_out(auth: Auth) -> None:
    from silverback.cluster.auth import NotAuthenticatedError

    log_in_with_the_sdk(auth)
    assert log_out(auth).was_logged_in
    with pytest.raises(NotAuthenticatedError):
        sdk(auth).current_user()


def test_the_redirect_is_the_one_that_the_sdk_is_registered_with() -> None:
    import inspect

    from ape_silverback.cluster.auth.callback import redirect_uri
    from ape_silverback.cluster.auth.login import REGISTERED_PORT

    known = inspect.signature(SDKAuth.authorize).parameters
    host, port = known["server_address"].default
    assert redirect_uri(REGISTERED_PORT) == f"http://{host}:{port}{known['redirect_path'].default}"
