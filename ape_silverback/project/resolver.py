"""The bots of an Ape project, resolved: project, section and options make a ``DesiredState``.

Every value has its origin. What the section leaves out comes from the Ape project. Nothing here talks to a chain or
to a cluster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_silverback.cluster.types import SET_BY_CLUSTER, BotConfiguration, ClusterKind, HealthPolicy, RestartPolicy
from ape_silverback.config.reader import is_utf8, unset_variables
from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.desired import NO_OVERRIDES, DesiredBot, DesiredGroup, DesiredState, Overrides
from ape_silverback.project.discovery import discover_bots, find_bot_module, project_image, project_name
from ape_silverback.project.layers import layers_of
from ape_silverback.project.members import Member, choose, known_bots, members_of
from ape_silverback.project.networks import ConfigurationFiles, ResolvedNetwork, Sourced, resolve_network
from ape_silverback.suggestions import did_you_mean

if TYPE_CHECKING:
    from ape_silverback.config.models import HealthyConfig, RestartConfig
    from ape_silverback.config.reader import SectionReading

IMAGE_REFERENCE = re.compile(
    # A registry is told from the first part of a path by its dot or its port.
    r"(?:(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|localhost)/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"  # path
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"  # tag, digest
)
"""An image reference as container registries take it (OCI distribution specification)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""A bot's name as a cluster takes it."""


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
    files = ConfigurationFiles.read(reading.file, os.environ if environ is None else environ)
    found = discover_bots(folder)
    known = known_bots(reading, found, target)
    members = members_of(reading, known, target, options, files)
    if new:
        chosen = [
            Member(name, name, "named on the command line", layers_of(reading, name, target, options)) for name in names
        ]
    else:
        chosen = choose(names, members)
    resolver = _Resolver(
        folder=folder,
        project=project_name(),
        kind=kind,
        files=files,
        found=found,
        named_after={
            bot: layers_of(reading, bot, target, options).first("module", default=bot)[0]
            for bot in known
            if layers_of(reading, bot, target, options).first("image")[0] is None
        },
        allow_dirty=options.allow_dirty,
    )
    bots = [resolver.bot(member) for member in chosen]
    resolved = tuple(bot for bot in bots if bot is not None)
    groups = _groups(reading, target, resolved)
    problems = [*resolver.problems, *(text for group in groups for text in _reserved(group))]
    if problems:
        raise ResolutionError("\n".join(problems))
    return DesiredState(
        project=resolver.project,
        folder=folder,
        bots=resolved,
        groups=groups,
        warnings=(*reading.warnings, *resolver.warnings),
        target=target,
        selected=tuple(names),
        names=frozenset(member.name for member in members),
        group_names=frozenset(_declared_groups(reading, target)),
    )


def _declared_groups(reading: SectionReading, target: str | None) -> Iterator[str]:
    """Return the names of all variable groups that the section and the target declare."""
    yield from reading.section.variables or {}
    if (wanted := reading.target(target)) is not None:
        yield from wanted.variables or {}


@dataclass
class _Resolver:
    """Resolves bots one by one and collects what is wrong, so that one run shows all of it.

    Attributes:
        found: the bots that are in the project's folder, as ``discover_bots`` returns them.
        named_after: bots whose images are named after them → their modules.
        warnings: in order, each once.
    """

    folder: Path
    project: str
    kind: ClusterKind | None
    files: ConfigurationFiles
    found: Mapping[str, str]
    named_after: Mapping[str, str]
    allow_dirty: bool = False
    problems: list[str] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)

    def bot(self, member: Member) -> DesiredBot | None:
        """Resolve one bot; None when something is wrong with it, which is noted."""
        name, layers = member.name, member.layers
        problems_before = len(self.problems)
        if member.problem is not None:
            self._problem(name, member.problem)
            return None
        if not _NAME.fullmatch(name):
            self._problem(name, "its name has more than 63 characters; set a shorter one (`names:`)")
        self._check_texts(member)
        network = self._network(member)
        account, account_origin = layers.first("account", origin="not set: the bot signs nothing")
        account = account or None  # an empty text takes back what a wider place sets
        if account and network:
            self._check_account(name, account, account_origin, network)
        module, module_origin = layers.first(
            "module", default=member.bot, origin=self.found.get(member.bot, "the bot's name")
        )
        image = self._image(member, module, module_origin)
        environment, environment_origin = layers.first("environment", default=(), origin="not set")
        credential, credential_origin = layers.first("credential", origin="not set")
        access, access_origin = layers.first("cluster_access", default=False)
        restart, restart_origin = layers.first("restart", origin="not set")
        healthy, healthy_origin = layers.first("healthy", origin="not set")
        heartbeat, heartbeat_origin = layers.first("heartbeat", origin="not set")
        if network is None or image is None or len(self.problems) > problems_before:
            return None
        return DesiredBot(
            name=name,
            origin=member.origin,
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
                restart=_restart_policy(restart) if restart else None,
                healthy=_health_policy(healthy) if healthy else None,
                heartbeat=heartbeat or None,
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
                "restart": restart_origin,
                "healthy": healthy_origin,
                "heartbeat": heartbeat_origin,
            },
            protect=layers.first("protect", default=False)[0],
            share_account=layers.first("share_account", default=False)[0],
            renamed_from=member.earlier or layers.first("renamed_from", default=())[0],
            family=member.family,
        )

    def _check_texts(self, member: Member) -> None:
        """Note values that refer to a variable that isn't set, or hold bytes that aren't UTF-8."""
        for key in ("network", "account", "registry", "tag", "credential", "environment", "image", "module"):
            for value, origin in member.layers.all(key)[: None if key == "network" else 1]:
                for text in [value] if isinstance(value, str) else value:
                    for variable in unset_variables(text):
                        self._problem(member.name, f"{origin}: environment variable {variable} isn't set")
                    if not is_utf8(text):
                        self._problem(member.name, f"{origin}: isn't UTF-8 text")
        if not is_utf8(str(self.folder)):
            self._problem(member.name, "the path of the project's folder isn't UTF-8 text")

    def _problem(self, bot: str, text: str) -> None:
        self.problems.append(f"{bot}: {text}")

    def _warn(self, bot: str, text: str) -> None:
        self.warnings[f"{bot}: {text}"] = None

    def _network(self, member: Member) -> ResolvedNetwork | None:
        bot, network = member.name, member.network
        if network is None:
            try:
                network = resolve_network([Sourced(*given) for given in member.layers.all("network")], self.files)
            except ResolutionError as error:
                self._problem(bot, str(error))
                return None
        for warning in network.warnings:
            self._warn(bot, warning)
        if reason := _out_of_reach(network):
            if self.kind == "platform":
                self._problem(bot, f"can't run on a hosted cluster: {reason}")
            elif self.kind == "direct":
                self._warn(bot, f"{reason}. It must be reachable from where this cluster runs its bots")
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

    def _image(self, member: Member, module: str, module_origin: str) -> Sourced | None:
        """Return a bot's image; None when something is wrong, which is noted."""
        bot, layers = member.name, member.layers
        image, image_origin = layers.first("image")
        if self.kind == "local":
            if image and image.startswith("project:"):
                return Sourced(image, image_origin)
            if image and find_bot_module(self.folder, module) is None:
                self._problem(
                    bot,
                    f"image '{image}' ({image_origin}) can't be run: the local cluster runs bots as processes, from "
                    f"images project:PATH#MODULE only, and this project has no module '{module}' ({module_origin}) to "
                    "run in its place; a cluster that is started with `up --runtime docker` runs images",
                )
                return None
            if image:
                self._warn(
                    bot, f"image '{image}' ({image_origin}) isn't used: the local cluster runs the project's folder"
                )
            return self._project_image(bot, module, module_origin, "the local cluster runs the project's folder")

        registry, registry_origin = layers.first("registry")
        default = f"{self.project}-{member.bot}".lower()  # as the bot SDK names what it builds
        if image:
            return self._reference(bot, image, image_origin)
        if registry or self.kind == "engine":
            tag, tag_origin = layers.first("tag", default="latest", origin="the default")
            if tag == "git":
                tag, tag_origin = self._commit(bot, tag_origin), f"{tag_origin}, the commit"
            if tag is None:
                return None
            for other, its_module in self.named_after.items():
                if other.lower() == member.bot.lower() and other != member.bot and its_module != module:
                    self._problem(
                        bot,
                        f"its image would have the same name as that of bot '{other}', {default}; "
                        f"set `bots.{member.bot}.image`, or rename one",
                    )
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
            f"has no image: set `registry:` (for '{{registry}}/{default}:{{tag}}') or `bots.{member.bot}.image` in the "
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


def _reserved(group: DesiredGroup) -> Iterator[str]:
    for name in group.variables:
        if name in SET_BY_CLUSTER:
            yield f"{group.origin}: {name} is set by the cluster itself; use another name"


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


def _restart_policy(config: RestartConfig) -> RestartPolicy:
    return RestartPolicy(
        policy=config.policy,
        max_restarts=config.max_restarts,
        window=config.window.total_seconds(),
        backoff=config.backoff.total_seconds(),
        max_backoff=config.max_backoff.total_seconds(),
    )


def _health_policy(config: HealthyConfig) -> HealthPolicy:
    return HealthPolicy(silent=config.silent.total_seconds(), lag=config.lag)
