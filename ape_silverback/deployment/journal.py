"""What was begun and what was ended of the last deployment, action by action.

A bot that was changed, or whose variables were, runs on with what it had until it is restarted, and most clusters don't
report that. So every restart that an action makes necessary is written down before the action, and crossed out after
the restart. A kill at any moment loses none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from ape_silverback.deployment.json_lines import append_line, read_lines
from ape_silverback.files import write_private


class ActionJournal:
    """The journal of the last deployment.

    Args:
        file: where it is.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def restart(self, deployment: int) -> None:
        """Begin the journal of a deployment, in place of the last one's."""
        write_private(self.file, f'{{"deployment": {deployment}}}\n')

    def belongs_to(self, deployment: int) -> bool:
        """Return whether this is the journal of a deployment; one of another machine has none here."""
        return any(line.get("deployment") == deployment for line in read_lines(self.file))

    def begin_action(self, kind: str, name: str, owes: Mapping[UUID, str], time: datetime | None = None) -> None:
        """Record that an action is about to be done, and which bots have to be restarted once it is.

        Args:
            kind: kind of the action.
            name: bot or variable group.
            owes: id of each bot that has to be restarted then → why.
            time: now, by the cluster's clock, for one that creates something.
        """
        line: dict[str, Any] = {"begin": kind, "name": name}
        if time is not None:
            line["time"] = time.isoformat()
        if owes:
            line["owes"] = {str(identity): reason for identity, reason in owes.items()}
        append_line(self.file, line)

    def end_action(
        self,
        kind: str,
        name: str,
        *,
        settles: UUID | None = None,
        made: UUID | None = None,
        failed: bool = False,
        refused: bool = False,
    ) -> None:
        """Record how an action ended.

        Args:
            kind: kind of the action.
            name: bot or variable group.
            settles: the bot whose restart is no longer owed.
            made: the bot or the variable group that was created.
            failed: whether it failed.
            refused: whether the cluster refused it, so that it certainly did nothing.
        """
        line: dict[str, Any] = {"end": kind, "name": name}
        line |= {"settles": str(settles)} if settles else {}
        line |= {"made": str(made)} if made else {}
        line |= {"failed": True} if failed else {}
        line |= {"refused": True} if refused else {}
        append_line(self.file, line)

    def pending_restarts(self) -> dict[UUID, str]:
        """Return the restarts that actions of the deployment made necessary and that weren't done: bot's id → why."""
        pending: dict[UUID, str] = {}
        for line in read_lines(self.file):
            pending |= {UUID(identity): reason for identity, reason in (line.get("owes") or {}).items()}
            if settled := line.get("settles"):
                pending.pop(UUID(settled), None)
        return pending

    def settled(self) -> frozenset[UUID]:
        """Return the bots that were restarted, started or removed."""
        return frozenset(UUID(line["settles"]) for line in read_lines(self.file) if "settles" in line)

    def made(self, kind: str) -> dict[str, UUID]:
        """Return what actions of a kind created: name → id."""
        lines = [line for line in read_lines(self.file) if line.get("end") == kind]
        return {line["name"]: UUID(line["made"]) for line in lines if "made" in line}

    def begun(self, kind: str) -> dict[str, datetime]:
        """Return the creations that may have been made: name → when each was begun, by the cluster's clock."""
        begun: dict[str, datetime] = {}
        for line in read_lines(self.file):
            if line.get("begin") == kind and "time" in line:
                begun[line["name"]] = datetime.fromisoformat(line["time"])
            elif line.get("end") == kind and "refused" in line:
                begun.pop(line["name"], None)
        return begun

    def unfinished(self) -> list[str]:
        """Return the actions that were begun, and of which no end is known: the process was killed there."""
        begun: dict[tuple[str, str], str] = {}
        for line in read_lines(self.file):
            if "begin" in line:
                begun[line["begin"], line["name"]] = f"{line['begin']} {line['name']}"
            elif "end" in line:
                begun.pop((line["end"], line["name"]), None)
        return list(begun.values())
