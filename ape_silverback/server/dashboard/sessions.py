"""Who is logged in to the dashboard, and one-time links that log somebody in; a new server forgets both."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import Request

from ape_silverback.server.authentication import Grant, Role

COOKIE = "silverback-dashboard"
SESSION_LIFE = 12 * 3600.0
"""Seconds after which somebody has to log in again."""

LINK_LIFE = 60.0
"""Seconds in which a one-time link has to be opened."""

MOST = 1000
"""Sessions, and links, that are kept; the oldest give way."""


@dataclass
class _Tokens:
    """Random tokens, each with what it allows and an end, kept as their digests."""

    life: float
    clock: Callable[[], float]
    _ends: dict[str, tuple[Grant, float]] = field(default_factory=dict)

    def new(self, grant: Grant) -> str:
        now = self.clock()
        self._ends = {key: kept for key, kept in self._ends.items() if kept[1] > now}
        while len(self._ends) >= MOST:
            del self._ends[next(iter(self._ends))]
        token = secrets.token_urlsafe(32)
        self._ends[_digest(token)] = (grant, now + self.life)
        return token

    def grant(self, token: str, *, take: bool = False) -> Grant | None:
        key = _digest(token)
        grant, end = self._ends.get(key, (None, 0.0))
        if take:
            self._ends.pop(key, None)
        return grant if end > self.clock() else None


class Sessions:
    """Sessions and one-time links of one cluster's dashboard.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._sessions = _Tokens(SESSION_LIFE, clock)
        self._links = _Tokens(LINK_LIFE, clock)

    def open(self, grant: Grant) -> str:
        """Open a session and return what its cookie holds."""
        with self._lock:
            return self._sessions.new(grant)

    def close(self, token: str) -> None:
        """Close a session."""
        with self._lock:
            self._sessions.grant(token, take=True)

    def grant_of(self, token: str | None) -> Grant | None:
        """Return what a session allows; None for one that isn't open."""
        with self._lock:
            return self._sessions.grant(token) if token else None

    def new_link(self, grant: Grant) -> str:
        """Return a token that opens one session, soon."""
        with self._lock:
            return self._links.new(grant)

    def use_link(self, token: str) -> Grant | None:
        """Return what a link allows, once; None for one that was used or is too old."""
        with self._lock:
            return self._links.grant(token, take=True)


def role_of(request: Request) -> Role | None:
    """Return what somebody may do whose browser sent a request; None for one who isn't logged in, or not any more."""
    grant: Grant | None = request.app.state.dashboard.grant_of(request.cookies.get(COOKIE))
    return grant.role if grant and is_valid(request, grant) else None


def is_valid(request: Request, grant: Grant) -> bool:
    """Return whether the key by which somebody logged in wasn't revoked since."""
    return grant.key is None or bool(request.app.state.keys.has(grant.key))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf8", "surrogatepass")).hexdigest()
