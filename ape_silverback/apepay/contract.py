"""ApePay's contracts as their publisher describes them: ABI and code, from the manifest of PyPI ``apepay``.

Encodes calls and decodes results. Only ``read_calls`` talks to a node.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ape_silverback.apepay.rpc import Node, RpcRequest
from ape_silverback.exceptions import ChainError

WORD = 32
"""Bytes of a value in the ABI, and so of an immutable after the code."""

ZERO_ADDRESS = "0x" + "00" * 20
MAX_UINT256 = 2**256 - 1


@dataclass(frozen=True)
class Call:
    """A call of a contract's function that changes nothing.

    Attributes:
        to: address of the contract.
        data: selector and arguments, as hexadecimal text.
        outputs: types of the values that it returns.
        sender: address of the caller, where it matters.
    """

    function: str
    to: str
    data: str
    outputs: tuple[str, ...]
    sender: str | None = None

    def at(self, block: str) -> RpcRequest:
        """Return the request for a node.

        Args:
            block: number of the block as hexadecimal text, or a tag such as ``latest``.
        """
        transaction = {"to": self.to, "data": self.data, **({"from": self.sender} if self.sender else {})}
        return RpcRequest("eth_call", (transaction, block))

    def read(self, answer: Any) -> Any:
        """Decode a node's answer into the value that the function returns, or a tuple of several.

        Raises:
            ChainError: the node refused, or the answer isn't what the function returns.
        """
        from eth_abi.abi import decode
        from eth_abi.exceptions import DecodingError

        if isinstance(answer, ChainError):
            raise answer
        try:
            values = decode(self.outputs, bytes_of(answer))
        except (DecodingError, ValueError, OverflowError):
            raise ChainError(
                f"{self.to} doesn't answer {self.function} as the contract would: {shown(answer)}"
            ) from None
        return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Contract:
    """A kind of contract.

    Attributes:
        functions: signature → selector, types of the arguments, types of the values that it returns.
    """

    name: str
    functions: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]]

    def call(self, to: str, function: str, *arguments: Any, sender: str | None = None) -> Call:
        """Encode a call of a function, found by its name and number of arguments.

        Raises:
            LookupError: the contract doesn't have it.
        """
        from eth_abi.abi import encode

        for signature, (selector, inputs, outputs) in self.functions.items():
            if signature.partition("(")[0] == function and len(inputs) == len(arguments):
                return Call(function, to, selector + encode(inputs, arguments).hex(), outputs, sender)
        raise LookupError(f"{self.name} has no function {function} of {len(arguments)} arguments")


@dataclass(frozen=True)
class Stream:
    """A payment stream, as the StreamManager returns ``streams``. One that doesn't exist has zeros everywhere.

    Attributes:
        funded_amount: what isn't claimed yet, in the smallest unit of the token.
        expires_at: Unix time at which it runs out.
        last_update: Unix time at which it was opened or last extended.
        last_claim: Unix time at which it was opened or last claimed.
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
        """Return the stream of the values that ``streams`` returns."""
        from eth_utils.address import to_checksum_address

        owner, token, funded, expires, updated, claimed, products = values
        owner, token = to_checksum_address(owner), to_checksum_address(token)
        return cls(owner, token, funded, expires, updated, claimed, tuple(map(bytes, products)))


def read_calls(node: Node, calls: Sequence[Call], block: str = "latest") -> list[Any]:
    """Call functions at one block, in one batch where the node takes that; return their values.

    Raises:
        ChainError: the node refused one of them, or an answer isn't what its function returns.
    """
    answers = node.batch([call.at(block) for call in calls])
    return [call.read(answer) for call, answer in zip(calls, answers, strict=True)]


@cache
def contract(name: str) -> Contract:
    """Return a contract of the manifest, such as ``StreamManager``; ``TestToken`` has the functions of any ERC-20."""
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
    """Return the manifest's description of a contract (EIP-2678)."""
    found: dict[str, Any] = _manifest()["contractTypes"][name]
    return found


def published_code() -> bytes:
    """Return the StreamManager's code without what a deployment appends: the immutable MIN_STREAM_LIFE, a word."""
    return bytes.fromhex(contract_type("StreamManager")["runtimeBytecode"]["bytecode"].removeprefix("0x"))


def published_version() -> str:
    """Return the version of the package that describes the contracts."""
    return version("apepay")


def event_topic(name: str) -> str:
    """Return the first topic of an event of the StreamManager."""
    from eth_utils.crypto import keccak

    entries = contract_type("StreamManager")["abi"]
    [inputs] = [one["inputs"] for one in entries if (one["type"], one.get("name")) == ("event", name)]
    return f"0x{keccak(text=_signature(name, map(_type, inputs))).hex()}"


def bytes_of(answer: Any) -> bytes:
    """Decode hexadecimal text of a node.

    Raises:
        ValueError: it isn't that.
    """
    if not isinstance(answer, str):
        raise ValueError("not a text")  # noqa: TRY004 - as for a text that isn't hexadecimal
    return bytes.fromhex(answer.removeprefix("0x"))


def shown(answer: Any) -> str:
    """Return an answer of a node for an error: the beginning of it, however deep or long it is."""
    return reprlib.repr(answer)


def _signature(name: str, types: Iterable[str]) -> str:
    return f"{name}({','.join(types)})"


def _type(value: Mapping[str, Any]) -> str:
    if value["type"].startswith("tuple"):
        inner = ",".join(map(_type, value["components"]))
        return f"({inner}){value['type'].removeprefix('tuple')}"
    return str(value["type"])


@cache
def _manifest() -> dict[str, Any]:
    """Read the file without importing its package, which would load half of Ape."""
    spec = find_spec("apepay")
    assert spec is not None  # noqa: S101 - this package depends on it
    assert spec.submodule_search_locations  # noqa: S101
    content: dict[str, Any] = json.loads(Path(spec.submodule_search_locations[0], "manifest.json").read_bytes())
    return content
