"""What every test shares: a clean environment, temporary folders instead of the user's, `ape`, and a real chain."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess, run
from typing import TYPE_CHECKING

import pytest

# Before anything imports Ape, which fixes its data folder when it is imported. What isn't named here is nothing that a
# test, or a process that one starts, may depend on: proxies, colours, languages, Git's and our own variables.
_HOME = Path(tempfile.mkdtemp(prefix="ape-silverback-tests-"))
EXEC = "TESTS_EXEC_APE"
"""Variable that has each `ape` start from nothing."""
NO_SKIPS = "TESTS_NO_SKIPS"
"""Variable that makes a skipped test a failure: every part that a test needs was installed before."""
_KEPT = (
    "ANVIL_BIN",
    "FLOOD_SECONDS",
    "LOGNAME",
    "OIDC_PROVIDER_MODULES",
    "PATH",
    "SHELL",
    "TMPDIR",
    "USER",
    EXEC,
    NO_SKIPS,
)
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("PYTEST_")},
    "APE_DATA_FOLDER": str(_HOME / ".ape"),
    "GIT_CONFIG_NOSYSTEM": "1",
    "HOME": str(_HOME),
    "LANG": "C.UTF-8",
}
os.environ.clear()
os.environ.update(_ENVIRONMENT)

from demo.chain import find_anvil, running_anvil  # noqa: E402
from tests.forked import ForkedApe  # noqa: E402

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient
    from tests.place import Place
    from tests.server.machine import Cluster

ROOT = Path(__file__).resolve().parents[1]
APE = Path(sys.executable).with_name("ape")

Ape = Callable[..., CompletedProcess[str]]

_forked = ForkedApe(APE, _HOME / "forked", real=bool(os.environ.get(EXEC)))


def ape_command() -> str:
    """Return the path of an executable that is ``ape``, and starts at once."""
    return str(_forked.command)


def python_command() -> Path:
    """Return the interpreter that a forked `ape` starts clusters and bots with, which are forked too."""
    return _forked.command.with_name(Path(sys.executable).name)


@pytest.fixture(scope="session", autouse=True)
def _temporary_home() -> Iterator[None]:
    # Ape's active project is the folder at its first use, once for a process: an empty one, not this repository.
    os.chdir(_HOME)
    yield
    os.chdir(ROOT)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run tests: these wait for bots, blocks and answers for most of their time."""
    return 2 * (os.cpu_count() or 1) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Start what all of them use."""
    _forked.share()


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Look for no garbage while everything is imported."""
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Look for garbage in what tests make only."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where nothing may be skipped: where every part that a test needs was installed before."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(NO_SKIPS) and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure() -> None:
    """Take away what was made for all tests."""
    _forked.end()
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was skipped where nothing may be."""
    if os.environ.get(NO_SKIPS):
        for report in terminalreporter.stats.get("skipped", []):
            terminalreporter.write_line(f"FAILED by {NO_SKIPS}: {report.nodeid}: {report.longrepr[2]}", red=True)


@pytest.fixture(scope="session")
def anvil() -> Iterator[str]:
    """URL of a chain with id 1337 and a block a second."""
    with running_anvil(anvil_binary()) as url:
        yield url


@pytest.fixture(scope="module")
def chain() -> Iterator[str]:
    """URL of a chain that only this module uses, since its clock is advanced, with five blocks a second."""
    with running_anvil(anvil_binary(), block_time=0.2) as url:
        yield url


def anvil_binary() -> Path:
    """Return the path of anvil; skips the test where it isn't installed."""
    binary = find_anvil()
    if binary is None:
        pytest.skip("anvil is not installed (`make install` does)")
    return binary


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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, anvil: str) -> Iterator[Place]:
    """A project with two bots, and a home with a running local cluster."""
    from tests.place import Place  # which runs the `ape` of this file

    place = Place(tmp_path_factory.mktemp("place"), anvil)
    place.cluster("up")
    yield place
    place.cluster("down")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The application of a cluster, whose bots have no processes."""
    from tests.server.machine import serving_cluster

    with serving_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def client(served: Cluster) -> Iterator[ClusterClient]:
    """Our client for it, which leaves it empty."""
    with served.client() as client:
        yield client
        served.machine.crashing = set()
        served.faults.clear()
        for bot in client.bots.values():
            bot.remove()
        for group in client.variable_groups.values():
            group.remove()
        for credential in client.credentials.values():
            credential.remove()


@pytest.fixture
def ape(home: Path, project: Path) -> Ape:
    """The real ``ape`` command, run in the project folder with a home of its own."""
    return lambda *arguments, **more: run_ape(home, project, arguments, **more)


def environment_of(home: Path) -> dict[str, str]:
    """Return the environment of a process whose user has this home."""
    settle = {"SILVERBACK_SETTLE": "0"}  # a test that is about settling sets its own
    return {**os.environ, "HOME": str(home), "APE_DATA_FOLDER": str(home / ".ape"), **settle}


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
        [ape_command(), *arguments],
        cwd=project,
        env={**environment_of(home), "COLUMNS": "200", **environment},
        **({"stdin": DEVNULL} if stdin is None else {"input": stdin}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
