"""Errors about a TOML file name the line of a key, however the file is written."""

from __future__ import annotations

import pytest

from ape_silverback.toml_lines import toml_lines

QUOTES = '"""'


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[a]\nb = 1\n\n[a.c]\nd = 2", {("a",): 1, ("a", "b"): 2, ("a", "c"): 4, ("a", "c", "d"): 5}),
        ("a.b = 1 # c = 2\nd = 3", {("a",): 1, ("a", "b"): 1, ("d",): 2}),
        (f"a = {QUOTES}\nb = 1\n[c]\n{QUOTES}\nd = 2", {("a",): 1, ("d",): 5}),
        (f'a = {QUOTES}x{QUOTES}"\nd = 2', {("a",): 1, ("d",): 2}),
        ("a = '''\nb = 1\n'''\nd = 2", {("a",): 1, ("d",): 4}),
        ("a = [\n  [1],\n  [2]\n]\nd = 2", {("a",): 1, ("d",): 5}),
        ("a = ['[', '#', \"{\\\"\"]\nd = 2", {("a",): 1, ("d",): 2}),
        ("# [a]\n[b] # [c]\n'd.e' = 1", {("b",): 2, ("b", "d.e"): 3}),
    ],
)
def test_a_key_has_the_line_where_it_stands_and_none_inside_a_value(
    text: str, lines: dict[tuple[str, ...], int], ending: str
) -> None:
    assert toml_lines(text.replace("\n", ending)) == lines
