"""What went wrong in the latest run of a bot: what its log tells of it, and how the run ended."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from ape_silverback.server.lifecycle import BY_ITSELF, BY_SIGNAL, DEPROVISIONING, NEVER_RAN, STOPPED
from ape_silverback.server.logs import LoggedError, errors_of_run, last_lines_of_run
from ape_silverback.server.store import BotRecord


def last_errors(bot: BotRecord, log: Path, known: datetime | None) -> list[LoggedError]:
    """Return what went wrong in the latest run of a bot, the reason of its end first.

    Args:
        log: base of its log.
        known: up to when its errors are known to its user, and left out; None if none are.
    """
    task = bot.task
    started, ended, reason = task.started_at, task.stopped_at, task.stopped_reason
    logged = errors_of_run(log, max(known, started or known) if known else started)
    has_ended = bot.status in (STOPPED, DEPROVISIONING)
    died = has_ended and task.stop_code in (BY_ITSELF, BY_SIGNAL, NEVER_RAN)
    if not died or not reason or (known and ended and known >= ended):
        return logged
    if logged or task.exit_code == 0:
        return [LoggedError(ended, reason), *logged]
    # Its last lines aren't errors themselves: there may be nothing wrong in them.
    last = last_lines_of_run(log, started)
    return [LoggedError(ended, f"{reason}; before that:\n{last}" if last else reason)]
