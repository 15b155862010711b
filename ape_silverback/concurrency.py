"""Doing things side by side: the same for many things with a bounded number of threads, or one beside what goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

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


def begin(function: Callable[[], R]) -> Future[R]:
    """Begin to call a function in a thread of its own, which the end of the process doesn't wait for."""
    from concurrent.futures import Future

    future: Future[R] = Future()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
