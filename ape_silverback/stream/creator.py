"""Finds who opened a stream, of nodes that limit logs and keep no old state too.

The account is in the event ``StreamCreated`` alone. Public nodes search few blocks at once for events, so the block is
found first, by halving: in old state where the node keeps it, else by the time of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ape_silverback.addresses import checksummed_address
from ape_silverback.apepay.contract import WORD, Stream, contract, event_topic, shown
from ape_silverback.apepay.rpc import Node, RpcRequest, results_of
from ape_silverback.exceptions import ChainError

WIDEST_WINDOW = 100_000
"""Blocks of the first search around a time; a node that refuses them gets fewer."""

MAX_SEARCHES = 200
"""Requests for events after which the search is given up."""


def find_creator(node: Node, manager: str, stream_id: int, stream: Stream, latest: int) -> str:
    """Return the account that opened a stream, checksummed.

    Args:
        node: of the chain.
        manager: address of the StreamManager.
        stream_id: id of the stream.
        stream: the stream.
        latest: number of a block in which it is.

    Raises:
        ChainError: the node's limits don't let it be found, or its answers contradict each other.
    """

    def search(first: int, last: int) -> list[Any] | ChainError:
        topics = [event_topic("StreamCreated"), f"0x{stream_id:0{2 * WORD}x}"]
        where = {"address": manager, "topics": topics, "fromBlock": hex(first), "toBlock": hex(last)}
        [logs] = node.batch([RpcRequest("eth_getLogs", (where,))])
        return logs if isinstance(logs, (list, ChainError)) else ChainError(f"logs aren't a list: {shown(logs)}")

    found = search(0, latest)
    if isinstance(found, ChainError):
        found = _search_near(search, _creation_block(node, manager, stream_id, stream, latest), stream_id)
    try:
        [log] = found
        return checksummed_address("0x" + log["topics"][2][-40:])
    except (TypeError, ValueError, LookupError):
        raise ChainError(f"the node has {len(found)} StreamCreated events of stream {stream_id}, not one") from None


def _creation_block(node: Node, manager: str, stream_id: int, stream: Stream, latest: int) -> int:
    """Return the block in which a stream was opened; where old state is gone, the last one in which it may have been.

    Raises:
        ChainError: the node doesn't answer for blocks either.
    """
    count = contract("StreamManager").call(manager, "num_streams")

    def is_open(block: int) -> bool:
        [answer] = results_of(node, count.at(hex(block)))
        return answer != "0x" and int(count.read(answer)) > stream_id  # no code: before the StreamManager

    def is_later(block: int) -> bool:
        [header] = results_of(node, RpcRequest("eth_getBlockByNumber", (hex(block), False)))
        try:
            return int(header["timestamp"], 16) > min(stream.last_update, stream.last_claim)
        except (TypeError, ValueError, LookupError):
            raise ChainError(f"the node's block {block} has no time: {shown(header)}") from None

    try:
        return _first(is_open, latest)
    except ChainError:  # old state is gone; blocks and their times aren't
        return _first(is_later, latest + 1) - 1


def _first(holds: Callable[[int], bool], last: int) -> int:
    """Return the first block from which on something holds, as it does at the last one, which isn't asked."""
    first = 0
    while first < last:
        middle = (first + last) // 2
        if holds(middle):
            last = middle
        else:
            first = middle + 1
    return last


def _search_near(search: Callable[[int, int], list[Any] | ChainError], block: int, stream_id: int) -> list[Any]:
    """Search the block, then windows before it, each as wide as the node lets it be.

    Raises:
        ChainError: the node refuses even single blocks, or nothing is found in the blocks that it lets be searched.
    """
    for found in _windows(search, block):
        if found:
            return found
    raise ChainError(
        f"who opened stream {stream_id} can't be found at this node, which limits the search for events: name a node "
        "that keeps old state or searches more blocks, with --network"
    )


def _windows(search: Callable[[int, int], list[Any] | ChainError], last: int) -> Iterator[list[Any]]:
    width, widest = 1, WIDEST_WINDOW
    for _ in range(MAX_SEARCHES):
        if last < 0:
            return
        first = max(0, last - width + 1)
        found = search(first, last)
        if isinstance(found, ChainError):
            if width == 1:
                raise found
            width = widest = max(1, width // 10)
        else:
            yield found
            last = first - 1
            width = min(width * 10, widest)
