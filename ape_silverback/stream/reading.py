"""Reads from a node what the checks of payment streams need: at one block, in few batches. Judges nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ape_silverback.apepay.contract import (
    MAX_UINT256,
    ZERO_ADDRESS,
    Call,
    Stream,
    bytes_of,
    contract,
    shown,
)
from ape_silverback.apepay.rpc import Node, RpcRequest
from ape_silverback.cluster.types import StreamClaim
from ape_silverback.exceptions import ChainError, StreamError
from ape_silverback.stream.creator import find_creator
from ape_silverback.transport import deadline

CHAIN_ID_CODE = "0x4660005260206000f3"
"""Code that returns the chain id of the EVM (EIP-1344): CHAINID, MSTORE at 0, RETURN of 32 bytes."""

ATTEMPTS = ((0, 0.0), (1, 0.5), (3, 1.0), (6, 2.0))
"""Blocks behind the newest one, and seconds waited before: a node that lags, or one of several, has an older block."""

TIMEOUT = 180.0
"""Seconds for all that is read of one chain."""

NodeOf = Callable[[int], AbstractContextManager[Node]]
"""Opens the node of a chain id; raises ``StreamError`` for an unknown chain, ``ChainError`` for one out of reach."""

NeedsCreator = Callable[[StreamClaim, Stream], bool]
"""Returns whether the checks of a stream need to know who opened it."""

StreamKey = tuple[str, int]
"""Manager and id of a stream, which tell it from others of its chain."""


@dataclass
class OnChainState:
    """What a node answers about a chain at one block; an error in place of what it didn't answer.

    Attributes:
        unknown: error when no network has the chain id.
        error: why nothing was read.
        reported: chain id that the node reports.
        evm: chain id that code on the chain sees; None where the node runs no code without an address.
        answers: (address or stream, name of the value) → the value.
    """

    unknown: StreamError | None = None
    error: ChainError | None = None
    reported: int | None = None
    evm: int | None = None
    block: int | None = None
    answers: dict[tuple[str | StreamKey, str], Any] = field(default_factory=dict)

    def get(self, of: str | StreamKey, what: str) -> Any:
        """Return a value.

        Raises:
            ChainError: the node didn't answer it.
        """
        answer = self.answers.get((of, what), ChainError(f"{what} wasn't read"))
        if isinstance(answer, ChainError):
            raise answer
        return answer

    @property
    def is_worth_another_look(self) -> bool:
        """Whether the node refused something that it may answer at another block; not if it answers nothing at all."""
        errors = [self.error, *self.answers.values()]
        return self.block is not None and any(isinstance(one, ChainError) and one.temporary for one in errors)


NOTHING_READ = OnChainState()
"""Of a chain that wasn't asked."""


def read_chain(
    chain_id: int,
    streams: Collection[StreamClaim],
    node_of: NodeOf,
    needs_creator: NeedsCreator = lambda _claim, _stream: False,
) -> OnChainState:
    """Read what the checks need. What can't be read has an error in its place.

    What a node refuses for now (it lags behind the block that another one named, or is overloaded) is read again, all
    of it at an older block; so is what was read while the chain was reorganised.

    Args:
        chain_id: of the chain.
        streams: streams on it whose manager is an address.
        node_of: opens its node.
        needs_creator: returns whether the opener of a stream is looked up, which takes more requests.
    """
    state = OnChainState()
    try:
        with node_of(chain_id) as node, deadline(TIMEOUT):
            for behind, pause in ATTEMPTS:
                time.sleep(pause)
                state = _read_at_one_block(node, chain_id, streams, behind)
                if not state.is_worth_another_look:
                    break
            _read_creators(node, streams, state, needs_creator)
    except StreamError as error:
        return OnChainState(unknown=error)
    except ChainError as error:
        return OnChainState(error=error)
    return state


def key_of(stream: StreamClaim) -> StreamKey:
    """Return what identifies a stream on its chain."""
    return stream.manager, stream.stream_id


def _read_at_one_block(node: Node, chain_id: int, streams: Collection[StreamClaim], behind: int) -> OnChainState:
    state = OnChainState()
    try:
        block_hash = _read_head(node, state, behind)
        if state.reported == chain_id and state.evm in (chain_id, None) and state.block is not None:
            _read_streams(node, streams, state, hex(state.block), block_hash)
    except ChainError as error:
        state.error = error
    return state


def _read_head(node: Node, state: OnChainState, behind: int) -> str:
    """Read which chain it is and the number of its newest block, or of one some blocks before; return that one's hash.

    Raises:
        ChainError: the node doesn't answer.
    """
    reported, head, evm = node.batch(
        [
            RpcRequest("eth_chainId"),
            RpcRequest("eth_getBlockByNumber", ("latest", False)),
            RpcRequest("eth_call", ({"data": CHAIN_ID_CODE}, "latest")),
        ]
    )
    state.reported = _number(reported, "eth_chainId")
    number, block_hash = _block(head)
    if not isinstance(evm, ChainError):  # some nodes run no code without an address; then there is only their word
        state.evm = _number(evm, "the chain id of its EVM")
    if behind:
        number = max(0, number - behind)
        [older] = node.batch([RpcRequest("eth_getBlockByNumber", (hex(number), False))])
        number, block_hash = _block(older)
    state.block = number
    return block_hash


def _read_streams(
    node: Node, streams: Collection[StreamClaim], state: OnChainState, block: str, block_hash: str
) -> None:
    """Read contracts and streams; then whether their tokens are accepted, and whether the block is still the chain's.

    Raises:
        ChainError: it was replaced meanwhile, so that what was read may be of two chains; or no answer.
    """
    manager = contract("StreamManager")
    calls: dict[tuple[str | StreamKey, str], Call] = {}
    addresses = dict.fromkeys(stream.manager for stream in streams)
    for address in addresses:
        for function in ("controller", "num_streams", "MIN_STREAM_LIFE"):
            calls[address, function] = manager.call(address, function)
    for stream in streams:
        if 0 <= stream.stream_id <= MAX_UINT256:
            for function in ("streams", "time_left"):
                calls[key_of(stream), function] = manager.call(stream.manager, function, stream.stream_id)
    codes = [RpcRequest("eth_getCode", (address, block)) for address in addresses]
    answers = node.batch([*codes, *(call.at(block) for call in calls.values())])
    for address, answer in zip(addresses, answers[: len(codes)], strict=True):
        state.answers[address, "code"] = _bytes(answer, "eth_getCode")
    _take(state, calls, answers[len(codes) :])

    later: dict[tuple[str | StreamKey, str], Call] = {}
    for stream in streams:
        try:
            found = Stream.of(state.get(key_of(stream), "streams"))
        except ChainError:
            continue
        state.answers[key_of(stream), "streams"] = found
        if found.owner != ZERO_ADDRESS:
            later[key_of(stream), "token_is_accepted"] = manager.call(stream.manager, "token_is_accepted", found.token)
    check = RpcRequest("eth_getBlockByNumber", (block, False))
    again, *answers = node.batch([check, *(call.at(block) for call in later.values())])
    _take(state, later, answers)
    if _block(again) != (state.block, block_hash):
        raise ChainError(f"block {state.block} was replaced while the stream was read; try again", temporary=True)


def _read_creators(
    node: Node, streams: Collection[StreamClaim], state: OnChainState, needs_creator: NeedsCreator
) -> None:
    """Read who opened the streams for which it matters."""
    for stream in streams:
        found = state.answers.get((key_of(stream), "streams"))
        if isinstance(found, Stream) and found.owner != ZERO_ADDRESS and needs_creator(stream, found):
            try:
                creator = find_creator(node, stream.manager, stream.stream_id, found, state.block or 0)
            except ChainError as error:
                state.answers[key_of(stream), "creator"] = error
            else:
                state.answers[key_of(stream), "creator"] = creator


def _take(state: OnChainState, calls: dict[tuple[str | StreamKey, str], Call], answers: Iterable[Any]) -> None:
    for (key, call), answer in zip(calls.items(), answers, strict=True):
        try:
            state.answers[key] = call.read(answer)
        except ChainError as error:
            state.answers[key] = error


def _block(answer: Any) -> tuple[int, str]:
    """Return number and hash of a block.

    Raises:
        ChainError: the node doesn't answer, or doesn't have it.
    """
    if isinstance(answer, ChainError):
        raise answer
    if not isinstance(answer, dict):
        raise ChainError(f"the node doesn't have a block that it should have: {shown(answer)}", temporary=True)
    return _number(answer.get("number"), "eth_getBlockByNumber"), str(answer.get("hash"))


def _number(answer: Any, what: str) -> int:
    if isinstance(answer, ChainError):
        raise answer
    try:
        return int(answer, 16)
    except (TypeError, ValueError):
        raise ChainError(f"the node's answer to {what} isn't a number: {shown(answer)}") from None


def _bytes(answer: Any, what: str) -> bytes | ChainError:
    if isinstance(answer, ChainError):
        return answer
    try:
        return bytes_of(answer)
    except ValueError:
        return ChainError(f"the node's answer to {what} isn't hexadecimal text: {shown(answer)}")
