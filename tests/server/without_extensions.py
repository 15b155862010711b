"""The cluster's application with only what every cluster has, as the reference describes it.

What this package's server serves beyond that is announced as extensions. Here nothing is announced, those addresses
don't exist, answers lack their fields, and a request that has one is refused, so that a client which relies on one
without asking is noticed.
"""

from __future__ import annotations

import json
import re
from typing import Any

BOT_FIELDS = {
    *("id", "name", "created", "image", "credential_name", "ecosystem", "network", "provider", "account"),
    *("environment", "cluster_access"),
}
ADDRESSES = re.compile(
    r"/openapi\.json|/health|/vars(/[^/]+)?|/credentials(/[^/]+)?"
    r"|/bots(/[^/]+(/(status|health|start|stop|errors|logs))?)?"
)


class WithoutExtensions:
    """An ASGI application in front of the cluster's own.

    Args:
        app: the cluster's own.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if not ADDRESSES.fullmatch(path):
            await _answer(send, 404, {"detail": "Not Found"})
            return
        if path.endswith("/logs"):
            await self.app(scope, receive, send)
            return
        body = await _whole(receive)
        beyond = _beyond(scope["method"], path, body)
        if beyond or (scope["query_string"] and b"id=" in scope["query_string"]):
            await _answer(send, 422, {"detail": f"unknown fields: {sorted(beyond)}"})
            return
        await self.app(scope, _once(body), _Stripped(path, send))


async def _whole(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _once(body: bytes) -> Any:
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _beyond(method: str, path: str, body: bytes) -> set[str]:
    """Return the fields of a request about a bot that not every cluster knows."""
    if method not in ("POST", "PATCH") or not re.fullmatch(r"/bots(/[^/]+)?", path):
        return set()
    return set(json.loads(body)) - (BOT_FIELDS - {"id", "created"})


class _Stripped:
    """Takes an answer, and sends it without what not every cluster answers."""

    def __init__(self, path: str, send: Any) -> None:
        self.path, self.send = path, send
        self.start: dict[str, Any] = {}
        self.body = b""

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._stripped() if self.start["status"] == 200 else self.body
        headers = [(name, value) for name, value in self.start["headers"] if name.lower() != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self.send({**self.start, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _stripped(self) -> bytes:
        found = json.loads(self.body or b"null")
        if self.path == "/openapi.json":
            found["info"] = {name: value for name, value in found["info"].items() if name in ("title", "version")}
        elif self.path == "/health":
            found = {
                "networks": found["networks"],
                "bots": {name: {"healthy": bot["healthy"]} for name, bot in found["bots"].items()},
            }
        elif re.fullmatch(r"/bots/[^/]+/health", self.path):
            found = {"healthy": found["healthy"]}
        elif self.path == "/bots":
            found = [_bot(one) for one in found] if isinstance(found, list) else _bot(found)
        elif re.fullmatch(r"/bots/[^/]+", self.path) and isinstance(found, dict):
            found = _bot(found)
        else:
            return self.body
        return json.dumps(found).encode()


def _bot(bot: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in bot.items() if name in BOT_FIELDS}


async def _answer(send: Any, status: int, content: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
