"""``ape silverback build``: make the images of the project's bots, for clusters that run images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from ape.cli import verbosity_option

from ape_silverback.cli.deployment import project_bots
from ape_silverback.cli.options import format_option
from ape_silverback.cli.output import note, show, show_table

if TYPE_CHECKING:
    from ape_silverback.cli.documents import ImageDocument
    from ape_silverback.desired import DesiredBot, Options
    from ape_silverback.images.engine import Engine, Output
    from ape_silverback.section import SectionReading

NO_REGISTRY = "registry.invalid"
"""Stands for the registry while bots are resolved that have none. No host can have this name (RFC 2606)."""


@click.command(short_help="Build the images of the project's bots")
@project_bots
@click.option("--push", is_flag=True, help="Push each image to its registry once it is built.")
@click.option("--tag", metavar="TAG", help="Tag of the images, for this run; `git` for the commit.")
@click.option("--allow-dirty", is_flag=True, help="Take the commit for a tag even with uncommitted changes.")
@click.option("--target", metavar="NAME", help="Name the images as this target of the section says.")
@click.option("--base", metavar="IMAGE", help="Image to start from, in place of the bot SDK's.")
@click.option(
    "--engine",
    type=click.Choice(["podman", "docker"]),
    help="What builds. Default: what SILVERBACK_CONTAINER_ENGINE says, else the first of them that is there.",
)
@click.option("--file-only", is_flag=True, help="Write the Containerfiles and stop.")
@format_option
@verbosity_option()
def build(
    bots: tuple[str, ...],
    push: bool,
    tag: str | None,
    allow_dirty: bool,
    target: str | None,
    base: str | None,
    engine: str | None,
    file_only: bool,
    format_: str,
) -> None:
    """Build the images of the project's bots: of all of them, or of each BOT by name or glob.

    Writes a Containerfile for each to .silverback-images and builds it with podman or docker. An image is named as
    `deploy` names it: {registry}/{project}-{bot}:{tag}. It holds the project's requirements, plugins, configuration and
    contracts, and of its code what the bot needs; never files such as .env. One failure doesn't stop the others.

    \b
    Example:
        ape silverback build
        ape silverback build 'price-*' --tag 1.4 --push
    """
    from ape_silverback.desired import Options
    from ape_silverback.exceptions import BuildError
    from ape_silverback.images.engine import Engine
    from ape_silverback.images.recipe import BASE
    from ape_silverback.section import read_section

    if file_only and push:
        raise click.UsageError("--file-only builds nothing that --push could push.")
    reading = read_section(Path.cwd())
    wanted = _wanted(reading, bots, target, Options(tag=tag, allow_dirty=allow_dirty))
    if push and (local := [bot.name for bot in wanted if bot.image.startswith(f"{NO_REGISTRY}/")]):
        raise click.ClickException(f"nowhere to push {', '.join(local)} to: set `registry:` in the silverback section")
    try:
        maker = None if file_only else Engine.find(engine)
    except BuildError as error:
        raise click.ClickException(f"{error}; --file-only writes the Containerfiles without one") from error
    # One after the other: they share their first layers, which the first makes and the others find in the cache.
    documents = [_build(bot, reading, base or BASE, maker, push) for bot in wanted]

    def text() -> None:
        done = [one for one in documents if one.error is None]
        if done and file_only:
            show_table(
                ("NAME", "CONTAINERFILE", "IMAGE"), [(one.name, one.containerfile or "", one.image) for one in done]
            )
        elif done:
            rows = [(one.name, one.image, "yes" if one.pushed else "no", one.digest or "-") for one in done]
            show_table(("NAME", "IMAGE", "PUSHED", "DIGEST"), rows)

    show([one.data() for one in documents], format_, text)
    if failed := [one.name for one in documents if one.error is not None]:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def _wanted(reading: SectionReading, names: Sequence[str], target: str | None, options: Options) -> list[DesiredBot]:
    """Resolve the bots to build, with the references of their images.

    Without names those are left out whose image is given and whose code isn't here: they are somebody else's.
    """
    from ape_silverback.project import discover_bots, resolve

    section = reading.section
    named = replace(reading, section=section.model_copy(update={"registry": section.registry or NO_REGISTRY}))
    folder = Path.cwd()
    desired = resolve(named, folder, kind=None, names=names, target=target, options=options)
    if names:
        return list(desired.bots)
    here = discover_bots(folder)
    places = [section.bots, section.targets[target].bots if target else {}]
    given = {name for place in places for name, bot in place.items() if bot.image}
    wanted = []
    for bot in desired.bots:
        if bot.name in given and bot.module.partition(":")[0].removeprefix("bots.") not in here:
            note(f"{bot.name}: left out, its image {bot.image} isn't made of this project")
        else:
            wanted.append(bot)
    return wanted


def _build(bot: DesiredBot, reading: SectionReading, base: str, engine: Engine | None, push: bool) -> ImageDocument:
    """Write a bot's Containerfile, build and push its image, and say what became of it."""
    from ape_silverback.cli.documents import ImageDocument
    from ape_silverback.exceptions import BuildError
    from ape_silverback.images.recipe import make_recipe

    image = bot.image.removeprefix(f"{NO_REGISTRY}/")
    document = ImageDocument(name=bot.name, image=image, containerfile=None, built=False, pushed=False, digest=None)
    project = Path.cwd()
    try:
        recipe = make_recipe(project, bot, config=reading.file, base=base)
        document.containerfile = recipe.write(project).relative_to(project).as_posix()
        if engine is not None:
            if "@" in image:
                raise BuildError(f"image '{image}' is pinned to a digest, which what is built here wouldn't have")
            note(click.style(f"{bot.name}: building {image} with {engine.name}", bold=True))
            document.digest = _shown(engine.build(project, recipe, image))
            document.built = True
            if push:
                note(click.style(f"{bot.name}: pushing {image}", bold=True))
                document.digest = _shown(engine.push(image))
                document.pushed = True
    except BuildError as error:
        document.error = str(error)
        click.secho(f"{bot.name}: {error}", fg="red", err=True)
    return document


def _shown(output: Output) -> str | None:
    """Show the lines of an engine while it works; give the digest that it ends with."""
    while True:
        try:
            note(f"  {next(output)}")
        except StopIteration as end:
            digest: str | None = end.value
            return digest
