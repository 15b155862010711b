"""The real `ape` command against the local cluster's application, piped and at a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from pydantic import TypeAdapter

from tests.conftest import ape_command, environment_of, run_ape
from tests.server.machine import Cluster

Run = Callable[..., CompletedProcess[str]]
AtTerminal = Callable[..., str]
INTERRUPT = "\x03"


@pytest.fixture
def run(served: Cluster, home: Path, project: Path) -> Run:
    """`ape silverback cluster …` on that cluster, with a certain exit code and text for stdin."""
    return runner(home, project, **served.environment)


def runner(home: Path, project: Path, **environment: str) -> Run:
    """Return what runs `ape silverback cluster …` with something in its environment, and looks at the exit code."""

    def run(*arguments: str, code: int = 0, stdin: str | None = None, **more: str) -> CompletedProcess[str]:
        command = ["silverback", "cluster", *arguments]
        result = run_ape(home, project, command, stdin=stdin, **{**environment, **more})
        assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stdout + result.stderr
        return result

    return run


@pytest.fixture
def at_terminal(served: Cluster, home: Path, project: Path) -> AtTerminal:
    """`ape silverback cluster …` on that cluster at a terminal of its own."""

    def at_terminal(*arguments: str, code: int = 0, **more: Any) -> str:
        return terminal_session(arguments, home, project, code, **{**served.environment, **more})

    return at_terminal


def terminal_session(
    arguments: tuple[str, ...],
    home: Path,
    project: Path,
    code: int,
    typed: tuple[tuple[str, str], ...] = (),
    **environment: str,
) -> str:
    """Run a command at a terminal of its own; gives all that the terminal showed.

    Args:
        code: its exit code, which is looked at.
        typed: what to wait for, and what is typed then; ``INTERRUPT`` for Ctrl-C.
    """
    control, terminal = pty.openpty()
    environment = {**environment_of(home), "TERM": "xterm-256color", "COLUMNS": "150", **environment}
    shown, unseen, left, interrupted = "", 0, list(typed), False
    deadline = time.monotonic() + 60
    with subprocess.Popen(
        [ape_command(), "silverback", "cluster", *arguments],
        cwd=project,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        while True:
            if time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"doesn't end: {shown}")
            if not select.select([control], [], [], 1)[0]:
                if interrupted:  # at a prompt, readline may miss one that comes before it waits
                    process.send_signal(signal.SIGINT)
                continue
            try:
                shown += os.read(control, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
            interrupted &= "Interrupted" not in shown  # it was heard
            if left and (found := shown.find(left[0][0], unseen)) >= 0:
                unseen = found + len(left[0][0])
                _, text = left.pop(0)
                interrupted = text == INTERRUPT
                if interrupted:
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(control, text.encode())
        assert process.wait(20) == code, shown
    os.close(control)
    assert not left, shown
    assert "Traceback" not in shown
    return shown


def documents(kind: Any, text: str) -> Any:
    """Read JSON as a documented type."""
    return TypeAdapter(kind).validate_json(text)
