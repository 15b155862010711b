"""Every command that writes to a cluster verifies the payment stream first: a platform that lies gets nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ape_silverback import deploy
from ape_silverback.apepay.contract import ZERO_ADDRESS
from ape_silverback.cli import cli
from ape_silverback.connect import connected
from ape_silverback.exceptions import StreamError
from tests.cli.platform import Platform, serving_platform
from tests.cluster.server import Server
from tests.server.machine import Cluster, serving_cluster

SECRET = "hunter2"

WRITES: dict[str, tuple[str, ...]] = {
    "cluster deploy": ("--yes",),
    "cluster rollback": ("--yes",),
    "cluster bots new": ("watcher", "--image", "a/b:1", "--network", "ethereum:mainnet:node"),
    "cluster bots update": ("old", "--image", "a/b:2"),
    "cluster bots start": ("old",),
    "cluster bots stop": ("old", "--yes"),
    "cluster bots remove": ("old", "--yes"),
    "cluster bots move": ("old", "node-1", "--yes"),
    "cluster keys new": ("ci",),
    "cluster keys revoke": ("ci", "--yes"),
    "cluster mcp": ("--allow-changes",),
    "cluster vars new": ("rpc", "--env", f"KEY={SECRET}"),
    "cluster vars update": ("group", "--env", f"KEY={SECRET}"),
    "cluster vars remove": ("group", "--yes"),
    "cluster registry new": ("ghcr", "ghcr.io", "--email", "a@b.c", "--username", "me", "--password-stdin"),
    "cluster registry update": ("registry", "--password-stdin"),
    "cluster registry remove": ("registry", "--yes"),
}
"""Command that writes to a cluster → arguments with which it would."""

PAYS = {"cluster pay create", "cluster pay add-time", "cluster pay cancel"}
"""Commands that sign transactions."""

OTHERS = {
    "build",
    "doctor",
    "init",
    "login",
    "logout",
    "whoami",
    "cluster plan",
    "cluster history",
    "cluster status",
    "cluster verify",
    "cluster info",
    "cluster keys list",
    "cluster backup",
    "cluster restore",
    "cluster serve",
    "cluster nodes",
    "cluster health",
    "cluster mcp",
    "cluster notify test",
    "cluster open",
    "cluster up",
    "cluster down",
    "cluster list",
    "cluster bots list",
    "cluster bots info",
    "cluster bots health",
    "cluster bots logs",
    "cluster bots errors",
    "cluster bots metrics",
    "cluster vars list",
    "cluster vars info",
    "cluster registry list",
    "cluster registry info",
    "cluster pay info",
    # Records of the platform itself, which hold no secrets and belong to no stream.
    "cluster new",
    "cluster update",
    "cluster migrate",
    "cluster workspaces list",
    "cluster workspaces info",
    "cluster workspaces new",
    "cluster workspaces update",
    "cluster workspaces delete",
}
"""Commands that send nothing to a cluster."""

CONFIG = """\
silverback:
  cluster: space/prod
  bots:
    watcher: {image: "a/b:1", network: "ethereum:mainnet:node"}
"""


@dataclass
class Liar(Platform):
    """A platform whose cluster is paid for by nothing that can be true, and which keeps all that it gets."""

    server: Server | None = field(default=None, repr=False)

    @property
    def received(self) -> str:
        """All that came, as text."""
        assert self.server is not None
        return "\n".join(f"{one.line} {one.query} {one.headers} {one.body!r}" for one in self.server.requests)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serving_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def liar(behind: Cluster, home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    (project / "ape-config.yaml").write_text(CONFIG)
    monkeypatch.chdir(project)
    platform = Liar(behind=behind)
    cluster = platform.add_cluster(platform.add_workspace("space", "Space"), "prod", "Prod", status=4)
    platform.streams[cluster] = {"chain_id": 1, "manager": ZERO_ADDRESS, "stream_id": 0}
    platform.managers[1] = ZERO_ADDRESS
    with serving_platform(platform, home) as server:
        platform.server = server
        yield platform


def run(command: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*command.split(), *arguments], input=f"{SECRET}\n")


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_each_command_is_known_to_write_or_not_and_those_that_write_have_no_verify() -> None:
    """A new command belongs into one of the tables above, and one that writes to a cluster into the first."""
    found = dict(commands(cli))
    assert set(found) == set(WRITES) | PAYS | OTHERS
    skipping = {name for name, one in found.items() if any("--no-verify" in param.opts for param in one.params)}
    assert skipping == set(WRITES) | PAYS


@pytest.mark.parametrize("command", WRITES)
def test_a_platform_that_lies_gets_nothing_from_a_command_that_writes(command: str, liar: Liar) -> None:
    result = run(command, *WRITES[command])
    assert (result.exit_code, liar.written) == (1, [])
    assert "the payment stream of space/prod isn't trusted:\n    address:" in result.output
    assert SECRET not in liar.received
    assert SECRET not in result.output


def test_leaving_out_the_verification_is_loud_and_sends(liar: Liar) -> None:
    result = run("cluster vars new", *WRITES["cluster vars new"], "--no-verify")
    assert (result.exit_code, liar.written) == (0, ["POST /c/space/prod/vars"])
    assert "NOT verified (--no-verify)" in result.output
    assert run("cluster vars remove", "rpc", "--yes", "--no-verify").exit_code == 0


@pytest.mark.parametrize("more", [(), ("--no-verify",)])
@pytest.mark.parametrize("command", ["cluster vars new", "cluster registry new", "cluster bots start"])
def test_where_a_stream_is_required_a_cluster_without_one_gets_nothing(
    command: str, more: tuple[str, ...], liar: Liar, behind: Cluster, project: Path
) -> None:
    (project / "ape-config.yaml").write_text("silverback:\n  profile: direct\n  stream: {require: true}\n")
    behind.requests.clear()
    result = run(command, *WRITES[command], *more)
    assert result.exit_code == 1
    assert "`stream: require`" in result.output
    assert [line for line in behind.requests if not line.startswith("GET")] == []


def test_a_client_that_was_connected_only_reads_until_the_gate_is_passed(liar: Liar) -> None:
    with connected(None, "space/prod") as connection:
        assert connection.client.variable_groups == {}
        with pytest.raises(StreamError, match=r"POST /c/space/prod/vars wasn't sent: .* isn't verified yet"):
            connection.client.new_variable_group("rpc", {"KEY": SECRET})
    assert (liar.written, SECRET in liar.received) == ([], False)


def test_code_that_deploys_passes_the_same_gate(liar: Liar) -> None:
    with pytest.raises(StreamError, match="isn't trusted"):
        deploy(cluster="space/prod")
    assert liar.written == []
