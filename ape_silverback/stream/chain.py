"""The project's way to a chain: which network of Ape has a chain id, and the node that Ape connects to there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ape_silverback.apepay.rpc import HttpNode, Node, RpcRequest
from ape_silverback.exceptions import ChainError, StreamError

if TYPE_CHECKING:
    from ape.api import ProviderAPI


def network_with(chain_id: int) -> str:
    """Give the network of the project's Ape that has a chain id, as ``ecosystem:network``. Connects to nothing.

    The default ecosystem comes first, then custom networks, then what Ape knows of public chains.

    Raises:
        StreamError: there is none.
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
        "`networks: custom:` in ape-config.yaml, or name one with --network"
    )


@contextmanager
def connected_provider(choice: str | None) -> Iterator[ProviderAPI]:
    """Connect to a network as every Ape command does.

    Args:
        choice: ``ecosystem:network:provider``; parts left out are the project's, None is all of them.

    Raises:
        ChainError: it can't be connected to, or it is a chain inside this process, on which nobody else is.
    """
    from ape.exceptions import ApeException
    from ape.utils.basemodel import ManagerAccessMixin

    manager = ManagerAccessMixin.network_manager
    try:
        context = manager.parse_network_choice(choice)
        provider = context.__enter__()
    except (ApeException, OSError, ValueError) as error:
        raise ChainError(f"can't connect to {choice or 'the default network'}: {error}") from error
    try:
        if provider.name == "test":
            raise ChainError(
                f"{provider.network_choice} is a chain inside this process, where no stream is: name a network with "
                "--network, or set the default provider of the project's network"
            )
        yield provider
    finally:
        context.__exit__(None, None, None)


@contextmanager
def node_of(provider: ProviderAPI) -> Iterator[Node]:
    """Give the node of a connected provider: over HTTP where it has an address, with our own patience and batches."""
    from ape.utils.basemodel import ManagerAccessMixin

    url = getattr(provider, "http_uri", None)
    if not isinstance(url, str):
        yield ProviderNode(provider)
        return
    network = provider.network
    headers = ManagerAccessMixin.network_manager.get_request_headers(
        network.ecosystem.name, network.name, provider.name
    )
    with HttpNode(url, {name: str(value) for name, value in headers.items()}) as node:
        yield node


class ProviderNode:
    """A node that only Ape's provider can reach, as over a socket: one question after the other."""

    def __init__(self, provider: ProviderAPI) -> None:
        self.questions = 0
        self.round_trips = 0
        self._provider = provider

    def ask(self, questions: Sequence[RpcRequest]) -> list[Any]:
        """Ask; see ``Node``."""
        return [self._ask(question) for question in questions]

    def _ask(self, question: RpcRequest) -> Any:
        from ape.exceptions import ApeException

        self.questions += 1
        self.round_trips += 1
        try:
            return self._provider.make_request(question.method, list(question.params))
        except (ApeException, OSError, ValueError) as error:
            return ChainError(f"provider '{self._provider.name}' refuses {question.method}: {error}")
