"""Who may import whom, and what a command may load before it does its work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "ape_silverback"

# Room → the rooms that it may import. Leaves may be imported by all and import only leaves.
LEAVES = {
    "addresses",
    "concurrency",
    "durations",
    "exceptions",
    "files",
    "plurals",
    "suggestions",
    "timezones",
    "toml_lines",
    "transport",
    "version",
}
MAY_IMPORT: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "config": {"project.discovery"},
    "plugin": {"config"},
    "cluster": set(),
    "apepay": set(),
    "connect": {"config", "cluster"},
    "project": {"config", "cluster.types"},
    "images": {"project.desired", "project.discovery", "project.imports"},
    "stream": {"apepay", "cluster", "config", "connect"},
    "deployment": {"project", "cluster", "images", "stream", "connect", "config"},
    "server": {
        "config.models",
        "cluster.types",
        "cluster.task_results",
        "cluster.bot_errors",
        "apepay",
        "project.discovery",
    },
    "api": {"deployment", "project", "images", "cluster", "stream", "config.env_file"},
    "doctor": {"config", "cluster", "connect", "project", "stream", "apepay", "images"},
    "mcp_server": {"cluster", "connect", "deployment", "stream"},
    "console": {""},
    "pytest_plugin": {"api", "config", "cluster", "server"},
    "cli": {
        "config",
        "project",
        "images",
        "cluster",
        "connect",
        "apepay",
        "stream",
        "deployment",
        "server",
        "doctor",
        "mcp_server",
    },
    "": {"config", "plugin", "project", "images", "cluster", "deployment", "api"},  # the package, lazily
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Return the modules of this package that a file imports anywhere, in functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            if node.module == PACKAGE:
                yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith(f"{PACKAGE}."):
                yield node.module


PATHS = {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def file_of(imported: str) -> str | None:
    """Return the module that an imported dotted name is or is defined in; None for one that isn't a file."""
    while imported not in PATHS:
        imported, _, _ = imported.rpartition(".")
        if not imported:
            return None
    return imported


def circle_among(imports: Mapping[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, in order; nothing where there is none."""
    finished: set[str] = set()

    def visit(module: str, above: list[str]) -> list[str]:
        if module in above:
            return above[above.index(module) :]
        if module in finished:
            return []
        for imported in sorted(imports.get(module, ())):
            if circle := visit(imported, [*above, module]):
                return circle
        finished.add(module)
        return []

    return next((circle for module in sorted(imports) if (circle := visit(module, []))), [])


@pytest.mark.parametrize("module", PATHS)
def test_a_room_imports_only_the_rooms_it_may(module: str) -> None:
    room = [*module.split("."), ""][1]
    assert room in MAY_IMPORT, f"a new room, {room}: add what it may import to MAY_IMPORT"
    for imported in imports_of(PATHS[module]):
        target = imported.removeprefix(f"{PACKAGE}.")
        allowed = MAY_IMPORT[room] | LEAVES | {room}
        assert target.split(".")[0] in allowed or target in allowed, f"{room} must not import {imported}"


def test_every_room_is_in_the_guide_for_contributors() -> None:
    rows = re.findall(r"^\| (`.*`) \| ", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+(?:/|\.py))`", row)}
    folder = ROOT / PACKAGE
    rooms = {f"{path.parent.name}/" for path in folder.glob("[!_]*/__init__.py")}
    assert told == rooms | {path.name for path in folder.glob("[!_]*.py")}


def test_no_two_files_import_each_other() -> None:
    imports = {
        module: {found for name in imports_of(path) if (found := file_of(name)) not in (None, PACKAGE, module)}
        for module, path in PATHS.items()
    }
    assert not circle_among(imports)


def test_a_circle_is_found_wherever_it_lies() -> None:
    straight = {"a": {"b", "c"}, "b": {"c", "d"}, "c": {"d"}}
    assert circle_among(straight) == []
    assert circle_among({**straight, "d": {"b"}}) == ["b", "c", "d"]


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has after running some code."""
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
    ["cluster.client", "cluster.settings", "config.reader", "deployment.apply", "deployment.observed", "server.daemon"],
)
def test_what_talks_to_a_cluster_loads_neither_the_slow_half_of_ape_nor_the_server(module: str) -> None:
    loaded = modules_after(f"import {PACKAGE}.{module}")
    heavy = {"web3", "pandas", "numpy", "ape.contracts", "ape.api", "ape.utils", "ape.managers"}
    server = {"fastapi", "starlette", "uvicorn", "cryptography", "sqlite3"}
    assert not loaded & (heavy | server)
