"""The files of ``~/.silverback``: where they are, who may write them, and one at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from ape_silverback.cluster.auth.tokens import token_file
from ape_silverback.cluster.settings import ClusterProfile, profile_path, read_profiles, save_profile
from ape_silverback.exceptions import FileError, FileLocked
from ape_silverback.files import locked, make_private_folder, silverback_folder, write_private
from tests.conftest import run_ape


def failing(code: int) -> object:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_variable_moves_the_folder_with_everything_in_it(
    home: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("SILVERBACK_HOME", str(elsewhere))
    save_profile("mine", ClusterProfile(host="http://127.0.0.1:9", api_key="k"))
    assert silverback_folder() == elsewhere
    assert profile_path().is_relative_to(elsewhere)
    assert token_file("default").is_relative_to(elsewhere)
    assert elsewhere.stat().st_mode & 0o777 == 0o700
    result = run_ape(home, project, ["silverback", "cluster", "health", "-p", "mine"], SILVERBACK_HOME=str(elsewhere))
    assert "nothing listens at http://127.0.0.1:9" in result.stderr
    assert not (home / ".silverback").exists()


def test_the_variable_must_be_an_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SILVERBACK_HOME", "here")
    with pytest.raises(FileError, match="SILVERBACK_HOME=here: must be an absolute path"):
        read_profiles()


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("SILVERBACK_HOME", raising=False)

    def unknown(uid: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(FileError, match=r"this user has no home folder.*set SILVERBACK_HOME"):
        read_profiles()
    monkeypatch.setenv("SILVERBACK_HOME", str(tmp_path))
    assert read_profiles().profile == {}


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cant_be_written_is_an_error_with_the_way_out(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", failing(code))
    for write in (lambda: write_private(tmp_path / "file", ""), lambda: locked(tmp_path / "lock").__enter__()):
        with pytest.raises(FileError, match=r"can't be written: .*set SILVERBACK_HOME to a folder that is"):
            write()


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileError, match="can't be written"):
            make_private_folder(folder)


def test_a_file_system_without_locks_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with (
        pytest.raises(FileError, match=r"can't be locked: .*SILVERBACK_HOME to a folder on a local disk"),
        locked(tmp_path / "lock"),
    ):
        pass


def test_a_lock_that_another_process_holds_is_told_with_its_holder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ape_silverback.files import locked\n"
        "with locked(Path(sys.argv[1]), holder='somebody, process 7'): print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(
            FileLocked, match=r"another process \(somebody, process 7\) has been holding .*lock for 0 s"
        ):
            locked(tmp_path / "lock").__enter__()
        process.stdin.close()
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == ""
