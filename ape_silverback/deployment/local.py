"""What this machine has of what a plan needs: values of variables, the project's code, digests of images."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from ape_silverback.config.private_keys import looks_like_private_key
from ape_silverback.deployment.state import Code, LocalState
from ape_silverback.exceptions import BuildError, FileError
from ape_silverback.files import silverback_folder, write_private
from ape_silverback.images.engine import image_digests
from ape_silverback.images.packages import is_required
from ape_silverback.project.desired import DesiredBot, DesiredState
from ape_silverback.project.discovery import split_project_image
from ape_silverback.project.imports import bot_code

KEY_FILE = "fingerprint.key"
CORE_ACCOUNTS = ("accounts", "test")
"""Plugins of Ape itself that have accounts."""


def read_local_state(
    desired: DesiredState,
    values: Mapping[str, str],
    allowed_empty: Iterable[str],
    *,
    runs_folder: bool,
    missing_plugins: Mapping[str, str],
) -> LocalState:
    """Read what this machine has.

    Args:
        desired: what the project wants.
        values: the values of variables that are at hand.
        allowed_empty: names of the variables whose value may be empty.
        runs_folder: whether the cluster runs the project's folder, in place of images.
        missing_plugins: as ``missing_plugins`` returns them.

    Raises:
        FileError: the key of the fingerprints can't be read or written.
    """
    empty = frozenset(name for name, value in values.items() if not value).difference(allowed_empty)
    return LocalState(
        values=fingerprints_of({name: value for name, value in values.items() if name not in empty}),
        empty=empty,
        code=_code_of(desired.bots) if runs_folder else {},
        digests={} if runs_folder else image_digests(bot.configuration.image for bot in desired.bots),
        private_keys=frozenset(name for name, value in values.items() if looks_like_private_key(value)),
        keyfiles=_keyfiles() if any(_is_own(bot.configuration.account) for bot in desired.bots) else {},
        missing_plugins=missing_plugins,
    )


def missing_plugins(project: Path, config: Path | None, bots: Iterable[DesiredBot]) -> dict[str, str]:
    """Return the bots whose account is of a plugin that the project doesn't require, with the plugin's package.

    Args:
        project: the project's folder.
        config: the configuration file that Ape reads there, if any.
        bots: those whose images are built of the project.
    """
    bots = [bot for bot in bots if _is_own(bot.configuration.account)]
    packages = _account_packages() if bots else {}
    found = {}
    for bot in bots:
        package = packages.get(bot.configuration.account or "")
        with suppress(BuildError):  # `build` reports it
            if package and not is_required(project, config, package):
                found[bot.name] = package
    return found


def _account_packages() -> dict[str, str]:
    """Return the package of each account that Ape has here by a plugin."""
    from ape.utils.basemodel import ManagerAccessMixin

    found: dict[str, str] = {}
    for plugin, container in ManagerAccessMixin.account_manager.containers.items():
        if plugin not in CORE_ACCOUNTS:
            with suppress(Exception):  # a plugin that can't list its accounts now
                found |= dict.fromkeys(map(str, container.aliases), f"ape-{plugin.replace('_', '-')}")
    return found


def _is_own(account: str | None) -> bool:
    return account is not None and not account.startswith("TEST::")


def _keyfiles() -> dict[str, str]:
    """Return the address of each account that Ape has here as a keyfile; its alias where the file can't be read."""
    from ape.utils.basemodel import ManagerAccessMixin
    from ape_accounts import KeyfileAccount

    found = {}
    for account in ManagerAccessMixin.account_manager.get_accounts_by_type(KeyfileAccount):
        alias = account.keyfile_path.stem
        try:
            found[alias] = str(account.keyfile["address"]).lower().removeprefix("0x")
        except (OSError, ValueError, LookupError, TypeError):
            found[alias] = alias
    return found


def fingerprints_of(values: Mapping[str, str]) -> dict[str, str]:
    """Return a fingerprint of each value, as ``KEY:DIGEST``, where ``KEY`` names the key that it was made with.

    The key never leaves this machine, or the cache of a CI that keeps ``~/.silverback/deployments``: without it a value
    can't be guessed from its fingerprint.

    Raises:
        FileError: the key can't be read or written.
    """
    if not values:
        return {}
    key = _key()
    name = hashlib.sha256(key).hexdigest()[:8]
    return {
        variable: f"{name}:{hmac.digest(key, f'{variable}={value}'.encode(), 'sha256').hex()[:32]}"
        for variable, value in values.items()
    }


def _key() -> bytes:
    """Return the key of the fingerprints; it is made at its first use."""
    file = silverback_folder() / "deployments" / KEY_FILE
    try:
        if file.exists():
            return bytes.fromhex(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise FileError(f"{file}: can't be read: {error}; remove it to have a new key") from None
    key = secrets.token_bytes(32)
    write_private(file, key.hex())
    return key


def _code_of(bots: Iterable[DesiredBot]) -> dict[str, Code]:
    """Return the files that bots run with: their modules, and what these import of the project."""
    seen: dict[Path, tuple[bytes, float]] = {}

    def read(file: Path) -> tuple[bytes, float]:
        if file not in seen:
            seen[file] = hashlib.sha256(file.read_bytes()).digest(), file.stat().st_mtime
        return seen[file]

    found = {}
    for bot in bots:
        if (split := split_project_image(bot.configuration.image)) is None:
            continue
        project, _ = split
        try:
            contents = [(file.relative_to(project).as_posix(), *read(file)) for file in bot_code(project, bot.module)]
        except OSError:  # it went away: the bot's start will fail with the reason
            continue
        digest = hashlib.sha256(repr([(name, content) for name, content, _ in contents]).encode()).hexdigest()[:32]
        newest = max((modified for _, _, modified in contents), default=0.0)
        found[bot.name] = Code(digest, datetime.fromtimestamp(newest, timezone.utc))
    return found
