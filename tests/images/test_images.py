"""What goes into the image of a bot, and real images of a real engine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ape_silverback.cluster.types import BotConfiguration
from ape_silverback.exceptions import BuildError
from ape_silverback.images.engine import ENGINE_VARIABLE, Engine, image_digests
from ape_silverback.images.recipe import BASE, Recipe, make_recipe, sdk_base
from ape_silverback.project.desired import DesiredBot
from tests.conftest import Ape

pytestmark = pytest.mark.xdist_group("images")
Files = Callable[..., None]
PIPES: dict[str, Any] = {"capture_output": True, "text": True}
Built = Callable[..., "dict[str, dict[str, Any]]"]


@pytest.fixture
def files(project: Path) -> Files:
    """Writes files of the project."""

    def write(**contents: str) -> None:
        for name, text in contents.items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def bot(module: str = "blocks", name: str = "blocks") -> DesiredBot:
    return DesiredBot(
        name=name,
        origin="",
        module=module,
        configuration=BotConfiguration(
            image=f"first-{name}:latest", ecosystem="ethereum", network="mainnet", provider="node"
        ),
        origins={},
    )


def copied(recipe: Recipe, project: Path) -> set[str]:
    """Return the files that the engine gets."""
    with recipe.context(project) as context:
        return {path.relative_to(context).as_posix() for path in context.rglob("*") if path.is_file()}


def position(text: str, *parts: str) -> list[int]:
    """Return where these are in a text, each there once."""
    assert [part for part in parts if text.count(part) != 1] == []
    return [text.index(part) for part in parts]


# What a Containerfile says


def test_a_bot_alone_needs_no_more_than_its_file(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": "bot = 1\n"})
    text = make_recipe(project, bot()).text
    assert re.findall(r"^FROM (.*)", text, re.MULTILINE) == [BASE]
    assert re.findall(r"^COPY .*", text, re.MULTILINE) == ["COPY --chown=harambe:harambe bots/blocks.py bots/"]
    assert "pip" not in text
    assert "ape compile" not in text
    assert text.endswith('ENTRYPOINT ["silverback"]\nCMD ["run", "blocks"]\n')


def test_what_seldom_changes_comes_first(project: Path, files: Files) -> None:
    files(
        **{
            "requirements.txt": "web3\n",
            "ape-config.yaml": "plugins:\n  - name: vyper\n",
            "contracts/Token.vy": "",
            "bots/blocks.py": "",
        }
    )
    text = make_recipe(project, bot(), config=project / "ape-config.yaml", base="registry.example/base:2").text
    places = position(
        *(text, "FROM registry.example/base:2", "USER harambe\n", " requirements.txt ./", "-r requirements.txt"),
        *("ape-vyper", " ape-config.yaml ./", " contracts contracts/", "RUN ape compile", "bots/blocks.py bots/"),
        *("ENTRYPOINT",),
    )
    assert places == sorted(places)


def test_nothing_runs_as_root_but_what_makes_the_user(project: Path, files: Files) -> None:
    files(**{"requirements.txt": "web3\n", "bots/blocks.py": "", "contracts/A.json": "[]"})
    text = make_recipe(project, bot()).text
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["root", "harambe"]
    as_root = text[text.index("USER root") : text.index("USER harambe")]
    assert re.findall(r"^(?!USER)[A-Z]+", as_root, re.MULTILINE) == ["WORKDIR", "RUN"]


@pytest.mark.parametrize(
    ("plugin", "asked"),
    [
        ("name: vyper", "'ape-vyper>=0.8,<0.9'"),
        ("name: vyper\n    version: 0.8.3", "ape-vyper==0.8.3"),
        ('name: vyper\n    version: ">=0.8.2,<0.8.5"', "'ape-vyper>=0.8.2,<0.8.5'"),
        ("name: vyper==0.8.1", "ape-vyper==0.8.1"),
        ("name: ape_vyper", "'ape-vyper>=0.8,<0.9'"),
        ("name: vyper\n    version: git+https://x.example/ape-vyper@main", "git+https://x.example/ape-vyper@main"),
    ],
)
def test_a_plugin_is_asked_for_as_ape_asks(project: Path, files: Files, plugin: str, asked: str) -> None:
    files(**{"bots/blocks.py": "", "ape-config.yaml": f"plugins:\n  - {plugin}\n"})
    text = make_recipe(project, bot(), config=project / "ape-config.yaml").text
    assert f"pip install --no-cache-dir {asked}\n" in text


def test_the_installed_requirements_are_those_of_the_project(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": "", "pyproject.toml": '[project]\nname = "x"\ndependencies = ["web3>=7", "rich"]\n'})
    recipe = make_recipe(project, bot())
    assert "pip install --no-cache-dir 'web3>=7' rich\n" in recipe.text
    assert copied(recipe, project) == {"bots/blocks.py"}  # or any change of it would install again
    files(**{"requirements.txt": "-r more/base.txt\nweb3\n", "more/base.txt": "-c pins.txt\n", "more/pins.txt": ""})
    recipe = make_recipe(project, bot())
    assert "pip install --no-cache-dir -r requirements.txt\n" in recipe.text
    assert "rich" not in recipe.text
    assert copied(recipe, project) == {"bots/blocks.py", "requirements.txt", "more/base.txt", "more/pins.txt"}
    files(**{"requirements-bot.txt": ""})
    assert "-r requirements-bot.txt\n" in make_recipe(project, bot()).text


@pytest.mark.parametrize("text", ['[project]\ndynamic = ["dependencies"]', '[tool.poetry.dependencies]\nweb3 = "7"'])
def test_dependencies_that_cant_be_read_are_an_error(project: Path, files: Files, text: str) -> None:
    files(**{"bots/blocks.py": "", "pyproject.toml": text})
    with pytest.raises(BuildError, match="write them to requirements-bot"):
        make_recipe(project, bot())
    files(**{"requirements-bot.txt": ""})
    make_recipe(project, bot())


def test_the_configuration_in_pyproject_counts_too(project: Path, files: Files) -> None:
    files(
        **{
            "bots/blocks.py": "",
            "src/Token.vy": "",
            "pyproject.toml": '[tool.ape]\ncontracts_folder = "src"\n[[tool.ape.plugins]]\nname = "vyper"\n',
        }
    )
    recipe = make_recipe(project, bot(), config=project / "pyproject.toml")
    assert "'ape-vyper>=0.8,<0.9'" in recipe.text
    assert copied(recipe, project) == {"bots/blocks.py", "src/Token.vy", "pyproject.toml"}
    assert "RUN ape compile" in recipe.text


def test_an_empty_contracts_folder_is_not_compiled(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": "", "contracts/.gitkeep": "", "abis/token.json": "[]"})
    recipe = make_recipe(project, bot())
    assert "ape compile" not in recipe.text
    assert copied(recipe, project) == {"bots/blocks.py", "abis/token.json"}


@pytest.mark.parametrize("folder", [".", "..", "../elsewhere", "sub/.."])
def test_a_folder_that_would_take_in_everything_is_refused(project: Path, files: Files, folder: str) -> None:
    files(**{"bots/blocks.py": "", "../elsewhere/A.json": "", "ape-config.yaml": f"contracts_folder: {folder}\n"})
    with pytest.raises(BuildError, match="'contracts_folder' of Ape's configuration can't be copied"):
        make_recipe(project, bot(), config=project / "ape-config.yaml")


def test_secrets_stay_out_of_what_the_engine_gets(project: Path, files: Files, tmp_path: Path) -> None:
    secrets = (
        *(".env", ".git/config", ".venv/x.py", "venv/y.py", "key.pem", ".ape/accounts/me.json", "contracts/.env"),
        *("bots/.env", "bots/.env.production", "bots/blocks/.env", "bots/blocks/prod.env", "bots/blocks/a/.ssh/id"),
        *("bots/blocks/tls.key", "bots/node_modules/x.js", "contracts/.cache/x.json", "README.md", "notes/x.txt"),
    )
    files(**dict.fromkeys(secrets, "hunter2"))
    files(**{"bots/blocks/__init__.py": "", "bots/blocks/a/b.json": "", "contracts/A.json": "[]"})
    recipe = make_recipe(project, bot())
    assert copied(recipe, project) == {"bots/blocks/__init__.py", "bots/blocks/a/b.json", "contracts/A.json"}
    assert not re.search(r"^(COPY|ADD)( --\S+)? (\.|\*|/)", recipe.text, re.MULTILINE)


def test_links_are_followed_within_the_project_and_nowhere_else(project: Path, files: Files, tmp_path: Path) -> None:
    files(**{"bots/blocks/__init__.py": "", "shared/table.json": "1", "shared/more/x.csv": "2", ".env": "hunter2"})
    (project / "bots" / "tables").symlink_to("../shared")
    (project / "bots" / "blocks" / "table.json").symlink_to("../../shared/table.json")
    (project / "shared" / "more" / "again.json").symlink_to("../table.json")
    recipe = make_recipe(project, bot())
    with recipe.context(project) as context:
        assert (context / "bots" / "blocks" / "table.json").read_text() == "1"
        assert (context / "bots" / "tables" / "more" / "again.json").read_text() == "1"
        assert not [path for path in context.rglob("*") if path.is_symlink()]
    outside = tmp_path / "outside"
    outside.write_text("hunter2")
    link = project / "bots" / "tables" / "link"
    for target, says in (
        (outside, "bots/tables/link: links to .*outside, outside the project; replace the link with a copy"),
        (project / ".env", "bots/tables/link: links to .env, which is never copied into an image"),
        (project / "absent", "bots/tables/link: broken link to"),
        (project / "shared", "bots/tables/link: links to a folder that it is in"),
    ):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(BuildError, match=says), recipe.context(project):
            pass


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("-e ./libs/x", {"libs/x/pyproject.toml", "libs/x/x.py"}),
        ("--editable=libs/x[more]", {"libs/x/pyproject.toml", "libs/x/x.py"}),
        ("./libs/x ; python_version > '3'", {"libs/x/pyproject.toml", "libs/x/x.py"}),
        ("x @ file:./libs/x", {"libs/x/pyproject.toml", "libs/x/x.py"}),
        ("wheels/y-1-py3-none-any.whl", {"wheels/y-1-py3-none-any.whl"}),
        ("--find-links wheels", {"wheels/y-1-py3-none-any.whl"}),
        ("-e .[dev]", {"pyproject.toml", "README.md", "tools/__init__.py"}),
        ("libs # a package of this name", set()),
        ("-e git+https://x.example/y", set()),
        ("--find-links https://x.example/wheels", set()),
    ],
)
def test_requirements_that_lie_in_the_project_are_there_for_pip(
    project: Path, files: Files, line: str, taken: set[str]
) -> None:
    files(
        **{
            "bots/blocks.py": "",
            "pyproject.toml": '[project]\nname = "p"\n',
            "README.md": "",
            "tools/__init__.py": "",
            "tests/__init__.py": "",
            "notes.txt": "hunter2",
            "libs/x/pyproject.toml": "",
            "libs/x/x.py": "",
            "libs/x/.env": "hunter2",
            "wheels/y-1-py3-none-any.whl": "",
            "requirements.txt": f"web3\n{line}\n",
        }
    )
    recipe = make_recipe(project, bot())
    assert copied(recipe, project) == {"bots/blocks.py", "requirements.txt", *taken}
    before_pip = recipe.text[: recipe.text.index("-r requirements.txt")]
    for path in taken:
        assert path.split("/")[0] in before_pip


def test_a_requirement_outside_the_project_is_an_error(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": "", "requirements.txt": "-e ../shared\n"})
    with pytest.raises(BuildError, match=r"'-e ../shared' in requirements.txt can't be copied into an image"):
        make_recipe(project, bot())


# Which base


@pytest.mark.parametrize(
    ("base", "fits"),
    [
        ("ghcr.io/apeworx/silverback:stable-python3.11", True),
        ("ghcr.io/apeworx/silverback:v0.7.38-py3.9", False),
        ("python:3.9-slim", False),
        ("python:3.12", True),
        ("python:3.10.2", False),
        ("ghcr.io/apeworx/silverback:stable", True),
    ],
)
def test_a_base_whose_tag_names_another_python_is_refused(project: Path, files: Files, base: str, fits: bool) -> None:
    files(**{"bots/blocks.py": "", "pyproject.toml": '[project]\nrequires-python = ">=3.10.4"\n'})
    if fits:
        assert f"FROM {base}\n" in make_recipe(project, bot(), base=base).text
    else:
        with pytest.raises(
            BuildError, match=r"the project requires Python >=3.10.4 \(pyproject.toml\), but base image"
        ):
            make_recipe(project, bot(), base=base)


def test_a_base_is_checked_for_what_a_bot_needs(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": ""})
    assert "RUN python -c" not in make_recipe(project, bot(), base=sdk_base("0.7.38")).text
    files(**{"pyproject.toml": '[project]\nrequires-python = "<3"\n'})
    [check] = re.findall(r"^RUN (python -c .*)$", make_recipe(project, bot(), base="mine:1").text, re.MULTILINE)
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(["sh", "-c", check], capture_output=True, text=True, env={"PATH": here})
    assert result.returncode == 1
    assert re.fullmatch(
        r"ape-silverback: the project requires Python <3, but the base image has 3\.\d+\.\d+\n", result.stderr
    )
    files(**{"pyproject.toml": '[project]\nrequires-python = ">=3.10"\n'})
    [check] = re.findall(r"^RUN (python -c .*)$", make_recipe(project, bot(), base="mine:1").text, re.MULTILINE)
    subprocess.run(["sh", "-c", check], check=True, env={"PATH": here})
    bare = subprocess.run(["sh", "-c", check.replace("python -c", f"{sys.executable} -I -S -c")], **PIPES)
    assert bare.stderr == "ape-silverback: the base image lacks ape and silverback\n"


@pytest.mark.parametrize(
    ("version", "tag"), [("0.7.38", "v0.7.38"), ("v0.7.38", "v0.7.38"), ("latest", "latest"), ("stable", "stable")]
)
def test_a_version_of_the_sdk_names_its_image(version: str, tag: str) -> None:
    assert sdk_base(version) == f"ghcr.io/apeworx/silverback:{tag}"


def test_a_build_by_hand_finds_an_ignore_file_that_allows_only_what_is_copied(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": "", "contracts/A.json": ""})
    file = make_recipe(project, bot()).write(project)
    assert file == project / ".silverback-images" / "Containerfile.blocks"
    lines = file.with_name("Containerfile.blocks.dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    assert [line for line in lines if line.startswith("!")] == ["!contracts", "!bots/blocks.py"]
    assert lines.index("**/.*") > lines.index("!contracts")  # the last that matches wins


def test_an_unreadable_configuration_is_one_error(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": "", "ape-config.yaml": "a: [\n"})
    with pytest.raises(BuildError, match=r"ape-config\.yaml: can't be read"):
        make_recipe(project, bot(), config=project / "ape-config.yaml")


# Which code a bot needs


def test_a_bot_brings_what_it_imports_and_no_other_bot(project: Path, files: Files) -> None:
    files(
        **{
            "bots/blocks.py": "import json\nfrom ._shared import x\nfrom lib.prices import feed\n",
            "bots/_shared.py": "def late():\n    from bots import helper\n",
            "bots/helper.py": "import one_file",
            "bots/other.py": "import unused",
            "bots/tokens.json": "{}",
            "bots/data/more.csv": "",
            "bots/nothing/.gitkeep": "",
            "lib/__init__.py": "",
            "lib/prices.py": "import deeper",
            "lib/table.json": "",
            "one_file.py": "not python",
            "unused.py": "",
            "src/deeper/__init__.py": "",
        }
    )
    recipe = make_recipe(project, bot())
    assert copied(recipe, project) == {
        *("bots/blocks.py", "bots/_shared.py", "bots/helper.py", "bots/tokens.json", "bots/data/more.csv"),
        *("lib/__init__.py", "lib/prices.py", "lib/table.json", "one_file.py", "src/deeper/__init__.py"),
    }
    assert 'ENV PYTHONPATH="/home/harambe/project/src"' in recipe.text


def test_the_bot_sdk_finds_the_bot_in_what_is_copied(project: Path, files: Files) -> None:
    files(
        **{
            "bots/blocks/__init__.py": "from .rules import bot\nfrom .. import _common\nimport lib.prices",
            "bots/blocks/rules.py": "from silverback import SilverbackBot\nbot = object.__new__(SilverbackBot)",
            "bots/_common.py": "",
            "lib/prices.py": "",  # a namespace package
        }
    )
    recipe = make_recipe(project, bot())
    [made] = re.findall(r"^RUN (echo .* > bot.py)$", recipe.text, re.MULTILINE)
    with recipe.context(project) as context:
        subprocess.run(made, shell=True, cwd=context, check=True)
        # What `silverback run` reads its argument with, which may be none.
        script = "from silverback._click_ext import bot_path_callback as find\n"
        script += "print(find(None, None, None) is find(None, None, 'blocks') is find(None, None, 'bots.blocks:bot'))"
        command = [sys.executable, "-c", script]
        result = subprocess.run(command, cwd=context, capture_output=True, text=True, check=False)
    assert result.stdout == "True\n", result.stderr


@pytest.mark.parametrize(
    ("there", "module", "starts"),
    [
        ("bots/blocks.py", "blocks", "from bots.blocks import bot"),
        ("bots/blocks.py", "bots.blocks", "from bots.blocks import bot"),
        ("bots/blocks.py", "blocks:app", "from bots.blocks import app as bot"),
        ("bots/blocks/__init__.py", "blocks", "from bots.blocks import bot"),
        ("bots/bot.py", "bot", "from bots.bot import bot"),
        ("watcher.py", "watcher:app", "from watcher import app as bot"),
        ("bot.py", "bot", None),
        ("bot/__init__.py", "bot", None),
    ],
)
def test_every_module_is_run_by_its_name_and_by_run_alone(
    project: Path, files: Files, there: str, module: str, starts: str | None
) -> None:
    files(**{there: ""})
    recipe = make_recipe(project, bot(module))
    assert copied(recipe, project) == {there}
    assert f'CMD ["run", "{module}"]' in recipe.text
    assert re.findall(r"^RUN echo '(.*)' > bot.py$", recipe.text, re.MULTILINE) == ([starts] if starts else [])


@pytest.mark.parametrize("module", ["absent", "bots.absent", "../blocks", "blocks' > x; id", "blocks:a.b()", "lib"])
def test_a_module_that_isnt_there_is_an_error(project: Path, files: Files, module: str) -> None:
    files(**{"bots/blocks.py": "", "lib.py": "", "__init__.py": ""})
    with pytest.raises(BuildError, match=f"no module '{re.escape(module)}' in this project"):
        make_recipe(project, bot(module))


def test_names_with_spaces_are_copied_too(project: Path, files: Files) -> None:
    files(**{"bots/blocks.py": "", "bots/a list.json": ""})
    recipe = make_recipe(project, bot())
    assert 'COPY --chown=harambe:harambe ["bots/a list.json", "bots/blocks.py", "bots/"]' in recipe.text


# Which engine


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes programs; gives an environment that has no others."""

    def make(**scripts: str) -> dict[str, str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return {"PATH": str(folder)}

    return make


def test_the_engine_is_the_one_that_is_named_or_the_first(programs: Callable[..., dict[str, str]]) -> None:
    with pytest.raises(BuildError, match="podman or docker isn't on PATH"):
        Engine.find(environ=programs())
    only_docker = programs(docker="")
    assert Engine.find(environ=only_docker).name == "docker"
    both = programs(podman="")
    assert Engine.find(environ=both).name == "podman"
    assert Engine.find(environ={**both, ENGINE_VARIABLE: "docker"}).name == "docker"
    assert Engine.find("podman", environ={**both, ENGINE_VARIABLE: "docker"}).name == "podman"
    with pytest.raises(
        BuildError, match=f"{ENGINE_VARIABLE}: unknown container engine 'nerdctl'; use podman or docker"
    ):
        Engine.find(environ={**both, ENGINE_VARIABLE: "nerdctl"})


def test_a_build_that_nobody_watches_any_longer_is_ended(
    project: Path, files: Files, programs: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    files(**{"bots/blocks.py": ""})
    environ = programs(docker=f"echo $$ > {tmp_path}/pid; echo begun; exec /bin/sleep 60")
    output = Engine.find(environ=environ).build(project, make_recipe(project, bot()), "x:1")
    started = time.monotonic()
    with closing(output):
        assert next(output) == "begun"
    assert time.monotonic() - started < 30  # of the 60 that it would take
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_a_base_lacks_is_found_among_the_lines_of_buildkit(
    project: Path, files: Files, programs: Callable[..., dict[str, str]]
) -> None:
    files(**{"bots/blocks.py": ""})
    lines = "#7 [4/8] RUN python -c sys.exit(\\'ape-silverback: \\')", "#7 0.312 ape-silverback: it has 3.9", "ERROR"
    environ = programs(docker=f"printf '%s\\n' {shlex.join(lines)}; exit 1")
    with pytest.raises(BuildError, match=r"^`docker build` failed with exit code 1: it has 3\.9$"):
        list(Engine.find(environ=environ).build(project, make_recipe(project, bot()), "x:1"))


@pytest.mark.parametrize(
    ("image", "known", "digest"),
    [
        ("ghcr.io/me/x:1", ["ghcr.io/me/y@sha256:aa", "ghcr.io/me/x@sha256:bb"], "sha256:bb"),
        ("localhost:5000/x", ["localhost:5000/x@sha256:bb"], "sha256:bb"),
        ("x:1", ["localhost/x@sha256:bb"], "sha256:bb"),
        ("ghcr.io/me/x:1", ["ghcr.io/me/y@sha256:aa"], "sha256:1d"),
        ("ghcr.io/me/x:1", None, "sha256:1d"),
    ],
)
def test_the_digest_is_that_of_the_images_own_repository(
    programs: Callable[..., dict[str, str]], image: str, known: list[str] | None, digest: str
) -> None:
    environ = programs(docker=f"echo '{json.dumps([{'Id': '1d', 'RepoDigests': known}])}'")
    assert Engine.find(environ=environ).digest(image) == digest


def test_a_digest_that_nobody_knows_is_none(
    programs: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = programs()
    monkeypatch.setenv("PATH", environ["PATH"])
    pinned = "ghcr.io/me/x@sha256:aa"
    assert image_digests(["ghcr.io/me/x:1", pinned, "project:/home/me/first#blocks"]) == {pinned: "sha256:aa"}
    programs(docker="echo 'Cannot connect' >&2; exit 1")
    assert image_digests(["ghcr.io/me/x:1"]) == {}
    programs(docker="test $2 = ls && echo ghcr.io/me/x:2 && exit; echo 'No such image' >&2; exit 1")
    assert image_digests(["ghcr.io/me/x:1", "ghcr.io/me/x:2"]) == {}


# A real engine


@dataclass(frozen=True)
class Docker:
    """An engine of its own, with a base to build on.

    Attributes:
        base: an image with a shell, and with programs in place of Python, Ape and the bot SDK that say how they were
            called. It has no user but root.
    """

    environment: dict[str, str]
    base: str = "base:1"

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> str:
        result = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **self.environment},
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode()

    def layers(self, image: str) -> list[str]:
        [found] = json.loads(self("image", "inspect", image))
        layers: list[str] = found["RootFS"]["Layers"]
        return layers


TOO_OLD = '[project]\nname = "first"\nversion = "1"\nrequires-python = "<3"\n'
STAND_INS = {
    "python": """case "$*" in
        *"'<3'"*) echo "ape-silverback: it's too new" >&2; exit 1;;
        *) echo "python $*" >> steps.log;;
    esac""",
    "ape": 'echo "ape $* with $(ls contracts)" >> steps.log',
    "silverback": 'echo "silverback $*"; id -un; pwd; touch written; cat bot.py steps.log; ls -aR .',
    "useradd": 'echo "harambe:x:1000:1000::/home/harambe:/bin/sh" >> /etc/passwd; echo "harambe:x:1000:" >> /etc/group',
}


def _above(path: str) -> list[str]:
    return [parent.as_posix().lstrip("/") for parent in Path(path).parents]


def base_image() -> bytes:
    """Return a file tree with a shell and what little the build needs, from this machine."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:

        def add(name: str, text: str, mode: int = 0o644) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), mode
            tar.addfile(entry, io.BytesIO(text.encode()))

        libraries: set[str] = set()
        for name in ("sh", "id", "chown", "cat", "ls", "mkdir", "touch"):
            program = shutil.which(name)
            assert program, name
            tar.add(os.path.realpath(program), f"bin/{name}")
            linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
            libraries |= set(re.findall(r"(/\S+)", linked))
        folders = {"", "bin", "etc", *(parent for name in libraries for parent in _above(name))}
        for folder in sorted(folders):  # for everybody: those that aren't named are for root alone
            entry = tarfile.TarInfo(f"./{folder}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for library in libraries:
            tar.add(os.path.realpath(library), library.lstrip("/"))
        for name, script in STAND_INS.items():
            add(f"bin/{name}", f"#!/bin/sh\n{script}\n", 0o755)
        add("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
        add("etc/group", "root:x:0:\n")
    return content.getvalue()


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A daemon of its own, which needs no network."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("dockerd", "docker", "ldd"))):
        pytest.skip("no container engine: that takes root, dockerd and docker (Debian: docker.io)")
    folder = Path(tempfile.mkdtemp(prefix="engine-"))  # short: a socket's path has few characters
    command = [
        *("dockerd", "--iptables=false", "--bridge=none", "--storage-driver=vfs", f"--host=unix://{folder}/socket"),
        *(f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"),
    ]
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        docker = Docker({"DOCKER_HOST": f"unix://{folder}/socket", "DOCKER_CONFIG": str(folder)})
        deadline = time.monotonic() + 20
        while subprocess.run(
            ["docker", "version"], env={**os.environ, **docker.environment}, capture_output=True
        ).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                lines = (folder / "log").read_text().splitlines()
                pytest.skip(f"dockerd doesn't start on this machine: {lines[-1] if lines else 'it says nothing'}")
            time.sleep(0.2)
        docker("import", "--change", 'ENV PATH="/bin"', "-", docker.base, stdin=base_image())
        yield docker
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in (mount for mount in mounts if mount.startswith(f"{folder}/")):  # it leaves a network namespace
            subprocess.run(["umount", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def built(docker: Docker, ape: Ape) -> Built:
    """`ape silverback build` with that engine; gives its documents by name."""

    def build(*arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
        options = ("--engine", "docker", "--base", docker.base, "--format", "json")
        result = ape("silverback", "build", *options, *arguments, **docker.environment)
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        return {one["name"]: one for one in json.loads(result.stdout)}

    return build


def test_a_built_image_runs_its_bot_and_a_change_of_code_keeps_the_layers_below(
    docker: Docker, built: Built, project: Path, files: Files
) -> None:
    files(
        **{
            "requirements.txt": "web3\n",
            "contracts/A.json": "[]",
            "bots/blocks/__init__.py": "from lib import x\nbot = 1\n",
            "bots/blocks/.env": "hunter2",
            "bots/other.py": "",
            "lib.py": "x = 1",
            ".env": "hunter2",
            "ape-config.yaml": "name: first\nplugins:\n  - name: vyper\n",
        }
    )
    (project / "lib.py").chmod(0o600)
    document = built("blocks")["blocks"]
    image = "first-blocks:latest"
    assert document["image"] == image
    assert document["digest"] == docker("image", "inspect", "--format", "{{.Id}}", image).strip()
    said, files_there = docker("run", "--rm", "--network=host", image).split(".:\n", 1)
    lines = said.splitlines()
    assert lines[4].startswith("python -c import sys, importlib.util as u; lacks = ")
    assert lines == [
        "silverback run blocks",
        "harambe",
        "/home/harambe/project",
        "from bots.blocks import bot",
        lines[4],
        *("python -m pip --version", "python -m pip install --no-cache-dir -r requirements.txt"),
        *("python -m pip --version", "python -m pip install --no-cache-dir ape-vyper>=0.8,<0.9"),
        "ape compile with A.json",
    ]
    assert set(files_there.split()) == {
        *(".silverback-sessions", "./.silverback-sessions:"),
        *(".", "..", "./bots:", "./bots/blocks:", "./contracts:", "ape-config.yaml", "requirements.txt"),
        *("contracts", "A.json", "bots", "blocks", "__init__.py", "lib.py", "bot.py", "steps.log", "written"),
    }
    given = docker("run", "--rm", "--network=host", image, "run", "--network", "ethereum:mainnet")
    assert given.startswith("silverback run --network ethereum:mainnet\n")

    # A base that has the user already, such as this image, is fine.
    [makes_user] = re.findall(r"^RUN (\(id .*)\n(.*)", (project / document["containerfile"]).read_text(), re.MULTILINE)
    command = "\n".join(makes_user) + " && cat /etc/passwd"
    said = docker("run", "--rm", "--network=host", "--user=root", "--entrypoint=sh", image, "-c", command)
    assert said.count("harambe:x:") == 1

    files(**{"lib.py": "x = 2"})
    built("blocks", "--tag", "2")
    same = [a == b for a, b in zip(docker.layers(image), docker.layers("first-blocks:2"), strict=True)]
    assert same == [True] * (len(same) - 2) + [False] * 2  # what is copied last, and bot.py above it


def test_a_base_that_cant_be_had_is_the_engines_error(built: Built, files: Files) -> None:
    files(**{"bots/blocks.py": "", "ape-config.yaml": "name: first\n"})
    document = built("--base", "127.0.0.1:9/absent:1", code=1)["blocks"]
    assert (document["built"], document["digest"]) == (False, None)
    assert re.match("`docker build` failed with exit code 1: .*127.0.0.1:9", document["error"])


def test_what_a_base_lacks_is_told_in_its_own_words(built: Built, docker: Docker, files: Files) -> None:
    files(**{"bots/blocks.py": "", "ape-config.yaml": "name: first\n", "pyproject.toml": TOO_OLD})
    document = built("--base", docker.base, code=1)["blocks"]
    assert document["error"] == "`docker build` failed with exit code 1: it's too new"


@dataclass
class Registry:
    """A container registry on the loopback interface that takes what is pushed (OCI distribution specification)."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        uploads: dict[str, bytes] = {}  # noqa: RUF012 - of one server

        def answer(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def do_GET(self) -> None:
            known = self.path == "/v2/" or self.path.rpartition("/")[2] in registry.blobs
            self.answer(200 if known else 404)

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:
            self.body()
            self.uploads[place := f"{self.path}{len(self.uploads)}"] = b""
            self.answer(202, Location=place, Docker_Upload_UUID="1")

        def do_PATCH(self) -> None:
            self.uploads[self.path] += self.body()
            self.answer(202, Location=self.path, Range=f"0-{len(self.uploads[self.path]) - 1}")

        def do_PUT(self) -> None:
            content, parts = self.body(), urlsplit(self.path)
            content = self.uploads.get(parts.path, b"") + content
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            assert parse_qs(parts.query).get("digest", [digest]) == [digest]
            registry.blobs[digest] = content
            if "/manifests/" in parts.path:
                registry.manifests[parts.path.removeprefix("/v2/").replace("/manifests/", ":")] = digest
            self.answer(201, Docker_Content_Digest=digest, Location=self.path)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield registry
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_push_gives_the_digest_of_the_registry(
    docker: Docker, built: Built, registry: Registry, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = f"{registry.host}/me/first-blocks:1.4"
    files(**{"bots/blocks.py": "", "ape-config.yaml": f"name: first\nsilverback:\n  registry: {registry.host}/me\n"})
    document = built("--push", "--tag", "1.4")["blocks"]
    assert (document["image"], document["pushed"]) == (image, True)
    assert registry.manifests == {"me/first-blocks:1.4": document["digest"]}
    for name, value in {**docker.environment, ENGINE_VARIABLE: "docker"}.items():
        monkeypatch.setenv(name, value)
    assert image_digests([image, "ghcr.io/me/other:1"]) == {image: document["digest"]}
