"""Counts with their nouns."""

from __future__ import annotations

from ape_silverback.plurals import plural


def test_only_one_has_no_s() -> None:
    assert [plural(count, "block") for count in (0, 1, 2, 20)] == ["0 blocks", "1 block", "2 blocks", "20 blocks"]
