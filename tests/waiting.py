"""Waiting for conditions, not for seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Return what a function returns once it is true. It is called less often the longer that takes.

    Args:
        condition: the function.
        seconds: how long to wait; far more than it takes.
    """
    begun = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - begun
        assert waited < seconds, f"waited too long; the last answer was {found!r}"
        time.sleep(min(0.05 + waited / 20, 0.5))
    return found
