"""What one client may cost the server: bytes of a body, time to send a request, open connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ape_silverback.server.authentication import NO_KEY

MOST_BYTES = 4 * 1024 * 1024
"""Bytes of a body."""

MOST_BYTES_OF_STRANGERS = 16 * 1024
"""Bytes of a body of a request that brings no valid key or session, such as the form of a login."""

BODY_TIMEOUT = 30.0
"""Seconds to send a body."""

REQUEST_TIMEOUT = 30.0
"""Seconds from the first byte of a connection, or of its next request, to the end of the request's headers."""

MOST_CONNECTIONS = 800
"""Connections open at once; more are closed at once."""


class BoundedBodies:
    """Reads the body of a request before anything parses it, and refuses one that is too long or too slow.

    Args:
        app: what gets the request.
        is_known: whether a request brings something that opens the server.
        elsewhere: beginnings of paths whose application sets its own bounds.
    """

    def __init__(
        self, app: ASGIApp, is_known: Callable[[Request], bool], elsewhere: tuple[str, ...] = ("/c/",)
    ) -> None:
        self.app = app
        self.is_known = is_known
        self.elsewhere = elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"].startswith(self.elsewhere):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        known = self.is_known(request)
        most = MOST_BYTES if known else MOST_BYTES_OF_STRANGERS
        refusal = (413, f"the body is longer than {most} bytes") if known else (401, NO_KEY)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > most:
            await _refuse(scope, receive, send, *refusal)
            return
        try:
            body = await asyncio.wait_for(_read(receive, most), BODY_TIMEOUT)
        except asyncio.TimeoutError:
            await _refuse(scope, receive, send, 408, f"the body didn't arrive within {BODY_TIMEOUT:g} s")
            return
        if body is None:
            await _refuse(scope, receive, send, *refusal)
            return
        await self.app(scope, _replay(body, receive), send)


class BoundedConnections(H11Protocol):
    """Closes connections beyond a number, and those that don't send a whole request in time."""

    def connection_made(self, transport: Any) -> None:
        """Take a connection."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        super().data_received(data)
        self._expect()

    def on_response_complete(self) -> None:
        """Go on with the connection after an answer."""
        super().on_response_complete()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        if self._deadline:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _expect(self) -> None:
        """Begin to wait for a request, unless one is being answered."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._deadline:
            self._deadline.cancel()
            self._deadline = None
        elif not answering and not self._deadline:
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT, self.transport.close)


def raise_file_limit() -> None:
    """Raise this process's limit of open files as far as the machine allows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _read(receive: Receive, most: int) -> bytes | None:
    """Return a body; None for one that is longer than that."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Make what hands a body out that was read, and then goes on."""
    handed = False

    async def replay() -> Message:
        nonlocal handed
        if handed:
            return await receive()
        handed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, text: str) -> None:
    await JSONResponse({"detail": text}, status, headers={"Connection": "close"})(scope, receive, send)
