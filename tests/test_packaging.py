"""What is installed: the wheel's files, what `ape` shows of the plugin, and what a broken install does to `ape`."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, entry_points, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT, Ape

EXTRAS = ("server/", "pytest_plugin.py", "cli/cluster/bots/metrics.py", "deployment/watch.py", "mcp_server.py")
"""Files, or folders, that take an extra to be used."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from this tree, outside of it."""
    folder = tmp_path_factory.mktemp("wheel")
    script = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    source = folder / "source"
    shutil.copytree(ROOT / "ape_silverback", source / "ape_silverback", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    built = subprocess.run(
        [sys.executable, "-c", script, folder], cwd=source, capture_output=True, text=True, check=True
    )
    return zipfile.ZipFile(folder / built.stdout.split()[-1])


def test_the_wheel_holds_what_ape_and_type_checkers_look_for(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "ape_silverback/py.typed" in names
    [top_level] = [name for name in names if name.endswith(".dist-info/top_level.txt")]
    assert wheel.read(top_level).decode().split() == ["ape_silverback"]
    assert any("LICENSE" in name for name in names)


def test_the_wheel_holds_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if name.endswith(".py")}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "ape_silverback").rglob("*.py")}
    assert shipped == ours


def test_the_wheel_holds_the_validator_with_its_source(wheel: zipfile.ZipFile) -> None:
    folder = "ape_silverback/apepay"
    assert {f"{folder}/fixed_rate.json", f"{folder}/fixed_rate.vy"} <= set(wheel.namelist())


def test_the_version_is_one_that_ape_plugins_install_accepts() -> None:
    assert distribution("ape-silverback").version.startswith("0.8.")


def test_the_entry_point_is_the_one_that_ape_looks_for() -> None:
    [found] = [entry for entry in entry_points(group="ape_cli_subcommands") if entry.name == "ape_silverback"]
    assert found.value == "ape_silverback.cli:cli"


def test_ape_help_lists_the_plugin(ape: Ape) -> None:
    result = ape("--help")
    assert result.returncode == 0
    assert "silverback" in result.stdout


def test_ape_plugins_list_shows_it(ape: Ape) -> None:
    result = ape("plugins", "list")
    assert result.returncode == 0
    assert "silverback" in result.stdout


def test_the_groups_help_shows_the_commands(ape: Ape) -> None:
    assert "cluster" in ape("silverback", "--help").stdout
    result = ape("silverback", "cluster", "--help")
    assert result.returncode == 0
    for command in ("deploy", "status", "bots", "up", "down"):
        assert command in result.stdout


def test_the_version_option_prints_the_version(ape: Ape) -> None:
    assert ape("silverback", "--version").stdout.strip() == distribution("ape-silverback").version


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A folder for PYTHONPATH in which what the commands need can't be imported."""
    for name in ("httpx", "tomlkit"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('broken on purpose')\n")
    return str(tmp_path)


def test_an_import_error_in_this_package_never_breaks_apes_help(ape: Ape, broken: str) -> None:
    result = ape("--help", PYTHONPATH=broken)
    assert result.returncode == 0, result.stderr
    assert "silverback" in result.stdout


def test_a_command_that_can_not_be_loaded_says_so_without_a_traceback(ape: Ape, broken: str) -> None:
    result = ape("silverback", "cluster", "status", "--profile", "x", PYTHONPATH=broken)
    assert result.returncode == 1
    assert "broken on purpose" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_mistyped_command_gets_suggestions_from_its_own_group(ape: Ape) -> None:
    result = ape("silverback", "cluster", "depoly")
    assert result.returncode == 2
    assert "did you mean 'deploy'?" in result.stderr


# What is imported is declared


def imported(file: Path) -> set[str]:
    """Return the top-level modules that a file imports, at any level of it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"ape_silverback", "tomllib"}  # in Python 3.10 there is no tomllib


def declared(extra: str) -> set[str]:
    """Return the distributions that the package requires, alone or with an extra."""
    environment = {"extra": extra, "python_version": "3.10"}  # the oldest takes the most
    found = [Requirement(text) for text in distribution("ape-silverback").requires or ()]
    return {canonicalize_name(one.name) for one in found if not one.marker or one.marker.evaluate(environment)}


def test_what_the_client_imports_is_required_and_what_the_server_imports_is_in_extras() -> None:
    distributions = packages_distributions()
    client, everything = declared(""), declared("dev")
    undeclared = []
    for file in (ROOT / "ape_silverback").rglob("*.py"):
        place = file.relative_to(ROOT / "ape_silverback").as_posix()
        allowed = everything if place.startswith(EXTRAS) else client
        for name in imported(file):
            providers = {canonicalize_name(one) for one in distributions.get(name, [name])}
            if not providers & allowed:
                undeclared.append(f"{place}: {name}")
    assert not undeclared


# The repository


@pytest.mark.parametrize(
    "file", [*(ROOT / ".github").rglob("*.y*ml"), ROOT / ".pre-commit-config.yaml"], ids=lambda file: file.name
)
def test_what_a_workflow_or_hook_runs_is_there(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    assert content
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = file.read_text()
    assert set(re.findall(r"\bmake (\w+)", text)) <= targets
    for path in re.findall(r"(?:tests|docs|\.ci)/[\w./]+", text):
        assert (ROOT / path).exists() or path.startswith("docs/_build"), path
