"""The example projects, deployed by the real `ape`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.project.imports import bot_files
from tests.cli.conftest import Run
from tests.conftest import ROOT

VALUES = {
    "WEB3_ALCHEMY_API_KEY": "secret",
    "STABLECOIN_ADDRESSES": "{}",
    "BANK_URI": "http://127.0.0.1:9",
    "BANK_API_KEY": "secret",
}
SIX = [f"{bot}-{chain}-sepolia" for bot in ("redemptions", "compliance") for chain in ("ethereum", "optimism", "base")]


@pytest.fixture
def example(project: Path) -> Path:
    """The example, on a cluster that is reached directly and without a repository."""
    shutil.copytree(ROOT / "examples" / "stablecoin", project, dirs_exist_ok=True)
    edit(project, cluster=None, tag="1")
    return project


def edit(project: Path, bots: object = None, **keys: object) -> None:
    file = project / "ape-config.yaml"
    content = yaml.safe_load(file.read_text())
    for name, value in keys.items():
        content["silverback"][name] = value
        if value is None:
            del content["silverback"][name]
    if bots is not None:
        content["silverback"]["bots"] = bots
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def test_one_deploy_makes_six_bots_of_two_and_a_second_changes_nothing(
    run: Run, client: ClusterClient, example: Path
) -> None:
    run("deploy", "--yes", **VALUES)
    bots = client.bots
    assert sorted(bots) == sorted(SIX)
    assert {bot.image for bot in bots.values()} == {
        "ghcr.io/my-org/stablecoin-redemptions:1",
        "ghcr.io/my-org/stablecoin-compliance:1",
    }
    assert {bot.account for name, bot in bots.items() if name.startswith("compliance")} == {"compliance-officer"}
    ids = {bot.id for bot in bots.values()}
    again = run("deploy", "--yes", **VALUES)
    assert "Nothing changed" in again.stdout
    assert {bot.id for bot in client.bots.values()} == ids
    edit(example, tag="2")
    plan = json.loads(run("plan", "compliance", "--format", "json", **VALUES).stdout)
    changed = [action["name"] for action in plan["actions"] if action["kind"] == "update"]
    assert sorted(changed) == sorted(name for name in SIX if name.startswith("compliance"))


def test_a_bot_that_goes_to_many_networks_is_renamed_and_not_made_again(
    run: Run, client: ClusterClient, example: Path
) -> None:
    edit(example, bots={"compliance": {"account": "me"}}, networks=None, network="base:sepolia:alchemy")
    run("deploy", "--yes", **VALUES)
    [single] = client.bots.values()
    assert single.name == "compliance"
    edit(example, network=None, networks=["ethereum:sepolia:alchemy", "base:sepolia:alchemy"])
    run("deploy", "--yes", "--prune", **VALUES)
    assert sorted(client.bots) == ["compliance-base-sepolia", "compliance-ethereum-sepolia"]
    assert client.bots["compliance-base-sepolia"].id == single.id


def test_each_image_of_the_example_holds_what_its_bot_needs(example: Path) -> None:
    needed = {path.relative_to(example).as_posix() for path in bot_files(example, "compliance")}
    assert needed == {"bots/compliance.py", "token_on_chain.py"}
