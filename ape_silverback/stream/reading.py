"""What a node says of payment streams, read at one block in as few requests as it allows. Judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ape_silverback.addresses import checksummed_address
from ape_silverback.apepay.contract import (
    MOST_UINT256,
    WORD,
    ZERO_ADDRESS,
    Call,
    Stream,
    contract,
    event_topic,
)
from ape_silverback.apepay.rpc import Node, Question
from ape_silverback.cluster.types import StreamClaim
from ape_silverback.exceptions import ChainError, StreamError

TELL_CHAIN_ID = "0x4660005260206000f3"
"""Code that gives what the EVM has as chain id (EIP-1344): CHAINID, MSTORE at 0, RETURN of 32 bytes."""

NodeOf = Callable[[int], AbstractContextManager[Node]]
"""Opens the node of a chain id; raises ``StreamError`` for an unknown chain, ``ChainError`` for one out of reach."""


@dataclass
class OnChainState:
    """What a node says of a chain; an error in place of what it didn't say.

    Attributes:
        unknown: why there is no node: no network has the chain id.
        error: why nothing was read.
        reported: chain id that the node says.
        evm: chain id that code on the chain sees.
        answers: (address or stream, what was asked) → the answer.
    """

    unknown: StreamError | None = None
    error: ChainError | None = None
    reported: int | None = None
    evm: int | ChainError | None = None
    block: int | None = None
    answers: dict[tuple[Any, str], Any] = field(default_factory=dict)

    def get(self, of: Any, what: str) -> Any:
        """Give an answer.

        Raises:
            ChainError: the node didn't give it.
        """
        answer = self.answers.get((of, what), ChainError(f"{what} wasn't read"))
        if isinstance(answer, ChainError):
            raise answer
        return answer


NOTHING_READ = OnChainState()
"""Of a chain that nobody asked."""


def read_chain(chain_id: int, streams: Collection[StreamClaim], node_of: NodeOf) -> OnChainState:
    """Read what the checks need. What can't be read has an error in its place.

    Args:
        chain_id: of the chain.
        streams: streams on it whose manager is an address.
        node_of: opens its node.
    """
    facts = OnChainState()
    try:
        with node_of(chain_id) as node:
            _read_head(node, facts)
            if facts.reported == chain_id and facts.evm in (chain_id, None) and facts.block is not None:
                _read_streams(node, streams, facts)
    except StreamError as error:
        facts.unknown = error
    except ChainError as error:
        facts.error = error
    return facts


def _read_head(node: Node, facts: OnChainState) -> None:
    """Read which chain it is, and its newest block.

    Raises:
        ChainError: the node doesn't say.
    """
    reported, block, evm = node.ask(
        [
            Question("eth_chainId"),
            Question("eth_getBlockByNumber", ("latest", False)),
            Question("eth_call", ({"data": TELL_CHAIN_ID}, "latest")),
        ]
    )
    facts.reported = _number(reported, "eth_chainId")
    facts.block = _number(block.get("number") if isinstance(block, dict) else block, "eth_getBlockByNumber")
    if not isinstance(evm, ChainError):  # some nodes take no call without an address; then there is only their word
        facts.evm = _number(evm, "the chain id of its EVM")


def _read_streams(node: Node, streams: Collection[StreamClaim], facts: OnChainState) -> None:
    """Read what the checks need of contracts and streams; then what depends on that."""
    block = hex(facts.block or 0)
    manager = contract("StreamManager")
    calls: dict[tuple[Any, str], Call] = {}
    codes = dict.fromkeys(stream.manager for stream in streams)
    for address in codes:
        for function in ("controller", "num_streams", "MIN_STREAM_LIFE"):
            calls[address, function] = manager.call(address, function)
    for stream in streams:
        if 0 <= stream.stream_id <= MOST_UINT256:
            for function in ("streams", "time_left"):
                calls[key_of(stream), function] = manager.call(stream.manager, function, stream.stream_id)
    asked = [Question("eth_getCode", (address, block)) for address in codes]
    answers = node.ask([*asked, *(call.at(block) for call in calls.values())])
    for address, answer in zip(codes, answers[: len(asked)], strict=True):
        facts.answers[address, "code"] = _bytes(answer, "eth_getCode")
    _take(facts, calls, answers[len(asked) :])

    later: dict[tuple[Any, str], Call] = {}
    created: dict[tuple[Any, str], Question] = {}
    for stream in streams:
        try:
            found = Stream.of(facts.get(key_of(stream), "streams"))
        except ChainError:
            continue
        facts.answers[key_of(stream), "streams"] = found
        if found.owner != ZERO_ADDRESS:
            later[key_of(stream), "token_is_accepted"] = manager.call(stream.manager, "token_is_accepted", found.token)
            topics = [event_topic("StreamCreated"), f"0x{stream.stream_id:0{2 * WORD}x}"]
            where = {"address": stream.manager, "topics": topics, "fromBlock": "0x0", "toBlock": block}
            created[key_of(stream), "creator"] = Question("eth_getLogs", (where,))
    if later:
        answers = node.ask([*created.values(), *(call.at(block) for call in later.values())])
        for key, answer in zip(created, answers[: len(created)], strict=True):
            facts.answers[key] = _creator(answer)
        _take(facts, later, answers[len(created) :])


def key_of(stream: StreamClaim) -> tuple[str, int]:
    """Give what tells a stream from others of its chain."""
    return stream.manager, stream.stream_id


def _take(facts: OnChainState, calls: dict[tuple[Any, str], Call], answers: Iterable[Any]) -> None:
    for (key, call), answer in zip(calls.items(), answers, strict=True):
        try:
            facts.answers[key] = call.read(answer)
        except ChainError as error:
            facts.answers[key] = error


def _number(answer: Any, what: str) -> int:
    if isinstance(answer, ChainError):
        raise answer
    try:
        return int(answer, 16)
    except (TypeError, ValueError):
        raise ChainError(f"the node's answer to {what} is no number: {answer!r:.80}") from None


def _bytes(answer: Any, what: str) -> bytes | ChainError:
    if isinstance(answer, ChainError):
        return answer
    try:
        return bytes.fromhex(answer.removeprefix("0x"))
    except (AttributeError, ValueError):
        return ChainError(f"the node's answer to {what} is no hexadecimal text: {answer!r:.80}")


def _creator(answer: Any) -> str | ChainError:
    """Give who opened a stream, from its only StreamCreated: the second topic that is indexed."""
    if isinstance(answer, ChainError):
        return answer
    try:
        [log] = answer
        return checksummed_address("0x" + log["topics"][2][-40:])
    except (TypeError, ValueError, LookupError):
        return ChainError(f"the node knows {len(answer) if isinstance(answer, list) else 'no'} StreamCreated of it")
