"""Heartbeats of bots: while a bot is healthy its address is requested, so that silence is noticed elsewhere.

Whoever watches from another machine also notices when this one is gone, which no message of the cluster could tell.
The address may hold a secret: it is the value of a variable of the bot's groups, and never shows in a log.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.exceptions import SilverbackError
from ape_silverback.server.store import BotRecord, UnreadableError
from ape_silverback.server.supervisor import Supervisor
from ape_silverback.transport import Transport, deadline

logger = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between two heartbeats of a bot."""

TIMEOUT = 10.0
"""Seconds that a service has to answer."""

MOST_ANSWER = 1 << 16
"""Bytes read of an answer; the rest is ignored."""


class Heartbeats:
    """Requests the address of each healthy bot that has one.

    Args:
        supervisor: of the bots.
        every: seconds between two heartbeats of a bot.
        timeout: seconds that a service has to answer.
    """

    def __init__(self, supervisor: Supervisor, every: float = EVERY, timeout: float = TIMEOUT) -> None:
        self.supervisor = supervisor
        self.every = every
        self.timeout = timeout
        self._client = httpx.Client(transport=Transport(), headers={"User-Agent": "ape-silverback"})
        self._pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="heartbeat")
        self._under_way: set[UUID] = set()
        self._failures: dict[UUID, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses

    def begin(self) -> None:
        """Begin to send heartbeats."""
        self._thread.start()

    def end(self) -> None:
        """Stop; a request that is under way isn't waited for."""
        self._ended.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            try:
                self._send_all()
            except (sqlite3.Error, RuntimeError) as error:  # the pool is shut down, or the database busy
                if self._ended.is_set() or self.supervisor.store.is_closed:
                    return
                logger.warning("heartbeats weren't sent: %s", error)
            due = max(due + self.every, time.monotonic())
            self._ended.wait(due - time.monotonic())

    def _send_all(self) -> None:
        for bot in self.supervisor.store.bots():
            if (
                bot.configuration.heartbeat
                and bot.status is ResourceStatus.RUNNING
                and bot.id not in self._under_way
                and self.supervisor.health(bot).healthy
            ):
                self._under_way.add(bot.id)
                self._pool.submit(self._send, bot)

    def _send(self, bot: BotRecord) -> None:
        try:
            failure = self._failure_of(bot)
        except Exception as error:  # noqa: BLE001 - its text may hold the address
            failure = type(error).__name__
        finally:
            self._under_way.discard(bot.id)
        if failure and self._failures.get(bot.id) != failure:  # once, and not each minute
            logger.warning(
                "the heartbeat of bot '%s' (variable %s) wasn't sent: %s",
                bot.name,
                bot.configuration.heartbeat,
                failure,
            )
        if failure:
            self._failures[bot.id] = failure
        else:
            self._failures.pop(bot.id, None)

    def _failure_of(self, bot: BotRecord) -> str | None:
        """Send a heartbeat, and return why it failed, without the address; None for one that was taken."""
        values: dict[str, str] = {}
        try:
            for group in bot.configuration.environment:
                values |= self.supervisor.store.values_of(group)
        except (LookupError, UnreadableError) as error:
            return str(error)
        address = values.get(bot.configuration.heartbeat or "", "").strip()
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            return "it doesn't hold an http:// or https:// address"
        try:
            with deadline(self.timeout):
                answer = self._client.get(url, timeout=self.timeout, extensions={"max_bytes": MOST_ANSWER})
        except SilverbackError as error:  # the proxy's setting, which it names without the address
            return str(error)
        except httpx.HTTPError as error:
            return type(error).__name__
        return f"HTTP {answer.status_code}" if answer.status_code >= 400 else None
