"""The profile file, which is shared with the public SDK.

The file is ``~/.silverback/profile.toml``. It holds keys, so it is written with mode 0600, as a whole or not at all, by
one writer at a time. What the user wrote in it (comments, order, unknown keys) stays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ape_silverback.cluster.header_values import header_value
from ape_silverback.exceptions import ProfileError
from ape_silverback.files import locked, silverback_folder, write_private

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from typing_extensions import Self

DEFAULT_PROFILE = "default"
LOCAL_PROFILE = "local"
"""The profile that ``ape silverback cluster up`` writes."""

PLATFORM_HOST = "https://silverback.apeworx.io"
CURRENT_CLIENT_ID = "c9f9be0e-1f0a-474c-b79e-319778b37ae6"
"""Id of the command line at today's sign-in service; the class keeps the reference's default."""

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another writer of the profile file."""


class _Part(BaseModel):
    # An error must not show a key.
    model_config = ConfigDict(populate_by_name=True, hide_input_in_errors=True, defer_build=True)


class AuthenticationConfig(_Part):
    """Authentication host configuration information (~/.silverback/profile.toml)."""

    host: str = "https://account.apeworx.io"
    client_id: str = Field(default="lcylrp34lnggGO-E-KKlMJgvAI4Q2Jhf6U2G6CB5uMg", alias="client-id")


class BaseProfile(_Part):
    """Profile information (~/.silverback/profile.toml)."""

    host: Annotated[str, AfterValidator(str.strip)]
    allow_insecure: bool = Field(default=False, alias="allow-insecure")
    """Whether a key may be sent over plain HTTP to another machine. Not in the reference."""


class ClusterProfile(BaseProfile):
    """Profile of a cluster that is reached directly, with an API key."""

    api_key: Annotated[str, AfterValidator(header_value)] = Field(alias="api-key", repr=False)


class PlatformProfile(BaseProfile):
    """Profile of the platform, with the clusters of its workspaces."""

    auth: str
    default_workspace: str = Field(default="", alias="default-workspace")
    default_cluster: dict[str, str] = Field(default_factory=dict, alias="default-cluster")


class ProfileSettings(_Part):
    """Configuration settings for working with Bot Clusters and the Silverback Platform."""

    auth: dict[str, AuthenticationConfig]
    profile: dict[str, PlatformProfile | ClusterProfile]
    default_profile: str = Field(default=DEFAULT_PROFILE, alias="default-profile")

    @model_validator(mode="after")
    def _know_every_auth(self) -> Self:
        for name, profile in self.profile.items():
            if isinstance(profile, PlatformProfile) and profile.auth not in self.auth:
                known = ", ".join(self.auth) or "none"
                text = f"profile.{name}.auth names '{profile.auth}', but [auth] has: {known}"
                raise PydanticCustomError("unknown_auth", "{text}", {"text": text, "keys": ("profile", name, "auth")})
        return self

    @classmethod
    def from_config_file(cls) -> ProfileSettings:
        """Read the profile file; without one, write the defaults first, as the public SDK does.

        Raises:
            ProfileError: the file is broken.
            FileError: it can't be written.
        """
        if not profile_path().exists():
            _change(lambda _: None)  # a new document holds the defaults
        return read_profiles()


def profile_path() -> Path:
    """Return the path of the profile file."""
    return silverback_folder() / "profile.toml"


def read_profiles() -> ProfileSettings:
    """Read the profile file without writing anything; a missing file has no profiles.

    Raises:
        ProfileError: the file is broken; names file, line and key.
    """
    path = profile_path()
    text = _read_text(path)
    return ProfileSettings(auth={}, profile={}) if text is None else _settings_of(_content_of(text, path), text, path)


def _settings_of(content: dict[str, Any], text: str, path: Path) -> ProfileSettings:
    content = _hyphenated(content)
    try:
        return ProfileSettings.model_validate({"auth": {}, "profile": {}, **content})
    except ValidationError as error:
        from ape_silverback.toml_lines import toml_lines

        raise ProfileError("\n".join(_problems(path, content, toml_lines(text), error))) from None


def save_profile(
    name: str, profile: PlatformProfile | ClusterProfile, auth: AuthenticationConfig | None = None
) -> None:
    """Write one profile into the file, and leave the rest as it is.

    Args:
        name: of the profile.
        profile: its content.
        auth: the authentication that it names, to be written too.

    Raises:
        ProfileError: the file is broken.
        FileError: it can't be written.
    """
    import tomlkit

    def change(content: MutableMapping[str, Any]) -> None:
        parts: list[tuple[str, str, BaseModel]] = [("profile", name, profile)]
        if auth and isinstance(profile, PlatformProfile):
            parts.insert(0, ("auth", profile.auth, auth))
        for kind, key, values in parts:
            tables = content.setdefault(kind, tomlkit.table(is_super_table=True))
            tables.setdefault(key, tomlkit.table()).update(values.model_dump(by_alias=True, exclude_defaults=True))

    _change(change)


def remove_profile(name: str, auth: str | None = None) -> None:
    """Remove one profile from the file, if it is there.

    Args:
        name: of the profile.
        auth: name of an authentication to remove with it, which no other profile names.

    Raises:
        ProfileError: the file is broken.
        FileError: it can't be written.
    """
    if name not in read_profiles().profile:
        return

    def change(content: MutableMapping[str, Any]) -> None:
        content.get("profile", {}).pop(name, None)
        if auth:
            content.get("auth", {}).pop(auth, None)

    _change(change)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ProfileError(f"{path}: invalid TOML: {error}") from None
    except OSError as error:
        raise ProfileError(f"{path}: can't be read: {error.strerror}") from None


def _content_of(text: str, path: Path) -> dict[str, Any]:
    """Parse a file that is only read. The standard library's parser needs a tenth of tomlkit's time."""
    if sys.version_info >= (3, 11):
        import tomllib

        with suppress(tomllib.TOMLDecodeError):  # tomlkit's error names the line
            return tomllib.loads(text)
    return _document_of(text, path).unwrap()


def _document_of(text: str, path: Path) -> TOMLDocument:
    """Parse a file that is to be changed."""
    import tomlkit
    from tomlkit.exceptions import ParseError, TOMLKitError

    try:
        return tomlkit.parse(text)
    except ParseError as error:
        raise ProfileError(f"{path}:{error.line}: invalid TOML: {error}") from None
    except (TOMLKitError, ValueError) as error:
        raise ProfileError(f"{path}: invalid TOML: {error}") from None


def _defaults() -> TOMLDocument:
    """Return what a new file holds, as the public SDK writes it."""
    import tomlkit

    document = tomlkit.document()
    auth = AuthenticationConfig(client_id=CURRENT_CLIENT_ID)
    platform = PlatformProfile(host=PLATFORM_HOST, auth=DEFAULT_PROFILE)
    document["auth"] = {DEFAULT_PROFILE: auth.model_dump(by_alias=True)}
    document["profile"] = {
        DEFAULT_PROFILE: platform.model_dump(by_alias=True, exclude={"allow_insecure", "default_cluster"})
    }
    return document


def _change(change: Callable[[MutableMapping[str, Any]], object]) -> None:
    """Change the file's content and write it back, with no other writer at the same time.

    TOML has more ways to write a table than tomlkit can add to: the result is read again before the file is replaced,
    so that nothing in it is lost.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = profile_path()
    with locked(path.with_suffix(".lock"), LOCK_TIMEOUT):
        before = _read_text(path)
        document = _document_of(before, path) if before else _defaults()
        expected = document.unwrap()
        _settings_of(expected, before or "", path)
        change(expected)
        try:
            change(document)
            text = document.as_string()
            is_right = tomlkit.parse(text).unwrap() == expected
        except (TOMLKitError, ValueError, TypeError):
            is_right = False
        if not is_right:
            raise ProfileError(
                f"{path}: a profile can't be added to a file written like this; write each as [profile.NAME]"
            )
        write_private(path, text)


def _hyphenated(content: Any) -> Any:
    """Return a file's content with the models' keys hyphenated; names of profiles and workspaces stay."""

    def part(values: Any) -> Any:
        return {key.replace("_", "-"): value for key, value in values.items()} if isinstance(values, dict) else values

    content = part(content)
    for key in ("auth", "profile"):
        if isinstance(content.get(key), dict):
            content[key] = {name: part(values) for name, values in content[key].items()}
    return content


def _problems(path: Path, content: Any, lines: Mapping[tuple[str, ...], int], error: ValidationError) -> list[str]:
    """Return pydantic's findings, each with file, line and key."""
    found: dict[str, None] = {}
    for detail in error.errors(include_url=False, include_input=False):
        reason = detail["msg"].removeprefix("Value error, ")
        keys = tuple(str(key) for key in detail["loc"])
        if keys[:1] == ("profile",) and len(keys) > 3:  # profile, name, class that was tried, key
            values = content["profile"][keys[1]]
            if not {"api-key", "auth"} & set(values):
                keys, message = (
                    keys[:2],
                    f"{'.'.join(keys[:2])}: needs `api-key`, or `auth` for a profile of the platform",
                )
            elif keys[2] != ("ClusterProfile" if "api-key" in values else "PlatformProfile"):
                continue
            else:
                keys, message = (*keys[:2], *keys[3:]), f"{'.'.join((*keys[:2], *keys[3:]))}: {reason}"
        elif keys[:1] == ("profile",) and len(keys) == 3:
            keys, message = keys[:2], f"{'.'.join(keys[:2])}: expected keys and values"
        else:
            message = f"{'.'.join(keys)}: {reason}" if keys else reason
            keys = detail.get("ctx", {}).get("keys", keys)
        line = next((lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in lines), 1)
        found[f"{path}:{line}: {message}"] = None
    return list(found)
