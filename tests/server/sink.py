"""Services that take messages: one over HTTP, as apprise's JSON service sends them, and a mail server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from typing import Any, TypeVar


class Sink(HTTPServer):
    """Takes messages as apprise's JSON service sends them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[dict[str, Any]] = []
        self.status = 200

    @property
    def address(self) -> str:
        """Its address in apprise's notation, with a password."""
        return f"json://user:hunter2@127.0.0.1:{self.server_port}/path"


class Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class MailServer(ThreadingTCPServer):
    """Takes mail by SMTP, without encryption or login."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MailHandler)
        self.received: list[EmailMessage] = []

    @property
    def address(self) -> str:
        """Its address in apprise's notation."""
        port = self.server_address[1]
        return f"mailto://127.0.0.1:{port}?from=cluster@example.org&to=me@example.org&mode=insecure"


class MailHandler(StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline().strip().upper():
            if line == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.received.append(message_from_bytes(content, EmailMessage, policy=policy.default))
            self.wfile.write(b"221 bye\r\n" if line == b"QUIT" else b"250 fine\r\n")
            if line == b"QUIT":
                return


S = TypeVar("S", bound=BaseServer)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Serve in a thread for as long as the context lasts."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
