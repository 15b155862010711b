"""`vars …` through the real `ape` command, against the local cluster's application."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ape_silverback.cli.shared.documents import GroupDocument, ResultDocument
from ape_silverback.cluster.client import Bot, ClusterClient
from tests.cli.conftest import AtTerminal, Run, documents
from tests.server.machine import Cluster

pytestmark = pytest.mark.xdist_group("cli-vars")
SECRET = "hunter-2=with=equals"


@pytest.fixture
def rpc(client: ClusterClient) -> None:
    """A group with two variables."""
    client.new_variable_group("rpc", {"KEY": SECRET, "LIMIT": "5"})


@pytest.fixture
def bot(rpc: None, client: ClusterClient) -> Bot:
    """A bot that uses the group."""
    return client.new_bot("alpha", "ghcr.io/me/bot:1", "ethereum", "mainnet", "alchemy", environment=["rpc"])


def values(cluster: Cluster, name: str) -> dict[str, str]:
    """Return what the cluster keeps and doesn't tell."""
    return cluster.store.values_of(name)


def test_list_as_text_and_as_data(run: Run, rpc: None, client: ClusterClient) -> None:
    client.new_variable_group("another", {"A": "1"})
    lines = [re.split(r" {2,}", line)[:2] for line in run("vars", "list").stdout.splitlines()]
    assert lines == [["NAME", "VARIABLES"], ["another", "A"], ["rpc", "KEY, LIMIT"]]
    found = documents(list[GroupDocument], run("vars", "list", "--format", "json").stdout)
    assert [(group.name, group.variables) for group in found] == [("another", ["A"]), ("rpc", ["KEY", "LIMIT"])]


def test_a_list_of_nothing_says_how_to_make_one(run: Run, client: ClusterClient) -> None:
    result = run("vars", "list")
    assert (result.stdout, "vars new" in result.stderr) == ("", True)
    assert documents(list[GroupDocument], run("vars", "list", "--format", "json").stdout) == []


def test_info_says_who_uses_it(run: Run, bot: Bot) -> None:
    text = run("vars", "info", "rpc").stdout
    assert re.search(r"^used by: +alpha$", text, re.MULTILINE)
    assert SECRET not in text
    result = run("vars", "info", "rpc", "--format", "json").stdout
    assert SECRET not in result
    assert documents(GroupDocument, result).used_by == ["alpha"]


def test_new_takes_values_from_everywhere_and_shows_none(
    run: Run, client: ClusterClient, served: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "one.env").write_text('# comment\nexport FILE="from $HOME file"\nBOTH=file\nEMPTY=\n')
    (tmp_path / "two.env").write_text("FILE2=two\nFILE=later wins\n")
    result = run(
        *("vars", "new", "rpc", "--env-file", str(tmp_path / "one.env"), "--env-file", str(tmp_path / "two.env")),
        *("--env-file", "-", "-e", f"GIVEN={SECRET}", "-e", "FROM_ENVIRONMENT", "-e", "BOTH=option"),
        stdin="STDIN=hunter-3\n",
        FROM_ENVIRONMENT="hunter-4",
    )
    assert result.stdout == "rpc: created\n"
    assert "hunter" not in result.stderr
    assert values(served, "rpc") == {
        "FILE": "later wins",
        "BOTH": "option",
        "EMPTY": "",
        "FILE2": "two",
        "STDIN": "hunter-3",
        "GIVEN": SECRET,
        "FROM_ENVIRONMENT": "hunter-4",
    }


def test_values_in_a_file_are_taken_as_they_are_written(
    run: Run, client: ClusterClient, served: Cluster, tmp_path: Path
) -> None:
    run("vars", "new", "rpc", "--env-file", "-", "--format", "json", stdin="A=${HOME}\nB='$A'\n")
    assert values(served, "rpc") == {"A": "${HOME}", "B": "$A"}
    (tmp_path / "from-windows.env").write_bytes('\ufeffA=1\r\n\r\nB="two\nlines=2"\r\n'.encode())
    run("vars", "new", "windows", "--env-file", str(tmp_path / "from-windows.env"))
    assert values(served, "windows") == {"A": "1", "B": "two\nlines=2"}


def test_values_are_in_no_log_and_no_error(run: Run, client: ClusterClient) -> None:
    for name, code in (("rpc", 0), ("rpc", 1), ("not a name", 1)):
        result = run("vars", "new", name, "-e", f"KEY={SECRET}", "-v", "DEBUG", code=code)
        assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        ([], None, "Pass at least one variable"),
        (["-e", "A=1", "-e", "1A=hunter"], None, "-e number 2 isn't NAME=VALUE"),
        (["-e", "=hunter"], None, "-e number 1 isn't NAME=VALUE"),
        (["-e", "the hunter"], None, "-e number 1 isn't NAME=VALUE"),
        (["-e", "hunter"], None, "-e number 1: not set in the environment"),
        (["-e", "ABSENT"], None, "-e ABSENT: not set in the environment"),
        (["--env-file", "absent.env"], None, "--env-file absent.env: can't be read: No such file"),
        (["--env-file", "-"], "A=1\nhunter\n", "--env-file -: line 2 isn't NAME=VALUE"),
        (["--env-file", "-"], "A=1\n\n# comment\n\nmy hunter = 2\nB=2\n", "line 5 isn't NAME=VALUE"),
        (["--env-file", "-"], '\nA="hunter\nB=2\n', "line 2 isn't NAME=VALUE"),
        (["--env-file", "-"], '"hunter"=1\n', "line 1 isn't NAME=VALUE"),
    ],
)
def test_new_whose_variables_arent_understood_makes_nothing_and_echoes_nothing(
    run: Run, client: ClusterClient, arguments: list[str], stdin: str | None, says: str
) -> None:
    result = run("vars", "new", "rpc", *arguments, stdin=stdin, code=1 if "--env-file" in arguments else 2)
    assert says in result.stderr
    assert "hunter" not in result.stdout + result.stderr
    assert client.variable_groups == {}


def test_a_secret_that_is_empty_in_the_environment_is_stored_only_when_written_out(
    run: Run, client: ClusterClient, served: Cluster
) -> None:
    for arguments in (("new", "rpc"), ("update", "rpc", "-e", "A=1")):
        result = run("vars", *arguments, "-e", "TOKEN", code=2, TOKEN="")
        assert "-e TOKEN: empty in the environment; pass -e NAME= for an empty value" in result.stderr
    assert client.variable_groups == {}
    run("vars", "new", "rpc", "-e", "TOKEN=")
    assert values(served, "rpc") == {"TOKEN": ""}


def test_a_command_is_run_once_where_that_is_allowed_and_shown_before(
    run: Run, client: ClusterClient, served: Cluster, project: Path
) -> None:
    command = f"echo ran >> log; echo {SECRET[:3]}; echo {SECRET[3:]} >&2"
    (project / "env").write_text(f"KEY=$({command})\nSAME=$({command})\nPLAIN='$(not run)'\nPART=x$(no)\n")
    refused = run("vars", "new", "rpc", "--env-file", "env", code=1)
    assert "env: line 1: KEY is a command; pass --allow-commands to run it" in refused.stderr
    assert not (project / "log").exists()
    result = run("vars", "new", "rpc", "--env-file", "env", "--allow-commands")
    assert result.stderr.count(f"running: {command}") == 1
    assert (project / "log").read_text() == "ran\n"
    assert values(served, "rpc") == {
        "KEY": SECRET[:3],
        "SAME": SECRET[:3],
        "PLAIN": "$(not run)",
        "PART": "x$(no)",
    }


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo hunter; exit 3", "failed with exit code 3"),
        ("printf '\\351'", "printed something else than UTF-8 text"),
        ("/absent/command", "failed with exit code 127"),
    ],
)
def test_a_command_that_fails_sends_nothing(
    run: Run, client: ClusterClient, project: Path, command: str, says: str
) -> None:
    (project / "env").write_text(f"A=1\nKEY=$({command})\n")
    result = run("vars", "new", "rpc", "--env-file", "env", "--allow-commands", code=1)
    assert f"--env-file env: line 2: KEY: `{command}` {says}" in result.stderr
    assert "Traceback" not in result.stderr
    assert client.variable_groups == {}


def test_new_of_one_that_is_there_changes_nothing(run: Run, rpc: None, served: Cluster) -> None:
    result = run("vars", "new", "rpc", "-e", "KEY=other", code=1)
    assert "rpc" in result.stderr
    assert values(served, "rpc") == {"KEY": SECRET, "LIMIT": "5"}


def test_update_sets_and_takes_away_and_keeps_the_rest(
    run: Run, rpc: None, client: ClusterClient, served: Cluster
) -> None:
    client.variable_groups["rpc"].update(GONE="1", GONE_TOO="1")
    result = run("vars", "update", "rpc", "-e", "LIMIT=6=7", "-d", "GONE", "-d", "GONE_TOO", "--format", "json")
    assert documents(GroupDocument, result.stdout).variables == ["KEY", "LIMIT"]
    assert values(served, "rpc") == {"KEY": SECRET, "LIMIT": "6=7"}
    assert run("vars", "update", "rpc", "-e", "NEW=1").stdout == "rpc: updated\n"


def test_update_says_which_bots_keep_the_old_values(run: Run, bot: Bot) -> None:
    assert "alpha: the old values are used until a restart." in run("vars", "update", "rpc", "-e", "KEY=new").stderr


def test_update_without_a_change_says_so(run: Run, rpc: None, client: ClusterClient) -> None:
    before = client.variable_groups
    result = run("vars", "update", "rpc")
    assert (result.stdout, "nothing to change" in result.stderr) == ("rpc: unchanged\n", True)
    assert client.variable_groups == before


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["rpc", "-d", "LIMITS"], "group 'rpc' has no variable LIMITS; it has: KEY, LIMIT", 1),
        (["rpc", "-e", "KEY=1", "-d", "KEY"], "-e and -d name the same variable: KEY", 2),
        (["rpg", "-e", "KEY=1"], "no variable group 'rpg'; there is: rpc", 1),
    ],
)
def test_update_that_cant_be_is_one_error_and_changes_nothing(
    run: Run, rpc: None, served: Cluster, arguments: list[str], says: str, code: int
) -> None:
    assert says in run("vars", "update", *arguments, code=code).stderr
    assert values(served, "rpc") == {"KEY": SECRET, "LIMIT": "5"}


def test_remove_by_glob_gives_a_result_for_each(run: Run, rpc: None, client: ClusterClient) -> None:
    client.new_variable_group("rpc-2", {"A": "1"})
    client.new_variable_group("other", {"A": "1"})
    result = run("vars", "remove", "rpc*", "--yes", "--format", "yaml")
    assert yaml.safe_load(result.stdout) == [
        {"name": name, "result": "removed", "error": None} for name in ("rpc", "rpc-2")
    ]
    assert set(client.variable_groups) == {"other"}
    assert run("vars", "remove", "--all", "-y").stdout == "other: removed\n"


def test_one_that_a_bot_uses_stays_and_the_others_go(run: Run, bot: Bot, client: ClusterClient) -> None:
    client.new_variable_group("other", {"A": "1"})
    result = run("vars", "remove", "--all", "--yes", "--format", "json", code=1)
    found = {one.name: one for one in documents(list[ResultDocument], result.stdout)}
    assert (found["rpc"].result, found["other"].result) == ("failed", "removed")
    assert "alpha" in (found["rpc"].error or "")
    assert set(client.variable_groups) == {"rpc"}


def test_remove_asks_and_no_is_no(run: Run, rpc: None, client: ClusterClient, at_terminal: AtTerminal) -> None:
    assert "pass --yes" in run("vars", "remove", "rpc", code=2).stderr
    assert "Remove the variable group rpc from" in at_terminal("vars", "remove", "rpc", typed=(("?", "n\n"),), code=1)
    assert set(client.variable_groups) == {"rpc"}
    at_terminal("vars", "remove", "rpc", typed=(("[y/N]", "y\n"),))
    assert client.variable_groups == {}


def test_groups_have_to_be_named(run: Run) -> None:
    assert "Pass the name of a variable group, or --all." in run("vars", "remove", code=2).stderr
    assert "no variable group 'rpc'; there is: none" in run("vars", "info", "rpc", code=1).stderr


def test_a_value_that_looks_like_a_private_key_is_warned_of_by_name_and_refused_where_the_section_is_strict(
    run: Run, client: ClusterClient, project: Path
) -> None:
    key = "0x" + "5a" * 32
    made = run("vars", "new", "keys", "-e", f"SIGNER={key}", "-e", "DIGEST=5a5a")
    changed = run("vars", "update", "keys", "-e", f"OTHER={key}")
    for result, name in ((made, "SIGNER"), (changed, "OTHER")):
        assert f"WARNING: the value of {name} in keys looks like a private key" in result.stderr
        assert "DIGEST" not in result.stderr
    (project / "ape-config.yaml").write_text("silverback:\n  strict: true\n")
    refused = run("vars", "new", "more", "-e", f"SIGNER={key}", code=1)
    assert "Error: the value of SIGNER in more looks like a private key" in refused.stderr
    assert set(client.variable_groups) == {"keys"}
    for result in (made, changed, refused):
        assert "5a5a" not in result.stdout + result.stderr
