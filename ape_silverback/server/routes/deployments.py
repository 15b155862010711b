"""The records of projects' deployments, ``/deployments``: kept for clients, so that a lost machine loses none.

To the server a record is text: what is in it is the client's business. Each project has its own, which only grows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel

from ape_silverback.server.routes import TheStore
from ape_silverback.server.store import Store

EXTENSIONS = ("deployments", "deployment-claims")

MOST_BYTES = 4_000_000
"""Bytes of the newest lines that are returned."""

MOST_CLAIMS = 2**53
"""Largest number of a claim; a number of JSON holds no larger one exactly."""

router = APIRouter(prefix="/deployments")

Project = Annotated[str, Query(min_length=1, max_length=1000)]
After = Annotated[int, Query(ge=0, le=2**53)]
"""Number of a line; larger ones don't fit into a column of SQLite, nor into a number of JSON."""


class DeploymentLines(BaseModel):
    """The newest lines of a project's record."""

    last: int
    """Number of the newest line; 0 when there is none."""

    lines: list[dict[str, Any]]
    """The newest lines, the oldest of them first."""


@router.get("")
def read_lines(store: TheStore, project: Project) -> DeploymentLines:
    """Return the newest lines of a project's record."""
    rows = store.rows("SELECT number, line FROM deployments WHERE project = ? ORDER BY number DESC", project)
    lines: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        size += len(row["line"])
        if size > MOST_BYTES and lines:
            break
        lines.append(json.loads(row["line"]))
    return DeploymentLines(last=rows[0]["number"] if rows else 0, lines=lines[::-1])


@router.post("")
def append_line(request: Request, store: TheStore, project: Project, after: After, line: dict[str, Any]) -> int:
    """Append a line to a project's record, after the one that the client saw last; return its number.

    A line that was appended already by the same request, whose answer was lost, isn't appended again.
    """
    text = json.dumps(line)
    with store.transaction() as db:
        rows = db.execute("SELECT number, line FROM deployments WHERE project = ? AND number >= ?", (project, after))
        newer = {row["number"]: row["line"] for row in rows}
        if newer.get(after + 1) == text and after + 2 not in newer:
            return after + 1
        if (after and after not in newer) or after + 1 in newer:
            raise HTTPException(409, "another deployment of this project was recorded in the meantime")
        db.execute("INSERT INTO deployments (project, number, line) VALUES (?, ?, ?)", (project, after + 1, text))
    if request.app.state.alerts and "outcome" in line:
        request.app.state.alerts.hear_outcome(project, line, _who(store, project, line.get("id")))
    return after + 1


@router.get("/claims")
def read_claims(store: TheStore) -> dict[UUID, dict[str, int]]:
    """Return which projects have each bot and variable group, as the newest line of each of them has it.

    Id of the bot or group → project → number of its claim. The project that took it over last has the highest one.
    """
    rows = store.rows(
        "SELECT project, line FROM deployments AS one WHERE number = "
        "(SELECT max(number) FROM deployments WHERE project = one.project) ORDER BY project"
    )
    claims: dict[UUID, dict[str, int]] = {}
    for row in rows:
        for thing in _things(json.loads(row["line"])):
            with suppress(TypeError, AttributeError, ValueError):  # a client may write anything
                claims.setdefault(UUID(thing.get("id")), {})[row["project"]] = _number(thing.get("claim"))
    return claims


def _things(line: dict[str, Any]) -> Iterator[Any]:
    """Return the bots and variable groups in a line."""
    bots, groups = line.get("bots"), line.get("groups")
    yield from bots if isinstance(bots, list) else ()
    yield from groups.values() if isinstance(groups, dict) else ()


def _number(claim: Any) -> int:
    return claim if isinstance(claim, int) and 0 < claim <= MOST_CLAIMS else 0


def _who(store: Store, project: str, deployment: Any) -> str | None:
    """Return who began a deployment, from the line written then."""
    for row in store.rows("SELECT line FROM deployments WHERE project = ? ORDER BY number DESC LIMIT 20", project):
        line = json.loads(row["line"])
        if line.get("id") == deployment and isinstance(line.get("by"), str):
            return str(line["by"])[:100]
    return None
