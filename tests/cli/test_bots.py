"""`bots …` and `status` through the real `ape` command, against the local cluster's application."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import click
import pytest
import yaml

from ape_silverback.cli.shared.documents import (
    BotDocument,
    BotHealthDocument,
    LogDocument,
    ResultDocument,
    StatusDocument,
)
from ape_silverback.cluster.bot_errors import ErrorCount
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import RestartPolicy
from tests.cli.conftest import INTERRUPT, AtTerminal, Run, documents, runner
from tests.cluster.server import BOT, Reply, Request, answer, serving
from tests.conftest import ape_command, environment_of
from tests.server.machine import Cluster
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("cli-bots")
NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def cluster(served: Cluster, client: ClusterClient) -> Cluster:
    """A cluster with three running bots."""
    for name in NAMES:
        client.new_bot(name, "ghcr.io/me/bot:1", "ethereum", "mainnet", "alchemy", account="deployer")
    wait_for(lambda: all(bot.is_healthy for bot in client.bots.values()))
    return served


# Looking


def test_list_as_text_and_as_data(run: Run, cluster: Cluster) -> None:
    text = run("bots", "list").stdout
    assert [line.split()[:2] for line in text.splitlines()] == [["NAME", "STATE"], *([n, "running"] for n in NAMES)]
    found = documents(list[BotDocument], run("bots", "list", "--format", "json").stdout)
    assert [bot.name for bot in found] == list(NAMES)
    assert found[0].account == "deployer"
    assert yaml.safe_load(run("bots", "list", "--format", "yaml").stdout)[1]["name"] == "beta"
    assert [bot["name"] for bot in json.loads(run("bots", "list", "*a", "--format", "JSON").stdout)] == list(NAMES)
    assert run("bots", "list", "b*", "gamma").stdout.count("running") == 2


def test_a_list_of_nothing_is_data_too(run: Run, client: ClusterClient) -> None:
    assert run("bots", "list").stdout == ""
    assert json.loads(run("bots", "list", "--format", "json").stdout) == []


def test_info_names_credentials_and_groups(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    client.new_credentials("ghcr", "ghcr.io", "e", "u", "p")
    client.new_variable_group("rpc", {"KEY": "1"})
    client.bots["alpha"].update(credential_name="ghcr", environment=["rpc"])
    [found] = documents(list[BotDocument], run("bots", "info", "alpha", "--format", "json").stdout)
    assert (found.credential, found.environment) == ("ghcr", ["rpc"])
    text = run("bots", "info", "alpha", "beta").stdout
    assert re.search(r"^credential: +ghcr$", text, re.MULTILINE)
    assert text.count("network:") == 2


def test_health_fails_when_one_isnt_healthy(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    assert run("bots", "health").stdout.splitlines() == [f"{name}: healthy" for name in NAMES]
    cluster.die("beta", 1)
    wait_for(lambda: not client.bots["beta"].is_healthy)
    result = run("bots", "health", "--format", "json", code=1)
    found = documents(list[BotHealthDocument], result.stdout)
    assert [bot.name for bot in found if not bot.healthy] == ["beta"]
    assert "not healthy: beta" in result.stderr
    assert "beta: not healthy: exited with code 1\n" in run("bots", "health", "beta", code=1).stdout


def test_crashes_restarts_and_the_next_attempt_are_shown(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    client.bots["alpha"].update(restart=RestartPolicy(backoff=0.01))
    client.bots["beta"].update(restart=RestartPolicy(backoff=3600, max_backoff=3600))
    cluster.die("alpha", 7)
    cluster.die("beta", 3)
    wait_for(lambda: (status := client.bots["alpha"].restarts) is not None and status.count == 1)
    wait_for(lambda: (status := client.bots["beta"].restarts) is not None and status.next_start is not None)
    wait_for(lambda: client.bots["alpha"].is_healthy)

    assert run("bots", "errors", "alpha").stdout == "1 x alpha\n    exited with code 7\n"  # though it runs again
    text = run("bots", "info", "alpha", "beta").stdout
    policy = "on-failure, 1 hour to 1 hour later, until 5 crashes in 10 minutes"
    assert re.search(rf"^restart: +{policy}$", text, re.MULTILINE)
    assert re.search(r"^restarts: +1$", text, re.MULTILINE)
    assert re.search(r"^restarts: +0, starts again in \d+m \d+s$|^restarts: +0, starts again in 1h", text, re.MULTILINE)
    assert re.search(r"^crashes:\n  \d{4}-.* ago\)  exited with code 7$", text, re.MULTILINE)

    rows = {line.split()[0]: line for line in run("bots", "list", "-o", "wide").stdout.splitlines()}
    assert rows["NAME"].split()[2:6] == ["UPTIME", "RESTARTS", "HEARTBEAT", "LAG"]
    assert re.match(r"alpha +running +\d.*s +1 +- +- +ethereum", rows["alpha"])
    assert re.search(r"starts again in .*: exited with code 3$", rows["beta"])
    assert "starts again in" in run("status").stdout
    assert "RESTARTS" in run("status", "-o", "wide").stdout

    bots = {bot.name: bot for bot in documents(StatusDocument, run("status", "--format", "json").stdout).bots}
    assert bots["alpha"].restarts == client.bots["alpha"].restarts
    assert bots["beta"].restarts is not None
    assert [crash.reason for crash in bots["beta"].restarts.crashes] == ["exited with code 3"]


def test_a_bot_that_falls_behind_is_told_with_heartbeat_and_lag(
    run: Run, cluster: Cluster, client: ClusterClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.machine, "work_folder", lambda bot: tmp_path / "work" / str(bot))
    moment = datetime.now(timezone.utc).isoformat()
    beat = {"updated": moment, "blocks": True, "processed": 7, "processed_at": moment, "head": 100, "first": 1}
    file = tmp_path / "work" / str(client.bots["beta"].id) / "heartbeat.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(beat))
    wait_for(lambda: not client.bots["beta"].is_healthy, 30)
    assert "beta: not healthy: 93 blocks behind\n" in run("bots", "health", code=1).stdout
    [found] = documents(list[BotHealthDocument], run("bots", "health", "beta", "--format", "json", code=1).stdout)
    assert (found.reason, found.last_block, found.lag) == ("93 blocks behind", 7, 93)
    assert found.heartbeat is not None
    text = run("bots", "info", "beta").stdout
    assert re.search(r"^health: +not healthy: 93 blocks behind$", text, re.MULTILINE)
    assert re.search(r"^heartbeat: .* ago\)$", text, re.MULTILINE)
    assert re.search(r"^lag: +93 blocks$", text, re.MULTILINE)
    [row] = [line for line in run("status", "-o", "wide").stdout.splitlines() if line.startswith("beta")]
    assert re.search(r"0 +\d.*s +93 blocks .* 93 blocks behind$", row)


def test_what_a_cluster_doesnt_tell_of_health_and_restarts_is_a_dash(home: Path, project: Path) -> None:
    def behave(request: Request) -> Reply:
        told = {"/bots": [BOT], "/health": {"networks": {}, "bots": {str(BOT["name"]): {"healthy": True}}}}
        return answer(told[request.path])

    with serving(behave) as plain:
        run = runner(home, project, SILVERBACK_CLUSTER_URI=plain.url, SILVERBACK_CLUSTER_API_KEY="k")
        [_, row] = run("bots", "list", "-o", "wide").stdout.splitlines()
        assert row.split()[1:6] == ["running", "-", "-", "-", "-"]
        assert run("bots", "health").stdout.endswith(": healthy\n")
        [found] = documents(list[BotDocument], run("bots", "list", "--format", "json").stdout)
        assert (found.health, found.restarts) == (None, None)


def test_all_of_them_come_by_name(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    client.new_bot("aardvark", "ghcr.io/me/bot:1", "ethereum", "mainnet", "alchemy")
    wait_for(lambda: client.bots["aardvark"].is_healthy)
    by_name = ["aardvark", *NAMES]
    assert [line.partition(":")[0] for line in run("bots", "health").stdout.splitlines()] == by_name
    assert [bot["name"] for bot in json.loads(run("bots", "info", "*", "--format", "json").stdout)] == by_name
    named = run("bots", "list", "gamma", "a*", "--format", "json").stdout
    assert [bot["name"] for bot in json.loads(named)] == ["gamma", "aardvark", "alpha"]


@pytest.mark.parametrize("command", [("status",), ("bots", "list")])
def test_a_narrow_terminal_shows_names_and_reasons_whole(
    cluster: Cluster, client: ClusterClient, at_terminal: AtTerminal, command: tuple[str, ...]
) -> None:
    name = "price-watcher-arbitrum-uniswap-v3"
    client.new_bot(name, "ghcr.io/me/price-watcher-arbitrum:1.4", "ethereum", "mainnet", "alchemy")
    wait_for(lambda: client.bots[name].is_healthy)
    cluster.log("beta", "2126-01-01T00:00:00Z ERROR:    " + "out of gas " * 20)
    cluster.die("beta", 3)
    wait_for(lambda: not client.bots["beta"].is_healthy)
    shown = click.unstyle(at_terminal(*command, COLUMNS="80"))
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(rf"^{name} +running", shown, re.MULTILINE)
    assert re.search(r"^beta +stopped +- +exited with code 3", shown, re.MULTILINE)
    whole = click.unstyle(at_terminal(*command, COLUMNS="200"))
    assert "ghcr.io/me/price-watcher-arbitrum:1.4" in whole


def test_status_is_one_page_with_errors(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    cluster.log("beta", "2126-01-01T00:00:00Z ERROR:    out of gas")
    cluster.die("beta", 3)
    wait_for(lambda: not client.bots["beta"].is_healthy)
    text = run("status").stdout
    assert re.search(r"^Health +not healthy: .*beta", text, re.MULTILINE)
    assert re.search(r"^beta +stopped +- .*exited with code 3", text, re.MULTILINE)
    assert "Errors of beta\n  1 x exited with code 3: out of gas\n  1 x out of gas\n" in text
    page = documents(StatusDocument, run("status", "--format", "json").stdout)
    assert not page.healthy
    assert "out of gas" in page.errors["beta"]
    assert {bot.name: bot.state for bot in page.bots} == {"alpha": "running", "beta": "stopped", "gamma": "running"}
    assert page.expiration is None


def test_status_that_watches_needs_a_terminal(run: Run, cluster: Cluster) -> None:
    assert "needs a terminal" in run("status", "--watch", code=2).stderr
    assert "can't be combined with --format" in run("status", "--watch", "--format", "json", code=2).stderr


def test_errors_are_grouped_and_counted(run: Run, cluster: Cluster) -> None:
    for name, times in (("alpha", 2), ("beta", 1)):
        cluster.log(name, *["2126-01-01T00:00:00Z ERROR:    rpc is down"] * times)
    cluster.log("beta", "2126-01-01T00:00:00Z ERROR:    odd", "2126-01-01T00:00:00Z   with more")
    found = documents(list[ErrorCount], run("bots", "errors", "--format", "json").stdout)
    assert [(one.message.splitlines()[0], one.count, one.bots) for one in found] == [
        ("rpc is down", 3, {"alpha": 2, "beta": 1}),
        ("odd", 1, {"beta": 1}),
    ]
    text = run("bots", "errors").stdout
    assert text.startswith("3 x alpha (2), beta\n    rpc is down\n")
    assert run("bots", "errors", "gamma").stdout == ""


def test_a_task_that_fails_again_and_again_is_one_error_with_its_traceback(run: Run, cluster: Cluster) -> None:
    for number in range(3):
        second, block = f"2126-01-01T00:00:{number:02}Z", f"beat[block=0x{number:064x}]"
        trace = ["Exception found while executing function.", '  File "bots/alpha.py", line 9, in beat']
        trace += ["    raise ValueError('no price')", "ValueError: no price"]
        cluster.log("alpha", f"{second} INFO:     {block} - Started", *(f"{second} {line}" for line in trace))
        cluster.log("alpha", f"{second} ERROR:    {block} - 0.0{number}0s ({number}.0%)")
    [one] = documents(list[ErrorCount], run("bots", "errors", "--format", "json").stdout)
    assert (one.count, one.bots) == (3, {"alpha": 3})
    assert one.message.startswith("beat[block=0x")
    assert one.message.endswith("\nValueError: no price")
    assert "Errors of alpha\n  3 x ValueError: no price\n" in run("status").stdout
    assert run("bots", "errors").stdout.startswith("3 x alpha\n")
    lines = run("bots", "logs", "alpha", "--level", "ERROR").stdout.splitlines()
    assert [line.rpartition("| ")[2] for line in lines[:5]] == [*trace, lines[4].rpartition("| ")[2]]


# Logs


def at(second: int, text: str, level: str = "INFO") -> str:
    return f"2026-01-01T00:00:{second:02}Z {level + ':':<9} {text}"


def test_logs_of_several_are_merged_by_time_with_names(run: Run, cluster: Cluster) -> None:
    cluster.log("alpha", at(1, "a1"), "  more of a1", at(4, "a4"))
    cluster.log("beta", at(2, "b2"), at(3, "b3"))
    lines = run("bots", "logs", "alpha", "beta").stdout.splitlines()
    assert [(line.split()[0], line.rpartition("| ")[2].strip()) for line in lines] == [
        ("alpha", "a1"),
        ("alpha", "more of a1"),
        ("beta", "b2"),
        ("beta", "b3"),
        ("alpha", "a4"),
    ]
    assert not run("bots", "logs", "alpha").stdout.startswith("alpha")
    assert {line.split()[0] for line in run("bots", "logs", "--all").stdout.splitlines()} == {"alpha", "beta"}


def test_logs_as_a_document_a_line(run: Run, cluster: Cluster) -> None:
    cluster.log("alpha", at(1, "first"), at(2, "second", "ERROR"), "rubbish")
    lines = run("bots", "logs", "alpha", "--format", "json").stdout.splitlines()
    found = [LogDocument.model_validate_json(line) for line in lines]
    assert [(one.bot, one.level, one.message) for one in found] == [
        ("alpha", "INFO", "first"),
        ("alpha", "ERROR", "second"),
        ("alpha", None, "rubbish"),
    ]
    assert [one["message"] for one in yaml.safe_load_all(run("bots", "logs", "alpha", "--format", "yaml").stdout)] == [
        "first",
        "second",
        "rubbish",
    ]


def test_logs_of_a_removed_bot_can_be_read(run: Run, served: Cluster, client: ClusterClient) -> None:
    for lines in ([at(1, "of the first")], [at(2, "old"), at(3, "odd", "ERROR"), at(4, "its last words")]):
        client.new_bot("mourned", "ghcr.io/me/bot:1", "ethereum", "mainnet", "alchemy")
        wait_for(lambda: client.bots["mourned"].is_healthy)
        served.log("mourned", *lines)
        client.bots["mourned"].remove()

    def messages(*arguments: str) -> list[str]:
        return [line.rpartition("| ")[2] for line in run("bots", "logs", *arguments).stdout.splitlines()]

    assert messages("mourned", "--removed", "--tail", "2") == ["odd", "its last words"]
    assert messages("mourned", "--removed", "--level", "ERROR") == ["odd"]
    assert messages("mourned", "--removed", "--until", "2026-01-01T00:00:02Z") == ["old"]
    assert messages("mourned*", "--removed") == ["of the first", "old", "odd", "its last words"]
    [line] = run("bots", "logs", "mourned", "--removed", "--tail", "1", "--format", "json").stdout.splitlines()
    assert LogDocument.model_validate_json(line).bot == "mourned"
    assert "no bot 'mourned'" in run("bots", "logs", "mourned", code=1).stderr
    assert "no removed bot 'alive'; there is: " in run("bots", "logs", "alive", "--removed", code=1).stderr
    assert "can't be combined" in run("bots", "logs", "mourned", "--removed", "-f", code=2).stderr


def test_logs_of_no_bot_at_all_are_empty(run: Run, client: ClusterClient) -> None:
    assert run("bots", "logs", "--all").stdout == ""


def test_a_cluster_without_logs_of_removed_bots_is_told(home: Path, project: Path) -> None:
    def behave(request: Request) -> Reply:
        assert request.path == "/openapi.json", "nothing else is asked for"
        return answer({"info": {"title": "Silverback", "version": "0.7.39"}})

    with serving(behave) as plain:
        run = runner(home, project, SILVERBACK_CLUSTER_URI=plain.url, SILVERBACK_CLUSTER_API_KEY="k")
        assert "doesn't offer logs of removed bots" in run("bots", "logs", "blocks", "--removed", code=1).stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tail", "2"], ["m3", "m4"]),
        (["--tail", "0"], []),
        (["--tail", f"{10**30}"], ["m1", "m2", "m3", "m4"]),
        (["--level", "WARNING"], ["m2", "m4"]),
        (["-l", "error"], ["m4"]),
        (["--since", "2026-01-01T00:00:02Z", "--until", "2026-01-01T00:00:03Z"], ["m2", "m3"]),
        (["-s", "10m"], []),
        (["--since", "2000 days"], ["m1", "m2", "m3", "m4"]),
    ],
)
def test_logs_are_chosen_by_time_level_and_number(
    run: Run, cluster: Cluster, options: list[str], expected: list[str]
) -> None:
    levels = ("INFO", "WARNING", "INFO", "ERROR")
    cluster.log("alpha", *(at(n, f"m{n}", level) for n, level in enumerate(levels, 1)))
    lines = run("bots", "logs", "alpha", *options).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == expected


@pytest.mark.parametrize(
    "options",
    [
        ["--since", "soon"],
        ["--since", "9999999999 weeks"],
        ["--since", f"{'9' * 5000}s"],
        ["--level", "LOUD"],
        ["-f", "--until", "1m"],
        ["--tail", "-1"],
    ],
)
def test_logs_that_cant_be_chosen_so_are_a_usage_error(run: Run, cluster: Cluster, options: list[str]) -> None:
    assert run("bots", "logs", "alpha", *options, code=2).stdout == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], ["m1", "m1", "m1", "m2"]), (["--tail", "2"], ["m1", "m2"]), (["--tail", "9"], ["m1", "m1", "m1", "m2"])],
)
def test_logs_that_are_followed_come_as_they_are_written(
    cluster: Cluster, home: Path, project: Path, client: ClusterClient, options: list[str], expected: list[str]
) -> None:
    cluster.log("alpha", at(1, "m1"), at(1, "m1"), at(1, "m1"), at(2, "m2"))
    with following(cluster, home, project, "alpha", *options) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        assert [reader.stdout.readline().split()[-1] for _ in expected] == expected
        cluster.log("alpha", at(3, "new"))
        assert reader.stdout.readline().split()[-1] == "new"
        client.bots["alpha"].remove()
        assert reader.wait(10) == 0
        assert "no longer on the cluster" in reader.stderr.read()


def test_of_several_that_are_followed_each_line_says_whose_it_is(
    cluster: Cluster, home: Path, project: Path, client: ClusterClient
) -> None:
    with following(cluster, home, project, "*") as reader:
        assert reader.stdout is not None
        for number, name in enumerate(NAMES):
            cluster.log(name, at(number, "hello"))
        assert {reader.stdout.readline().split()[0] for _ in NAMES} == set(NAMES)
        for bot in client.bots.values():
            bot.remove()
        assert reader.wait(10) == 0


def following(cluster: Cluster, home: Path, project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ape_command(), "silverback", "cluster", "bots", "logs", "-f", *arguments],
        cwd=project,
        env={**environment_of(home), **cluster.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Making and changing


def test_new_with_everything_said(run: Run, client: ClusterClient, served: Cluster) -> None:
    client.new_variable_group("rpc", {"KEY": "1"})
    client.new_credentials("ghcr", "ghcr.io", "e", "u", "p")
    options = ["--image", "ghcr.io/me/bot:2", "--network", "ethereum:sepolia:alchemy", "-a", "me", "-g", "rpc"]
    result = run("bots", "new", "delta", *options, "--credential", "ghcr", "--cluster-access", "--format", "json")
    made = documents(BotDocument, result.stdout)
    assert (made.state, made.network, made.account, made.environment) == ("running", "sepolia", "me", ["rpc"])
    assert client.bots["delta"].cluster_access is True
    assert "delta: running and healthy" in result.stderr


def test_new_takes_what_isnt_said_from_the_project(run: Run, client: ClusterClient, project: Path) -> None:
    (project / "bots").mkdir()
    (project / "bots" / "watcher.py").touch()
    (project / "ape-config.yaml").write_text(
        "name: farm\nethereum:\n  default_network: sepolia\nsilverback:\n  registry: ghcr.io/me\n  account: deployer\n"
    )
    assert run("bots", "new", "watcher", "--no-wait", APE_SILVERBACK_TAG="v2").stdout.startswith("watcher: ")
    made = client.bots["watcher"]
    assert (made.image, made.ecosystem, made.network) == ("ghcr.io/me/farm-watcher:v2", "ethereum", "sepolia")
    assert made.account == "deployer"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["alpha", "-i", "a/b:1", "--network", "ethereum:mainnet:alchemy"], "there is already a bot 'alpha'"),
        (["delta", "--network", "ethereum:mainnet:alchemy"], "has no image"),
        (["delta", "-i", "a/b:1", "--network", "nowhere"], "unknown ecosystem 'nowhere'"),
        (["delta", "-i", "a/b:1", "--network", "ethereum:mainnet:alchemy", "-g", "none"], "no variable group 'none'"),
        (["del ta", "-i", "a/b:1", "--network", "ethereum:mainnet:alchemy"], "name"),
    ],
)
def test_new_that_cant_be_is_one_error_and_makes_nothing(
    run: Run, cluster: Cluster, client: ClusterClient, arguments: list[str], says: str
) -> None:
    assert says in run("bots", "new", *arguments, code=1).stderr
    assert set(client.bots) == set(NAMES)


def test_update_shows_old_and_new_and_says_that_a_restart_is_needed(
    run: Run, cluster: Cluster, client: ClusterClient
) -> None:
    before = client.bots["alpha"].task
    result = run("bots", "update", "alpha", "--image", "ghcr.io/me/bot:2", "-a", "", "-n", ":sepolia:alchemy", "--yes")
    assert re.search(r"OLD +NEW", result.stderr)
    assert re.search(r"image +ghcr.io/me/bot:1 +ghcr.io/me/bot:2", result.stderr)
    assert re.search(r"account +deployer +-", result.stderr)
    assert re.search(r"network +mainnet +sepolia", result.stderr)
    assert "pass --restart to restart it" in result.stderr
    changed = client.bots["alpha"]
    assert (changed.image, changed.account, changed.network) == ("ghcr.io/me/bot:2", None, "sepolia")
    assert changed.task == before, "it runs on"


def test_update_restarts_when_asked(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    before = client.bots["alpha"].task
    result = run("bots", "update", "alpha", "--new-name", "omega", "--restart", "--yes", "--format", "json")
    assert documents(BotDocument, result.stdout).state == "running"
    after = client.bots["omega"].task
    assert before is not None
    assert after is not None
    assert after.started_at != before.started_at


def test_update_without_a_change_says_so_and_sends_nothing(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    result = run("bots", "update", "alpha", "--image", "ghcr.io/me/bot:1", "-a", "deployer")
    assert "nothing to change" in result.stderr
    assert result.stdout == "alpha: unchanged, running\n"
    assert "nothing to change" in run("bots", "update", "alpha").stderr


@pytest.mark.parametrize(
    ("options", "says", "code"),
    [
        (["--new-name", "beta"], "a bot named 'beta' already exists", 1),
        (["-g", "none"], "the cluster has no variable group none; it has: none", 1),
        (["--credential", "none"], "the cluster has no registry credential none", 1),
        (["-g", "x", "--clear-vars"], "can't be combined", 2),
        (["-n", "ethereum:sepola"], "sepolia", 1),
        (["--image", "x/y:1"], "pass --yes", 2),
    ],
)
def test_update_that_cant_be_is_one_error_and_changes_nothing(
    run: Run, cluster: Cluster, client: ClusterClient, options: list[str], says: str, code: int
) -> None:
    before = client.bots
    assert says in run("bots", "update", "alpha", *options, code=code).stderr
    assert client.bots == before


@pytest.mark.parametrize(
    "command", [("start", "--all"), ("stop", "alpha", "--yes"), ("update", "alpha", "--image", "x")]
)
def test_a_wait_that_cant_be_is_refused_before_anything_is_sent(
    run: Run, cluster: Cluster, client: ClusterClient, command: tuple[str, ...]
) -> None:
    before = {name: (bot, bot.status) for name, bot in client.bots.items()}
    result = run("bots", *command, SILVERBACK_SETTLE="soon", code=1)
    assert "SILVERBACK_SETTLE=soon: expected a number of seconds" in result.stderr
    assert {name: (bot, bot.status) for name, bot in client.bots.items()} == before


def test_stop_start_and_remove_give_a_result_for_each(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    stopped = run("bots", "stop", "alpha", "b*", "--yes", "--format", "json")
    assert documents(list[ResultDocument], stopped.stdout) == [
        ResultDocument(name=name, result="stopped") for name in ("alpha", "beta")
    ]
    started = run("bots", "start", "--all")
    assert started.stdout.splitlines() == [f"{name}: started" for name in NAMES]
    assert "alpha: running and healthy" in started.stderr
    removed = run("bots", "remove", "--all", "-y", "--format", "yaml")
    assert [one["result"] for one in yaml.safe_load(removed.stdout)] == ["removed"] * 3
    assert client.bots == {}
    assert run("bots", "remove", "--all", "--yes").stdout == ""


def test_one_failure_doesnt_stop_the_others(run: Run, cluster: Cluster, client: ClusterClient) -> None:
    for name in NAMES:
        client.bots[name].stop()
    wait_for(lambda: all(bot.status.name == "STOPPED" for bot in client.bots.values()))
    cluster.machine.broken_for = {cluster.bot("beta").id}
    try:
        result = run("bots", "start", "--all", "--format", "json", code=1)
    finally:
        cluster.machine.broken_for = set()
    found = {one.name: one for one in documents(list[ResultDocument], result.stdout)}
    assert {name: one.result for name, one in found.items()} == {
        "alpha": "started",
        "beta": "failed",
        "gamma": "started",
    }
    assert "the folder is gone" in (found["beta"].error or "")
    assert "failed: beta" in result.stderr


@pytest.mark.parametrize("command", ["start", "stop", "remove", "logs"])
def test_bots_have_to_be_named(run: Run, cluster: Cluster, command: str) -> None:
    assert "Pass the name of a bot, or --all" in run("bots", command, code=2).stderr


@pytest.mark.parametrize("command", ["list", "info", "health", "logs", "errors", "start", "stop", "remove", "update"])
def test_a_bot_that_isnt_there_is_named_with_those_that_are(run: Run, cluster: Cluster, command: str) -> None:
    said = run("bots", command, "delta", code=1).stderr
    assert "no bot 'delta'; there is: alpha, beta, gamma" in said


@pytest.mark.parametrize("command", ["stop", "remove"])
def test_nobody_to_ask_is_no(run: Run, cluster: Cluster, client: ClusterClient, command: str) -> None:
    assert "pass --yes" in run("bots", command, "alpha", code=2).stderr
    assert client.bots["alpha"].is_healthy


def test_looking_and_help_write_nothing(run: Run, cluster: Cluster, home: Path, project: Path) -> None:
    def content() -> set[str]:
        return {str(path) for folder in (home, project) for path in folder.rglob("*") if ".ape" not in path.parts}

    before = content()
    for command in ("status", "bots list", "bots info", "bots health", "bots errors", "bots logs alpha", "bots --help"):
        run(*command.split())
    assert content() == before


@pytest.mark.parametrize("command", ["stop", "remove"])
def test_an_answer_is_taken_as_it_is_meant(
    cluster: Cluster, client: ClusterClient, at_terminal: AtTerminal, command: str
) -> None:
    before = client.bots
    for typed in ("n\n", "\n"):
        shown = at_terminal("bots", command, "alpha", typed=(("[y/N]", typed),), code=1)
        assert "alpha" in shown
        assert "Nothing was changed." in shown
        assert client.bots == before
    at_terminal("bots", command, "alpha", typed=(("[y/N]", "y\n"),))
    assert "alpha" not in [bot.name for bot in client.bots.values() if bot.is_healthy]
    assert ("alpha" in client.bots) == (command == "stop")


def test_an_interrupt_is_no_answer(cluster: Cluster, client: ClusterClient, at_terminal: AtTerminal) -> None:
    for typed in (INTERRUPT, "\x04"):
        shown = at_terminal("bots", "remove", "--all", typed=(("[y/N]", typed),), code=130)
        assert shown.endswith("Nothing was changed.\r\n")
    assert set(client.bots) == set(NAMES)


def test_colours_are_for_terminals_and_no_color_is_honoured(cluster: Cluster, at_terminal: AtTerminal) -> None:
    assert "\x1b[" in at_terminal("bots", "list")
    assert "\x1b[3" not in at_terminal("bots", "list", NO_COLOR="1")
    assert "running" in at_terminal("bots", "list", NO_COLOR="1")


def test_a_followed_log_leaves_the_terminal_at_the_begin_of_a_line(cluster: Cluster, at_terminal: AtTerminal) -> None:
    cluster.log("alpha", at(1, "hello"))
    shown = at_terminal("bots", "logs", "alpha", "-f", typed=(("hello\r\n", INTERRUPT),), code=130)
    assert shown.endswith("hello\r\n\r\n")


def test_what_has_stopped_is_ticked_off(cluster: Cluster, at_terminal: AtTerminal) -> None:
    shown = click.unstyle(at_terminal("bots", "stop", "alpha", "--yes"))
    assert "✓  alpha  stopped" in shown


def test_status_watches_until_an_interrupt(cluster: Cluster, at_terminal: AtTerminal) -> None:
    shown = at_terminal("status", "--watch", "--interval", "0.2", typed=(("Ctrl-C to quit", INTERRUPT),), code=130)
    assert "alpha" in shown
    assert shown.rstrip().endswith("\x1b[?25h\x1b[?1049l"), "cursor and screen are back"


def test_an_interrupt_says_what_goes_on(cluster: Cluster, home: Path, project: Path, client: ClusterClient) -> None:
    cluster.die("alpha", 0)
    wait_for(lambda: client.bots["alpha"].status.name == "STOPPED")
    command = [ape_command(), "silverback", "cluster", "bots", "start", "alpha"]
    environment = {**environment_of(home), **cluster.environment}
    cluster.machine.ready_at_once = False
    try:
        with subprocess.Popen(
            command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "alpha: startup\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            said = process.stderr.read()
    finally:
        cluster.machine.ready_at_once = True
    assert "Interrupted. Started, but no longer waiting for: alpha." in said
    assert "Traceback" not in said


def test_status_shows_some_bots_sorted_and_in_full(cluster: Cluster, run: Run, client: ClusterClient) -> None:
    cluster.die("beta", 1)
    wait_for(lambda: client.bots["beta"].status.name == "STOPPED")
    rows = run("status", "--filter", "state=stopped").stdout
    assert "beta" in rows
    assert "gamma" not in rows
    assert run("status", "--filter", "state=created").stderr == "No bot matches state=created.\n"
    found = documents(StatusDocument, run("status", "--sort", "state", "--format", "json").stdout)
    assert [bot.name for bot in found.bots] == ["beta", "alpha", "gamma"]
    wide = run("status", "-o", "wide", "--filter", "name=al*").stdout
    assert "ENVIRONMENT" in wide
    assert "expected KEY=VALUE" in run("status", "--filter", "stat=x", code=2).stderr


def test_a_narrow_terminal_gets_no_images(cluster: Cluster, at_terminal: AtTerminal) -> None:
    shown = at_terminal("bots", "list", COLUMNS="50")
    assert "IMAGE" not in shown
    assert "bot:1" not in shown
    assert "running" in shown
