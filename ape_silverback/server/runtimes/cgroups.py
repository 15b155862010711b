"""Control groups of bots, where this machine lets us have them: nothing that a bot starts can leave its group.

A process leaves its parent, its session and its environment when it wants to, but a control group only when it may
write elsewhere in the tree. Needs cgroup v2 and a part of its tree in which this user may make groups: root has one,
and so has a unit of systemd with ``Delegate=yes``. See https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from uuid import UUID

PREFIX = "silverback-bot-"


def own_group() -> Path | None:
    """Return the folder of this process's group in the cgroup v2 tree; None without one."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return None
    mount = re.search(r"^\S+ \S+ \S+ (\S+) (\S+) .* - cgroup2 ", mounts, re.MULTILINE)
    group = re.search(r"^0::(/.*)$", groups, re.MULTILINE)
    if mount is None or group is None:
        return None
    root, place = mount[1].rstrip("/"), group[1]
    if root and not place.startswith(root):  # mounted from elsewhere in the tree
        return None
    return Path(mount[2]) / place[len(root) :].lstrip("/")


def make_group(bot: UUID) -> Path | None:
    """Make a group for a bot, beside the server's own processes; None where the machine doesn't let us."""
    if (own := own_group()) is None:
        return None
    group = own / f"{PREFIX}{bot}"
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    return group if os.access(group / "cgroup.procs", os.W_OK) else None


def members(group: Path) -> list[int]:
    """Return the processes in a group; none if there isn't such a group."""
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def end_members(group: Path) -> None:
    """Kill all processes in a group."""
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError:  # older than Linux 5.14
        for pid in members(group):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def remove_group(group: Path) -> None:
    """Remove a group in which nothing runs any more."""
    with suppress(OSError):
        group.rmdir()
