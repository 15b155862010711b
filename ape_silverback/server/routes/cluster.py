"""The cluster as a whole: ``/health``."""

from __future__ import annotations

from fastapi import APIRouter

from ape_silverback.cluster.types import ClusterHealth, ServiceHealth
from ape_silverback.server.routes import TheSupervisor

EXTENSIONS = ()

router = APIRouter()


@router.get("/health")
def health(supervisor: TheSupervisor) -> ClusterHealth:
    """Return the health of every bot, and of every network that has bots."""
    bots = supervisor.store.bots()
    healthy = {bot.name: supervisor.health(bot).healthy for bot in bots}
    networks: dict[str, bool] = {}
    for bot in bots:
        if bot.wanted:
            network = f"{bot.configuration.ecosystem}:{bot.configuration.network}"
            networks[network] = networks.get(network, True) and healthy[bot.name]
    return ClusterHealth(
        networks={name: ServiceHealth(healthy=one) for name, one in networks.items()},
        bots={name: ServiceHealth(healthy=one) for name, one in healthy.items()},
    )
