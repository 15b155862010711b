"""The session that a login gives on the platform: a cookie that renews itself, once for all clients of the process."""

from __future__ import annotations

import threading
from collections.abc import Generator

import httpx

from ape_silverback.cluster.auth.login import read_access_token, renew_access_token
from ape_silverback.exceptions import ClusterError, Unauthorized

COOKIE = "session"

_sessions: dict[str, PlatformSession] = {}
_sessions_lock = threading.Lock()


class PlatformSession(httpx.Auth):
    """Sends the access token of a login as the platform's cookie.

    The token is renewed when it is about to end, and once when the platform refuses it although it lasts.

    Args:
        auth: name of the authentication in the profile file.
    """

    def __init__(self, auth: str) -> None:
        self.auth = auth
        self._lock = threading.Lock()

    @classmethod
    def of(cls, auth: str) -> PlatformSession:
        """Return the process's one session for an authentication."""
        with _sessions_lock:
            return _sessions.setdefault(auth, cls(auth))

    def access_token(self) -> str:
        """Return the token, renewed if it is about to end.

        Raises:
            Unauthorized: not logged in, or the login has ended.
            ClusterError: the provider can't be reached.
        """
        with self._lock:
            return read_access_token(self.auth)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the cookie; after a 401, renew the token and send it again."""
        token = self.access_token()
        _set_cookie(request, token)
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        try:
            with self._lock:  # after waiting for another thread's renewal, that one is in the file
                renewed = renew_access_token(self.auth, token)
        except Unauthorized:
            raise
        except ClusterError:
            return  # the 401 is more useful than a provider that can't be reached
        if renewed != token:
            _set_cookie(request, renewed)
            yield request


def _set_cookie(request: httpx.Request, token: str) -> None:
    pairs = [pair.strip() for pair in request.headers.get("Cookie", "").split(";")]
    others = [pair for pair in pairs if pair and pair.partition("=")[0] != COOKIE]
    request.headers["Cookie"] = "; ".join([*others, f"{COOKIE}={token}"])
