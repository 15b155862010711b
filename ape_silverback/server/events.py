"""What a node answers about a StreamManager, in types: blocks, and the events that decide what is paid for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from ape_silverback.apepay.contract import event_topic, shown
from ape_silverback.apepay.rpc import Node, RpcRequest, results_of
from ape_silverback.exceptions import ChainError

T = TypeVar("T")

EVENTS = ("StreamCreated", "StreamFunded", "StreamCancelled")

Number = Annotated[int, BeforeValidator(lambda value: int(value, 16)), Field(ge=0, lt=2**63)]
"""A number as JSON-RPC writes it, in hexadecimal; larger ones can't be stored."""

Hash = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{64}$")]


class Header(BaseModel):
    """What matters of a block.

    Attributes:
        timestamp: Unix time.
    """

    number: Number
    hash: Hash
    timestamp: Number


class Log(BaseModel):
    """An entry of the chain's logs."""

    block: Number = Field(alias="blockNumber")
    index: Number = Field(alias="logIndex")
    topics: list[str]
    data: str


@dataclass(frozen=True)
class Created:
    """A stream was created.

    Attributes:
        expires: Unix time at which it runs out.
    """

    stream_id: int
    owner: str
    products: tuple[bytes, ...]
    expires: int


@dataclass(frozen=True)
class Expires:
    """A stream runs out at another time than before: it was funded, or cancelled and so runs out at once."""

    stream_id: int
    expires: int


Event = Created | Expires


def block_request(block: int | str) -> RpcRequest:
    """Return the request for a block, by its number or a tag such as ``latest``."""
    return RpcRequest("eth_getBlockByNumber", (hex(block) if isinstance(block, int) else block, False))


def log_request(manager: str, first: int, last: int) -> RpcRequest:
    """Return the request for what a StreamManager logged in some blocks."""
    topics = [[event_topic(name) for name in EVENTS]]
    return RpcRequest(
        "eth_getLogs", ({"address": manager, "fromBlock": hex(first), "toBlock": hex(last), "topics": topics},)
    )


def events_of(node: Node, answer: Any) -> list[Event]:
    """Return the events of an answer to ``log_request`` in their order; asks for the times of their blocks.

    Raises:
        ChainError: the node refuses or answers nonsense.
    """
    logs = sorted(read(list[Log], answer), key=lambda one: (one.block, one.index))
    numbers = sorted({one.block for one in logs})
    headers = read(list[Header], results_of(node, *map(block_request, numbers)))
    times = {number: header.timestamp for number, header in zip(numbers, headers, strict=True)}
    return [_event(one, times[one.block]) for one in logs]


def read(kind: type[T], answer: Any) -> T:
    """Return an answer as a type.

    Raises:
        ChainError: it is of another one.
    """
    try:
        return TypeAdapter(kind).validate_python(answer)
    except (ValidationError, TypeError, RecursionError) as error:  # a number that isn't text is a TypeError
        raise _nonsense(answer) from error


def _event(entry: Log, time: int) -> Event:
    """Read an entry of a block with a Unix time."""
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    try:
        topic, stream_id, *indexed = entry.topics
        number, data = int(stream_id, 16), bytes.fromhex(entry.data.removeprefix("0x"))
        if topic == event_topic("StreamCreated"):
            _, life, products = decode(("uint256", "uint256", "bytes32[]"), data)
            return Created(number, f"0x{indexed[0][-40:]}", tuple(map(bytes, products)), time + life)
        if topic == event_topic("StreamFunded"):
            _, life = decode(("uint256", "uint256"), data)
            return Expires(number, time + life)
    except (DecodingError, ValueError, IndexError) as error:
        raise _nonsense(entry) from error
    return Expires(number, time)


def _nonsense(answer: Any) -> ChainError:
    return ChainError(f"the node answers nonsense: {shown(answer)}")
