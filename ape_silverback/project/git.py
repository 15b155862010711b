"""What git says of a project."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 20.0
"""Seconds that git gets; a repository on a slow disk takes some."""


@dataclass(frozen=True)
class GitState:
    """Where a project's working tree is.

    Attributes:
        commit: the whole hash.
        dirty: whether something below the project's folder isn't committed, untracked files included.
    """

    commit: str
    dirty: bool

    @property
    def short(self) -> str:
        """The commit as it is named in tags."""
        return self.commit[:12]


def git_state(folder: Path) -> GitState | None:
    """Ask git about a folder; None outside of a repository, in one without a commit, and without git."""
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    changes = _git(folder, "--no-optional-locks", "status", "--porcelain", "--", ".")
    if not commit or changes is None:
        return None
    return GitState(commit, dirty=bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the git of the user's PATH
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
