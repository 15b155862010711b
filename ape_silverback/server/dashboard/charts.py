"""Charts of what a bot recorded: points in a bounded number of equal parts of a time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from pydantic import BaseModel

from ape_silverback.cluster.task_results import percentile
from ape_silverback.cluster.types import BotTaskResult

PARTS = 120
"""Points of a chart."""

MOST_CHARTS = 24
"""Charts of one bot: four of its tasks, the rest of its metrics."""


class Chart(BaseModel):
    """One line over time.

    Attributes:
        times: Unix times, in seconds, rising.
        values: one for each time; None where nothing was recorded.
    """

    title: str
    unit: str = ""
    times: list[float]
    values: list[float | None]


def charts_of(results: Iterable[BotTaskResult], begin: datetime, end: datetime) -> list[Chart]:
    """Return charts of a bot's tasks and of each metric that it recorded; none when it recorded nothing."""
    first, width = begin.timestamp(), (end - begin).total_seconds() / PARTS
    parts: list[list[BotTaskResult]] = [[] for _ in range(PARTS)]
    names: dict[str, None] = {}
    for result in results:
        part = int((result.completed.timestamp() - first) / width)
        if 0 <= part < PARTS:
            parts[part].append(result)
            names |= dict.fromkeys(result.metrics)
    if not any(parts):
        return []
    times = [first + (part + 0.5) * width for part in range(PARTS)]

    def chart(title: str, unit: str, value: Callable[[Sequence[BotTaskResult]], float | None]) -> Chart:
        return Chart(title=title, unit=unit, times=times, values=[value(part) for part in parts])

    def latency(share: float) -> Callable[[Sequence[BotTaskResult]], float | None]:
        return lambda part: percentile([one.execution_time * 1000 for one in part], share) if part else None

    charts = [
        chart("Tasks handled", "per minute", lambda part: len(part) * 60 / width),
        chart(
            "Failed", "%", lambda part: 100 * sum(one.error is not None for one in part) / len(part) if part else None
        ),
        chart("Latency, median", "ms", latency(0.5)),
        chart("Latency, 95th percentile", "ms", latency(0.95)),
    ]
    means: dict[str, list[float | None]] = {}
    for name in names:
        found = [[one.metrics[name] for one in part if name in one.metrics] for part in parts]
        means[name] = [_mean(values) if values else None for values in found]
    charts += [Chart(title=name, times=times, values=values) for name, values in means.items()]
    return charts[:MOST_CHARTS]


def _mean(values: Iterable[float]) -> float:
    found = [float(value) for value in values]
    return sum(found) / len(found)
