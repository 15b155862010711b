"""Builds a bot's image: writes its Containerfile, runs the engine, and pushes the image if asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ape_silverback.exceptions import BuildError
from ape_silverback.images.engine import Engine, Output
from ape_silverback.images.recipe import BASE, make_recipe
from ape_silverback.project.desired import DesiredBot


@dataclass(frozen=True)
class Build:
    """How images are built.

    Attributes:
        push: whether each is pushed to its registry once it is built.
        base: image to start from.
        engine: ``podman`` or ``docker``; None for what ``Engine.find`` chooses.
        platform: operating system and architecture, as ``linux/amd64``; None for those of the engine.
    """

    push: bool = False
    base: str = BASE
    engine: str | None = None
    platform: str | None = None


@dataclass(frozen=True)
class BuiltImage:
    """The outcome of building a bot's image.

    Attributes:
        name: the bot's name.
        image: the reference that it is built as.
        containerfile: path of the Containerfile, relative to the project; None when it couldn't be made.
        digest: the registry's when it was pushed, else the engine's; None when the engine doesn't know it.
        error: why it failed.
    """

    name: str
    image: str
    containerfile: str | None = None
    built: bool = False
    pushed: bool = False
    digest: str | None = None
    error: str | None = None


def one_per_image(bots: Iterable[DesiredBot]) -> list[DesiredBot]:
    """Return a bot for each image: of those that one bot of the section makes for its networks, one under that name."""
    by_image: dict[str, DesiredBot] = {}
    for bot in bots:
        by_image.setdefault(bot.configuration.image, replace(bot, name=bot.family or bot.name))
    return list(by_image.values())


def build_image(
    project: Path,
    bot: DesiredBot,
    image: str,
    config: Path | None,
    build: Build,
    engine: Engine | None,
    tell: Callable[[str], None],
) -> BuiltImage:
    """Build a bot's image. A failure is part of the result, not raised.

    Args:
        project: the project's folder.
        image: the reference that it is built as.
        config: the configuration file that Ape reads there, if any.
        engine: what builds; None to write only the Containerfile.
        tell: called with each line of the engine while it works.
    """
    file, built, digest = None, False, None
    try:
        recipe = make_recipe(project, bot, config=config, base=build.base)
        file = recipe.write(project).relative_to(project).as_posix()
        if engine is None:
            return BuiltImage(bot.name, image, file)
        if "@" in image:
            raise BuildError(f"image '{image}' is pinned to a digest, which a new build can't have")
        tell(f"{bot.name}: building {image} with {engine.name}")
        digest = _pass_on(engine.build(project, recipe, image, build.platform), tell)
        built = True
        if build.push:
            tell(f"{bot.name}: pushing {image}")
            digest = _pass_on(engine.push(image), tell)
    except BuildError as error:
        return BuiltImage(bot.name, image, file, built, False, digest, str(error))
    return BuiltImage(bot.name, image, file, built, build.push, digest)


def _pass_on(output: Output, tell: Callable[[str], None]) -> str | None:
    """Pass on the lines of an engine while it works; return the digest that it ends with."""
    with closing(output):  # when no more lines are taken, the engine is ended at once
        while True:
            try:
                line = next(output)
            except StopIteration as end:
                digest: str | None = end.value
                return digest
            tell(f"  {line}")
