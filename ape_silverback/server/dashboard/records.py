"""Deployments, and what they tell of bots, read from the records that clients keep on the cluster.

A record is the client's business: here it is only shown. What isn't as today's client writes it is left out.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from pydantic import BaseModel, Field, ValidationError, field_validator

from ape_silverback.server.store import BotRecord, Store

logger = logging.getLogger(__name__)

MOST = 200
"""Deployments that are shown, the latest ones."""

MOST_BYTES = 16_000_000
"""Bytes of records that are read."""

OUTCOMES = 20
"""Things that a deployment touched that are shown; the rest is counted."""


class DeployedBot(BaseModel):
    """A bot as a deployment left it, or should have."""

    name: str
    id: UUID | None = None
    configuration: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where the configuration of a bot comes from.

    Attributes:
        deployment: the latest one that was about the bot.
        configuration: as that left it.
        origins: field → where its value came from.
    """

    deployment: Deployment
    configuration: Mapping[str, Any]
    origins: Mapping[str, str]

    def origin_of(self, field: str, value: Any) -> str:
        """Return where a value came from, empty for one that wasn't set.

        Args:
            field: of a bot's configuration.
            value: that the bot has now.
        """
        deployed = self.configuration.get(field)
        if _plain(value) != _plain(deployed):
            return f"changed on the cluster since deployment {self.deployment.id}, which set {shown(deployed)}"
        return self.origins.get(field, "")


class Deployment(BaseModel):
    """One deployment of a project.

    Attributes:
        outcome: name of each thing that it touched → what became of it; None for one that was cut off.
        bots: every bot that the project has on the cluster after it.
        origins: name of a bot that it was about → where each value came from.
        changes: what is other than after the deployment before it, a line each.
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
    bots: tuple[DeployedBot, ...] = ()
    origins: dict[str, dict[str, str]] = Field(default_factory=dict)
    changes: tuple[str, ...] = ()

    @field_validator("time")
    @classmethod
    def _has_zone(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("a time needs a zone")
        return value

    @property
    def lines(self) -> list[tuple[str, bool]]:
        """What became of what it touched, and whether that is bad."""
        if self.outcome is None:
            return [("still going on, or cut off", False)]
        lines = [(f"{name}: {text}", _is_bad(text)) for name, text in self.outcome.items()]
        lines.sort(key=lambda line: not line[1])
        more = len(lines) - OUTCOMES
        return [*lines[:OUTCOMES], *([(f"… and {more} more", False)] if more > 0 else [])] or [
            ("nothing changed", False)
        ]

    @property
    def result(self) -> str:
        """How it ended, in a word."""
        if self.outcome is None:
            return "not ended"
        return "failed" if any(map(_is_bad, self.outcome.values())) else "succeeded"

    @property
    def looks(self) -> str:
        """How that looks."""
        return {"failed": "bad", "succeeded": "ok"}.get(self.result, "warn")

    @property
    def rollback_command(self) -> str:
        """What goes back to it, in the project's folder."""
        target = f" --target {shlex.quote(self.target)}" if self.target else ""
        return f"ape silverback cluster rollback --to {self.id}{target}"

    def touches(self, bot: UUID, name: str) -> bool:
        """Return whether a bot is one of this project, and not only of the same name."""
        return any(one.id == bot or (one.id is None and one.name == name) for one in self.bots)


_read: WeakKeyDictionary[Store, tuple[int, list[Deployment]]] = WeakKeyDictionary()
"""What was read last, and up to which line: a page that is kept up to date reads them every second."""


def deployments_of(store: Store) -> list[Deployment]:
    """Return the deployments that were recorded on a cluster, the latest first."""
    last = int(store.rows("SELECT COALESCE(MAX(rowid), 0) AS last FROM deployments")[0]["last"])
    if store not in _read or _read[store][0] != last:
        _read[store] = last, _read_deployments(store)
    return _read[store][1]


def _read_deployments(store: Store) -> list[Deployment]:
    merged: dict[tuple[str, Any], dict[str, Any]] = {}
    for project, line in _lines(store):
        if isinstance(number := line.get("id"), int):
            key = (project, number)
            merged[key] = {**merged.get(key, {}), **line, "project": project}
    found = []
    before: dict[str, Deployment] = {}
    for document in merged.values():
        try:
            one = Deployment.model_validate(document)
        except ValidationError as error:
            logger.debug("a record of a deployment isn't shown: %s", error.error_count())
            continue
        if (last := before.get(one.project)) is not None:
            one = one.model_copy(update={"changes": tuple(islice(_changes(last, one), OUTCOMES))})
        before[one.project] = one
        found.append(one)
    return sorted(found, key=lambda one: one.time, reverse=True)[:MOST]


def source_of(store: Store, bot: BotRecord) -> Source | None:
    """Return where the configuration of a bot comes from; None where no deployment told."""
    for one in deployments_of(store):
        for deployed in one.bots:
            if deployed.id == bot.id and one.origins.get(deployed.name):
                return Source(one, deployed.configuration, one.origins[deployed.name])
    return None


def commits_of(store: Store) -> dict[UUID, str]:
    """Return the commit of the project that each bot was deployed from last, shortened."""
    commits: dict[UUID, str] = {}
    for one in deployments_of(store):
        for bot in one.bots:
            if bot.id and one.commit and one.outcome and bot.name in one.outcome:
                commits.setdefault(bot.id, one.commit[:8] + ("+" if one.dirty else ""))
    return commits


def _changes(before: Deployment, after: Deployment) -> Iterator[str]:
    """Yield what is other after a deployment than after the one before it."""
    known = {bot.id or bot.name: bot for bot in before.bots}
    for bot in after.bots:
        earlier = known.get(bot.id or bot.name)
        if earlier is None:
            continue
        if earlier.name != bot.name:
            yield f"{bot.name}: name {earlier.name} → {bot.name}"
        for field in dict.fromkeys([*earlier.configuration, *bot.configuration]):
            old, new = earlier.configuration.get(field), bot.configuration.get(field)
            if old != new:
                yield f"{bot.name}: {_change(field, old, new)}"


def _is_bad(text: str) -> bool:
    return text.startswith(("failed", "rolled-back"))


def _change(field: str, old: Any, new: Any) -> str:
    """Return what changed of a field; of an image only the tag, where only that did."""
    if field == "image" and isinstance(old, str) and isinstance(new, str):
        repository, colon, tag = new.rpartition(":")
        if colon and "/" not in tag and old.rpartition(":")[0] == repository:
            return f"tag {old.rpartition(':')[2]} → {tag}"
    return f"{field.replace('_', ' ')} {shown(old)} → {shown(new)}"


def shown(value: Any) -> str:
    """Return a value of a recorded configuration as text."""
    if value in (None, [], ()):
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    return json.loads(value.model_dump_json()) if isinstance(value, BaseModel) else json.loads(json.dumps(value))


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
