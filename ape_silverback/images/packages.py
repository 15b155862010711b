"""Whether a bot's image installs a package, as far as the project's own files tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ape_silverback.images.project_files import read_settings, read_text
from ape_silverback.images.requirements import declared_dependencies, requirement_paths, requirements_file


def is_required(project: Path, config: Path | None, package: str) -> bool:
    """Return whether a project requires a package: in its requirements, or as a plugin of Ape's configuration.

    Args:
        project: the project's folder.
        config: the configuration file that Ape reads there, if any.
        package: its name, as ``ape-ledger``.

    Raises:
        BuildError: a file can't be read or used.
    """
    named = re.compile(rf"(?<![\w-]){re.escape(_normal(package))}(?![\w-])")
    return any(named.search(_normal(line)) for line in _requirements(project, config))


def _requirements(project: Path, config: Path | None) -> Iterator[str]:
    if file := requirements_file(project):
        for path in requirement_paths(project, file):
            if (project / path).is_file() and path.endswith(".txt"):
                yield from (line.partition(" #")[0] for line in read_text(project / path).splitlines())
    elif (project / "pyproject.toml").is_file():
        yield from declared_dependencies(project)
    settings = read_settings(config) if config is not None else {}
    if config is not None and config.suffix == ".toml":
        settings = settings.get("tool", {}).get("ape", {})
    for plugin in settings.get("plugins") or ():
        if isinstance(plugin, dict) and "name" in plugin:
            yield f"ape-{str(plugin['name']).removeprefix('ape-')} {plugin.get('version') or ''}"


def _normal(text: str) -> str:
    """Return a line with the names in it as PEP 503 compares them; nothing of a comment."""
    return "" if text.lstrip().startswith("#") else re.sub(r"[-_.]+", "-", text.lower())
