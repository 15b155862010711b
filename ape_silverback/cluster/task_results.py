"""What is made of recorded tasks: how each task did, the series of each metric, and a frame of all of it. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ape_silverback.cluster.types import BotTaskResult

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class TaskSummary:
    """How one task of a bot did in some time.

    Attributes:
        per_minute: runs that ended a minute.
        error_rate: share of runs that failed, from 0 to 1.
        p50: median execution time, in seconds.
        p95: 95th percentile of it.
    """

    task: str
    handled: int
    failed: int
    per_minute: float
    error_rate: float
    p50: float
    p95: float


def summarise(results: Iterable[BotTaskResult]) -> list[TaskSummary]:
    """Return how each task did, the busiest first; rates are over the time from the first to the last result."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    failed: defaultdict[str, int] = defaultdict(int)
    first = last = None
    for result in results:
        times[result.task].append(result.execution_time)
        failed[result.task] += result.error is not None
        first = result.completed if first is None else min(first, result.completed)
        last = result.completed if last is None else max(last, result.completed)
    minutes = max((last - first).total_seconds() / 60, 1 / 60) if first and last else 1.0
    return sorted(
        (
            TaskSummary(
                task=task,
                handled=len(spent),
                failed=failed[task],
                per_minute=len(spent) / minutes,
                error_rate=failed[task] / len(spent),
                p50=percentile(spent, 0.50),
                p95=percentile(spent, 0.95),
            )
            for task, spent in times.items()
        ),
        key=lambda one: -one.handled,
    )


def percentile(values: Collection[float], share: float) -> float:
    """Return the smallest value that at least a share of the values doesn't exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def series_of(results: Iterable[BotTaskResult]) -> dict[str, list[tuple[datetime, float]]]:
    """Return the points of each metric in the order of the results; true counts as 1, false as 0."""
    series: defaultdict[str, list[tuple[datetime, float]]] = defaultdict(list)
    for result in results:
        for name, value in result.metrics.items():
            series[name].append((result.completed, float(value)))
    return dict(series)


def frame_of(results: Iterable[BotTaskResult], *, tasks: bool = False) -> DataFrame:
    """Return a frame with a row a task and a column a metric, indexed by the time at which the task ended.

    These are the columns of the bot SDK's own ``silverback.recorder.get_metrics``, which leaves failed tasks out.

    Args:
        results: what was recorded.
        tasks: whether to keep failed tasks, and to add the columns ``task``, ``execution_time`` (seconds), ``error``
            and ``block_number``.
    """
    import pandas

    rows = [one for one in results if tasks or one.error is None]
    own = [{"task": one.task, "execution_time": one.execution_time, "error": one.error} for one in rows]
    blocks = pandas.array([one.block_number for one in rows], dtype="Int64")
    index = pandas.DatetimeIndex([one.completed for one in rows], name="completed", tz="UTC")
    names = list(dict.fromkeys(name for one in rows for name in one.metrics))
    metrics = pandas.DataFrame([one.metrics for one in rows], index=index, columns=names)
    if not tasks:
        return metrics
    frame = pandas.DataFrame(own, index=index, columns=["task", "execution_time", "error"])
    frame["block_number"] = blocks
    return pandas.concat([frame, metrics], axis=1)
