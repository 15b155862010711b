"""The folder that an engine builds from: named parts of the project, never what looks like a secret.

Links are replaced by what they lead to, as long as that is a part of the project that may be copied itself.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from ape_silverback.exceptions import BuildError

NEVER = (".*", "__pycache__", "*.pyc", "*.env", "*.pem", "*.key", "venv", "node_modules", "*.egg-info")
"""What is never copied, at any depth. The first covers .env, .git, .venv, .ape, .ssh and the like."""


def is_never(path: Path) -> bool:
    """Return whether a file or folder is never copied because of its name."""
    return any(fnmatch(path.name, pattern) for pattern in NEVER)


@contextmanager
def build_context(project: Path, paths: Iterable[str]) -> Iterator[Path]:
    """Yield a temporary folder with parts of a project.

    Args:
        project: the project's folder.
        paths: files and folders in it, relative.

    Raises:
        BuildError: something can't be read, or a link leads to what may not be copied.
    """
    with tempfile.TemporaryDirectory(prefix="silverback-image-") as name:
        try:
            for path in paths:
                _copy(project, project / path, Path(name, path), ())
        except OSError as error:
            raise BuildError(f"{error.filename or project}: can't be read: {error.strerror}") from error
        yield Path(name)


def _copy(project: Path, source: Path, copy: Path, above: tuple[Path, ...]) -> None:
    """Copy a file or folder, following links within the project.

    Args:
        above: the real folders that hold it, to notice a link that leads back to one.
    """
    real = _real(project, source)
    if not real.is_dir():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(real, copy)
        return
    if real in above:
        raise BuildError(f"{source.relative_to(project)}: links to a folder that it is in")
    copy.mkdir(parents=True, exist_ok=True)
    shutil.copystat(real, copy)
    for below in sorted(real.iterdir()):
        if not is_never(below):
            _copy(project, source / below.name, copy / below.name, (*above, real))


def _real(project: Path, path: Path) -> Path:
    """Return what a path leads to when it is a link, or lies below one.

    Raises:
        BuildError: that isn't there, lies outside the project, or is never copied.
    """
    shown, real, whole = path.relative_to(project), path.resolve(), project.resolve()
    if real == whole / shown:
        return real
    if not real.exists():
        raise BuildError(f"{shown}: broken link to {real}; remove it")
    if not real.is_relative_to(whole):
        raise BuildError(f"{shown}: links to {real}, outside the project; replace the link with a copy")
    within = real.relative_to(whole)
    if any(is_never(Path(part)) for part in within.parts):
        raise BuildError(f"{shown}: links to {within}, which is never copied into an image")
    return real
