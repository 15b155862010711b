"""Processes of this machine and what is kept of them: who is who, locks that tell who lives, and JSON files."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

PROC = Path("/proc")

_LOCK_LAYOUT = "hhqqi" if sys.platform == "linux" else "qqihh"
"""``struct flock`` of fcntl(2)."""


@dataclass(frozen=True)
class ProcessIdentity:
    """The identity of a process, which no other has, not even after another boot.

    Never a time of day, which moves when the clock is set.

    Attributes:
        ticks: when it started, in ticks of the clock since the machine started.
        boot: which start of the machine that was.
    """

    pid: int
    ticks: str
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of a process, or None if there is none of this number, or only what is left of it."""
        if not PROC.joinpath("self").exists():
            return _identity_elsewhere(pid)
        try:
            fields = PROC.joinpath(str(pid), "stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        if fields[0] in (b"Z", b"X"):
            return None
        return cls(pid, fields[19].decode(), boot_id())

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> ProcessIdentity | None:
        """Return the identity that a JSON object holds, or None for another object."""
        match content:
            case {"pid": int(pid), "ticks": str(ticks), "boot": str(boot)} if pid > 0:
                return cls(pid, ticks, boot)
        return None

    def is_alive(self) -> bool:
        """Return whether this very process is there."""
        return ProcessIdentity.of(self.pid) == self

    def dump(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def boot_id() -> str:
    """Return the id of this boot of the machine; empty where the system has none."""
    try:
        return PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if it isn't there, can't be read, or holds anything else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def lock_holder(path: Path) -> int | None:
    """Return the process that holds the lock of a file (of the ``lockf`` kind), or None; takes no lock to find out.

    To be asked only by other processes than the holder, which closing the file would take its lock from.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _LOCK_LAYOUT == "hhqqi":
            asked = struct.pack(_LOCK_LAYOUT, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_LOCK_LAYOUT, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
        else:
            asked = struct.pack(_LOCK_LAYOUT, 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
            _, _, pid, kind, _ = struct.unpack(_LOCK_LAYOUT, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else pid
    finally:
        os.close(handle)


def with_variable(assignment: str, besides: Iterable[int] = ()) -> list[int]:
    """Return the processes of this user that have a variable with this value in their environment.

    It is inherited, so this finds what a process started even after that has left its group and lost its parent.

    Args:
        assignment: such as ``NAME=value``.
        besides: processes that don't count.
    """
    wanted, found = assignment.encode(), []
    if not PROC.joinpath("self").exists():
        return _with_variable_elsewhere(assignment, besides)
    for pid in (int(entry.name) for entry in os.scandir(PROC) if entry.name.isdecimal()):
        try:
            variables = PROC.joinpath(str(pid), "environ").read_bytes()
        except OSError:  # of another user, or gone
            continue
        if wanted in variables.split(b"\0") and pid not in besides:
            found.append(pid)
    return found


@contextmanager
def on_cores(count: int | None, of: str) -> Iterator[None]:
    """Let what this thread starts run on so many of the machine's cores, which all that it starts shares.

    Only Linux does that; what is started can also undo it.

    Args:
        count: how many; None for all.
        of: for whom; the same one gets the same cores, another one may get others.
    """
    if count is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    cores, first = sorted(before), crc32(of.encode()) % len(before)
    os.sched_setaffinity(0, [*cores[first:], *cores[:first]][:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def memory_of(pid: int) -> int:
    """Return the bytes of memory of a process, of shared ones its part where the system tells; 0 if it is gone."""
    import psutil

    with suppress(psutil.Error):
        found = psutil.Process(pid).memory_full_info()
        return int(getattr(found, "pss", found.rss))
    return 0


def _identity_elsewhere(pid: int) -> ProcessIdentity | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # Both move together when the clock is set.
        return ProcessIdentity(pid, f"{process.create_time() - psutil.boot_time():.0f}", "")
    except psutil.Error:
        return None


def _with_variable_elsewhere(assignment: str, besides: Iterable[int]) -> list[int]:
    import psutil

    name, _, value = assignment.partition("=")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.pid not in besides:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found
