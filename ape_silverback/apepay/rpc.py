"""Reading a chain over JSON-RPC: many requests in one batch where the node takes that, one by one elsewhere.

A node is a stranger: what it answers is bounded in time and size, and what isn't JSON-RPC is an error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from pydantic_core import from_json

from ape_silverback.exceptions import ChainError, EnvironmentVariableError
from ape_silverback.transport import BodyTooLarge, Transport, deadline

TIMEOUT = 10.0
"""Seconds that a node gets to connect and for each byte."""

DEADLINE = 30.0
"""Seconds that a node gets for a whole answer."""

MAX_BYTES = 32 << 20
"""Most bytes of an answer, decompressed."""

LARGEST_BATCH = 100
"""Most requests in one batch, which hosted nodes limit."""

PAUSES = (0.25, 0.5, 1.0)
"""Seconds before each further attempt after a failure that may pass."""

LONGEST_MESSAGE = 200
"""Characters of a node's own words that an error repeats."""

PERMANENT_CODES = frozenset({3, -32700, -32600, -32601, -32602})
"""Codes of errors that come again: reverted, not JSON, not a request, unknown method, wrong parameters."""


@dataclass(frozen=True)
class RpcRequest:
    """One request of JSON-RPC.

    Attributes:
        method: such as ``eth_getCode``.
    """

    method: str
    params: tuple[Any, ...] = ()

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again when its answer was lost."""
        return not self.method.startswith("eth_send")


class Node(Protocol):
    """A node of a chain."""

    def batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
        """Send requests; return the results in order, with a ``ChainError`` in place of one that the node refused.

        Raises:
            ChainError: the node doesn't answer, or its answer isn't JSON-RPC.
        """


class HttpNode:
    """A node that is reached over HTTP. To be closed, or used as a context.

    Args:
        url: its address. It may hold a key, so errors name the host only.
        headers: what it needs besides.
        timeout: seconds to connect and for each byte.
        whole: seconds for a whole answer.
        pauses: seconds before each further attempt after a failure that may pass.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        whole: float = DEADLINE,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._url = httpx.URL(url)
        self._deadline = whole
        self._pauses = pauses
        self._client = httpx.Client(
            headers=dict(headers or {}), timeout=timeout, transport=Transport(), follow_redirects=False, trust_env=False
        )
        self._takes_batches = True

    def __enter__(self) -> HttpNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HttpNode {self._name}>"

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
        """Send requests; see ``Node``."""
        results: list[Any] = []
        for begin in range(0, len(requests), LARGEST_BATCH):
            some = requests[begin : begin + LARGEST_BATCH]
            results += self._batch(some) if self._takes_batches and len(some) > 1 else map(self._single, some)
        return results

    @property
    def _name(self) -> str:
        return f"the node at {self._url.host}{f':{self._url.port}' if self._url.port else ''}"

    def _batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
        try:
            answer = self._post([_body(number, request) for number, request in enumerate(requests)])
        except _BadAnswer:
            answer = None
        if not isinstance(answer, list):  # refused as a whole, with one error or a page of HTML
            return self._one_by_one(requests)
        by_number = {one["id"]: one for one in answer if isinstance(one, dict) and isinstance(one.get("id"), int)}
        results = [self._read(by_number.get(number), request) for number, request in enumerate(requests)]
        if all(isinstance(one, ChainError) and one.temporary for one in results):
            return self._one_by_one(requests)
        return results

    def _one_by_one(self, requests: Sequence[RpcRequest]) -> list[Any]:
        """Send what failed as a batch, and batches no more if that helps."""
        results = list(map(self._single, requests))
        if not all(isinstance(one, ChainError) for one in results):
            self._takes_batches = False
        return results

    def _single(self, request: RpcRequest) -> Any:
        pauses = self._pauses if request.is_repeatable else ()
        for pause in (*pauses, None):
            try:
                return self._read(self._post(_body(0, request)), request)
            except ChainError as error:
                if pause is None or not error.temporary:
                    raise
                time.sleep(pause)
        raise AssertionError  # the loop ends in its last turn

    def _post(self, content: Any) -> Any:
        """Return the JSON that is answered.

        Raises:
            ChainError: no answer, or one that is too large or isn't JSON.
        """
        try:
            with deadline(self._deadline):
                response = self._client.post(self._url, json=content, extensions={"max_bytes": MAX_BYTES})
            answer = from_json(response.content)  # which refuses half characters, and JSON that is too deep
        except EnvironmentVariableError as error:
            raise ChainError(f"{self._name} can't be reached: {error}") from None
        except BodyTooLarge:
            raise ChainError(f"{self._name} answers more than {MAX_BYTES >> 20} MiB") from None
        except httpx.TimeoutException:
            raise ChainError(f"{self._name} doesn't answer in time", temporary=True) from None
        except httpx.ConnectError:
            raise Unreachable(f"{self._name} can't be reached: nothing listens there, or not with TLS") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ChainError(f"{self._name} can't be reached: {type(error).__name__}", temporary=True) from None
        except ValueError:
            what = f"HTTP status {response.status_code} and " if response.is_error else ""
            again = response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS
            raise _BadAnswer(f"{self._name} answers with {what}something that isn't JSON", temporary=again) from None
        return answer

    def _read(self, answer: Any, request: RpcRequest) -> Any:
        if isinstance(answer, dict) and isinstance(error := answer.get("error"), dict):
            message = str(error.get("message"))[:LONGEST_MESSAGE]
            permanent = isinstance(code := error.get("code"), int) and code in PERMANENT_CODES
            temporary = not permanent and "revert" not in message.lower()
            return Refusal(f"{self._name} refuses {request.method}: {message}", temporary=temporary)
        if not isinstance(answer, dict) or "result" not in answer:
            return ChainError(f"{self._name} doesn't answer {request.method}", temporary=True)
        return answer["result"]


class Unreachable(ChainError):
    """Nothing listens at the address of a node."""


class Refusal(ChainError):
    """A node answered a request with an error, so that nothing was done."""


class _BadAnswer(ChainError):
    """An answer that isn't JSON-RPC. A batch may have caused it."""


def results_of(node: Node, *requests: RpcRequest) -> list[Any]:
    """Send requests; return the results in order.

    Raises:
        ChainError: the node doesn't answer, or refuses one of the requests.
    """
    results = node.batch(requests)
    for result in results:
        if isinstance(result, ChainError):
            raise result
    return results


def _body(number: int, request: RpcRequest) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": request.method, "params": list(request.params)}
