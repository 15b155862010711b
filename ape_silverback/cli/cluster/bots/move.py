"""``ape silverback cluster bots move``: bind a bot that signs to another machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.gate import connected_for_writing, no_verify_option
from ape_silverback.cli.shared.options import cluster_options, format_option, yes_option
from ape_silverback.cli.shared.selection import choose_one, each, show_results
from ape_silverback.cli.shared.terminal import ask, confirm, note

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot


@click.command()
@click.argument("bot")
@click.argument("node")
@yes_option
@no_verify_option
@format_option
@cluster_options
def move(
    bot: str, node: str, yes: bool, no_verify: bool, format_: str, profile: str | None, cluster: str | None
) -> None:
    """Bind a bot that has an account to another machine, and start it there if it should run.

    A bot that signs stays on its machine, so that there are never two of it. If that machine doesn't answer, the bot
    may still be running and signing there: it is moved only after you have confirmed, by typing the machine's name,
    that it is off. --yes isn't enough then.

    \b
    Example:
        ape silverback cluster bots move liquidator worker-2
    """
    with connected_for_writing(profile, cluster, no_verify) as connection:
        found = choose_one("bot", connection.client.bots, bot)
        fenced = found.unreachable_since is not None
        if fenced:
            _confirm_that_it_is_off(found)
        else:
            confirm(f"Move {found.name} to {node} on {connection.label}?", yes)
        results = each({found.name: found}, lambda one: one.move(node, fenced=fenced), "moved")
    show_results(results, format_)


def _confirm_that_it_is_off(bot: Bot) -> None:
    """Ask for the name of the machine that a bot may still be running on.

    Raises:
        click.UsageError: stdin isn't a terminal.
        click.ClickException: another name was typed.
    """
    note(
        f"{bot.name} signs with {bot.account}, and its machine {bot.node} hasn't answered since "
        f"{bot.unreachable_since:%Y-%m-%d %H:%M:%S} UTC. It may still be running there. Two copies that sign with one "
        f"account can lose money.\nMove it only if {bot.node} is off, or cut off from every network, and stays so "
        "until its containers are removed."
    )
    if not sys.stdin.isatty():
        raise click.UsageError(f"stdin isn't a terminal; moving a bot off {bot.node}, which doesn't answer, needs one.")
    if ask(f"Type the name of that machine to confirm that it is off ({bot.node})") != bot.node:
        raise click.ClickException(f"that isn't the name of its machine, {bot.node}; nothing was changed")
