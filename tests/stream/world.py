"""A platform with one cluster that is paid for on a real chain; what it says may be changed."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ape_silverback.config.reader import SectionReading, read_section
from tests.cli.platform import Platform
from tests.stream.payments import Payments

CONFIG = """
ethereum:
  local:
    default_provider: foundry
{local}foundry:
  host: {node}
silverback:
  bots:
    watcher:
      image: ghcr.io/me/watcher:1
      network: ethereum:mainnet:node
"""


@dataclass
class World:
    """A cluster of the platform that is paid for, and what may be changed of it.

    Attributes:
        platform: with one cluster, `space/prod`.
        space: id of its workspace.
        node: address of the node that the project reads the chain from.
        stream: what the platform says of the cluster's stream.
        pins: of the section.
        local: more of the local network's configuration.
    """

    platform: Platform
    space: str
    payments: Payments
    cluster: uuid.UUID
    node: str
    stream: dict[str, Any]
    project: Path
    pins: dict[str, dict[int, str]] = field(default_factory=dict)
    local: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """The platform's record of the cluster."""
        return self.platform.clusters[str(self.cluster)]

    def configuration(self) -> str:
        """Return the project's configuration file."""
        return CONFIG.format(node=self.node, local=self.local) + (
            f"  stream: {json.dumps(self.pins)}\n" if self.pins else ""
        )

    def reading(self) -> SectionReading:
        """Read the section of that."""
        file = self.project / "ape-config.yaml"
        file.write_text(self.configuration())
        return read_section(self.project)

    def reopen(self, *products: bytes) -> None:
        """Pay with other products."""
        self.stream["stream_id"] = self.payments.open_stream(products=products)

    def replace_code(self, code: str) -> None:
        """Put other code where the manager is."""
        self.payments.ask("anvil_setCode", self.payments.manager, code)
