"""What every test shares: temporary folders instead of the user's, and a real chain for those that need one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess, run

import pytest

# Before anything imports Ape, which fixes its data folder when it is imported.
_HOME = Path(tempfile.mkdtemp(prefix="ape-silverback-tests-"))
os.environ["HOME"] = str(_HOME)
os.environ["APE_DATA_FOLDER"] = str(_HOME / ".ape")
for _name in [name for name in os.environ if name.startswith(("SILVERBACK_", "APE_SILVERBACK_", "APE_FOUNDRY_"))]:
    del os.environ[_name]

from demo.chain import find_anvil, running_anvil  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]

Ape = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _temporary_home() -> Iterator[None]:
    # Ape's active project is the folder at its first use, once for a process: an empty one, not this repository.
    os.chdir(_HOME)
    yield
    os.chdir(ROOT)
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def anvil() -> Iterator[str]:
    """URL of a chain with id 1337 and a block a second."""
    binary = find_anvil()
    if binary is None:
        pytest.skip("anvil is not installed (`make install` does)")
    with running_anvil(binary) as url:
        yield url


@pytest.fixture(scope="module")
def chain() -> Iterator[str]:
    """URL of a chain that only this module uses, since its clock is advanced, with five blocks a second."""
    binary = find_anvil()
    if binary is None:
        pytest.skip("anvil is not installed (`make install` does)")
    with running_anvil(binary, block_time=0.2) as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, for this process and for those that it starts."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("APE_DATA_FOLDER", str(folder / ".ape"))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def ape(home: Path, project: Path) -> Ape:
    """The real ``ape`` command, run in the project folder with a home of its own."""
    return lambda *arguments, **more: run_ape(home, project, arguments, **more)


def run_ape(
    home: Path,
    project: Path,
    arguments: Sequence[str],
    timeout: float = 120,
    stdin: str | None = None,
    **environment: str,
) -> CompletedProcess[str]:
    """Run the real ``ape`` command in a project, with a home, text for its stdin and more of the environment."""
    return run(
        [str(Path(sys.executable).with_name("ape")), *arguments],
        cwd=project,
        env={
            **os.environ,
            "HOME": str(home),
            "APE_DATA_FOLDER": str(home / ".ape"),
            "COLUMNS": "200",
            **environment,
        },
        **({"stdin": DEVNULL} if stdin is None else {"input": stdin}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
