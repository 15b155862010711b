"""`verify` through the real command: what it shows, and pins in every kind of configuration file."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from ape_silverback.config.reader import read_section
from ape_silverback.stream.pins import write_pins
from ape_silverback.stream.verify import Report
from tests.cli.conftest import Run, documents
from tests.stream.payments import STANDARD
from tests.stream.world import World

OLD = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
MANAGER = "0x5FbDB2315678afecb367f032d93F642f64180aa3"

YAML = """\
# the project
name: first
plugins:
- name: vyper   # a list that isn't indented


silverback:   # ours
    profile: mine
    stream:
        # trusted since May
        managers:
            8453: '0x70997970C51812dc3A010C7d01b50e0d17dc79C8'  # base
    tag: "1.0"

ethereum:
    default_network: sepolia
"""


def test_the_report_names_each_check_and_pins_what_is_trusted(run: Run, world: World, project: Path) -> None:
    other = uuid.UUID(world.platform.add_cluster(world.space, "other", "Other", configuration=STANDARD.model_dump()))
    paid = {**world.stream, "stream_id": world.payments.open_stream(other)}
    world.platform.streams[str(other)] = paid
    world.platform.add_cluster(world.space, "unpaid", "Unpaid")

    text = run("verify", "--all")
    heads = [line for line in text.stdout.splitlines() if line.startswith("space/")]
    where = f"of {world.payments.manager} on chain 1337: trusted"
    assert heads == [
        f"space/other: stream {paid['stream_id']} {where}",
        f"space/prod: stream {world.stream['stream_id']} {where}",
        "space/unpaid: nothing to verify",
    ]
    assert text.stderr.count("No StreamManager is pinned for chain 1337") == 1

    result = run("verify", "-c", "space/prod", "-c", "space/other", "--pin", "--format", "json")
    found = documents(list[Report], result.stdout)
    assert [(one.cluster, one.trusted, len(one.checks)) for one in found] == [
        ("space/prod", True, 9),
        ("space/other", True, 9),
    ]
    section = read_section(project).section
    assert section.stream.managers == {1337: world.payments.manager}
    assert {key: one.lower() for key, one in section.stream.controllers.items()} == {1337: world.payments.controller}
    assert f"manager {world.payments.manager} for chain 1337" in result.stderr


def test_what_isnt_trusted_is_not_pinned(run: Run, world: World, project: Path) -> None:
    world.stream["stream_id"] += 1
    result = run("verify", "--pin", code=1)
    assert "not trusted: space/prod" in result.stderr
    assert "Nothing to pin" in result.stderr
    assert read_section(project).section.stream.managers == {}


def test_a_cluster_that_is_reached_directly_has_nothing_to_verify(run: Run, world: World) -> None:
    result = run("verify", "--profile", "direct", "--format", "json")
    [found] = json.loads(result.stdout)
    assert (found["trusted"], [check["outcome"] for check in found["checks"]]) == (True, ["skip"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--all", "-c", "space/prod"), 2, "not both"),
        (("-c", "space/absent"), 1, "has no cluster 'absent'; known: prod"),
        (("--target", "absent"), 1, "no target 'absent' in the silverback section"),
        (("--network", "ethereum:absent"), 1, "absent"),
    ],
)
def test_a_mistake_is_named(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run("verify", *arguments, code=code)
    assert said in result.stderr + result.stdout


def test_a_pin_in_yaml_keeps_comments_order_and_all_other_lines(project: Path) -> None:
    file = project / "ape-config.yaml"
    file.write_text(YAML)
    write_pins(project, file, {"managers": {8453: OLD, 1337: MANAGER}, "controllers": {}})
    line = "            8453: '0x70997970C51812dc3A010C7d01b50e0d17dc79C8'  # base\n"
    assert file.read_text() == YAML.replace(line, f'{line}            1337: "{MANAGER}"\n')
    write_pins(project, file, {"managers": {8453: MANAGER}, "controllers": {}})
    assert read_section(project).section.stream.managers == {8453: MANAGER, 1337: MANAGER}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ape-config.yaml", "# nothing yet\n"),
        ("ape-config.yml", "silverback:\n"),
        ("ape-config.json", '{"name": "first"}'),
        ("pyproject.toml", "[project]\nname = 'x'  # mine\n\n[tool.ape.silverback]\nprofile = 'a'\n"),
        ("pyproject.toml", "[tool.ape]\nname = 'x'\n"),
    ],
)
@pytest.mark.parametrize("target", [None, "production"])
def test_a_pin_is_read_again_from_every_kind_of_file(project: Path, name: str, text: str, target: str | None) -> None:
    file = project / name
    file.write_text(text)
    file.chmod(0o640)
    pins = {"managers": {1337: MANAGER}, "controllers": {1337: OLD}}
    write_pins(project, file, pins, target)
    stream = read_section(project).section.stream_of(target)
    assert (stream.managers, stream.controllers) == (pins["managers"], pins["controllers"])
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in project.iterdir()] == [name]
    for line in (line for line in text.splitlines() if "#" in line):
        assert line in file.read_text()


def test_a_project_without_a_file_gets_one(project: Path) -> None:
    assert write_pins(project, None, {"managers": {1337: MANAGER}, "controllers": {}}).name == "ape-config.yaml"
    assert read_section(project).section.stream.managers == {1337: MANAGER}
