"""Which providers are installed here for a network.

Ape's own listing loads the providers of every plugin, and with ``test`` py-evm, which takes as long as all the rest of
a plan. Here a plugin is loaded only when it may be the one that is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ape.api.networks import NetworkAPI

_TEST = "ape_test"
"""Plugin of the provider ``test``, which is for the local network of ethereum only."""


def is_installed(network: NetworkAPI, provider: str) -> bool:
    """Return whether a provider of this name serves a network here, as ``network.providers`` would list it."""
    if network.is_custom or network.is_adhoc:
        return provider in network.providers
    plugin = f"ape_{provider.replace('-', '_')}"
    if any(name == provider for name in _provided(network, only=plugin)) or _is_node_of_evmchains(network, provider):
        return True
    return any(name == provider for name in _provided(network))  # a provider may have another name than its plugin


def first_installed(network: NetworkAPI) -> str | None:
    """Return the provider that Ape takes for a network without a configured one, or None when there is none."""
    if network.is_custom or network.is_adhoc:
        return next(iter(network.providers), None)
    first = next(_provided(network), None)
    return first or ("node" if _is_node_of_evmchains(network, "node") else None)


def _provided(network: NetworkAPI, only: str | None = None) -> Iterator[str]:
    """Return the names of the providers that plugins have for a network, in Ape's order.

    Args:
        network: the network.
        only: module of the one plugin to ask.
    """
    from ape.plugins.pluggy_patch import plugin_manager
    from ape.utils.basemodel import ManagerAccessMixin

    ManagerAccessMixin.plugin_manager._register_plugins()  # does nothing when that is done
    where = (network.ecosystem.name, network.name)
    hooks: Any = plugin_manager.hook
    for hook in hooks.providers.get_hookimpls():
        module = hook.plugin_name
        if (only is not None and module != only) or (module == _TEST and where != ("ethereum", "local")):
            continue
        found = hook.plugin.providers()
        for ecosystem, name, provider in [found] if isinstance(found, tuple) else found:
            if (ecosystem, name) == where:
                derived = provider.__module__.split(".")[0].replace("_", "-").replace("ape-", "")
                yield provider.NAME or derived


def _is_node_of_evmchains(network: NetworkAPI, provider: str) -> bool:
    """Return whether Ape serves a network, which it knows from ``evmchains``, with its own node provider."""
    return provider == "node" and network.name in network.ecosystem._networks_from_evmchains
