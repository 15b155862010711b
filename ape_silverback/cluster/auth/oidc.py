"""The client side of OpenID Connect: discovery, the authorization code with PKCE, renewal, revocation, verification.

The rules are those of OpenID Connect Core 1.0 and Discovery 1.0, RFC 6749 (OAuth 2.0), RFC 7636 (PKCE), RFC 7009
(revocation), RFC 9207 (issuer of an answer) and RFC 8252 (native apps). Authlib and joserfc do the protocol's
encodings, signatures and claims. Nothing that a provider answers is trusted unchecked.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx

from ape_silverback.cluster.auth.models import (
    Answer,
    KeySetAnswer,
    Metadata,
    Refusal,
    T,
    failure_of,
    is_safe,
    read,
    refusal_of,
)
from ape_silverback.cluster.auth.tokens import LOG_IN, printable
from ape_silverback.cluster.base_client import DEFAULT_TIMEOUT, USER_AGENT, ApiClient
from ape_silverback.cluster.http_errors import mapped_errors, public_url
from ape_silverback.exceptions import ClusterError, LoginFailed, ProfileError, Unauthorized, UnexpectedAnswer
from ape_silverback.transport import Transport, deadline

if TYPE_CHECKING:
    from types import TracebackType

    from joserfc.jwk import KeySet
    from typing_extensions import Self

SCOPE = "openid offline_access profile"
"""The public SDK's scope: a registration may allow no other."""

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})
"""Signatures that are accepted: those that need the provider's private key."""

CLOCK_SKEW = 60
"""Seconds by which the provider's clock may be wrong."""


@dataclass(frozen=True)
class Attempt:
    """A login that has begun.

    Attributes:
        address: where the user logs in.
        redirect_uri: where the provider sends the browser back to.
        state: what the redirect must bring back.
        nonce: what the ID token must hold.
        verifier: proves to the provider that the login ends where it began.
    """

    address: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


class Provider:
    """An OpenID provider, and us as one of its public clients. A context, which holds connections.

    Args:
        host: its address, ``host`` of ``[auth.NAME]``.
        client_id: how it knows us.

    Raises:
        ProfileError: the address isn't a safe one.
        UnexpectedAnswer: its description isn't a provider's.
        ConnectionFailed: it can't be reached.
    """

    def __init__(self, host: str, client_id: str) -> None:
        self.host = host.rstrip("/")
        self.client_id = client_id
        if not is_safe(self.host):
            raise ProfileError(
                f"{printable(host)} isn't a safe place to log in: `host` of [auth.…] must begin with https://"
            )
        self._client = ApiClient(headers={"Accept": "application/json"})
        try:
            self.metadata = self._discover()
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def _discover(self) -> Metadata:
        address = f"{self.host}/.well-known/openid-configuration"
        found = self._get(Metadata, address)
        if found.issuer.rstrip("/") != self.host:
            raise UnexpectedAnswer(
                f"{address} describes another issuer, {printable(found.issuer)}; "
                "if the provider has moved, correct `host` of [auth.…]",
                url=address,
            )
        for name, value in found:
            if name.endswith(("_endpoint", "_uri")) and value is not None and not is_safe(value):
                raise UnexpectedAnswer(f"{address}: {name} must begin with https://", url=address)
        if found.code_challenge_methods_supported is not None and "S256" not in found.code_challenge_methods_supported:
            raise UnexpectedAnswer(f"{self.host} doesn't support PKCE with S256, without which a login isn't safe")
        return found

    def begin(self, redirect_uri: str) -> Attempt:
        """Begin a login, which the user continues at the attempt's address."""
        # An offline_access without prompt=consent is ignored (OpenID Connect Core 1.0, section 11).
        known = self.metadata.prompt_values_supported
        return self._attempt(redirect_uri, prompt="consent" if known is None or "consent" in known else None)

    def allows(self, redirect_uri: str) -> bool:
        """Return whether the provider would send the browser to an address.

        Many allow any port of the loopback interface (RFC 8252, section 7.3), but none announces it. A login
        without any user (``prompt=none``) is sent back with an error at once: to an address that is allowed.
        """
        probe = self._attempt(redirect_uri, prompt="none")
        request = httpx.Request("GET", probe.address, headers={"User-Agent": USER_AGENT})
        try:
            with (
                mapped_errors(request),
                httpx.Client(transport=Transport(), timeout=DEFAULT_TIMEOUT) as client,
                deadline(self._client.retries.deadline),
            ):
                answer = client.send(request, follow_redirects=False)
        except ClusterError:
            return False
        there: str = answer.headers.get("Location", "")
        return there.startswith(f"{redirect_uri}?")

    def _attempt(self, redirect_uri: str, prompt: str | None) -> Attempt:
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        address = prepare_grant_uri(
            self.metadata.authorization_endpoint,
            self.client_id,
            "code",
            redirect_uri,
            SCOPE,
            state,
            nonce=nonce,
            prompt=prompt,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return Attempt(address, redirect_uri, state, nonce, verifier)

    def finish(self, attempt: Attempt, redirect: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Finish a login with the redirect that it led to.

        Args:
            attempt: what began it.
            redirect: the address to which the browser was sent.

        Returns:
            Claims about the user, and the tokens.

        Raises:
            LoginFailed: the provider refused, or the redirect belongs to another login.
            UnexpectedAnswer: the tokens don't verify.
        """
        code = self._code(attempt, redirect)
        answer = self._ask_tokens(
            "authorization_code", code=code, redirect_uri=attempt.redirect_uri, code_verifier=attempt.verifier
        )
        if isinstance(answer, Refusal):
            raise LoginFailed(f"{self.host} refused the login: {answer}")
        if answer.id_token is None:
            raise UnexpectedAnswer(f"the answer of {self.host} has no ID token")
        claims = self.verify(answer.id_token, self.keys(), access_token=answer.access_token, nonce=attempt.nonce)
        return claims, answer.tokens()

    def _code(self, attempt: Attempt, redirect: str) -> str:
        """Return the code of a redirect, if that is the attempt's."""
        try:
            query = parse_qs(urlsplit(redirect.strip()).query, max_num_fields=50)
        except ValueError:
            query = {}
        # A parameter that comes twice doesn't count (RFC 6749, section 3.1).
        answer = {name: values[0] for name, values in query.items() if len(values) == 1}
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise LoginFailed(
                "the redirect belongs to another login (its state isn't ours); nothing was stored, try again"
            )
        issuer = answer.get("iss")
        expected = self.metadata.authorization_response_iss_parameter_supported
        if (issuer is not None or expected) and issuer != self.metadata.issuer:
            raise LoginFailed(f"the redirect isn't from {self.host} (it names another issuer); nothing was stored")
        if error := answer.get("error"):
            said = Refusal(error, answer.get("error_description", ""))
            raise LoginFailed(f"{self.host} refused the login: {said}")
        if not (code := answer.get("code")):
            raise LoginFailed(f"the redirect of {self.host} has no code; nothing was stored, try again")
        return code

    def refresh(self, refresh_token: str, subject: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Renew the tokens.

        Args:
            refresh_token: what renews them; many providers accept one only once.
            subject: whose login it is, ``sub``.

        Returns:
            Claims about the user, empty where the provider has none, and the new tokens.

        Raises:
            Unauthorized: the provider refused.
            UnexpectedAnswer: the tokens don't verify.
        """
        answer = self._ask_tokens("refresh_token", refresh_token=refresh_token)
        if isinstance(answer, Refusal):
            raise Unauthorized(f"the login has ended: {self.host} doesn't renew it ({answer}); {LOG_IN} again")
        claims: dict[str, Any] = {}
        if answer.id_token is not None:
            claims = self.verify(answer.id_token, self.keys(), access_token=answer.access_token)
            if subject is not None and claims["sub"] != subject:
                raise UnexpectedAnswer(f"{self.host} renewed the login for another user; {LOG_IN} again")
        return claims, answer.tokens()

    def revoke(self, token: str, kind: str) -> None:
        """Revoke a token, where the provider offers that (RFC 7009).

        Args:
            token: the token.
            kind: ``refresh_token`` or ``access_token``.

        Raises:
            ClusterError: it failed.
        """
        if self.metadata.revocation_endpoint is None:
            return
        from authlib.oauth2.rfc7009 import prepare_revoke_token_request

        body, headers = prepare_revoke_token_request(token, kind, f"client_id={self.client_id}")
        request = self._client.build_request("POST", self.metadata.revocation_endpoint, content=body, headers=headers)
        response = self._client.send(request)
        if response.is_success:
            return
        # Many a provider can't revoke an access token that is a JWT; it ends by itself (RFC 7009, section 2.2.1).
        if (refusal := refusal_of(response)) is None or refusal.error != "unsupported_token_type":
            raise failure_of(response)

    def userinfo(self, access_token: str, subject: str) -> dict[str, Any]:
        """Return claims about the user, empty where the provider offers none.

        Raises:
            ClusterError: no answer, or one that isn't a success.
            UnexpectedAnswer: it answered about another user.
        """
        if self.metadata.userinfo_endpoint is None:
            return {}
        headers = {"Authorization": f"Bearer {access_token}"}
        claims = self._get(dict[str, Any], self.metadata.userinfo_endpoint, headers=headers)
        if claims.get("sub") != subject:
            raise UnexpectedAnswer(
                f"{public_url(httpx.URL(self.metadata.userinfo_endpoint))} answered about another user"
            )
        return claims

    def keys(self) -> KeySet:
        """Return the keys with which the provider signs now.

        Raises:
            ClusterError: no answer, or one without a usable key.
        """
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        answer = self._get(KeySetAnswer, self.metadata.jwks_uri)
        asymmetric = [key for key in answer.keys if key.get("kty") in ("RSA", "EC")]
        try:
            found: KeySet = KeySet.import_key_set({"keys": asymmetric})
        except (JoseError, ValueError, TypeError, KeyError):
            raise UnexpectedAnswer(f"{public_url(httpx.URL(self.metadata.jwks_uri))} has no usable keys") from None
        return found

    def verify(
        self,
        id_token: str,
        keys: KeySet,
        access_token: str | None = None,
        nonce: str | None = None,
        when_issued: bool = False,
    ) -> dict[str, Any]:
        """Verify an ID token: signature, issuer, audience, expiry, nonce (OpenID Connect Core 1.0, section 3.1.3.7).

        Args:
            id_token: the token.
            keys: the provider's.
            access_token: the one that came with it, whose hash it may hold.
            nonce: the one that it must hold.
            when_issued: for a stored one, whether it is enough that it was valid when it was issued.

        Returns:
            Its claims.

        Raises:
            UnexpectedAnswer: it isn't valid; the text names the reason.
        """
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import InvalidClaimError, JoseError
        from joserfc.jws import JWSRegistry

        allowed = sorted(ALGORITHMS.intersection(self.metadata.id_token_signing_alg_values_supported))
        try:
            if not allowed:
                raise ValueError("none of the provider's signatures is accepted")
            token = jwt.decode(
                id_token, keys, allowed, registry=JWSRegistry(algorithms=allowed, strict_check_header=False)
            )
            expected = {"iss": self.metadata.issuer, "aud": self.client_id}
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={name: {"essential": True, "value": value} for name, value in expected.items()},
                params={"client_id": self.client_id, "nonce": nonce, "access_token": access_token},
            )
            claims.validate(now=token.claims.get("iat") if when_issued else None, leeway=CLOCK_SKEW)
            if not isinstance(claims["sub"], str):  # not every version of the libraries looks
                raise InvalidClaimError("sub")
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            reason = printable(str(error)) if isinstance(error, JoseError) else "it is broken"
            raise UnexpectedAnswer(f"the ID token of {self.host} isn't valid ({reason})") from None
        return dict(claims)

    def _ask_tokens(self, grant_type: str, **parameters: str) -> Answer | Refusal:
        from authlib.oauth2.rfc6749.parameters import prepare_token_request

        body = prepare_token_request(grant_type, client_id=self.client_id, **parameters)
        request = self._client.build_request(
            "POST",
            self.metadata.token_endpoint,
            content=body,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        response = self._client.send(request)
        if response.is_client_error and (refusal := refusal_of(response)):
            return refusal.without(parameters.values())
        if not response.is_success:
            raise failure_of(response)
        answer = read(Answer, response)
        if answer.token_type.lower() != "bearer":
            raise UnexpectedAnswer(f"the answer of {public_url(request.url)} isn't a bearer token")
        return answer

    def _get(self, kind: type[T], address: str, headers: Mapping[str, str] | None = None) -> T:
        response = self._client.send(self._client.build_request("GET", address, headers=headers))
        if not response.is_success:
            raise failure_of(response)
        return read(kind, response)
