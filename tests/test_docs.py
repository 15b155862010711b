"""README and user guides: what they show works, what they link to is there, and no error lacks its cure.

The blocks of all pages run in one place, in the order of the pages, as somebody who reads them from the beginning does:
one project, one chain, one local cluster. A block below a line "`file`:" is that file. An HTML comment that begins with
"not run" and says why is above those that aren't run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomlkit

import ape_silverback.apepay.rpc
import ape_silverback.stream.transactions  # noqa: F401 - has errors, as the module above
from ape_silverback.config.reader import read_section
from ape_silverback.exceptions import SilverbackError
from tests.conftest import ROOT, ape_command, environment_of, run_ape

GUIDES = ROOT / "docs" / "userguides"
READ = ("init", "resolution", "signers", "deploying", "doctor", "mcp", "python", "cluster-server", "verifying")
RUN = (ROOT / "README.md", *(GUIDES / f"{name}.md" for name in READ))
"""Pages with blocks that run, in the order in which they do."""
NOT_RUN = (
    GUIDES / "ci.md",
    GUIDES / "configuring.md",
    GUIDES / "troubleshooting.md",
    GUIDES / "watching.md",
    ROOT / "CONTRIBUTING.md",
)
"""Pages without one. `tests/cli/test_deployment.py` runs the workflow of ci.md."""

BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>not run[^>]*) -->\n)?(?:`(?P<file>\w[\w/-]*\.\w+)`:\n\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    comment: str | None
    file: str | None
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        yield Block(page, line, found["comment"], found["file"], found["language"], found["text"])


def pages() -> list[Path]:
    written_for_the_site = ("architecture", "contributing", "quickstart")
    guides = [path for path in sorted(GUIDES.glob("*.md")) if path.stem not in written_for_the_site]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *guides]


def test_every_page_with_something_to_run_is_run() -> None:
    written = {page for page in pages() for block in blocks_of(page) if block.language in ("sh", "bash", "python")}
    assert written <= {*RUN, *NOT_RUN}
    for page in NOT_RUN:
        left = [block for block in blocks_of(page) if block.language in ("sh", "bash", "python") and not block.comment]
        assert not left, f"{left} would have to be run"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, chain: str) -> Iterator[tuple[Path, Path]]:
    """A home and a project folder; the local cluster that the pages start is taken down."""
    home, project = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("first")
    yield home, project
    run_ape(home, project, ["silverback", "cluster", "down"])


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
@pytest.mark.xdist_group("docs")
def test_what_a_page_shows_works(page: Path, reader: tuple[Path, Path], chain: str, tmp_path: Path) -> None:
    home, project = reader
    if page.name != "README.md":
        assert run_ape(home, project, ["silverback", "cluster", "up"]).returncode == 0
    environment = {**environment_of(home), **(address_of_local_cluster(home) if page.stem == "python" else {})}
    path = [str(Path(ape_command()).parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    script = [f"export PATH={os.pathsep.join(path)}"]
    for number, block in enumerate(blocks_of(page)):
        text = block.text.replace("http://127.0.0.1:8545", chain)
        if block.file:
            (project / block.file).parent.mkdir(exist_ok=True)
            (project / block.file).write_text(text)
        elif not block.comment and block.language in ("sh", "bash"):
            script.append(f"echo '# {block}' >&2\n{text}")
        elif not block.comment and block.language == "python":
            (tmp_path / f"{number}.py").write_text(text)
            script.append(f"echo '# {block}' >&2\n{sys.executable} {tmp_path}/{number}.py")
    assert len(script) > 1
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", "\n".join(script)]
    result = subprocess.run(
        command, cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr


def address_of_local_cluster(home: Path) -> dict[str, str]:
    """Return the variables that lead to the local cluster."""
    [profile] = [
        one
        for one in tomlkit.parse((home / ".silverback" / "profile.toml").read_text())["profile"].values()
        if "api-key" in one
    ]
    return {"SILVERBACK_CLUSTER_URI": profile["host"], "SILVERBACK_CLUSTER_API_KEY": profile["api-key"]}


@pytest.mark.parametrize(
    "block", [one for page in pages() for one in blocks_of(page) if one.language == "yaml"], ids=str
)
def test_a_section_that_is_shown_is_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / "ape-config.yaml").write_text(block.text)
    section = read_section(tmp_path).section
    if "\nsilverback:" in f"\n{block.text}":
        assert section.model_fields_set


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_a_link_leads_somewhere(page: Path) -> None:
    for link in LINK.finditer(page.read_text()):
        target = page.parent / link["path"] if link["path"] else page
        assert target.exists(), link[0]
        if link["anchor"]:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert link["anchor"] in slugs, link[0]


def errors(base: type[SilverbackError] = SilverbackError) -> Iterator[str]:
    """Return the names of all errors that a user can meet."""
    if not base.__name__.startswith("_"):
        yield base.__name__
    for below in base.__subclasses__():
        yield from errors(below)


def test_every_error_has_its_cure() -> None:
    found = re.findall(r"^\| `(\w+)` \| \S", (GUIDES / "troubleshooting.md").read_text(), re.MULTILINE)
    assert sorted(found) == sorted(set(errors()))


def test_every_page_is_in_the_sites_contents() -> None:
    kept = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    kept = [path.as_posix() for path in kept if path.parts[0] not in ("_build", "commands")]
    contents = re.findall(r"^   (userguides/\S+)$", (ROOT / "docs" / "index.rst").read_text(), re.MULTILINE)
    assert set(kept) <= set(contents)
