"""What pip installs into a bot's image, and the files of the project that it needs for that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ape_silverback.exceptions import BuildError
from ape_silverback.images.context import is_never
from ape_silverback.images.project_files import inside, read_settings, read_text

FILES = ("requirements-bot.txt", "requirements.txt")
"""Files of requirements, of which the first that is there counts."""

_INCLUDED = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*(?P<file>[^\s#]+)")
_FOLDER = re.compile(r"\s*(?:-f|--find-links)[\s=]*(?P<path>[^\s#]+)")
_EDITABLE = re.compile(r"\s*(?:-e|--editable)[\s=]*(?P<path>[^\s#;\[]+)")
_LOCAL = re.compile(r"\s*(?:[\w.-]+(?:\[[^\]]*\])?\s*@\s*)?(?:file:(?://)?)?(?P<path>[^\s#;\[]+)")
_ARCHIVES = (".whl", ".tar.gz", ".tgz", ".zip")
_PACKAGING = ("pyproject.toml", "setup.py", "setup.cfg", "MANIFEST.in", "README*", "LICENSE*", "LICENCE*")


def requirements_file(project: Path) -> str | None:
    """Return the project's file of requirements, or None."""
    return next((name for name in FILES if (project / name).is_file()), None)


def requirement_paths(project: Path, file: str) -> Iterator[str]:
    """Return what pip reads of the project for a file of requirements: that file, those it includes, local packages.

    Args:
        project: the project's folder.
        file: the file, relative to it.

    Raises:
        BuildError: a file can't be read, or a requirement lies outside the project.
    """
    queue, seen = [file], set()
    while queue:
        name = queue.pop(0)
        if name in seen:
            continue
        seen.add(name)
        yield name
        for line in read_text(project / name).splitlines():
            says = f"'{line.strip()}' in {name}"
            if match := _INCLUDED.match(line):
                included = os.path.normpath(Path(name).parent / match["file"])
                if (project / included).is_file():
                    queue.append(inside(project, included, says))
            elif path := _local_path(project, line):
                yield from _package(project, os.path.normpath(path), says)


def _local_path(project: Path, line: str) -> str | None:
    """Return the path that a line of requirements names, as pip reads it, or None for another line."""
    if match := _EDITABLE.match(line) or _FOLDER.match(line):
        path = match["path"].removeprefix("file://").removeprefix("file:")
        return None if "://" in path or path.startswith("git+") else path
    match = _LOCAL.match(line)
    if not match or line.lstrip().startswith(("#", "-")) or "://" in match["path"]:
        return None
    path = match["path"]
    looks_local = path.startswith((".", "/")) or path.endswith(_ARCHIVES) or "/" in path or "file:" in line
    return path if looks_local and (path.startswith((".", "/")) or (project / path).exists()) else None


def _package(project: Path, path: str, says: str) -> Iterator[str]:
    """Return what is copied of a local package: all of it, but of the project itself only what gets installed."""
    if path != ".":
        yield inside(project, path, says)
        return
    # The project's folder may hold anything: its packaging files and its packages are what an installation needs.
    for pattern in _PACKAGING:
        yield from (found.name for found in sorted(project.glob(pattern)) if found.is_file())
    if (project / "src").is_dir():
        yield "src"
        return
    for found in sorted(project.iterdir()):
        if (found / "__init__.py").is_file() and found.name not in ("tests", "bots") and not is_never(found):
            yield found.name


def declared_dependencies(project: Path) -> list[str]:
    """Return the dependencies that ``pyproject.toml`` declares.

    Raises:
        BuildError: they are dynamic or Poetry's, and only known once the package is built.
    """
    data = read_settings(project / "pyproject.toml")
    about = data.get("project", {})
    if "dependencies" in about.get("dynamic", ()) or data.get("tool", {}).get("poetry", {}).get("dependencies"):
        raise BuildError(
            "pyproject.toml: its dependencies are dynamic or Poetry's, which can't be read here; write them to "
            "requirements-bot.txt, or leave that file empty if the base image has them all"
        )
    return [str(dependency) for dependency in about.get("dependencies") or ()]


def required_python(project: Path) -> str | None:
    """Return the versions of Python that ``pyproject.toml`` requires, as ``>=3.10,<4``, or None.

    Raises:
        BuildError: the file can't be read.
    """
    file = project / "pyproject.toml"
    wanted = read_settings(file).get("project", {}).get("requires-python") if file.is_file() else None
    return str(wanted) if wanted else None
