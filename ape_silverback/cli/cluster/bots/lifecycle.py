"""``ape silverback cluster bots start|stop|remove``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.gate import connected_for_writing, no_verify_option
from ape_silverback.cli.shared.options import (
    all_option,
    bot_names,
    cluster_options,
    format_option,
    yes_option,
)
from ape_silverback.cli.shared.selection import choose, each, show_results
from ape_silverback.cli.shared.terminal import confirm

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import ResultDocument
    from ape_silverback.config.models import BotConfig
    from ape_silverback.config.reader import SectionReading


@click.command()
@bot_names
@all_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the bots are healthy.")
@no_verify_option
@format_option
@cluster_options
def start(
    names: tuple[str, ...],
    every: bool,
    wait: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Start bots and wait until they are healthy. BOT is a name or a glob.

    \b
    Example:
        ape silverback cluster bots start blocks
    """
    from ape_silverback.cli.shared.progress import show_until_ready
    from ape_silverback.deployment.wait import Timing

    timing = Timing()
    with connected_for_writing(profile, cluster, no_verify) as connection:
        chosen = choose("bot", connection.client.bots, names, every)
        results = each(chosen, lambda bot: bot.start(), "started")
        if wait:
            results = _after(results, partial(show_until_ready, connection.client, timing=timing))
    show_results(results, format_)


def _after(results: list[ResultDocument], wait: Callable[[list[str]], dict[str, str]]) -> list[ResultDocument]:
    """Wait for what succeeded and return the results, with the failures of the wait."""
    failed = wait([one.name for one in results if one.error is None])
    return [
        one.model_copy(update={"result": "failed", "error": failed[one.name]}) if one.name in failed else one
        for one in results
    ]


@click.command()
@bot_names
@all_option
@yes_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the bots have stopped.")
@no_verify_option
@format_option
@cluster_options
def stop(
    names: tuple[str, ...],
    every: bool,
    yes: bool,
    wait: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Stop bots and wait until they have stopped. BOT is a name or a glob.

    \b
    Example:
        ape silverback cluster bots stop blocks --yes
    """
    from ape_silverback.cli.shared.progress import show_until_stopped
    from ape_silverback.deployment.wait import Timing

    timing = Timing()
    with connected_for_writing(profile, cluster, no_verify) as connection:
        chosen = choose("bot", connection.client.bots, names, every)
        if chosen:
            confirm(f"Stop {', '.join(chosen)} on {connection.label}?", yes)
        results = each(chosen, lambda bot: bot.stop(), "stopped")
        if wait:
            results = _after(results, partial(show_until_stopped, connection.client, timing=timing))
    show_results(results, format_)


@click.command()
@bot_names
@all_option
@yes_option
@no_verify_option
@format_option
@cluster_options
def remove(
    names: tuple[str, ...],
    every: bool,
    yes: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Remove bots and their logs from the cluster; running bots are stopped first. BOT is a name or a glob.

    If one of them is a bot of the project with `protect: true`, none is removed.

    \b
    Example:
        ape silverback cluster bots remove blocks --yes
    """
    from ape_silverback.connect import read_section_here

    reading = read_section_here()
    with connected_for_writing(profile, cluster, no_verify, reading) as connection:
        chosen = choose("bot", connection.client.bots, names, every)
        if protected := [text for name in chosen if (text := _protected(reading, name))]:
            raise click.ClickException("\n".join(protected))
        if chosen:
            logs = "its logs" if len(chosen) == 1 else "their logs"
            confirm(f"Remove {', '.join(chosen)} and {logs} from {connection.label}?", yes)
        results = each(chosen, lambda bot: bot.remove(), "removed")
    show_results(results, format_)


def _protected(reading: SectionReading, name: str) -> str | None:
    """Return where the project protects a bot, for any target; None if it doesn't."""
    section = reading.section
    places: list[tuple[tuple[str, ...], Mapping[str, BotConfig]]] = [(("bots",), section.bots)]
    places += [(("targets", target, "bots"), wanted.bots) for target, wanted in section.targets.items()]
    for path, bots in places:
        if name in bots and bots[name].protect:
            place = reading.place_of(*path, name, "protect")
            key = ".".join(("silverback", *path, name, "protect"))
            return f"{name} is protected ({key} in {place}): remove that key first"
    return None
