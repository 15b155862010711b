"""One process, measured from outside; and what many measurements come to."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What one run of a command took.

    Attributes:
        wall: seconds until it ended.
        cpu: seconds of processor time, its own and the system's for it.
        requests: requests that it sent.
    """

    wall: float
    cpu: float
    requests: int = 0


@dataclass(frozen=True)
class Costs:
    """Many runs of one command."""

    runs: Sequence[Cost]

    @property
    def wall(self) -> float:
        """Median of the seconds."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        """Median of the processor time in seconds."""
        return statistics.median(run.cpu for run in self.runs)

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles of processor time, as a share of the median."""
        if len(self.runs) < 2:
            return 0.0
        first, _, third = statistics.quantiles([run.cpu for run in self.runs], n=4)
        return (third - first) / 2 / self.cpu

    @property
    def requests(self) -> int:
        """Most requests of a run."""
        return max(run.requests for run in self.runs)


def program(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sys.executable).with_name(name))


def measured(command: Sequence[str], folder: Path, environment: Mapping[str, str], requests: list[str]) -> Cost:
    """Run a command to its end.

    Args:
        command: program and arguments.
        folder: where it runs.
        environment: all of its environment.
        requests: grows by the requests that come meanwhile.

    Raises:
        SystemExit: it failed; shows what it printed.
    """
    before, begun = len(requests), time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{said.decode(errors='replace')}")
    return Cost(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, len(requests) - before)


def imports(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command of Python to its end; returns the modules that it imported, with the seconds that each took.

    A module's time is without that of the modules that it imports.
    """
    run = subprocess.run(
        [program("python"), "-X", "importtime", *command[command[0] == program("python") :]],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        encoding="utf8",
    )
    found = re.findall(r"^import time: +(\d+) \|[^|]+\| +(\S+)$", run.stderr, re.MULTILINE)
    return {name: int(microseconds) / 1e6 for microseconds, name in found}


def shown(*lines: str) -> Iterator[str]:
    """Print lines and yield them."""
    for line in lines:
        print(line, flush=True)
        yield line
