"""Changes a project's configuration file and keeps its comments, order and layout."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ape_silverback.exceptions import ConfigurationError

Change = Callable[[Any], None]
"""Changes the content of a file, a mapping by the keys of Ape's configuration, in place."""


def replace_text(file: Path, edit: Callable[[str], str]) -> None:
    """Replace the text of a file as a whole, or create the file; its mode stays.

    Raises:
        ConfigurationError: the file can't be read or written.
    """
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        draft = file.with_name(f".{file.name}.new")
        edited = edit(text)
        draft.write_text(edited, encoding="utf-8")
        if file.exists():
            draft.chmod(file.stat().st_mode & 0o777)
        draft.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file.name}: can't be written: {error.strerror}") from error


def edited(suffix: str, text: str, change: Change) -> str:
    """Return the text of a configuration file with its content changed.

    Args:
        suffix: ``.toml`` for ``pyproject.toml``, whose table ``tool.ape`` is changed; ``.json``; anything else is YAML.
        text: of the file.
        change: called with the content.
    """
    if suffix == ".toml":
        return _edited_toml(text, change)
    if suffix == ".json":
        return _edited_json(text, change)
    return _edited_yaml(text, change)


def _edited_yaml(text: str, change: Change) -> str:
    from ruamel.yaml import YAML

    def round_trip(change: Change | None, mapping: int, sequence: int, offset: int) -> str:
        yaml = YAML()
        yaml.preserve_quotes = True
        yaml.width = 10_000
        yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
        content = yaml.load(text)
        if change is not None:
            change(content)
        out = io.StringIO()
        yaml.dump(content, out)
        return out.getvalue()

    # The indentation with which the file, unchanged, comes out most like itself.
    ways = [(mapping, sequence, offset) for mapping in (2, 4) for sequence, offset in ((2, 0), (4, 2), (4, 0), (6, 4))]
    return round_trip(change, *max(ways, key=lambda way: _lines_kept(text, round_trip(None, *way))))


def _lines_kept(before: str, after: str) -> int:
    return sum(old == new for old, new in zip(before.splitlines(), after.splitlines(), strict=False))


def _edited_toml(text: str, change: Change) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    content: Any = document
    for key in ("tool", "ape"):
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
    change(content)
    return tomlkit.dumps(document)


def _edited_json(text: str, change: Change) -> str:
    content = json.loads(text) if text.strip() else {}
    change(content)
    return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n"
