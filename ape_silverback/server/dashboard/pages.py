"""The dashboard as part of a cluster's application, and its smaller pages.

Pages show what the API returns, and do nothing that the API doesn't do.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles

from ape_silverback.server.dashboard import access, all_bots, one_bot
from ape_silverback.server.dashboard.access import LoginNeeded, Viewer, ask_for_login
from ape_silverback.server.dashboard.records import deployments_of
from ape_silverback.server.dashboard.rendering import page
from ape_silverback.server.dashboard.sessions import Sessions
from ape_silverback.server.routes import TheStore, TheSupervisor
from ape_silverback.server.runtimes import EngineError, NodesRuntime

router = APIRouter(include_in_schema=False)


def add_dashboard(app: FastAPI) -> None:
    """Serve the dashboard with an application that has a supervisor in its state."""
    app.state.dashboard = Sessions()
    for part in (access, all_bots, one_bot):
        app.include_router(part.router)
    app.include_router(router)
    static = StaticFiles(directory=Path(__file__).with_name("static"))
    app.mount("/ui/static", GZipMiddleware(static), name="dashboard-static")
    app.add_exception_handler(LoginNeeded, ask_for_login)


@router.get("/ui/deployments")
def deployments_page(request: Request, role: Viewer, store: TheStore) -> Response:
    """Show the deployments that were recorded on this cluster."""
    return page(request, role, "deployments.html", page="deployments", deployments=deployments_of(store))


@router.get("/ui/nodes")
def nodes_page(request: Request, role: Viewer, supervisor: TheSupervisor) -> Response:
    """Show the machines of a cluster that has several."""
    if not isinstance(supervisor.runtime, NodesRuntime):
        raise HTTPException(404, "this cluster runs its bots on one machine")
    problem = None
    try:
        nodes = supervisor.runtime.nodes()
    except EngineError as error:
        nodes, problem = [], str(error)
    bots: dict[str, list[dict[str, str]]] = {}
    for bot in supervisor.store.bots():
        if there := supervisor.seen(bot).node:
            bots.setdefault(there, []).append({"id": str(bot.id), "name": bot.name})
    return page(request, role, "nodes.html", page="nodes", nodes=nodes, bots=bots, problem=problem)
