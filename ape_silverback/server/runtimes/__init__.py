"""Where bots run: the one small interface that every runtime has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID


class ImageError(ValueError):
    """An image that this runtime can't run; says why."""


@dataclass(frozen=True)
class Observation:
    """What a runtime sees of a bot's latest run.

    Attributes:
        alive: it runs.
        ready: it has said that its start is complete.
        exit_code: as a shell shows it, 128 + n for signal n; None while it runs, and when nobody saw it end.
    """

    alive: bool
    ready: bool = False
    started_at: datetime | None = None
    exit_code: int | None = None
    stopped_at: datetime | None = None


class Runtime(Protocol):
    """Starts and stops bots and tells how they are. Knows nothing of states."""

    name: str

    def check(self, image: str) -> None:
        """Check that an image can be run.

        Raises:
            ImageError: it can't.
        """

    def start(self, bot: UUID, image: str, variables: Mapping[str, str]) -> None:
        """Start a bot with these variables in its environment.

        Raises:
            ImageError: the image can't be run.
        """

    def observe(self, bot: UUID) -> Observation:
        """Tell how the latest run of a bot is, also one that another process of the server started."""

    def stop(self, bot: UUID) -> None:
        """Ask a bot to end."""

    def kill(self, bot: UUID) -> None:
        """End a bot at once."""

    def discard(self, bot: UUID) -> None:
        """Delete what is kept of a bot that doesn't run."""

    def log_file(self, bot: UUID) -> Path:
        """Give the file that holds a bot's log, all runs of it, in raw log lines."""
