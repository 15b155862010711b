"""Which cluster to talk to: what options, section, environment and the profile file choose."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from ape_silverback.cluster.auth.tokens import token_file
from ape_silverback.cluster.settings import (
    LOCAL_PROFILE,
    ClusterProfile,
    PlatformProfile,
    profile_path,
    read_profiles,
)
from ape_silverback.exceptions import NoClusterError, ProfileError

HOW_TO_GET_A_CLUSTER = """\
no cluster is configured. There are three ways to get one:
  - a local cluster on this machine:  ape silverback cluster up
  - a cluster with an address and a key: set SILVERBACK_CLUSTER_URI and SILVERBACK_CLUSTER_API_KEY,
    or add a profile to ~/.silverback/profile.toml and name it with --profile or `profile:` in the section:
        [profile.NAME]
        host = "https://…"
        api-key = "…"
  - the hosted platform (https://silverback.apeworx.io): log in with `ape silverback login`"""


@dataclass(frozen=True)
class Choice:
    """The profile to use.

    Attributes:
        name: its name, or ``environment``.
        profile: its content.
        origin: the option, key or variable that chose it.
    """

    name: str
    profile: PlatformProfile | ClusterProfile
    origin: str


def choose_profile(
    option: str | None = None,
    section: str | None = None,
    section_origin: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Choice:
    """Return the profile to use: of the option, the section, the environment, the file's default, the local cluster.

    Args:
        option: option ``--profile``.
        section: ``profile`` of the silverback section.
        section_origin: where that is written.
        environ: environment variables (default: the process's).

    Raises:
        NoClusterError: nothing names one; the text shows how to get a cluster.
        ProfileError: the one that is named isn't there, or the profile file is broken.
    """
    environ = os.environ if environ is None else environ
    uri, key = environ.get("SILVERBACK_CLUSTER_URI"), environ.get("SILVERBACK_CLUSTER_API_KEY")
    for name, origin in (
        (option, "option --profile"),
        (section, section_origin or "silverback.profile"),
        (environ.get("SILVERBACK_PROFILE"), "environment variable SILVERBACK_PROFILE"),
    ):
        if name:
            return _named(name, origin)
    if uri and key:
        try:
            profile = ClusterProfile(host=uri, api_key=key)
        except ValidationError as error:
            reason = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
            raise ProfileError(f"SILVERBACK_CLUSTER_API_KEY {reason}") from None
        return Choice("environment", profile, "environment variable SILVERBACK_CLUSTER_URI")
    if uri or key:
        there, missing = ("URI", "API_KEY") if uri else ("API_KEY", "URI")
        raise ProfileError(
            f"SILVERBACK_CLUSTER_{there} is set, but SILVERBACK_CLUSTER_{missing} is not; set both or neither"
        )

    settings = read_profiles()
    default = settings.profile.get(settings.default_profile)
    # Every file that the public SDK wrote has the platform's profile: it counts once a user has logged in.
    if isinstance(default, ClusterProfile) or (default and token_file(default.auth).exists()):
        return Choice(settings.default_profile, default, "the default profile")
    if LOCAL_PROFILE in settings.profile:
        return _named(LOCAL_PROFILE, "the local cluster, as nothing else is configured")
    raise NoClusterError(HOW_TO_GET_A_CLUSTER)


def choose_cluster(profile: PlatformProfile, option: str | None = None, section: str | None = None) -> tuple[str, str]:
    """Return the cluster of the platform to use: of the option, the section, the profile's defaults.

    Args:
        profile: the platform's profile.
        option: option ``--cluster``: ``WORKSPACE/NAME``, or ``NAME`` in the default workspace.
        section: ``cluster`` of the silverback section, likewise.

    Returns:
        The slugs of workspace and cluster.

    Raises:
        ProfileError: nothing names one.
    """
    given = option or section or ""
    workspace, _, name = given.rpartition("/")
    workspace = workspace or profile.default_workspace
    if not workspace:
        raise ProfileError(
            "no cluster is chosen: pass --cluster WORKSPACE/NAME, or set `cluster:` in the silverback section or "
            f"`default-workspace` in {profile_path()}"
        )
    name = name or profile.default_cluster.get(workspace, "")
    if not name or "/" in workspace:
        raise ProfileError(
            f"no cluster of workspace '{workspace}' is chosen: pass --cluster {workspace}/NAME, or set `cluster:` in "
            f"the silverback section or `default-cluster.{workspace}` in {profile_path()}"
        )
    return workspace, name


def danger_of(choice: Choice) -> str | None:
    """Return a warning if a profile's key would be sent over plain HTTP to another machine; None otherwise.

    Raises:
        ProfileError: its host isn't an address.
    """
    import httpx

    from ape_silverback.transport import is_loopback

    host = choice.profile.host.rpartition("@")[2]  # before that there could be a password
    try:
        url = httpx.URL(choice.profile.host)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ProfileError(
            f"profile '{choice.name}' ({choice.origin}): host '{host}' isn't an address such as https://cluster.example"
        )
    if url.scheme == "https" or is_loopback(url) or choice.profile.allow_insecure:
        return None
    return (
        f"{host} is plain HTTP: anyone on the network path can read the key. "
        "Use https, or set `allow-insecure = true` in the profile."
    )


def _named(name: str, origin: str) -> Choice:
    settings = read_profiles()
    if profile := settings.profile.get(name):
        return Choice(name, profile, origin)
    if name == LOCAL_PROFILE:
        raise ProfileError(f"the local cluster isn't running ({origin}); start one with `ape silverback cluster up`")
    known = ", ".join(sorted(settings.profile)) or "none"
    raise ProfileError(f"no profile '{name}' ({origin}) in {profile_path()}; it has: {known}")
