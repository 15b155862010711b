"""`ape silverback init` through the real `ape`: in projects of every shape, from a cluster, and from a compose file."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import HealthPolicy, RestartPolicy
from ape_silverback.config.models import RestartConfig
from ape_silverback.config.reader import read_section
from tests.cli.conftest import Run
from tests.conftest import Ape, run_ape
from tests.place import Place

BOT = """\
import os
from silverback import SilverbackBot
bot = SilverbackBot()
KEY = os.environ["PRICE_KEY"]
LEVEL = os.getenv("LEVEL", "1")
"""
SIGNER = (
    "import os\nfrom silverback import SilverbackBot\nbot = SilverbackBot()\nprint(bot.signer, os.environ['URL'])\n"
)

SHAPES: dict[str, dict[str, str]] = {
    "no section": {
        "ape-config.yaml": "# ours\nname: shop   # the name\nplugins:\n- name: vyper\n",
        "bots/a.py": BOT,
        "bots/b.py": SIGNER,
    },
    "pyproject": {
        "pyproject.toml": "[project]\nname = 'x'\n\n[tool.ape]\nname = 'shop' # the name\n",
        "bots/a.py": BOT,
    },
    "bots package": {
        "bots/__init__.py": "",
        "bots/pack/__init__.py": "from .rules import bot\n",
        "bots/pack/rules.py": BOT,
    },
    "single bot": {"bot.py": BOT, "ape-config.json": '{"name": "shop"}'},
    "monorepo folder": {
        "../pyproject.toml": "[tool.ape]\nname = 'other'\n",
        "bots/a.py": BOT,
        "ape-config.yml": "name: shop\n",
    },
}


def write(project: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("shape", SHAPES)
def test_init_describes_what_a_project_has_and_keeps_the_rest_of_its_file(ape: Ape, project: Path, shape: str) -> None:
    files = SHAPES[shape]
    write(project, files)
    result = ape("silverback", "init")
    assert result.returncode == 0, result.stderr
    assert "Next: `ape silverback cluster up`" in result.stderr
    reading = read_section(project)
    assert reading.file is not None
    text = reading.file.read_text()
    if before := files.get(reading.file.name):
        assert text.startswith(before.rstrip()) or reading.file.suffix == ".json"
    assert reading.section.variables["settings"][0] == "PRICE_KEY"
    assert "LEVEL" not in reading.section.variables["settings"]
    assert set(reading.section.bots) == {
        "no section": {"a", "b"},
        "bots package": {"pack"},
        "single bot": {"bot"},
    }.get(shape, {"a"})
    if shape == "no section":
        assert "b use `bot.signer`" in text
        assert reading.section.variables["settings"] == ("PRICE_KEY", "URL")
    again = ape("silverback", "init")
    assert again.returncode == 1
    assert "the silverback section already has `variables:`" in again.stderr
    assert reading.file.read_text() == text


def test_a_section_that_is_there_gets_what_it_lacks(ape: Ape, project: Path) -> None:
    before = (
        "name: shop\nsilverback:\n    profile: mine   # where\n\n# the end\nethereum:\n    default_network: sepolia\n"
    )
    write(project, {"ape-config.yaml": before, "bots/a.py": ""})
    assert ape("silverback", "init").returncode == 0
    text = (project / "ape-config.yaml").read_text()
    assert set(before.splitlines()) <= set(text.splitlines())
    section = read_section(project).section
    assert (section.profile, list(section.bots)) == ("mine", ["a"])


@pytest.mark.parametrize(
    ("file", "before"),
    [
        ("ape-config.yaml", "# first\nsilverback:\nethereum:\n    default_network: local  # why\n"),
        ("ape-config.json", '{"silverback": null, "ethereum": {"default_network": "local"}}'),
        ("pyproject.toml", '[tool.ape.silverback]\n[tool.ape.ethereum]\ndefault_network = "local"\n'),
    ],
)
def test_a_section_without_keys_is_filled_and_not_written_twice(
    ape: Ape, project: Path, file: str, before: str
) -> None:
    write(project, {file: before, "bots/a.py": ""})
    assert ape("silverback", "init").returncode == 0
    text = (project / file).read_text()
    assert text.count("silverback") == before.count("silverback") + text.count("silverback.bots")
    assert ("# first" in text, "# why" in text) == ("# first" in before, "# why" in before)
    assert list(read_section(project).section.bots) == ["a"]


def test_a_project_without_bots_is_told_where_to_put_one(ape: Ape, project: Path) -> None:
    result = ape("silverback", "init")
    assert (result.returncode, list(project.iterdir())) == (1, [])
    assert "put one at bots/NAME.py" in result.stderr


def test_printing_writes_nothing(ape: Ape, project: Path) -> None:
    write(project, {"bots/a.py": BOT})
    result = ape("silverback", "init", "--print")
    assert yaml.safe_load(result.stdout)["silverback"]["bots"] == {"a": {}}
    assert not (project / "ape-config.yaml").exists()


def test_what_a_cluster_runs_is_described_so_that_nothing_is_left_to_change(
    run: Run, client: ClusterClient, ape: Ape, project: Path, served: Any
) -> None:
    write(project, {"ape-config.yaml": "name: shop\n"})
    client.new_variable_group("rpc", {"KEY": "x", "URL": "y"})
    client.new_credentials("hub", "ghcr.io", "me@example.org", "me", "password")
    common: dict[str, Any] = {"ecosystem": "ethereum", "network": "mainnet", "provider": "alchemy"}
    client.new_bot("watcher", image="ghcr.io/me/watcher:1", environment=["rpc"], **common)
    client.new_bot("signer", image="ghcr.io/me/signer:1", account="me", credential_name="hub", **common)
    policies: dict[str, Any] = {
        "restart": RestartPolicy(policy="always", max_restarts=9, window=3600, backoff=0.5),
        "healthy": HealthPolicy(silent=7200, lag=3),
        "heartbeat": "KEY",
    }
    client.new_bot("strict", image="ghcr.io/me/strict:1", environment=["rpc"], **common, **policies)
    client.new_bot("once", image="ghcr.io/me/once:1", restart=RestartPolicy(policy="never"), **common)
    result = ape("silverback", "init", "--from-cluster", **served.environment)
    assert result.returncode == 0, result.stderr
    section = read_section(project).section
    assert section.network == "ethereum:mainnet:alchemy"
    assert section.variables == {"rpc": ("KEY", "URL")}
    assert section.bots["signer"].credential == "hub"
    assert section.bots["strict"].restart == RestartConfig(
        policy="always", max_restarts=9, window=timedelta(hours=1), backoff=timedelta(seconds=0.5)
    )
    assert "restart: never" in (project / "ape-config.yaml").read_text()
    plan = json.loads(run("plan", "--format", "json").stdout)
    assert {action["kind"] for action in plan["actions"]} <= {"keep", "adopt"}
    assert "Nothing to change" in run("deploy", "--adopt", "--yes").stdout


def test_where_no_bot_of_a_cluster_can_be_described_nothing_is_written(ape: Ape, project: Path, place: Place) -> None:
    place.cluster("deploy", "--yes")
    elsewhere = run_ape(place.home, project, ["silverback", "init", "--from-cluster", "--profile", "local"])
    assert elsewhere.returncode == 1
    assert "nothing to describe here, so nothing was written" in elsewhere.stderr
    assert f"left: left out, it runs from the folder {place.project}" in elsewhere.stderr
    assert "describes" not in elsewhere.stderr
    assert not list(project.iterdir())
    here = place.ape("silverback", "init", "--from-cluster", "--profile", "local")
    assert here.returncode == 0, here.stderr
    assert "ape-config.yaml describes 2 bots: left, right." in here.stderr
    assert "Nothing to change" in place.cluster("plan", "--detailed-exitcode").stdout


COMPOSE = """\
services:
  watcher:
    image: ghcr.io/me/watcher:1
    command: silverback run watcher --network ethereum:mainnet:alchemy
    environment:
      - ALCHEMY_KEY=hunter2
      - SILVERBACK_BOT_NAME=watcher
    restart: always
  signer:
    build: .
    command: ["run", "keeper", "--network", "ethereum:mainnet:alchemy", "--account=me"]
    environment: {LIMIT: "1"}
    restart: on-failure:7
    env_file: [.env.signer]
  redis:
    image: redis:7
"""


def test_a_compose_file_becomes_a_section_without_its_secrets(ape: Ape, project: Path) -> None:
    write(project, {"compose.yaml": COMPOSE, ".env.signer": "DB_URL=hunter2\n", "bots/keeper.py": ""})
    result = ape("silverback", "init", "--from-compose", "compose.yaml")
    assert result.returncode == 0, result.stderr
    assert "hunter2" not in (project / "ape-config.yaml").read_text() + result.stderr
    section = read_section(project).section
    watcher, signer = section.bots["watcher"], section.bots["signer"]
    assert section.network == "ethereum:mainnet:alchemy"
    assert (watcher.image, watcher.module, watcher.environment) == ("ghcr.io/me/watcher:1", None, ("watcher",))
    assert (signer.image, signer.module, signer.account) == (None, "keeper", "me")
    assert section.variables == {"watcher": ("ALCHEMY_KEY",), "signer": ("LIMIT", "DB_URL")}
    assert "redis: left out, it doesn't run a bot" in result.stderr
    assert watcher.restart == RestartConfig(policy="always")
    assert signer.restart == RestartConfig(policy="on-failure", max_restarts=7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services: [", "compose.yaml: not YAML"),
        ("name: x", "compose.yaml: expected a compose file with `services:`"),
        ("services: {redis: {image: redis}}", "compose.yaml: none of its services runs a bot"),
    ],
)
def test_a_compose_file_of_something_else_is_one_error(ape: Ape, project: Path, text: str, says: str) -> None:
    write(project, {"compose.yaml": text})
    result = ape("silverback", "init", "--from-compose", "compose.yaml")
    assert (result.returncode, says in result.stderr) == (1, True), result.stderr
    assert "Traceback" not in result.stderr
