"""`registry …` through the real `ape` command, against the local cluster's application."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ape_silverback.cli.shared.documents import CredentialDocument, ResultDocument
from ape_silverback.cluster.client import ClusterClient
from tests.cli.conftest import INTERRUPT, AtTerminal, Run, documents
from tests.conftest import ape_command, environment_of
from tests.server.machine import Cluster

pytestmark = pytest.mark.xdist_group("cli-registry")
PASSWORD = "hunter 2"
WHO = ("--email", "me@example.org", "--username", "me")


@pytest.fixture
def ghcr(client: ClusterClient) -> None:
    """Credentials."""
    client.new_credentials("ghcr", "ghcr.io", "me@example.org", "me", PASSWORD)


@pytest.fixture
def used(ghcr: None, client: ClusterClient) -> None:
    """A bot that uses them."""
    client.new_bot("alpha", "ghcr.io/me/bot:1", "ethereum", "mainnet", "alchemy", credential_name="ghcr")


def kept(cluster: Cluster, name: str) -> tuple[str, str, str, str]:
    """Return what the cluster keeps and doesn't tell: registry, mail address, user name, password."""
    store = cluster.store
    [row] = store.rows("SELECT * FROM credentials WHERE name = ?", name)
    return row["hostname"], row["email"], row["username"], store._decrypt(row["password"])["password"]


def test_list_and_info_as_text_and_as_data(run: Run, used: None) -> None:
    assert [line.split()[:2] for line in run("registry", "list").stdout.splitlines()] == [
        ["NAME", "REGISTRY"],
        ["ghcr", "ghcr.io"],
    ]
    [found] = documents(list[CredentialDocument], run("registry", "list", "--format", "json").stdout)
    assert (found.name, found.hostname, found.used_by) == ("ghcr", "ghcr.io", None)
    text = run("registry", "info", "ghcr").stdout
    assert re.search(r"^used by: +alpha$", text, re.MULTILINE)
    data = run("registry", "info", "ghcr", "--format", "json").stdout
    assert documents(CredentialDocument, data).used_by == ["alpha"]
    assert PASSWORD not in text + data


def test_a_list_of_nothing_says_how_to_make_some(run: Run, client: ClusterClient) -> None:
    result = run("registry", "list")
    assert (result.stdout, "registry new" in result.stderr) == ("", True)


def test_new_takes_the_password_from_stdin_and_shows_it_nowhere(
    run: Run, client: ClusterClient, served: Cluster
) -> None:
    arguments = ("registry", "new", "ghcr", "ghcr.io", *WHO, "--password-stdin")
    result = run(*arguments, "--format", "json", stdin=f"{PASSWORD}\r\n")
    assert documents(CredentialDocument, result.stdout).hostname == "ghcr.io"
    assert "hunter" not in result.stdout + result.stderr
    assert kept(served, "ghcr") == ("ghcr.io", "me@example.org", "me", PASSWORD)
    assert "ghcr" in run(*arguments, stdin="other\n", code=1).stderr
    assert kept(served, "ghcr")[-1] == PASSWORD


def test_a_password_that_isnt_utf8_is_refused_by_name_before_it_is_sent(
    client: ClusterClient, served: Cluster, home: Path, project: Path
) -> None:
    command = [ape_command(), "silverback", "cluster", "registry", "new", "ghcr", "ghcr.io", *WHO, "--password-stdin"]
    environment = {**environment_of(home), **served.environment}
    result = subprocess.run(command, cwd=project, env=environment, input=b"caf\xe9\n", capture_output=True, check=False)
    assert (result.returncode, b"--password-stdin: stdin isn't UTF-8 text" in result.stderr) == (2, True)
    assert client.credentials == {}


def test_new_asks_a_terminal_and_hides_the_password(
    client: ClusterClient, served: Cluster, at_terminal: AtTerminal
) -> None:
    typed = (("Email: ", "me@example.org\n"), ("User name: ", "me\n"), ("Password: ", f"{PASSWORD}\n"))
    shown = at_terminal("registry", "new", "ghcr", "ghcr.io", typed=typed)
    assert "ghcr: created" in shown
    assert "hunter" not in shown
    assert kept(served, "ghcr") == ("ghcr.io", "me@example.org", "me", PASSWORD)


def test_new_that_is_interrupted_makes_nothing(client: ClusterClient, at_terminal: AtTerminal) -> None:
    shown = at_terminal("registry", "new", "ghcr", "ghcr.io", typed=(("Email: ", INTERRUPT),), code=130)
    assert "Nothing was changed." in shown
    assert client.credentials == {}


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        ([], None, "pass --email"),
        (["--email", "me@example.org"], None, "pass --username"),
        ([*WHO], None, "pass --password-stdin"),
        ([*WHO, "--password-stdin"], "", "--password-stdin: stdin is empty"),
    ],
)
def test_new_without_anybody_to_ask_is_a_usage_error(
    run: Run, client: ClusterClient, arguments: list[str], stdin: str | None, says: str
) -> None:
    assert says in run("registry", "new", "ghcr", "ghcr.io", *arguments, stdin=stdin, code=2).stderr
    assert client.credentials == {}


def test_update_changes_what_is_said_and_keeps_the_rest(run: Run, ghcr: None, served: Cluster) -> None:
    assert run("registry", "update", "ghcr", "--registry", "quay.io").stdout == "ghcr: updated\n"
    assert kept(served, "ghcr") == ("quay.io", "me@example.org", "me", PASSWORD)
    result = run("registry", "update", "ghcr", "--password-stdin", "--format", "json", stdin="hunter 3\n")
    assert "hunter" not in result.stdout + result.stderr
    assert kept(served, "ghcr") == ("quay.io", "me@example.org", "me", "hunter 3")


def test_update_asks_a_terminal_and_nothing_keeps(ghcr: None, served: Cluster, at_terminal: AtTerminal) -> None:
    typed = (("Email: ", "\n"), ("User name: ", "you\n"), ("Password: ", "\n"))
    assert "ghcr: updated" in at_terminal("registry", "update", "ghcr", typed=typed)
    assert kept(served, "ghcr") == ("ghcr.io", "me@example.org", "you", PASSWORD)


@pytest.mark.parametrize("arguments", [[], ["--registry", "ghcr.io"]])
def test_update_without_a_change_says_so(run: Run, ghcr: None, client: ClusterClient, arguments: list[str]) -> None:
    before = client.credentials
    result = run("registry", "update", "ghcr", *arguments)
    assert (result.stdout, "nothing to change" in result.stderr) == ("ghcr: unchanged\n", True)
    assert client.credentials == before


def test_remove_refuses_what_a_bot_uses_and_goes_on(run: Run, used: None, client: ClusterClient) -> None:
    client.new_credentials("quay", "quay.io", "e", "u", "p")
    result = run("registry", "remove", "ghcr", "q*", "--yes", "--format", "json", code=1)
    found = {one.name: one.result for one in documents(list[ResultDocument], result.stdout)}
    assert found == {"ghcr": "failed", "quay": "removed"}
    assert set(client.credentials) == {"ghcr"}


def test_remove_asks_and_no_is_no(run: Run, ghcr: None, client: ClusterClient, at_terminal: AtTerminal) -> None:
    assert "pass --yes" in run("registry", "remove", "ghcr", code=2).stderr
    at_terminal("registry", "remove", "ghcr", typed=(("Remove the registry credential ghcr", "n\n"),), code=1)
    assert set(client.credentials) == {"ghcr"}
    at_terminal("registry", "remove", "ghcr", typed=(("[y/N]", "y\n"),))
    assert client.credentials == {}


@pytest.mark.parametrize("command", ["info", "update", "remove"])
def test_one_that_isnt_there_is_named_with_those_that_are(run: Run, ghcr: None, command: str) -> None:
    assert "no registry credential 'quay'; there is: ghcr" in run("registry", command, "quay", code=1).stderr
