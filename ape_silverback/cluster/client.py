"""The names of the reference module ``silverback.cluster.client``, and the clients for a chosen profile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ape.logging import logger

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.choice import danger_of
from ape_silverback.cluster.cluster import (
    NO_CHANGE,
    Bot,
    ClusterClient,
    RegistryCredentials,
    RemovedBot,
    VariableGroup,
)
from ape_silverback.cluster.settings import ClusterProfile, PlatformProfile

if TYPE_CHECKING:
    from ape_silverback.cluster.choice import Choice
    from ape_silverback.cluster.platform import PlatformClient, Workspace

__all__ = [
    "NO_CHANGE",
    "Bot",
    "ClusterClient",
    "PlatformClient",
    "RegistryCredentials",
    "RemovedBot",
    "VariableGroup",
    "Workspace",
    "connect",
    "connect_platform",
]

_warned: set[str] = set()


def connect(
    choice: Choice, warn: Callable[[str], None] = logger.warning, patience: float | None = None
) -> ClusterClient:
    """Return the client for a profile of one cluster.

    Args:
        choice: the profile.
        warn: called with a warning about the profile, once in a process.
        patience: seconds for one attempt only; None for the usual time and attempts.

    Raises:
        ProfileError: the profile's host isn't an address.
    """
    profile = choice.profile
    assert isinstance(profile, ClusterProfile)  # noqa: S101 - the caller looks
    hint = f"check `api-key` of profile '{choice.name}'"
    if choice.name == "environment":
        hint = "check SILVERBACK_CLUSTER_API_KEY"
    _warn_once(choice, warn)
    headers = {"X-API-Key": profile.api_key}
    return ClusterClient(base_url=profile.host, headers=headers, hint=hint, **_impatient(patience))


def connect_platform(
    choice: Choice, warn: Callable[[str], None] = logger.warning, patience: float | None = None
) -> PlatformClient:
    """Return the client for a profile of the platform.

    Args:
        choice: the profile.
        warn: as for ``connect``.
        patience: as for ``connect``.

    Raises:
        ProfileError: as for ``connect``.
        Unauthorized: not logged in to the platform.
    """
    from ape_silverback.cluster.auth.session import PlatformSession
    from ape_silverback.cluster.auth.tokens import LOG_IN
    from ape_silverback.cluster.platform import PlatformClient

    profile = choice.profile
    assert isinstance(profile, PlatformProfile)  # noqa: S101 - the caller looks
    _warn_once(choice, warn)
    session = PlatformSession.of(profile.auth)
    session.access_token()  # not being logged in is an error before anything is requested
    return PlatformClient(base_url=profile.host, auth=session, hint=f"{LOG_IN} again", **_impatient(patience))


def __getattr__(name: str) -> Any:
    if name in ("PlatformClient", "Workspace"):  # which nothing on a cluster needs
        from ape_silverback.cluster import platform

        return getattr(platform, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _warn_once(choice: Choice, warn: Callable[[str], None]) -> None:
    if (danger := danger_of(choice)) and danger not in _warned:
        _warned.add(danger)
        warn(danger)


def _impatient(patience: float | None) -> dict[str, Any]:
    if patience is None:
        return {}
    return {"timeout": patience, "retries": Retries(attempts=1, deadline=patience)}
