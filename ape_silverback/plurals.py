"""Counts as people write them."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 block`` or ``20 blocks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
