"""Deployments as the dashboard shows them, read from the records that clients keep on the cluster.

A record is the client's business: here it is only shown. What isn't as today's client writes it is left out.
"""

from __future__ import annotations

import json
import logging
import shlex
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from ape_silverback.server.store import Store

logger = logging.getLogger(__name__)

MOST = 200
"""Deployments that are shown, the latest ones."""

MOST_BYTES = 16_000_000
"""Bytes of records that are read."""

OUTCOMES = 20
"""Things that a deployment touched that are shown; the rest is counted."""


class Deployment(BaseModel):
    """One deployment of a project.

    Attributes:
        outcome: name of each thing that it touched → what became of it; None for one that was cut off.
    """

    project: str
    id: int
    time: datetime
    by: str
    what: str = "deploy"
    target: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    outcome: dict[str, str] | None = Field(default=None)

    @field_validator("time")
    @classmethod
    def _has_zone(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("a time needs a zone")
        return value

    @property
    def lines(self) -> list[str]:
        """What became of what it touched, a line each."""
        if self.outcome is None:
            return ["still going on, or cut off"]
        lines = [f"{name}: {text}" for name, text in self.outcome.items()]
        more = len(lines) - OUTCOMES
        return [*lines[:OUTCOMES], *([f"… and {more} more"] if more > 0 else [])] or ["nothing changed"]

    @property
    def rollback_command(self) -> str:
        """What goes back to it, in the project's folder."""
        target = f" --target {shlex.quote(self.target)}" if self.target else ""
        return f"ape silverback cluster rollback --to {self.id}{target}"


def deployments_of(store: Store) -> list[Deployment]:
    """Return the deployments that were recorded on a cluster, the latest first."""
    merged: dict[tuple[str, Any], dict[str, Any]] = {}
    for project, line in _lines(store):
        if isinstance(number := line.get("id"), int):
            key = (project, number)
            merged[key] = {**merged.get(key, {}), **line, "project": project}
    found = []
    for document in merged.values():
        try:
            found.append(Deployment.model_validate(document))
        except ValidationError as error:
            logger.debug("a record of a deployment isn't shown: %s", error.error_count())
    return sorted(found, key=lambda one: one.time, reverse=True)[:MOST]


def _lines(store: Store) -> list[tuple[str, dict[str, Any]]]:
    """Return the newest lines of all projects, the oldest of them first."""
    found: list[tuple[str, dict[str, Any]]] = []
    size = 0
    for row in store.rows("SELECT project, line FROM deployments ORDER BY rowid DESC"):
        size += len(row["line"])
        if size > MOST_BYTES:
            break
        line: Any = json.loads(row["line"])
        if isinstance(line, dict):
            found.append((row["project"], line))
    return found[::-1]
