"""What the shell offers on TAB: quick, silent when nothing answers, kept for seconds but not on disk."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.server import BOT, Reply, answer, in_turn, serving
from tests.conftest import run_ape
from tests.server.machine import Cluster, serving_cluster

pytestmark = pytest.mark.xdist_group("cli-completion")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serving_cluster(tmp_path_factory.mktemp("cluster")) as served:
        with served.client() as client:
            for name in ("alpha", "beta"):
                client.new_bot(name, "a/b:1", "ethereum", "mainnet", "alchemy")
            client.new_variable_group("rpc", {"KEY": "1"})
            client.new_credentials("ghcr", "ghcr.io", "e", "u", "p")
        yield served


def offered(home: Path, project: Path, line: str, **environment: str) -> list[str]:
    """Return what bash would offer at the end of a line."""
    words = line.split(" ")
    result = run_ape(
        home,
        project,
        [],
        _APE_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(words),
        COMP_CWORD=str(len(words) - 1),
        XDG_RUNTIME_DIR=environment.pop("XDG_RUNTIME_DIR", ""),
        **environment,
    )
    assert result.stderr == ""
    return [one.partition(",")[2] for one in result.stdout.split()]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("ape silverback cluster bots stop ", ["alpha", "beta"]),
        ("ape silverback cluster bots logs b", ["beta"]),
        ("ape silverback cluster bots update alpha -g ", ["rpc"]),
        ("ape silverback cluster bots update alpha --credential g", ["ghcr"]),
        ("ape silverback cluster bots list --format j", ["json"]),
        ("ape silverback cluster bots st", ["start", "stop"]),
    ],
)
def test_names_are_offered(cluster: Cluster, home: Path, project: Path, line: str, names: list[str]) -> None:
    assert offered(home, project, line, **cluster.environment) == names


def test_profiles_and_the_projects_bots_are_offered(home: Path, project: Path) -> None:
    (home / ".silverback").mkdir()
    (home / ".silverback" / "profile.toml").write_text("[profile.mine]\nhost = 'http://127.0.0.1:9'\napi-key = 'k'\n")
    assert offered(home, project, "ape silverback cluster bots list -p m") == ["mine"]
    (project / "bots").mkdir()
    (project / "bots" / "watcher.py").touch()
    assert offered(home, project, "ape silverback cluster bots new w") == ["watcher"]


def test_what_cant_be_asked_is_silence(home: Path, project: Path) -> None:
    line = "ape silverback cluster bots stop "
    assert offered(home, project, line) == []
    environment = {"SILVERBACK_CLUSTER_API_KEY": "k", "SILVERBACK_CLUSTER_URI": "http://127.0.0.1:9"}
    assert offered(home, project, line, **environment) == []
    (project / "ape-config.yaml").write_text("silverback: [broken\n")
    assert offered(home, project, line, **environment) == []


def test_it_never_hangs(home: Path, project: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        environment = {"SILVERBACK_CLUSTER_API_KEY": "k", "SILVERBACK_CLUSTER_URI": uri}
        assert offered(home, project, "ape silverback cluster bots stop ", **environment) == []
        assert time.monotonic() - begun < 6


def test_names_are_kept_for_seconds_in_memory_only(home: Path, project: Path, tmp_path: Path) -> None:
    memory = tmp_path / "run"
    memory.mkdir()
    with serving(in_turn(answer([BOT]), Reply(500))) as server:
        environment = {"SILVERBACK_CLUSTER_API_KEY": "very-secret", "SILVERBACK_CLUSTER_URI": server.url}
        line = "ape silverback cluster bots stop "
        for _ in range(2):
            assert offered(home, project, line, XDG_RUNTIME_DIR=str(memory), **environment) == ["a"]
        assert len(server.requests) == 1
    written = [path for path in memory.rglob("*") if path.is_file()]
    assert [path.stat().st_mode & 0o777 for path in written] == [0o600]
    assert "very-secret" not in written[0].read_text()
    assert [path for folder in (home, project) for path in folder.rglob("*") if ".ape" not in path.parts] == []


def test_another_clusters_names_are_never_offered(home: Path, project: Path, tmp_path: Path) -> None:
    memory = tmp_path / "run"
    memory.mkdir()
    line = "ape silverback cluster bots stop "
    (home / ".silverback").mkdir()
    profile = home / ".silverback" / "profile.toml"
    with serving(in_turn(answer([BOT]))) as one, serving(in_turn(answer([{**BOT, "name": "b"}]))) as other:
        for server, name in ((one, "a"), (other, "b"), (one, "a")):
            environment = {"SILVERBACK_CLUSTER_API_KEY": "k", "SILVERBACK_CLUSTER_URI": server.url}
            assert offered(home, project, line, XDG_RUNTIME_DIR=str(memory), **environment) == [name]
        for server, name in ((one, "a"), (other, "b")):
            profile.write_text(f"default-profile = 'x'\n[profile.x]\nhost = '{server.url}'\napi-key = 'k'\n")
            assert offered(home, project, line, XDG_RUNTIME_DIR=str(memory)) == [name]
        both = "\n".join(
            f"[profile.{name}]\nhost = '{server.url}'\napi-key = 'k'" for server, name in ((one, "a"), (other, "b"))
        )
        profile.write_text(f"{both}\n")
        (project / "ape-config.yaml").write_text("silverback: {profile: $CHOSEN}\n")
        for name in ("a", "b", "a"):
            assert offered(home, project, line, XDG_RUNTIME_DIR=str(memory), CHOSEN=name) == [name]
