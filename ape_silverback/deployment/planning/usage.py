"""How much of what a cluster is paid for its bots use once a plan is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ape_silverback.deployment.plan import Action, CreateBot, RemoveBot, UpdateBot, Usage
from ape_silverback.deployment.state import LiveState
from ape_silverback.plurals import plural


def usage_after(live: LiveState, actions: Iterable[Action]) -> Usage | None:
    """Return what the cluster's bots use after a plan; None for a cluster that doesn't tell what is paid for."""
    if live.limit is None or live.network_limit is None:
        return None
    used = {bot.id: (bot.configuration.ecosystem, bot.configuration.network) for bot in live.bots.values()}
    created = []
    for action in actions:
        match action:
            case CreateBot():
                created.append((action.configuration.ecosystem, action.configuration.network))
            case UpdateBot():
                ecosystem, network = used[action.id]
                used[action.id] = (
                    str(action.new.get("ecosystem", ecosystem)),
                    str(action.new.get("network", network)),
                )
            case RemoveBot():
                used.pop(action.id, None)
            case _:
                pass
    networks = sorted({f"{ecosystem}:{network}" for ecosystem, network in (*used.values(), *created)})
    return Usage(
        bots=len(used) + len(created),
        bots_paid=live.limit,
        networks=tuple(networks),
        networks_paid=live.network_limit,
    )


def too_much(usage: Usage, live: LiveState) -> Iterator[str]:
    """Yield a warning for what would be used beyond what is paid for; not of bots that are there already."""
    if usage.bots > usage.bots_paid and usage.bots > len(live.bots):
        bots = plural(usage.bots, "bot")
        yield f"{bots} would be on the cluster, which is paid for {usage.bots_paid}: some may not run"
    if len(usage.networks) > usage.networks_paid:
        networks = plural(len(usage.networks), "network")
        yield (
            f"bots would use {networks} ({', '.join(usage.networks)}), and the cluster is paid for "
            f"{usage.networks_paid}: some may not run"
        )
