"""Pays for clusters on a development chain, with JSON-RPC and the node's unlocked accounts."""

from __future__ import annotations

import time
from typing import Any

from ape_silverback.cluster.types import ClusterConfiguration, ClusterInfo, ClusterTier
from ape_silverback.contracts.rpc import HttpNode, Question
from ape_silverback.contracts.stream_manager import Call, Stream, contract
from ape_silverback.exceptions import ChainError

HOUR = 10**18
"""Tokens that pay for about an hour."""

STANDARD = ClusterTier.STANDARD.configuration()


class Payer:
    """One who pays: the first account of the node."""

    def __init__(self, url: str, manager: str, token: str) -> None:
        self.node = HttpNode(url)
        self.manager = manager
        self.token = token
        self.owner, self.controller, *self.others = self.ask("eth_accounts")

    def ask(self, method: str, *params: Any) -> Any:
        [answer] = self.node.ask([Question(method, params)])
        if isinstance(answer, ChainError):
            raise answer
        return answer

    def read(self, function: str, *arguments: Any) -> Any:
        call = contract("StreamManager").call(self.manager, function, *arguments)
        question = call.at("latest")
        return call.read(self.ask(question.method, *question.params))

    def send(self, call: Call, sender: str | None = None) -> dict[str, Any]:
        """Send a transaction; gives its receipt once it is in a block."""
        transaction = {"from": sender or self.owner, "to": call.to, "data": call.data}
        name = self.ask("eth_sendTransaction", transaction)
        deadline = time.monotonic() + 20
        while (receipt := self.ask("eth_getTransactionReceipt", name)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert int(receipt["status"], 16) == 1, receipt
        return dict(receipt)

    def product(self, cluster: ClusterInfo, configuration: ClusterConfiguration = STANDARD) -> bytes:
        return configuration.get_product_code(self.owner, cluster.id)

    def create(self, *products: bytes, amount: int = HOUR, sender: str | None = None) -> int:
        """Create a stream; gives its id."""
        self.send(contract("TestToken").call(self.token, "approve", self.manager, amount), sender)
        call = contract("StreamManager").call(self.manager, "create_stream", self.token, amount, list(products))
        receipt = self.send(call, sender)
        [created] = [log for log in receipt["logs"] if log["address"].lower() == self.manager.lower()]
        return int(created["topics"][1], 16)

    def pay(self, cluster: ClusterInfo, amount: int = HOUR, configuration: ClusterConfiguration = STANDARD) -> int:
        """Pay for a cluster; gives the stream's id."""
        return self.create(self.product(cluster, configuration), amount=amount)

    def fund(self, stream: int, amount: int = HOUR) -> None:
        self.send(contract("TestToken").call(self.token, "approve", self.manager, amount))
        self.send(contract("StreamManager").call(self.manager, "fund_stream", stream, amount))

    def cancel(self, stream: int) -> None:
        """Cancel a stream, as its controller, who needn't wait."""
        self.send(contract("StreamManager").call(self.manager, "cancel_stream", stream), self.controller)

    def stream(self, number: int) -> Stream:
        return Stream.of(self.read("streams", number))

    def advance(self, seconds: int) -> None:
        """Advance the chain's clock."""
        self.ask("evm_increaseTime", seconds)
        self.ask("evm_mine")
