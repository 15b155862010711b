"""The state of a project in git."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ape_silverback.exceptions import ResolutionError

TIMEOUT = 20.0
"""Seconds that git gets; a repository on a slow disk takes some."""

_ELSEWHERE = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_WORK_TREE",
}
"""Variables that point git to a repository. A hook has them, and in a linked worktree they mean another folder."""


@dataclass(frozen=True)
class GitState:
    """Where a project's working tree is.

    Attributes:
        commit: the whole hash.
        dirty: whether something below the project's folder isn't committed, including untracked files and bots that
            git ignores.
    """

    commit: str
    dirty: bool

    @property
    def short(self) -> str:
        """The commit as it is named in tags."""
        return self.commit[:12]


def git_state(folder: Path) -> GitState | None:
    """Return the state of a folder; None where ``read_git_state`` fails."""
    with suppress(ResolutionError):
        return read_git_state(folder)
    return None


def read_git_state(folder: Path) -> GitState:
    """Return the state of a folder.

    Raises:
        ResolutionError: git isn't installed, or fails, in its own words: the folder isn't in a repository, has no
            commit yet, or belongs to another user.
    """
    commit = ask_git(folder, "rev-parse", "--verify", "HEAD^{commit}")
    # The user's own settings may hide untracked files, and an ignored bot would be deployed all the same.
    changes = ask_git(folder, "--no-optional-locks", "status", "--porcelain", "--untracked-files=normal", "--", ".")
    ignored = ask_git(folder, "ls-files", "--others", "--ignored", "--exclude-standard", "--", "bot.py", "bots/*.py")
    return GitState(commit, dirty=bool(changes or ignored))


def ask_git(folder: Path, *arguments: str) -> str:
    """Return what git answers about a folder.

    Raises:
        ResolutionError: git isn't installed, or refuses, in its own words.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the git of the user's PATH
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            env={name: value for name, value in os.environ.items() if name not in _ELSEWHERE},
        )
    except OSError as error:
        raise ResolutionError(f"git can't be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ResolutionError(f"git didn't answer in {TIMEOUT:g} s") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ResolutionError(f"git: {said.removeprefix('fatal: ') or f'exit code {done.returncode}'}")
    return done.stdout.decode(errors="replace").strip()
