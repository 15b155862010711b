"""Pays for clusters of the local platform on a development chain, with the node's unlocked accounts."""

from __future__ import annotations

from dataclasses import dataclass

from ape_silverback.apepay.contract import Stream
from ape_silverback.apepay.rpc import HttpNode
from ape_silverback.cluster.types import ClusterConfiguration, ClusterInfo
from tests.stream.payments import STANDARD, TOKEN, Payments

HOUR = TOKEN
"""What pays for about an hour."""


@dataclass
class Payer(Payments):
    """One who pays: the first account of the node. The second one is who is paid."""

    @classmethod
    def at(cls, url: str, manager: str, token: str) -> Payer:
        """Know what is deployed."""
        found = cls(HttpNode(url), manager=manager, token=token)
        found.accounts = found.ask("eth_accounts")
        return found

    @property
    def controller(self) -> str:
        return self.accounts[1]

    def product(self, cluster: ClusterInfo, configuration: ClusterConfiguration = STANDARD) -> bytes:
        return configuration.get_product_code(self.owner, cluster.id)

    def create(self, *products: bytes, amount: int = HOUR, sender: str | None = None) -> int:
        """Create a stream; gives its id."""
        self.send(self.token, "approve", self.manager, amount, sender=sender)
        receipt = self.send(self.manager, "create_stream", self.token, amount, list(products), sender=sender)
        [created] = [log for log in receipt["logs"] if log["address"].lower() == self.manager.lower()]
        return int(created["topics"][1], 16)

    def pay(self, cluster: ClusterInfo, amount: int = HOUR) -> int:
        """Pay for a cluster; gives the stream's id."""
        return self.create(self.product(cluster), amount=amount)

    def fund(self, stream: int, amount: int = HOUR) -> None:
        self.send(self.token, "approve", self.manager, amount)
        self.send(self.manager, "fund_stream", stream, amount)

    def cancel(self, stream: int) -> None:
        """Cancel a stream, as its controller, who needn't wait."""
        self.send(self.manager, "cancel_stream", stream, sender=self.controller)

    def stream(self, number: int) -> Stream:
        return Stream.of(self.read(self.manager, "streams", number))
