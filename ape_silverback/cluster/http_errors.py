"""What can go wrong with a request, as one error each: no answer, a refusal, an answer that the API doesn't promise.

A server's text is shown without the key that it was sent, without what could steer a terminal, and not at any length.
No text of a library's exception is passed on: it may quote what was sent or received.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ape_silverback.cluster.header_values import header_value
from ape_silverback.exceptions import (
    AnswerTooLarge,
    ClientError,
    ClusterError,
    Conflict,
    ConnectionBroken,
    ConnectionFailed,
    ConnectionRefused,
    Forbidden,
    NameNotResolved,
    NotFound,
    ProfileError,
    ProxyFailed,
    RateLimited,
    RequestTimeout,
    ServerError,
    TLSFailed,
    Unauthorized,
    UnexpectedAnswer,
    ValidationFailed,
)
from ape_silverback.transport import MAX_BYTES, BodyTooLarge, is_loopback

T = TypeVar("T")

SHORTEST_SECRET = 6
"""Letters from which on a key is taken out of texts; a shorter one would take ordinary words apart."""

MAX_TEXT = 1000
"""Most characters of a server's text in an error."""

MAX_FIELDS = 20
"""Most refused values that an error names."""

MOST_ERRORS = 1000
"""Most errors in one answer that are looked at."""

_STATUS_ERRORS: dict[int, type[ClientError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}


def error_of(response: httpx.Response, hint: str | None) -> ClusterError:
    """Return the error for an answer that isn't a success. The answer has been read.

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
        return Unauthorized(f"authentication failed ({said}); {hint}", **where)
    if fields:
        lines = [f"  {name}: {text}" for name, text in list(fields.items())[:MAX_FIELDS]]
        lines += [f"  … and {len(fields) - MAX_FIELDS} more"] if len(fields) > MAX_FIELDS else []
        return ValidationFailed("\n".join(["the cluster refused these values:", *lines]), fields=fields, **where)
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
        UnexpectedAnswer: it isn't JSON, or of another type.
    """
    try:
        content = read_json(response)
    except ValueError:
        start = " ".join(_safe(response.text[:80], response.request).split())
        raise UnexpectedAnswer(
            f"the answer to {response.request.method} {public_url(response.request.url)} isn't JSON but {start!r}; "
            "is it the address of a Silverback cluster?",
            **where_of(response),
        ) from None
    return validated(kind, content, response)


def read_json(response: httpx.Response) -> Any:
    """Read the JSON of an answer that can't be trusted.

    The standard library's reader goes as deep as the recursion limit; where something has raised that, as py-evm does,
    Python 3.10 and 3.11 crash.

    Raises:
        ValueError: it isn't JSON, or too deep.
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
        raise UnexpectedAnswer(
            f"the answer to {response.request.method} {public_url(response.request.url)} isn't what the API promises: "
            + _safe(first_problem(error), response.request),
            **where_of(response),
        ) from None


def first_problem(error: ValidationError) -> str:
    """Return the first thing that is wrong with a value that came from elsewhere, and where in it."""
    if error.error_count() > MOST_ERRORS:
        return f"{error.error_count():,} values of it"  # to list a million of them would take gigabytes
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the answer'}: {first['msg']}"


@contextmanager
def mapped_errors(request: httpx.Request) -> Iterator[None]:
    """Raise errors of this package in place of httpx's.

    Raises:
        ConnectionFailed: of the kind that fits.
        UnexpectedAnswer: the answer couldn't be decoded, or is too large.
        ProfileError: the key can't be sent.
    """
    address = public_url(request.url)
    where: dict[str, Any] = {"method": request.method, "url": address}
    try:
        yield
    except httpx.TimeoutException as error:
        did = "connect" if isinstance(error, httpx.ConnectTimeout) else "answer"
        raise RequestTimeout(f"{address} didn't {did} in time{_through(request)}", **where) from error
    except httpx.ConnectError as error:
        raise _connect_error(request, error) from error
    except httpx.ProxyError as error:
        raise ProxyFailed(
            f"{error}; correct or unset that variable, or add {request.url.host} to NO_PROXY", **where
        ) from error
    except (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError) as error:
        raise ConnectionBroken(
            f"the connection to {address}{_through(request)} broke{_reason(error)}", **where
        ) from error
    except httpx.DecodingError as error:
        raise UnexpectedAnswer(f"the answer of {address} can't be decompressed", **where) from error
    except BodyTooLarge:
        raise too_large(request) from None
    except httpx.LocalProtocolError:
        raise ConnectionFailed(f"{address} can't be asked: the request can't be sent as HTTP", **where) from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TransportError) as error:
        raise ConnectionFailed(f"{address} can't be asked ({type(error).__name__})", **where) from error


def _connect_error(request: httpx.Request, error: httpx.ConnectError) -> ConnectionFailed:
    address = public_url(request.url)
    where: dict[str, Any] = {"method": request.method, "url": address}
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return NameNotResolved(f"the host name of {address} has no address", **where)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TLSFailed(f"no secure connection to {address}: certificate: {cause.verify_message}", **where)
        if isinstance(cause, ssl.SSLError):
            reason = (cause.reason or "the handshake failed").replace("_", " ").lower()
            return TLSFailed(f"no secure connection to {address}: {reason}", **where)
        if isinstance(cause, ConnectionRefusedError):
            return ConnectionRefused(f"nothing listens at {address}{_local_hint(request.url)}", **where)
    return ConnectionFailed(f"can't connect to {address}{_reason(error)}", **where)


def _through(request: httpx.Request) -> str:
    """Return which proxy a request went through, as errors add it."""
    return f" through {proxy}" if (proxy := request.extensions.get("proxy")) else ""


def _reason(error: BaseException) -> str:
    """Return what the operating system gave as the reason, if it did: its texts never quote what was sent."""
    reasons = (cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror)
    return next((f": {reason}" for reason in reasons), "")


def too_large(request: httpx.Request) -> AnswerTooLarge:
    """Return the error for an answer of too many bytes."""
    address = public_url(request.url)
    most = request.extensions.get("max_bytes") or MAX_BYTES
    return AnswerTooLarge(
        f"{address} answered more than {most >> 20} MiB, which no cluster has to tell; is it the address of one?",
        method=request.method,
        url=address,
    )


def sendable(value: Any, name: Any) -> Any:
    """Return the value of a header without the white space around it.

    Raises:
        ProfileError: it has characters that can't be sent.
    """
    if not isinstance(value, str) or not value:
        return value
    try:
        return header_value(value)
    except ValueError as error:
        raise ProfileError(f"the value of header {name} {error}") from None


def public_url(url: httpx.URL) -> str:
    """Return a URL without what could be secret: user info, query, fragment, and the id of a cluster."""
    path = re.sub(r"(?<=/clusters/)[^/?]+", "...", url.raw_path.decode("ascii").partition("?")[0])  # quoted, as sent
    return str(url.copy_with(userinfo=b"", path=path, query=None, fragment=None))


def where_of(response: httpx.Response) -> dict[str, Any]:
    """Return the part of an error that describes its request."""
    request = response.request
    return {"method": request.method, "url": public_url(request.url), "status": response.status_code}


def _local_hint(url: httpx.URL) -> str:
    return "; if it is the local cluster, `ape silverback cluster up` starts it" if is_loopback(url) else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _detail(response: httpx.Response) -> tuple[str, dict[str, str]]:
    """Return the text of a refusal, and for refused values what is wrong with each."""
    reason = f"{response.status_code} {response.reason_phrase}".strip()
    try:
        content = read_json(response)
    except ValueError:
        return reason, {}  # some proxies answer HTML or nothing
    detail = content.get("detail") if isinstance(content, dict) else None
    if isinstance(detail, str) and detail:
        return _safe(detail, response.request), {}
    if isinstance(detail, list):
        entries = [entry for entry in detail[:MOST_ERRORS] if isinstance(entry, dict)]
        return reason, {
            _safe(_place(entry.get("loc")), response.request): _safe(
                str(entry.get("msg", "not accepted")).removeprefix("Value error, "), response.request
            )
            for entry in entries
        }
    return reason, {}


def _place(loc: Any) -> str:
    """Write the path of a value, whose parts may be numbers, without the part of the request that it lies in."""
    parts = loc if isinstance(loc, list) else [loc]
    parts = parts[1:] if len(parts) > 1 and parts[0] in ("body", "query", "path") else parts
    return ".".join(str(part) for part in parts if part is not None) or "?"


def _safe(text: str, request: httpx.Request) -> str:
    """Return a server's text, cut, without the key that it was sent and without what could steer a terminal."""
    cookies = (pair.partition("=")[2].strip() for pair in request.headers.get("Cookie", "").split(";"))
    cut = text[: 2 * MAX_TEXT]  # so that a key at the end of what is shown is still found whole
    for secret in (request.headers.get("X-API-Key", ""), *cookies):
        if len(secret) >= SHORTEST_SECRET:
            cut = cut.replace(secret, "…")
    shown = "".join(letter for letter in cut if letter.isprintable() or letter == "\n")
    return shown if len(shown) <= MAX_TEXT and len(text) == len(text[: 2 * MAX_TEXT]) else f"{shown[:MAX_TEXT]}… (cut)"
