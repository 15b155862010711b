"""Where the lines of a history are kept: in a file of this machine, or by the cluster itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ape_silverback.cluster.types import WireModel
from ape_silverback.deployment.json_lines import append_line, read_lines
from ape_silverback.exceptions import Conflict, DeployError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient


class Lines(Protocol):
    """Where the lines of a history are kept."""

    def read(self) -> list[dict[str, Any]]:
        """Return the lines, the oldest first."""

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line."""


class FileLines:
    """Lines in a file of this machine."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> list[dict[str, Any]]:
        """Return the lines, the oldest first."""
        return list(read_lines(self.file))

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        append_line(self.file, line)


class ClusterLines:
    """Lines that the cluster itself keeps, so that every machine which deploys knows of the others.

    Args:
        client: client of a cluster that announces ``deployments``.
        project: identity of the project.
    """

    def __init__(self, client: ClusterClient, project: str) -> None:
        self._client = client
        self._project = project
        self._lines: list[dict[str, Any]] | None = None
        self._last = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the lines, the oldest first; asked for once.

        Raises:
            ClusterError: the request failed.
        """
        if self._lines is None:
            found = self._client.get_as(_Kept, "/deployments", params={"project": self._project})
            self._last, self._lines = found.last, found.lines
        return self._lines

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line after those that were read.

        Raises:
            ClusterError: the request failed.
            DeployError: another machine has added one in the meantime.
        """
        lines = self.read()
        params = {"project": self._project, "after": self._last}
        try:
            self._client.call("POST", "/deployments", params=params, json=dict(line), idempotent=True)
        except Conflict as error:
            raise DeployError(f"{error.message}; run deploy again") from error
        self._last += 1
        lines.append(dict(line))


class _Kept(WireModel):
    """What the cluster answers: the newest lines, and the number of the last one."""

    last: int
    lines: list[dict[str, Any]]
