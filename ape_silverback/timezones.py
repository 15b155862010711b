"""Times whose zone isn't given: bots, clusters and callers may leave it out."""

from __future__ import annotations

from datetime import datetime, timezone


def with_timezone(moment: datetime) -> datetime:
    """Return a time with a zone; one without is in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
