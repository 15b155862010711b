"""Stands between the server and one bot's process, so that the bot outlives the server.

Run as a script, with nothing but the standard library: it starts the bot, stamps each line that the bot prints with the
time and appends it to the bot's log, and writes down how the bot ended. The server may be gone for any part of that.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

STARTED = b"Startup complete"
"""What the bot SDK logs when its start is complete."""

LONGEST_PART = 64 * 1024
"""Bytes of a line after which it is written, ended or not."""


def main(folder: Path, command: list[str]) -> int:
    """Run a bot to its end.

    Args:
        folder: where its log and what is known of its run are kept.
        command: how to run it.
    """
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # A signal that comes before there is a bot must not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        bot = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_in_child,
        )
    except OSError as error:
        _append(log, f"ERROR:    can't be started: {error}".encode())
        _write(folder / "exit.json", {"code": 127, "at": _now()})
        return 1
    signal.signal(signal.SIGTERM, lambda *_: bot.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _write(folder / "bot.json", {"pid": bot.pid})
    _copy(bot, log, folder / "ready")
    code = bot.wait()
    _write(folder / "exit.json", {"code": code if code >= 0 else 128 - code, "at": _now()})
    return 0


def _in_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.platform == "linux":  # a bot must not go on unwatched when this process is killed
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _copy(bot: subprocess.Popen[bytes], log: int, ready: Path) -> None:
    """Copy what the bot prints until it has ended and the pipe is empty."""
    assert bot.stdout is not None  # noqa: S101 - it is a pipe
    pipe = bot.stdout.fileno()
    buffer = b""
    while True:
        readable, _, _ = select.select([pipe], [], [], 0.2)
        if not readable:
            if bot.poll() is not None:  # a child of the bot may hold the pipe open
                break
            continue
        chunk = os.read(pipe, LONGEST_PART)
        if not chunk:
            break
        *lines, buffer = (buffer + chunk).split(b"\n")
        if len(buffer) >= LONGEST_PART:
            lines.append(buffer)
            buffer = b""
        for line in lines:
            _append(log, line)
            if STARTED in line and not ready.exists():
                ready.touch(0o600)
    if buffer:
        _append(log, buffer)


def _append(log: int, line: bytes) -> None:
    os.write(log, _now().encode() + b" " + line.rstrip(b"\r") + b"\n")


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _write(path: Path, content: dict[str, object]) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(content))
    draft.replace(path)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
