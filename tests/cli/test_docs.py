"""Documentation that follows from the code is what the code says, and every command explains itself."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import click
import pytest

from ape_silverback.cli.shared.documents import DOCUMENTS, Document
from tests.conftest import ROOT


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load()
LEAVES = dict(generate.leaves(generate.ours()))


@pytest.mark.parametrize("page", generate.PAGES)
def test_the_page_is_what_the_code_says(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == generate.PAGES[page](), "run `python docs/generate.py`"


def test_nothing_of_the_public_command_line_is_missing() -> None:
    rows = generate.mapping()
    assert len(rows) > 30
    assert {name: missing for name, _, missing, _ in rows if missing} == {}


A, B, MAYBE, MANY = (
    click.Argument(["a"]),
    click.Argument(["b"]),
    click.Argument(["maybe"], required=False),
    click.Argument(["many"], nargs=-1),
)


@pytest.mark.parametrize(
    ("public", "mine", "refused"),
    [
        ([A], [B], []),
        ([A, B], [A], ["B"]),
        ([A], [A, B], ["B"]),
        ([A, B], [MANY], []),
        ([], [A], ["A"]),
        ([], [MAYBE], []),
        ([A], [], ["A"]),
    ],
)
def test_an_argument_that_isnt_taken_or_is_demanded_on_top_is_found(
    public: list[click.Parameter], mine: list[click.Parameter], refused: list[str]
) -> None:
    commands = (click.Command("x", params=params) for params in (public, mine))
    assert generate.refused_arguments(*commands) == refused


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_a_command_explains_itself(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    assert command.short_help
    assert command.help is not None
    assert f"ape silverback {' '.join(path)}" in command.help.partition("Example")[2]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.opts} has no help"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.__name__)
def test_a_document_names_the_commands_that_print_it(document: type[Document]) -> None:
    doc = document.__doc__ or ""
    assert "`" in doc
    about = generate.descriptions(document)
    for field in document.model_fields:
        obvious = {"name", "slug", "id", "image", "ecosystem", "network", "provider", "created", "updated", "hostname"}
        obvious |= {"cluster", "version", "healthy", "bot", "message", "count", "timestamp", "host", "profile", "bots"}
        obvious |= {"networks", "exit_code", "cluster_access", "configuration", "last_updated", "result"}
        assert about.get(field) or field in obvious, field


def test_no_option_takes_a_number_that_cant_be_reckoned_with() -> None:
    options = {
        f"{' '.join(path)} {option.opts[0]}": option.type
        for path, command in LEAVES.items()
        for option in command.params
        if isinstance(option.type, click.types.FloatParamType)
    }
    assert "cluster status --interval" in options
    for place, kind in options.items():
        for text in ("nan", "inf", "1e300"):
            with pytest.raises(click.BadParameter):
                pytest.fail(f"{place} takes {kind.convert(text, None, None)}")
