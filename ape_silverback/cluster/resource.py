"""What a client makes of an answer: a model that knows the client that made it.

The client is held per instance, so that two clients can live in one process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from pydantic import PrivateAttr

from ape_silverback.cluster.base_client import ApiClient
from ape_silverback.cluster.types import WireModel

ResourceT = TypeVar("ResourceT", bound="Resource")


class _Named(Protocol):
    @property
    def id(self) -> Any: ...

    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


def by_name(things: Iterable[NamedT]) -> dict[str, NamedT]:
    """Return things by name. No cluster should have two of one name; if it has, the others are under ``NAME (ID)``."""
    found: dict[str, NamedT] = {}
    for one in things:
        found[f"{one.name} ({one.id})" if one.name in found else one.name] = one
    return found


class Resource(WireModel):
    """Base of what can be changed through the client that made it. Pickling keeps the values, not the client."""

    _client: ApiClient | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Compare the values, not the clients."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.__dict__["id"])  # which each subclass has

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__pydantic_private__": dict.fromkeys(self.__private_attributes__)}

    def _bind(self: ResourceT, client: ApiClient) -> ResourceT:
        self._client = client
        return self

    def _bound_client(self) -> Any:
        if self._client is None:
            raise RuntimeError(f"this {type(self).__name__} has no client: it was constructed directly or unpickled")
        return self._client
