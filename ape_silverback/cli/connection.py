"""Which cluster a command talks to, and the options that say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from ape.cli import verbosity_option

from ape_silverback.cli.output import warn

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient
    from ape_silverback.project import ClusterKind
    from ape_silverback.section import SectionReading

Function = TypeVar("Function", bound=Callable[..., Any])


def cluster_options(function: Function) -> Function:
    """Add the options that every command has which talks to a cluster."""
    options = (
        verbosity_option(),
        click.option(
            "-c",
            "--cluster",
            metavar="WORKSPACE/NAME",
            help="The cluster of the platform to talk to.",
        ),
        click.option("-p", "--profile", metavar="PROFILE", help="The profile to use, of ~/.silverback/profile.toml."),
    )
    for option in options:
        function = option(function)
    return function


@dataclass(frozen=True)
class Connection:
    """A cluster that was chosen, and the client for it.

    Attributes:
        label: how to call the cluster in what users read.
        is_platform: whether it belongs to the hosted platform.
    """

    client: ClusterClient
    label: str
    is_platform: bool

    def kind(self) -> ClusterKind:
        """Say what kind of cluster it is. A cluster that isn't the platform's is asked."""
        if self.is_platform:
            return "platform"
        return "local" if self.client.runtime else "direct"


@contextmanager
def connected(
    profile: str | None, cluster: str | None, reading: SectionReading | None = None, target: str | None = None
) -> Iterator[Connection]:
    """Connect to the cluster that options, section, environment and profile file choose.

    Args:
        profile: option ``--profile``.
        cluster: option ``--cluster``.
        reading: the section, when it is read already.
        target: name of a target of the section whose profile and cluster win over the section's.

    Raises:
        NoClusterError: nothing chooses a cluster.
        ProfileError: the profile or the cluster isn't known.
    """
    from ape_silverback.cluster.client import connect
    from ape_silverback.cluster.settings import PlatformProfile, choose_cluster, choose_profile
    from ape_silverback.section import read_section

    reading = reading or read_section(Path.cwd())
    section_profile, origin = _of_section(reading, target, "profile")
    section_cluster, _ = _of_section(reading, target, "cluster")
    choice = choose_profile(profile, section_profile, origin)
    path = None
    if isinstance(choice.profile, PlatformProfile):
        path = choose_cluster(choice.profile, cluster, section_cluster)
    label = f"{'/'.join(path)} on {choice.profile.host}" if path else f"{choice.name} ({choice.profile.host})"
    with connect(choice, path, warn) as client:
        yield Connection(client, label, is_platform=path is not None)


def _of_section(reading: SectionReading, target: str | None, key: str) -> tuple[str | None, str | None]:
    """Give a key of the target, else of the section, and its place."""
    wanted = reading.section.targets.get(target) if target else None
    if value := getattr(wanted, key, None):
        return value, f"targets.{target}.{key} in {reading.place_of('targets', str(target), key)}"
    if value := getattr(reading.section, key):
        return value, f"silverback.{key} in {reading.place_of(key)}"
    return None, None
