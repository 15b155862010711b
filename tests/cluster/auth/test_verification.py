"""A provider that lies: no answer of it is believed unchecked, stored, or shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from ape_silverback.cluster.auth.login import Auth, log_in_by_hand, read_access_token, who_am_i
from ape_silverback.cluster.auth.tokens import token_file
from ape_silverback.exceptions import (
    ClusterError,
    LoginFailed,
    RateLimited,
    RedirectRefused,
    ServerError,
    Unauthorized,
    UnexpectedAnswer,
)
from tests.cluster.auth.conftest import USER, Impostor, let_it_end, stored
from tests.conftest import Ape

Lie = Callable[[Impostor], None]


def fails(false_auth: Auth, impostor: Impostor, kind: type[ClusterError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        log_in_by_hand(false_auth, impostor.ask)
    assert type(caught.value) is kind
    assert "SECRET" not in str(caught.value) + repr(caught.value)
    assert not token_file(false_auth.name).exists()


def test_without_a_lie_it_is_a_provider_like_any_other(false_auth: Auth, impostor: Impostor) -> None:
    login = log_in_by_hand(false_auth, impostor.ask)
    assert login.user == USER
    assert stored(false_auth)["tokens"]["access_token"] == "SECRET-ACCESS"
    assert "SECRET" not in repr(login)
    assert who_am_i(false_auth).user == USER


def test_a_login_with_elliptic_curves(false_auth: Auth, impostor: Impostor) -> None:
    from joserfc.jwk import ECKey

    impostor.signing_key = ECKey.generate_key("P-256", parameters={"kid": "curve"})
    impostor.published_keys += [impostor.signing_key.as_dict(private=False), {"kty": "from the future"}]
    impostor.header = {"alg": "ES256", "kid": "curve"}
    impostor.discovery = {"id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"]}
    assert log_in_by_hand(false_auth, impostor.ask).user == USER


HOUR = 3600

CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"iss": "https://other.example"}, "iss"),
    "no issuer": ({"iss": None}, "iss"),
    "another audience": ({"aud": "somebody else"}, "aud"),
    "no audience": ({"aud": None}, "aud"),
    "more audiences, for another": ({"aud": ["us", "them"], "azp": "them"}, "azp"),
    "more audiences, for nobody": ({"aud": ["us", "them"]}, "azp"),
    "expired": ({"iat": int(time.time()) - 2 * HOUR, "exp": int(time.time()) - HOUR}, "expired"),
    "endless": ({"exp": None}, "exp"),
    "from the future": ({"iat": int(time.time()) + HOUR, "exp": int(time.time()) + 2 * HOUR}, "future"),
    "another nonce": ({"nonce": "x"}, "nonce"),
    "no nonce": ({"nonce": None}, "nonce"),
    "no subject": ({"sub": None}, "sub"),
    "a subject that is no text": ({"sub": 7}, "sub"),
    "for another access token": ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "at_hash"),
    "a hash that is no text": ({"at_hash": ["x"]}, "isn't valid"),
    "an expiry that is no number": ({"exp": "soon"}, "exp"),
}


@pytest.mark.parametrize(("claims", "match"), CLAIMS.values(), ids=CLAIMS)
def test_an_id_token_is_not_believed(false_auth: Auth, impostor: Impostor, claims: dict[str, Any], match: str) -> None:
    impostor.claims = claims
    fails(false_auth, impostor, UnexpectedAnswer, f"the ID token of http://127.0.0.1:.*{match}")


def test_a_signature_of_a_stranger(false_auth: Auth, impostor: Impostor, keys: dict[str, Any]) -> None:
    impostor.signing_key = keys["stranger"]
    fails(false_auth, impostor, UnexpectedAnswer, "bad_signature")


def test_a_key_that_is_not_the_providers(false_auth: Auth, impostor: Impostor) -> None:
    impostor.header = {"kid": "two"}
    fails(false_auth, impostor, UnexpectedAnswer, "No key for kid")


def test_a_signature_that_anybody_can_make_with_the_public_key(
    false_auth: Auth, impostor: Impostor, keys: dict[str, Any]
) -> None:
    from joserfc.jwk import OctKey

    public = keys["one"].as_dict(private=False)
    impostor.signing_key = OctKey.import_key(public["n"])
    impostor.header = {"alg": "HS256"}
    impostor.published_keys = [public, {"kty": "oct", "k": public["n"], "kid": "one"}]
    impostor.discovery = {"id_token_signing_alg_values_supported": ["RS256", "HS256"]}
    fails(false_auth, impostor, UnexpectedAnswer, "'HS256' is not allowed")


def test_no_signature_at_all(false_auth: Auth, impostor: Impostor) -> None:
    signed = impostor.id_token().split(".")
    impostor.answer = {"id_token": f"eyJhbGciOiJub25lIn0.{signed[1]}."}
    impostor.discovery = {"id_token_signing_alg_values_supported": ["RS256", "none"]}
    fails(false_auth, impostor, UnexpectedAnswer, "'none' is not allowed")


def test_a_provider_that_only_signs_weakly(false_auth: Auth, impostor: Impostor) -> None:
    impostor.discovery = {"id_token_signing_alg_values_supported": ["HS256"]}
    fails(false_auth, impostor, UnexpectedAnswer, "isn't valid")


ANSWERS: dict[str, tuple[Lie, type[ClusterError], str]] = {
    "no ID token": (lambda one: one.answer.update(id_token=None), UnexpectedAnswer, "no ID token"),
    "a broken ID token": (lambda one: one.answer.update(id_token="SECRET.x.y"), UnexpectedAnswer, "isn't valid"),
    "no access token": (lambda one: one.answer.update(access_token=None), UnexpectedAnswer, "access_token"),
    "a token of numbers": (lambda one: one.answer.update(access_token=7), UnexpectedAnswer, "access_token"),
    "a token of another type": (lambda one: one.answer.update(token_type="mac"), UnexpectedAnswer, "bearer"),
    "an endless lifetime": (lambda one: one.answer.update(expires_in=10**400), UnexpectedAnswer, "expires_in"),
    "a negative lifetime": (lambda one: one.answer.update(expires_in=-1), UnexpectedAnswer, "expires_in"),
    "a form": (lambda one: one.raw.update({"/token": b"access_token=SECRET"}), UnexpectedAnswer, "isn't JSON"),
    "HTML": (lambda one: one.raw.update({"/token": b"<html>SECRET"}), UnexpectedAnswer, "isn't JSON"),
    "half": (lambda one: one.raw.update({"/token": b'{"access_token": "SECRET'}), UnexpectedAnswer, "isn't JSON"),
    "no text": (lambda one: one.raw.update({"/token": b"\xff\xfe\xfd"}), UnexpectedAnswer, "isn't JSON"),
    "a list": (lambda one: one.raw.update({"/token": b'["SECRET"]'}), UnexpectedAnswer, "the answer"),
    "very deep": (lambda one: one.raw.update({"/token": b"[" * 100_000}), UnexpectedAnswer, "isn't JSON"),
    "an error": (lambda one: one.status.update({"/token": 500}), ServerError, "500"),
    "too many": (lambda one: one.status.update({"/token": 429}), RateLimited, "429"),
    "an unknown error": (lambda one: one.status.update({"/token": 418}), UnexpectedAnswer, "418"),
    "another place": (
        lambda one: (one.status.update({"/token": 307}), one.redirect.update({"/token": "http://127.0.0.2:9/"}))[0],
        RedirectRefused,
        "was redirected to http://127.0.0.2:9/",
    ),
    "keys in HTML": (lambda one: one.raw.update({"/jwks": b"<html>"}), UnexpectedAnswer, "isn't JSON"),
    "no keys": (lambda one: one.raw.update({"/jwks": b'{"keys": []}'}), UnexpectedAnswer, "no usable keys"),
    "broken keys": (
        lambda one: one.raw.update({"/jwks": b'{"keys": [{"kty": "RSA", "n": 1}]}'}),
        UnexpectedAnswer,
        "no usable keys",
    ),
}


@pytest.mark.parametrize(("lie", "kind", "match"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_not_what_it_should_be(
    false_auth: Auth, impostor: Impostor, lie: Lie, kind: type[ClusterError], match: str
) -> None:
    lie(impostor)
    fails(false_auth, impostor, kind, match)


DISCOVERY: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"issuer": "https://other.example"}, "another issuer, https://other.example"),
    "no issuer": ({"issuer": None}, "issuer"),
    "tokens in the open": ({"token_endpoint": "http://other.example/token"}, "token_endpoint must begin with https"),
    "keys in the open": ({"jwks_uri": "http://other.example/jwks"}, "jwks_uri must begin with https"),
    "a login in the open": ({"authorization_endpoint": "http://other.example/"}, "authorization_endpoint must"),
    "a login that is a file": ({"authorization_endpoint": "file:///etc/passwd"}, "authorization_endpoint must"),
    "a login that is code": ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint must"),
    "no PKCE": ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
}


@pytest.mark.parametrize(("discovery", "match"), DISCOVERY.values(), ids=DISCOVERY)
def test_a_provider_that_describes_itself_wrongly(
    false_auth: Auth, impostor: Impostor, discovery: dict[str, Any], match: str
) -> None:
    impostor.discovery = discovery
    fails(false_auth, impostor, UnexpectedAnswer, match)
    assert "/token" not in impostor.asked


def test_a_description_in_html(false_auth: Auth, impostor: Impostor, ape: Ape) -> None:
    impostor.raw["/.well-known/openid-configuration"] = b"<html>Not here"
    result = ape("silverback", "login", "--no-browser")
    assert result.returncode == 1
    assert "isn't JSON; is it the address of an OpenID provider?" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_a_provider_says_can_not_do_anything_to_the_terminal(false_auth: Auth, impostor: Impostor) -> None:
    def refuse(address: str) -> str:
        return impostor.ask(address, error="access\x1b[2Jdenied", error_description="\r\nx" * 1000)

    with pytest.raises(LoginFailed) as caught:
        log_in_by_hand(false_auth, refuse)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_provider_that_repeats_what_we_sent_does_not_get_it_shown(false_auth: Auth, impostor: Impostor) -> None:
    impostor.status["/token"] = 400
    impostor.raw["/token"] = b'{"error": "invalid_grant", "error_description": "SECRET-CODE is not known"}'
    fails(false_auth, impostor, LoginFailed, "invalid_grant: … is not known")


def test_an_issuer_is_missed_where_it_was_promised(false_auth: Auth, impostor: Impostor) -> None:
    impostor.discovery = {"authorization_response_iss_parameter_supported": True}
    fails(false_auth, impostor, LoginFailed, "it names another issuer")
    assert log_in_by_hand(false_auth, lambda address: impostor.ask(address, iss=impostor.issuer)).user == USER


def test_a_parameter_that_comes_twice_is_none(false_auth: Auth, impostor: Impostor) -> None:
    with pytest.raises(LoginFailed, match="state isn't ours"):
        log_in_by_hand(false_auth, lambda address: f"{impostor.ask(address)}&state=x")


def test_a_name_from_the_user_endpoint_is_that_of_the_same_user(false_auth: Auth, impostor: Impostor) -> None:
    impostor.discovery = {"userinfo_endpoint": f"{impostor.issuer}/me"}
    impostor.raw["/me"] = b'{"sub": "another", "email": "another@example.test"}'
    assert log_in_by_hand(false_auth, impostor.ask).user == USER
    impostor.raw["/me"] = b'{"sub": "%s", "email": "us@example.test"}' % USER.encode()
    assert log_in_by_hand(false_auth, impostor.ask).user == "us@example.test"


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("http://localhost:1/callback?error=login_required", True),
        ("http://localhost:2/callback?error=login_required", False),
        ("http://127.0.0.1:3/login", False),
        (None, False),
    ],
)
def test_a_redirect_is_allowed_when_the_provider_goes_there(
    false_auth: Auth, impostor: Impostor, location: str | None, allowed: bool
) -> None:
    if location:
        impostor.status["/authorize"] = 302
        impostor.redirect["/authorize"] = location
    with false_auth.provider() as provider:
        assert provider.allows("http://localhost:1/callback") is allowed


# --- renewal ---


def test_a_renewal_for_another_user_is_not_stored(false_auth: Auth, impostor: Impostor) -> None:
    log_in_by_hand(false_auth, impostor.ask)
    let_it_end(false_auth)
    before = token_file(false_auth.name).read_bytes()
    impostor.claims = {"sub": "another"}
    with pytest.raises(UnexpectedAnswer, match="for another user"):
        read_access_token(false_auth.name)
    assert token_file(false_auth.name).read_bytes() == before


def test_a_renewal_with_a_false_signature_is_not_stored(
    false_auth: Auth, impostor: Impostor, keys: dict[str, Any]
) -> None:
    log_in_by_hand(false_auth, impostor.ask)
    let_it_end(false_auth)
    before = token_file(false_auth.name).read_bytes()
    impostor.signing_key = keys["stranger"]
    with pytest.raises(UnexpectedAnswer, match="bad_signature"):
        read_access_token(false_auth.name)
    assert token_file(false_auth.name).read_bytes() == before


def test_a_renewal_may_bring_only_an_access_token(false_auth: Auth, impostor: Impostor) -> None:
    log_in_by_hand(false_auth, impostor.ask)
    let_it_end(false_auth)
    impostor.answer = {"access_token": "SECRET-NEW", "refresh_token": None, "id_token": None, "expires_in": 600}
    assert read_access_token(false_auth.name) == "SECRET-NEW"
    assert stored(false_auth)["tokens"]["refresh_token"] == "SECRET-REFRESH"
    assert who_am_i(false_auth).user == USER


def test_who_am_i_does_not_believe_a_file_that_the_provider_did_not_sign(
    false_auth: Auth, impostor: Impostor, keys: dict[str, Any], ape: Ape
) -> None:
    log_in_by_hand(false_auth, impostor.ask)
    impostor.published_keys = [keys["stranger"].as_dict(private=False)]
    with pytest.raises(Unauthorized, match=r"can't be trusted.*log in with `ape silverback login` again"):
        who_am_i(false_auth)
    result = ape("silverback", "whoami")
    assert result.returncode == 1
    assert "can't be trusted" in result.stderr
