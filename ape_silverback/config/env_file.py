"""Files with ``NAME=VALUE`` lines, for ``--env-file``. They hold secrets: errors name lines, never contents.

A value may be ``$(command)``, whose output it then is, so that secrets can stay where they live.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ape_silverback.exceptions import ConfigurationError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Names of environment variables."""


COMMAND_TIMEOUT = 300.0
"""Seconds that a command gets: it may ask its user to unlock a vault."""

_COMMAND = re.compile(r"\$\((?P<command>.+)\)", re.DOTALL)


@dataclass(frozen=True)
class Commands:
    """Runs the commands of env files, each once.

    Attributes:
        show: called with each command before it runs.
    """

    show: Callable[[str], None]
    _outputs: dict[str, str] = field(default_factory=dict, repr=False)

    def output(self, command: str) -> str:
        """Return what a command prints, without the newlines at its end.

        Raises:
            ValueError: it failed, or printed something else than UTF-8 text. Doesn't show its output.
        """
        if command not in self._outputs:
            self.show(f"running: {command}")
            try:
                # Its user wrote it for a shell, and allowed it. It may ask at the terminal, so only stdout is taken.
                shell = ["/bin/sh", "-c", command]
                done = subprocess.run(shell, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False)
            except subprocess.TimeoutExpired:
                raise ValueError(f"`{command}` didn't end in {COMMAND_TIMEOUT:g} s") from None
            if done.returncode:
                raise ValueError(f"`{command}` failed with exit code {done.returncode}")
            try:
                self._outputs[command] = done.stdout.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                raise ValueError(f"`{command}` printed something else than UTF-8 text") from None
        return self._outputs[command]


def read_env_file(file: str, commands: Commands | None = None) -> dict[str, str]:
    """Read a file. Of two values for one name the later wins. Nothing is expanded but a whole ``$(command)``.

    Args:
        file: its path, or ``-`` for stdin.
        commands: runs commands; None when they aren't allowed.

    Raises:
        ConfigurationError: it can't be read, a line of it isn't ``NAME=VALUE``, or a command isn't allowed or fails;
            then none of it is used.
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
    values: dict[str, str] = {}
    run: dict[str, tuple[int, str]] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is None and not binding.error:
            continue  # a comment, or empty lines
        written = binding.original.string
        line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
        if binding.error or binding.value is None or not NAME.fullmatch(binding.key or ""):
            raise ConfigurationError(f"--env-file {file}: line {line} isn't NAME=VALUE")
        name = str(binding.key)
        values[name] = binding.value
        run.pop(name, None)
        quoted = written.partition("=")[2].lstrip().startswith("'")  # as in a shell, these are taken as they are
        if (match := _COMMAND.fullmatch(binding.value)) and not quoted:
            run[name] = (line, match["command"])
    for name, (line, command) in run.items():
        if commands is None:
            raise ConfigurationError(
                f"--env-file {file}: line {line}: {name} is a command; pass --allow-commands to run it, or put the "
                "value in single quotes"
            )
        try:
            values[name] = commands.output(command)
        except ValueError as error:
            raise ConfigurationError(f"--env-file {file}: line {line}: {name}: {error}") from None
    return values
