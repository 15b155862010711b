"""Times with and without a zone: bots, clusters and callers may leave it out, and may name any year."""

from __future__ import annotations

from datetime import datetime, timezone


def with_timezone(moment: datetime) -> datetime:
    """Return a time with a zone; one without is in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def local_time(moment: datetime) -> datetime:
    """Return a time in this machine's zone; one of the first or the last hours of the calendar stays as it is."""
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):  # there, it would be before the year 1 or after 9999
        return moment
