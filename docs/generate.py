"""Writes what of the documentation follows from the code: ``python docs/generate.py``. A test compares.

- ``commands/``: a page for each group of commands, with the help of each.
- ``userguides/from-silverback.md``: what each command and option of the public ``silverback cluster`` is here.
- ``userguides/output.md``: what ``--format json`` and ``yaml`` hold.
- ``userguides/runtimes.md``: what is tested of each runtime.

Some more are written when the site is built, and not kept: ``userguides/architecture.md``, the rooms of the package and
which of them import which, and the pages that are in the repository's own folder.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import BaseModel

HERE = Path(__file__).parent
GENERATED = "<!-- Written by docs/generate.py. -->"

# What the public command line has and this one hasn't, and why.
LEFT_OUT_COMMANDS: dict[str, str] = {}
LEFT_OUT_OPTIONS: dict[tuple[str, str], str] = {}


def ours() -> click.Group:
    """Return our commands."""
    from ape_silverback.cli import cli

    return cli


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Return every command that does something, with the words that lead to it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        if (found := command.get_command(ctx, name)) is not None:
            yield from leaves(found, (*path, name))


def find(root: click.Command, path: tuple[str, ...]) -> click.Command | None:
    """Return the command that words lead to."""
    for name in path:
        found = root.get_command(click.Context(root), name) if isinstance(root, click.Group) else None
        if found is None:
            return None
        root = found
    return root


def groups(command: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    """Return every group of commands, with the words that lead to it."""
    yield path, command
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        if isinstance(found := command.get_command(ctx, name), click.Group):
            yield from groups(found, (*path, name))


def command_page(path: tuple[str, ...]) -> str:
    """Write the page of a group: its help, and that of each command in it that is no group."""
    ctx = click.Context(click.Group("ape"), info_name="ape")
    root = ours()
    ctx = click.Context(root, info_name="silverback", parent=ctx)
    command: click.Command = root
    for name in path:
        command = find(command, (name,)) or root
        ctx = click.Context(command, info_name=name, parent=ctx)
    assert isinstance(command, click.Group)  # noqa: S101 - for types
    parts = [f"# ape silverback {' '.join(path)}".rstrip(), GENERATED]

    def add(command: click.Command, ctx: click.Context, heading: str) -> None:
        formatter = click.HelpFormatter(width=100)
        command.format_help(ctx, formatter)
        parts.append(f"{heading}```text\n{formatter.getvalue().rstrip()}\n```")

    add(command, ctx, "")
    for name in command.list_commands(ctx):
        found = command.get_command(ctx, name)
        if found is not None and not isinstance(found, click.Group):
            add(found, click.Context(found, info_name=name, parent=ctx), f"## {name}\n\n")
    return "\n\n".join(parts) + "\n"


def options_of(command: click.Command) -> dict[str, list[str]]:
    """Return each option's longest spelling and all its spellings; ``--help`` and ``-v`` are everybody's."""
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            spellings = [*parameter.opts, *parameter.secondary_opts]
            found[max(parameter.opts, key=len)] = spellings
    return {name: spellings for name, spellings in found.items() if name not in ("--help", "--verbosity")}


def shape_of(command: click.Command) -> dict[str, str]:
    """Return how each spelling of an option is used: with a value or without, once or often."""
    return {
        spelling: f"{'flag' if parameter.is_flag else 'value'}{'s' if parameter.multiple else ''}"
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    }


def refused_arguments(public: click.Command, mine: click.Command) -> list[str]:
    """Return the arguments of a public command that ours wouldn't take, or that ours demands on top."""

    def arguments(command: click.Command) -> list[click.Argument]:
        return [parameter for parameter in command.params if isinstance(parameter, click.Argument)]

    room = sum(len(arguments(public)) if one.nargs == -1 else one.nargs for one in arguments(mine))
    too_many = [one.human_readable_name for one in arguments(public)[room:]]
    given = sum(one.required for one in arguments(public))
    return too_many + [one.human_readable_name for one in arguments(mine) if one.required][given:]


def mapping() -> list[tuple[str, str, list[str], list[str]]]:
    """Return each public command, ours, what is missing without a reason, and what is new.

    The command's name is followed by the reason where it is left out.
    """
    from silverback._cli import cluster as public

    root = find(ours(), ("cluster",)) or ours()
    rows = []
    for path, command in leaves(public):
        name = " ".join(path)
        if reason := LEFT_OUT_COMMANDS.get(path[0]):
            rows.append((name, reason, [], []))
            continue
        mine = find(root, path)
        if mine is None:
            rows.append((name, "", [name], []))
            continue
        here, there = shape_of(mine), shape_of(command)
        lacking = (one for one, shape in there.items() if here.get(one) != shape)
        missing = sorted(one for one in lacking if (name, one) not in LEFT_OUT_OPTIONS)
        missing += refused_arguments(command, mine)
        new = [long for long, spellings in options_of(mine).items() if not there.keys() & set(spellings)]
        rows.append((name, f"`ape silverback cluster {name}`", missing, new))
    return rows


def from_silverback() -> str:
    """Write the table for those who come from the public command line."""
    lines = [
        "# From `silverback cluster`",
        "",
        GENERATED,
        "",
        "Every command of the public command line (PyPI `silverback`) is here with the same name, arguments and option",
        "letters. Different on purpose:",
        "",
        '- `bots stop` and `bots remove` act on "yes"; the public ones act on "no".',
        "- Where a destructive command of the public one means every bot by default, this one asks for `--all`.",
        "- `bots new` takes network, account and image from the Ape project when they aren't given.",
        "- The default of what is created, such as the name of a cluster, is the platform's.",
        "- `pay … --amount` is a number of tokens, such as `12.5`; the public one counts in the token's smallest unit.",
        "",
        "| `silverback cluster …` | here | options that are new here |",
        "| --- | --- | --- |",
    ]
    for name, here, missing, new in mapping():
        if missing:
            raise ValueError(f"{name}: {missing} is neither here nor left out with a reason")
        lines.append(f"| `{name}` | {here} | {', '.join(f'`{one}`' for one in new)} |")
    lines += ["", "Commands that the public one doesn't have:", ""]
    from silverback._cli import cluster as public

    known = {path for path, _ in leaves(public)}
    root = ours()
    for path, command in leaves(root):
        words = path[1:] if path[0] == "cluster" else path
        if words not in known:
            lines.append(f"- `ape silverback {' '.join(path)}`: {command.get_short_help_str(100)}")
    return "\n".join(lines) + "\n"


def output() -> str:
    """Write the schema of what commands print as data."""
    from ape_silverback.cli.shared.documents import DOCUMENTS
    from ape_silverback.cluster.bot_errors import ErrorCount
    from ape_silverback.cluster.types import Crash, KeyInfo, NewKeyInfo, NodeInfo, RestartStatus
    from ape_silverback.doctor import Finding
    from ape_silverback.images.build import BuiltImage
    from ape_silverback.stream.verify import Check, Report

    parts = [
        "# Output as data",
        GENERATED,
        "With `--format json` or `--format yaml` a command prints documents on stdout and nothing else; progress, "
        "prompts and errors go to stderr. Commands about several things print a list, also for one or none. "
        "`bots logs` prints one document per line. Keys keep their meaning; new ones may be added. Times are ISO 8601, "
        "in UTC; an unknown value is null.",
    ]
    parts += [describe(model.__name__.removesuffix("Document"), model) for model in DOCUMENTS]
    models = (RestartStatus, Crash, ErrorCount, NodeInfo, KeyInfo, NewKeyInfo, BuiltImage, Report, Check, Finding)
    parts += [describe(model.__name__, model) for model in models]
    parts += plan_parts()
    return "\n\n".join(parts) + "\n"


def describe(name: str, model: type[BaseModel], level: str = "##") -> str:
    """Write the keys of a document."""
    rows, about = ["| key | type | |", "| --- | --- | --- |"], descriptions(model)
    for key, part in model.model_json_schema(mode="serialization")["properties"].items():
        text = " ".join((about.get(key) or part.get("description", "")).replace("None", "null").split())
        rows.append(f"| `{key}` | {type_text(part)} | {text} |")
    return f"{level} {name}\n\n{inspect.cleandoc(model.__doc__ or '')}\n\n" + "\n".join(rows)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the text below each key of a model, from its source: pydantic would read it whenever a command starts."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        [source] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(source, ast.ClassDef)  # noqa: S101 - the source of a class
        found |= {
            key.target.id: inspect.cleandoc(text.value.value)
            for key, text in itertools.pairwise(source.body)
            if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        }
    return found


def plan_parts() -> list[str]:
    """Write what a plan holds."""
    from ape_silverback.deployment import history, plan, state

    actions = [*get_args(plan.GroupAction), *get_args(plan.BotAction)]
    head = describe("Plan", plan.Plan).replace(
        "What a deployment does.", "What a deployment does: `plan`, `plan --out`."
    )
    return [
        head,
        *(
            describe(model.__name__, model, "###")
            for model in (
                *(*actions, plan.Change, plan.Drift, plan.Orphan, plan.PlanScope),
                *(state.RecordedBot, state.RecordedGroup, state.PendingRestart),
            )
        ),
        describe("Deployment", history.Record),
    ]


def type_text(part: dict[str, Any]) -> str:
    """Write a type of a JSON schema in words."""
    if one_of := part.get("anyOf") or part.get("oneOf"):
        return " or ".join(type_text(one) for one in one_of)
    if "const" in part:
        return f"`{part['const']}`"
    if "$ref" in part:
        return str(part["$ref"]).rpartition("/")[2].removesuffix("Document")
    if part.get("enum"):
        return ", ".join(f"`{one}`" for one in part["enum"])
    if part.get("type") == "array":
        return f"list of {type_text(part['items'])}"
    if part.get("type") == "object":
        below = part.get("additionalProperties")
        return f"name → {type_text(below)}" if isinstance(below, dict) else "object"
    if part.get("format") == "date-time":
        return "time"
    names = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false", "null": "null"}
    return names[part["type"]] if "type" in part else "any value"


def architecture() -> str:
    """Write which room imports which, from the imports of every file."""
    root = HERE.parent / "ape_silverback"
    rooms = {path.stem if path.is_file() else path.name: path for path in root.iterdir() if is_room(path)}
    needs: dict[str, set[str]] = {}
    for room, path in rooms.items():
        files = [path] if path.is_file() else list(path.rglob("*.py"))
        found = {name for file in files for name in imported_rooms(file)}
        needs[room] = (found & rooms.keys()) - {room}
    layers = rows_of(needs)
    parts = [
        "# Architecture",
        GENERATED,
        "A room is a folder or a file of `ape_silverback` with one purpose, which its first docstring names. A "
        "room imports rooms of the rows below its own. Rooms that are joined by `+` have files that import files "
        "of one another; no two files do. This page is made from the imports of every file, those inside functions "
        "and those for types included; `tests/test_import_rules.py` holds which are allowed.",
        "```text\n" + "\n".join("   ".join(map(" + ".join, row)) for row in reversed(layers)) + "\n```",
        "| room | what it is | imports |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| `{room}` | {first_line(rooms[room])} | {', '.join(f'`{one}`' for one in sorted(needs[room])) or '-'} |"
            for row in reversed(layers)
            for together in row
            for room in together
        ),
        "A command goes through them from the top: `cli` reads its options, `config` the section, `project` "
        "resolves each bot, `connect` finds the cluster, `stream` verifies who is paid for it, `deployment` "
        "compares, plans, and applies through `cluster`. From Python, `api` does the same without `cli`. `server` "
        "stands by itself: it is the other end of the HTTP API, and knows nothing of plans.",
    ]
    return "\n\n".join(parts) + "\n"


def moved_page(name: str) -> str:
    """Write a page of the repository's folder as one of the user guides: its links lead on from there."""
    text = (HERE.parent / name).read_text(encoding="utf8")
    return text.replace("](docs/userguides/", "](").replace("](CONTRIBUTING.md", "](contributing.md")


def rows_of(needs: dict[str, set[str]]) -> list[list[tuple[str, ...]]]:
    """Return the rooms in rows, those that import none first; rooms that need one another stand together."""

    def below(room: str, seen: set[str]) -> set[str]:
        for one in needs[room] - seen:
            seen.add(one)
            below(one, seen)
        return seen

    reach = {room: below(room, set()) for room in needs}
    together = {room: tuple(sorted({room} | {one for one in reach[room] if room in reach[one]})) for room in needs}
    left, rows, placed = set(together.values()), [], set[str]()
    while left:
        row = sorted(one for one in left if set().union(*(needs[room] for room in one)) <= placed | set(one))
        rows.append(row)
        placed |= {room for one in row for room in one}
        left -= set(row)
    return rows


def is_room(path: Path) -> bool:
    """Return whether a path of the package is a room: a module, or a package."""
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()


def imported_rooms(file: Path) -> Iterator[str]:
    """Return the rooms that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "ape_silverback":
                names = [f"ape_silverback.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("ape_silverback."))


def first_line(path: Path) -> str:
    """Return the first sentence of a room's docstring."""
    file = path if path.is_file() else path / "__init__.py"
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf8"))) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    return re.sub(r"``", "`", re.split(r"(?<=\.)\s", first)[0].rstrip("."))


RUNTIMES = ("process", "docker", "swarm")
TESTS = HERE.parent / "tests" / "engines"
ENGINE_TESTS = ("conformance", "public_command", "pull", "docker", "swarm")


def runtimes() -> str:
    """Return the page about what every runtime does: each line is a test that runs on the runtimes that it names."""
    tested: dict[str, list[str]] = {}
    for name in ENGINE_TESTS:
        tree = ast.parse((TESTS / f"test_{name}.py").read_text(encoding="utf8"))
        on = next((found for node in tree.body if (found := _runtimes_of(node))), RUNTIMES)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                tested.setdefault(node.name.removeprefix("test_").replace("_", " ").capitalize(), []).extend(on)
    rows = [f"| {what} | {' | '.join('yes' if one in on else '' for one in RUNTIMES)} |" for what, on in tested.items()]
    return "\n".join(
        [
            GENERATED,
            "# What each runtime does",
            "",
            "One suite runs on all runtimes, with real processes and real engines. Each line is one of its tests, and "
            "where it runs.",
            "",
            f"| | {' | '.join(RUNTIMES)} |",
            f"|---{'|---' * len(RUNTIMES)}|",
            *rows,
            "",
        ]
    )


def _runtimes_of(node: ast.stmt) -> tuple[str, ...]:
    """Return the runtimes that a module's mark confines its tests to."""
    for call in ast.walk(node):
        if (
            isinstance(node, ast.Assign)
            and isinstance(call, ast.Call)
            and ast.unparse(call.func).endswith("parametrize")
        ):
            return tuple(ast.literal_eval(call.args[1]))
    return ()


PAGES: dict[str, Callable[[], str]] = {
    **{f"commands/{'-'.join(path) or 'silverback'}.md": partial(command_page, path) for path, _ in groups(ours())},
    "userguides/from-silverback.md": from_silverback,
    "userguides/output.md": output,
    "userguides/runtimes.md": runtimes,
}

UNKEPT: dict[str, Callable[[], str]] = {
    "userguides/architecture.md": architecture,
    "userguides/quickstart.md": partial(moved_page, "README.md"),
    "userguides/contributing.md": partial(moved_page, "CONTRIBUTING.md"),
}
"""Pages that are written when the site is built."""


def main() -> None:
    """Write all pages, and remove those of commands that are no more."""
    for old in (HERE / "commands").glob("*.md"):
        if f"commands/{old.name}" not in PAGES:
            old.unlink()
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf8")


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    main()
