"""The commit that names images: what git knows, in its own words, wherever the command runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.git import git_state, read_git_state

pytestmark = pytest.mark.usefixtures("home")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(project: Path) -> Path:
    """A project with one bot, all of it committed."""
    (project / "bots").mkdir()
    (project / "bots" / "a.py").touch()
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "Begin")
    return project


def test_the_commit_is_clean_until_something_changes(repository: Path) -> None:
    state = read_git_state(repository)
    assert state.commit == git(repository, "rev-parse", "HEAD")
    assert state.commit.startswith(state.short)
    assert not state.dirty
    (repository / "bots" / "a.py").write_text("x = 1\n")
    assert read_git_state(repository).dirty


@pytest.mark.parametrize("hidden", ["settings", "ignored"])
def test_a_bot_that_is_not_committed_is_seen_whatever_hides_it(repository: Path, hidden: str) -> None:
    if hidden == "settings":
        git(repository, "config", "status.showUntrackedFiles", "no")
    else:
        (repository / ".git" / "info" / "exclude").write_text("bots/b.py\n")
    assert not read_git_state(repository).dirty
    (repository / "bots" / "b.py").touch()
    assert read_git_state(repository).dirty


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_checkout_of_another_owner_is_told_in_gits_own_words(repository: Path) -> None:
    for path in [repository, *repository.rglob("*")]:
        os.chown(path, 12345, 12345)
    with pytest.raises(ResolutionError, match=r"git: detected dubious ownership.*safe\.directory"):
        read_git_state(repository)
    assert git_state(repository) is None


def test_a_folder_without_a_repository_or_a_commit_is_told_in_gits_own_words(project: Path) -> None:
    with pytest.raises(ResolutionError, match="git: not a git repository"):
        read_git_state(project)
    git(project, "init", "--quiet")
    with pytest.raises(ResolutionError, match="git: Needed a single revision"):
        read_git_state(project)


def test_a_hook_of_another_worktree_doesnt_mislead(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = repository.parent / "other"
    git(repository, "worktree", "add", "--quiet", "-b", "feature", str(other))
    (other / "bots" / "a.py").write_text("x = 1\n")
    git(other, "commit", "--quiet", "--all", "--message", "Change")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git" / "worktrees" / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / ".git" / "worktrees" / "other" / "index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert read_git_state(repository).commit != read_git_state(other).commit
    assert not read_git_state(repository).dirty


def test_file_names_that_are_not_utf8_are_no_obstacle(repository: Path) -> None:
    git(repository, "config", "core.quotepath", "false")
    Path(os.fsdecode(os.fsencode(repository) + b"/caf\xe9.txt")).touch()
    assert read_git_state(repository).dirty
