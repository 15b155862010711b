"""ApePay's contracts as their publisher describes them: ABI and code, from the manifest of PyPI ``apepay``.

Pure: calls are written here and answers are read, but no node is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ape_silverback.apepay.rpc import Node, Question
from ape_silverback.exceptions import ChainError

WORD = 32
"""Bytes of a value in the ABI, and so of an immutable behind the code."""

ZERO_ADDRESS = "0x" + "00" * 20
MOST_UINT256 = 2**256 - 1


@dataclass(frozen=True)
class Call:
    """A call of a contract's function that changes nothing.

    Attributes:
        to: address of the contract.
        data: selector and arguments, as hexadecimal text.
        outputs: types of what it gives.
        sender: who calls, where it matters.
    """

    function: str
    to: str
    data: str
    outputs: tuple[str, ...]
    sender: str | None = None

    def at(self, block: str) -> Question:
        """Give the question to a node.

        Args:
            block: number of the block as hexadecimal text, or a tag such as ``latest``.
        """
        transaction = {"to": self.to, "data": self.data, **({"from": self.sender} if self.sender else {})}
        return Question("eth_call", (transaction, block))

    def read(self, answer: Any) -> Any:
        """Read a node's answer; gives the one value, or a tuple of several.

        Raises:
            ChainError: the node refused, or the answer isn't what the function gives.
        """
        from eth_abi.abi import decode
        from eth_abi.exceptions import DecodingError

        if isinstance(answer, ChainError):
            raise answer
        try:
            values = decode(self.outputs, bytes.fromhex(str(answer).removeprefix("0x")))
        except (DecodingError, ValueError, OverflowError):
            raise ChainError(
                f"{self.to} doesn't answer {self.function} as the contract would: {answer!s:.80}"
            ) from None
        return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Contract:
    """A kind of contract.

    Attributes:
        functions: signature → selector, types of the arguments, types of what it gives.
    """

    name: str
    functions: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]]

    def call(self, to: str, function: str, *arguments: Any, sender: str | None = None) -> Call:
        """Write a call of a function, by its name and the number of its arguments."""
        from eth_abi.abi import encode

        for signature, (selector, inputs, outputs) in self.functions.items():
            if signature.partition("(")[0] == function and len(inputs) == len(arguments):
                return Call(function, to, selector + encode(inputs, arguments).hex(), outputs, sender)
        raise LookupError(f"{self.name} has no function {function} of {len(arguments)} arguments")


@dataclass(frozen=True)
class Stream:
    """A payment stream, as the StreamManager answers ``streams``. One that there never was has zeros everywhere.

    Attributes:
        funded_amount: what isn't claimed yet, in the smallest unit of the token.
        expires_at: Unix time at which it runs out; likewise the others.
        products: 32 bytes each.
    """

    owner: str
    token: str
    funded_amount: int
    expires_at: int
    last_update: int
    last_claim: int
    products: tuple[bytes, ...]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Stream:
        """Take what ``streams`` gives."""
        from eth_utils.address import to_checksum_address

        owner, token, funded, expires, updated, claimed, products = values
        owner, token = to_checksum_address(owner), to_checksum_address(token)
        return cls(owner, token, funded, expires, updated, claimed, tuple(map(bytes, products)))


def read_calls(node: Node, calls: Sequence[Call], block: str = "latest") -> list[Any]:
    """Ask a node for calls at one block, at once where it takes batches; gives what they give.

    Raises:
        ChainError: the node refused one of them, or an answer isn't what its function gives.
    """
    answers = node.ask([call.at(block) for call in calls])
    return [call.read(answer) for call, answer in zip(calls, answers, strict=True)]


@cache
def contract(name: str) -> Contract:
    """Give a contract of the manifest, such as ``StreamManager``; ``TestToken`` has the functions of any ERC-20."""
    described = contract_type(name)
    selectors: dict[str, str] = described["methodIdentifiers"]
    functions = {}
    for entry in described["abi"]:
        if entry["type"] == "function":
            inputs, outputs = (tuple(map(_type, entry[key])) for key in ("inputs", "outputs"))
            signature = _signature(entry["name"], inputs)
            functions[signature] = (selectors[signature], inputs, outputs)
    return Contract(name, functions)


def contract_type(name: str) -> dict[str, Any]:
    """Give all that the manifest says of a contract (EIP-2678)."""
    found: dict[str, Any] = _manifest()["contractTypes"][name]
    return found


def published_code() -> bytes:
    """Give the StreamManager's code without what a deployment adds: the immutable MIN_STREAM_LIFE, a word behind it."""
    return bytes.fromhex(contract_type("StreamManager")["runtimeBytecode"]["bytecode"].removeprefix("0x"))


def published_version() -> str:
    """Give the version of the package that describes the contracts."""
    return version("apepay")


def event_topic(name: str) -> str:
    """Give the first topic of an event of the StreamManager."""
    from eth_utils.crypto import keccak

    entries = contract_type("StreamManager")["abi"]
    [inputs] = [one["inputs"] for one in entries if (one["type"], one.get("name")) == ("event", name)]
    return f"0x{keccak(text=_signature(name, map(_type, inputs))).hex()}"


def _signature(name: str, types: Iterable[str]) -> str:
    return f"{name}({','.join(types)})"


def _type(value: Mapping[str, Any]) -> str:
    if value["type"].startswith("tuple"):
        inner = ",".join(map(_type, value["components"]))
        return f"({inner}){value['type'].removeprefix('tuple')}"
    return str(value["type"])


@cache
def _manifest() -> dict[str, Any]:
    """Read the file without its package, whose import would load half of Ape."""
    spec = find_spec("apepay")
    assert spec is not None  # noqa: S101 - this package depends on it
    assert spec.submodule_search_locations  # noqa: S101
    content: dict[str, Any] = json.loads(Path(spec.submodule_search_locations[0], "manifest.json").read_bytes())
    return content
