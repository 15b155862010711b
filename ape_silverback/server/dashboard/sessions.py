"""Who is logged in to the dashboard, and one-time links that log somebody in; a new server forgets both."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ape_silverback.server.authentication import Role

COOKIE = "silverback-dashboard"
SESSION_LIFE = 12 * 3600.0
"""Seconds after which somebody has to log in again."""

LINK_LIFE = 60.0
"""Seconds in which a one-time link has to be opened."""

MOST = 1000
"""Sessions, and links, that are kept; the oldest give way."""


@dataclass
class _Tokens:
    """Random tokens, each with a role and an end, kept as their digests."""

    life: float
    clock: Callable[[], float]
    _ends: dict[str, tuple[Role, float]] = field(default_factory=dict)

    def new(self, role: Role) -> str:
        now = self.clock()
        self._ends = {key: kept for key, kept in self._ends.items() if kept[1] > now}
        while len(self._ends) >= MOST:
            del self._ends[next(iter(self._ends))]
        token = secrets.token_urlsafe(32)
        self._ends[_digest(token)] = (role, now + self.life)
        return token

    def role(self, token: str, *, take: bool = False) -> Role | None:
        key = _digest(token)
        role, end = self._ends.get(key, (None, 0.0))
        if take:
            self._ends.pop(key, None)
        return role if end > self.clock() else None


class Sessions:
    """Sessions and one-time links of one cluster's dashboard.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._sessions = _Tokens(SESSION_LIFE, clock)
        self._links = _Tokens(LINK_LIFE, clock)

    def open(self, role: Role) -> str:
        """Open a session and return what its cookie holds."""
        with self._lock:
            return self._sessions.new(role)

    def close(self, token: str) -> None:
        """Close a session."""
        with self._lock:
            self._sessions.role(token, take=True)

    def role_of(self, token: str | None) -> Role | None:
        """Return what a session allows; None for one that isn't open."""
        with self._lock:
            return self._sessions.role(token) if token else None

    def new_link(self, role: Role) -> str:
        """Return a token that opens one session, soon."""
        with self._lock:
            return self._links.new(role)

    def use_link(self, token: str) -> Role | None:
        """Return what a link allows, once; None for one that was used or is too old."""
        with self._lock:
            return self._links.role(token, take=True)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf8", "surrogatepass")).hexdigest()
