"""Builds a bot's image: writes its Containerfile, runs the engine, and pushes the image if asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

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


class BuiltImage(BaseModel):
    """The image of a bot, and how its build ended: `build`."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The bot."""

    image: str
    """The reference that it is built as."""

    containerfile: str | None = None
    """Path of its Containerfile, relative to the project; null if it couldn't be written."""

    built: bool = False
    """Whether it was built; `--file-only` builds nothing."""

    pushed: bool = False
    """Whether it was pushed."""

    digest: str | None = None
    """The registry's digest if it was pushed, else the engine's; null if the engine doesn't know it."""

    error: str | None = None
    """Why it failed."""


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
    show_line: Callable[[str], None],
) -> BuiltImage:
    """Build a bot's image. A failure is part of the result, not raised.

    Args:
        project: the project's folder.
        image: the reference that it is built as.
        config: the configuration file that Ape reads there, if any.
        engine: what builds; None to write only the Containerfile.
        show_line: called with each line of the engine while it works.
    """
    result = BuiltImage(name=bot.name, image=image)
    try:
        recipe = make_recipe(project, bot, config=config, base=build.base)
        file = recipe.write(project).relative_to(project).as_posix()
        result = result.model_copy(update={"containerfile": file})
        if engine is None:
            return result
        if "@" in image:
            raise BuildError(f"image '{image}' is pinned to a digest, which a new build can't have")
        show_line(f"{bot.name}: building {image} with {engine.name}")
        digest = _pass_on(engine.build(project, recipe, image, build.platform), show_line)
        result = result.model_copy(update={"built": True, "digest": digest})
        if build.push:
            show_line(f"{bot.name}: pushing {image}")
            digest = _pass_on(engine.push(image), show_line)
            result = result.model_copy(update={"pushed": True, "digest": digest})
    except BuildError as error:
        return result.model_copy(update={"error": str(error)})
    return result


def _pass_on(output: Output, show_line: Callable[[str], None]) -> str | None:
    """Pass on the lines of an engine while it works; return the digest that it ends with."""
    with closing(output):  # when no more lines are taken, the engine is ended at once
        while True:
            try:
                line = next(output)
            except StopIteration as end:
                digest: str | None = end.value
                return digest
            show_line(f"  {line}")
