"""What a deployment knows to be its own, who changed what, and what it owes, through the real `ape` command.

The cluster has only what every cluster has, unless a test is about what ours has beyond that.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.deployment.plan import Drift
from tests.cli.conftest import AtTerminal, Run, documents
from tests.conftest import ape_command, environment_of
from tests.server.machine import KEY, Cluster, serving_cluster

pytestmark = pytest.mark.xdist_group("ownership")

BASE = 'name: shop\nsilverback:\n  network: "ethereum:mainnet:node"\n  registry: ghcr.io/me\n  tag: "1"\n'
TARGETS = f"{BASE}  targets: {{main: {{bots: {{alpha: {{}}}}}}, side: {{bots: {{beta: {{}}}}}}}}\n"
PAIR = f"{BASE}  bots: {{alpha: {{}}, beta: {{}}}}\n"


ours = pytest.mark.parametrize("served", [True], ids=["ours"], indirect=True)


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without extensions, or ours."""
    extensions = getattr(request, "param", False)
    with serving_cluster(tmp_path_factory.mktemp("cluster"), extensions=extensions) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _clean(served: Cluster, client: ClusterClient) -> Iterator[None]:
    yield
    served.machine.crashing = set()


def write(project: Path, section: str) -> None:
    (project / "ape-config.yaml").write_text(section)


def names(client: ClusterClient) -> set[str]:
    return set(client.bots)


# Whose a bot is


def test_targets_of_one_cluster_leave_each_other_alone(run: Run, client: ClusterClient, project: Path) -> None:
    write(project, TARGETS.replace("alpha: {}", "alpha: {}, gamma: {}"))
    for target in ("main", "side"):
        run("deploy", "--target", target, "--yes")
    assert names(client) == {"alpha", "beta", "gamma"}
    write(project, TARGETS)
    pruned = run("deploy", "--target", "main", "--prune", "--yes")
    assert "- remove bot gamma" in pruned.stdout
    assert names(client) == {"alpha", "beta"}
    run("deploy", "--target", "side", "--tag", "2", "--yes")
    run("deploy", "--target", "main", "--tag", "2", "--yes")
    run("rollback", "--target", "side", "--yes")
    images = {name: bot.image.rpartition(":")[2] for name, bot in client.bots.items()}
    assert images == {"alpha": "2", "beta": "1"}


def test_a_bot_renamed_by_hand_is_renamed_back_and_not_doubled(run: Run, client: ClusterClient, project: Path) -> None:
    write(project, PAIR)
    run("deploy", "--yes")
    before = client.bots["beta"].id
    client.bots["beta"].update(name="beta2")
    result = run("deploy", "--yes")
    assert "name: beta2 -> beta (changed on the cluster since the last deployment)" in result.stdout
    assert {name: bot.id for name, bot in client.bots.items()}["beta"] == before
    assert names(client) == {"alpha", "beta"}


def test_a_bot_that_somebody_else_made_is_taken_over_only_when_told(
    run: Run, client: ClusterClient, project: Path, at_terminal: AtTerminal
) -> None:
    client.new_bot("alpha", "theirs/image:1", "ethereum", "mainnet", "node")
    write(project, PAIR)
    refused = run("deploy", "--yes", code=1)
    assert "alpha: on the cluster, but not deployed by this project" in refused.stderr
    assert "pass --adopt to take it over" in refused.stderr
    assert client.bots["alpha"].image == "theirs/image:1"
    assert names(client) == {"alpha"}
    shown = at_terminal("deploy", typed=(("Take it over?", "y\n"), ("Apply this", "y\n")))
    assert "taken over: this project didn't deploy it" in shown
    assert client.bots["alpha"].image == "ghcr.io/me/shop-alpha:1"
    write(project, f"{BASE}  bots: {{beta: {{}}}}\n")
    run("deploy", "--prune", "--yes")
    assert names(client) == {"beta"}, "what was taken over is the project's"


@ours
def test_a_cluster_that_keeps_the_record_knows_it_on_every_machine(
    run: Run, client: ClusterClient, project: Path, home: Path
) -> None:
    client.new_bot("stranger", "x/y:1", "ethereum", "mainnet", "node")
    write(project, PAIR)
    first = run("plan", "--prune").stderr
    assert "knows no earlier deployment of this project: --prune removes nothing" in first
    assert "history:" not in first, "there is none to keep"
    run("deploy", "--yes")
    (home / ".silverback" / "deployments").rename(home / "elsewhere")
    write(project, f"{BASE}  bots: {{alpha: {{}}}}\n")
    assert "? bot beta was deployed before" in run("plan").stdout


def test_a_lost_history_is_said_and_removes_nothing(run: Run, client: ClusterClient, project: Path, home: Path) -> None:
    write(project, PAIR)
    run("deploy", "--yes")
    (home / ".silverback" / "deployments").rename(home / "elsewhere")
    write(project, f"{BASE}  bots: {{alpha: {{}}}}\n")
    plan = run("plan", "--prune")
    assert "nothing is recorded here of earlier deployments of this project" in plan.stderr
    assert "--prune removes nothing" in plan.stderr
    assert "`history:` of the section" in plan.stderr
    run("deploy", "--prune", "--yes")
    assert names(client) == {"alpha", "beta"}
    assert "pass --adopt" in run("deploy", "--tag", "2", "--yes", code=1).stderr
    run("deploy", "--tag", "2", "--adopt", "--yes")
    assert client.bots["alpha"].image.endswith(":2")


def test_projects_of_one_name_in_different_folders_are_told_apart(
    run: Run, client: ClusterClient, project: Path, home: Path, served: Cluster, tmp_path: Path
) -> None:
    from tests.cli.conftest import runner

    other = tmp_path / "team-b" / project.name
    other.mkdir(parents=True)
    write(project, f"{BASE}  bots: {{alpha: {{}}}}\n")
    write(other, f"{BASE}  bots: {{beta: {{}}}}\n")
    run("deploy", "--yes")
    run_other = runner(home, other, **served.environment)
    run_other("deploy", "--prune", "--yes")
    assert names(client) == {"alpha", "beta"}
    run("plan", "--out", str(tmp_path / "plan.json"))
    refused = run_other("deploy", "--plan", str(tmp_path / "plan.json"), "--yes", code=1)
    assert "the plan is of another project: shop (" in refused.stderr
    write(other, f"{BASE}  project: shop\n  bots: {{beta: {{}}}}\n")
    write(project, f"{BASE}  project: shop\n  bots: {{alpha: {{}}}}\n")
    run_other("deploy", "--adopt", "--tag", "2", "--yes")
    assert "bot beta was deployed before and isn't in the project any more" in run("plan").stdout


@ours
def test_the_project_that_a_bot_belongs_to_is_named(
    run: Run, client: ClusterClient, project: Path, home: Path, served: Cluster, tmp_path: Path
) -> None:
    from tests.cli.conftest import runner

    (tmp_path / "other").mkdir()
    for folder in (project, tmp_path / "other"):
        write(folder, f"{BASE}  bots: {{alpha: {{}}}}\n")
    run("deploy", "--yes")
    run_other = runner(home, tmp_path / "other", **served.environment)
    refused = run_other("deploy", "--tag", "2", "--yes", code=1)
    assert f"alpha belongs to file://{project}; pass --adopt to take it over" in refused.stderr
    taken = run_other("deploy", "--tag", "2", "--adopt", "--yes")
    assert "~ update bot alpha and restart\n" in taken.stdout
    assert f"taken over from file://{project}" in taken.stdout
    assert "bot alpha is this project's as soon as the deployment begins, even if that fails" in taken.stderr
    alpha = str(client.bots["alpha"].id)
    odd = ([{"id": "nonsense"}, {}, 3, {"id": alpha, "claim": "9"}], "nothing", None, [{"id": alpha, "claim": 2**60}])
    for bots in odd:  # a record is its client's text
        line = {"bots": bots, "groups": {"one": bots, "two": 2}}
        client.call("POST", "/deployments", params={"project": "odd", "after": 0}, json=line)
        claims = client.get_as(dict[str, dict[str, int]], "/deployments/claims")[alpha]
        assert {one: claim for one, claim in claims.items() if claim} == {f"file://{tmp_path / 'other'}": 1}
        with served.store.transaction() as db:
            db.execute("DELETE FROM deployments WHERE project = 'odd'")


@ours
def test_a_project_is_told_what_another_one_took_over_and_leaves_it_alone(
    run: Run, client: ClusterClient, project: Path, home: Path, served: Cluster, tmp_path: Path
) -> None:
    from tests.cli.conftest import runner

    other = tmp_path / "other"
    other.mkdir()
    group = "  environment: [g]\n  variables: {g: [V1]}\n"
    write(project, f"{BASE}{group}  bots: {{alpha: {{}}, beta: {{}}}}\n")
    write(other, f"{BASE}{group.replace('[V1]', '[V1, V2]')}  bots: {{alpha: {{}}}}\n")
    run_other = runner(home, other, **served.environment)
    run("deploy", "--yes", V1="1")
    run("plan", "--out", str(tmp_path / "before.json"))
    run_other("deploy", "--tag", "2", "--adopt", "--yes", V1="1", V2="2")

    said = f"alpha, variable group g: taken over by file://{other} since this project (file://{project}) deployed them"
    planned = run("plan", V1="1")
    assert f"`deploy` refuses this plan: {said}; pass --adopt to take them back" in planned.stderr
    assert "changed on the cluster since the last deployment" not in planned.stdout
    assert said in run("deploy", "--yes", V1="1", code=1).stderr
    assert (
        "has changed since the plan was made" in run("deploy", "--plan", str(tmp_path / "before.json"), code=1).stderr
    )
    as_data = json.loads(run("plan", "--format", "json", V1="1").stdout)
    assert as_data["taken_over"] == dict.fromkeys(("alpha", "variable group g"), f"file://{other}")
    assert "No drift" in run("plan", "--drift-only", V1="1").stdout

    write(project, f"{BASE}  bots: {{beta: {{}}}}\n")
    pruned = run("deploy", "--prune", "--yes")
    assert f"alpha, variable group g: taken over by file://{other} since this project deployed them" in pruned.stderr
    assert names(client) == {"alpha", "beta"}
    assert client.bots["alpha"].image.endswith(":2")
    assert "taken over" not in run("plan").stderr, "it is said until the next deployment"

    write(project, f"{BASE}{group}  bots: {{alpha: {{}}, beta: {{}}}}\n")
    assert f"taken over from file://{other}" in run("deploy", "--adopt", "--yes", V1="1").stdout
    back = run_other("deploy", "--adopt", "--yes", V1="1", V2="2").stdout
    assert f"taken back from file://{project}" in back
    assert "taken over by" in run("plan", V1="1").stderr


def test_what_is_left_over_is_said_in_every_plan_and_counts(run: Run, client: ClusterClient, project: Path) -> None:
    write(project, PAIR)
    run("deploy", "--yes")
    write(project, f"{BASE}  bots: {{alpha: {{}}}}\n")
    plan = run("plan", "--detailed-exitcode", code=2)
    assert "Nothing to change" in plan.stdout
    said = "bot beta was deployed before and isn't in the project any more: --prune removes it"
    assert f"? {said}" in plan.stdout
    assert f"- {said}" in run("plan", "--format", "markdown").stdout
    assert json.loads(run("plan", "--format", "json").stdout)["orphans"] == [
        {"kind": "bot", "name": "beta", "confirmed": True}
    ]
    run("deploy", "--prune", "--yes")
    run("plan", "--detailed-exitcode")


# Who changed what


def test_each_difference_says_who_made_it(run: Run, client: ClusterClient, project: Path, served: Cluster) -> None:
    every = ("same", "mine", "theirs", "both", "agreed", "gone", "stopped", "left", "moved")
    bots = dict.fromkeys(every, "{account: one, share-account: true}")
    write(project, f"{BASE}  bots: {{{', '.join(f'{name}: {text}' for name, text in bots.items())}}}\n")
    run("deploy", "--yes")
    there = client.bots
    there["theirs"].update(account="two")
    there["both"].update(account="two")
    there["agreed"].update(account="three")
    there["gone"].remove()
    there["stopped"].stop()
    there["moved"].update(name="away")
    bots |= dict.fromkeys(("mine", "both", "agreed"), "{account: three, share-account: true}")
    del bots["left"]
    write(project, f"{BASE}  bots: {{{', '.join(f'{name}: {text}' for name, text in bots.items())}}}\n")
    text = run("plan").stdout
    for line in (
        "= keep bot same\n",
        "~ update bot mine and restart\n        account: one -> three (changed in the project)",
        "~ update bot theirs and restart\n",
        "account: two -> one (changed on the cluster since the last deployment)",
        "account: two -> three (changed in the project and on the cluster, where one was deployed)",
        "! bot agreed: account was changed on the cluster: one -> three, and left so",
        "+ create bot gone, which was removed on the cluster",
        "> start bot stopped, which is stopped",
        "? bot left was deployed before and isn't in the project any more",
        "name: away -> moved (changed on the cluster since the last deployment)",
    ):
        assert line in text, line
    assert (
        "account: two -> three (changed in the project and on the cluster" in run("plan", "--format", "markdown").stdout
    )
    actions = {one["name"]: one for one in json.loads(run("plan", "--format", "json").stdout)["actions"]}
    authors = {name: [change["by"] for change in one.get("changes", ())] for name, one in actions.items()}
    assert authors["mine"] == ["project"]
    assert authors["theirs"] == authors["moved"] == ["cluster"]
    assert authors["both"] == ["both"]

    drift = run("plan", "--drift-only", "--detailed-exitcode", code=2).stdout
    assert re.search(r"! bot theirs: account was changed on the cluster: one -> two\n", drift)
    assert "mine" not in drift
    found = documents(list[Drift], run("plan", "--drift-only", "--format", "json").stdout)
    assert {one.name for one in found} == {"theirs", "both", "agreed", "gone", "stopped", "moved"}
    assert "- bot gone was removed on the cluster" in run("plan", "--drift-only", "--format", "markdown").stdout

    kept = run("deploy", "--keep-drift", "--yes").stdout
    assert "bot gone was removed on the cluster, and left so" in kept
    now = client.bots
    assert {name: bot.account for name, bot in now.items()} == {
        "same": "one",
        "mine": "three",
        "theirs": "two",
        "both": "three",
        "agreed": "three",
        "stopped": "one",
        "left": "one",
        "away": "one",
    }
    assert not served.machine.processes[now["stopped"].id].alive
    run("deploy", "--yes")
    assert client.bots["theirs"].account == "one"
    assert "No drift on" in run("plan", "--drift-only", "--detailed-exitcode").stdout


def test_drift_cant_be_told_without_a_record(run: Run, project: Path) -> None:
    write(project, PAIR)
    assert "so drift can't be told" in run("plan", "--drift-only", "--detailed-exitcode", code=1).stderr


# What is owed


def test_a_subset_restarts_every_bot_of_the_project_that_uses_a_changed_group(
    run: Run, client: ClusterClient, project: Path, served: Cluster
) -> None:
    section = f"{BASE}  environment: [g]\n  variables: {{g: [V1]}}\n  bots: {{alpha: {{}}, beta: {{}}}}\n"
    write(project, section)
    run("deploy", "--yes", V1="1")
    client.new_bot("stranger", "x/y:1", "ethereum", "mainnet", "node", environment=["g"])
    write(project, section.replace("[V1]", "[V1, V2]"))
    result = run("deploy", "alpha", "--yes", V1="1", V2="2")
    assert "~ restart bot beta: variables of g change" in result.stdout
    assert "stranger: not this project's, but with variable group g; restart by hand" in result.stdout
    assert served.runs_with("beta")["V2"] == "2"
    assert "V2" not in served.runs_with("stranger")
    assert "Nothing to change" in run("deploy", "--yes", V1="1", V2="2").stdout
    left = run("deploy", "alpha", "--yes", "--push-vars", "--no-restart", V1="3", V2="2").stdout
    assert "= keep bot beta, which should be restarted: variables of g change" in left
    assert served.runs_with("beta")["V1"] == "1"
    run("deploy", "--yes", V1="3", V2="2")
    assert served.runs_with("beta")["V1"] == "3"


def test_a_rollback_is_the_inverse_of_renames(run: Run, client: ClusterClient, project: Path) -> None:
    write(project, f"{BASE}  bots: {{a: {{account: me}}}}\n")
    run("deploy", "--yes")
    identity = client.bots["a"].id
    for new, old in (("b", "[a]"), ("c", "[b, a]")):
        write(project, f"{BASE}  bots: {{{new}: {{account: me, renamed-from: {old}}}}}\n")
        run("deploy", "--yes")
    assert {name: bot.id for name, bot in client.bots.items()} == {"c": identity}
    back = run("rollback", "--yes").stdout
    assert "name: c -> b (as deployment 2 had it)" in back
    assert {name: bot.id for name, bot in client.bots.items()} == {"b": identity}
    assert "b is as deployment 2 had it." in run("rollback", "--to", "2", "--yes").stdout
    run("rollback", "--to", "1", "--yes")
    assert {name: bot.id for name, bot in client.bots.items()} == {"a": identity}
    write(project, f"{BASE}  bots: {{c: {{account: me, renamed-from: [b, a]}}}}\n")
    run("deploy", "--yes")
    assert {name: bot.id for name, bot in client.bots.items()} == {"c": identity}, "two renames behind"


def test_a_rollback_of_some_bots_takes_nothing_from_the_others(
    run: Run, client: ClusterClient, project: Path, served: Cluster
) -> None:
    section = f"{BASE}  environment: [g]\n  variables: {{g: [V1]}}\n  bots: {{alpha: {{}}, beta: {{}}}}\n"
    write(project, section)
    run("deploy", "--yes", V1="1")
    write(project, section.replace("[V1]", "[V2]"))
    run("deploy", "--yes", "--tag", "2", V2="2")
    back = run("rollback", "alpha", "--yes", V1="1")
    assert "variable group g keeps V2, since other bots use it" in back.stderr
    assert client.bots["alpha"].image.endswith(":1")
    assert client.bots["beta"].image.endswith(":2")
    assert {"V1", "V2"} <= set(served.runs_with("beta"))
    run("rollback", "--yes", V1="1", V2="2")
    assert client.bots["alpha"].image.endswith(":2"), "the rollback of some bots is undone"


def test_a_failure_isnt_called_cut_off(run: Run, client: ClusterClient, project: Path, served: Cluster) -> None:
    write(project, PAIR)
    served.machine.crashing = {"ghcr.io/me/shop-beta:1"}
    run("deploy", "--yes", "--timeout", "1", code=1)
    assert "cut off" not in run("deploy", "--yes", "--timeout", "1", code=1).stderr


# What can't be known


def test_what_isnt_known_is_said_also_when_nothing_changes(
    run: Run, client: ClusterClient, project: Path, served: Cluster, home: Path
) -> None:
    write(project, f"{BASE}  environment: [g]\n  variables: {{g: [V1, V2]}}\n  bots: {{alpha: {{}}}}\n")
    run("deploy", "--yes", V1="hunter-1", V2="2")
    same = run("plan", V1="hunter-1")
    assert "Nothing to change" in same.stdout
    assert "not known: whether the values of V2 in g are still right" in same.stdout
    assert "not known: whether the image tags of alpha were moved" in same.stdout
    assert "- Not known: whether the values of V2" in run("plan", "--format", "markdown", V1="hunter-1").stdout
    assert json.loads(run("plan", "--format", "json", V1="hunter-1").stdout)["unknown"]
    changed = run("plan", "--detailed-exitcode", V1="hunter-2", code=2)
    assert "~ update variable group g: *V1" in changed.stdout
    run("deploy", "--yes", V1="hunter-2")
    assert served.runs_with("alpha")["V1"] == "hunter-2"
    texts = [file.read_text() for file in (home / ".silverback" / "deployments").rglob("*") if file.is_file()]
    assert not [text for text in texts if "hunter" in text]
    refused = run("deploy", "--yes", "--push-vars", V1="", V2="2", code=1)
    assert "variable 'V1' of group 'g'" in refused.stderr
    assert "empty" in refused.stderr


def test_a_saved_plan_is_the_whole_truth(run: Run, client: ClusterClient, project: Path, home: Path) -> None:
    write(project, TARGETS)
    run("plan", "--target", "side", "--out", "plan.json")
    for option in (["--tag", "2"], ["--prune"], ["--set", "tag=2"], ["--force"], ["--push-vars"], ["--adopt"]):
        refused = run("deploy", "--plan", "plan.json", "--yes", *option, code=2)
        assert f"so {option[0]} can't change it" in refused.stderr
    run("deploy", "--plan", "plan.json", "--yes")
    assert names(client) == {"beta"}
    assert "--target side" in run("history", "--target", "side").stdout


@pytest.mark.parametrize("served", [False, True], ids=["by address", "by id"], indirect=True)
def test_a_plan_is_for_its_cluster_under_every_profile_that_leads_there(
    run: Run, client: ClusterClient, project: Path, home: Path, served: Cluster
) -> None:
    """A cluster of ours has an id; any other is known by its address only."""
    hosts = {"one": served.url, "again": served.url, "renamed": served.url.replace("127.0.0.1", "localhost")}
    profiles = [f'[profile.{name}]\nhost = "{host}"\napi-key = "{KEY}"\n' for name, host in hosts.items()]
    (home / ".silverback").mkdir()
    (home / ".silverback" / "profile.toml").write_text("\n".join(profiles))
    write(project, PAIR)

    def with_profile(name: str, *arguments: str, code: int = 0) -> CompletedProcess[str]:
        return run(*arguments, "--profile", name, code=code, SILVERBACK_CLUSTER_URI="", SILVERBACK_CLUSTER_API_KEY="")

    has_id = client.cluster_id is not None
    with_profile("one", "plan", "--out", "plan.json")
    if not has_id:
        refused = with_profile("renamed", "deploy", "--plan", "plan.json", "--yes", code=1)
        assert "the plan is for one (http://127" in refused.stderr
        assert ", not for renamed (http://localhost" in refused.stderr
    with_profile("renamed" if has_id else "again", "deploy", "--plan", "plan.json", "--yes")
    assert names(client) == {"alpha", "beta"}
    recorded = ["succeeded" in with_profile(name, "history").stdout for name in hosts]
    assert recorded == [True, True, has_id]
    folders = [file.parent for file in (home / ".silverback" / "deployments").rglob("project.json")]
    assert len(folders) == 1


# Who signs

PLUGIN = """
from collections.abc import Iterator
from ape import plugins
from ape.api import AccountAPI, AccountContainerAPI

class PaperAccount(AccountAPI):
    address: str = "0x0000000000000000000000000000000000000001"
    def sign_message(self, *args, **kwargs): raise NotImplementedError
    def sign_transaction(self, *args, **kwargs): raise NotImplementedError

class PaperWallet(AccountContainerAPI):
    @property
    def aliases(self) -> Iterator[str]: yield "me"
    def __len__(self): return 0
    @property
    def accounts(self): return iter(())

@plugins.register(plugins.AccountPlugin)
def account_types():
    return PaperWallet, PaperAccount
"""


def test_two_signers_of_one_account_are_refused_and_keys_are_warned_of_by_name(
    run: Run, client: ClusterClient, project: Path, home: Path
) -> None:
    accounts = home / ".ape" / "accounts"
    accounts.mkdir(parents=True)
    for alias in ("me", "also_me"):
        (accounts / f"{alias}.json").write_text(json.dumps({"address": "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"}))
    section = f"{BASE}  variables: {{keys: [SIGNER]}}\n  environment: [keys]\n"
    bots = "  bots: {alpha: {account: me}, beta: {account: also_me}}\n"
    key = "0x" + "5a" * 32
    write(project, section + bots)
    refused = run("deploy", "--yes", SIGNER=key, code=1)
    assert (
        "alpha, beta: they sign with one account, 'me' (bots.alpha.account (ape-config.yaml:8)) alias 'also_me' "
        "(bots.beta.account (ape-config.yaml:8)), on ethereum:mainnet"
    ) in refused.stderr
    assert not client.bots
    shared = bots.replace("me}", "me, share-account: true}")
    write(project, f"{section}  strict: true\n{shared}")
    strict = run("deploy", "--yes", SIGNER=key, code=1)
    assert "the value of SIGNER in keys looks like a private key" in strict.stderr
    assert not client.variable_groups
    write(project, section + shared)
    deployed = run("deploy", "--yes", SIGNER=key)
    assert "the value of SIGNER in keys looks like a private key" in deployed.stderr
    assert "APE_ACCOUNTS_also_me_PASSPHRASE isn't in a variable group of the bot" in deployed.stderr
    assert names(client) == {"alpha", "beta"}
    for result in (refused, strict, deployed):
        assert "5a5a" not in result.stdout + result.stderr
    write(project, f"{BASE}  bots: {{gamma: {{account: me}}}}\n")
    other = run("deploy", "--yes", code=1)
    assert "gamma, alpha (on the cluster), beta (on the cluster): they sign with one account" in other.stderr


def test_an_account_whose_plugin_the_image_lacks_is_warned_of(
    client: ClusterClient, served: Cluster, project: Path, home: Path, tmp_path: Path
) -> None:
    place = tmp_path / "plugins"
    for folder in ("ape_paper", "ape_paper-0.1.dist-info"):
        (place / folder).mkdir(parents=True)
    (place / "ape_paper-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ape-paper\n")
    (place / "ape_paper-0.1.dist-info" / "top_level.txt").write_text("ape_paper\n")
    (place / "ape_paper" / "__init__.py").write_text(PLUGIN)
    write(project, f"{BASE}  bots: {{alpha: {{account: me}}, beta: {{}}}}\n")

    def warned() -> list[str]:
        environment = {**environment_of(home), **served.environment, "PYTHONPATH": str(place), "COLUMNS": "300"}
        command = [ape_command(), "silverback", "cluster", "plan"]
        result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode in (0, 2), result.stderr
        return [line for line in result.stderr.splitlines() if "needs ape-paper" in line]

    [warning] = warned()
    assert "alpha: account 'me' needs ape-paper, which the requirements of the bot's image don't name" in warning
    (project / "requirements-bot.txt").write_text("# ape-paper is wanted\nApe_Paper>=0.1  # for the account\n")
    assert not warned()


def test_policies_stay_here_where_the_cluster_doesnt_know_them_and_a_line_for_each_says_what_it_does_instead(
    run: Run, client: ClusterClient, project: Path
) -> None:
    policies = "  restart: {policy: always}\n  healthy: {lag: 3 blocks}\n  heartbeat: BEAT_URL\n"
    write(project, f"{BASE}{policies}  bots: {{alpha: {{}}, beta: {{}}}}\n")
    planned, deployed = run("plan"), run("deploy", "--yes")
    made = run("bots", "new", "gamma", "--image", "a/b:1", "--no-wait")
    for result in (planned, deployed, made):
        assert [line for line in result.stderr.splitlines() if "this cluster" in line] == [
            "WARNING: `restart:` isn't used: this cluster restarts bots by its own rules",
            "WARNING: `healthy:` isn't used: this cluster judges the health of bots by its own rules",
            "WARNING: `heartbeat:` isn't used: this cluster sends no heartbeats of bots",
        ]
    assert names(client) == {"alpha", "beta", "gamma"}


@ours
def test_a_new_bot_is_deployed_with_its_policies_and_a_change_of_them_restarts_nothing(
    run: Run, client: ClusterClient, project: Path
) -> None:
    variables = "  variables: {watch: [BEAT_URL]}\n  environment: [watch]\n"
    write(project, f"{PAIR}{variables}  restart: never\n  heartbeat: BEAT_URL\n")
    run("deploy", "--yes", BEAT_URL="http://127.0.0.1:9/hunter2")
    bots = client.bots
    assert {(bot.restart.policy, bot.heartbeat) for bot in bots.values() if bot.restart} == {("never", "BEAT_URL")}
    assert run("plan", BEAT_URL="http://127.0.0.1:9/hunter2").stdout.startswith("Nothing to change")
    write(project, f"{PAIR}{variables}  restart: always\n")
    changed = run("deploy", "--yes", BEAT_URL="http://127.0.0.1:9/hunter2")
    assert "restart: never -> always, 1 second to 5 minutes later, until 5 crashes in 10 minutes" in changed.stdout
    assert {bot.heartbeat for bot in client.bots.values()} == {None}
    assert "hunter2" not in changed.stdout + changed.stderr
    started = {name: bot.task.started_at for name, bot in bots.items() if bot.task}
    assert {name: bot.task.started_at for name, bot in client.bots.items() if bot.task} == started


@ours
def test_a_deployment_records_where_each_value_came_from(run: Run, client: ClusterClient, project: Path) -> None:
    write(project, f"{BASE}  bots:\n    alpha:\n      account: deployer\n")
    run("deploy", "--tag", "7", "--yes")
    [record] = json.loads(run("history", "--format", "json").stdout)
    assert record["origins"]["alpha"]["account"] == "bots.alpha.account (ape-config.yaml:8)"
    assert "--tag" in record["origins"]["alpha"]["image"]
    assert "environment" not in record["origins"]["alpha"], "only values that are set"
    link = client.dashboard_link()
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        browser.get(link)
        page = browser.get(f"{str(client.base_url).rstrip(chr(47))}/ui/bots/{client.bots['alpha'].id}").text
    assert "bots.alpha.account (ape-config.yaml:8)" in page


# Waiting


def test_bad_answers_while_waiting_end_nothing_and_done_is_the_last_event(
    run: Run, client: ClusterClient, project: Path, served: Cluster
) -> None:
    bots = ("a", "b", "c")
    write(project, f"{BASE}  bots: {{{', '.join(f'{name}: {{}}' for name in bots)}}}\n")
    run("deploy", "--yes")
    served.machine.crashing = {"ghcr.io/me/shop-b:2"}
    # What is looked at first, for the plan and before the first write, has to be right; the rest is waiting.
    served.faults["GET /health"] = [200, 500, 500, 200, 500]
    served.faults["GET /bots"] = [200, 200, 500, 200, 500]
    served.faults["GET /bots/ID/status"] = [500, 200, 500]
    options = ("--strategy", "rolling", "--rollback", "--timeout", "4", "--format", "json")
    result = run("deploy", "--tag", "2", "--yes", *options, code=1)
    assert not any(served.faults.values()), "the faults were met"
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[-1]["event"] == "done"
    last = {event["name"]: event["event"] for event in events if event.get("name")}
    assert last == {"a": "ready", "b": "rolled-back", "c": "skipped"}
    images = {name: bot.image.rpartition(":")[2] for name, bot in client.bots.items()}
    assert images == {"a": "2", "b": "1", "c": "1"}
    assert served.machine.processes[client.bots["b"].id].alive
    assert "with the change: a; as before: c, b" in result.stderr
