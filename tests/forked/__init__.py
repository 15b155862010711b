"""A forked ``ape``: the real command, in a process that doesn't have to import for seconds what the last one imported.

``server.py`` has the imports done and forks a process for each run; ``launcher.py`` is an executable that passes its
arguments, environment, folder and open files to it, and ends as that process ends. For who starts it, the launcher is
``ape``: it can be piped, interrupted, killed or put at a terminal.

What a forked ``ape`` starts with Python's interpreter, it starts with a second launcher: the server of a cluster and
its bots are forked in the same way, and everything else runs in the real interpreter.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from functools import cached_property, reduce
from pathlib import Path

HERE = Path(__file__).parent


SHARED = "PYTEST_FORKED_APE"
"""Variable that names the launcher of a server that another process of the tests has started."""


class ForkedApe:
    """The server, which starts with the first use, and the launcher.

    Args:
        ape: the real command.
        folder: where the launcher and the socket are made.
        real: whether nothing is forked.
    """

    def __init__(self, ape: Path, folder: Path, *, real: bool) -> None:
        self.ape = ape
        self.folder = folder
        self.real = real
        self.process: subprocess.Popen[bytes] | None = None

    @cached_property
    def command(self) -> Path:
        """The launcher, or the real command where processes can't be forked so."""
        if self.real or not hasattr(os, "pidfd_open"):
            return self.ape
        if shared := os.environ.get(SHARED):
            return Path(shared)
        self.folder.mkdir()
        socket = self.folder / "socket"
        for program in (self.ape, Path(sys.executable)):
            filled = {"{server}": str(socket), "{program}": str(program)}
            script = reduce(lambda text, part: text.replace(*part), filled.items(), (HERE / "launcher.py").read_text())
            launcher = self.folder / program.name
            launcher.write_text(f"#!{sys.executable} -IS\n{script}")
            launcher.chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), str(socket), str(self.ape), str(launcher)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            env={"HOME": str(self.folder / "nobody"), "PATH": os.environ["PATH"]},
            start_new_session=True,
        )
        atexit.register(self.end)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"listening\n"
        return self.folder / self.ape.name

    def share(self) -> None:
        """Start the server, for the processes that this one starts too."""
        os.environ[SHARED] = str(self.command)

    def end(self) -> None:
        """End the server, and what it has forked."""
        if self.process is not None:
            self.process.communicate()
            self.process = None
