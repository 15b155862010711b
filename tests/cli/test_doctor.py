"""`doctor` on a machine where all is well, and on broken ones: each fault has one line, and a cure."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ape_silverback.doctor import Finding
from tests.cli.conftest import documents
from tests.cli.platform import OWNER, TOKEN, Platform, serving_platform
from tests.cluster.server import Request, serving
from tests.conftest import run_ape
from tests.server.machine import KEY, Cluster, serving_cluster

CONFIG = """\
ethereum:
  local:
    default_provider: foundry
foundry:
  host: {node}
silverback:
  profile: {profile}
  network: {network}
  bots:
    watcher: {{image: "a/b:1"}}
"""


CHECKS = ("configuration", "bots", "profile", "login", "cluster", "clock", "chain", "engine", "files")


@dataclass
class Patient:
    """A machine with a project and a profile, to be broken before `doctor` looks at it."""

    home: Path
    project: Path
    node: str
    served: Cluster
    profile: str = "lab"
    network: str = "ethereum:local"
    path: str = ""
    more: str = ""

    @property
    def profiles(self) -> Path:
        return self.home / ".silverback" / "profile.toml"

    def write(self, host: str | None = None, key: str = KEY) -> None:
        """Write the profile file."""
        self.profiles.parent.mkdir(exist_ok=True)
        self.profiles.write_text(f'[profile.lab]\nhost = "{host or self.served.url}"\napi-key = "{key}"\n')
        self.profiles.chmod(0o600)

    def doctor(self, *arguments: str, code: int = 0) -> Any:
        text = CONFIG.format(node=self.node, profile=self.profile, network=self.network) + self.more
        (self.project / "ape-config.yaml").write_text(text)
        environment = {"PATH": self.path} if self.path else {}
        result = run_ape(self.home, self.project, ["silverback", "doctor", *arguments], **environment)
        assert result.returncode == code, result.stdout + result.stderr
        assert KEY not in result.stdout + result.stderr
        assert "Traceback" not in result.stdout + result.stderr
        return result

    def findings(self, *arguments: str, code: int = 0) -> list[Finding]:
        return list(documents(list[Finding], self.doctor("--format", "json", *arguments, code=code).stdout))


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serving_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def patient(home: Path, project: Path, anvil: str, behind: Cluster) -> Patient:
    patient = Patient(home, project, anvil, behind)
    patient.write()
    return patient


def test_where_all_is_well_nothing_is_an_error(patient: Patient) -> None:
    found = patient.findings()
    assert {one.check for one in found if one.outcome == "ok"} >= {
        "versions",
        "configuration",
        "bots",
        "profile",
        "login",
        "cluster",
        "clock",
        "chain",
        "files",
    }
    assert [one for one in found if one.outcome != "ok" and one.check != "engine"] == []
    assert "skipped" not in {one.outcome for one in found}
    [chain] = [one for one in found if one.check == "chain"]
    assert chain.text == "ethereum:local:foundry (of watcher) is chain 1337"
    lines = patient.doctor().stdout.splitlines()
    assert any(
        line.startswith("ok       profile        'lab' (silverback.profile in ape-config.yaml:7): http://127.0.0.1:")
        for line in lines
    )


def a_key_of_the_section(patient: Patient) -> None:
    patient.more = "  acount: me\n"


def no_such_profile(patient: Patient) -> None:
    patient.profile = "labb"


def a_dead_cluster(patient: Patient) -> None:
    patient.write("http://127.0.0.1:9")


def a_wrong_key(patient: Patient) -> None:
    patient.write(key="another")


def a_host_that_isnt_one(patient: Patient) -> None:
    patient.write("lab")


def a_profile_that_others_read(patient: Patient) -> None:
    patient.profiles.chmod(0o644)


def an_ecosystem_without_its_plugin(patient: Patient) -> None:
    patient.network = "starknet:mainnet:alchemy"


def an_unknown_provider(patient: Patient) -> None:
    patient.network = "ethereum:local:foundri"


def a_dead_node(patient: Patient) -> None:
    patient.node = "http://127.0.0.1:9"


def a_broken_profile_file(patient: Patient) -> None:
    patient.profiles.write_text("[profile.lab\n")


BROKEN: dict[Callable[[Patient], None], tuple[str, str, str]] = {
    a_key_of_the_section: ("configuration", "acount", "correct it in the configuration file"),
    no_such_profile: ("profile", "labb", "choose another profile"),
    a_broken_profile_file: ("profile", "profile.toml", "correct ~/.silverback/profile.toml"),
    a_host_that_isnt_one: ("profile", "lab", "correct ~/.silverback/profile.toml"),
    a_dead_cluster: ("cluster", "127.0.0.1:9", "start the cluster, or correct its address"),
    a_wrong_key: ("cluster", "X-API-Key", "correct the key in the profile"),
    a_profile_that_others_read: ("files", "profile.toml", "chmod 600 "),
    an_ecosystem_without_its_plugin: ("bots", "starknet", "`ape plugins install starknet`"),
    an_unknown_provider: ("chain", "foundri", "`ape plugins install foundri`"),
    a_dead_node: ("chain", "can't be reached", "set the URL of a node"),
}


def test_a_node_is_looked_for_where_the_provider_finds_it(patient: Patient, anvil: str) -> None:
    a_dead_node(patient)
    patient.doctor(code=1)
    result = run_ape(patient.home, patient.project, ["silverback", "doctor"], APE_FOUNDRY_HOST=anvil)
    assert "ok       chain          ethereum:local:foundry (of watcher) is chain 1337" in result.stdout


REST: dict[str, set[str]] = {
    "configuration": {"bots", "profile", "login", "cluster", "clock", "chain"},
    "bots": {"chain"},
    "profile": {"login", "cluster", "clock"},
    "cluster": {"clock"},
}
"""Check with an error → those that rest on it."""


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: one.__name__)
def test_what_is_broken_is_an_error_of_its_check_with_its_cure(
    broken: Callable[[Patient], None], patient: Patient
) -> None:
    broken(patient)
    check, text, cure = BROKEN[broken]
    found = patient.findings(code=1)
    errors = [one for one in found if one.outcome == "error"]
    assert check in {one.check for one in errors}, errors
    [first, *_] = [one for one in errors if one.check == check]
    assert text in first.text
    assert first.cure
    assert cure in first.cure
    left_out = {one.check: one.text for one in found if one.outcome == "skipped"}
    answered = broken is a_wrong_key  # it told the time
    assert left_out.keys() == REST.get(check, set()) - ({"clock"} if answered else set())
    assert set(left_out.values()) <= {f"not checked: `{check}` has an error"}
    assert {one.check for one in found} >= {"versions", *CHECKS}, "each check has a line"
    shown = patient.doctor(code=1)
    assert "1 error found" in shown.stderr
    assert shown.stdout.count(f"not checked: `{check}` has an error") == len(left_out)


def test_a_node_on_another_chain_is_an_error(patient: Patient) -> None:
    def other(request: Request) -> Any:
        from tests.stream.nodes import as_reply

        asked = request.json()
        one = asked[0] if isinstance(asked, list) else asked
        told = {"jsonrpc": "2.0", "id": one["id"], "result": "0x5"}
        return as_reply([told] if isinstance(asked, list) else told)

    with serving(other) as node:
        patient.network = "ethereum:mainnet:node"
        patient.more = f"node:\n  ethereum:\n    mainnet:\n      uri: {node.url}\n"
        [found] = [one for one in patient.findings(code=1) if one.check == "chain"]
    assert (found.outcome, "is chain 5, expected 1" in found.text) == ("error", True)


def test_without_an_engine_or_a_cluster_there_are_warnings_with_what_needs_them(
    patient: Patient, tmp_path: Path
) -> None:
    patient.path = str(tmp_path)
    patient.profiles.unlink()
    patient.profile = "null"
    found = {one.check: one for one in patient.findings()}
    assert (found["engine"].outcome, "only `build`" in str(found["engine"].cure)) == ("warning", True)
    assert (found["profile"].outcome, found["profile"].text) == ("warning", "no cluster is configured")
    left_out = {name: one.text for name, one in found.items() if one.outcome == "skipped"}
    assert left_out == dict.fromkeys(("login", "cluster", "clock"), "not checked: no cluster is configured")


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
def test_an_engine_that_doesnt_answer_is_a_warning_with_its_own_words(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SILVERBACK_CONTAINER_ENGINE", "docker")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    [engine] = [one for one in patient.findings() if one.check == "engine"]
    assert engine.outcome == "warning"
    assert "docker is installed, but can't be used: " in engine.text
    assert "/nowhere.sock" in engine.text


@pytest.mark.parametrize(
    ("login", "outcome", "text"),
    [
        ({"expires_at": 4e9}, "ok", "logged in as Ada"),
        ({"expires_at": 1.0, "refresh_token": "again"}, "ok", "renewed when it ends"),
        ({"expires_at": 1.0}, "error", "the login of Ada has ended"),
        ({"expires_in": 3600}, "warning", "the login of Ada ends in "),
        (None, "error", "log in with `ape silverback login`"),
    ],
)
def test_a_login_that_ended_or_will_is_told(
    patient: Patient, behind: Cluster, login: dict[str, Any] | None, outcome: str, text: str
) -> None:
    patient.profiles.unlink()
    patient.profiles.parent.rmdir()
    platform = Platform(behind=behind)
    platform.add_cluster(platform.add_workspace("space", "Space"), "prod", "Prod", status=4)
    with serving_platform(platform, patient.home):
        file = patient.home / ".silverback" / "default.json"
        if login is None:
            file.unlink()
        else:
            if "expires_in" in login:
                login = {"expires_at": time.time() + 3600}
            user = {"sub": OWNER, "preferred_username": "Ada"}
            tokens = {"access_token": TOKEN, "token_type": "Bearer", **login}
            file.write_text(json.dumps({"userinfo": user, "tokens": tokens}))
        patient.profile = "default"
        code = 1 if outcome == "error" or "refresh_token" in (login or {}) else 0  # this platform renews nothing
        found = patient.findings("-c", "space/prod", code=code)
    [one] = [one for one in found if one.check == "login"]
    assert (one.outcome, text in one.text) == (outcome, True)


def test_the_report_has_versions_and_findings_and_no_secrets(patient: Patient) -> None:
    text = patient.doctor("--report").stdout
    assert text.startswith("- ape-silverback ")
    assert "| cluster | ok | " in text
    assert KEY not in text
    assert str(patient.home) not in text
