"""What went wrong in the latest run of a bot: what its log tells of it, and how the run ended."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from ape_silverback.server.lifecycle import BY_ITSELF, BY_SIGNAL, DEPROVISIONING, NEVER_RAN, STOPPED
from ape_silverback.server.logs import LoggedError, errors_of_run, last_lines_of_run
from ape_silverback.server.store import BotRecord


def last_errors(bot: BotRecord, log: Path, known: datetime | None) -> list[LoggedError]:
    """Return what went wrong in the latest run of a bot, and in those that the cluster has started again since.

    Args:
        log: base of its log.
        known: up to when its errors are known to its user, and left out; None if none are.

    Returns:
        The reasons of the ends first, then what was logged.
    """
    task = bot.task
    started, ended, reason = task.started_at, task.stopped_at, task.stopped_reason
    earlier = [
        crash
        for crash in bot.restarts.crashes
        if (started is None or crash.time < started) and (known is None or crash.time > known)
    ]
    ends = [LoggedError(crash.time, crash.reason) for crash in earlier]
    since = (earlier[0].started or earlier[0].time) if earlier else started
    logged = errors_of_run(log, max(known, since or known) if known else since)
    has_ended = bot.status in (STOPPED, DEPROVISIONING)
    died = has_ended and task.stop_code in (BY_ITSELF, BY_SIGNAL, NEVER_RAN)
    if not died or not reason or (known and ended and known >= ended):
        return [*ends, *logged]
    if logged or task.exit_code == 0:
        return [*ends, LoggedError(ended, reason), *logged]
    # Its last lines aren't errors themselves: there may be nothing wrong in them.
    last = last_lines_of_run(log, started)
    return [*ends, LoggedError(ended, f"{reason}; before that:\n{last}" if last else reason)]
