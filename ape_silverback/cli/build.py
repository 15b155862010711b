"""``ape silverback build``: build the images of the project's bots, for clusters that run images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from ape.cli import verbosity_option

from ape_silverback.cli.shared.deploy_options import project_bots
from ape_silverback.cli.shared.options import format_option
from ape_silverback.cli.shared.output import show, show_table
from ape_silverback.cli.shared.terminal import complain, note

if TYPE_CHECKING:
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.project.desired import DesiredBot, Overrides

NO_REGISTRY = "registry.invalid"
"""Stands for the registry while bots are resolved that have none. No host can have this name (RFC 2606)."""


@click.command()
@project_bots
@click.option("--push", is_flag=True, help="Push each image to its registry once it is built.")
@click.option("--tag", metavar="TAG", help="Tag of the images; `git` for the commit.")
@click.option("--allow-dirty", is_flag=True, help="Allow uncommitted changes with --tag git.")
@click.option("--target", metavar="NAME", help="Name the images as for this target of the section.")
@click.option("--sdk", metavar="VERSION", help="Version of the bot SDK whose image is the base. Default: stable.")
@click.option("--base", metavar="IMAGE", help="Base image, in place of the bot SDK's.")
@click.option("--platform", metavar="OS/ARCH", help="Platform to build for, as linux/amd64. Default: the engine's.")
@click.option(
    "--engine",
    type=click.Choice(["podman", "docker"]),
    help="Engine that builds. Default: SILVERBACK_CONTAINER_ENGINE, else the first one on PATH.",
)
@click.option("--file-only", is_flag=True, help="Only write the Containerfiles.")
@format_option
@verbosity_option()
def build(
    bots: tuple[str, ...],
    push: bool,
    tag: str | None,
    allow_dirty: bool,
    target: str | None,
    sdk: str | None,
    base: str | None,
    platform: str | None,
    engine: str | None,
    file_only: bool,
    format_: str,
) -> None:
    """Build the images of the project's bots. BOT is a name or a glob; the default is all.

    Writes a Containerfile for each to .silverback-images and builds it with podman or docker. An image is named as
    `deploy` names it: {registry}/{project}-{bot}:{tag}. It holds the project's requirements, plugins, configuration and
    contracts, and of its code what the bot needs; never files such as .env. A bot that runs on several networks has
    one image. One failure doesn't stop the others.

    \b
    Example:
        ape silverback build
        ape silverback build 'price-*' --tag 1.4 --push
        ape silverback build --sdk 0.7.38 --platform linux/amd64
    """
    from ape_silverback.config.reader import read_section
    from ape_silverback.exceptions import BuildError
    from ape_silverback.images.build import Build, build_image, one_per_image
    from ape_silverback.images.engine import Engine
    from ape_silverback.images.recipe import BASE, sdk_base
    from ape_silverback.project.desired import Overrides

    if file_only and push:
        raise click.UsageError("--file-only and --push can't be combined.")
    if sdk and base:
        raise click.UsageError("--sdk and --base both choose the image to start from; pass one of them.")
    reading = read_section(Path.cwd())
    wanted = _wanted(reading, bots, target, Overrides(tag=tag, allow_dirty=allow_dirty))
    if push and (local := [bot.name for bot in wanted if bot.configuration.image.startswith(f"{NO_REGISTRY}/")]):
        raise click.ClickException(f"no registry to push {', '.join(local)} to; set `registry:` in the section")
    try:
        maker = None if file_only else Engine.find(engine)
    except BuildError as error:
        raise click.ClickException(f"{error}; --file-only writes the Containerfiles without an engine") from error
    how = Build(push, base or (sdk_base(sdk) if sdk else BASE), platform=platform)
    images = []
    # One after the other: they share their first layers, which the first makes and the others find in the cache.
    for bot in one_per_image(wanted):
        image = bot.configuration.image.removeprefix(f"{NO_REGISTRY}/")
        made = build_image(Path.cwd(), bot, image, reading.file, how, maker, note)
        images.append(made)
        if made.error is not None:
            complain(f"{bot.name}: {made.error}")

    def text() -> None:
        done = [one for one in images if one.error is None]
        if done and file_only:
            show_table(
                ("NAME", "CONTAINERFILE", "IMAGE"), [(one.name, one.containerfile or "", one.image) for one in done]
            )
        elif done:
            rows = [(one.name, one.image, "yes" if one.pushed else "no", one.digest or "-") for one in done]
            show_table(("NAME", "IMAGE", "PUSHED", "DIGEST"), rows)

    show([one.model_dump(mode="json") for one in images], format_, text)
    if failed := [one.name for one in images if one.error is not None]:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def _wanted(reading: SectionReading, names: Sequence[str], target: str | None, options: Overrides) -> list[DesiredBot]:
    """Resolve the bots to build, with the references of their images.

    Without names, bots whose image is given and whose code isn't here are left out.
    """
    from ape_silverback.deployment.session import own_bots
    from ape_silverback.project.resolver import resolve

    section = reading.section
    named = replace(reading, section=section.model_copy(update={"registry": section.registry or NO_REGISTRY}))
    desired = resolve(named, Path.cwd(), kind=None, names=names, target=target, options=options)
    if names:
        return list(desired.bots)
    wanted = own_bots(reading, target, desired)
    for bot in desired.bots:
        if bot not in wanted:
            note(f"{bot.name}: skipped: its image {bot.configuration.image} isn't built from this project")
    return wanted
