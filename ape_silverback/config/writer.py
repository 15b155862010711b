"""Adds a ``silverback:`` section to a project's configuration file.

The rest of the file stays as it is: a new section is appended, and an existing one is changed by a parser that keeps
comments and order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ape_silverback.config.editing import edited, replace_text
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

    def edit(text: str) -> str:
        existing = _existing(file, text)
        if taken := [key for key in values if key in (existing or ()) or key.replace("-", "_") in (existing or ())]:
            raise ConfigurationError(f"{file.name}: the silverback section already has `{taken[0]}:`")
        if existing is not None or file.suffix == ".json":
            return edited(file.suffix, text, lambda content: _put(content, values))
        written = toml_section(entries) if file.suffix == ".toml" else yaml_section(entries)
        return f"{text.rstrip()}\n\n{written}" if text.strip() else written

    replace_text(file, edit)
    return file


def _put(content: Any, values: Mapping[str, Any]) -> None:
    if content.get(KEY) is None:
        content[KEY] = {}
    content[KEY].update(values)


def _existing(file: Path, text: str) -> Mapping[str, Any] | None:
    """Return the section of a file; empty for a key without a value, None without the key."""
    if not text.strip():
        return None
    if file.suffix == ".toml":
        import tomlkit

        content: Any = tomlkit.parse(text).unwrap().get("tool", {}).get("ape", {})
    elif file.suffix == ".json":
        content = json.loads(text)
    else:
        import yaml

        content = yaml.safe_load(text)
    if not isinstance(content, Mapping) or KEY not in content:
        return None
    section = content[KEY]
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
            # An inline table would be one line; keys below the section are tables themselves.
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
