"""What happens while a plan is applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from ape_silverback.cluster.types import ResourceStatus

Kind = Literal["built", "applied", "state", "ready", "failed", "skipped", "rolled-back"]

AGAIN = "run deploy again"
"""What to do about what changed while a plan was carried out."""

NOT_STARTED = "not started"


@dataclass(frozen=True)
class Event:
    """Something that happened to a bot or to a variable group.

    Attributes:
        kind: ``built`` - the image of a bot was built; ``applied`` - a write was done; ``state`` - a bot is seen in
            another state; ``ready`` - it runs and is healthy; ``failed`` - it isn't what the project wants, and the
            text tells why; ``skipped`` - it wasn't begun, or not waited for; ``rolled-back`` - after a failure it has
            what it had before.
        errors: of a failed bot, what the cluster returns as its errors.
        log: of a failed bot, its last log lines.
        id: of a bot that was created.
    """

    kind: Kind
    name: str
    text: str
    status: ResourceStatus | None = None
    errors: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    id: UUID | None = None
