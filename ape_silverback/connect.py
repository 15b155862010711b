"""Connecting to the cluster or platform that options, section, environment and profile file choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ape.logging import logger

if TYPE_CHECKING:
    import httpx

    from ape_silverback.cluster.choice import Choice
    from ape_silverback.cluster.client import ClusterClient, PlatformClient, Workspace
    from ape_silverback.cluster.settings import PlatformProfile
    from ape_silverback.cluster.types import ClusterInfo, ClusterKind
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.exceptions import ProfileError


READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class WriteGuard:
    """Keeps a client from sending anything but reads until it is opened: a hook for the requests of httpx.

    A cluster gets nothing before its payment stream is verified. ``stream.gate.open_for_writing`` opens the guard, so a
    command that writes and forgot to verify fails here and sends nothing.
    """

    def __init__(self) -> None:
        self._open = False

    def open(self) -> None:
        """Allow writes from now on."""
        self._open = True

    def __call__(self, request: httpx.Request) -> None:
        """Check a request before it is sent.

        Raises:
            StreamError: it writes, and the guard isn't open.
        """
        from ape_silverback.exceptions import StreamError

        if not self._open and request.method not in READING_METHODS:
            raise StreamError(
                f"{request.method} {request.url.path} wasn't sent: the payment stream isn't verified yet; call "
                "`ape_silverback.stream.gate.open_for_writing` first"
            )


@dataclass(frozen=True)
class Connection:
    """A cluster that was chosen, and the client for it.

    Attributes:
        client: of the cluster.
        label: what users read as the cluster's name.
        profile: name of the profile that was chosen.
        host: address that the profile names.
        path: slugs of workspace and cluster, for a cluster of the platform.
        platform: client of the platform, for a cluster of it.
        guard: what keeps the client from writing; None for a client that was made elsewhere.
    """

    client: ClusterClient
    label: str
    profile: str
    host: str
    path: tuple[str, str] | None = None
    platform: PlatformClient | None = None
    guard: WriteGuard | None = None

    @classmethod
    def of(cls, client: ClusterClient) -> Connection:
        """Return the connection of a client that was made directly."""
        from ape_silverback.cluster.http_errors import public_url

        address = public_url(client.base_url).rstrip("/")
        return cls(client, address, "", address)

    @property
    def is_platform(self) -> bool:
        """Whether it belongs to the hosted platform."""
        return self.path is not None

    def record(self) -> tuple[Workspace, ClusterInfo]:
        """Return the platform's record of the cluster.

        Raises:
            ProfileError: the workspace or cluster doesn't exist.
        """
        assert self.platform is not None  # noqa: S101 - for a cluster of the platform only
        assert self.path is not None  # noqa: S101
        return find_cluster(self.platform, *self.path)

    @property
    def identity(self) -> str:
        """What identifies the cluster under every profile and address: its id, where it announces one."""
        return str(self.client.cluster_id or self.address)

    @property
    def address(self) -> str:
        """Address of the cluster as records name it, the same on every run although the local one changes its port."""
        if self.path is not None:
            return f"{self.host.rstrip('/')}/c/{'/'.join(self.path)}"
        return "local" if self.kind() in ("local", "engine") else self.host.rstrip("/")

    def kind(self) -> ClusterKind:
        """Return what kind of cluster it is. Unless it is hosted, ask it whether it runs this machine's folders."""
        from ape_silverback.transport import is_loopback

        if self.is_platform and not is_loopback(self.client.base_url):
            return "platform"
        if self.client.runtime == "process":
            return "local"
        if self.client.runtime == "docker" and is_loopback(self.client.base_url):
            return "engine"
        return "platform" if self.is_platform else "direct"


@dataclass(frozen=True)
class PlatformConnection:
    """The platform, and the client for it."""

    client: PlatformClient
    profile: PlatformProfile


@contextmanager
def connected(
    profile: str | None,
    cluster: str | None,
    reading: SectionReading | None = None,
    target: str | None = None,
    patience: float | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[Connection]:
    """Connect to the cluster that options, section, environment and profile file choose, to read from it.

    ``ape_silverback.stream.gate.open_for_writing`` verifies its payment stream and lets the client write.

    Args:
        profile: option ``--profile``.
        cluster: option ``--cluster``.
        reading: the section, if it has been read.
        target: name of a target of the section whose profile and cluster win over the section's.
        patience: seconds for one attempt only; None for the usual time and attempts.
        warn: called with a warning about the profile.

    Raises:
        NoClusterError: no cluster is configured.
        ProfileError: the profile or the cluster isn't known, or the profile is of one cluster and another is named.
    """
    from ape_silverback.cluster.client import connect, connect_platform
    from ape_silverback.cluster.settings import PlatformProfile
    from ape_silverback.exceptions import ClusterError, NotFound

    reading = reading or read_section_here()
    choice = _choose(profile, reading, target)
    section_cluster, _ = _of_section(reading, target, "cluster")
    host = choice.profile.host
    if not isinstance(choice.profile, PlatformProfile):
        if cluster:
            raise _not_of_the_platform(choice, f"--cluster {cluster} doesn't apply")
        with connect(choice, warn=warn, patience=patience) as client:
            yield _guarded(Connection(client, f"{choice.name} ({host})", choice.name, host))
        return
    with connect_platform(choice, warn, patience) as above:
        path = _path(above, choice.profile, cluster, section_cluster)
        with above.cluster_client(*path) as client:
            try:
                label = f"{'/'.join(path)} on {host}"
                yield _guarded(Connection(client, label, choice.name, host, path, above))
            except NotFound:
                with suppress(ClusterError):
                    find_cluster(above, *path)  # a better error, if it is the cluster itself that is missing
                raise


def _guarded(connection: Connection) -> Connection:
    """Return the connection with a client that only reads until the guard is opened."""
    guard = WriteGuard()
    connection.client.event_hooks["request"].append(guard)
    return replace(connection, guard=guard)


def read_choice(profile: str | None, cluster: str | None) -> tuple[Choice, str | None]:
    """Return the profile and the name of the cluster, if one is named, that ``connected`` would choose; asks nobody.

    Raises:
        NoClusterError: no cluster is configured.
        ProfileError: the profile isn't known.
    """
    reading = read_section_here()
    return _choose(profile, reading, None), cluster or _of_section(reading, None, "cluster")[0]


@contextmanager
def platform(
    profile: str | None,
    reading: SectionReading | None = None,
    target: str | None = None,
    patience: float | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[PlatformConnection]:
    """Connect to the platform that options, section, environment and profile file choose.

    Args:
        profile: option ``--profile``.
        reading: as for ``connected``; likewise the others.
        target: name of a target of the section whose profile wins over the section's.
        patience: seconds for one attempt only; None for the usual time and attempts.
        warn: called with a warning about the profile.

    Raises:
        ProfileError: the profile isn't known, or isn't of the platform.
    """
    from ape_silverback.cluster.client import connect_platform
    from ape_silverback.cluster.settings import PlatformProfile

    choice = _choose(profile, reading or read_section_here(), target)
    if not isinstance(choice.profile, PlatformProfile):
        raise _not_of_the_platform(choice, "only the platform has workspaces and clusters")
    with connect_platform(choice, warn, patience) as client:
        yield PlatformConnection(client, choice.profile)


def find_cluster(client: PlatformClient, workspace: str, name: str) -> tuple[Workspace, ClusterInfo]:
    """Return a cluster of the platform, with its workspace, by their slugs.

    Raises:
        ProfileError: the workspace or cluster doesn't exist; names those that do.
    """
    space = client.workspace(workspace)
    return space, space.cluster_named(name)


def _not_of_the_platform(choice: Choice, why: str) -> ProfileError:
    """Return the error for a profile of one cluster, which names those of the platform."""
    from ape_silverback.cluster.settings import PlatformProfile, read_profiles
    from ape_silverback.exceptions import ProfileError

    there = [name for name, one in read_profiles().profile.items() if isinstance(one, PlatformProfile)]
    return ProfileError(
        f"profile '{choice.name}' ({choice.origin}) is of one cluster; {why}. Profiles of the platform: "
        f"{', '.join(there) or 'none; `ape silverback login` adds one'}"
    )


def cluster_paths(client: PlatformClient) -> list[str]:
    """Return the clusters of the platform, as ``WORKSPACE/NAME``."""
    return [f"{space.slug}/{name}" for space in client.workspaces.values() for name in space.clusters]


def read_section_here() -> SectionReading:
    """Read the section of the project in the current folder."""
    from ape_silverback.config.reader import read_section

    return read_section(Path.cwd())


def _path(client: PlatformClient, profile: PlatformProfile, option: str | None, section: str | None) -> tuple[str, str]:
    """Return the slugs of the cluster to use; an error names all clusters, if the platform lists them."""
    from ape_silverback.cluster.choice import choose_cluster
    from ape_silverback.exceptions import ClusterError, ProfileError

    try:
        return choose_cluster(profile, option, section)
    except ProfileError as error:
        with suppress(ClusterError):
            known = ", ".join(sorted(cluster_paths(client))) or "none; `ape silverback cluster new` creates one"
            raise ProfileError(f"{error}. Clusters: {known}") from None
        raise


def _choose(profile: str | None, reading: SectionReading, target: str | None) -> Choice:
    from ape_silverback.cluster.choice import choose_profile

    return choose_profile(profile, *_of_section(reading, target, "profile"))


def _of_section(reading: SectionReading, target: str | None, key: str) -> tuple[str | None, str | None]:
    """Return a value of the target, else of the section, and where it is written.

    Raises:
        ProfileError: it refers to a variable that isn't set.
    """
    from ape_silverback.config.reader import unset_variables
    from ape_silverback.exceptions import ProfileError

    if value := getattr(reading.target(target), key, None):
        place = f"targets.{target}.{key} in {reading.place_of('targets', str(target), key)}"
    elif value := getattr(reading.section, key):
        place = f"silverback.{key} in {reading.place_of(key)}"
    else:
        return None, None
    if unset := unset_variables(value):
        raise ProfileError(f"{place}: environment variable {unset[0]} isn't set")
    return value, place
