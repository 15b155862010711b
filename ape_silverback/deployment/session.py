"""One run: the Ape project, the cluster that it is about, and the record of its deployments there.

The commands and the functions for code are both built on this. Nothing here asks or prints.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ape.logging import logger

from ape_silverback.cluster.types import ClusterKind
from ape_silverback.concurrency import begin
from ape_silverback.config.env_file import Commands, read_env_file
from ape_silverback.config.reader import SectionReading, is_utf8, read_section
from ape_silverback.connect import Connection, connected
from ape_silverback.deployment.apply import DEFAULT_APPLY_OPTIONS, ApplyOptions
from ape_silverback.deployment.deployer import Deployer, Look
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.local import fingerprints_of, missing_plugins, read_local_state
from ape_silverback.deployment.plan import DEFAULT_PLAN_OPTIONS, Plan, PlanOptions
from ape_silverback.deployment.protection import protected_bots
from ape_silverback.deployment.record import Record, Source
from ape_silverback.exceptions import BuildError, ConfigurationError, DeployError
from ape_silverback.files import silverback_folder
from ape_silverback.images.engine import Engine, image_digests
from ape_silverback.project.desired import NO_OVERRIDES, DesiredBot, DesiredState, Overrides
from ape_silverback.project.discovery import find_bot_module, project_name
from ape_silverback.project.git import git_state
from ape_silverback.project.identity import project_identity
from ape_silverback.project.resolver import resolve

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ape_silverback.cluster.client import ClusterClient
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.images.build import Build, BuiltImage
    from ape_silverback.stream.verify import Report


@dataclass(frozen=True)
class DeployRequest:
    """What one run should do, besides what the project declares.

    Attributes:
        folder: the project's folder, which has to be Ape's active project.
        bots: names or globs; all bots of the project when empty.
        target: target of the section.
        profile: profile of the cluster, in place of what else would choose one.
        cluster: the cluster of the platform, as ``WORKSPACE/NAME``.
        client: client of the cluster, in place of a profile.
        overrides: values for all bots.
        settings: keys of the section for this run, as ``bots.NAME.tag=v2``.
        env_files: files with values of variables, which win over the environment.
        values: values of variables, which win over the files.
        commands: runs the commands that env files have for values; None when they aren't allowed.
    """

    folder: Path
    bots: Sequence[str] = ()
    target: str | None = None
    profile: str | None = None
    cluster: str | None = None
    client: ClusterClient | None = None
    overrides: Overrides = NO_OVERRIDES
    settings: Sequence[str] = ()
    env_files: Sequence[Path] = ()
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    commands: Commands | None = None

    def read(self) -> SectionReading:
        """Read the project's section, with this run's settings over it.

        Raises:
            ConfigurationError: it isn't right.
            ResolutionError: it doesn't have the target.
        """
        reading = read_section(self.folder, self.settings, self.target)
        reading.target(self.target)
        return reading

    def resolve(
        self, reading: SectionReading, kind: ClusterKind | None, warn: Callable[[str], None] = logger.warning
    ) -> DesiredState:
        """Resolve the bots.

        Args:
            reading: the section, as ``read`` returns it.
            kind: how the cluster is reached; None when none is chosen.
            warn: takes each warning.

        Raises:
            ResolutionError: with every problem of every bot, a line each.
        """
        desired = resolve(reading, self.folder, kind=kind, names=self.bots, target=self.target, options=self.overrides)
        for warning in desired.warnings:
            warn(warning)
        return desired

    def values_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return the values of variables that are at hand: all that were passed, and of the environment those named."""
        values = {name: os.environ[name] for name in names if name in os.environ}
        for file in self.env_files:
            values |= read_env_file(str(file), self.commands)
        values |= self.values
        for name, value in values.items():
            if not is_utf8(value) or "\0" in value:
                raise ConfigurationError(f"the value of {name} isn't UTF-8 text; nothing was sent")
        return values


@dataclass(frozen=True)
class DeploySession:
    """The project and the cluster of one run.

    Attributes:
        warn: takes warnings.
    """

    request: DeployRequest
    reading: SectionReading
    connection: Connection
    deployer: Deployer
    warn: Callable[[str], None]

    @property
    def stream(self) -> StreamConfig:
        """What has to be true of the payment stream of the cluster."""
        return self.reading.section.stream_of(self.request.target)

    def open_for_writing(self, verify: bool = True) -> Report | None:
        """Verify the payment stream of the cluster and let the client write; see ``stream.gate.open_for_writing``."""
        from ape_silverback.stream.gate import open_for_writing

        return open_for_writing(self.connection, self.stream, verify=verify)

    def resolve(self) -> DesiredState:
        """Resolve the bots for this cluster; see ``DeployRequest.resolve``."""
        return self.request.resolve(self.reading, self.connection.kind(), self.warn)

    def protected(self) -> dict[str, str]:
        """Return the bots that may not be removed by hand, each with why; see ``protected_bots``."""
        return protected_bots(self.reading, self.deployer.records.known().bots)

    def earlier(self, to: int | None = None) -> tuple[Record, DesiredState]:
        """Find an earlier deployment, and what it wanted; see ``Deployer.earlier``."""
        return self.deployer.earlier(self.request.bots, to, self.request.target)

    def begin_look(self) -> Future[Look]:
        """Begin to look at the record and the cluster, beside what goes on; see ``Deployer.look``."""
        return begin(self.deployer.look)

    def plan(
        self,
        desired: DesiredState,
        plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS,
        look: Future[Look] | None = None,
    ) -> Plan:
        """Compare what the project wants with what the cluster has; see ``Deployer.plan``.

        Args:
            desired: what the project wants.
            plan_options: what the plan may do.
            look: what ``begin_look`` has returned; None to look now.
        """
        values = self.values(name for group in desired.groups for name in group.variables)
        runs_folder = self.connection.kind() == "local"
        built = [] if runs_folder else own_bots(self.reading, self.request.target, desired)
        local = read_local_state(
            desired,
            values,
            self._allowed_empty(),
            runs_folder=runs_folder,
            missing_plugins=missing_plugins(self.request.folder, self.reading.file, built),
        )
        desired = replace(desired, strict=self.reading.section.strict)
        return self.deployer.plan(desired, local, plan_options, look.result() if look else None)

    def plan_project(self, plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS) -> tuple[DesiredState, Plan]:
        """Resolve the bots while the cluster is looked at, and compare; see ``resolve`` and ``plan``."""
        look = self.begin_look()
        desired = self.resolve()
        return desired, self.plan(desired, plan_options, look)

    def values(self, names: Iterable[str] = ()) -> dict[str, str]:
        """Return the values that are at hand of the variables that the project declares, and of others."""
        places = [self.reading.section, self.reading.target(self.request.target)]
        declared = {name for place in places if place for group in (place.variables or {}).values() for name in group}
        return self.request.values_of(declared.union(names))

    def _allowed_empty(self) -> set[str]:
        places = [self.reading.section, self.reading.target(self.request.target)]
        return {name for place in places if place for name in place.allow_empty or ()}

    def apply(
        self,
        plan: Plan,
        apply_options: ApplyOptions = DEFAULT_APPLY_OPTIONS,
        *,
        images: Sequence[DesiredBot] = (),
        build: Build | None = None,
        stop: threading.Event | None = None,
        show_line: Callable[[str], None] = logger.info,
        source: Source | None = None,
    ) -> Generator[Event, None, None]:
        """Carry a plan out and record it, with the deployer's lock held. Everything that deploys does it through this.

        Args:
            plan: what to do.
            apply_options: how.
            images: bots whose images are built first, before anything is written to the cluster.
            build: how; needed when there are some.
            stop: set to begin nothing more.
            show_line: takes the lines of the engine that builds images.
            source: where the deployment comes from, when that isn't the project's folder.

        Raises:
            BuildError: an image couldn't be built; nothing was changed.
            DeployError: the plan is refused, or a value is missing; nothing was changed.
        """
        stop = stop or threading.Event()
        values = self.values(plan.needs)
        present = {name: value for name, value in values.items() if value or name in self._allowed_empty()}
        self.deployer.accept(plan, present)
        digests: dict[str, str] = {}
        for built in self._build(images, build, stop, show_line):
            digests |= {built.name: built.digest} if built.digest else {}
            yield Event("built", built.name, f"{'built and pushed' if built.pushed else 'built'} {built.image}")
        fingerprints = fingerprints_of({name: values[name] for name in plan.needs})
        source = source or self._source(plan, digests)
        yield from self.deployer.apply(plan, present, apply_options, source, stop, fingerprints)

    def to_build(self, plan: Plan, desired: DesiredState) -> list[DesiredBot]:
        """Return the bots that a plan deploys and whose images are built of this project.

        For a local cluster that runs folders there are none.
        """
        if self.connection.kind() == "local":
            return []
        deployed = {action.name for action in plan.bot_actions}
        return [bot for bot in own_bots(self.reading, self.request.target, desired) if bot.name in deployed]

    def _build(
        self, bots: Sequence[DesiredBot], build: Build | None, stop: threading.Event, show_line: Callable[[str], None]
    ) -> Iterator[BuiltImage]:
        """Build images, one after the other: the first makes the layers that the others find in the engine's cache."""
        if not bots:
            return
        from ape_silverback.images.build import Build, build_image, one_per_image

        build = build or Build()

        def go_on(line: str) -> None:
            if stop.is_set():
                raise DeployError("interrupted while images were built; nothing was changed on the cluster")
            show_line(line)

        # A cluster on this machine's Docker Engine finds what is built there without a registry.
        engine, failed = Engine.find(build.engine or ("docker" if self.connection.kind() == "engine" else None)), []
        for bot in one_per_image(bots):
            built = build_image(
                self.request.folder, bot, bot.configuration.image, self.reading.file, build, engine, go_on
            )
            if built.error is not None:
                failed.append(f"{bot.name}: {built.error}")
                continue
            # Of a bot on several networks, each has this image.
            yield from (
                built.model_copy(update={"name": one.name})
                for one in bots
                if one.configuration.image == bot.configuration.image
            )
        if failed:
            raise BuildError("\n".join([*failed, "nothing was changed on the cluster"]))

    def _source(self, plan: Plan, built: Mapping[str, str]) -> Source:
        """Return where a deployment comes from, for its record."""
        state = git_state(self.request.folder)
        images = {bot.name: bot.configuration.image for bot in plan.bots} if plan.writes else {}
        known = image_digests(image for name, image in images.items() if name not in built)
        digests = {name: known[image] for name, image in images.items() if image in known}
        return Source(
            selected=tuple(self.request.bots),
            commit=state.commit if state else None,
            dirty=state.dirty if state else None,
            digests={**digests, **built},
        )


@contextmanager
def open_session(request: DeployRequest, warn: Callable[[str], None] = logger.warning) -> Iterator[DeploySession]:
    """Read the project, connect to the cluster, and find the record of deployments to it.

    Args:
        request: what this run is about.
        warn: takes warnings.

    Raises:
        ConfigurationError: the section isn't right.
        ResolutionError: it doesn't have the target.
        ProfileError: no cluster is chosen, or the choice isn't known.
    """
    reading = request.read()
    history = reading.section.history
    root = request.folder / history if history else silverback_folder() / "deployments"
    with ExitStack() as stack:
        if request.client is not None:
            connection = Connection.of(request.client)
        else:
            connection = stack.enter_context(
                connected(request.profile, request.cluster, reading, request.target, warn=warn)
            )
        # While Ape loads, which takes longest, the cluster says what it offers.
        offered = begin(lambda: connection.client.extensions)
        identity, name = project_identity(request.folder, reading.section.project), project_name()
        offered.result()
        deployer = Deployer.of(
            connection.client,
            connection.label,
            connection.identity,
            name,
            identity,
            root,
            connection.address,
        )
        yield DeploySession(request, reading, connection, deployer, warn)


def own_bots(reading: SectionReading, target: str | None, desired: DesiredState) -> list[DesiredBot]:
    """Leave out the bots of others: their image is given, and their code isn't in this project."""
    places = [reading.section, reading.target(target)]
    given = {name for place in places if place for name, bot in place.bots.items() if bot.image}
    return [
        bot
        for bot in desired.bots
        if (bot.family or bot.name) not in given or find_bot_module(desired.folder, bot.module)
    ]
