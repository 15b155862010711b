"""Nodes between a client and a real chain that limit, lag, hiccup or lie as public ones do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from tests.cluster.server import Reply, Request

Change = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Takes a request of JSON-RPC and the real answer; returns the answer that is given."""


def as_reply(answer: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def forward(chain: str, request: Request, change: Change = lambda _, answer: answer) -> Reply:
    """Ask the real chain, and change each answer."""
    asked = request.json()
    answered = httpx.post(chain, json=asked, timeout=30).json()
    if isinstance(asked, list):
        return as_reply([change(one, two) for one, two in zip(asked, answered, strict=True)])
    return as_reply(change(asked, answered))


def refusal(request: dict[str, Any], message: str, code: int = -32000) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}


def public_node(chain: str, blocks: int = 10, oldest_state: int = 0) -> Callable[[Request], Reply]:
    """A node that searches few blocks for logs, and may have forgotten the state before a block."""

    def change(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if request["method"] == "eth_getLogs":
            [where] = request["params"]
            if int(where["toBlock"], 16) - int(where["fromBlock"], 16) >= blocks:
                return refusal(request, f"query exceeds max block range {blocks}", -32005)
        block = request["params"][1] if request["method"] == "eth_call" else "latest"
        if block != "latest" and int(block, 16) < oldest_state:
            return refusal(request, "missing trie node")
        return answer

    return lambda request: forward(chain, request, change)
