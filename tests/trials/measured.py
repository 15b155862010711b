"""A command that is measured while a server does its worst: what it prints, its peak of memory, its time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.conftest import ape_command, environment_of
from tests.forked.server import PEAK

KEPT = 100_000
"""Bytes of its begin, and of what it prints to stderr, that are kept."""


@dataclass(frozen=True)
class Measured:
    """How a command ended.

    Attributes:
        code: its exit code; below zero for a signal.
        seconds: that it took.
        peak: the most memory that it had, in MiB.
        printed: bytes of stdout and stderr.
        out: begin of its stdout.
        err: begin of its stderr.
    """

    command: tuple[str, ...]
    code: int
    seconds: float
    peak: float
    printed: int
    out: str
    err: str


class _Output:
    def __init__(self, most: int) -> None:
        self.kept = b""
        self.size = 0
        self.most = most

    def read(self, stream: IO[bytes], pid: int) -> None:
        while piece := os.read(stream.fileno(), 1 << 16):
            self.size += len(piece)
            self.kept += piece[: KEPT - len(self.kept)]
            if self.size > self.most:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def measure(
    command: Sequence[str],
    home: Path,
    project: Path,
    *,
    interrupt_after: float = 200.0,
    most_printed: int = 256 << 20,
    **environment: str,
) -> Measured:
    """Run ``ape silverback cluster …``.

    Args:
        interrupt_after: seconds after which it gets a Ctrl-C.
        most_printed: bytes that it prints before it is killed.
    """
    begun = time.monotonic()
    handle, peak = tempfile.mkstemp(dir=home)
    os.close(handle)
    process = subprocess.Popen(
        [ape_command(), "silverback", "cluster", *command],
        cwd=project,
        env={**environment_of(home), PEAK: peak, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    outputs = {stream: _Output(most_printed) for stream in (process.stdout, process.stderr)}
    readers = [
        threading.Thread(target=output.read, args=(stream, process.pid), daemon=True)
        for stream, output in outputs.items()
    ]
    for reader in readers:
        reader.start()
    timer = threading.Timer(interrupt_after, process.send_signal, (signal.SIGINT,))
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    for reader in readers:
        reader.join()
    with process.stdout, process.stderr:
        out, err = outputs.values()
    return Measured(
        command=tuple(command),
        code=process.returncode,
        seconds=seconds,
        peak=int(Path(peak).read_text() or usage.ru_maxrss) / 1024,
        printed=out.size + err.size,
        out=out.kept.decode(errors="replace"),
        err=err.kept.decode(errors="replace"),
    )
