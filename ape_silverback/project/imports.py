"""Which files of a project a bot runs with, by following its imports. Nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from ape_silverback.project.discovery import find_bot_module


def bot_files(folder: Path, module: str) -> set[Path]:
    """Return the files and packages of a project that a bot needs; none for a module that isn't there.

    A package is one path, its folder, except ``bots``, of which only the parts that are needed are returned.

    Args:
        folder: the project's folder.
        module: as ``silverback run`` takes it.
    """
    found = find_bot_module(folder, module)
    return needed_files(folder, found.name) if found else set()


def bot_code(folder: Path, module: str) -> list[Path]:
    """Return the Python files that a bot runs with, sorted: those of ``bot_files`` and in its packages."""
    return sorted(file for place in bot_files(folder, module) for file in _python_files(place))


def _python_files(place: Path) -> Iterable[Path]:
    return place.rglob("*.py") if place.is_dir() else [place]


def needed_files(folder: Path, module: str) -> set[Path]:
    """Return the files and packages of a project that a module needs, itself included.

    Args:
        folder: the project's folder.
        module: dotted name by which it is imported there.
    """
    needed: set[Path] = set()
    queue = [module]
    while queue:
        place = module_place(folder, queue.pop())
        if place is None or place in needed:
            continue
        needed.add(place)
        for file in _python_files(place):
            queue += _imports(folder, file)
    return needed


def module_place(folder: Path, name: str) -> Path | None:
    """Return the file or package that holds a module; a package as a whole, but of ``bots`` only the part in it."""
    first, _, below = name.partition(".")
    if not first:
        return None
    if first == "bots" and not below:
        return file if (file := folder / "bots" / "__init__.py").is_file() else None
    if first == "bots":
        folders, (first, _, below) = [folder / "bots"], below.partition(".")
    else:
        folders = [folder, folder / "src"]
    for above in folders:
        package, file = above / first, above / f"{first}.py"
        if (package / "__init__.py").is_file():
            return package
        if file.is_file():
            return file
        part = package / below.partition(".")[0]
        if below and (part.is_dir() or part.with_name(f"{part.name}.py").is_file()):  # a namespace package
            return package
    return None


def _imports(folder: Path, file: Path) -> Iterator[str]:
    """Return the absolute names of what a file imports; nothing for one that isn't Python."""
    root = folder / "src" if file.is_relative_to(folder / "src") else folder
    package = file.parent.relative_to(root).parts
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    yield ".".join(package)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = (*above, *([node.module] if node.module else ()))
            yield ".".join(origin)
            yield from (".".join((*origin, alias.name)) for alias in node.names)
