"""How a request reaches its address, the same for every HTTP client of this package.

On top of what httpx does: loopback never goes through a proxy, a broken proxy or certificate setting is an error that
names its variable, a deadline holds for a whole call (httpx's time-outs are for each byte), and an answer is no larger
than was allowed, decompressed.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from ape_silverback.concurrency import begin
from ape_silverback.exceptions import EnvironmentVariableError

MAX_BYTES = 8 << 20
"""Most bytes of an answer, decompressed: many times what the largest cluster has to tell."""

MAX_PIECE = 1 << 16
"""Most bytes that are decompressed at once."""

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=32)
"""Connections aren't limited in number: callers that open many bound them."""

NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
"""Addresses as numbers, without asking anything."""

CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_deadline: ContextVar[float | None] = ContextVar(
    "time.monotonic() at which the current call has to be over", default=None
)


class BodyTooLarge(httpx.TransportError):
    """An answer has more bytes than were allowed."""


def is_loopback(url: httpx.URL | str) -> bool:
    """Return whether an address is of this machine only."""
    host = url.host if isinstance(url, httpx.URL) else url
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name, such as 127.example.org
        return False


@contextmanager
def deadline(seconds: float) -> Iterator[float]:
    """End every request of this thread in time, and yield that time; within another deadline, the earlier one holds.

    Args:
        seconds: time from now.

    Yields:
        The end, as ``time.monotonic()`` counts.
    """
    end, outer = time.monotonic() + seconds, _deadline.get()
    token = _deadline.set(end := end if outer is None else min(end, outer))
    try:
        yield end
    finally:
        _deadline.reset(token)


@dataclass(frozen=True)
class ProxySetting:
    """A proxy that the environment names.

    Attributes:
        url: its address; may hold a password.
        variable: where it was set.
    """

    url: httpx.URL = field(repr=False)
    variable: str

    def __str__(self) -> str:
        return f"the proxy {self.url.host}{f':{self.url.port}' if self.url.port else ''} ({self.variable})"


def proxy_for(url: httpx.URL) -> ProxySetting | None:
    """Return the proxy through which the environment wants an address to be reached; None for a direct connection.

    Raises:
        EnvironmentVariableError: the setting can't be used.
    """
    if is_loopback(url):
        return None
    proxies = getproxies()
    scheme = next((name for name in (url.scheme, "all") if proxies.get(name)), None)
    if scheme is None or proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host):
        return None
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name)), "the system's proxy settings")
    address = proxies[scheme]
    try:
        proxy = httpx.URL(address if "://" in address else f"http://{address}")
    except httpx.InvalidURL:
        proxy = httpx.URL()
    if proxy.scheme not in ("http", "https", "socks5", "socks5h") or not proxy.host:
        raise EnvironmentVariableError(
            f"{variable} isn't the address of a proxy; write it as http://HOST:PORT or socks5://HOST:PORT, or unset it"
        )
    return ProxySetting(proxy, variable)


def create_ssl_context() -> ssl.SSLContext:
    """Return what certificates are checked with: those of ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``, else certifi's.

    Raises:
        EnvironmentVariableError: one of the two names nothing that can be used.
    """
    return _ssl_context(*map(os.environ.get, CERTIFICATE_VARIABLES))


@lru_cache(maxsize=4)  # it takes longer than a request on loopback
def _ssl_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        if folder:
            if not Path(folder).is_dir():
                raise NotADirectoryError(0, "not a folder")
            return ssl.create_default_context(capath=folder)
    except OSError as error:
        variable, path = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
        reason = "no certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise EnvironmentVariableError(f"{variable}={path} can't be used: {reason}; correct or unset it") from None
    return httpx.create_ssl_context(trust_env=False)


class Transport(httpx.BaseTransport):
    """The transport of every client here.

    The request extension ``max_bytes`` bounds an answer, by default to ``MAX_BYTES``; None is for endless
    streams, and doesn't hold for an error. A request that went through a proxy has it in the extension ``proxy``.

    Args:
        verify: as for ``httpx.Client``; True also honours ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
        cert: as for ``httpx.Client``.
        trust_env: whether proxies and certificates come from the environment.
        http1: as for ``httpx.Client``.
        http2: as for ``httpx.Client``.
        limits: as for ``httpx.Client``.
    """

    def __init__(
        self,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits = LIMITS,
    ) -> None:
        self._verify = verify
        self._cert = cert
        self._trust_env = trust_env
        self._http = {"http1": http1, "http2": http2}
        self._limits = limits
        self._pools: dict[tuple[str, httpx.URL | None], httpcore.ConnectionPool] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return its answer with the body still to be read."""
        proxy = proxy_for(request.url) if self._trust_env else None
        pool = self._pool(request.url.scheme, proxy)
        request.extensions["proxy"] = proxy
        # What else there is could unpack without bounds.
        request.headers["Accept-Encoding"] = "gzip"
        url = request.url
        core_request = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions={name: value for name, value in request.extensions.items() if name != "proxy"},
        )
        with _mapped_errors(proxy):
            answer = pool.handle_request(core_request)
        headers = httpx.Headers(answer.headers)
        encoding = headers.pop("Content-Encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            headers.pop("Content-Length", None)
        max_bytes = request.extensions.get("max_bytes", MAX_BYTES) if answer.status < 400 else MAX_BYTES
        body = _Body(answer, encoding, max_bytes)
        return httpx.Response(answer.status, headers=headers, stream=body, extensions=answer.extensions)

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self, scheme: str, proxy: ProxySetting | None) -> httpcore.ConnectionPool:
        key = (scheme, proxy.url if proxy else None)
        if key not in self._pools:  # two threads may make one each; the second is kept, and the first ends unused
            self._pools[key] = self._new_pool(scheme, proxy)
        return self._pools[key]

    def _new_pool(self, scheme: str, proxy: ProxySetting | None) -> httpcore.ConnectionPool:
        shared: dict[str, Any] = {
            "ssl_context": self._ssl_context() if scheme == "https" else None,
            "max_connections": self._limits.max_connections,
            "max_keepalive_connections": self._limits.max_keepalive_connections,
            "keepalive_expiry": self._limits.keepalive_expiry,
            "network_backend": _TimedBackend(),
            **self._http,
        }
        if proxy is None:
            return httpcore.ConnectionPool(**shared)
        url = httpcore.URL(
            scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
        )
        login = (proxy.url.username.encode(), proxy.url.password.encode()) if proxy.url.username else None
        if proxy.url.scheme.startswith("socks5"):
            return httpcore.SOCKSProxy(url, proxy_auth=login, **shared)
        tls = create_ssl_context() if proxy.url.scheme == "https" else None
        return httpcore.HTTPProxy(url, proxy_auth=login, proxy_ssl_context=tls, **shared)

    def _ssl_context(self) -> ssl.SSLContext:
        if self._verify is True and self._cert is None and self._trust_env:
            return create_ssl_context()
        return httpx.create_ssl_context(verify=self._verify, cert=self._cert, trust_env=self._trust_env)


class _Body(httpx.SyncByteStream):
    """The body of an answer: bounded, decompressed, with httpx's errors."""

    def __init__(self, answer: httpcore.Response, encoding: str, max_bytes: int | None) -> None:
        self._answer = answer
        self._encoding = encoding
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        left = self._max_bytes
        with _mapped_errors(None):
            for piece in self._decoded(self._answer.iter_stream()):
                if left is not None and (left := left - len(piece)) < 0:
                    raise BodyTooLarge(f"more than {self._max_bytes:,} bytes")
                yield piece

    def _decoded(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        if self._encoding in ("identity", ""):
            yield from pieces
            return
        if self._encoding not in ("gzip", "x-gzip"):
            raise httpx.DecodingError("it is compressed in a way that wasn't offered")
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            for piece in pieces:
                part: bytes | None = None
                while piece or part is None or len(part) == MAX_PIECE:
                    part = decompressor.decompress(piece, MAX_PIECE)
                    piece = decompressor.unconsumed_tail
                    yield part
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None
        if not decompressor.eof:
            raise httpx.DecodingError("its compressed data ends too early")

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _mapped_errors(proxy: ProxySetting | None) -> Iterator[None]:
    """Raise httpx's errors in place of httpcore's, which have the same names."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        if proxy and isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
            raise httpx.ProxyError(f"{proxy} can't be reached") from error
        kind = getattr(httpx, type(error).__name__)
        raise kind(str(error)) from error
    except httpcore.ProxyError as error:
        raise httpx.ProxyError(f"{proxy} refused the connection: {error}") from error
    except httpcore.UnsupportedProtocol as error:
        raise httpx.UnsupportedProtocol(str(error)) from error


class _TimedBackend(httpcore.SyncBackend):
    """Connections that keep their user's deadline."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        error: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        timeout = _in_time(timeout, httpcore.ConnectTimeout)
        end = None if timeout is None else time.monotonic() + timeout
        for address in _addresses(host, port, timeout):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            try:
                return _TimedStream(super().connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = error or failure  # that of the address which the system prefers
        raise error or httpcore.ConnectTimeout("the connection took too long")


class _TimedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _in_time(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _in_time(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout = _in_time(timeout, httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _addresses(host: str, port: int, timeout: float | None) -> list[str]:
    """Return the addresses of a host, in the order in which they should be tried.

    Raises:
        httpcore.ConnectError: it has none.
        httpcore.ConnectTimeout: no name server answered in time.
    """
    if timeout is None or is_loopback(host) or _is_address(host):
        return [host]

    def look_up() -> list[str]:
        results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A scope (fe80::1%eth0) is part of the address.
        return list(dict.fromkeys(socket.getnameinfo(result[4], NUMERIC)[0] for result in results))

    try:
        return begin(look_up).result(timeout)  # the system's resolver can't be interrupted
    except FutureTimeout:
        raise httpcore.ConnectTimeout("no name server has answered in time") from None
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _in_time(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """Return a time-out that ends at the deadline at the latest.

    Raises:
        httpcore.TimeoutException: the deadline has passed.
    """
    end = _deadline.get()
    if end is None:
        return timeout
    if (left := end - time.monotonic()) <= 0:
        raise error("the whole call took too long")
    return left if timeout is None else min(timeout, left)
