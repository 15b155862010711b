"""Who may use the server: comparing the secrets that requests bring."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from uuid import UUID

if TYPE_CHECKING:
    from fastapi import FastAPI

Role = Literal["read", "write"]
"""What somebody may do who logged in: look, or change things too."""

SESSION = "session"
"""Name of the platform's cookie."""

NO_KEY = "missing or invalid X-API-Key"
READ_ONLY = "a key with the role 'read' can't change anything"
CROSS_SITE = "the session's cookie isn't accepted from another site"
"""Why a request is refused, in an answer's ``detail``."""


@dataclass(frozen=True)
class Grant:
    """What a key allows.

    Attributes:
        key: the named key that it was; None for the key of the cluster itself.
    """

    role: Role
    key: UUID | None = None


def is_same(given: str | None, wanted: str | None) -> bool:
    """Return whether a request brought the secret that is wanted, in a time that doesn't depend on it."""
    if given is None or wanted is None:
        return False
    return hmac.compare_digest(given.encode("utf8", "surrogatepass"), wanted.encode())


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Return whether a page of another site made the user's browser send a request, with the user's cookie.

    Browsers tell in ``Sec-Fetch-Site``, older ones in ``Origin``; programs send neither.
    """
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def bearer_key(header: str | None) -> str | None:
    """Return the key of an ``Authorization: Bearer`` header, which is how Prometheus brings one."""
    scheme, _, key = (header or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def grant_of_key(app: FastAPI, key: str | None) -> Grant | None:
    """Return what a key allows on a cluster's application; None for one that isn't valid."""
    if is_same(key, app.state.api_key):
        return Grant("write")
    found = app.state.keys.use(key) if key else None
    return Grant(found.role, found.id) if found else None


def role_of_key(app: FastAPI, key: str | None) -> Role | None:
    """Return the role of a key on a cluster's application; None for one that isn't valid."""
    grant = grant_of_key(app, key)
    return grant.role if grant else None
