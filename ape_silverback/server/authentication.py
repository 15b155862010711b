"""Who may use the server: comparing the secrets that requests bring."""

from __future__ import annotations

import hmac

SESSION = "session"
"""Name of the platform's cookie."""


def is_same(given: str | None, wanted: str | None) -> bool:
    """Return whether a request brought the secret that is wanted, in a time that doesn't depend on it."""
    if given is None or wanted is None:
        return False
    return hmac.compare_digest(given.encode("utf8", "surrogatepass"), wanted.encode())
