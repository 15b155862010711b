"""No text of a cluster, a bot or a file does anything to a terminal, and no terminal is too poor for ours."""

from __future__ import annotations

import ast
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.cli.shared import terminal
from ape_silverback.cli.shared.progress import _Table
from ape_silverback.cli.shared.terminal import safe_colours, safe_line, safe_text, style
from ape_silverback.deployment.events import Event
from tests.cli.conftest import terminal_session
from tests.cli.hostile import BOTS, EVIL, OBEYED, behave, look_at
from tests.cluster.server import Server, serving
from tests.conftest import APE, ROOT, environment_of, run_ape

pytestmark = pytest.mark.xdist_group("cli-terminal")
KEY = {"SILVERBACK_CLUSTER_API_KEY": "k"}


@given(st.text())
def test_no_text_keeps_what_a_terminal_obeys(text: str) -> None:
    line, block = safe_line(text), safe_text(text)
    assert not OBEYED.search(line + block)
    assert "\n" not in line
    assert (safe_line(line), safe_text(block)) == (line, block)
    line.encode()


@given(st.text("ab\x1b[;0123456789mK\n"))
def test_a_style_is_kept_only_where_it_is_ours(text: str) -> None:
    assert "\x1b" not in safe_text(text)
    ours = style(text, fg="red")
    assert safe_line(ours).startswith(style("", fg="red").partition("m")[0])
    assert safe_line(ours).count("\x1b") == 2


def test_colours_of_a_logger_stay_and_end_with_their_line() -> None:
    shown = terminal._revealed(safe_colours("\x1b[1;38;5;3mbold\nnext \x1b[31mred\x1b[0m \x1b[8m\x1b[5;1Hx"))
    assert shown == "\x1b[1;38;5;3mbold\x1b[0m\nnext \x1b[31mred\x1b[0m \\x1b[5;1Hx\x1b[0m"


def test_the_lines_of_an_error_after_the_first_are_indented() -> None:
    assert terminal.error_text("there is: a\nERROR: all is lost\n\n  b") == "there is: a\n  ERROR: all is lost\n\n    b"


@pytest.mark.parametrize("path", sorted((ROOT / "ape_silverback" / "cli").rglob("*.py")), ids=lambda path: path.stem)
def test_commands_print_and_ask_in_one_place_only(path: Path) -> None:
    if path.name == "terminal.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("print", "sys.stdout.write", "sys.stderr.write"), f"{path}:{node.lineno}"
            forbidden = ("echo", "secho", "style", "prompt", "confirm", "echo_via_pager")
            assert name not in [f"click.{one}" for one in forbidden], f"{path}:{node.lineno}"


def test_a_table_is_drawn_while_it_grows() -> None:
    table = _Table("ready")

    def grow() -> None:
        for number in range(5000):
            table.show(Event("state", f"bot-{number}", "starting"))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=grow)
    try:
        thread.start()
        while thread.is_alive():
            table.__rich__()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert table.__rich__().row_count == 5000


@pytest.fixture(scope="module")
def hostile() -> Iterator[Server]:
    with serving(behave) as server:
        yield server


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("bots", "list"), 0),
        (("bots", "info"), 0),
        (("bots", "logs", "--all"), 0),
        (("bots", "stop", "nothing", "-y"), 1),
        (("vars", "new", "x", "-e", "A=1"), 1),
        (("status",), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_cluster_says_does_nothing_to_the_terminal(
    hostile: Server, home: Path, project: Path, arguments: tuple[str, ...], code: int
) -> None:
    shown = terminal_session(arguments, home, project, code, **KEY, SILVERBACK_CLUSTER_URI=hostile.url)
    assert "owned" in shown
    look_at(shown)


@pytest.mark.parametrize("format_", ["json", "yaml"])
def test_data_has_every_character_escaped(hostile: Server, home: Path, project: Path, format_: str) -> None:
    command = ["silverback", "cluster", "bots", "list", "--format", format_]
    result = run_ape(home, project, command, **KEY, SILVERBACK_CLUSTER_URI=hostile.url)
    assert not OBEYED.search(result.stdout)
    found = json.loads(result.stdout) if format_ == "json" else yaml.safe_load(result.stdout)
    assert {bot["name"] for bot in found} == {bot["name"] for bot in BOTS}
    assert EVIL in {bot["image"] for bot in found}


def shell(line: str, home: Path, project: Path, server: Server, **environment: str) -> CompletedProcess[bytes]:
    return run(
        ["sh", "-c", line.replace("CLUSTER", "APE silverback cluster").replace("APE", str(APE))],
        cwd=project,
        env={**environment_of(home), **KEY, "SILVERBACK_CLUSTER_URI": server.url, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_terminal_without_unicode_gets_a_replacement(hostile: Server, home: Path, project: Path) -> None:
    poor = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    for line in ("CLUSTER bots list", "CLUSTER bots list --format json", "CLUSTER bots stop café… -y"):
        result = shell(line, home, project, hostile, **poor)
        assert b"Traceback" not in result.stderr
        (result.stdout + result.stderr).decode("latin-1")
    data = json.loads(shell("CLUSTER bots list --format json", home, project, hostile, **poor).stdout.decode("latin-1"))
    assert EVIL in {bot["image"] for bot in data}


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("CLUSTER status >&-", 0, ""),
        ("CLUSTER status 2>&-", 0, ""),
        ("CLUSTER bots stop a <&-", 2, "stdin isn't a terminal; pass --yes"),
        ("CLUSTER registry new a ghcr.io <&-", 2, "Email is missing, and stdin isn't a terminal; pass --email"),
        ("CLUSTER status >/dev/full", 1, "can't write to stdout: No space left on device"),
        ("CLUSTER bots list --format json >/dev/full", 1, "can't write to stdout: No space left on device"),
        ("CLUSTER status 2>/dev/full", 0, ""),
        ("CLUSTER nothing 2>&-", 2, ""),
        ("APE silverback --help >/dev/full", 1, "can't write to stdout: No space left on device"),
        ("CLUSTER >/dev/full", 1, "can't write to stdout: No space left on device"),
        ("CLUSTER deploy --help >/dev/full", 1, "can't write to stdout: No space left on device"),
        ("CLUSTER bots list --help >&-", 0, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_traceback(
    hostile: Server, home: Path, project: Path, line: str, code: int, said: str
) -> None:
    result = shell(line, home, project, hostile)
    assert result.returncode == code, result.stderr
    assert b"Traceback" not in result.stderr
    assert b"Exception ignored" not in result.stderr
    assert said in result.stderr.decode()
