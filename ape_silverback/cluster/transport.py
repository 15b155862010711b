"""One place for what every request needs: its headers, retries, redirects, and what can go wrong with it.

Secrets go to the origin that they were configured for and nowhere else: a redirect to another origin is refused before
anything is sent there.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, NoReturn, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

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
    RedirectRefused,
    RequestTimeout,
    ServerError,
    TLSFailed,
    Unauthorized,
    UnexpectedAnswer,
    ValidationFailed,
)
from ape_silverback.version import __version__

T = TypeVar("T")

USER_AGENT = f"ape-silverback/{__version__}"
DEFAULT_TIMEOUT = httpx.Timeout(5.0)
"""Seconds to connect and to each byte."""

SLOW_TIMEOUT = httpx.Timeout(5.0, read=10.0)
"""For the calls that are slow on a hosted cluster: create, update, start, stop and remove of a bot, its logs."""

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
NEVER_ARRIVED = (ConnectionRefused, NameNotResolved, TLSFailed)
"""Errors after which the server certainly did nothing."""

MOST_REDIRECTS = 5
_STATUS_ERRORS: dict[int, type[ClientError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}


@dataclass(frozen=True)
class Retries:
    """How often and how long a request is tried again.

    Attributes:
        attempts: most requests for one call.
        deadline: seconds after which no further attempt begins, and after which an answer has to be whole.
        first_delay: seconds before the second attempt; doubled each time, with jitter.
        longest_delay: most seconds between two attempts, also where the server asks for more.
        sleep: waits for some seconds.
    """

    attempts: int = 5
    deadline: float = 60.0
    first_delay: float = 0.2
    longest_delay: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def delays(self) -> Iterator[float]:
        """Give the seconds to wait before each further attempt, until attempts or time are used up."""
        end = time.monotonic() + self.deadline
        for attempt in range(self.attempts - 1):
            delay = min(self.first_delay * 2**attempt, self.longest_delay) * random.uniform(0.5, 1.0)  # noqa: S311
            if time.monotonic() + delay > end:
                return
            yield delay


class ApiClient(httpx.Client):
    """An ``httpx.Client`` for the API: constructed like one, safer in what it sends.

    Args:
        retries: how often a request is tried again that may be.
        hint: what to do when the key or the session isn't accepted, for the error.
    """

    def __init__(self, *args: Any, retries: Retries | None = None, hint: str | None = None, **kwargs: Any) -> None:
        kwargs["headers"] = {"User-Agent": USER_AGENT, **(kwargs.get("headers") or {})}
        kwargs.setdefault("timeout", DEFAULT_TIMEOUT)
        super().__init__(*args, **kwargs)
        self.retries = retries or Retries()
        self.hint = hint

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {public_url(self.base_url)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} can't be pickled: it holds a key")

    def send(self, request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send a request; follow redirects within its origin, and try again what may be tried again.

        Raises:
            ConnectionFailed: no answer came.
            RedirectRefused: the answer leads to another origin.
        """
        kwargs["follow_redirects"] = False
        kwargs["end"] = end = time.monotonic() + self.retries.deadline
        repeatable = request.extensions.get("idempotent", request.method in IDEMPOTENT_METHODS)
        delays = self.retries.delays()
        while True:
            try:
                response = self._follow(request, args, kwargs)
            except ConnectionFailed as error:
                if not repeatable or not _is_temporary(error) or (delay := next(delays, None)) is None:
                    raise
            else:
                # Who has too many requests did nothing with this one.
                again = repeatable or response.status_code == httpx.codes.TOO_MANY_REQUESTS
                if not again or response.status_code not in RETRIED_STATUSES:
                    return response
                if (delay := next(delays, None)) is None:
                    return response
                delay = min(max(delay, retry_after(response)), self.retries.longest_delay)
                if time.monotonic() + delay > end:
                    return response
                response.close()
            self.retries.sleep(delay)

    def _follow(self, request: httpx.Request, args: Any, kwargs: Any) -> httpx.Response:
        for _ in range(MOST_REDIRECTS + 1):
            response = self._send_once(request, *args, **kwargs)
            following = response.next_request
            if following is None:
                return response
            response.close()
            same_origin = origin(following.url) == origin(request.url)
            if not same_origin or (request.method not in ("GET", "HEAD") and following.method != request.method):
                raise RedirectRefused(
                    f"{request.method} {public_url(request.url)} was redirected to {public_url(following.url)}; "
                    "the key is only for the configured address: correct `host` in the profile if that moved",
                    **_where(request, response),
                )
            following.extensions = request.extensions
            request = following
        raise UnexpectedAnswer(
            f"{request.method} {public_url(request.url)} was redirected more than {MOST_REDIRECTS} times",
            **_where(request, response),
        )

    def _send_once(
        self, request: httpx.Request, *args: Any, end: float, stream: bool = False, **kwargs: Any
    ) -> httpx.Response:
        """Send a request once; read its answer until the end of the time for the whole call, unless it is a stream."""
        with mapped_errors(request):
            response = super().send(request, *args, stream=True, **kwargs)
            if not stream:
                try:
                    response.stream = _Timed(response.stream, request, end)
                    response.read()
                finally:
                    response.close()
            return response

    def call(self, method: str, path: str, *, idempotent: bool | None = None, **kwargs: Any) -> httpx.Response:
        """Make a request and give its answer if it is a good one.

        Args:
            method: HTTP method.
            path: below the base URL.
            idempotent: whether it may be sent again when its answer was lost; None leaves it to the method.
            kwargs: as for ``httpx.Client.build_request``.

        Raises:
            ClusterError: no answer, or none that says yes.
        """
        request = self.build_request(method, path, **kwargs)
        if idempotent is not None:
            request.extensions["idempotent"] = idempotent
        response = self.send(request)
        self.check(response)
        return response

    def ask(self, kind: type[T], path: str, **kwargs: Any) -> T:
        """GET something and give it as the type that the API promises.

        Raises:
            ClusterError: no answer, none that says yes, or one that isn't what the API promises.
        """
        return read_answer(kind, self.call("GET", path, **kwargs))

    def ask_all(self, kind: type[T], path: str, **kwargs: Any) -> list[T]:
        """GET a list, over as many pages as it has.

        Raises:
            ClusterError: as ``ask``.
        """
        found: list[T] = []
        seen = set()
        following: str | None = path
        while following is not None and following not in seen:
            seen.add(following)
            response = self.call("GET", following, **kwargs)
            content = read_answer(Any, response)
            page = content.get("items") if isinstance(content, dict) else content
            found += _validated(list[kind], page, response)  # type: ignore[valid-type]
            following = response.links.get("next", {}).get("url")
            if following is None and isinstance(content, dict) and isinstance(content.get("next"), str):
                following = content["next"]
            kwargs.pop("params", None)  # the next page's address has them
        return found

    def create(self, kind: type[T], path: str, find: Callable[[], T | None], **kwargs: Any) -> T:
        """POST something new, never twice: what a lost answer left behind is looked up before it is sent again.

        Args:
            kind: what the API answers.
            path: below the base URL.
            find: looks the thing up by its name.

        Raises:
            ClusterError: as ``ask``; Conflict when there was one of this name before.
        """
        delays = self.retries.delays()
        maybe_there = False
        while True:
            try:
                return read_answer(kind, self.call("POST", path, **kwargs))
            except Conflict:
                if maybe_there and (found := find()) is not None:
                    return found
                raise
            except (ConnectionFailed, ServerError) as error:
                if not isinstance(error, NEVER_ARRIVED):
                    maybe_there = True
                    if (found := find()) is not None:
                        return found
                if not _is_temporary(error) or (delay := next(delays, None)) is None:
                    raise
                self.retries.sleep(delay)

    def delete_thing(self, path: str, **kwargs: Any) -> None:
        """DELETE something. Gone is gone: that it isn't there any more after a lost answer is no error.

        Raises:
            ClusterError: as ``call``; NotFound when it wasn't there at first.
        """
        delays = self.retries.delays()
        maybe_gone = False
        while True:
            try:
                self.call("DELETE", path, idempotent=False, **kwargs)
            except NotFound:
                if maybe_gone:
                    return
                raise
            except (ConnectionFailed, ServerError) as error:
                maybe_gone = True
                if not _is_temporary(error) or (delay := next(delays, None)) is None:
                    raise
                self.retries.sleep(delay)
            else:
                return

    def check(self, response: httpx.Response) -> None:
        """Raise the error that an answer stands for, if it stands for one.

        Raises:
            ClusterError: the answer doesn't say yes.
        """
        status = response.status_code
        if response.is_success:
            return
        with mapped_errors(response.request):
            response.read()
        where = _where(response.request, response)
        said, fields = _detail(response)
        what = f"{response.request.method} {public_url(response.request.url)}: {said}"
        if status == httpx.codes.UNAUTHORIZED:
            hint = self.hint or "check the key or log in again"
            raise Unauthorized(f"the cluster doesn't accept who asks ({said}); {hint}", **where)
        if fields:
            lines = "\n".join(f"  {name}: {text}" for name, text in fields.items())
            raise ValidationFailed(f"the cluster refused values:\n{lines}", fields=fields, **where)
        if status == httpx.codes.UNPROCESSABLE_ENTITY:
            raise ValidationFailed(said, **where)
        if error := _STATUS_ERRORS.get(status):
            raise error(said if status == httpx.codes.CONFLICT else what, **where)
        if httpx.codes.is_client_error(status):
            raise ClientError(said, **where)
        if httpx.codes.is_server_error(status):
            raise ServerError(what, **where)
        raise UnexpectedAnswer(f"{what} (status {status})", **where)


class _Timed(httpx.SyncByteStream):
    """The body of an answer that has to be whole by some time: httpx's time-outs are for each byte."""

    def __init__(self, stream: Any, request: httpx.Request, end: float) -> None:
        self._stream = stream
        self._request = request
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if time.monotonic() > self._end:
                raise httpx.ReadTimeout("the whole answer took too long", request=self._request)
            yield chunk

    def close(self) -> None:
        self._stream.close()


def read_answer(kind: type[T], response: httpx.Response) -> T:
    """Read the JSON of an answer as a type.

    Raises:
        UnexpectedAnswer: it is none, or of another type.
    """
    try:
        content = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        start = " ".join(response.text[:80].split())
        raise UnexpectedAnswer(
            f"{response.request.method} {public_url(response.request.url)} answered no JSON but {start!r}; "
            "is it the address of a Silverback cluster?",
            **_where(response.request, response),
        ) from None
    return _validated(kind, content, response)


def _validated(kind: type[T], content: Any, response: httpx.Response) -> T:
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
            **_where(response.request, response),
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


def retry_after(response: httpx.Response) -> float:
    """Give the seconds that a server asks to wait, from ``Retry-After`` (RFC 9110); 0 without or with a bad one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Give scheme, host and port, which say who gets the key."""
    default = {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, url.port or default


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


def _is_temporary(error: ClusterError) -> bool:
    """Say whether another attempt makes sense: a bad name, a bad certificate and a local cluster that is down stay."""
    if isinstance(error, NameNotResolved | TLSFailed):
        return False
    if isinstance(error, ConnectionRefused):
        return error.url is None or not is_loopback(httpx.URL(error.url))
    return isinstance(error, ConnectionFailed) or error.status in RETRIED_STATUSES


def _local_hint(url: httpx.URL) -> str:
    return "; if it is the local cluster, `ape silverback cluster up` starts it" if is_loopback(url) else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _where(request: httpx.Request, response: httpx.Response) -> dict[str, Any]:
    return {"method": request.method, "url": public_url(request.url), "status": response.status_code}


def _detail(response: httpx.Response) -> tuple[str, dict[str, str]]:
    """Give what an error's answer says, and for refused values what is wrong with each."""
    reason = f"{response.status_code} {response.reason_phrase}".strip()
    try:
        content = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return reason, {}  # some proxies answer HTML or nothing
    detail = content.get("detail") if isinstance(content, dict) else None
    if isinstance(detail, str) and detail:
        return detail, {}
    if isinstance(detail, list):
        entries = [entry for entry in detail if isinstance(entry, dict)]
        return reason, {
            ".".join(map(str, entry.get("loc") or ["?"])): str(entry.get("msg", "not accepted")) for entry in entries
        }
    return reason, {}
