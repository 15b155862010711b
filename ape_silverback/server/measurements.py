"""The cluster's measurements, in the data model of Prometheus. They are read when somebody asks for them."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.server.health import read_balance
from ape_silverback.server.log_counts import LogCounts
from ape_silverback.server.metrics import LATENCY_BUCKETS, BotCounters, prune
from ape_silverback.server.overview import BotOverview, overview
from ape_silverback.server.supervisor import Supervisor

logger = logging.getLogger(__name__)

PRUNE_EVERY = 60.0
"""Seconds between two times that recorded files are held to their bounds."""


Families = Iterator[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily]


class MeasuredRequests:
    """Measures the time from a request to the first byte of its answer; an ASGI middleware.

    Args:
        app: what answers.
        histogram: takes the seconds, by method, route and status.
    """

    def __init__(self, app: ASGIApp, histogram: Histogram) -> None:
        self.app = app
        self.histogram = histogram

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                seconds = time.perf_counter() - began
                self.histogram.labels(scope["method"], route, message["status"]).observe(seconds)
            await send(message)

        await self.app(scope, receive, measured)


class Measurements(Collector):
    """What Prometheus reads of one cluster; holds what bots record within bounds, too.

    Args:
        supervisor: of the bots.
        expires: returns the Unix time up to which the cluster is paid for; None for one that hosts itself.
        prune_every: seconds between two times that recorded files are held to their bounds.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        expires: Callable[[], float | None] = lambda: None,
        *,
        prune_every: float = PRUNE_EVERY,
    ) -> None:
        self.supervisor = supervisor
        self.expires = expires
        self.prune_every = prune_every
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.requests = Histogram(
            "silverback_http_request_seconds",
            "Time to the first byte of an answer, by route.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._counters: dict[UUID, BotCounters] = {}
        self._logs: dict[UUID, LogCounts] = {}
        self._reading = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._prune, name="measurements", daemon=True)

    def begin(self) -> None:
        """Begin to hold what bots record within bounds, until ``end`` or until the store is closed."""
        self._thread.start()

    def end(self) -> None:
        """Stop that."""
        self._ended.set()
        self._thread.join(timeout=5.0)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing: names are only known when they are read, since bots choose some of them."""
        return iter(())

    def collect(self) -> Families:
        """Return everything as it is now."""
        bots = overview(self.supervisor)
        states = GaugeMetricFamily("silverback_bots", "Bots by state.", labels=["state"])
        counts = Counter(bot.status for bot in bots)
        for status in ResourceStatus:
            if status < ResourceStatus.DEPROVISIONING:
                states.add_metric([status.name.lower()], counts[status])
        yield states
        healthy = GaugeMetricFamily("silverback_bot_healthy", "Whether a bot does its work.", labels=["bot", "network"])
        restarts = CounterMetricFamily("silverback_bot_restarts", "Restarts after a crash.", labels=["bot"])
        heartbeat = GaugeMetricFamily(
            "silverback_bot_heartbeat_age_seconds", "Time since a bot last showed that it works.", labels=["bot"]
        )
        lag = GaugeMetricFamily("silverback_bot_lag_blocks", "Blocks that a bot has yet to handle.", labels=["bot"])
        for bot in bots:
            healthy.add_metric([bot.name, bot.network], bot.healthy)
            restarts.add_metric([bot.name], bot.restarts)
            if bot.heartbeat_at is not None:
                heartbeat.add_metric([bot.name], time.time() - bot.heartbeat_at.timestamp())
            if bot.lag is not None:
                lag.add_metric([bot.name], bot.lag)
        yield from (healthy, restarts, self._failures(), heartbeat, lag)
        yield self._balances(bots)
        yield self._logged({bot.id: bot.name for bot in bots})
        yield from self._recorded({bot.id: bot.name for bot in bots})
        if (expires := self.expires()) is not None:
            left = GaugeMetricFamily("silverback_paid_seconds_left", "Time that the cluster is paid for.")
            left.add_metric([], expires - time.time())
            yield left

    def _failures(self) -> CounterMetricFamily:
        failures = CounterMetricFamily(
            "silverback_bot_watch_failures", "Failed attempts of the cluster to look after a bot.", labels=["bot"]
        )
        for bot in self.supervisor.store.bots():
            failures.add_metric([bot.name], self.supervisor.failures(bot))
        return failures

    def _recorded(self, names: dict[UUID, str]) -> Families:
        """Return what bots recorded: tasks, their errors and their time, and the latest value of each metric."""
        tasks = CounterMetricFamily("silverback_bot_tasks", "Tasks that ended.", labels=["bot", "task"])
        failed = CounterMetricFamily("silverback_bot_task_errors", "Tasks that failed.", labels=["bot", "task"])
        seconds = HistogramMetricFamily(
            "silverback_bot_task_seconds", "Execution time of tasks.", labels=["bot", "task"]
        )
        latest = GaugeMetricFamily("silverback_bot_metric", "Latest value that a bot recorded.", labels=["bot", "name"])
        with self._reading:
            self._counters = {bot: self._counters.get(bot) or self._counter(bot) for bot in names}
            for bot, counters in self._counters.items():
                counters.update()
                for task, counted in counters.tasks.items():
                    tasks.add_metric([names[bot], task], counted.handled)
                    failed.add_metric([names[bot], task], counted.failed)
                    seconds.add_metric([names[bot], task], _cumulative(counted.buckets), counted.seconds)
                for name, value in counters.latest.items():
                    latest.add_metric([names[bot], name], value)
        yield from (tasks, failed, seconds, latest)

    def _balances(self, bots: Iterable[BotOverview]) -> GaugeMetricFamily:
        balances = GaugeMetricFamily(
            "silverback_bot_balance",
            "Balance of the account that a bot signs with, in the currency of its network.",
            labels=["bot", "account", "network", "currency"],
        )
        for bot in bots:
            balance = read_balance(self.supervisor.runtime.work_folder(bot.id)) if bot.account else None
            if bot.account and balance:
                labels = [bot.name, bot.account, bot.network, balance.symbol]
                balances.add_metric(labels, float(balance.amount))
        return balances

    def _logged(self, names: dict[UUID, str]) -> CounterMetricFamily:
        lines = CounterMetricFamily("silverback_bot_log_lines", "Lines that a bot logged.", labels=["bot", "level"])
        with self._reading:
            self._logs = {bot: self._logs.get(bot) or LogCounts(self.supervisor.runtime.log_file(bot)) for bot in names}
            for bot, counts in self._logs.items():
                counts.update()
                for level, count in counts.lines.items():
                    lines.add_metric([names[bot], level], count)
        return lines

    def _counter(self, bot: UUID) -> BotCounters:
        return BotCounters(self.supervisor.runtime.work_folder(bot))

    def _prune(self) -> None:
        store = self.supervisor.store
        while not self._ended.wait(self.prune_every) and not store.is_closed:
            try:
                bots = store.bots()
            except sqlite3.Error as error:
                if store.is_closed:  # just now
                    return
                logger.warning("can't prune what bots recorded: %s", error)
                continue
            for bot in bots:
                try:
                    prune(self.supervisor.runtime.work_folder(bot.id))
                except OSError as error:
                    logger.warning("can't prune what bot '%s' recorded: %s", bot.name, error)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total, result = 0, []
    for bound, count in zip([*map(str, LATENCY_BUCKETS), "+Inf"], buckets, strict=True):
        total += count
        result.append((bound, float(total)))
    return result
