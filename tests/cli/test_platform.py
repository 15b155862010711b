"""`workspaces …`, `list`, `new`, `update`, `migrate`, `info` and `health` through the real `ape` command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from ape_silverback.cli.shared.documents import (
    ClusterDocument,
    DirectClusterDocument,
    HealthDocument,
    ResultDocument,
    StatusDocument,
    WorkspaceDocument,
)
from ape_silverback.cluster.client import ClusterClient
from tests.cli.conftest import Run, documents, runner, terminal_session
from tests.cli.platform import MANAGER, TOKEN, Platform, serving_platform
from tests.server.machine import KEY, Cluster
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("cli-platform")
CONFIGURATION = {"version": 1, "cpu": 2, "memory": 4, "networks": 3, "bots": 5, "bandwidth": 1, "duration": 6}


@pytest.fixture
def platform(home: Path, served: Cluster) -> Iterator[Platform]:
    """A platform with a workspace of a paid and an unpaid cluster, and an empty workspace."""
    platform = Platform(behind=served)
    space = platform.add_workspace("space", "My space")
    platform.add_workspace("void", "Empty")
    paid = platform.add_cluster(
        *(space, "prod", "Production"),
        version="0.9.0",
        status=4,
        expiration="2126-01-01T00:00:00Z",
        configuration=CONFIGURATION,
    )
    platform.add_cluster(space, "test", "Trial")
    platform.streams[paid] = {"chain_id": 1, "manager": MANAGER, "stream_id": 7}
    with serving_platform(platform, home):
        yield platform


@pytest.fixture
def run(platform: Platform, home: Path, project: Path) -> Run:
    """`ape silverback cluster …` of a user who is logged in; nothing secret is ever shown."""
    plain = runner(home, project)

    def run(*arguments: str, **more: Any) -> CompletedProcess[str]:
        result = plain(*arguments, **more)
        for secret in (TOKEN, KEY, *platform.clusters):  # the id of a cluster is the key of its product code
            assert secret not in result.stdout + result.stderr
        return result

    return run


def columns(text: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in text.splitlines()]


# Workspaces


def test_workspaces_as_text_and_as_data(run: Run) -> None:
    assert [row[:2] for row in columns(run("workspaces", "list").stdout)] == [
        ["SLUG", "NAME"],
        ["space", "My space"],
        ["void", "Empty"],
    ]
    found = documents(list[WorkspaceDocument], run("workspaces", "list", "--format", "json").stdout)
    assert [(one.slug, one.name, one.owner) for one in found] == [("space", "My space", None), ("void", "Empty", None)]
    assert re.search(r"^owner: +Ada$", run("workspaces", "info", "space").stdout, re.MULTILINE)
    one = documents(WorkspaceDocument, run("workspaces", "info", "v*", "--format", "json").stdout)
    assert (one.slug, one.owner) == ("void", "Ada")


def test_no_workspaces_says_how_to_make_one(run: Run, platform: Platform) -> None:
    platform.workspaces.clear()
    result = run("workspaces", "list")
    assert (result.stdout, "workspaces new" in result.stderr) == ("", True)


def test_a_workspace_is_made_renamed_and_deleted(run: Run, platform: Platform) -> None:
    made = documents(WorkspaceDocument, run("workspaces", "new", "-n", "Farm", "-s", "farm", "--format", "json").stdout)
    assert (made.slug, made.name) == ("farm", "Farm")
    assert run("workspaces", "new", "--name", "Garden").stdout == "garden: created\n"
    assert run("workspaces", "update", "farm", "-n", "Ranch", "-s", "ranch").stdout == "ranch: updated\n"
    assert [one["name"] for one in platform.workspaces.values() if one["slug"] == "ranch"] == ["Ranch"]
    result = run("workspaces", "delete", "ranch", "gard*", "--yes", "--format", "json")
    assert [one.result for one in documents(list[ResultDocument], result.stdout)] == ["removed", "removed"]
    assert {one["slug"] for one in platform.workspaces.values()} == {"space", "void"}


def test_a_workspace_whose_slug_is_taken_is_one_error(run: Run, platform: Platform) -> None:
    assert "workspace 'space' exists already" in run("workspaces", "new", "--slug", "space", code=1).stderr
    assert len(platform.workspaces) == 2


def test_a_workspace_that_holds_clusters_stays_and_the_others_go(run: Run, platform: Platform) -> None:
    result = run("workspaces", "delete", "--all", "--yes", code=1)
    assert result.stdout == "void: removed\n"
    assert "the workspace holds clusters" in result.stderr
    assert {one["slug"] for one in platform.workspaces.values()} == {"space"}


def test_delete_asks_and_no_is_no(run: Run, platform: Platform, home: Path, project: Path) -> None:
    assert "pass --yes" in run("workspaces", "delete", "void", code=2).stderr
    for answer, code in (("n\n", 1), ("y\n", 0)):
        arguments = ("workspaces", "delete", "void")
        shown = terminal_session(arguments, home, project, code, (("[y/N]", answer),))
        assert "Delete the workspace void of http://127.0.0.1" in shown
        assert ("void" in {one["slug"] for one in platform.workspaces.values()}) == (answer == "n\n")


# Clusters


def test_clusters_as_text_and_as_data(run: Run) -> None:
    rows = columns(run("list").stdout)
    assert rows[0] == ["CLUSTER", "NAME", "STATE", "VERSION", "PAID FOR"]
    assert rows[1][:4] == ["space/prod", "Production", "running", "0.9.0"]
    assert rows[1][4].endswith(" left")
    assert rows[2] == ["space/test", "Trial", "created", "-", "-"]
    found = documents(list[ClusterDocument], run("list", "space", "--format", "json").stdout)
    assert [(one.slug, one.status) for one in found] == [("prod", "running"), ("test", "created")]
    assert found[0].configuration is not None
    assert found[0].configuration.memory == 4
    empty = run("list", "void")
    assert (empty.stdout, "cluster new void" in empty.stderr) == ("", True)


def test_a_cluster_is_made_and_renamed(run: Run, platform: Platform) -> None:
    made = documents(ClusterDocument, run("new", "void", "-n", "One", "-s", "one", "--format", "json").stdout)
    assert (made.workspace, made.slug, made.name, made.status) == ("void", "one", "One", "created")
    assert run("new", "-s", "two").stdout == "space/two: created\n", "in the profile's default workspace"
    assert run("update", "void/one", "-n", "First", "-s", "first").stdout == "void/first: updated\n"
    assert run("update", "two", "-n", "Second").stdout == "space/two: updated\n"
    assert {one["name"] for one in platform.clusters.values()} == {"Production", "Trial", "First", "Second"}


@pytest.mark.parametrize(
    "command",
    [
        ["update", "space/prod"],
        ["update", "space/prod", "-n", "Production", "-s", "prod"],
        ["workspaces", "update", "space"],
        ["workspaces", "update", "space", "-n", "My space"],
    ],
)
def test_update_without_a_change_says_so_and_sends_nothing(run: Run, platform: Platform, command: list[str]) -> None:
    result = run(*command)
    assert "nothing to change" in result.stderr
    assert result.stdout.endswith(": unchanged\n")
    assert platform.changes == []


def test_migrate_asks_and_checks_the_version(run: Run, platform: Platform, home: Path, project: Path) -> None:
    assert "no version '0.9.11'; did you mean" in run("migrate", "prod", "--version", "0.9.11", "-y", code=1).stderr
    question = "Migrate space/prod from version 0.9.0 to version 0.9.1?"
    assert question in run("migrate", "prod", "--version", "0.9.1", code=2).stderr
    arguments = ("migrate", "prod", "--version", "0.9.1")
    assert question in terminal_session(arguments, home, project, 1, (("[y/N]", "n\n"),))
    assert platform.migrations == []
    result = run("migrate", "prod", "--version", "0.9.1", "--yes")
    assert result.stdout == "space/prod: migrating to version 0.9.1\n"
    result = run("migrate", "space/prod", "--yes", "--format", "json")
    assert documents(ClusterDocument, result.stdout).slug == "prod"
    assert platform.migrations == [("prod", "0.9.1"), ("prod", None)]


def test_info_is_the_record_of_the_platform(run: Run) -> None:
    found = documents(ClusterDocument, run("info", "-c", "space/prod", "--format", "json").stdout)
    assert found.stream == f"eip155:1:{MANAGER}/7"
    facts = dict(line.split(":", 1) for line in run("info", "--cluster", "space/prod").stdout.splitlines())
    assert facts["state"].strip() == "running"
    assert facts["version"].strip() == "0.9.0"
    assert "2126" in facts["expires"] or "2125" in facts["expires"]
    assert facts["stream"].strip() == f"eip155:1:{MANAGER}/7"
    assert facts["memory"].strip() == "4 GiB"
    assert documents(ClusterDocument, run("info", "-c", "test", "--format", "json").stdout).stream is None
    assert re.search(r"^expires: +-$", run("info", "-c", "test").stdout, re.MULTILINE)


def test_a_cluster_of_the_platform_is_used_as_any_other(run: Run, platform: Platform, client: ClusterClient) -> None:
    platform.streams.clear()  # or its stream would be verified first
    made = run("bots", "new", "alpha", "-i", "a/b:1", "--network", "ethereum:mainnet:alchemy", "-c", "prod")
    assert made.stdout == "alpha: running\n"
    wait_for(lambda: client.bots["alpha"].is_healthy)
    page = documents(StatusDocument, run("status", "-c", "space/prod", "--format", "json").stdout)
    assert [bot.name for bot in page.bots] == ["alpha"]
    assert page.expiration is not None
    assert page.expiration.year == 2126
    assert re.search(r"left", run("status", "-c", "space/prod").stdout)


def test_the_status_of_all_clusters_shows_those_that_answer_and_names_the_others(
    run: Run, platform: Platform, client: ClusterClient
) -> None:
    client.new_bot("alpha", "a/b:1", "ethereum", "mainnet", "node")
    client.new_bot("beta", "a/b:2", "ethereum", "mainnet", "node")
    client.bots["beta"].stop()
    wait_for(lambda: client.bots["beta"].status.name == "STOPPED")
    every = run("status", "--all-clusters", "--filter", "state=stopped", "-o", "wide").stdout
    assert re.findall(r"^Cluster +(\S+) on", every, re.MULTILINE) == ["space/prod", "space/test"]
    assert len(re.findall(r"^beta +stopped", every, re.MULTILINE)) == 2
    assert not re.search(r"^alpha", every, re.MULTILINE)

    platform.down.add("test")
    some = run("status", "--all-clusters", "--format", "json", code=1)
    [found] = documents(list[StatusDocument], some.stdout)
    assert found.cluster.startswith("space/prod")
    assert [bot.name for bot in found.bots] == ["alpha", "beta"]
    assert re.search(r"Error: 1 of 2 clusters can't be shown:\n +space/test: .*the cluster doesn.t answer", some.stderr)
    for option in (["--watch"], ["--cluster", "space/prod"]):
        assert "--all-clusters can't be combined" in run("status", "--all-clusters", *option, code=2).stderr


@pytest.mark.parametrize(
    ("command", "says", "code"),
    [
        (["list", "moon"], "no workspace 'moon'; known: space, void", 1),
        (["new", "moon"], "no workspace 'moon'", 1),
        (["workspaces", "info", "moon"], "no workspace 'moon'; there is: space, void", 1),
        (["workspaces", "update", "moon", "-n", "x"], "no workspace 'moon'", 1),
        (["workspaces", "delete"], "Pass the name of a workspace, or --all.", 2),
        (["update", "space/moon", "-n", "x"], "workspace 'space' has no cluster 'moon'; known: prod, test", 1),
        (["migrate", "moon/prod", "-y"], "no workspace 'moon'", 1),
        (["info", "-c", "space/moon"], "workspace 'space' has no cluster 'moon'; known: prod, test", 1),
        (["new", "-s", "prod"], "cluster 'prod' exists already", 1),
        (["bots", "list", "-c", "space/moon"], "workspace 'space' has no cluster 'moon'; known: prod, test", 1),
        (["bots", "list", "-c", "moon/prod"], "no workspace 'moon'; known: space, void", 1),
        (["info"], "Clusters: space/prod, space/test", 1),
        (["status"], "no cluster of workspace 'space' is chosen: pass --cluster space/NAME", 1),
        (["workspaces", "list", "-p", "nobody"], "default, direct", 1),
        (["workspaces", "list", "-p", "direct"], "is of one cluster; only the platform has workspaces", 1),
        (
            ["bots", "remove", "--all", "-y", "-p", "direct", "-c", "space/prod"],
            "is of one cluster; --cluster space/prod doesn't apply",
            1,
        ),
        (["list", "-p", "direct"], "Profiles of the platform: default", 1),
    ],
)
def test_what_isnt_there_is_named_with_what_is(run: Run, command: list[str], says: str, code: int) -> None:
    result = run(*command, code=code)
    assert says in result.stderr
    assert result.stdout == ""


def test_an_error_about_a_cluster_keeps_its_id_secret(run: Run, platform: Platform) -> None:
    platform.streams = {one: {"chain_id": 1} for one in platform.clusters}
    result = run("info", "-c", "space/prod", code=1)
    assert "/clusters/.../stream isn't what the API promises: manager" in result.stderr


def test_no_default_workspace_asks_for_one(run: Run, home: Path) -> None:
    profile = home / ".silverback" / "profile.toml"
    profile.write_text(profile.read_text().replace('default-workspace = "space"\n', ""))
    assert "Pass a WORKSPACE" in run("list", code=2).stderr
    assert "Your workspaces: space, void." in run("new", code=2).stderr


def test_a_login_that_the_platform_refuses_says_to_log_in(run: Run, home: Path) -> None:
    login = home / ".silverback" / "default.json"
    login.write_text(login.read_text().replace(TOKEN, "another"))
    assert "log in with `ape silverback login` again" in run("workspaces", "list", code=1).stderr


def test_looking_writes_nothing(run: Run, home: Path, project: Path) -> None:
    def content() -> dict[str, tuple[int, int]]:
        found = [path for folder in (home, project) for path in folder.rglob("*") if ".ape" not in path.parts]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    before = content()
    for command in ("workspaces list", "workspaces info void", "list", "info -c prod", "health -c prod", "--help"):
        run(*command.split())
    assert content() == before


# A cluster that is reached directly


def test_info_and_health_of_a_direct_cluster(run: Run, client: ClusterClient, served: Cluster) -> None:
    found = documents(DirectClusterDocument, run("info", "-p", "direct", "--format", "json").stdout)
    assert (found.profile, found.host, found.configuration, found.runtime) == ("direct", served.url, None, "machine")
    assert re.search(r"^version: +\S+$", run("info", "-p", "direct").stdout, re.MULTILINE)
    for name in ("alpha", "beta"):
        client.new_bot(name, "a/b:1", "ethereum", "mainnet", "alchemy")
    wait_for(lambda: all(bot.is_healthy for bot in client.bots.values()))
    lines = run("health", "-p", "direct").stdout.splitlines()
    assert lines == ["cluster: healthy", "network ethereum:mainnet: healthy", "bot alpha: healthy", "bot beta: healthy"]
    served.die("beta", 1)
    wait_for(lambda: not client.bots["beta"].is_healthy)
    result = run("health", "-p", "direct", "--format", "json", code=1)
    assert documents(HealthDocument, result.stdout).bots == {"alpha": True, "beta": False}
    assert "not healthy: " in result.stderr
    assert "beta" in result.stderr


@pytest.mark.parametrize("command", ["info", "health", "status", "bots list", "vars list", "registry list"])
def test_a_cluster_that_doesnt_answer_is_one_error(home: Path, project: Path, command: str) -> None:
    run = runner(home, project, SILVERBACK_CLUSTER_URI="http://127.0.0.1:9", SILVERBACK_CLUSTER_API_KEY="k")
    result = run(*command.split(), "--format", "json", code=1)
    assert result.stdout == ""
    assert "127.0.0.1:9" in result.stderr
