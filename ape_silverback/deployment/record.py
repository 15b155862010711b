"""What is written of one deployment: who deployed what, when, and what it left.

Nothing here ever holds a value of a variable, only keyed fingerprints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ape_silverback.deployment.state import PendingRestart, RecordedBot, RecordedGroup


class Record(BaseModel):
    """A deployment: `history`."""

    model_config = ConfigDict(defer_build=True)

    version: int = 2
    """Version of the record; 1 for one of a version that knew no ids of bots."""

    id: int
    """Number of the deployment, from 1 on."""

    time: datetime
    """When it began."""

    by: str
    """Who deployed, as `user@machine`."""

    what: str = "deploy"
    """The command: `deploy`, or `rollback to ID`."""

    target: str | None = None
    """Target of the section."""

    selected: tuple[str, ...] = ()
    """Names or globs of the bots that it was about; none for all of them."""

    commit: str | None = None
    """Git commit of the project, where there is one."""

    dirty: bool | None = None
    """Whether the project had changes that weren't committed."""

    restores: int | None = None
    """Number of the deployment that it went back to."""

    bots: tuple[RecordedBot, ...] = ()
    """Every bot that the project has on the cluster after it, of all targets."""

    leaving: tuple[RecordedBot, ...] = ()
    """The bots that it removes, while it goes on."""

    groups: dict[str, RecordedGroup] = Field(default_factory=dict)
    """Every variable group that the project made there, of all targets."""

    owes: dict[UUID, PendingRestart] = Field(default_factory=dict)
    """The restarts that it makes necessary: id of the bot → why."""

    pending: dict[UUID, PendingRestart] = Field(default_factory=dict)
    """The restarts that are owed: before it while it goes on, after it once it ended."""

    origins: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Name of a bot that it was about → where each value that is set of its configuration came from."""

    digests: dict[str, str] = Field(default_factory=dict)
    """Name of a bot → digest of its image, where an engine or the reference has it."""

    outcome: dict[str, str] | None = None
    """Name of each thing that it touched → the last that happened to it; null for a deployment that was cut off."""

    @property
    def succeeded(self) -> bool:
        """Whether it ended, and nothing of it failed or was left out."""
        return self.outcome is not None and not any(
            text.startswith(("failed", "skipped", "rolled-back")) for text in self.outcome.values()
        )

    def of_target(self, target: str | None) -> tuple[RecordedBot, ...]:
        """Return the bots that belong to a target of the section."""
        return tuple(bot for bot in self.bots if bot.target == target)


@dataclass(frozen=True)
class Source:
    """Where a deployment comes from, for its record."""

    what: str = "deploy"
    selected: tuple[str, ...] = ()
    commit: str | None = None
    dirty: bool | None = None
    restores: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


UNKNOWN_SOURCE = Source()
