"""The machines of a cluster that has several, ``/nodes``, and moving a bot between them, ``/bots/{id}/move``."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from ape_silverback.cluster.types import NodeInfo
from ape_silverback.server.routes import TheSupervisor
from ape_silverback.server.routes.bots import Bot
from ape_silverback.server.runtimes import NodesRuntime

EXTENSIONS = ("nodes",)

router = APIRouter()


class Move(BaseModel):
    """Body of ``POST /bots/{id}/move``.

    Attributes:
        node: name or id of the machine.
        fenced: whether its user knows that the former machine is off, or cut off from everything. Needed where that
            one doesn't answer.
    """

    node: str = Field(min_length=1, max_length=253)
    fenced: bool = False


@router.get("/nodes")
def nodes(supervisor: TheSupervisor) -> list[NodeInfo]:
    """Return the machines; none for a cluster that has one."""
    if not isinstance(supervisor.runtime, NodesRuntime):
        return []
    seen = {bot.name: supervisor.seen(bot).node for bot in supervisor.store.bots()}
    return [
        NodeInfo(**asdict(node), bots=sorted(name for name, there in seen.items() if there == node.name))
        for node in supervisor.runtime.nodes()
    ]


@router.post("/bots/{bot}/move")
def move(supervisor: TheSupervisor, bot: Bot, body: Move) -> Response:
    """Bind a bot that has an account to another machine, and start it there if it should run."""
    supervisor.move(bot, body.node, fenced=body.fenced)
    return Response()
