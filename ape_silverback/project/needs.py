"""What a bot's code needs: environment variables and an account. Nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ape_silverback.project.imports import bot_files


@dataclass(frozen=True)
class BotNeeds:
    """What a bot needs to run, as far as its code shows.

    Attributes:
        variables: names of environment variables without which it fails, in the order in which they appear.
        optional: names of those that it reads with a default.
        signs: whether it uses the account that the bot SDK gives it.
    """

    variables: tuple[str, ...]
    optional: tuple[str, ...]
    signs: bool


def needs_of(folder: Path, module: str) -> BotNeeds:
    """Read what a bot's code needs.

    Args:
        folder: the project's folder.
        module: the bot's module, as ``silverback run`` takes it.
    """
    required: dict[str, None] = {}
    optional: dict[str, None] = {}
    signs = False
    for path in sorted(bot_files(folder, module)):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            try:
                tree = ast.parse(file.read_bytes())
            except (OSError, SyntaxError, ValueError, RecursionError):
                continue
            for name, has_default in _variables(tree):
                (optional if has_default else required)[name] = None
            signs = signs or any(isinstance(node, ast.Attribute) and node.attr == "signer" for node in ast.walk(tree))
    return BotNeeds(tuple(required), tuple(name for name in optional if name not in required), signs)


def _variables(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Find ``os.environ["X"]``, ``os.environ.get("X")`` and ``os.getenv("X")``, and whether each may be missing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _ends_with(node.value, "environ"):
            found, has_default = node.slice, False
        elif (
            isinstance(node, ast.Call)
            and node.args
            and (
                _ends_with(node.func, "getenv")
                or (
                    isinstance(node.func, ast.Attribute)
                    and node.func.attr == "get"
                    and _ends_with(node.func.value, "environ")
                )
            )
        ):
            found, has_default = node.args[0], True
        else:
            continue
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield found.value, has_default


def _ends_with(node: ast.AST, name: str) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == name) or (isinstance(node, ast.Name) and node.id == name)
