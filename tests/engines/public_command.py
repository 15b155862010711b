"""Runs commands of the public SDK, each in a process of its own: ``python -m tests.engines.public_command < COMMANDS``.

Importing the SDK takes seconds, so that is done once, and each command is a fork that goes on from there as the
executable ``silverback`` would. COMMANDS is a JSON line for each: its arguments, and a text for its stdin. Each gets a
JSON line back: its exit code and all that it printed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

from silverback._cli import cli


def run(arguments: list[str], stdin: str) -> tuple[int, str]:
    """Run a command; return its exit code and output."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as shown:
        given.write(stdin)
        given.seek(0)
        child = os.fork()
        if child == 0:
            os.dup2(given.fileno(), 0)
            os.dup2(shown.fileno(), 1)
            os.dup2(shown.fileno(), 2)
            sys.argv = ["silverback", *arguments]
            try:
                cli()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:  # noqa: BLE001 - shown, as an interpreter does at its end
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        shown.seek(0)
        return os.waitstatus_to_exitcode(status), shown.read()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)
