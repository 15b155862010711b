"""What a project wants on a cluster: plain, frozen values. ``project`` makes them, ``deployment`` uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ape_silverback.cluster.types import BotConfiguration


@dataclass(frozen=True)
class DesiredBot:
    """One bot as it should be on the cluster.

    Attributes:
        name: its name on the cluster.
        origin: what says that the project has this bot.
        module: what ``silverback run`` takes to run it in the project's folder.
        configuration: what is deployed of it.
        origins: field of the configuration → where its value came from.
        protect: whether a deployment that no longer has it may not remove it.
        renamed_from: names that it had on the cluster before, the latest first.
        family: name in the section of a bot that runs on several networks, of which this is one.
    """

    name: str
    origin: str
    module: str
    configuration: BotConfiguration
    origins: Mapping[str, str]
    protect: bool = False
    renamed_from: tuple[str, ...] = ()
    family: str | None = None


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
    """Values for all bots of one run, from the command line or from code. They win over every file.

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
"""No value is given for this run."""
