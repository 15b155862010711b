"""Reading a chain over JSON-RPC: many questions in one request where the node takes that, one by one elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from ape_silverback.exceptions import ChainError

TIMEOUT = 10.0
"""Seconds that a node gets to connect and for each byte."""

LARGEST_BATCH = 100
"""Most questions in one request, which hosted nodes limit."""


@dataclass(frozen=True)
class Question:
    """One call of JSON-RPC.

    Attributes:
        method: such as ``eth_getCode``.
    """

    method: str
    params: tuple[Any, ...] = ()


class Node(Protocol):
    """A node of a chain.

    Attributes:
        questions: how many were asked.
        round_trips: how many requests they took.
    """

    questions: int
    round_trips: int

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """Ask; give the answers in order, a ``ChainError`` in place of one that the node refused.

        Raises:
            ChainError: the node doesn't answer, or answers nonsense.
        """


class HttpNode:
    """A node that is reached over HTTP. To be closed, or used as a context.

    Args:
        url: its address. It may hold a key, so errors name the host only.
        headers: what it needs besides.
        timeout: seconds to connect and for each byte.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT) -> None:
        self.questions = 0
        self.round_trips = 0
        self._url = httpx.URL(url)
        self._client = httpx.Client(headers=dict(headers or {}), timeout=timeout, follow_redirects=False)
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

    @property
    def _name(self) -> str:
        return f"the node at {self._url.host}{f':{self._url.port}' if self._url.port else ''}"

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """Ask; see ``Node``."""
        self.questions += len(questions)
        answers: list[Any] = []
        for begin in range(0, len(questions), LARGEST_BATCH):
            some = questions[begin : begin + LARGEST_BATCH]
            answers += self._ask_at_once(some) if self._takes_batches and len(some) > 1 else map(self._ask_one, some)
        return answers

    def _ask_at_once(self, questions: Sequence[Question]) -> list[Any]:
        said = self._post([_body(number, question) for number, question in enumerate(questions)])
        if not isinstance(said, list):  # it refuses batches with one error, if at all with JSON
            self._takes_batches = False
            return list(map(self._ask_one, questions))
        by_number = {one.get("id"): one for one in said if isinstance(one, dict)}
        return [self._read(by_number.get(number), question) for number, question in enumerate(questions)]

    def _ask_one(self, question: Question) -> Any:
        return self._read(self._post(_body(0, question)), question)

    def _post(self, content: Any) -> Any:
        """Send something; gives what JSON came back, or None for an answer that isn't JSON.

        Raises:
            ChainError: no answer, or a refusal of a single question that isn't JSON.
        """
        self.round_trips += 1
        try:
            response = self._client.post(self._url, json=content)
        except httpx.TimeoutException:
            raise ChainError(f"{self._name} doesn't answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ChainError(f"{self._name} can't be reached: {type(error).__name__}") from None
        try:
            return response.json()
        except ValueError:
            if isinstance(content, list) and response.is_client_error:
                return None
            raise ChainError(f"{self._name} answers with HTTP status {response.status_code} and no JSON") from None

    def _read(self, said: Any, question: Question) -> Any:
        if isinstance(said, dict) and isinstance(error := said.get("error"), dict):
            return ChainError(f"{self._name} refuses {question.method}: {error.get('message')}")
        if not isinstance(said, dict) or "result" not in said:
            return ChainError(f"{self._name} has no answer to {question.method}")
        return said["result"]


def answers_of(node: Node, *questions: Question) -> list[Any]:
    """Ask; give the answers in order.

    Raises:
        ChainError: the node doesn't answer, answers nonsense, or refuses one of the questions.
    """
    answers = node.ask(questions)
    for answer in answers:
        if isinstance(answer, ChainError):
            raise answer
    return answers


def _body(number: int, question: Question) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": question.method, "params": list(question.params)}
