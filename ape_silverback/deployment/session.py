"""One run: the Ape project, the cluster that it is about, and what is remembered of deployments to it.

The commands and the functions for code are both built on this. Nothing here asks or prints.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape.logging import logger

from ape_silverback.cluster.types import ClusterKind
from ape_silverback.config.env_file import read_env_file
from ape_silverback.config.reader import SectionReading, read_section
from ape_silverback.connect import Connection, connected
from ape_silverback.deployment.apply import DEFAULT_APPLY_OPTIONS, ApplyOptions, Event
from ape_silverback.deployment.deployer import Deployer
from ape_silverback.deployment.history import Source
from ape_silverback.deployment.plan import (
    DEFAULT_PLAN_OPTIONS,
    CreateBot,
    Plan,
    PlanOptions,
    RestartBot,
    StartBot,
    UpdateBot,
)
from ape_silverback.exceptions import BuildError, DeployError
from ape_silverback.images.build import Build, BuiltImage, build_image
from ape_silverback.images.engine import Engine, image_digests
from ape_silverback.project.desired import NO_OVERRIDES, DesiredBot, DesiredState, Overrides
from ape_silverback.project.discovery import find_bot_module, project_name
from ape_silverback.project.git import git_state
from ape_silverback.project.resolver import resolve, target_of
from ape_silverback.stream.gate import open_for_writing

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.stream.verify import Report

Tell = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True)
class DeployRequest:
    """What is asked of one run, beside what the project says.

    Attributes:
        folder: the project's folder, which has to be Ape's active project.
        bots: names or globs; all bots of the project when empty.
        target: target of the section.
        profile: profile of the cluster, in place of what else would choose one.
        cluster: the cluster of the platform, as ``WORKSPACE/NAME``.
        client: client of the cluster, in place of a profile.
        options: values for all bots.
        settings: keys of the section for this run, as ``bots.NAME.tag=v2``.
        env_files: files with values of variables, which win over the environment.
        values: values of variables, which win over the files.
    """

    folder: Path
    bots: Sequence[str] = ()
    target: str | None = None
    profile: str | None = None
    cluster: str | None = None
    client: ClusterClient | None = None
    options: Overrides = NO_OVERRIDES
    settings: Sequence[str] = ()
    env_files: Sequence[Path] = ()
    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def read(self) -> SectionReading:
        """Read the project's section, with this run's settings over it.

        Raises:
            ConfigurationError: it isn't right.
            ResolutionError: it doesn't have the target.
        """
        reading = read_section(self.folder, self.settings, self.target)
        target_of(reading, self.target)
        return reading

    def resolve(self, reading: SectionReading, kind: ClusterKind | None, warn: Tell = logger.warning) -> DesiredState:
        """Resolve the bots.

        Args:
            reading: what ``read`` gave.
            kind: how the cluster is reached; None when none is chosen.
            warn: takes each warning.

        Raises:
            ResolutionError: with every problem of every bot, a line each.
        """
        desired = resolve(reading, self.folder, kind=kind, names=self.bots, target=self.target, options=self.options)
        for warning in desired.warnings:
            warn(warning)
        return desired

    def values_of(self, names: Iterable[str]) -> dict[str, str]:
        """Give the values of variables that are at hand: all that were given, and of the environment those named."""
        values = {name: os.environ[name] for name in names if name in os.environ}
        for file in self.env_files:
            values |= read_env_file(str(file))
        return {**values, **self.values}


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
    warn: Tell

    @property
    def stream(self) -> StreamConfig:
        """What has to be true of the payment stream of the cluster."""
        return self.reading.section.stream_of(self.request.target)

    def open_for_writing(self, verify: bool = True) -> Report | None:
        """Verify the payment stream of the cluster and let the client write; see ``stream.gate.open_for_writing``."""
        return open_for_writing(self.connection, self.stream, verify=verify)

    def resolve(self) -> DesiredState:
        """Resolve the bots for this cluster; see ``DeployRequest.resolve``."""
        return self.request.resolve(self.reading, self.connection.kind(), self.warn)

    def plan(self, desired: DesiredState, plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS) -> Plan:
        """Compare what the project wants with what the cluster has; see ``Deployer.plan``."""
        return self.deployer.plan(desired, self.values(), plan_options)

    def values(self, more: Collection[str] = ()) -> dict[str, str]:
        """Give the values that are at hand of the variables that the project declares, and of more."""
        places = [self.reading.section, target_of(self.reading, self.request.target)]
        declared = {name for place in places if place for names in place.variables.values() for name in names}
        return self.request.values_of(declared.union(more))

    def carry_out(
        self,
        plan: Plan,
        apply_options: ApplyOptions = DEFAULT_APPLY_OPTIONS,
        *,
        images: Sequence[DesiredBot] = (),
        build: Build | None = None,
        stop: threading.Event | None = None,
        tell: Tell = logger.info,
        **source: Any,
    ) -> Generator[Event, None, None]:
        """Carry a plan out and remember it, with the deployer's lock held. Whatever deploys does it through this.

        Args:
            plan: what to do.
            manner: how.
            images: bots whose images are made first, before anything is written to the cluster.
            build: how; needed when there are some.
            stop: set to begin nothing more.
            tell: takes the lines of the engine that makes images.
            source: fields of ``Source`` that differ from what the project's folder says.

        Raises:
            BuildError: an image couldn't be made; nothing was changed.
            DeployError: the plan is refused, or a value is missing; nothing was changed.
        """
        stop = stop or threading.Event()
        values = self.values(plan.needs)
        self.deployer.accept(plan, values)
        digests: dict[str, str] = {}
        for made in self._build(images, build or Build(), stop, tell):
            digests |= {made.name: made.digest} if made.digest else {}
            yield Event("built", made.name, f"{'built and pushed' if made.pushed else 'built'} {made.image}")
        yield from self.deployer.apply(plan, values, apply_options, self._source(plan, digests, source), stop)

    def to_build(self, plan: Plan, desired: DesiredState) -> list[DesiredBot]:
        """Give the bots that a plan deploys and whose images are made of this project.

        For a local cluster that runs folders there are none.
        """
        if self.connection.kind() == "local":
            return []
        deployed = {action.name for action in plan.of(CreateBot, UpdateBot, RestartBot, StartBot)}
        return [bot for bot in own_bots(self.reading, self.request.target, desired) if bot.name in deployed]

    def _build(
        self, bots: Sequence[DesiredBot], build: Build, stop: threading.Event, tell: Tell
    ) -> Iterator[BuiltImage]:
        """Make images, one after the other: the first makes the layers that the others find in the engine's cache."""
        if not bots:
            return

        def go_on(line: str) -> None:
            if stop.is_set():
                raise DeployError("interrupted while images were built; nothing was changed on the cluster")
            tell(line)

        # A cluster on this machine's Docker Engine finds what is built there without a registry.
        engine, failed = Engine.find(build.engine or ("docker" if self.connection.kind() == "engine" else None)), []
        for bot in bots:
            made = build_image(
                self.request.folder, bot, bot.configuration.image, self.reading.file, build, engine, go_on
            )
            if made.error is None:
                yield made
            else:
                failed.append(f"{bot.name}: {made.error}")
        if failed:
            raise BuildError("\n".join([*failed, "nothing was changed on the cluster"]))

    def _source(self, plan: Plan, built: Mapping[str, str], more: Mapping[str, Any]) -> Source:
        """Give where a deployment comes from, for its record."""
        if "digests" in more:
            return Source(**{"target": self.request.target, **more})
        state = git_state(self.request.folder)
        images = {name: bot.configuration.image for name, bot in plan.bots.items()} if plan.writes else {}
        known = image_digests(image for name, image in images.items() if name not in built)
        digests = {name: known[image] for name, image in images.items() if image in known}
        return Source(
            **{
                "target": self.request.target,
                "commit": state.commit if state else None,
                "dirty": state.dirty if state else None,
                "digests": {**digests, **built},
                **more,
            }
        )


@contextmanager
def open_session(request: DeployRequest, warn: Tell = logger.warning) -> Iterator[DeploySession]:
    """Read the project, connect to the cluster, and find what is remembered of deployments to it.

    Args:
        asked: what this run is about.
        warn: takes warnings.

    Raises:
        ConfigurationError: the section isn't right.
        ResolutionError: it doesn't have the target.
        ProfileError: no cluster is chosen, or the choice isn't known.
    """
    reading = request.read()
    folder = request.folder / reading.section.history if reading.section.history else None
    with ExitStack() as stack:
        if request.client is not None:
            connection = Connection.of(request.client)
        else:
            connection = stack.enter_context(
                connected(request.profile, request.cluster, reading, request.target, warn=warn)
            )
        deployer = Deployer.of(connection.client, connection.label, connection.identity, project_name(), folder)
        yield DeploySession(request, reading, connection, deployer, warn)


def own_bots(reading: SectionReading, target: str | None, desired: DesiredState) -> list[DesiredBot]:
    """Leave out the bots that are somebody else's: their image is given, and their code isn't in this project."""
    places = [reading.section, target_of(reading, target)]
    given = {name for place in places if place for name, bot in place.bots.items() if bot.image}
    return [bot for bot in desired.bots if bot.name not in given or find_bot_module(desired.folder, bot.module)]
