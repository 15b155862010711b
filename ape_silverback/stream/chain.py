"""The project's way to a chain: which network of Ape has a chain id, and the node that Ape connects to there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ape_silverback.apepay.rpc import HttpNode, Node, Refusal, RpcRequest, Unreachable, results_of
from ape_silverback.exceptions import ChainError, StreamError

if TYPE_CHECKING:
    from ape.api import ProviderAPI


def network_with(chain_id: int) -> str:
    """Return the network of the project's Ape that has a chain id, as ``ecosystem:network``. Connects to nothing.

    The local network comes first, then custom networks, then the public chains that Ape knows.

    Raises:
        StreamError: none has it.
    """
    from ape.utils.basemodel import ManagerAccessMixin
    from ape.utils.testing import DEFAULT_TEST_CHAIN_ID
    from evmchains import PUBLIC_CHAIN_META

    manager = ManagerAccessMixin.network_manager
    default = manager.default_ecosystem_name
    local = manager.default_ecosystem.networks.get("local")
    if chain_id == DEFAULT_TEST_CHAIN_ID and local is not None:
        return f"{default}:local"
    for custom in manager.custom_networks:
        if custom.get("chain_id") == chain_id:
            return f"{custom['ecosystem']}:{custom['name']}"
    for ecosystem in sorted(PUBLIC_CHAIN_META, key=lambda name: (name != default, name)):
        for network, meta in PUBLIC_CHAIN_META[ecosystem].items():
            if meta["chainId"] == chain_id and ecosystem in manager.ecosystem_names:
                return f"{ecosystem}:{network}"
    raise StreamError(
        f"no network of this project has chain id {chain_id}: install the plugin that brings it, declare it under "
        "`networks: custom:` in ape-config.yaml, or pass --network"
    )


@contextmanager
def connected_provider(choice: str | None) -> Iterator[ProviderAPI]:
    """Connect to a network as every Ape command does.

    Args:
        choice: ``ecosystem:network:provider``; parts left out are the project's, and all of them for None.

    Raises:
        ChainError: it can't be connected to, its node answers anything else, or it is a chain inside this process,
            which has no streams.
    """
    from ape.exceptions import ApeException
    from ape.utils.basemodel import ManagerAccessMixin

    manager = ManagerAccessMixin.network_manager
    try:
        _check_node(manager.get_provider_from_choice(choice))
        context = manager.parse_network_choice(choice)
        provider = context.__enter__()
    except (ApeException, OSError, ValueError) as error:
        raise ChainError(f"can't connect to {choice or 'the default network'}: {error}") from error
    try:
        if provider.name == "test":
            raise ChainError(
                f"{provider.network_choice} is a chain inside this process, which has no streams: pass --network, or "
                "set `default_provider` of the project's network"
            )
        yield provider
    finally:
        context.__exit__(None, None, None)


def _check_node(provider: ProviderAPI) -> None:
    """Ask a node that is reached over HTTP for its chain id before Ape connects, which bounds neither size nor time.

    One that doesn't listen may be started by its provider.

    Raises:
        ChainError: it answers something that isn't JSON-RPC, without end, or not in time.
    """
    url = getattr(provider, "http_uri", None)
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        with suppress(Unreachable, Refusal), HttpNode(url, _headers_of(provider)) as node:
            results_of(node, RpcRequest("eth_chainId"))


@contextmanager
def node_of(provider: ProviderAPI) -> Iterator[Node]:
    """Open the node of a connected provider: over HTTP where it has an address, with our own time-outs and batches."""
    url = getattr(provider, "http_uri", None)
    if not isinstance(url, str):
        yield ProviderNode(provider)
        return
    with HttpNode(url, _headers_of(provider)) as node:
        yield node


def _headers_of(provider: ProviderAPI) -> dict[str, str]:
    """Return the headers that the project's configuration wants in requests to a node."""
    from ape.utils.basemodel import ManagerAccessMixin

    network = provider.network
    headers = ManagerAccessMixin.network_manager.get_request_headers(
        network.ecosystem.name, network.name, provider.name
    )
    return {name: str(value) for name, value in headers.items()}


class ProviderNode:
    """A node that only Ape's provider can reach, as over a socket: one request after the other."""

    def __init__(self, provider: ProviderAPI) -> None:
        self._provider = provider

    def batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
        """Send requests; see ``Node``."""
        return [self._single(request) for request in requests]

    def _single(self, request: RpcRequest) -> Any:
        from ape.exceptions import ApeException

        try:
            return self._provider.make_request(request.method, list(request.params))
        except (ApeException, OSError, ValueError) as error:
            return ChainError(f"provider '{self._provider.name}' refuses {request.method}: {error}")
