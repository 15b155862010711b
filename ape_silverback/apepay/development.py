"""ApePay on a development chain: deploys a token, a validator and a StreamManager with the node's own accounts.

Token and StreamManager come from apepay's manifest. Its validators don't fit: one takes the product code for the price
of a second, the other prices an older layout. ``fixed_rate.vy`` is ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ape_silverback.apepay.contract import contract, contract_type
from ape_silverback.apepay.rpc import Node, RpcRequest, results_of
from ape_silverback.exceptions import ChainError

DEVELOPMENT_CHAINS = frozenset({1337, 31337})
"""Chain ids of development nodes; on others, a deployment costs real money."""

TOKEN = 10**18
"""A token in its smallest unit."""

RATE = TOKEN // 3600
"""Price of a second: about a token an hour."""

MIN_STREAM_LIFE = 60
"""Seconds that a stream lasts at least, and after which its owner may cancel it."""

MINTED = 1_000_000 * TOKEN
"""Amount that each account of the node gets."""

PATIENCE = 60.0
"""Seconds to wait for a transaction to be mined."""


@dataclass(frozen=True)
class Deployment:
    """Addresses of what was deployed.

    Attributes:
        controller: account that gets the payments and may cancel every stream.
    """

    manager: str
    token: str
    validator: str
    controller: str


def deploy(node: Node) -> Deployment:
    """Deploy what payments need, and mint test tokens for the node's accounts.

    Raises:
        ChainError: the node isn't on a development chain, has fewer than two accounts, or refuses.
    """
    reported, accounts = results_of(node, RpcRequest("eth_chainId"), RpcRequest("eth_accounts"))
    chain_id = int(reported, 16)
    if chain_id not in DEVELOPMENT_CHAINS:
        known = " and ".join(map(str, sorted(DEVELOPMENT_CHAINS)))
        raise ChainError(f"chain {chain_id} isn't a development chain ({known} are): nothing was deployed")
    if len(accounts) < 2:
        raise ChainError(f"the node has {len(accounts)} unlocked accounts; deployer and controller need one each")
    deployer, controller = accounts[:2]
    token, validator = _created(
        node,
        _creation(deployer, contract_type("TestToken")["deploymentBytecode"]["bytecode"]),
        _creation(deployer, fixed_rate_validator()["bytecode"], ("uint256", RATE)),
    )
    terms = (
        ("address", controller),
        ("uint256", MIN_STREAM_LIFE),
        ("address[]", [token]),
        ("address[]", [validator]),
    )
    manager_code = contract_type("StreamManager")["deploymentBytecode"]["bytecode"]
    mints = [contract("TestToken").call(token, "DEBUG_mint", account, MINTED).data for account in accounts]
    manager, *_ = _created(
        node,
        _creation(deployer, manager_code, *terms),
        *({"from": deployer, "to": token, "data": data} for data in mints),
    )
    return Deployment(manager, token, validator, controller)


def fixed_rate_validator() -> dict[str, Any]:
    """Return the compiled validator: ``abi``, ``bytecode`` and the ``compiler`` that made it."""
    made: dict[str, Any] = json.loads(Path(__file__).with_name("fixed_rate.json").read_bytes())
    return made


def _creation(sender: str, code: str, *arguments: tuple[str, Any]) -> dict[str, str]:
    from eth_abi.abi import encode

    encoded = encode([kind for kind, _ in arguments], [value for _, value in arguments])
    return {"from": sender, "data": f"0x{code.removeprefix('0x')}{encoded.hex()}"}


def _created(node: Node, *transactions: dict[str, str]) -> Sequence[str]:
    """Send transactions and wait until all are mined; return the addresses of the contracts that were created."""
    from eth_utils.address import to_checksum_address

    # One by one: a node that handles a batch concurrently gives two of them the same nonce.
    hashes = [results_of(node, RpcRequest("eth_sendTransaction", (one,)))[0] for one in transactions]
    deadline = time.monotonic() + PATIENCE
    while True:
        receipts = node.batch([RpcRequest("eth_getTransactionReceipt", (one,)) for one in hashes])
        if all(isinstance(one, dict) for one in receipts):
            break
        if time.monotonic() > deadline:
            raise ChainError(f"the transactions of the deployment weren't mined within {PATIENCE:g} s")
        time.sleep(0.1)
    for receipt in receipts:
        if int(receipt["status"], 16) != 1:
            raise ChainError(f"transaction {receipt['transactionHash']} of the deployment failed")
    return [to_checksum_address(one["contractAddress"]) for one in receipts if one.get("contractAddress")]
