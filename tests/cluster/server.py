"""A real HTTP server on the loopback interface that answers as the test says, faults included, and keeps what came."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        reset_after: bytes of the body after which the connection is reset.
        wait: seconds before the answer begins.
        drip: seconds between two bytes of the body.
        chunks: a body of any length, in place of ``body``; sent chunked.
        raw: all that is sent, from the status line on, in place of everything else.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    reset_after: int | None = None
    wait: float = 0.0
    drip: float = 0.0
    chunks: Iterable[bytes] | None = None
    raw: Iterable[bytes] | None = None


def answer(content: Any, status: int = 200, **more: Any) -> Reply:
    headers = {"Content-Type": "application/json", **more.pop("headers", {})}
    return Reply(status, json.dumps(content).encode(), headers, **more)


def html(status: int = 200) -> Reply:
    return Reply(status, b"<html><body>Bad gateway</body></html>", {"Content-Type": "text/html"})


Behaviour = Callable[[Request], Reply]


class Server(ThreadingHTTPServer):
    """Answers each request with what ``behave`` gives for it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def lines(self) -> list[str]:
        return [request.line for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each small answer waits for an acknowledgement, 40 ms

    def handle_any(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, address.path, dict(parse_qsl(address.query)), dict(self.headers), body)
        with self.server.lock:
            self.server.requests.append(request)
        reply = self.server.behave(request)
        time.sleep(reply.wait)
        if reply.raw is not None:
            self.close_connection = True
            for piece in reply.raw:
                self.wfile.write(piece)
            return
        self.send_response_only(reply.status)
        if "Date" not in reply.headers:
            self.send_header("Date", self.date_time_string())
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.chunks is not None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in reply.chunks:
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            if reply.reset_after is not None:
                self.reset()
            else:
                self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        for position in range(len(reply.body)) if reply.drip else ():
            time.sleep(reply.drip)
            self.wfile.write(reply.body[position : position + 1])
        if not reply.drip:
            self.wfile.write(reply.body[: reply.reset_after])
        if reply.reset_after is not None:
            self.reset()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names that the base class calls

    def reset(self) -> None:
        """End the connection with a reset, as a crash does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(behave: Behaviour) -> Iterator[Server]:
    """Serve for as long as the context lasts."""
    server = Server(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def in_turn(*replies: Reply) -> Behaviour:
    """Answer the first request with the first reply, and so on; the last one stays."""
    left = list(replies)
    lock = threading.Lock()

    def behave(_: Request) -> Reply:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return behave


BOT = {
    "id": "11111111-1111-4111-8111-111111111111",
    "name": "a",
    "created": "2026-01-01T00:00:00Z",
    "image": "ghcr.io/a/b:1",
    "credential_name": None,
    "ecosystem": "ethereum",
    "network": "mainnet",
    "provider": "alchemy",
    "account": None,
    "environment": [],
}
GROUP = {
    "id": "22222222-2222-4222-8222-222222222222",
    "name": "rpc",
    "variables": ["KEY"],
    "created": "2026-01-01T00:00:00Z",
}
CREDENTIAL = {
    "id": "c-1",
    "name": "ghcr",
    "hostname": "ghcr.io",
    "created": "2026-01-01T00:00:00Z",
    "updated": "2026-01-01T00:00:00Z",
}
WORKSPACE = {
    "id": "33333333-3333-4333-8333-333333333333",
    "owner_id": "44444444-4444-4444-8444-444444444444",
    "name": "Space",
    "slug": "space",
    "created": "2026-01-01T00:00:00Z",
}
CLUSTER = {
    "id": "55555555-5555-4555-8555-555555555555",
    "version": "1.0",
    "name": "Cluster",
    "slug": "cluster",
    "created": "2026-01-01T00:00:00Z",
    "status": 4,
    "last_updated": "2026-01-01T00:00:00Z",
}
