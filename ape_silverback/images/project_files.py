"""Reading files of a project for its images."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ape_silverback.exceptions import BuildError


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raises:
        BuildError: it can't be read, or isn't UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise BuildError(f"{file.name}: can't be read: {reason}") from error


def read_settings(file: Path) -> dict[str, Any]:
    """Return the keys and values of a file of YAML, JSON or TOML; none when it holds something else.

    Raises:
        BuildError: it can't be read.
    """
    import yaml

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import toml as tomllib  # what Ape reads it with there
    text = read_text(file)
    try:
        data = tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)  # YAML reads JSON too
    except (ValueError, yaml.YAMLError) as error:
        raise BuildError(f"{file.name}: can't be read: {error}") from error
    return data if isinstance(data, dict) else {}


def inside(project: Path, path: str, says: str) -> str:
    """Return a path relative to the project.

    Args:
        project: the project's folder.
        path: relative to it.
        says: what names the path, for the error.

    Raises:
        BuildError: it leads out of the project, or is the whole of it, which may hold anything.
    """
    whole = project.resolve()
    if whole not in (project / path).resolve().parents:
        raise BuildError(f"{says} can't be copied into an image: it isn't a file or folder inside the project")
    return Path(os.path.relpath(project / path, project)).as_posix()
