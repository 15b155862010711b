"""``ape silverback cluster bots``: the bots that are on a cluster. Making and changing one is in ``bot_changes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.completion import complete_bots
from ape_silverback.cli.connection import connected
from ape_silverback.cli.group import LazyGroup
from ape_silverback.cli.options import Function, all_option, cluster_options, format_option, yes_option
from ape_silverback.cli.output import age, confirm, note, show, show_facts, show_table, state_text, time_text
from ape_silverback.cli.selection import choose, each, show_results
from ape_silverback.cli.verify import connected_for_writing, no_verify_option

if TYPE_CHECKING:
    from ape_silverback.cli.documents import BotDocument, ResultDocument
    from ape_silverback.config.models import BotConfig
    from ape_silverback.config.reader import SectionReading

HERE = "ape_silverback.cli.bots"

GIVING_WAY = {"IMAGE": 14, "ACCOUNT": 8, "NETWORK": 14}
"""What gives way to a narrow terminal, and how far it can be cropped before it is left out."""

bots = LazyGroup(
    name="bots",
    help="Show, make, change, start, stop and remove the bots that are on a cluster.",
    short_help="Manage the bots of a cluster",
    commands_by_section={
        "Look": {
            "list": f"{HERE}:list_",
            "info": f"{HERE}:info_",
            "health": f"{HERE}:health_",
            "logs": "ape_silverback.cli.logs:logs",
            "errors": "ape_silverback.cli.logs:errors",
        },
        "Change": {
            "new": "ape_silverback.cli.bot_changes:new",
            "update": "ape_silverback.cli.bot_changes:update",
            "start": f"{HERE}:start",
            "stop": f"{HERE}:stop",
            "remove": f"{HERE}:remove",
        },
    },
)


def bot_names(function: Function) -> Function:
    """Add the argument that chooses bots by name or glob."""
    return click.argument("names", metavar="[BOT]...", nargs=-1, shell_complete=complete_bots)(function)


@click.command("list", short_help="List bots")
@bot_names
@format_option
@cluster_options
def list_(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """List bots with state, uptime, network, and why one stopped: each BOT by name or glob, by default all.

    On a narrow terminal images, accounts and networks give way; `bots info` has them.

    \b
    Example:
        ape silverback cluster bots list
        ape silverback cluster bots list 'price-*' --format json
    """
    from ape_silverback.cli.documents import BotDocument
    from ape_silverback.deployment.observed import statuses_of

    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, not names).values())
        documents = [BotDocument.of(*pair) for pair in zip(chosen, statuses_of(chosen), strict=True)]
    show([document.data() for document in documents], format_, lambda: show_bots(documents))


def show_bots(bots: Sequence[BotDocument]) -> None:
    """Show bots as a table."""
    if not bots:
        note("No bots. `ape silverback cluster deploy` deploys those of the project.")
        return
    show_table(
        ("NAME", "STATE", "UPTIME", "NETWORK", "ACCOUNT", "IMAGE", "REASON"),
        [
            (
                bot.name,
                state_text(bot.state),
                age(bot.started) if bot.started and bot.state in ("startup", "running") else "-",
                f"{bot.ecosystem}:{bot.network}:{bot.provider}",
                bot.account or "-",
                bot.image,
                (bot.reason or "").partition("\n")[0] if bot.state == "stopped" else "",
            )
            for bot in bots
        ],
        giving_way=GIVING_WAY,
    )


@click.command("info", short_help="Show bots")
@bot_names
@format_option
@cluster_options
def info_(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """Show the configuration of bots and what is known of their runs: each BOT by name or glob, by default all.

    \b
    Example:
        ape silverback cluster bots info blocks
    """
    from ape_silverback.cli.documents import BotDocument
    from ape_silverback.deployment.observed import statuses_of

    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, not names).values())
        credentials = [bot.credential for bot in chosen]
        documents = [
            BotDocument.of(bot, state, credential.name if credential else None)
            for bot, state, credential in zip(chosen, statuses_of(chosen), credentials, strict=True)
        ]

    def text() -> None:
        for number, document in enumerate(documents):
            if number:
                click.echo()
            show_bot(document)

    show([document.data() for document in documents], format_, text)


def show_bot(bot: BotDocument) -> None:
    """Show all that is known of one bot."""
    facts = {
        "name": bot.name,
        "id": bot.id,
        "state": state_text(bot.state),
        "created": time_text(bot.created),
        "image": bot.image,
        "network": f"{bot.ecosystem}:{bot.network}:{bot.provider}",
        "account": bot.account or "-",
        "environment": ", ".join(bot.environment) or "-",
        "credential": bot.credential or "-",
        "cluster-access": "yes" if bot.cluster_access else "no",
    }
    if bot.started:
        facts |= {"started": f"{time_text(bot.started)} ({age(bot.started)} ago)"}
    if bot.stopped:
        facts |= {"stopped": f"{time_text(bot.stopped)} ({age(bot.stopped)} ago)"}
        facts |= {"exit-code": "-" if bot.exit_code is None else str(bot.exit_code), "reason": bot.reason or "-"}
    show_facts(facts)


@click.command("health", short_help="Say whether bots are healthy")
@bot_names
@format_option
@cluster_options
def health_(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """Say whether bots are healthy: each BOT by name or glob, by default all. Exit code 1 if one isn't.

    \b
    Example:
        ape silverback cluster bots health
    """
    from ape_silverback.cli.documents import BotHealthDocument

    with connected(profile, cluster) as connection:
        chosen = choose("bot", connection.client.bots, names, not names)
        known = connection.client.health.bots
    documents = [
        BotHealthDocument(name=name, healthy=(found := known.get(name)) is not None and found.healthy)
        for name in chosen
    ]

    def text() -> None:
        for document in documents:
            click.echo(f"{document.name}: {'healthy' if document.healthy else 'not healthy'}")

    show([document.data() for document in documents], format_, text)
    if unhealthy := [document.name for document in documents if not document.healthy]:
        raise click.ClickException(f"not healthy: {', '.join(unhealthy)}")


@click.command(short_help="Start bots")
@bot_names
@all_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until they run and are healthy.")
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
    """Start bots, each BOT by name or glob, and wait until they run and are healthy.

    \b
    Example:
        ape silverback cluster bots start blocks
    """
    from ape_silverback.cli.progress import show_until_ready

    with connected_for_writing(profile, cluster, no_verify) as connection:
        chosen = choose("bot", connection.client.bots, names, every)
        results = each(chosen, lambda bot: bot.start(), "started")
        if wait:
            results = _after(results, partial(show_until_ready, connection.client))
    show_results(results, format_)


def _after(results: list[ResultDocument], wait: Callable[[list[str]], dict[str, str]]) -> list[ResultDocument]:
    """Wait for what went well, and give the results with what failed then."""
    failed = wait([one.name for one in results if one.error is None])
    return [
        one.model_copy(update={"result": "failed", "error": failed[one.name]}) if one.name in failed else one
        for one in results
    ]


@click.command(short_help="Stop bots")
@bot_names
@all_option
@yes_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until they have stopped.")
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
    """Stop bots, each BOT by name or glob, and wait until they have stopped.

    \b
    Example:
        ape silverback cluster bots stop blocks --yes
    """
    from ape_silverback.cli.progress import show_until_stopped

    with connected_for_writing(profile, cluster, no_verify) as connection:
        chosen = choose("bot", connection.client.bots, names, every)
        if chosen:
            confirm(f"Stop {', '.join(chosen)} on {connection.label}?", yes)
        results = each(chosen, lambda bot: bot.stop(), "stopped")
        if wait:
            results = _after(results, partial(show_until_stopped, connection.client))
    show_results(results, format_)


@click.command(short_help="Remove bots")
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
    """Remove bots from the cluster, each BOT by name or glob. A running bot is stopped first; its log goes with it.

    A bot of the project with `protect: true` isn't removed, nor what was named with it.

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
            confirm(f"Remove {', '.join(chosen)} from {connection.label}, with logs?", yes)
        results = each(chosen, lambda bot: bot.remove(), "removed")
    show_results(results, format_)


def _protected(reading: SectionReading, name: str) -> str | None:
    """Say where the project protects a bot, whatever the target; None where it doesn't."""
    section = reading.section
    places: list[tuple[tuple[str, ...], Mapping[str, BotConfig]]] = [(("bots",), section.bots)]
    places += [(("targets", target, "bots"), wanted.bots) for target, wanted in section.targets.items()]
    for path, bots in places:
        if name in bots and bots[name].protect:
            place = reading.place_of(*path, name, "protect")
            key = ".".join(("silverback", *path, name, "protect"))
            return f"{name} is protected ({key} in {place}): it isn't removed while that stands there"
    return None
