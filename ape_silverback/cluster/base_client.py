"""What every request of the API needs: headers, time-outs, retries, redirects, and what to do about a lost answer.

Secrets go to the origin that they were configured for and nowhere else: what leads to another origin is refused before
anything is sent there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, NoReturn, Protocol, TypeVar

import httpx
from pydantic import FailFast

from ape_silverback.cluster.http_errors import (
    error_of,
    mapped_errors,
    public_url,
    read_answer,
    sendable,
    too_large,
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
    ProxyFailed,
    RedirectRefused,
    ServerError,
    TLSFailed,
    TooManyPages,
    UnexpectedAnswer,
    ValidationFailed,
)
from ape_silverback.timezones import with_timezone
from ape_silverback.transport import MAX_BYTES, Transport, deadline, is_loopback
from ape_silverback.version import __version__

T = TypeVar("T")


class _Created(Protocol):
    @property
    def created(self) -> datetime: ...


CreatedT = TypeVar("CreatedT", bound=_Created)

USER_AGENT = f"ape-silverback/{__version__}"
DEFAULT_TIMEOUT = httpx.Timeout(5.0)
"""Seconds to connect, and to wait for each part of an answer."""

SLOW_TIMEOUT = httpx.Timeout(5.0, read=10.0)
"""For the calls that are slow on a hosted cluster: create, update, start, stop and remove of a bot, its logs."""

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
NEVER_ARRIVED = (ConnectionRefused, NameNotResolved, ProxyFailed, TLSFailed)
"""Errors after which the server certainly did nothing."""

CLOCK_TOLERANCE = 5.0
"""Seconds by which the clocks behind a cluster's ``Date`` and its ``created`` may differ."""

MOST_PAGES = 200
"""Pages of one list: a cluster has up to 250 bots."""

MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Retries:
    """How often and for how long a request is retried.

    Attributes:
        attempts: most requests for one call.
        deadline: seconds for a whole call: attempts, the waits between them, and look-ups.
        first_delay: seconds before the second attempt; doubled each time, with jitter.
        longest_delay: most seconds between two attempts, even where the server asks for more.
        sleep: waits for some seconds.
    """

    attempts: int = 5
    deadline: float = 60.0
    first_delay: float = 0.2
    longest_delay: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def delays(self, end: float | None = None) -> Iterator[float]:
        """Yield the seconds to wait before each further attempt, until attempts or time are used up.

        Args:
            end: when the time is used up; None for ``deadline`` seconds from now.
        """
        end = time.monotonic() + self.deadline if end is None else end
        for attempt in range(self.attempts - 1):
            delay = min(self.first_delay * 2**attempt, self.longest_delay) * random.uniform(0.5, 1.0)  # noqa: S311
            if time.monotonic() + delay > end:
                return
            yield delay


class ApiClient(httpx.Client):
    """An ``httpx.Client`` for the API: constructed like one, safer in what it sends and in what it accepts.

    Args:
        retries: how often a request is retried that may be.
        hint: what to do when the key or the session isn't accepted, for the error.

    Raises:
        ProfileError: a header holds characters that can't be sent.
    """

    def __init__(self, *args: Any, retries: Retries | None = None, hint: str | None = None, **kwargs: Any) -> None:
        given = kwargs.get("headers") or {}
        headers = given.items() if isinstance(given, Mapping) else given
        kwargs["headers"] = [("User-Agent", USER_AGENT), *((name, sendable(value, name)) for name, value in headers)]
        kwargs.setdefault("timeout", DEFAULT_TIMEOUT)
        if not {"transport", "mounts", "proxy"} & kwargs.keys():
            options = ("verify", "cert", "trust_env", "http1", "http2", "limits")
            kwargs["transport"] = Transport(**{name: kwargs[name] for name in options if name in kwargs})
        super().__init__(*args, **kwargs)
        self.retries = retries or Retries()
        self.hint = hint
        self._clock: tuple[float, str] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {public_url(self.base_url)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} can't be pickled: it holds a key")

    def send(self, request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send a request; follow redirects within its origin, and retry what may be retried.

        Raises:
            ConnectionFailed: no answer came.
            RedirectRefused: the answer leads to another origin.
        """
        self._refuse_other_origin(request)
        kwargs["follow_redirects"] = False
        repeatable = request.extensions.get("idempotent", request.method in IDEMPOTENT_METHODS)
        if kwargs.get("stream"):
            request.extensions.setdefault("max_bytes", None)
        with deadline(self.retries.deadline) as end:
            delays = self.retries.delays(end)
            while True:
                try:
                    response = self._follow(request, args, kwargs)
                except ConnectionFailed as error:
                    if not repeatable or not _is_temporary(error) or (delay := next(delays, None)) is None:
                        raise
                else:
                    # A request that was one too many has had no effect.
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

    def _refuse_other_origin(self, request: httpx.Request) -> None:
        """Keep the key from an address that isn't the configured one, such as that of a next page.

        Raises:
            RedirectRefused: the request would go elsewhere.
        """
        if self.base_url.host and origin(request.url) != origin(self.base_url):
            raise RedirectRefused(
                f"{request.method} {public_url(request.url)} isn't below {public_url(self.base_url)}, which alone "
                "gets the key",
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
                    f"{request.method} {public_url(request.url)} was redirected to {public_url(following.url)}, "
                    "which doesn't get the key; if the cluster has moved, correct `host` in the profile",
                    **where_of(response),
                )
            following.extensions = request.extensions
            request = following
        raise UnexpectedAnswer(
            f"{request.method} {public_url(request.url)} was redirected more than {MOST_REDIRECTS} times",
            **where_of(response),
        )

    def _send_once(self, request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
        with mapped_errors(request):
            response = super().send(request, *args, **kwargs)
        self._clock = (time.time(), response.headers.get("Date", ""))
        return response

    def call(self, method: str, path: str, *, idempotent: bool | None = None, **kwargs: Any) -> httpx.Response:
        """Make a request and return its successful answer.

        Args:
            method: HTTP method.
            path: below the base URL.
            idempotent: whether it may be sent again when its answer was lost; None leaves it to the method.
            kwargs: as for ``httpx.Client.build_request``.

        Raises:
            ClusterError: no answer, or one that isn't a success.
        """
        try:
            request = self.build_request(method, path, **kwargs)
        except UnicodeEncodeError:
            raise ValidationFailed(f"{method} {path}: a value isn't text that can be sent as UTF-8") from None
        if idempotent is not None:
            request.extensions["idempotent"] = idempotent
        response = self.send(request)
        self.check(response)
        return response

    def get_as(self, kind: type[T], path: str, **kwargs: Any) -> T:
        """GET something and return it as the type that the API promises.

        Raises:
            ClusterError: no answer, one that isn't a success, or one that the API doesn't promise.
        """
        return read_answer(kind, self.call("GET", path, **kwargs))

    def get_all(self, kind: type[T], path: str, **kwargs: Any) -> list[T]:
        """GET a list, over as many pages as it has.

        Raises:
            ClusterError: as ``get_as``.
            TooManyPages: the pages don't end.
            AnswerTooLarge: all pages together are too large.
        """
        found: list[T] = []
        seen: set[str] = set()
        pages = size = 0
        following: str | None = path
        with deadline(self.retries.deadline):
            while following is not None and following not in seen:
                seen.add(following)
                response = self.call("GET", following, **kwargs)
                seen.add(str(response.request.url))  # the first page's address in full
                pages += 1
                size += len(response.content)
                if pages > MOST_PAGES:
                    raise TooManyPages(
                        f"GET {public_url(response.request.url)} has more than {MOST_PAGES} pages", **where_of(response)
                    )
                if size > MAX_BYTES:
                    raise too_large(response.request)
                content = read_answer(Any, response)
                page = content.get("items") if isinstance(content, dict) else content
                found += validated(Annotated[list[kind], FailFast()], page, response)  # type: ignore[valid-type,arg-type]
                following = response.links.get("next", {}).get("url")
                if following is None and isinstance(content, dict) and isinstance(content.get("next"), str):
                    following = content["next"]
                following = following and self._next_page(following, response)
                kwargs.pop("params", None)  # the next page's address has them
        return found

    def _next_page(self, link: str, response: httpx.Response) -> str:
        """Return the whole address of a next page.

        A link counts from the page that holds it (RFC 3986). A cluster behind the platform may not know under which
        path it is there, and then counts from its own root.

        Raises:
            UnexpectedAnswer: it isn't an address.
        """
        base = self.base_url.path.rstrip("/")
        try:
            url = response.request.url.join(link)
            if link.startswith("/") and not url.path.startswith(f"{base}/"):
                url = url.copy_with(raw_path=base.encode() + url.raw_path)
        except (httpx.InvalidURL, ValueError) as error:
            where = where_of(response)
            raise UnexpectedAnswer(
                f"the answer to {where['method']} {where['url']} links to a next page that isn't an address", **where
            ) from error
        return str(url)

    def create(
        self,
        kind: type[CreatedT],
        path: str,
        what: str,
        find: Callable[[], CreatedT | None],
        wanted: Mapping[str, Any],
        *,
        look_first: bool = True,
        **kwargs: Any,
    ) -> CreatedT:
        """POST something new, never twice: after a lost answer it is looked up before it is sent again.

        What is found is ours only if it wasn't there before and is what was asked for. What somebody else made while
        the request was under way, with the same values of ``wanted``, can't be told from it and is taken for ours.

        Args:
            kind: what the API answers.
            path: below the base URL.
            what: how errors call it, such as ``bot 'a'``.
            find: looks it up by its name.
            wanted: field → the value that it has if it is ours; a frozenset for a list in any order.
            look_first: whether it is looked up before anything is sent. Without that, what was made within
                ``CLOCK_TOLERANCE`` before counts as made meanwhile.
            kwargs: as for ``httpx.Client.build_request``.

        Raises:
            ClusterError: as ``get_as``.
            Conflict: there was one of this name before.
        """
        lost: ClusterError | None = None
        with deadline(self.retries.deadline):
            if look_first and find() is not None:
                where = f"{public_url(self.base_url)}".rstrip("/") + path
                raise Conflict(f"{what} exists already, and stays as it is; nothing was sent", method="POST", url=where)
        begun = time.time()
        with deadline(self.retries.deadline) as end:
            delays = self.retries.delays(end)
            while True:
                try:
                    return read_answer(kind, self.call("POST", path, **kwargs))
                except Conflict as error:
                    if lost is None or (found := find()) is None:
                        raise
                    return self._ours(found, what, begun, wanted, error)
                except (ConnectionFailed, ServerError) as error:
                    if not isinstance(error, NEVER_ARRIVED):
                        lost = error
                        if (found := find()) is not None:
                            return self._ours(found, what, begun, wanted, error)
                    if not _is_temporary(error) or (delay := next(delays, None)) is None:
                        raise
                    self.retries.sleep(delay)

    def _ours(
        self, found: CreatedT, what: str, begun: float, wanted: Mapping[str, Any], error: ClusterError
    ) -> CreatedT:
        """Return what a look-up found, if a request of ours whose answer was lost made it.

        Raises:
            Conflict: it didn't.
        """
        where: dict[str, Any] = {"method": error.method, "url": error.url, "status": error.status}
        other = [name for name, value in wanted.items() if not _is_same(value, getattr(found, name))]
        created = with_timezone(found.created)
        if created.timestamp() - self._ahead() < begun - CLOCK_TOLERANCE:
            raise Conflict(f"{what} was there before, and stays as it is; nothing was created ({error})", **where)
        if other:
            raise Conflict(
                f"another {what} has been created meanwhile, with other values of {', '.join(other)}; it stays as it "
                f"is ({error})",
                **where,
            )
        return found

    def cluster_time(self) -> datetime:
        """Return the time by the cluster's clock, from its last answer; by ours before the first one."""
        return datetime.fromtimestamp(time.time() + self._ahead(), timezone.utc)

    def _ahead(self) -> float:
        """Return the seconds by which the cluster's clock is ahead of ours, from its last answer."""
        here, date = self._clock or (0.0, "")
        try:
            return parsedate_to_datetime(date).timestamp() - here
        except (TypeError, ValueError, OverflowError):
            return 0.0

    def delete_resource(self, path: str, **kwargs: Any) -> None:
        """DELETE something. That it is gone after a lost answer isn't an error.

        Raises:
            ClusterError: as ``call``.
            NotFound: it wasn't there in the first place.
        """
        maybe_gone = False
        with deadline(self.retries.deadline) as end:
            delays = self.retries.delays(end)
            while True:
                try:
                    self.call("DELETE", path, idempotent=False, **kwargs)
                except NotFound:
                    if maybe_gone:
                        return
                    raise
                except (ConnectionFailed, ServerError) as error:
                    maybe_gone = maybe_gone or not isinstance(error, NEVER_ARRIVED)
                    if not _is_temporary(error) or (delay := next(delays, None)) is None:
                        raise
                    self.retries.sleep(delay)
                else:
                    return

    def check(self, response: httpx.Response) -> None:
        """Raise the error that an answer stands for, unless it is a success.

        Raises:
            ClusterError: the answer isn't a success.
        """
        if response.is_success:
            return
        with deadline(self.retries.deadline), mapped_errors(response.request):
            response.read()
        raise error_of(response, self.hint)


def retry_after(response: httpx.Response) -> float:
    """Return the seconds that a server asks to wait, from ``Retry-After`` (RFC 9110); 0 without or with a bad one."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        if value.isdecimal():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port, which decide who gets the key."""
    default = {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, url.port or default


def _is_same(wanted: Any, found: Any) -> bool:
    return bool(wanted == (frozenset(found) if isinstance(wanted, frozenset) else found))


def _is_temporary(error: ClusterError) -> bool:
    """Return whether another attempt makes sense: not for a bad name or certificate, or a local server that is down."""
    if isinstance(error, NameNotResolved | ProxyFailed | TLSFailed):
        return False
    if isinstance(error, ConnectionRefused):
        return error.url is None or not is_loopback(httpx.URL(error.url))
    return isinstance(error, ConnectionFailed) or error.status in RETRIED_STATUSES
