"""The bots of an Ape project, resolved: project, section and options make a ``DesiredState``.

Every value has its origin. Precedence, highest first: command-line option, the target's bot, the target, the
bot, the section, the Ape project. Nothing here talks to a chain or to a cluster.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_silverback.cluster.types import BotConfiguration, ClusterKind
from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.desired import NO_OVERRIDES, DesiredBot, DesiredGroup, DesiredState, Overrides
from ape_silverback.project.discovery import discover_bots, find_bot_module, project_image, project_name
from ape_silverback.project.networks import ConfigurationFiles, ResolvedNetwork, Sourced, resolve_network
from ape_silverback.suggestions import did_you_mean

if TYPE_CHECKING:
    from ape_silverback.config.models import TargetConfig
    from ape_silverback.config.reader import SectionReading

IMAGE_REFERENCE = re.compile(
    # A registry is told from the first part of a path by its dot or its port.
    r"(?:(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|localhost)/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"  # path
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"  # tag, digest
)
"""An image reference as container registries take it (OCI distribution specification)."""


@dataclass(frozen=True)
class _Layer:
    """One place that may give values of a bot."""

    values: Any  # a model of the section, or Overrides
    origin: Callable[[str], str]

    def get(self, name: str) -> Any:
        return getattr(self.values, name, None)


@dataclass(frozen=True)
class _Layers:
    """The places that may give values of one bot, the one that wins first."""

    layers: tuple[_Layer, ...]

    def all(self, name: str) -> list[tuple[Any, str]]:
        return [(value, layer.origin(name)) for layer in self.layers if (value := layer.get(name)) is not None]

    def first(self, name: str, default: Any = None, origin: str = "default") -> tuple[Any, str]:
        return next(iter(self.all(name)), (default, origin))


def target_of(reading: SectionReading, name: str | None) -> TargetConfig | None:
    """Return a target of the section; see ``SectionReading.target``."""
    return reading.target(name)


def resolve(
    reading: SectionReading,
    folder: Path,
    *,
    kind: ClusterKind | None,
    names: Sequence[str] = (),
    target: str | None = None,
    options: Overrides = NO_OVERRIDES,
    new: bool = False,
    environ: Mapping[str, str] | None = None,
) -> DesiredState:
    """Resolve the bots of a project.

    Args:
        reading: the ``silverback:`` section of the project.
        folder: the project's folder, which has to be Ape's active project.
        kind: how the cluster is reached; None when none is chosen yet, which leaves out what depends on it.
        names: bots to resolve, by name or glob; all of them when empty.
        target: name of one of the section's targets.
        options: values of the command line.
        new: whether the names may be new ones, of bots that the project doesn't have.
        environ: the process's environment (default: the real one).

    Raises:
        ResolutionError: with every problem of every bot, a line each.
    """
    resolver = _Resolver(
        folder=folder,
        project=project_name(),
        kind=kind,
        files=ConfigurationFiles.read(reading.file, os.environ if environ is None else environ),
        found=discover_bots(folder),
        allow_dirty=options.allow_dirty,
    )
    known = known_bots(reading, resolver.found, target)
    chosen = list(names) if new else _choose(names, list(known))
    bots = [
        resolver.bot(name, _layers(reading, name, target, options), known.get(name, "named on the command line"))
        for name in chosen
    ]
    if resolver.problems:
        raise ResolutionError("\n".join(resolver.problems))
    resolved = tuple(bot for bot in bots if bot is not None)
    return DesiredState(
        project=resolver.project,
        folder=folder,
        bots=resolved,
        groups=_groups(reading, target, resolved),
        warnings=(*reading.warnings, *resolver.warnings),
    )


def known_bots(reading: SectionReading, found: Mapping[str, str], target: str | None = None) -> dict[str, str]:
    """Return the project's bots: those that the section declares, else those that are found in the folder.

    A target's bots, the environment and settings change bots and make none. Only in a project that has none otherwise
    are they those of the target.

    Args:
        found: what ``discover_bots`` returns for the project's folder.
        target: name of one of the section's targets.

    Returns:
        Name of each bot → its origin.

    Raises:
        ResolutionError: a target's bot or an overlay isn't one of the project's bots.
    """
    wanted = reading.target(target)
    of_target = wanted.bots if wanted is not None else {}
    if reading.declared:
        known = {name: f"silverback.bots.{name}" for name in reading.declared}
    elif found:
        known = {name: f"found at {path}" for name, path in found.items()}
    else:
        known = {name: f"silverback.targets.{target}.bots.{name}" for name in of_target}
    problems = []
    for name in of_target:
        if name not in known:
            key = f"silverback.targets.{target}.bots.{name}"
            place = reading.place_of("targets", str(target), "bots", name)
            problems.append(
                f"{key}{f' ({place})' if place else ''}: this project has no bot '{name}'; {did_you_mean(name, known)} "
                "(a target changes bots; declare new ones under silverback.bots)"
            )
    for name, place in reading.unknown_bots.items():
        if name not in known:
            problems.append(f"{place}: this project has no bot '{name}'; {did_you_mean(name, known)}")
    if problems:
        raise ResolutionError("\n".join(problems))
    return known


def _choose(names: Sequence[str], known: Sequence[str]) -> list[str]:
    if not known:
        raise ResolutionError(
            "this project has no bots: put one at bots/NAME.py, or declare them under `silverback: bots:` "
            "in ape-config.yaml. (Ape reads only the current folder.)"
        )
    if not names:
        return list(known)
    chosen: dict[str, None] = {}
    for name in names:
        matches = [name] if name in known else fnmatch.filter(known, name)
        if not matches:
            raise ResolutionError(f"this project has no bot '{name}'; {did_you_mean(name, known)}")
        chosen.update(dict.fromkeys(matches))
    return list(chosen)


def _layers(reading: SectionReading, bot: str, target: str | None, options: Overrides) -> _Layers:
    section = reading.section

    def at(*path: str) -> Callable[[str], str]:
        def origin(name: str) -> str:
            key = ".".join((*path, name)).replace("_", "-") if not path else ".".join((*path, name.replace("_", "-")))
            place = reading.place_of(*path, name)
            return f"{key} ({place})" if place else key

        return origin

    spellings = {"environment": "group", "cluster_access": "cluster-access"}
    layers = [_Layer(options, lambda name: f"option --{spellings.get(name, name)}")]
    if target is not None:
        wanted = section.targets[target]
        layers.append(_Layer(wanted.bots.get(bot), at("targets", target, "bots", bot)))
        layers.append(_Layer(wanted, at("targets", target)))
    layers.append(_Layer(section.bots.get(bot), at("bots", bot)))
    layers.append(_Layer(section, at()))
    return _Layers(tuple(layers))


@dataclass
class _Resolver:
    """Resolves bots one by one and collects what is wrong, so that one run shows all of it.

    Attributes:
        found: the bots that are in the project's folder, as ``discover_bots`` returns them.
        warnings: in order, each once.
    """

    folder: Path
    project: str
    kind: ClusterKind | None
    files: ConfigurationFiles
    found: Mapping[str, str]
    allow_dirty: bool = False
    problems: list[str] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)

    def bot(self, name: str, layers: _Layers, origin: str) -> DesiredBot | None:
        """Resolve one bot; None when something is wrong with it, which is noted."""
        problems_before = len(self.problems)
        network = self._network(name, layers)
        account, account_origin = layers.first("account", origin="not set: the bot signs nothing")
        account = account or None  # an empty text takes back what a wider place sets
        if account and network:
            self._check_account(name, account, account_origin, network)
        module, module_origin = layers.first("module", default=name, origin=self.found.get(name, "the bot's name"))
        image = self._image(name, layers, module, module_origin)
        environment, environment_origin = layers.first("environment", default=(), origin="not set")
        credential, credential_origin = layers.first("credential", origin="not set")
        access, access_origin = layers.first("cluster_access", default=False)
        if network is None or image is None or len(self.problems) > problems_before:
            return None
        return DesiredBot(
            name=name,
            origin=origin,
            module=module,
            configuration=BotConfiguration(
                image=image.value,
                ecosystem=network.ecosystem.value,
                network=network.network.value,
                provider=network.provider.value,
                account=account,
                environment=tuple(environment),
                credential_name=credential or None,
                cluster_access=access,
            ),
            origins={
                "image": image.origin,
                "ecosystem": network.ecosystem.origin,
                "network": network.network.origin,
                "provider": network.provider.origin,
                "account": account_origin,
                "environment": environment_origin,
                "credential_name": credential_origin,
                "cluster_access": access_origin,
            },
            protect=layers.first("protect", default=False)[0],
            renamed_from=layers.first("renamed_from")[0],
        )

    def _problem(self, bot: str, text: str) -> None:
        self.problems.append(f"{bot}: {text}")

    def _warn(self, bot: str, text: str) -> None:
        self.warnings[f"{bot}: {text}"] = None

    def _network(self, bot: str, layers: _Layers) -> ResolvedNetwork | None:
        try:
            network = resolve_network([Sourced(*given) for given in layers.all("network")], self.files)
        except ResolutionError as error:
            self._problem(bot, str(error))
            return None
        for warning in network.warnings:
            self._warn(bot, warning)
        if reason := _out_of_reach(network):
            if self.kind == "platform":
                self._problem(bot, f"can't run on a hosted cluster: {reason}")
            elif self.kind == "direct":
                self._warn(bot, f"{reason}. It has to be reachable from where this cluster runs its bots")
        return network

    def _check_account(self, bot: str, account: str, origin: str, network: ResolvedNetwork) -> None:
        from ape.utils.basemodel import ManagerAccessMixin

        if account.startswith("TEST::"):
            index = account.removeprefix("TEST::")
            count = ManagerAccessMixin.config_manager.get_config("test").number_of_accounts
            if not (index.isdecimal() and int(index) < count):
                self._problem(
                    bot, f"account '{account}' ({origin}): the test accounts are TEST::0 to TEST::{count - 1}"
                )
            elif not (network.is_local or network.is_fork):
                self._problem(
                    bot,
                    f"account '{account}' ({origin}) is a test account, whose key is public; "
                    f"use it on local networks only, not on {network.ecosystem.value}:{network.network.value}",
                )
            return
        aliases = set(ManagerAccessMixin.account_manager.aliases)
        if account not in aliases:
            hint = f"; {did_you_mean(account, aliases)}" if aliases else ""
            self._warn(bot, f"no account '{account}' ({origin}) in Ape here; it must exist where the bot runs{hint}")

    def _image(self, bot: str, layers: _Layers, module: str, module_origin: str) -> Sourced | None:
        """Return a bot's image; None when something is wrong, which is noted."""
        image, image_origin = layers.first("image")
        if self.kind == "local":
            if image and image.startswith("project:"):
                return Sourced(image, image_origin)
            if image:
                self._warn(
                    bot, f"image '{image}' ({image_origin}) isn't used: the local cluster runs the project's folder"
                )
            return self._project_image(bot, module, module_origin, "the local cluster runs the project's folder")

        registry, registry_origin = layers.first("registry")
        default = f"{self.project}-{bot}".lower()  # as the bot SDK names what it builds
        if image:
            return self._reference(bot, image, image_origin)
        if registry or self.kind == "engine":
            tag, tag_origin = layers.first("tag", default="latest", origin="the default")
            if tag == "git":
                tag, tag_origin = self._commit(bot, tag_origin), f"{tag_origin}, the commit"
            if tag is None:
                return None
            place, of_place = f"{registry.rstrip('/')}/" if registry else "", f"registry of {registry_origin}"
            origin = f"{of_place if registry else 'this engine'}, names of project and bot, tag of {tag_origin}"
            return self._reference(bot, f"{place}{default}:{tag}", origin)
        if self.kind is None:
            return self._project_image(
                bot, module, module_origin, "no registry is set; this is how a local cluster runs it"
            )
        self._problem(
            bot,
            f"has no image: set `registry:` (for '{{registry}}/{default}:{{tag}}') or `bots.{bot}.image` in the "
            "silverback section; only a local cluster runs the project's folder itself",
        )
        return None

    def _commit(self, bot: str, origin: str) -> str | None:
        """Return the commit that the project is at; None when there is none, which is noted."""
        from ape_silverback.project.git import read_git_state

        try:
            state = read_git_state(self.folder)
        except ResolutionError as error:
            self._problem(bot, f"tag 'git' ({origin}) stands for the commit, which isn't known: {error}")
            return None
        if state.dirty and not self.allow_dirty:
            self._problem(
                bot,
                f"tag 'git' ({origin}) is commit {state.short}, but there are changes that aren't committed: commit "
                "them, or pass --allow-dirty",
            )
            return None
        return state.short

    def _reference(self, bot: str, image: str, origin: str) -> Sourced | None:
        if IMAGE_REFERENCE.fullmatch(image):
            return Sourced(image, origin)
        self._problem(bot, f"image '{image}' ({origin}) isn't a valid image reference")
        return None

    def _project_image(self, bot: str, module: str, module_origin: str, origin: str) -> Sourced | None:
        if found := find_bot_module(self.folder, module):
            return Sourced(project_image(self.folder, found.argument), origin)
        self._problem(
            bot,
            f"has no module '{module}' ({module_origin}) in this project; {did_you_mean(module, self.found)} "
            "(a bot is bots/NAME.py or a package in bots/; set `module:` for one with another name)",
        )
        return None


def _out_of_reach(network: ResolvedNetwork) -> str | None:
    """Return why a bot on another machine can't reach a network, and what to do; None when it can."""
    name, provider = network.network, network.provider
    if network.is_adhoc:
        return (
            f"provider '{provider.value}' ({provider.origin}) is an address, not a provider; name a provider, and pass "
            "the address to the bot through a variable group"
        )
    if network.is_local:
        return (
            f"network '{name.value}' ({name.origin}) is a chain on one machine; "
            f"name a public one, such as '{network.ecosystem.value}:mainnet'"
        )
    if network.is_fork:
        upstream = f"{network.ecosystem.value}:{name.value.removesuffix('-fork')}"
        return (
            f"network '{name.value}' ({name.origin}) is a fork, which lives in the process of its provider; "
            f"name '{upstream}' itself"
        )
    return None


def _groups(reading: SectionReading, target: str | None, bots: Iterable[DesiredBot]) -> tuple[DesiredGroup, ...]:
    """Return the declared groups that these bots use; a target's declaration of a group replaces the section's."""
    used = dict.fromkeys(group for bot in bots for group in bot.configuration.environment)
    places: dict[str, tuple[tuple[str, ...], Any]] = {
        name: (("variables", name), names) for name, names in (reading.section.variables or {}).items()
    }
    if target is not None:
        wanted = reading.section.targets[target].variables or {}
        places |= {name: (("targets", target, "variables", name), names) for name, names in wanted.items()}
    groups = []
    for name in used:
        if name in places:
            path, names = places[name]
            place = reading.place_of(*path)
            groups.append(DesiredGroup(name, tuple(names), ".".join(path) + (f" ({place})" if place else "")))
    return tuple(groups)
