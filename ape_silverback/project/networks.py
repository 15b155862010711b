"""A network choice, resolved by Ape's own rules without connecting to anything.

A choice is ``ecosystem:network:provider`` with any part left out, as Ape's ``--network`` takes it. What is left out
comes from the next place that gives it, and at last from Ape: the default ecosystem, its default network, that
network's default provider. Every part has its origin. Nothing here knows bots or clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.providers import first_installed, is_installed
from ape_silverback.suggestions import did_you_mean

if TYPE_CHECKING:
    from ape.api.networks import EcosystemAPI, NetworkAPI

ADHOC_SCHEMES = ("http://", "https://", "ws://", "wss://")


@dataclass(frozen=True)
class Sourced:
    """A text and where it came from."""

    value: str
    origin: str


@dataclass(frozen=True)
class ResolvedNetwork:
    """Where a bot runs, part by part, with what a deployment must know about it.

    Attributes:
        is_local: the ``local`` network, a development chain on one machine.
        is_fork: a fork, which lives inside the provider that makes it.
        is_adhoc: the provider is a URL or an IPC path instead of a name, or the network is Ape's ``custom``.
        warnings: what doesn't stop a deployment but is worth knowing, a line each.
    """

    ecosystem: Sourced
    network: Sourced
    provider: Sourced
    is_local: bool
    is_fork: bool
    is_adhoc: bool
    warnings: tuple[str, ...] = ()

    @property
    def choice(self) -> str:
        """The whole choice, ``ecosystem:network:provider``."""
        return f"{self.ecosystem.value}:{self.network.value}:{self.provider.value}"


@dataclass(frozen=True)
class ConfigurationFiles:
    """What Ape's configuration files declare, to distinguish a declared default from Ape's own.

    Attributes:
        contents: (name to show, parsed content) of each file, the one that wins first.
        environ: the process's environment, where ``APE_…`` variables may set what no file does.
    """

    contents: tuple[tuple[str, Mapping[str, Any]], ...]
    environ: Mapping[str, str]

    @classmethod
    def read(cls, project_file: Path | None, environ: Mapping[str, str]) -> ConfigurationFiles:
        """Read the project's file and Ape's global one through Ape's own loader."""
        from ape.utils.basemodel import ManagerAccessMixin
        from ape.utils.misc import load_config

        global_file = ManagerAccessMixin.config_manager.DATA_FOLDER / "ape-config.yaml"
        files = [(project_file.name, project_file)] if project_file else []
        files.append((f"the global {global_file.name}", global_file))
        return cls(tuple((name, load_config(path)) for name, path in files), environ)

    def declaring(self, *path: str) -> str | None:
        """Return the place that declares a key, as ``ethereum.default_network in ape-config.yaml``, or None."""
        for name, content in self.contents:
            if _follow(content, path) is not None:
                return f"{'.'.join(path)} in {name}"
        variable = "APE_" + "_".join(path).upper().replace("-", "_")
        return f"environment variable {variable}" if self.environ.get(variable) else None

    def declared(self, *path: str) -> Any:
        """Return the declared value of a key, or None."""
        for _, content in self.contents:
            if (value := _follow(content, path)) is not None:
                return value
        return None


def _follow(content: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(content, Mapping):
            return None
        spelled = {str(name).replace("-", "_"): value for name, value in content.items()}
        content = spelled.get(key.replace("-", "_"))
    return content


def split_choice(given: Sourced) -> tuple[str, str, str]:
    """Split a choice into ecosystem, network and provider; a part left out is empty.

    Raises:
        ResolutionError: it isn't a valid choice, or it names a process of this machine.
    """
    text = given.value.strip()
    if text.startswith("pid://"):
        raise ResolutionError(f"{text!r} ({given.origin}) names a process of this machine, not a network for a bot")
    if text.startswith(ADHOC_SCHEMES) or (text.endswith(".ipc") and ":" not in text):
        # Ape's reading of a bare URL: an unknown network of the ethereum ecosystem.
        return "ethereum", "custom", text
    ecosystem, _, rest = text.partition(":")
    network, _, provider = rest.partition(":")
    if provider.startswith(ADHOC_SCHEMES):
        network = network or "custom"
    elif ":" in provider or any(character.isspace() for character in text):
        raise ResolutionError(f"{text!r} ({given.origin}) isn't a valid network: expected 'ecosystem:network:provider'")
    return ecosystem, network, provider


def combine(givens: Iterable[Sourced]) -> tuple[Sourced | None, Sourced | None, Sourced | None]:
    """Lay choices over each other, the first one winning.

    A later choice fills in only what lies to the left of what is there already: a provider belongs to a network and a
    network to an ecosystem, so ``arbitrum`` over ``ethereum:sepolia:alchemy`` doesn't become ``arbitrum:sepolia``.
    """
    parts: list[Sourced | None] = [None, None, None]
    open_parts = 3  # how many parts, from the left, may still be filled in
    for given in givens:
        texts = split_choice(given)
        places = [place for place in range(open_parts) if texts[place]]
        for place in places:
            parts[place] = Sourced(texts[place], given.origin)
        if places:
            open_parts = places[0]
    return parts[0], parts[1], parts[2]


def resolve_network(givens: Sequence[Sourced], files: ConfigurationFiles) -> ResolvedNetwork:
    """Resolve a network from what is given, the most important first, and Ape's defaults. Connects to nothing.

    Args:
        givens: choices with their origins; may be empty.
        files: what Ape's configuration files declare.

    Raises:
        ResolutionError: Ape doesn't know the ecosystem or the network, or has no provider for it.
    """
    ecosystem, network, provider = combine(givens)
    ecosystem = ecosystem or _default_ecosystem(files)
    ecosystem_api = _ecosystem(ecosystem)
    network = network or _default_network(ecosystem_api, files)
    network_api = _network(ecosystem_api, network)
    provider = provider or _default_provider(network_api, files)

    is_url = provider.value.startswith(ADHOC_SCHEMES) or provider.value.endswith(".ipc")
    warnings = []
    if not is_url and not is_installed(network_api, provider.value):
        warnings.append(
            f"provider '{provider.value}' ({provider.origin}) isn't installed here for "
            f"{ecosystem_api.name}:{network_api.name}; it must be where the bot runs "
            f"(plugin 'ape-{provider.value}')"
        )
    if network_api.is_local and provider.value == "test":
        warnings.append(
            f"provider 'test' ({provider.origin}) is a chain in the bot's own process, which nothing else can reach; "
            "use one that runs in another process, such as 'ethereum:local:foundry'"
        )
    return ResolvedNetwork(
        ecosystem=Sourced(ecosystem_api.name, ecosystem.origin),
        network=Sourced(network_api.name, network.origin),
        provider=provider,
        is_local=network_api.is_local,
        is_fork=network_api.is_fork,
        is_adhoc=is_url or network_api.is_adhoc,
        warnings=tuple(warnings),
    )


def _default_ecosystem(files: ConfigurationFiles) -> Sourced:
    from ape.utils.basemodel import ManagerAccessMixin

    manager = ManagerAccessMixin.network_manager
    name = manager.default_ecosystem_name
    if manager._default_ecosystem_name:
        return Sourced(name, "set as Ape's default ecosystem by code")
    if place := files.declaring("default_ecosystem"):
        return Sourced(name, place)
    return Sourced(name, "Ape's default ecosystem")


def _ecosystem(given: Sourced) -> EcosystemAPI:
    from ape.exceptions import NetworkError
    from ape.plugins._utils import TRUSTED_PLUGINS
    from ape.utils.basemodel import ManagerAccessMixin

    manager = ManagerAccessMixin.network_manager
    try:
        found: EcosystemAPI = manager.get_ecosystem(given.value)
    except NetworkError:
        known = manager.ecosystem_names
        if given.value in known:  # its own definition is broken: Ape's words say how
            raise
    else:
        return found
    message = f"unknown ecosystem '{given.value}' ({given.origin}); {did_you_mean(given.value, known)}"
    if given.value in manager.default_ecosystem.networks:
        message += f" ({given.value} is a network of {manager.default_ecosystem_name}: write ':{given.value}')"
    elif given.value in TRUSTED_PLUGINS:
        message += f" (`ape plugins install {given.value}` adds it)"
    else:
        message += f" (a plugin 'ape-{given.value}' or a custom network, `networks: custom:`, may add it)"
    raise ResolutionError(message)


def _default_network(ecosystem: EcosystemAPI, files: ConfigurationFiles) -> Sourced:
    name = ecosystem.default_network_name
    if ecosystem._default_network:
        return Sourced(name, f"set as the default network of {ecosystem.name} by code")
    key = (ecosystem.name, "default_network")
    if place := files.declaring(*key):
        wanted = str(files.declared(*key) or name)
        if wanted != name:
            # Ape silently uses `local` here, and a bot would run where it shouldn't.
            raise ResolutionError(
                f"unknown network '{wanted}' in {ecosystem.name} ({place}); {did_you_mean(wanted, ecosystem.networks)}"
            )
        return Sourced(name, place)
    if name == "local":
        return Sourced(name, f"Ape's rule: 'local', since {ecosystem.name}.default_network isn't set")
    return Sourced(name, f"Ape's rule: the first network of {ecosystem.name}, which has no 'local'")


def _network(ecosystem: EcosystemAPI, given: Sourced) -> NetworkAPI:
    from ape.exceptions import NetworkNotFoundError

    try:
        return ecosystem.get_network(given.value)
    except NetworkNotFoundError:
        raise ResolutionError(
            f"unknown network '{given.value}' in {ecosystem.name} ({given.origin}); "
            f"{did_you_mean(given.value, ecosystem.networks)} (another plugin or a custom network, "
            "`networks: custom:`, may add it)"
        ) from None


def _default_provider(network: NetworkAPI, files: ConfigurationFiles) -> Sourced:
    choice = f"{network.ecosystem.name}:{network.name}"
    name = network._default_provider or network.config.get("default_provider") or first_installed(network)
    if not name:
        raise ResolutionError(
            f"Ape has no provider for {choice}: name one, as '{choice}:PROVIDER', or install a plugin that has one"
        )
    if network._default_provider:
        if not network.is_custom:
            return Sourced(name, f"set as the default provider of {choice} by code")
        for custom in files.declared("networks", "custom") or ():
            if custom.get("name") == network.name and custom.get("default_provider"):
                return Sourced(name, f"default_provider of the custom network '{network.name}'")
        return Sourced(name, "Ape's rule: 'node' for a custom network without default_provider")
    if place := files.declaring(network.ecosystem.name, network.name, "default_provider"):
        return Sourced(name, place)
    if network.config.get("default_provider"):
        return Sourced(name, f"Ape's rule: '{name}' is the default provider of {choice} when none is set")
    return Sourced(name, f"Ape's rule: the first provider installed for {choice}")
