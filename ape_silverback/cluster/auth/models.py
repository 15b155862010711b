"""The answers of an OpenID provider, and the errors for all others.

Of an answer, only what OAuth writes for people gets into an error: the rest may hold tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ape_silverback.cluster.auth.tokens import printable
from ape_silverback.cluster.http_errors import first_problem, public_url, read_json
from ape_silverback.exceptions import ClusterError, RateLimited, ServerError, UnexpectedAnswer
from ape_silverback.transport import is_loopback

T = TypeVar("T")


class Metadata(BaseModel):
    """A provider's description of itself (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    revocation_endpoint: str | None = None
    id_token_signing_alg_values_supported: list[str] = Field(default_factory=lambda: ["RS256"])
    code_challenge_methods_supported: list[str] | None = None
    prompt_values_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False


class Answer(BaseModel):
    """A token endpoint's answer (RFC 6749, section 5.1)."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    access_token: str = Field(min_length=1, repr=False)
    token_type: str
    expires_in: int | None = Field(default=None, ge=0, le=10**10, strict=False)
    refresh_token: str | None = Field(default=None, repr=False)
    id_token: str | None = Field(default=None, repr=False)

    def __repr__(self) -> str:
        return "<Answer>"

    def tokens(self) -> dict[str, Any]:
        """Return what is stored of it: everything, and when it ends."""
        end = {} if self.expires_in is None else {"expires_at": int(time.time()) + self.expires_in}
        return {**self.model_dump(exclude_none=True), **end}


class KeySetAnswer(BaseModel):
    """A provider's public keys (RFC 7517, section 5)."""

    keys: list[dict[str, Any]]


class Refusal:
    """An error as OAuth defines it (RFC 6749, sections 4.1.2.1 and 5.2)."""

    def __init__(self, error: str, description: str = "") -> None:
        self.error = error
        self.description = description

    def without(self, secrets: Iterable[str]) -> Refusal:
        """Return it without what we sent, which some providers repeat."""
        description = self.description
        for secret in secrets:
            description = description.replace(secret, "…")
        return Refusal(self.error, description)

    def __str__(self) -> str:
        return printable(f"{self.error}: {self.description}" if self.description else self.error)


def refusal_of(response: httpx.Response) -> Refusal | None:
    """Return the OAuth error of an answer; None if it has none."""
    try:
        content = read_json(response)
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("error"), str):
        return None
    return Refusal(content["error"], str(content.get("error_description") or ""))


def failure_of(response: httpx.Response) -> ClusterError:
    """Return the error for an answer that isn't a success."""
    address, status = public_url(response.request.url), response.status_code
    said = refusal_of(response) or response.reason_phrase
    kind: type[ClusterError] = UnexpectedAnswer
    if status == httpx.codes.TOO_MANY_REQUESTS:
        kind = RateLimited
    elif response.is_server_error:
        kind = ServerError
    text = f"{response.request.method} {address}: {status} {said}".strip()
    return kind(text, method=response.request.method, url=address, status=status)


def read(kind: type[T], response: httpx.Response) -> T:
    """Read an answer as a type; what it holds isn't shown, since it may be a token.

    Raises:
        UnexpectedAnswer: it isn't JSON, or of another type.
    """
    address, method, status = public_url(response.request.url), response.request.method, response.status_code
    try:
        return TypeAdapter(kind).validate_python(read_json(response))
    except ValidationError as error:
        reason = "isn't what an OpenID provider answers: " + printable(first_problem(error))
    except ValueError:
        reason = "isn't JSON"
    raise UnexpectedAnswer(
        f"the answer to {method} {address} {reason}; is it the address of an OpenID provider?",
        method=method,
        url=address,
        status=status,
    )


def is_safe(address: str) -> bool:
    """Return whether what is sent to an address can't be read on the way."""
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        return False
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and is_loopback(url)))
