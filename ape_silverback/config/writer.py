"""Adds a ``silverback:`` section to a project's configuration file.

The rest of the file stays as it is: a new section is appended, and an existing one is changed by a parser that keeps
comments and order.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ape_silverback.config.reader import FILES, KEY, configuration_file
from ape_silverback.config.validation import validate_section
from ape_silverback.exceptions import ConfigurationError


@dataclass(frozen=True)
class Entry:
    """A key of a section to be written.

    Attributes:
        key: the key, spelled as it is written.
        value: its value; None writes only the comment and the example.
        comment: what is written above it.
        example: what is written as a comment in place of a value, as ``network: ethereum:sepolia``.
    """

    key: str
    value: Any
    comment: str = ""
    example: str = ""


def add_section(project: Path, entries: Sequence[Entry]) -> Path:
    """Write a section, or what an existing one doesn't have yet; return the file.

    Args:
        project: the project's folder. Without a configuration file, one is created.
        entries: the section's keys, in order.

    Raises:
        ConfigurationError: the section has one of the keys already, or the file can't be read or written.
    """
    file = configuration_file(project) or project / FILES[0]
    values = {entry.key: entry.value for entry in entries if entry.value is not None}
    validate_section(values, lambda _: None)
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        existing = _existing(file, text)
        if existing:
            if taken := [key for key in values if key in existing or key.replace("-", "_") in existing]:
                raise ConfigurationError(f"{file.name}: the silverback section has `{taken[0]}:` already")
            changed = {".toml": _merge_toml, ".json": _merge_json}.get(file.suffix, _merge_yaml)(text, values)
        elif file.suffix == ".json":
            changed = _merge_json(text, values)
        else:
            written = toml_section(entries) if file.suffix == ".toml" else yaml_section(entries)
            changed = f"{text.rstrip()}\n\n{written}" if text.strip() else written
        draft = file.with_name(f".{file.name}.new")
        draft.write_text(changed, encoding="utf-8")
        if file.exists():
            draft.chmod(file.stat().st_mode & 0o777)
        draft.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file.name}: can't be written: {error.strerror}") from error
    return file


def _existing(file: Path, text: str) -> Mapping[str, Any]:
    """Return the keys of the section that a file has."""
    if not text.strip():
        return {}
    if file.suffix == ".toml":
        import tomlkit

        content: Any = tomlkit.parse(text).unwrap().get("tool", {}).get("ape", {})
    elif file.suffix == ".json":
        content = json.loads(text)
    else:
        import yaml

        content = yaml.safe_load(text)
    section = content.get(KEY) if isinstance(content, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def yaml_section(entries: Iterable[Entry]) -> str:
    """Return a commented section as YAML."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes mappings below each other and lists in one line."""

    Dumper.add_representer(
        list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
    )
    blocks = []
    for entry in entries:
        lines = [f"# {line}" for line in entry.comment.splitlines()]
        if entry.value is None:
            lines += [f"# {line}" for line in entry.example.splitlines()]
        else:
            dumped = yaml.dump(
                {entry.key: entry.value}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000
            )
            lines += dumped.splitlines()
        blocks.append("\n".join(f"  {line}" for line in lines))
    return f"{KEY}:\n" + "\n\n".join(blocks) + "\n"


def toml_section(entries: Iterable[Entry]) -> str:
    """Return a commented section as TOML, for ``pyproject.toml``."""
    import tomlkit

    plain, tables = [f"[tool.ape.{KEY}]"], []
    for entry in entries:
        comment = [f"# {line}" for line in entry.comment.splitlines()]
        if isinstance(entry.value, Mapping):
            # An inline table would be one line; keys below the section are tables of their own.
            nested = {"tool": {"ape": {KEY: {entry.key: entry.value}}}}
            dumped = tomlkit.dumps(nested).strip()
            tables.append("\n".join([*comment, dumped]))
        elif entry.value is not None:
            plain.append("\n".join([*comment, tomlkit.dumps({entry.key: entry.value}).strip()]))
        else:
            key, _, value = entry.example.partition(": ")
            example = [f"# {key} = {json.dumps(value)}"] if value and "\n" not in value else []
            plain.append("\n".join([*comment, *example]))
    return "\n\n".join([plain[0] + "\n" + "\n\n".join(plain[1:]) if plain[1:] else plain[0], *tables]) + "\n"


def _merge_yaml(text: str, values: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    def round_trip(change: bool, mapping: int, sequence: int, offset: int) -> str:
        yaml = YAML()
        yaml.preserve_quotes = True
        yaml.width = 10_000
        yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
        content = yaml.load(text)
        if change:
            content[KEY].update(values)
        out = io.StringIO()
        yaml.dump(content, out)
        return out.getvalue()

    # The indentation with which the file, unchanged, comes out most like itself.
    ways = [(mapping, sequence, offset) for mapping in (2, 4) for sequence, offset in ((2, 0), (4, 2), (4, 0), (6, 4))]
    return round_trip(True, *max(ways, key=lambda way: _lines_kept(text, round_trip(False, *way))))


def _lines_kept(before: str, after: str) -> int:
    return sum(old == new for old, new in zip(before.splitlines(), after.splitlines(), strict=False))


def _merge_toml(text: str, values: Mapping[str, Any]) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    section: Any = document["tool"]["ape"][KEY]
    for key, value in values.items():
        section[key] = value
    return tomlkit.dumps(document)


def _merge_json(text: str, values: Mapping[str, Any]) -> str:
    content = json.loads(text) if text.strip() else {}
    content[KEY] = {**(content.get(KEY) or {}), **values}
    return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n"
