"""What a project wants on a cluster: plain, frozen values. ``project`` makes them, ``deploy`` uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DesiredBot:
    """One bot as it should be on the cluster.

    Attributes:
        name: its name on the cluster.
        origin: what says that the project has this bot.
        module: what ``silverback run`` takes to run it in the project's folder.
        account: alias of its account, or None for a bot that signs nothing.
        environment: names of its variable groups; of two that set one variable the later wins.
        credential_name: registry credential of the cluster, or None for a public image.
        origins: field of the API → where its value came from.
        protect: whether a deployment that no longer has it is refused to remove it.
        renamed_from: name that it had on the cluster before.
    """

    name: str
    origin: str
    module: str
    image: str
    ecosystem: str
    network: str
    provider: str
    account: str | None
    environment: tuple[str, ...]
    credential_name: str | None
    cluster_access: bool
    origins: Mapping[str, str]
    protect: bool = False
    renamed_from: str | None = None

    FIELDS = (
        "image",
        "ecosystem",
        "network",
        "provider",
        "account",
        "environment",
        "credential_name",
        "cluster_access",
    )

    def configuration(self) -> dict[str, Any]:
        """Give what the cluster's API calls the bot's configuration."""
        values = {name: getattr(self, name) for name in self.FIELDS}
        return {**values, "environment": list(self.environment)}


@dataclass(frozen=True)
class DesiredGroup:
    """A variable group that the project declares: names only."""

    name: str
    variables: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class DesiredState:
    """What the project wants on a cluster.

    Attributes:
        groups: the declared groups that the bots of this state use.
        warnings: what is worth knowing but stops nothing, a line each.
    """

    project: str
    folder: Path
    bots: tuple[DesiredBot, ...]
    groups: tuple[DesiredGroup, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overrides:
    """Values of one run, from the command line. They win over everything that is written down.

    Attributes:
        allow_dirty: whether ``tag: git`` may name the commit of a tree with changes that aren't committed.
    """

    network: str | None = None
    account: str | None = None
    tag: str | None = None
    image: str | None = None
    credential: str | None = None
    environment: tuple[str, ...] | None = None
    cluster_access: bool | None = None
    allow_dirty: bool = False


NO_OVERRIDES = Overrides()
"""Nothing was said on the command line."""
