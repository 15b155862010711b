"""The end of a login in the browser: waits on the loopback interface for the provider's redirect (RFC 8252)."""

from __future__ import annotations

import queue
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ape_silverback.exceptions import LoginFailed

if TYPE_CHECKING:
    from typing_extensions import Self

ADDRESS = "127.0.0.1"
PATH = "/callback"

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds the code
    "Connection": "close",
}
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title} | Silverback</title>
<body style="font-family: sans-serif; margin: 20vh auto; max-width: 30em; text-align: center">
<h1>{title}</h1>
<p>{text}</p>
"""
LOGGED_IN = PAGE.format(title="Logged in", text="You can close this page and go back to the terminal.")
FAILED = PAGE.format(title="Login failed", text="See the terminal for the reason.")
USED = PAGE.format(title="Too late", text="This login has been answered already.")

PAGE_TIMEOUT = 10.0
"""Seconds that a browser gets to send its request, and to take the page."""


def redirect_uri(port: int) -> str:
    """Return the address to which the provider sends the browser back.

    Registrations name ``localhost``, as the public SDK's does, though we listen on 127.0.0.1 only.
    """
    return f"http://localhost:{port}{PATH}"


class Callback:
    """Waits for the redirect. A context: it listens from its construction to its end.

    Args:
        port: port to listen on; 0 takes a free one.

    Raises:
        LoginFailed: the port is in use.
    """

    def __init__(self, port: int = 0) -> None:
        try:
            self._server = _Server((ADDRESS, port), _Handler)
        except OSError as error:
            raise LoginFailed(
                f"can't wait for the browser on port {port} of {ADDRESS}: {error.strerror}; "
                "free it, or log in with `ape silverback login --no-browser`"
            ) from None
        self.redirect_uri = redirect_uri(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server.claimed.locked():
            self._server.outcome.put(LOGGED_IN if error is None else FAILED)
            self._server.shown.wait(PAGE_TIMEOUT)
        self._server.shutdown()
        self.close()

    def close(self) -> None:
        """Free the port, for one that isn't used as a context."""
        self._server.server_close()

    def wait(self, timeout: float) -> str:
        """Wait for the redirect and return its address. The browser's page waits for the end of the context.

        Args:
            timeout: seconds to wait.

        Raises:
            LoginFailed: it didn't come in time.
        """
        try:
            query = self._server.received.get(timeout=timeout)
        except queue.Empty:
            raise LoginFailed(f"no login within {timeout:g} s; try again, or pass --timeout for more time") from None
        return f"{self.redirect_uri}?{query}"


class _Server(ThreadingHTTPServer):
    """One thread a connection: browsers open some to which they send nothing."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_port = False

    def __init__(self, *args: Any) -> None:
        self.claimed = threading.Lock()
        self.received: queue.Queue[str] = queue.Queue()
        self.outcome: queue.Queue[str] = queue.Queue()
        self.shown = threading.Event()
        super().__init__(*args)

    def server_bind(self) -> None:
        """Bind without the look-up of a host name that HTTPServer would do."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent when a browser hangs up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PAGE_TIMEOUT
    server_version = "ape-silverback"
    sys_version = ""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path != PATH:
            self._show(HTTPStatus.NOT_FOUND, FAILED)
        elif not self.server.claimed.acquire(blocking=False):
            self._show(HTTPStatus.GONE, USED)
        else:
            try:
                self.server.received.put(address.query)
                page = self.server.outcome.get()
                self._show(HTTPStatus.OK if page is LOGGED_IN else HTTPStatus.BAD_REQUEST, page)
            finally:
                self.server.shown.set()

    def _show(self, status: HTTPStatus, page: str) -> None:
        content = page.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Stay silent: the address holds the code."""
