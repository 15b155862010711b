"""Doing the same for many things at once, with a bounded number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CONCURRENCY = 16
"""Most requests under way at once."""


def map_threads(function: Callable[[T], R], items: Iterable[T], concurrency: int = CONCURRENCY) -> list[R]:
    """Return the results of a function for each item, in order, computed side by side.

    Args:
        function: what is done with one item.
        items: what it is done with; for one or none, no thread is started.
        concurrency: most threads at once.

    Raises:
        Exception: the first error of the function, in the order of the items; what waits is cancelled.
    """
    items = list(items)
    if len(items) <= 1:
        return [function(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(min(concurrency, len(items)))
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)
