"""Real ApePay contracts on a real chain, driven by plain JSON-RPC: what the tests of streams stand on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode
from hypothesis import strategies as st

from ape_silverback.apepay.contract import contract, contract_type
from ape_silverback.apepay.rpc import HttpNode, RpcRequest
from ape_silverback.cluster.types import ClusterConfiguration, ClusterTier

STANDARD = ClusterTier.STANDARD.configuration()
CONFIGURATIONS = st.builds(
    ClusterConfiguration,
    cpu=st.integers(1, 64),
    memory=st.integers(1, 128),
    networks=st.integers(1, 20),
    bots=st.integers(1, 250),
    bandwidth=st.integers(1, 250),
    duration=st.integers(1, 120),
)
"""Whatever may be paid for."""
CLUSTER_ID = uuid.UUID("12345678-1234-4234-9234-123456789abc")
DAY = 24 * 60 * 60
MIN_STREAM_LIFE = 60
TOKEN = 10**18


def granting(seconds: int) -> str:
    """Return code that answers any call with a number: a validator that grants this time whatever is paid."""
    return f"0x63{seconds:08x}60005260206000f3"


def forwarding(address: str) -> str:
    """Return code that calls another contract with whatever it is called with: a proxy."""
    return f"0x366000600037600060003660006000 73{address[2:]}5af1503d6000600 03e3d6000f3".replace(" ", "")


@dataclass
class Payments:
    """A StreamManager with a token and a validator.

    Attributes:
        accounts: of the chain, unlocked; the controller is the last one.
    """

    node: HttpNode
    validator: str = ""
    token: str = ""
    manager: str = ""
    accounts: list[str] = field(default_factory=list)

    @classmethod
    def on(cls, node: HttpNode, granted: int = 30 * DAY) -> Payments:
        """Deploy all of it."""
        found = cls(node)
        found.accounts = found.ask("eth_accounts")
        found.validator = "0x00000000000000000000000000000000000000F1"
        found.ask("anvil_setCode", found.validator, granting(granted))
        found.token = found.deploy("TestToken")
        found.manager = found.deploy_manager(found.controller)
        return found

    @property
    def controller(self) -> str:
        """Who gets the money."""
        return self.accounts[-1]

    @property
    def owner(self) -> str:
        """Who pays."""
        return self.accounts[0]

    def deploy_manager(self, controller: str) -> str:
        """Deploy another StreamManager."""
        return self.deploy("StreamManager", controller, MIN_STREAM_LIFE, [self.token], [self.validator])

    @staticmethod
    def checksummed(address: str) -> str:
        """Return an address as EIP-55 spells it."""
        from eth_utils.address import to_checksum_address

        return str(to_checksum_address(address))

    def ask(self, method: str, *params: Any) -> Any:
        """Ask the chain; raises what it refuses."""
        [answer] = self.node.batch([RpcRequest(method, params)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def deploy(self, name: str, *arguments: Any) -> str:
        """Deploy a contract of the manifest; give its address, checksummed."""
        described = contract_type(name)
        [inputs] = [one.get("inputs", []) for one in described["abi"] if one["type"] == "constructor"] or [[]]
        code = described["deploymentBytecode"]["bytecode"]
        data = code + encode([one["type"] for one in inputs], arguments).hex()
        return self.checksummed(self.transact({"from": self.accounts[0], "data": data})["contractAddress"])

    def send(self, to: str, function: str, *arguments: Any, sender: str | None = None, kind: str = "") -> Any:
        """Send a transaction to a contract; give its receipt."""
        kind = kind or ("TestToken" if to == self.token else "StreamManager")
        data = contract(kind).call(to, function, *arguments).data
        return self.transact({"from": sender or self.owner, "to": to, "data": data})

    def transact(self, transaction: dict[str, str]) -> Any:
        """Send a transaction and wait until it is mined."""
        sent = self.ask("eth_sendTransaction", {"gas": hex(6_000_000), **transaction})
        self.ask("evm_mine")
        deadline = time.monotonic() + 10
        while (receipt := self.ask("eth_getTransactionReceipt", sent)) is None:
            assert time.monotonic() < deadline, "not mined"
            time.sleep(0.05)
        assert receipt["status"] == "0x1", receipt
        return receipt

    def read(self, to: str, function: str, *arguments: Any, kind: str = "StreamManager") -> Any:
        """Call a function that changes nothing."""
        call = contract(kind).call(to, function, *arguments)
        return call.read(self.ask(*(call.at("latest").method, *call.at("latest").params)))

    def open_stream(
        self,
        cluster_id: uuid.UUID = CLUSTER_ID,
        configuration: ClusterConfiguration = STANDARD,
        *,
        manager: str | None = None,
        products: Sequence[bytes] | None = None,
    ) -> int:
        """Open a stream that pays for a cluster, or for other products; give its id."""
        manager = manager or self.manager
        if products is None:
            products = [configuration.get_product_code(self.owner, cluster_id)]
        self.send(self.token, "DEBUG_mint", self.owner, TOKEN)
        self.send(self.token, "approve", manager, TOKEN)
        self.send(manager, "create_stream", self.token, TOKEN, list(products))
        return self.read(manager, "num_streams") - 1

    def advance(self, seconds: int) -> None:
        """Let time pass on the chain."""
        self.ask("evm_increaseTime", seconds)
        self.ask("evm_mine")
