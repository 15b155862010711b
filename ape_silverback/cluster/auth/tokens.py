"""What a login stores: the token files of ``~/.silverback``, shared with the public SDK.

A file holds ``{"userinfo": claims, "tokens": the token endpoint's answer}``. We add ``expires_at`` to the tokens, which
the public SDK ignores; a file without it is understood too. Nothing here is verified: see ``oidc``.
"""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ape_silverback.cluster.header_values import header_value
from ape_silverback.exceptions import Unauthorized
from ape_silverback.files import locked, silverback_folder, write_private

LOG_IN = "log in with `ape silverback login`"

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process that renews the same login."""

MARGIN = 30.0
"""Seconds before its end at which an access token is renewed."""

END_OF_TIME = 253402300800
"""The year 10000, which no calendar can show, in seconds since 1970."""


@dataclass(frozen=True)
class Login:
    """Who is logged in, and the tokens for it.

    Attributes:
        userinfo: claims about the user (OpenID Connect Core 1.0, section 5.1).
        tokens: the token endpoint's answer (RFC 6749, section 5.1), and ``expires_at`` in seconds since 1970.
    """

    userinfo: Mapping[str, Any]
    tokens: Mapping[str, Any] = field(repr=False)

    @property
    def access_token(self) -> str:
        """What a request to the platform carries."""
        return str(self.tokens["access_token"]).strip()

    @property
    def refresh_token(self) -> str | None:
        """What renews the login; None when it can't be renewed."""
        return _text(self.tokens.get("refresh_token"))

    @property
    def id_token(self) -> str | None:
        """What the provider signed about the user."""
        return _text(self.tokens.get("id_token"))

    @property
    def expires(self) -> float | None:
        """End of the access token in seconds since 1970; None if it isn't known."""
        if (known := _number(self.tokens.get("expires_at"))) is not None:
            return known
        if (known := _number(_unverified_claims(self.access_token).get("exp"))) is not None:
            return known
        issued = _number(_unverified_claims(self.id_token or "").get("iat"))
        lifetime = _number(self.tokens.get("expires_in"))
        return None if issued is None or lifetime is None else issued + lifetime

    def lasts(self, margin: float = 0.0) -> bool:
        """Return whether the access token lasts for some more seconds. One without an end does."""
        return self.expires is None or time.time() + margin < self.expires

    @property
    def user(self) -> str:
        """Name of the user: the mail address, else the user name, else the provider's identifier."""
        fields = self.userinfo.get("fields")  # where an older sign-in service kept the name
        names = (
            self.userinfo.get("email"),
            self.userinfo.get("preferred_username"),
            fields.get("username") if isinstance(fields, dict) else None,
            self.userinfo.get("sub"),
        )
        return printable(next((name for name in names if isinstance(name, str) and name), "unknown"))


def token_file(auth: str) -> Path:
    """Return the file that holds the tokens of an authentication, by its name in the profile file."""
    return silverback_folder() / f"{auth}.json"


def locked_tokens(auth: str) -> AbstractContextManager[None]:
    """Hold a token file against other processes of this package.

    Raises:
        FileError: another process held it for too long.
    """
    return locked(token_file(auth).with_suffix(".lock"), LOCK_TIMEOUT)


def read_login(auth: str) -> Login:
    """Read a stored login.

    Raises:
        Unauthorized: not logged in, or the file is broken.
    """
    file = token_file(auth)
    try:
        content = json.loads(file.read_text(encoding="utf8"))
        login = Login(content["userinfo"], content["tokens"])
        token = login.tokens["access_token"]
    except FileNotFoundError:
        raise Unauthorized(f"not logged in to the platform ({auth}); {LOG_IN}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise Unauthorized(f"{file} isn't a stored login; {LOG_IN}") from None
    if not isinstance(token, str) or not token:
        raise Unauthorized(f"{file} holds no access token; {LOG_IN}")
    try:
        header_value(token)
    except ValueError as error:
        raise Unauthorized(f"{file}: the access token {error}; {LOG_IN}") from None
    if not isinstance(login.userinfo, dict):  # the public SDK may write null there
        return Login({}, login.tokens)
    return login


def write_login(auth: str, login: Login) -> None:
    """Store a login, for its owner only.

    Raises:
        FileError: the file can't be written.
    """
    content = {"userinfo": dict(login.userinfo), "tokens": dict(login.tokens)}
    write_private(token_file(auth), json.dumps(content))


def printable(text: str) -> str:
    """Return a stranger's text, cut, without what could steer a terminal."""
    return "".join(letter for letter in text if letter.isprintable())[:200]


def _unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, unverified: they are used for its times only. Empty if it isn't one."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    """Return a number of seconds; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < END_OF_TIME:
        return None
    return float(value)
