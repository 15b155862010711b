"""ApePay on a development chain: deploys a token, a validator and a StreamManager with the node's own accounts.

The token and the StreamManager are those of apepay's manifest. The manifest's validators don't fit: one takes what is
paid for as the price of a second, the other prices older products. ``fixed_rate.vy`` is ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ape_silverback.apepay.contract import contract, contract_type
from ape_silverback.apepay.rpc import Node, Question, answers_of
from ape_silverback.exceptions import ChainError

DEVELOPMENT_CHAINS = frozenset({1337, 31337})
"""Chain ids that development nodes have; on others, a deployment costs somebody's money."""

TOKEN = 10**18
"""A token in its smallest unit."""

RATE = TOKEN // 3600
"""Price of a second: about a token an hour."""

MIN_STREAM_LIFE = 60
"""Seconds that a stream lives at least, and after which its owner may cancel it."""

MINTED = 1_000_000 * TOKEN
"""What each account of the node gets."""

PATIENCE = 60.0
"""Seconds that a transaction has to get into a block."""


@dataclass(frozen=True)
class Deployment:
    """What was deployed: addresses.

    Attributes:
        controller: who gets the payments and may cancel every stream.
    """

    manager: str
    token: str
    validator: str
    controller: str


def deploy(node: Node) -> Deployment:
    """Deploy what payments need, and give test tokens to the node's accounts.

    Raises:
        ChainError: the node isn't one of a development chain, has too few accounts, or refuses.
    """
    said, accounts = answers_of(node, Question("eth_chainId"), Question("eth_accounts"))
    chain_id = int(said, 16)
    if chain_id not in DEVELOPMENT_CHAINS:
        known = " and ".join(map(str, sorted(DEVELOPMENT_CHAINS)))
        raise ChainError(f"chain {chain_id} isn't a development chain ({known} are): nothing is deployed there")
    if len(accounts) < 2:
        raise ChainError(f"the node has {len(accounts)} unlocked accounts; who deploys and who is paid need one each")
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
    """Give the compiled validator: ``abi``, ``bytecode`` and the ``compiler`` that made it."""
    made: dict[str, Any] = json.loads(Path(__file__).with_name("fixed_rate.json").read_bytes())
    return made


def _creation(sender: str, code: str, *arguments: tuple[str, Any]) -> dict[str, str]:
    from eth_abi.abi import encode

    encoded = encode([kind for kind, _ in arguments], [value for _, value in arguments])
    return {"from": sender, "data": f"0x{code.removeprefix('0x')}{encoded.hex()}"}


def _created(node: Node, *transactions: dict[str, str]) -> Sequence[str]:
    """Send transactions and wait until all are in a block; gives the address of each contract that was created."""
    from eth_utils.address import to_checksum_address

    # One by one: a node that works on a batch side by side gives two of them the same nonce.
    hashes = [answers_of(node, Question("eth_sendTransaction", (one,)))[0] for one in transactions]
    deadline = time.monotonic() + PATIENCE
    while True:
        receipts = node.ask([Question("eth_getTransactionReceipt", (one,)) for one in hashes])
        if all(isinstance(one, dict) for one in receipts):
            break
        if time.monotonic() > deadline:
            raise ChainError(f"the node put no transaction into a block within {PATIENCE:g} s")
        time.sleep(0.1)
    for receipt in receipts:
        if int(receipt["status"], 16) != 1:
            raise ChainError(f"transaction {receipt['transactionHash']} of the deployment failed")
    return [to_checksum_address(one["contractAddress"]) for one in receipts if one.get("contractAddress")]
