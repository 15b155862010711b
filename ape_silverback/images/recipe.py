"""The Containerfile of a bot's image.

It copies named parts of the project, nothing else, and never what looks like a secret. This doesn't depend on the
engine, which gets a folder with just these parts: Docker's classic builder doesn't read an ignore file beside a
Containerfile. For builds by hand there is such a file, which BuildKit and Podman read.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ape_silverback.exceptions import BuildError
from ape_silverback.images.context import NEVER, build_context, is_never
from ape_silverback.images.project_files import inside, read_settings
from ape_silverback.images.requirements import (
    declared_dependencies,
    required_python,
    requirement_paths,
    requirements_file,
)
from ape_silverback.project.desired import DesiredBot
from ape_silverback.project.discovery import find_bot_module
from ape_silverback.project.imports import module_place, needed_files

REPOSITORY = "ghcr.io/apeworx/silverback"
BASE = f"{REPOSITORY}:stable"
"""Image of the bot SDK, which the public ``silverback build`` starts from too. Its user and folder are used below."""

USER = "harambe"
WORKDIR = f"/home/{USER}/project"

SESSIONS = ".silverback-sessions"
"""Where the bot SDK keeps its state. A new volume gets the owner of what is there in the image."""

FOLDER = ".silverback-images"
"""Folder for Containerfiles in a project; the public tool writes its own there under other names."""


CHECKED = "ape-silverback:"
"""Begins what a build prints of a base that a bot can't run on."""


_PYTHON_TAG = re.compile(r"(?:python:?|[-:]py)(?P<version>3\.\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Recipe:
    """How a bot's image is made.

    Attributes:
        bot: the bot's name.
        text: the Containerfile. Its context is the project's folder.
        paths: what it copies of the project: files and folders, relative.
    """

    bot: str
    text: str
    paths: tuple[str, ...]

    def write(self, project: Path) -> Path:
        """Write the Containerfile and its ignore file into the project; return the former.

        A folder that this creates is ignored by git, or no image could be built from a clean commit.

        Raises:
            BuildError: it can't be written.
        """
        file = project / FOLDER / f"Containerfile.{self.bot}"
        allowed = [f"!{path}" for path in self.paths]
        ignored = [f"**/{pattern}" for pattern in NEVER]
        try:
            if not file.parent.exists():
                file.parent.mkdir()
                (file.parent / ".gitignore").write_text("*\n", encoding="utf8")
            file.write_text(self.text, encoding="utf8")
            file.with_name(f"{file.name}.dockerignore").write_text("\n".join(["*", *allowed, *ignored, ""]), "utf8")
        except OSError as error:
            raise BuildError(f"{file}: can't be written: {error.strerror}") from error
        return file

    @contextmanager
    def context(self, project: Path) -> Iterator[Path]:
        """Yield a temporary folder with what is copied of the project.

        Raises:
            BuildError: something can't be read, or a link leads to what may not be copied.
        """
        with build_context(project, self.paths) as folder:
            yield folder


@dataclass(frozen=True)
class _Layer:
    """A part of a Containerfile.

    Attributes:
        about: what it is for, as a comment.
        paths: what it copies of the project.
    """

    about: str
    lines: tuple[str, ...]
    paths: tuple[str, ...] = ()


def make_recipe(project: Path, bot: DesiredBot, *, config: Path | None = None, base: str = BASE) -> Recipe:
    """Return how a bot's image is made: what seldom changes comes first, so that the engine's cache keeps it.

    Without arguments the image runs its bot. As in the images of the public tool, the entry point is ``silverback`` and
    ``run`` alone finds the bot, in ``bot.py``, so that a cluster may pass its own arguments.

    Args:
        project: the project's folder.
        config: the configuration file that Ape reads there, if any.
        base: image to start from: with Python, Ape and the bot SDK.

    Raises:
        BuildError: the bot's module isn't there, or a file of the project can't be read or used.
    """
    settings = read_settings(config) if config is not None else {}
    if config is not None and config.suffix == ".toml":
        settings = settings.get("tool", {}).get("ape", {})
    layers = [
        _base(base, required_python(project)),
        *_requirements(project),
        *_plugins(settings.get("plugins") or ()),
        *_contracts(project, config, settings),
        *_code(project, bot),
    ]
    parts = [
        f"# Image of the bot {bot.name}. Written by `ape silverback build`, which overwrites it.",
        *("\n".join((f"# {layer.about}", *layer.lines)) for layer in layers),
    ]
    return Recipe(bot.name, "\n\n".join(parts) + "\n", _unique(path for layer in layers for path in layer.paths))


def sdk_base(version: str) -> str:
    """Return the base image of a version of the bot SDK, as ``0.7.38``, or of another tag of its images."""
    return f"{REPOSITORY}:{'v' if version[:1].isdigit() else ''}{version}"


def _base(base: str, python: str | None) -> _Layer:
    """Start from a base, and check there that a bot can run on it.

    Args:
        base: the image.
        python: versions of Python that the project requires.

    Raises:
        BuildError: the base's tag names another Python.
    """
    if python and (tagged := _PYTHON_TAG.search(base)) and not _accepts(python, tagged["version"]):
        raise BuildError(
            f"the project requires Python {python} (pyproject.toml), but base image {base} has {tagged['version']}; "
            "choose another one with --base or --sdk"
        )
    foreign = not base.startswith(f"{REPOSITORY}:")
    check = [f"RUN {_check(python, foreign=foreign)}"] if foreign or python else []
    return _Layer(
        f"Everything runs as {USER}, a user that is added to a base without it.",
        (
            f"FROM {base}",
            "USER root",
            f"WORKDIR {WORKDIR}",
            f"RUN (id {USER} || useradd --create-home --user-group {USER} || adduser -D {USER}) \\",
            f"    && mkdir -p {SESSIONS} && chown {USER}:{USER} . {SESSIONS}",
            f"USER {USER}",
            f'ENV PATH="$PATH:/home/{USER}/.local/bin"',
            *check,
        ),
    )


def _accepts(python: str, version: str) -> bool:
    """Return whether a version of Python is one of those required; of ``3.11`` any patch release is meant."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        wanted = SpecifierSet(python)
    except InvalidSpecifier as error:
        raise BuildError(f"pyproject.toml: requires-python: {error}") from error
    patches = [version] if version.count(".") > 1 else [f"{version}.{patch}" for patch in range(30)]
    return any(wanted.contains(patch) for patch in patches)


def _check(python: str | None, *, foreign: bool) -> str:
    """Return a command that fails on a base that lacks what a bot needs, and names it."""
    code = ["import sys, importlib.util as u"]
    if foreign:
        code += [
            "lacks = [name for name in ('ape', 'silverback') if not u.find_spec(name)]",
            f"lacks and sys.exit('{CHECKED} the base image lacks ' + ' and '.join(lacks))",
        ]
    if python:
        code += [
            "from packaging.specifiers import SpecifierSet",
            "version = '.'.join(map(str, sys.version_info[:3]))",
            f"version in SpecifierSet({python!r}) or sys.exit("
            f"'{CHECKED} the project requires Python {python}, but the base image has ' + version)",
        ]
    return f"python -c {shlex.quote('; '.join(code))}" + (" && command -v silverback" if foreign else "")


def _requirements(project: Path) -> Iterator[_Layer]:
    """Install the project's requirements, else the dependencies of its ``pyproject.toml``."""
    if file := requirements_file(project):
        paths = _unique(requirement_paths(project, file))
        yield _Layer("Requirements.", (*_copies(project, paths), _pip("-r", file)), paths)
    # Written out, so that a change of anything else in that file keeps the layer.
    elif (project / "pyproject.toml").is_file() and (dependencies := declared_dependencies(project)):
        yield _Layer("Dependencies of pyproject.toml.", (_pip(*dependencies),))


def _plugins(plugins: Sequence[Any]) -> Iterator[_Layer]:
    """Install Ape's plugins as Ape asks pip for them, in the minor version of the Ape that is used here.

    Not with ``ape plugins install``: it fails on a plugin that the base has already, with ``-U`` on one with a version,
    and it asks GitHub's API, which has a rate limit, for a list.
    """
    if plugins:
        from importlib.metadata import version

        minor = int(version("eth-ape").split(".")[1])
        default = f">=0.{minor},<0.{minor + 1}"
        yield _Layer("Ape's plugins.", (_pip(*(_plugin(plugin, default) for plugin in plugins)),))


def _plugin(plugin: Any, default: str) -> str:
    """Return the requirement that pip gets for a plugin."""
    if not isinstance(plugin, Mapping) or "name" not in plugin:
        raise BuildError(f"plugins of Ape's configuration: expected `- name: NAME`, got {plugin!r}")
    name, asked = str(plugin["name"]), str(plugin.get("version") or "")
    if from_git := re.search(r"git\+.*", f"{name} {asked}"):
        return from_git[0].strip()
    name, _, constraint = re.sub(r"(?=[=<>~!])", " ", name, count=1).partition(" ")
    asked = asked or constraint or default
    exact = "" if re.match(r"[=<>~!]", asked) else "=="
    return f"ape-{name.lower().replace('_', '-').removeprefix('ape-')}{exact}{asked}"


def _contracts(project: Path, config: Path | None, settings: Mapping[str, Any]) -> Iterator[_Layer]:
    """Copy the configuration, contracts, interfaces and local dependencies, and compile."""
    if config is not None:
        yield _Layer("Ape's configuration.", tuple(_copies(project, [config.name])), (config.name,))
    base = settings.get("base_path") or "."
    keys = ("contracts_folder", "interfaces_folder")
    named = {key: settings.get(key) or key.removesuffix("_folder") for key in keys}
    wanted = {f"'{key}' of Ape's configuration": os.path.normpath(Path(base, name)) for key, name in named.items()}
    wanted |= {name: name for name in ("abi", "abis")}
    wanted |= {
        f"dependency '{one['local']}'": one["local"] for one in settings.get("dependencies") or () if one.get("local")
    }
    folders = [inside(project, folder, says) for says, folder in wanted.items() if _has_files(project / folder)]
    if folders:
        paths = _unique(folders)
        compiled = any(_has_files(project / base / name) for name in named.values())
        yield _Layer("Contracts.", (*_copies(project, paths), *(["RUN ape compile"] if compiled else ())), paths)


def _code(project: Path, bot: DesiredBot) -> Iterator[_Layer]:
    """Copy the bot, what it imports of the project, and everything in ``bots/`` that isn't Python."""
    module = find_bot_module(project, bot.module)
    if module is None:
        raise BuildError(
            f"no module '{bot.module}' in this project: a bot is bots/NAME.py or a package in bots/; "
            "set `module:` for one with another name"
        )
    name = module.name
    needed = needed_files(project, name)
    if (project / "bots").is_dir() and name.startswith("bots."):
        others = {path for path in (project / "bots").iterdir() if not _is_python(path) and not is_never(path)}
        needed |= {path for path in others if path.is_file() or _has_files(path)}
    paths = _unique(sorted(path.relative_to(project).as_posix() for path in needed))
    lines = _copies(project, paths)
    if any(path.startswith("src/") for path in paths):
        lines.append(f'ENV PYTHONPATH="{WORKDIR}/src"')
    if module_place(project, "bot") not in needed:
        imported = "bot" if module.attribute == "bot" else f"{module.attribute} as bot"
        lines.append(f"RUN echo 'from {name} import {imported}' > bot.py")
    yield _Layer("The bot, and what it needs of the project.", tuple(lines), paths)
    command = json.dumps(["run", bot.module])
    yield _Layer("How to run it.", ('ENTRYPOINT ["silverback"]', f"CMD {command}"))


def _is_python(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def _has_files(folder: Path) -> bool:
    """Return whether there is something to copy in a folder."""
    return any(path.is_file() and not is_never(path) for path in folder.rglob("*")) if folder.is_dir() else False


def _unique(paths: Iterable[str]) -> tuple[str, ...]:
    """Return each path once, without those inside another."""
    paths = list(dict.fromkeys(paths))
    return tuple(path for path in paths if not any(path.startswith(f"{other}/") for other in paths))


def _copies(project: Path, paths: Iterable[str]) -> list[str]:
    """Copy paths to the same places: files of one folder together, a folder by itself, as COPY takes its contents."""
    sources: dict[str, list[str]] = {}
    for path in paths:
        destination = path if (project / path).is_dir() else Path(path).parent.as_posix()
        sources.setdefault(f"{destination}/", []).append(path)
    lines = []
    for destination, names in sources.items():
        words = [*names, destination]
        plain = all(re.fullmatch(r"[\w./+-]+", word) for word in words)
        lines.append(f"COPY --chown={USER}:{USER} {' '.join(words) if plain else json.dumps(words)}")
    return lines


def _pip(*arguments: str) -> str:
    """Install with pip, which the base's virtual environment may lack."""
    quoted = " ".join(map(shlex.quote, arguments))
    return (
        f"RUN (python -m pip --version || python -m ensurepip) \\\n    && python -m pip install --no-cache-dir {quoted}"
    )
