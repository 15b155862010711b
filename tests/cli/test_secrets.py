"""What `deploy` does with values that are missing, empty or broken: it says so by name and sends nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ape_silverback.cluster.client import ClusterClient
from tests.cli.conftest import Run

SECTION = """\
name: shop
silverback:
  network: ethereum:mainnet:node
  registry: ghcr.io/me
  environment: [rpc]
  variables: {rpc: [RPC_KEY, EXTRA]}
  allow-empty: [EXTRA]
"""
BROKEN = os.fsdecode(b"caf\xe9")


@pytest.fixture(autouse=True)
def _shop(project: Path) -> None:
    (project / "bots").mkdir()
    (project / "bots" / "a.py").touch()
    (project / "ape-config.yaml").write_text(SECTION)


def test_an_empty_secret_is_refused_unless_it_is_declared_that_it_may_be_empty(run: Run, client: ClusterClient) -> None:
    refused = run("deploy", "--yes", code=1, RPC_KEY="", EXTRA="")
    assert "RPC_KEY" in refused.stderr
    assert "empty" in refused.stderr
    assert "EXTRA" not in refused.stderr
    assert (client.bots, client.variable_groups) == ({}, {})
    run("deploy", "--yes", RPC_KEY="good", EXTRA="")
    assert client.variable_groups["rpc"].variables == ["EXTRA", "RPC_KEY"]
    refused = run("deploy", "--yes", "--push-vars", code=1, RPC_KEY="", EXTRA="")
    assert "RPC_KEY" in refused.stderr


@pytest.mark.parametrize("place", ["environment", "file", "tag", "bot"])
def test_bytes_that_are_not_utf8_are_refused_by_name_before_anything_is_sent(
    run: Run, client: ClusterClient, project: Path, place: str
) -> None:
    arguments, environment = [], {"RPC_KEY": "x", "EXTRA": "x"}
    match place:
        case "environment":
            environment["RPC_KEY"], says = BROKEN, "the value of RPC_KEY isn't UTF-8 text; nothing was sent"
        case "file":
            (project / "env").write_bytes(b"EXTRA=1\nRPC_KEY=caf\xe9\n")
            arguments, says = ["--env-file", "env"], "--env-file env: line 2 isn't UTF-8 text"
        case "tag":
            arguments, says = ["--tag", BROKEN], "option --tag: isn't UTF-8 text"
        case _:
            arguments, says = [BROKEN], "this project has no bot"
    refused = run("deploy", "--yes", *arguments, code=1, **environment)
    assert says in refused.stderr
    assert (client.bots, client.variable_groups) == ({}, {})


def test_an_unknown_target_is_refused_before_settings_could_make_it(
    run: Run, client: ClusterClient, project: Path
) -> None:
    (project / "ape-config.yaml").write_text(SECTION + "  targets: {production: {}}\n")
    for option in (["--set", "tag=v2"], ["--image", "a=ghcr.io/me/a:2"], []):
        refused = run("deploy", "--target", "prodution", *option, code=1)
        assert "no target 'prodution' in the silverback section; did you mean 'production'?" in refused.stderr
    assert client.bots == {}


def test_a_variable_of_somebody_else_stops_nothing(run: Run) -> None:
    result = run("plan", RPC_KEY="x", EXTRA="", APE_SILVERBACK_VERSION="1.0")
    assert "environment variable APE_SILVERBACK_VERSION isn't used" in result.stderr
    run("status", APE_SILVERBACK_VERSION="1.0")


@pytest.mark.parametrize("key", ["profile", "cluster"])
def test_a_cluster_that_a_missing_variable_would_name_is_an_error_and_no_other_cluster(
    run: Run, project: Path, key: str
) -> None:
    (project / "ape-config.yaml").write_text(SECTION + f"  {key}: ${{WHERE}}\n")
    refused = run("status", code=1)
    assert f"silverback.{key} in ape-config.yaml:8: environment variable WHERE isn't set" in refused.stderr
