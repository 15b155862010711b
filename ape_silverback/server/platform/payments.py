"""What pays for the clusters of the local platform: a chain, a StreamManager and its tokens.

``up`` settles it once, by reading the chain or by deploying there, and the server reads it from a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ape_silverback.addresses import checksummed_address
from ape_silverback.apepay.contract import contract, published_code
from ape_silverback.apepay.development import deploy
from ape_silverback.apepay.rpc import HttpNode, Node, RpcRequest, results_of
from ape_silverback.exceptions import ChainError, LocalClusterError
from ape_silverback.files import write_private

if TYPE_CHECKING:
    from eth_typing import ChecksumAddress
else:
    ChecksumAddress = str

Address = Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]


class _Part(BaseModel):
    # The address of a node may hold a key, which an error must not show.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Wanted(_Part):
    """What ``up`` was asked for.

    Attributes:
        chain: URL of the node.
        manager: the StreamManager; None to deploy one, which only a development chain allows.
        tokens: what it is said to accept.
    """

    chain: str = Field(repr=False)
    manager: Address | None = None
    tokens: tuple[Address, ...] = ()

    @classmethod
    def of(cls, chain: str, manager: str | None, tokens: tuple[str, ...]) -> Wanted:
        """Return what options of the command line ask for.

        Raises:
            LocalClusterError: an address or the URL isn't valid.
        """
        if not _is_http(chain):
            raise LocalClusterError("--chain: expected the URL of a node, http://… or https://…")
        try:
            return cls(chain=chain, manager=manager, tokens=tokens)
        except ValidationError as error:
            first = error.errors()[0]
            option = {"manager": "--stream-manager", "tokens": "--token"}[str(first["loc"][0])]
            raise LocalClusterError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None


class Block(_Part):
    """A block of a chain, by number and hash."""

    number: int
    hash: str


class Payments(_Part):
    """What was settled.

    Attributes:
        tokens: symbol → address.
        since: the chain's latest block at that time.
    """

    wanted: Wanted
    chain_id: int
    manager: Address
    tokens: Mapping[str, Address]
    since: Block


def settle(wanted: Wanted, folder: Path) -> Payments:
    """Deploy what payments need and the chain doesn't have yet.

    Args:
        wanted: options.
        folder: where deployments are remembered.

    Raises:
        ChainError: the node doesn't answer or refuses.
        LocalClusterError: the StreamManager isn't there, or doesn't accept a token.
    """
    with HttpNode(wanted.chain) as node:
        if wanted.manager is None:
            manager, *tokens = _deployed(node, wanted.chain, folder / "deployments.json")
        else:
            manager, tokens = str(wanted.manager), list(map(str, wanted.tokens))
        chain_id, code, latest = results_of(
            node,
            RpcRequest("eth_chainId"),
            RpcRequest("eth_getCode", (manager, "latest")),
            RpcRequest("eth_getBlockByNumber", ("latest", False)),
        )
        if not _is_code(code):
            raise LocalClusterError(f"there is no contract at {manager} on chain {int(chain_id, 16)}")
        return Payments.model_validate(
            {
                "wanted": wanted,
                "chain_id": int(chain_id, 16),
                "manager": manager,
                "tokens": _symbols(node, manager, tokens),
                "since": {"number": int(latest["number"], 16), "hash": latest["hash"]},
            }
        )


def still_there(payments: Payments) -> bool:
    """Return whether the StreamManager is on the chain; a chain that was started anew has lost it.

    Raises:
        ChainError: the node doesn't answer.
    """
    with HttpNode(payments.wanted.chain) as node:
        [code] = results_of(node, RpcRequest("eth_getCode", (payments.manager, "latest")))
    return _is_code(code)


def read_payments(file: Path) -> Payments:
    """Read what was settled."""
    return Payments.model_validate_json(file.read_text(encoding="utf8"))


def write_payments(file: Path, payments: Payments) -> None:
    """Write down what was settled, for its owner only."""
    write_private(file, payments.model_dump_json())


def _deployed(node: Node, chain: str, memory: Path) -> tuple[str, str]:
    """Return the StreamManager and the token that were deployed on a chain, or deploy them."""
    try:
        known: dict[str, list[str]] = json.loads(memory.read_text(encoding="utf8"))
    except (FileNotFoundError, ValueError):
        known = {}
    if (there := known.get(chain)) and _is_deployment(node, *there):
        return there[0], there[1]
    made = deploy(node)
    known[chain] = [made.manager, made.token]
    write_private(memory, json.dumps(known))
    return made.manager, made.token


def _is_deployment(node: Node, manager: str, token: str) -> bool:
    """Return whether a StreamManager is there that accepts the token: a new chain may have others there."""
    accepted = contract("StreamManager").call(manager, "token_is_accepted", token)
    code, answer = node.batch([RpcRequest("eth_getCode", (manager, "latest")), accepted.at("latest")])
    try:
        return str(code).startswith(f"0x{published_code().hex()}") and bool(accepted.read(answer))
    except ChainError:
        return False


def _is_http(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _symbols(node: Node, manager: str, tokens: Sequence[str]) -> dict[str, str]:
    """Return the tokens by symbol.

    Raises:
        LocalClusterError: the StreamManager doesn't accept one, or two have one symbol.
    """
    found: dict[str, str] = {}
    for token in tokens:
        accepted = contract("StreamManager").call(manager, "token_is_accepted", token)
        symbol = contract("TestToken").call(token, "symbol")
        is_accepted, called = node.batch([accepted.at("latest"), symbol.at("latest")])
        if not accepted.read(is_accepted):
            raise LocalClusterError(f"the StreamManager at {manager} doesn't accept the token {token}")
        name = symbol.read(called)
        if found.setdefault(name, token) != token:
            raise LocalClusterError(f"two tokens have the symbol '{name}': {found[name]} and {token}")
    return found


def _is_code(answer: Any) -> bool:
    return str(answer) not in ("0x", "None", "")
