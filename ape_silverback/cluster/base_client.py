"""One place for what every request needs: its headers, its time, retries and redirects.

Secrets go to the origin that they were configured for and nowhere else: what leads to another origin is refused before
anything is sent there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

import httpx

from ape_silverback.cluster.http_errors import (
    error_of,
    is_loopback,
    mapped_errors,
    public_url,
    read_answer,
    validated,
    where_of,
)
from ape_silverback.exceptions import (
    ClusterError,
    Conflict,
    ConnectionFailed,
    ConnectionRefused,
    NameNotResolved,
    NotFound,
    RedirectRefused,
    ServerError,
    TLSFailed,
    UnexpectedAnswer,
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

_end_of_call: ContextVar[float | None] = ContextVar("end of the call that is being worked on", default=None)
"""Time, as ``time.monotonic`` has it, at which a call has to be over with its retries and look-ups."""

MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Retries:
    """How often and how long a request is tried again.

    Attributes:
        attempts: most requests for one call.
        deadline: seconds that a call has for all of it: attempts, the waits between them, and look-ups.
        first_delay: seconds before the second attempt; doubled each time, with jitter.
        longest_delay: most seconds between two attempts, also where the server asks for more.
        sleep: waits for some seconds.
    """

    attempts: int = 5
    deadline: float = 60.0
    first_delay: float = 0.2
    longest_delay: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def delays(self, end: float | None = None) -> Iterator[float]:
        """Give the seconds to wait before each further attempt, until attempts or time are used up.

        Args:
            end: when the time is used up; None for ``deadline`` seconds after the first failure.
        """
        end = time.monotonic() + self.deadline if end is None else end
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
        self._refuse_other_origin(request)
        kwargs["follow_redirects"] = False
        repeatable = request.extensions.get("idempotent", request.method in IDEMPOTENT_METHODS)
        with self._in_time() as end:
            kwargs["end"] = end
            delays = self.retries.delays(end)
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

    @contextmanager
    def _in_time(self) -> Iterator[float]:
        """Give the time at which a call has to be over; what it calls in turn has no more time than it has."""
        if (end := _end_of_call.get()) is not None:
            yield end
            return
        token = _end_of_call.set(end := time.monotonic() + self.retries.deadline)
        try:
            yield end
        finally:
            _end_of_call.reset(token)

    def _refuse_other_origin(self, request: httpx.Request) -> None:
        """Keep the key from an address that isn't the configured one, such as that of a next page.

        Raises:
            RedirectRefused: the request would go elsewhere.
        """
        if self.base_url.host and origin(request.url) != origin(self.base_url):
            raise RedirectRefused(
                f"{request.method} {public_url(request.url)} isn't at {public_url(self.base_url)}, and the key is only "
                "for that",
                method=request.method,
                url=public_url(request.url),
            )

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
                    **where_of(response),
                )
            following.extensions = request.extensions
            request = following
        raise UnexpectedAnswer(
            f"{request.method} {public_url(request.url)} was redirected more than {MOST_REDIRECTS} times",
            **where_of(response),
        )

    def _send_once(
        self, request: httpx.Request, *args: Any, end: float, stream: bool = False, **kwargs: Any
    ) -> httpx.Response:
        """Send a request once; read its answer until the end of the time for the whole call, unless it is a stream."""
        if not stream:
            left = max(0.001, end - time.monotonic())
            timeouts = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {
                what: left if seconds is None else min(seconds, left) for what, seconds in timeouts.items()
            }
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

    def get_as(self, kind: type[T], path: str, **kwargs: Any) -> T:
        """GET something and give it as the type that the API promises.

        Raises:
            ClusterError: no answer, none that says yes, or one that isn't what the API promises.
        """
        return read_answer(kind, self.call("GET", path, **kwargs))

    def get_all(self, kind: type[T], path: str, **kwargs: Any) -> list[T]:
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
            found += validated(list[kind], page, response)  # type: ignore[valid-type]
            following = response.links.get("next", {}).get("url")
            if following is None and isinstance(content, dict) and isinstance(content.get("next"), str):
                following = content["next"]
            following = following and self._next_page(following, response)
            kwargs.pop("params", None)  # the next page's address has them
        return found

    def _next_page(self, link: str, response: httpx.Response) -> str:
        """Give the whole address of a next page.

        A link counts from the page that holds it (RFC 3986). A cluster behind the platform may not know under which
        path it is there, and then counts from its own root.

        Raises:
            UnexpectedAnswer: it is no address.
        """
        base = self.base_url.path.rstrip("/")
        try:
            url = response.request.url.join(link)
            if link.startswith("/") and not url.path.startswith(f"{base}/"):
                url = url.copy_with(raw_path=base.encode() + url.raw_path)
        except (httpx.InvalidURL, ValueError) as error:
            where = where_of(response)
            raise UnexpectedAnswer(
                f"{where['method']} {where['url']} names no address of a next page", **where
            ) from error
        return str(url)

    def create(self, kind: type[T], path: str, find: Callable[[], T | None], **kwargs: Any) -> T:
        """POST something new, never twice: what a lost answer left behind is looked up before it is sent again.

        Args:
            kind: what the API answers.
            path: below the base URL.
            find: looks the thing up by its name.

        Raises:
            ClusterError: as ``ask``; Conflict when there was one of this name before.
        """
        maybe_there = False
        with self._in_time() as end:
            delays = self.retries.delays(end)
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
        maybe_gone = False
        with self._in_time() as end:
            delays = self.retries.delays(end)
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
        if response.is_success:
            return
        with mapped_errors(response.request):
            response.read()
        raise error_of(response, self.hint)


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


def _is_temporary(error: ClusterError) -> bool:
    """Say whether another attempt makes sense: a bad name, a bad certificate and a local cluster that is down stay."""
    if isinstance(error, NameNotResolved | TLSFailed):
        return False
    if isinstance(error, ConnectionRefused):
        return error.url is None or not is_loopback(httpx.URL(error.url))
    return isinstance(error, ConnectionFailed) or error.status in RETRIED_STATUSES
