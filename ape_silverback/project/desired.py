"""What a project wants on a cluster: plain, frozen values. ``project`` makes them, ``deployment`` uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from ape_silverback.cluster.types import BotConfiguration


@dataclass(frozen=True)
class DesiredBot:
    """One bot as it should be on the cluster.

    Attributes:
        name: its name on the cluster.
        origin: where the project declares this bot.
        module: what ``silverback run`` takes to run it in the project's folder.
        configuration: what is deployed of it.
        origins: field of the configuration → where its value came from.
        protect: whether a deployment that no longer has it may not remove it.
        share_account: whether it may sign with an account that another bot uses on the same network.
        renamed_from: names that it had on the cluster before, the latest first.
        family: bot of the section that it is one of, when that runs on several networks.
        id: its id on the cluster, when an earlier deployment is restored.
    """

    name: str
    origin: str
    module: str
    configuration: BotConfiguration
    origins: Mapping[str, str]
    protect: bool = False
    share_account: bool = False
    renamed_from: tuple[str, ...] = ()
    family: str | None = None
    id: UUID | None = None


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
        project: name of the project.
        bots: those that were selected.
        groups: the declared groups that these bots use.
        identity: identifies the project; names needn't be unique.
        target: target of the section.
        selected: names or globs that selected the bots; nothing for all of them.
        names: all bots that the project has for the target, selected or not.
        group_names: all variable groups that it declares for the target, used or not.
        restores: number of the earlier deployment that this is; None for what the project wants now.
        strict: whether a variable whose value looks like a private key is refused.
        warnings: what is worth knowing but stops nothing, a line each.
    """

    project: str
    folder: Path
    bots: tuple[DesiredBot, ...]
    groups: tuple[DesiredGroup, ...]
    warnings: tuple[str, ...] = ()
    identity: str = ""
    target: str | None = None
    selected: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    group_names: frozenset[str] = frozenset()
    restores: int | None = None
    strict: bool = False

    @property
    def every_name(self) -> frozenset[str]:
        """Names of all bots that the project has for the target."""
        return self.names | {bot.name for bot in self.bots}


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
