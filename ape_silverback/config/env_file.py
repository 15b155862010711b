"""Files with ``NAME=VALUE`` lines, for ``--env-file``. They hold secrets: errors name lines, never contents."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from ape_silverback.exceptions import ConfigurationError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Names of environment variables."""


def read_env_file(file: str) -> dict[str, str]:
    """Read a file. Of two values for one name the later wins; nothing in them is expanded.

    Args:
        file: its path, or ``-`` for stdin.

    Raises:
        ConfigurationError: it can't be read, or a line of it isn't ``NAME=VALUE``; then none of it is used.
    """
    from dotenv.parser import parse_stream

    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--env-file {file}: can't be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"--env-file {file}: line {line} isn't UTF-8 text") from None
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
