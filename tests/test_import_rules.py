"""Who may import whom, and what a command may load before it does its work."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "ape_silverback"

# Room → the rooms that it may import. Those of EVERYBODYS may be imported by all.
MAY_IMPORT: dict[str, set[str]] = {
    "exceptions": set(),
    "files": set(),
    "env_file": set(),
    "git": set(),
    "spans": set(),
    "toml_lines": set(),
    "version": set(),
    "config": set(),
    "section": {"config"},
    "plugin": {"config", "section"},
    "networks": set(),
    "desired": set(),
    "project": {"config", "section", "networks", "desired"},
    "images": {"desired"},
    "cluster": set(),
    "contracts": set(),
    "connection": {"section", "desired", "cluster"},
    "deployment": {"desired", "cluster"},
    "stream": {"config", "cluster", "contracts", "connection"},
    "setting": {"config", "section", "desired", "project", "images", "cluster", "connection", "deployment"},
    "local": {"cluster.types", "cluster.errors", "contracts"},
    "cli": {
        *("config", "section", "networks", "desired", "project", "images"),
        *("cluster", "connection", "contracts", "deployment", "stream", "setting", "local"),
    },
    "api": {"desired", "project", "images", "cluster", "deployment", "stream", "setting"},
    "console": {""},
    "pytest_plugin": {"api", "section", "cluster", "local"},
    "": {"config", "section", "plugin", "desired", "images", "cluster", "deployment", "api"},  # the package, lazily
}
EVERYBODYS = {"env_file", "exceptions", "files", "git", "spans", "toml_lines", "version"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Give the modules of this package that a file imports anywhere, in functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            if node.module == PACKAGE:
                yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith(f"{PACKAGE}."):
                yield node.module


@pytest.mark.parametrize("path", sorted((ROOT / PACKAGE).rglob("*.py")), ids=module_name)
def test_a_room_imports_only_the_rooms_it_may(path: Path) -> None:
    room = [*module_name(path).split("."), ""][1]
    assert room in MAY_IMPORT, f"a new room, {room}: say in MAY_IMPORT what it may import"
    for imported in imports_of(path):
        target = imported.removeprefix(f"{PACKAGE}.")
        there = target.split(".")[0]
        allowed = MAY_IMPORT[room] | EVERYBODYS | {room}
        assert there in allowed or target in allowed, f"{room} must not import {imported}"


def test_the_rules_have_no_circles() -> None:
    rooms = {room: {target.split(".")[0] for target in targets} for room, targets in MAY_IMPORT.items()}
    while rooms:
        free = [room for room, targets in rooms.items() if not targets & set(rooms)]
        assert free, f"these import each other: {sorted(rooms)}"
        for room in free:
            del rooms[room]


def modules_after(code: str) -> set[str]:
    """Give the modules that a fresh interpreter has after running some code."""
    script = f"{code}\nimport sys; print(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    return set(result.stdout.split())


def test_what_pytest_imports_in_every_project_is_light() -> None:
    loaded = modules_after("import ape_silverback.pytest_plugin")
    assert not loaded & {"ape", "click", "pydantic", "httpx", "psutil"}


def test_what_ape_itself_imports_is_light() -> None:
    loaded = modules_after("import ape_silverback, ape_silverback.cli")
    assert not loaded & {"pydantic", "httpx", "yaml", "rich", "web3", "pandas", "ape.api", "ape.utils", "fastapi"}


@pytest.mark.parametrize(
    "module",
    ["cluster.client", "cluster.settings", "section", "deployment.apply", "deployment.live", "local.control"],
)
def test_what_talks_to_a_cluster_loads_neither_the_slow_half_of_ape_nor_the_server(module: str) -> None:
    loaded = modules_after(f"import {PACKAGE}.{module}")
    heavy = {"web3", "pandas", "numpy", "ape.contracts", "ape.api", "ape.utils", "ape.managers"}
    server = {"fastapi", "starlette", "uvicorn", "cryptography", "sqlite3"}
    assert not loaded & (heavy | server)
