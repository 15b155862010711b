"""The line of each key of a TOML text: TOML's parsers don't keep it, and errors should name it."""

from __future__ import annotations

import re
from collections.abc import Iterator

Path = tuple[str, ...]

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_TABLE = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]+\s*(?:#.*)?")
_KEY = re.compile(rf"\s*({_KEY_PART}(?:\s*\.\s*{_KEY_PART})*)\s*=")
# What may hold a line break or a bracket that means nothing, and the line breaks and brackets that do.
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[\[\]{}\n]''', re.DOTALL
)


def toml_lines(text: str) -> dict[Path, int]:
    """Return the line of each table and key, from 1. A key of an inline table has the line of that table's key.

    Args:
        text: a valid TOML document.
    """
    lines: dict[Path, int] = {}
    table: Path = ()
    for number, statement in _statements(text):
        if match := _TABLE.fullmatch(statement):
            table = path = _path(match[1])
        elif match := _KEY.match(statement):
            path = (*table, *_path(match[1]))
        else:
            continue
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each table header and each key with its whole value, and the line where it begins."""
    start, number, depth = 0, 1, 0
    for match in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if match[0] == "\n" and depth <= 0:
            yield number, text[start : match.start()]
            number += text.count("\n", start, match.end())
            start, depth = match.end(), 0
    yield number, text[start:]


def _path(text: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_KEY_PART, text))
