"""The cluster as a whole: ``/health``."""

from __future__ import annotations

from fastapi import APIRouter

from ape_silverback.cluster.types import ClusterHealth, ServiceHealth
from ape_silverback.server.routes import TheStore
from ape_silverback.server.routes.bots import health_of

EXTENSIONS = ()

router = APIRouter()


@router.get("/health")
def health(store: TheStore) -> ClusterHealth:
    """Return the health of every bot, and of every network that has bots."""
    bots = store.bots()
    networks: dict[str, bool] = {}
    for bot in bots:
        if bot.wanted:
            network = f"{bot.configuration.ecosystem}:{bot.configuration.network}"
            networks[network] = networks.get(network, True) and health_of(bot).healthy
    return ClusterHealth(
        networks={name: ServiceHealth(healthy=healthy) for name, healthy in networks.items()},
        bots={bot.name: health_of(bot) for bot in bots},
    )
