"""In which line of a TOML text each key stands: TOML's parsers don't tell, and errors should."""

from __future__ import annotations

import re

Path = tuple[str, ...]

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_TABLE = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]+\s*(?:#.*)?")
_KEY = re.compile(rf"\s*({_KEY_PART}(?:\s*\.\s*{_KEY_PART})*)\s*=")


def toml_lines(text: str) -> dict[Path, int]:
    """Find the line of each table and key, from 1. A key in an inline table isn't found: it is in its table's line."""
    lines: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE.fullmatch(line):
            table = path = _path(match[1])
        elif match := _KEY.match(line):
            path = (*table, *_path(match[1]))
        else:
            continue
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], number)
    return lines


def _path(text: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_KEY_PART, text))
