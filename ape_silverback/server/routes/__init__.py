"""The cluster's HTTP surface, a module for each kind of thing.

Each module has a ``router`` and names in ``EXTENSIONS`` what it serves beyond the API of every cluster. The modules
that ``app.py`` lists are served to those who authenticate. What a handler needs of its application, it depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, HTTPException
from starlette.requests import Request

from ape_silverback.cluster.types import ClusterConfiguration
from ape_silverback.server.routes.names import MOST_THINGS
from ape_silverback.server.store import Store
from ape_silverback.server.supervisor import Supervisor


class RouteModule(Protocol):
    """A module of routes."""

    @property
    def router(self) -> APIRouter:
        """Its routes."""

    @property
    def EXTENSIONS(self) -> Sequence[str]:  # noqa: N802 - a constant of the module
        """Names announced in ``info.x-extensions`` of ``/openapi.json``."""


def _supervisor(request: Request) -> Supervisor:
    found: Supervisor = request.app.state.supervisor
    return found


def _store(request: Request) -> Store:
    return _supervisor(request).store


def _paid(request: Request) -> ClusterConfiguration | None:
    found: ClusterConfiguration | None = request.app.state.configuration
    return found


WhatIsPaid = Annotated[ClusterConfiguration | None, Depends(_paid)]
"""What is paid for; None for a cluster that hosts itself."""

TheSupervisor = Annotated[Supervisor, Depends(_supervisor)]
TheStore = Annotated[Store, Depends(_store)]


def problem(message: str, *place: str, kind: str = "value_error") -> dict[str, Any]:
    """Return an entry of the ``detail`` of a 422 answer.

    Args:
        message: what is wrong.
        place: where in the request, such as ``"body", "image"``.
        kind: the entry's ``type``.
    """
    return {"loc": list(place), "msg": message, "type": kind}


def invalid(message: str, *place: str) -> HTTPException:
    """Return the error for one value that can't be used: status 422."""
    return HTTPException(422, [problem(message, *place)])


def check_room(there: int) -> None:
    """Raise if a cluster can't take one more of a kind: status 409."""
    if there >= MOST_THINGS:
        raise HTTPException(409, f"there are already {there} of these, the most that a cluster holds; remove one first")
