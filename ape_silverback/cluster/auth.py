"""Who is logged in to the platform: the token files that are shared with the public SDK."""

from __future__ import annotations

import json
from pathlib import Path

from ape_silverback.exceptions import Unauthorized

LOG_IN = "log in with `silverback login`"


def token_file(auth: str) -> Path:
    """Give the file that holds the tokens of an authentication, by its name in the profile file."""
    return Path.home() / ".silverback" / f"{auth}.json"


def read_access_token(auth: str) -> str:
    """Give the access token that a login left.

    Raises:
        Unauthorized: nobody is logged in, or the file is broken.
    """
    file = token_file(auth)
    try:
        token = json.loads(file.read_text(encoding="utf8"))["tokens"]["access_token"]
    except FileNotFoundError:
        raise Unauthorized(f"not logged in to the platform ({auth}); {LOG_IN}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise Unauthorized(f"{file} doesn't hold what a login leaves; {LOG_IN}") from None
    if not isinstance(token, str) or not token:
        raise Unauthorized(f"{file} holds no access token; {LOG_IN}")
    return token
