"""Waiting for conditions, not for seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 60.0, every: float = 0.05) -> T:
    """Return what a function returns once it is true.

    Args:
        condition: the function.
        seconds: how long to wait; far more than it takes.
        every: seconds between two calls.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited too long; the last answer was {found!r}"
        time.sleep(every)
    return found
