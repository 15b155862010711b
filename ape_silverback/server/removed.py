"""What is kept of removed bots for a while: their logs and last errors."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

from ape_silverback.server.logs import files_of_log
from ape_silverback.server.runtimes import Runtime
from ape_silverback.server.store import Store

KEEP_REMOVED = timedelta(days=7)
"""How long the log and the last errors of a removed bot are kept."""

PURGE_EVERY = 3600.0
"""Seconds between two looks for what has been kept for long enough."""


class RemovedLogs:
    """The logs of removed bots, beside the database in which their errors are.

    Args:
        store: where removed bots are kept.
        runtime: where the logs are until then.
    """

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._purge_at = 0.0

    def log(self, bot: UUID) -> Path:
        """Return the base of the log of a removed bot."""
        return self._store.folder / "removed" / str(bot) / "log"

    def keep_log(self, bot: UUID) -> None:
        """Move a bot's log to where it survives its removal."""
        base, former = self.log(bot), self._runtime.log_file(bot)
        files = files_of_log(former)
        if files:
            base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in files:
            with suppress(OSError):  # a bot whose log can't be moved must be removable all the same
                shutil.move(file, base.with_name(base.name + file.name.removeprefix(former.name)))

    def purge(self, *, every: float = PURGE_EVERY) -> None:
        """Delete what has been kept for long enough.

        Args:
            every: seconds since the last look within which nothing is done.
        """
        if every and time.monotonic() < self._purge_at:
            return
        self._purge_at = time.monotonic() + every
        for removed in self._store.removed_bots():
            if datetime.now(timezone.utc) - removed.removed > KEEP_REMOVED:
                shutil.rmtree(self.log(removed.id).parent, ignore_errors=True)
                self._store.forget_removed_bot(removed.id)
