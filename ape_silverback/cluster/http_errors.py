"""What can go wrong with a request, as one error each: no answer, one that says no, one that the API doesn't promise.

What a server says is shown without the key that it was sent and without what could steer a terminal.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ape_silverback.exceptions import (
    ClientError,
    ClusterError,
    Conflict,
    ConnectionBroken,
    ConnectionFailed,
    ConnectionRefused,
    Forbidden,
    NameNotResolved,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerError,
    TLSFailed,
    Unauthorized,
    UnexpectedAnswer,
    ValidationFailed,
)

T = TypeVar("T")

SHORTEST_SECRET = 6
"""Letters from which on a key is taken out of texts; a shorter one would take ordinary words apart."""

_STATUS_ERRORS: dict[int, type[ClientError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}


def error_of(response: httpx.Response, hint: str | None) -> ClusterError:
    """Give the error that an answer stands for which doesn't say yes. The answer has been read.

    Args:
        response: the answer.
        hint: what to do when the key or the session isn't accepted.
    """
    status = response.status_code
    where = where_of(response)
    said, fields = _detail(response)
    what = f"{response.request.method} {public_url(response.request.url)}: {said}"
    if status == httpx.codes.UNAUTHORIZED:
        hint = hint or "check the key or log in again"
        return Unauthorized(f"the cluster doesn't accept who asks ({said}); {hint}", **where)
    if fields:
        lines = "\n".join(f"  {name}: {text}" for name, text in fields.items())
        return ValidationFailed(f"the cluster refused values:\n{lines}", fields=fields, **where)
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        return ValidationFailed(said, **where)
    if error := _STATUS_ERRORS.get(status):
        return error(said if status == httpx.codes.CONFLICT else what, **where)
    if httpx.codes.is_client_error(status):
        return ClientError(said, **where)
    if httpx.codes.is_server_error(status):
        return ServerError(what, **where)
    return UnexpectedAnswer(f"{what} (status {status})", **where)


def read_answer(kind: type[T], response: httpx.Response) -> T:
    """Read the JSON of an answer as a type.

    Raises:
        UnexpectedAnswer: it is none, or of another type.
    """
    try:
        content = read_json(response)
    except ValueError:
        start = " ".join(_safe(response.text[:80], response.request).split())
        raise UnexpectedAnswer(
            f"{response.request.method} {public_url(response.request.url)} answered no JSON but {start!r}; "
            "is it the address of a Silverback cluster?",
            **where_of(response),
        ) from None
    return validated(kind, content, response)


def read_json(response: httpx.Response) -> Any:
    """Read the JSON of an answer, which may come from anybody.

    The reader of Python's library goes as deep as the recursion limit; where something has raised that, as py-evm
    does, Python 3.10 and 3.11 crash.

    Raises:
        ValueError: it is none, or too deep.
    """
    return from_json(response.content)


def validated(kind: type[T], content: Any, response: httpx.Response) -> T:
    """Check the content of an answer.

    Raises:
        UnexpectedAnswer: it is of another type.
    """
    if kind is Any:
        return content  # type: ignore[no-any-return]
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise UnexpectedAnswer(
            f"{response.request.method} {public_url(response.request.url)} answered what the API doesn't promise: "
            f"{place}: {first['msg']}",
            **where_of(response),
        ) from None


@contextmanager
def mapped_errors(request: httpx.Request) -> Iterator[None]:
    """Turn what httpx raises into errors of this package.

    Raises:
        ConnectionFailed: of the kind that fits.
        UnexpectedAnswer: the answer could not be decoded.
    """
    address = public_url(request.url)
    where: dict[str, Any] = {"method": request.method, "url": address}
    try:
        yield
    except httpx.TimeoutException as error:
        did = "connect" if isinstance(error, httpx.ConnectTimeout) else "answer"
        raise RequestTimeout(f"{address} didn't {did} in time", **where) from error
    except httpx.ConnectError as error:
        causes = list(_causes(error))
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            raise NameNotResolved(f"the host name of {address} has no address", **where) from error
        if any(isinstance(cause, ssl.SSLError) for cause in causes):
            raise TLSFailed(f"no safe connection to {address}: {error}", **where) from error
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            raise ConnectionRefused(f"nothing listens at {address}{_local_hint(request.url)}", **where) from error
        raise ConnectionFailed(f"can't connect to {address}: {error}", **where) from error
    except (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError) as error:
        raise ConnectionBroken(f"the connection to {address} broke: {error}", **where) from error
    except httpx.DecodingError as error:
        raise UnexpectedAnswer(f"the answer of {address} can't be decoded: {error}", **where) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.ProxyError, httpx.TransportError) as error:
        raise ConnectionFailed(f"can't ask {address}: {error}", **where) from error


def public_url(url: httpx.URL) -> str:
    """Give a URL without what could be secret: user info, query, fragment, and the id of a cluster."""
    path = re.sub(r"(?<=/clusters/)[^/]+", "...", url.path)
    return str(url.copy_with(userinfo=b"", path=path, query=None, fragment=None))


def is_loopback(url: httpx.URL) -> bool:
    """Say whether an address is of this machine only."""
    try:
        return url.host == "localhost" or ip_address(url.host).is_loopback
    except ValueError:  # another name, such as 127.example.org
        return False


def where_of(response: httpx.Response) -> dict[str, Any]:
    """Give what an error says of the request that was answered."""
    request = response.request
    return {"method": request.method, "url": public_url(request.url), "status": response.status_code}


def _local_hint(url: httpx.URL) -> str:
    return "; if it is the local cluster, `ape silverback cluster up` starts it" if is_loopback(url) else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _detail(response: httpx.Response) -> tuple[str, dict[str, str]]:
    """Give what an error's answer says, and for refused values what is wrong with each."""
    reason = f"{response.status_code} {response.reason_phrase}".strip()
    try:
        content = read_json(response)
    except ValueError:
        return reason, {}  # some proxies answer HTML or nothing
    detail = content.get("detail") if isinstance(content, dict) else None
    if isinstance(detail, str) and detail:
        return _safe(detail, response.request), {}
    if isinstance(detail, list):
        entries = [entry for entry in detail if isinstance(entry, dict)]
        return reason, {
            _place(entry.get("loc")): _safe(str(entry.get("msg", "not accepted")), response.request)
            for entry in entries
        }
    return reason, {}


def _place(loc: Any) -> str:
    """Write the path of a value, whose parts may be numbers."""
    parts = loc if isinstance(loc, list) else [loc]
    return ".".join(str(part) for part in parts if part is not None) or "?"


def _safe(text: str, request: httpx.Request) -> str:
    """Give a server's text without the key that it was sent, and without what could steer a terminal."""
    cookies = (pair.partition("=")[2].strip() for pair in request.headers.get("Cookie", "").split(";"))
    for secret in (request.headers.get("X-API-Key", ""), *cookies):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
