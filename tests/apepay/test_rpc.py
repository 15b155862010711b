"""A node is a stranger: nothing that it answers ends the process that asks."""

from __future__ import annotations

import subprocess
import sys

from tests.cluster.server import Reply, serving

DEEP = """
import sys
from ape_silverback.apepay.rpc import HttpNode, RpcRequest, results_of
from ape_silverback.exceptions import ChainError

sys.setrecursionlimit(10**6)  # as py-evm raises it
with HttpNode(sys.argv[1], pauses=()) as node:
    try:
        results_of(node, RpcRequest("eth_chainId"))
    except ChainError as error:
        print(error)
"""


def test_json_that_is_deeper_than_the_stack_is_an_error() -> None:
    with serving(lambda _: Reply(200, b"[" * 2_000_000)) as server:
        result = subprocess.run([sys.executable, "-c", DEEP, server.url], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "something that isn't JSON" in result.stdout
