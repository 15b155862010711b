"""``ape silverback cluster bots list``, ``info`` and ``health``: how the bots of a cluster are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.bots import next_start_text, show_bots, statuses_of
from ape_silverback.cli.shared.options import (
    bot_names,
    cluster_options,
    connected,
    format_option,
    wide_option,
)
from ape_silverback.cli.shared.output import age, health_text, show, show_facts, state_text, time_text
from ape_silverback.cli.shared.selection import choose
from ape_silverback.cli.shared.terminal import echo, style
from ape_silverback.plurals import plural

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import BotDocument

MOST_CRASHES = 5
"""Crashes that are shown of a bot, the last ones."""


@click.command("list")
@bot_names
@wide_option
@format_option
@cluster_options
def list_(names: tuple[str, ...], output: str | None, format_: str, profile: str | None, cluster: str | None) -> None:
    """List bots with their state, uptime and network, and why one stopped. BOT is a name or a glob; the default is all.

    A narrow terminal gets fewer columns; `bots info` shows everything.

    \b
    Example:
        ape silverback cluster bots list
        ape silverback cluster bots list 'price-*' --format json
        ape silverback cluster bots list -o wide
    """
    from ape_silverback.cli.shared.documents import BotDocument

    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, not names).values())
        documents = [BotDocument.of(*pair) for pair in zip(chosen, statuses_of(connection.client, chosen), strict=True)]
    show([document.data() for document in documents], format_, lambda: show_bots(documents, wide=output == "wide"))


@click.command("info")
@bot_names
@format_option
@cluster_options
def info_(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """Show the configuration of bots and their latest runs. BOT is a name or a glob; the default is all.

    \b
    Example:
        ape silverback cluster bots info blocks
    """
    from ape_silverback.cli.shared.documents import BotDocument

    with connected(profile, cluster) as connection:
        chosen = list(choose("bot", connection.client.bots, names, not names).values())
        credentials = [bot.credential for bot in chosen]
        documents = [
            BotDocument.of(bot, state, credential.name if credential else None)
            for bot, state, credential in zip(chosen, statuses_of(connection.client, chosen), credentials, strict=True)
        ]

    def text() -> None:
        for number, document in enumerate(documents):
            if number:
                echo()
            show_bot(document)

    show([document.data() for document in documents], format_, text)


def show_bot(bot: BotDocument) -> None:
    """Show everything about one bot."""
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
    own = {"restart": bot.restart, "healthy": bot.healthy, "heartbeat-to": bot.heartbeat}
    facts |= {name: str(value) for name, value in own.items() if value}
    if bot.started:
        facts |= {"started": f"{time_text(bot.started)} ({age(bot.started)} ago)"}
    if bot.stopped:
        facts |= {"stopped": f"{time_text(bot.stopped)} ({age(bot.stopped)} ago)"}
        facts |= {"exit-code": "-" if bot.exit_code is None else str(bot.exit_code), "reason": bot.reason or "-"}
    show_facts(facts | _facts_of_work(bot))
    if bot.restarts and bot.restarts.crashes:
        echo(style("crashes:", bold=True))
        for crash in bot.restarts.crashes[: -MOST_CRASHES - 1 : -1]:
            first = crash.reason.partition("\n")[0]
            echo(f"  {time_text(crash.time)} ({age(crash.time)} ago)  {first}")


def _facts_of_work(bot: BotDocument) -> dict[str, str]:
    """Return what the cluster reports of a bot's health and its restarts."""
    facts = {}
    if (health := bot.health) and bot.state in ("startup", "running", "shutdown"):
        facts["health"] = health_text(health.healthy) + (f": {health.reason}" if health.reason else "")
        if health.heartbeat:
            facts["heartbeat"] = f"{time_text(health.heartbeat)} ({age(health.heartbeat)} ago)"
        if health.last_block is not None:
            facts["last-block"] = str(health.last_block)
        if health.lag is not None:
            facts["lag"] = plural(health.lag, "block")
    if bot.restarts:
        following = bot.restarts.next_start
        facts["restarts"] = str(bot.restarts.count) + (f", {next_start_text(following)}" if following else "")
    return facts


@click.command("health")
@bot_names
@format_option
@cluster_options
def health_(names: tuple[str, ...], format_: str, profile: str | None, cluster: str | None) -> None:
    """Show whether bots are healthy and what is wrong; exit with 1 if one isn't. BOT is a name or a glob; default: all.

    \b
    Example:
        ape silverback cluster bots health
    """
    from ape_silverback.cli.shared.documents import BotHealthDocument

    with connected(profile, cluster) as connection:
        chosen = choose("bot", connection.client.bots, names, not names)
        known = connection.client.health.bots
    documents = [
        BotHealthDocument.of(name, bot, (found := known.get(name)) is not None and found.healthy)
        for name, bot in chosen.items()
    ]

    def text() -> None:
        for document in documents:
            reason = f": {document.reason}" if document.reason else ""
            echo(f"{document.name}: {'healthy' if document.healthy else f'not healthy{reason}'}")

    show([document.data() for document in documents], format_, text)
    if unhealthy := [document.name for document in documents if not document.healthy]:
        raise click.ClickException(f"not healthy: {', '.join(unhealthy)}")
