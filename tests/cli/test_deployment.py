"""`plan`, `deploy`, `history` and `rollback` through the real `ape` command, on a cluster that runs images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from ape_silverback.cli.shared.documents import EventDocument
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.deployment.plan import Plan
from ape_silverback.deployment.record import Record
from tests.cli.conftest import INTERRUPT, AtTerminal, Run, documents
from tests.conftest import ROOT
from tests.server.machine import Cluster

pytestmark = pytest.mark.xdist_group("deployment")

SECTION = """\
name: first
silverback:
  network: ethereum:mainnet:node
  registry: ghcr.io/me
  tag: "1"
  bots:
    blocks:
    prices:
  targets:
    staging:
      network: ethereum:sepolia
"""


@pytest.fixture(autouse=True)
def _files(project: Path, served: Cluster) -> Iterator[None]:
    (project / "bots").mkdir()
    for name in ("blocks", "prices"):
        (project / "bots" / f"{name}.py").write_text("")
    (project / "ape-config.yaml").write_text(SECTION)
    yield
    served.machine.crashing = set()
    served.machine.ready_at_once = True


# Plan


def test_the_exit_code_says_whether_there_is_something_to_do(run: Run, client: ClusterClient) -> None:
    made = run("plan", "--detailed-exitcode", code=2)
    assert "+ create bot blocks" in made.stdout
    assert "image: ghcr.io/me/first-prices:1" in made.stdout
    assert client.bots == {}
    run("plan")
    run("deploy", "--yes")
    assert "blocks, prices are as the project says" in run("plan", "--detailed-exitcode").stdout
    assert "no bot 'block'" in run("plan", "block", "--detailed-exitcode", code=1).stderr
    for mistake in (["--nonsense"], ["--prune", "blocks"]):
        run("plan", *mistake, code=2)
        run("plan", *mistake, "--detailed-exitcode", code=1)


def test_values_of_one_run_win_and_are_told_old_and_new(run: Run, client: ClusterClient) -> None:
    run("deploy", "--yes")
    image = ("--image", "blocks=ghcr.io/you/x:7")
    text = run("plan", "--target", "staging", "--tag", "2", *image, "--set", "bots.prices.account=me").stdout
    assert "network: mainnet -> sepolia" in text
    assert "image: ghcr.io/me/first-blocks:1 -> ghcr.io/you/x:7" in text
    assert "image: ghcr.io/me/first-prices:1 -> ghcr.io/me/first-prices:2" in text
    assert "account: - -> me" in text
    assert "account: - -> you" in run("plan", "blocks", "--account", "you").stdout


def test_a_plan_that_was_written_down_is_applied_as_it_is_until_the_cluster_moves(
    run: Run, client: ClusterClient, project: Path
) -> None:
    run("plan", "--out", "plan.json", "--tag", "7")
    assert Plan.model_validate_json((project / "plan.json").read_text()).writes
    (project / "ape-config.yaml").write_text(SECTION.replace("prices:", "others:"))
    result = run("deploy", "--plan", "plan.json", "--yes")
    assert "2 of 2 bots running and healthy" in result.stdout
    assert {bot.image for bot in client.bots.values()} == {"ghcr.io/me/first-blocks:7", "ghcr.io/me/first-prices:7"}
    moved = run("deploy", "--plan", "plan.json", "--yes", code=1)
    assert "has changed since the plan was made: make a new plan" in moved.stderr
    (project / "plan.json").write_text('{"version": 99}')
    assert "plan.json: not a plan of version 2" in run("deploy", "--plan", "plan.json", "--yes", code=1).stderr
    run("deploy", "blocks", "--plan", "plan.json", code=2)


def test_a_plan_for_a_pull_request_is_a_diff_in_markdown(run: Run, client: ClusterClient) -> None:
    run("deploy", "blocks", "--yes")
    lines = run("plan", "--tag", "2", "--format", "markdown").stdout.splitlines()
    assert lines[0].startswith("### Plan for ")
    assert lines[2:] == [
        "1 to create, 1 to change.",
        "",
        "```diff",
        "! update bot blocks and restart",
        "       image: ghcr.io/me/first-blocks:1 -> ghcr.io/me/first-blocks:2 (changed in the project)",
        "+ create bot prices",
        "       image: ghcr.io/me/first-prices:2",
        "       ecosystem: ethereum",
        "       network: mainnet",
        "       provider: node",
        "```",
    ]


def test_pruning_removes_a_bot_of_this_project_unless_it_is_protected(
    run: Run, client: ClusterClient, project: Path
) -> None:
    client.new_bot("stranger", "x/y:1", "ethereum", "mainnet", "node")
    (project / "ape-config.yaml").write_text(SECTION.replace("    prices:\n", "    prices:\n      protect: true\n"))
    run("deploy", "--yes")
    (project / "ape-config.yaml").write_text(SECTION.replace("    prices:\n", ""))
    refused = run("deploy", "--prune", "--yes", code=1)
    assert "- remove bot prices, which is protected" in refused.stdout
    assert "bot 'prices' is protected" in refused.stderr
    (project / "ape-config.yaml").write_text(SECTION)
    run("deploy", "--yes")
    (project / "ape-config.yaml").write_text(SECTION.replace("    prices:\n", ""))
    assert "Removed: prices." in run("deploy", "--prune", "--yes").stdout
    assert set(client.bots) == {"blocks", "stranger"}
    history = run("history", "--format", "json").stdout
    assert "Nothing to change" in run("deploy", "--prune", "--yes").stdout
    assert run("history", "--format", "json").stdout == history, "an empty deployment is recorded"


def test_a_protected_bot_isnt_removed_by_hand_either(run: Run, client: ClusterClient, project: Path) -> None:
    (project / "ape-config.yaml").write_text(SECTION.replace("    prices:\n", "    prices:\n      protect: true\n"))
    run("deploy", "--yes")
    refused = run("bots", "remove", "--all", "--yes", code=1)
    assert "prices is protected (silverback.bots.prices.protect in ape-config.yaml:9)" in refused.stderr
    assert set(client.bots) == {"blocks", "prices"}
    assert "blocks: removed" in run("bots", "remove", "blocks", "--yes").stdout


# What happens, and what is remembered


def test_what_happens_is_an_event_a_line(run: Run, client: ClusterClient, served: Cluster) -> None:
    served.machine.crashing = {"ghcr.io/me/first-prices:1"}
    result = run("deploy", "--yes", "--format", "json", code=1)
    events = [documents(EventDocument, line) for line in result.stdout.splitlines()]
    assert [events[0].event, events[-1].event] == ["plan", "done"]
    assert Plan.model_validate(events[0].plan).watched == ("blocks", "prices")
    last = {event.name: event.event for event in events}
    assert (last["blocks"], last["prices"]) == ("ready", "failed")


def test_going_back_restores_the_deployment_before_and_history_knows_all(run: Run, client: ClusterClient) -> None:
    run("deploy", "--yes")
    run("deploy", "--yes", "--tag", "2")
    result = run("rollback", "--yes")
    assert "Back to deployment 1 of " in result.stderr
    assert "image: ghcr.io/me/first-blocks:2 -> ghcr.io/me/first-blocks:1" in result.stdout
    assert {bot.image.rpartition(":")[2] for bot in client.bots.values()} == {"1"}
    run("rollback", "blocks", "--to", "2", "--yes")
    assert {name: bot.image.rpartition(":")[2] for name, bot in client.bots.items()} == {"blocks": "2", "prices": "1"}
    assert "no deployment 9; the history has:" in run("rollback", "--to", "9", "--yes", code=1).stderr
    found = documents(list[Record], run("history", "--format", "json").stdout)
    assert [(one.id, one.what) for one in found] == [
        (1, "deploy"),
        (2, "deploy"),
        (3, "rollback to 1"),
        (4, "rollback to 2"),
    ]
    table = run("history").stdout.splitlines()
    assert len(table) == 5
    assert all(line.endswith("succeeded") for line in table[1:])


def test_many_bots_take_a_request_each_and_a_few_more_and_the_second_time_only_a_few(
    run: Run, client: ClusterClient, served: Cluster, project: Path
) -> None:
    for number in range(28):
        (project / "bots" / f"bot{number}.py").touch()
    (project / "ape-config.yaml").write_text(
        "name: many\nsilverback:\n  network: ethereum:mainnet:node\n  registry: x.io\n"
    )
    served.requests.clear()
    run("deploy", "--yes")
    counts = Counter(served.requests)
    assert counts["POST /bots"] == 30
    looks = counts.pop("GET /bots") + counts.pop("GET /health")  # twice in half a second, until all of them run
    assert looks < 40
    assert counts == {
        "POST /bots": 30,
        "GET /openapi.json": 1,
        "GET /vars": 1,
        "GET /deployments": 1,
        "GET /deployments/claims": 1,
        "POST /deployments": 2,
    }
    served.requests.clear()
    run("deploy", "--yes")
    counts = Counter(served.requests)
    gets = ["/openapi.json", "/bots", "/vars", "/health", "/deployments", "/deployments/claims"]
    assert counts == {f"GET {path}": 1 for path in gets}


def test_registry_credentials_are_asked_for_once_a_bot_has_some_and_shown_by_their_name(
    run: Run, client: ClusterClient, served: Cluster, project: Path
) -> None:
    def plan() -> tuple[str, int]:
        served.requests.clear()
        return run("plan").stdout, served.requests.count("GET /credentials")

    client.new_credentials("hub", "ghcr.io", "me@example.org", "me", "password")
    (project / "ape-config.yaml").write_text(SECTION.replace("    prices:", "    prices: {credential: hub}"))
    run("deploy", "--yes")
    text, asked = plan()
    assert "blocks, prices are as the project says" in text
    assert asked == 1
    (project / "ape-config.yaml").write_text(SECTION)
    text, asked = plan()
    assert "credential: hub -> -" in text
    assert asked == 1
    run("deploy", "--yes")
    assert plan()[1] == 0


@pytest.mark.parametrize("command", ["plan", "deploy", "history", "rollback"])
def test_a_target_that_isnt_there_is_named(run: Run, command: str) -> None:
    assert (
        "no target 'stagin' in the silverback section; did you mean 'staging'?"
        in run(command, "--target", "stagin", code=1).stderr
    )


def test_an_interrupt_says_what_was_done_and_the_same_command_does_the_rest(
    at_terminal: AtTerminal, run: Run, client: ClusterClient, served: Cluster
) -> None:
    served.machine.ready_at_once = False
    shown = at_terminal("deploy", "--yes", code=130, typed=(("startup", INTERRUPT),))
    assert "Interrupted: changes in flight will complete." in shown
    assert re.search(r"Done: (blocks, prices|prices, blocks)\.\s+Failed: nothing\.\s+Not started: nothing\.", shown)
    assert "Run the same command again for the rest." in shown
    assert re.search(r"ENDED", run("history").stdout)
    assert "failed: " in run("history").stdout
    served.machine.ready_at_once = True
    assert "2 of 2 bots running and healthy" in run("deploy", "--yes").stdout


# Images

ENGINE = """\
#!/bin/sh
case "$1 $*" in
    image*ls*) ls "$BUILT" | sed 's|_|/|g;s|=|:|g'; exit;;
esac
echo "$*" >> "$LOG"
case "$1 $*" in
    build*prices*broken*) echo "no space left" >&2; exit 3;;
    build*) echo "built it"; for tag; do test "$before" = --tag && touch "$BUILT/$(echo $tag | sed 's|/|_|g;s|:|=|g')"
            before=$tag; done;;
    push*) echo "pushed it";;
    image*inspect*) echo '[{"Id": "'$(cat "$LOG.id" 2> /dev/null || echo 1d)'", "RepoDigests": []}]';;
esac
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A container engine that only says what it was asked for, which this gives: `build IMAGE` and `push IMAGE`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "built").mkdir()
    (programs / "docker").write_text(ENGINE)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SILVERBACK_CONTAINER_ENGINE", "docker")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("BUILT", str(tmp_path / "built"))

    def asked() -> list[str]:
        lines = (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []
        (tmp_path / "log").unlink(missing_ok=True)
        return [f"{line.split()[0]} {found[0]}" for line in lines if (found := re.findall(r"ghcr\S+", line))]

    return asked


def test_images_of_what_is_deployed_are_built_and_pushed_first(
    run: Run, client: ClusterClient, engine: Callable[[], list[str]]
) -> None:
    result = run("deploy", "--build", "--yes", "--format", "json")
    events = [documents(EventDocument, line) for line in result.stdout.splitlines()]
    kinds = [event.event for event in events]
    assert kinds[:3] == ["plan", "built", "built"]
    assert events[1].text == "built and pushed ghcr.io/me/first-blocks:1"
    assert "  built it\n" in result.stderr
    assert [line for line in engine() if not line.startswith("image")] == [
        "build ghcr.io/me/first-blocks:1",
        "push ghcr.io/me/first-blocks:1",
        "build ghcr.io/me/first-prices:1",
        "push ghcr.io/me/first-prices:1",
    ]
    [record] = documents(list[Record], run("history", "--format", "json").stdout)
    assert record.digests == {"blocks": "sha256:1d", "prices": "sha256:1d"}

    again = run("deploy", "--build", "--yes")
    assert "No image is built: no bot changes." in again.stderr
    assert [line for line in engine() if line.startswith("build")] == []

    run("deploy", "--build", "--no-push", "--tag", "2", "blocks", "--yes")
    assert [line for line in engine() if not line.startswith("image")] == ["build ghcr.io/me/first-blocks:2"]
    last = documents(list[Record], run("history", "--format", "json").stdout)[-1]
    assert last.digests == {"blocks": "sha256:1d", "prices": "sha256:1d"}, "prices is of an image that the engine has"


def test_a_tag_that_was_moved_restarts_the_bots_where_an_engine_has_its_digest(
    run: Run, client: ClusterClient, engine: Callable[[], list[str]], tmp_path: Path
) -> None:
    run("deploy", "--build", "--yes")
    same = run("plan", "--detailed-exitcode")
    assert "image tags" not in same.stdout, "nothing is unknown of them"
    (tmp_path / "log.id").write_text("2e")
    moved = run("plan", "--detailed-exitcode", code=2)
    assert "~ restart bot blocks: the tag of ghcr.io/me/first-blocks:1 was moved" in moved.stdout
    run("deploy", "blocks", "--yes")
    left = run("plan").stdout
    assert "= keep bot blocks\n" in left
    assert "~ restart bot prices: the tag of ghcr.io/me/first-prices:1 was moved" in left


def test_a_bot_on_several_networks_is_built_once(
    run: Run, client: ClusterClient, engine: Callable[[], list[str]]
) -> None:
    networks = "bots.blocks.networks=ethereum:sepolia:node,base:mainnet:node"
    run("deploy", "blocks", "--build", "--yes", "--set", networks)
    asked = [line for line in engine() if not line.startswith("image")]
    assert asked == ["build ghcr.io/me/first-blocks:1", "push ghcr.io/me/first-blocks:1"]
    [record] = documents(list[Record], run("history", "--format", "json").stdout)
    assert record.digests == {"blocks-ethereum-sepolia": "sha256:1d", "blocks-base-mainnet": "sha256:1d"}


def test_an_image_that_cant_be_built_stops_everything_before_the_first_write(
    run: Run, client: ClusterClient, engine: Callable[[], list[str]]
) -> None:
    result = run("deploy", "--build", "--tag", "broken", "--yes", code=1)
    assert "prices: `docker build` failed with exit code 3: no space left" in result.stderr
    assert "nothing was changed on the cluster" in result.stderr
    assert client.bots == {}
    assert json.loads(run("history", "--format", "json").stdout) == []


def test_somebody_elses_image_is_deployed_and_not_built(
    run: Run, client: ClusterClient, engine: Callable[[], list[str]], project: Path
) -> None:
    (project / "bots" / "prices.py").unlink()
    run("deploy", "--build", "--image", "prices=ghcr.io/you/prices:7", "--yes")
    assert [line for line in engine() if line.startswith("build")] == ["build ghcr.io/me/first-blocks:1"]
    assert client.bots["prices"].image == "ghcr.io/you/prices:7"


def committed(project: Path) -> str:
    """Put a project into a git repository; gives the commit."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", *arguments]
        return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "Begin")
    return git("rev-parse", "HEAD")


def test_watching_needs_a_cluster_that_runs_the_files_of_this_machine(run: Run, client: ClusterClient) -> None:
    refused = run("deploy", "--watch", "--yes", code=1).stderr
    assert "Error: --watch needs a cluster that runs the files of this machine, and " in refused
    assert "`ape silverback cluster up` starts one" in refused
    assert not client.bots
    for option in (["--dry-run"], ["--format", "json"]):
        assert f"--watch and {option[0]} can't be combined." in run("deploy", "--watch", *option, code=2).stderr
    assert "--on-exit is for --watch." in run("deploy", "--on-exit", "stop", code=2).stderr


def test_the_history_knows_commit_and_dirtiness(run: Run, client: ClusterClient, project: Path) -> None:
    commit = committed(project)
    run("deploy", "--tag", "git", "--yes")
    assert client.bots["blocks"].image == f"ghcr.io/me/first-blocks:{commit[:12]}"
    (project / "bots" / "blocks.py").write_text("changed = 1\n")
    assert "there are changes that aren't committed" in run("deploy", "--tag", "git", "--yes", code=1).stderr
    run("deploy", "--tag", "git", "--allow-dirty", "--network", "ethereum:sepolia:node", "--yes")
    found = documents(list[Record], run("history", "--format", "json").stdout)
    assert [(one.commit, one.dirty) for one in found] == [(commit, False), (commit, True)]
    assert f"{commit[:12]}+" in run("history").stdout


# CI


def test_the_documented_workflow_plans_and_deploys(
    client: ClusterClient,
    served: Cluster,
    home: Path,
    project: Path,
    tmp_path: Path,
    engine: Callable[[], list[str]],
) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/userguides/ci.md").read_text(), re.DOTALL)
    workflow = yaml.safe_load(text)
    (project / "ape-config.yaml").write_text(SECTION.replace("staging:", "production:"))
    commit = committed(project)
    environment = {
        **os.environ,
        **served.environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    assert set(served.environment) < set(workflow["env"])

    def run_job(name: str) -> str:
        """Run the steps of a job that are about this package as the runner does; gives what they print and sum up."""
        shown = ""
        for step in workflow["jobs"][name]["steps"]:
            if "ape silverback" in (script := step.get("run", "")):
                command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
                result = subprocess.run(
                    command,
                    cwd=project,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert result.returncode == 0, result.stdout + result.stderr
                shown += result.stdout
        return shown + (tmp_path / "summary.md").read_text()

    assert "+ create bot blocks" in run_job("plan")
    assert client.bots == {}
    assert re.search(rf"\b{commit[:12]}\b.*blocks, prices +succeeded", run_job("deploy"))
    assert {name: bot.image for name, bot in client.bots.items()} == {
        name: f"ghcr.io/me/first-{name}:{commit[:12]}" for name in ("blocks", "prices")
    }
    assert f"push ghcr.io/me/first-prices:{commit[:12]}" in engine()
