"""Files with ``NAME=VALUE`` lines, for ``--env-file``. What they hold is secret: errors name lines, not contents."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from ape_silverback.exceptions import ConfigurationError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Names of environment variables."""


def read_env_file(file: str) -> dict[str, str]:
    """Read a file, ``-`` for stdin. Of two values for one name the later wins; nothing in them is expanded.

    Raises:
        ConfigurationError: it can't be read, or a line of it isn't understood; then none of it is used.
    """
    from dotenv.parser import parse_stream

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigurationError(f"--env-file {file}: can't be read: {reason}") from None
    values = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is None and not binding.error:
            continue  # a comment, or empty lines
        if binding.error or binding.value is None or not NAME.fullmatch(binding.key or ""):
            written = binding.original.string
            empty_before = written[: len(written) - len(written.lstrip())].count("\n")
            raise ConfigurationError(f"--env-file {file}: line {binding.original.line + empty_before} isn't NAME=VALUE")
        values[str(binding.key)] = binding.value
    return values
