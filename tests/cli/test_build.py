"""`build` through the real `ape` command, with programs in place of engines. `test_images` has a real engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from ape_silverback.images.build import BuiltImage
from tests.cli.conftest import documents
from tests.conftest import Ape

Build = Callable[..., CompletedProcess[str]]

ENGINE = """\
#!/bin/sh
echo "$(basename $0) $*" >> "$LOG"
case "$1 $*" in
    *broken*) echo "step 1"; echo "no space left" >&2; exit 3;;
    build*) echo "built it";;
    push*--digestfile*) echo "sha256:feed" > "$3";;
    push*refused*) echo denied; exit 1;;
    image*) echo '[{"Id": "1d", "RepoDigests": []}]';;
esac
"""


@pytest.fixture
def build(ape: Ape, project: Path, tmp_path: Path) -> Build:
    """`ape silverback build` in a project with two bots, with an engine that only says what it was asked for."""
    (project / "bots").mkdir()
    for name in ("blocks", "prices"):
        (project / "bots" / f"{name}.py").write_text("")
    (project / "ape-config.yaml").write_text("name: first\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("podman", "docker"):
        (programs / name).write_text(ENGINE)
        (programs / name).chmod(0o755)

    def build(*arguments: str, code: int = 0, **environment: str) -> CompletedProcess[str]:
        path = f"{programs}:{os.environ['PATH']}"
        more = {"PATH": path, "LOG": str(tmp_path / "log"), **environment}
        result = ape("silverback", "build", *arguments, **more)
        assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stdout + result.stderr
        return result

    return build


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[str]]:
    """What the engines were asked for."""

    def asked() -> list[str]:
        log = tmp_path / "log"
        return log.read_text().splitlines() if log.exists() else []

    return asked


def section(project: Path, text: str) -> None:
    (project / "ape-config.yaml").write_text(f"name: first\nsilverback:\n{text}")


def test_every_bot_is_built_one_after_the_other(build: Build, asked: Callable[[], list[str]], project: Path) -> None:
    result = build("--format", "json")
    found = documents(list[BuiltImage], result.stdout)
    assert [(one.name, one.image, one.built, one.pushed, one.digest) for one in found] == [
        ("blocks", "first-blocks:latest", True, False, "sha256:1d"),
        ("prices", "first-prices:latest", True, False, "sha256:1d"),
    ]
    assert [one.containerfile for one in found] == [
        ".silverback-images/Containerfile.blocks",
        ".silverback-images/Containerfile.prices",
    ]
    assert "built it" in result.stderr
    builds = [line for line in asked() if " build " in line]
    assert [line.split("--tag ")[1].split()[0] for line in builds] == ["first-blocks:latest", "first-prices:latest"]
    assert all(line.startswith("podman") for line in builds)


def test_the_text_is_a_table_and_the_engines_lines_are_not_in_it(build: Build) -> None:
    lines = [line.split() for line in build("prices", "--tag", "1.4").stdout.splitlines()]
    assert lines == [["NAME", "IMAGE", "PUSHED", "DIGEST"], ["prices", "first-prices:1.4", "no", "sha256:1d"]]


def test_only_files_are_written_without_an_engine(build: Build, asked: Callable[[], list[str]], project: Path) -> None:
    result = build("--file-only", "pri*", "--base", "registry.example/base:2", "--format", "yaml")
    [found] = yaml.safe_load(result.stdout)
    assert (found["name"], found["built"], found["digest"]) == ("prices", False, None)
    text = (project / found["containerfile"]).read_text()
    assert "FROM registry.example/base:2\n" in text
    assert 'CMD ["run", "prices"]' in text
    assert asked() == []
    assert not (project / ".silverback-images" / "Containerfile.blocks").exists()
    assert "Containerfile.prices" in build("--file-only", "prices").stdout


def test_an_image_is_named_as_deploy_names_it(build: Build, project: Path) -> None:
    section(
        project,
        "  registry: ghcr.io/me\n  tag: '1'\n  bots:\n    blocks:\n    prices:\n      image: ghcr.io/you/p:7\n"
        "  targets:\n    staging:\n      registry: registry.staging.example:5000\n      tag: next\n",
    )

    def images(*arguments: str) -> list[str]:
        found = documents(list[BuiltImage], build("--file-only", "--format", "json", *arguments).stdout)
        return [one.image for one in found]

    assert images() == ["ghcr.io/me/first-blocks:1", "ghcr.io/you/p:7"]
    assert images("--tag", "2") == ["ghcr.io/me/first-blocks:2", "ghcr.io/you/p:7"]
    assert images("--target", "staging", "blocks") == ["registry.staging.example:5000/first-blocks:next"]


def test_a_bot_on_several_networks_has_one_image(build: Build, asked: Callable[[], list[str]], project: Path) -> None:
    section(project, "  bots:\n    blocks: {networks: [ethereum:mainnet, base:mainnet]}\n    prices:\n")
    found = documents(list[BuiltImage], build("--format", "json").stdout)
    assert [(one.name, one.image) for one in found] == [
        ("blocks", "first-blocks:latest"),
        ("prices", "first-prices:latest"),
    ]
    assert len([line for line in asked() if " build " in line]) == 2


def test_the_platform_and_the_version_of_the_sdk_can_be_chosen(
    build: Build, asked: Callable[[], list[str]], project: Path
) -> None:
    build("blocks", "--platform", "linux/arm64", "--sdk", "0.7.38")
    assert asked()[0].startswith("podman build --platform linux/arm64 --file")
    assert (
        "FROM ghcr.io/apeworx/silverback:v0.7.38\n"
        in (project / ".silverback-images" / "Containerfile.blocks").read_text()
    )


def test_a_push_follows_each_build_and_gives_the_digest(
    build: Build, asked: Callable[[], list[str]], project: Path
) -> None:
    section(project, "  registry: ghcr.io/me\n")
    found = documents(list[BuiltImage], build("--push", "--format", "json").stdout)
    assert [(one.pushed, one.digest) for one in found] == [(True, "sha256:feed")] * 2
    pushes = [line for line in asked() if " push " in line]
    assert [line.split()[-1] for line in pushes] == ["ghcr.io/me/first-blocks:latest", "ghcr.io/me/first-prices:latest"]


def test_one_failure_doesnt_stop_the_others(build: Build, project: Path) -> None:
    section(project, "  bots:\n    blocks:\n      image: ghcr.io/me/broken:1\n    prices:\n    absent:\n")
    result = build("--format", "json", code=1)
    found = {one.name: one for one in documents(list[BuiltImage], result.stdout)}
    assert found["blocks"].error == "`podman build` failed with exit code 3: no space left"
    assert (found["absent"].error or "").startswith("no module 'absent' in this project")
    assert (found["prices"].built, found["prices"].error) == (True, None)
    assert (found["blocks"].built, found["absent"].containerfile) == (False, None)
    assert result.stderr.splitlines()[-1].endswith("failed: blocks, absent")


def test_a_push_that_is_refused_leaves_a_built_image(build: Build, project: Path) -> None:
    section(project, "  registry: refused.example\n")
    result = build("blocks", "--push", "--engine", "docker", "--format", "json", code=1)
    [found] = documents(list[BuiltImage], result.stdout)
    assert (found.built, found.pushed, found.digest) == (True, False, "sha256:1d")
    assert found.error == "`docker push` failed with exit code 1: denied"


def test_the_engine_can_be_chosen(build: Build, asked: Callable[[], list[str]]) -> None:
    build("blocks", "--engine", "docker")
    assert asked()[0].startswith("docker build")
    build("blocks", SILVERBACK_CONTAINER_ENGINE="docker")
    assert [line for line in asked() if line.startswith("podman")] == []
    assert "unknown container engine 'nerdctl'" in build("blocks", code=1, SILVERBACK_CONTAINER_ENGINE="nerdctl").stderr


def test_without_an_engine_it_is_one_error_and_nothing_is_written(build: Build, project: Path, tmp_path: Path) -> None:
    result = build(code=1, PATH=str(tmp_path))
    assert result.stderr == (
        "Error: no container engine: podman or docker isn't on PATH; "
        "--file-only writes the Containerfiles without an engine\n"
    )
    assert result.stdout == ""
    assert not (project / ".silverback-images").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["block"], 1, "this project has no bot 'block'; did you mean 'blocks'?"),
        (["--target", "production"], 1, "no target 'production' in the silverback section"),
        (["--push"], 1, "no registry to push blocks, prices to; set `registry:` in the section"),
        (["--push", "--file-only"], 2, "--file-only and --push can't be combined"),
        (["--sdk", "1", "--base", "x"], 2, "--sdk and --base both choose the image to start from; pass one of them"),
        (["--tag", "a b"], 1, "isn't a valid image reference"),
    ],
)
def test_what_cant_be_built_is_told_before_anything_is_done(
    build: Build, asked: Callable[[], list[str]], project: Path, arguments: list[str], code: int, says: str
) -> None:
    assert says in build(*arguments, code=code).stderr
    assert asked() == []
    assert not (project / ".silverback-images").exists()


def test_somebody_elses_image_is_left_out_unless_it_is_named(build: Build, project: Path) -> None:
    section(project, "  bots:\n    blocks:\n    bought:\n      image: ghcr.io/you/bot:1\n")
    result = build("--file-only", "--format", "json")
    assert [one["name"] for one in json.loads(result.stdout)] == ["blocks"]
    assert "bought: skipped: its image ghcr.io/you/bot:1 isn't built from this project" in result.stderr
    assert "bought: no module 'bought' in this project" in build("bought", "--file-only", code=1).stderr


def test_an_image_that_is_pinned_to_a_digest_cant_be_built(build: Build, project: Path) -> None:
    section(project, f"  bots:\n    blocks:\n      image: ghcr.io/me/x@sha256:{'a' * 64}\n")
    assert "is pinned to a digest, which a new build can't have" in build(code=1).stderr


def test_the_commit_names_images_and_building_leaves_it_clean(build: Build, project: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", *arguments]
        return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout

    def image(*arguments: str) -> str:
        result = build("blocks", "--tag", "git", "--format", "json", *arguments)
        return documents(list[BuiltImage], result.stdout)[0].image

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "Begin")
    commit = git("rev-parse", "HEAD")[:12]
    assert image() == f"first-blocks:{commit}"
    assert image() == f"first-blocks:{commit}"
    assert git("status", "--porcelain") == ""
    (project / "bots" / "blocks.py").write_text("changed = 1\n")
    assert "changes that aren't committed" in build("--tag", "git", code=1).stderr
    assert image("--allow-dirty") == f"first-blocks:{commit}"
