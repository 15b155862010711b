"""Which bots a saved file concerns."""

from __future__ import annotations

from pathlib import Path

import pytest

from ape_silverback.cluster.types import BotConfiguration
from ape_silverback.deployment.watch import BotCode, CodeChange, Fault
from ape_silverback.project.desired import DesiredBot
from ape_silverback.project.discovery import project_image

BOTS = {"a": "from lib.prices import price\n", "b": "import settings\n", "c": ""}


@pytest.fixture
def code(project: Path) -> BotCode:
    (project / "bots").mkdir()
    (project / "lib").mkdir()
    for name, text in BOTS.items():
        (project / "bots" / f"{name}.py").write_text(text)
    (project / "lib" / "__init__.py").touch()
    (project / "lib" / "prices.py").write_text("import settings\nprice = 1\n")
    (project / "settings.py").write_text("limit = 1\n")
    return BotCode(bot(name, project) for name in BOTS)


def bot(name: str, project: Path) -> DesiredBot:
    image = project_image(project, name)
    configuration = BotConfiguration(image=image, ecosystem="ethereum", network="local", provider="foundry")
    return DesiredBot(name, "the test", name, configuration, {})


def test_a_saved_file_concerns_the_bots_that_import_it_directly_or_not(project: Path, code: BotCode) -> None:
    assert code.look() is None
    (project / "settings.py").write_text("limit = 2\n")
    assert code.look() == CodeChange(("settings.py",), restart=("a", "b"))
    (project / "bots" / "c.py").write_text("# saved\n")
    assert code.look() == CodeChange(("bots/c.py",), restart=("c",))
    (project / "unused.py").write_text("x = 1\n")
    (project / "settings.py").touch()
    assert code.look() is None


def test_a_syntax_error_concerns_no_bot_until_it_is_mended(project: Path, code: BotCode) -> None:
    before = (project / "settings.py").read_text()
    (project / "settings.py").write_text("limit = (\n")
    change = code.look()
    assert change is not None
    assert change.restart == ()
    [fault] = change.faults
    assert fault.text == "settings.py:1: '(' was never closed"
    assert fault.bots == ("a", "b")
    assert code.look() is None, "it is told once"

    (project / "bots" / "c.py").write_text("# saved\n")
    assert code.look() == CodeChange(("bots/c.py",), restart=("c",)), "the others go on"
    (project / "bots" / "a.py").write_text("# imports nothing any more\n")
    change = code.look()
    assert change is not None
    assert change.restart == ("a",)

    (project / "settings.py").write_text(before)
    assert code.look() == CodeChange(("settings.py",), restored=("b",)), "it runs with just that"


def test_what_a_broken_file_imported_hasnt_changed_by_that(project: Path, code: BotCode) -> None:
    (project / "bots" / "b.py").write_text("import settings\ndef (\n")
    code.look()
    (project / "bots" / "b.py").write_text("import settings\n")
    assert code.look() == CodeChange(("bots/b.py",), restored=("b",))


def test_what_was_no_python_before_is_nobodys_fault(project: Path) -> None:
    (project / "bots").mkdir()
    (project / "lib").mkdir()
    (project / "lib" / "__init__.py").touch()
    (project / "lib" / "template.py").write_text("{{ name }} = {%\n")
    (project / "bots" / "a.py").write_text("import lib\n")
    code = BotCode([bot("a", project)])
    (project / "bots" / "a.py").write_text("import lib\nx = 1\n")
    assert code.look() == CodeChange(("bots/a.py",), restart=("a",))


def test_a_module_that_is_gone_concerns_nobody_and_one_that_comes_does(project: Path, code: BotCode) -> None:
    (project / "bots" / "c.py").unlink()
    assert code.look() == CodeChange(("bots/c.py",), faults=(Fault("c: its module isn't there any more", ("c",)),))
    (project / "bots" / "c.py").write_text("import more.things\n")
    assert code.look() == CodeChange(("bots/c.py",), restart=("c",))
    assert project / "more" not in code.folders()
    (project / "more").mkdir()
    (project / "more" / "things.py").write_text("x = 1\n")
    assert code.look() == CodeChange(("more/things.py",), restart=("c",))
    assert project / "more" in code.folders(), "it is watched from now on"


def test_only_folders_with_code_are_watched(project: Path, code: BotCode) -> None:
    (project / "node_modules" / "deep").mkdir(parents=True)
    assert code.folders() == {project, project / "bots", project / "lib"}
