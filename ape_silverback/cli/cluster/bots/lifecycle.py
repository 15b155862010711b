"""``ape silverback cluster bots start|stop|remove``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.gate import connected_for_writing, no_verify_option, pass_gate
from ape_silverback.cli.shared.options import (
    all_option,
    bot_names,
    cluster_options,
    format_option,
    yes_option,
)
from ape_silverback.cli.shared.selection import choose, each, show_results
from ape_silverback.cli.shared.terminal import confirm, warn

if TYPE_CHECKING:
    from ape_silverback.cli.shared.documents import ResultDocument


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

    If one of them is a bot that the project deployed with `protect: true`, none is removed.

    \b
    Example:
        ape silverback cluster bots remove blocks --yes
    """
    from ape_silverback.deployment.session import DeployRequest, open_session

    request = DeployRequest(Path.cwd(), profile=profile, cluster=cluster)
    with open_session(request, warn) as session:
        connection = session.connection
        pass_gate(connection, session.stream, no_verify=no_verify)
        chosen = choose("bot", connection.client.bots, names, every)
        protected = session.protected()
        if refused := [protected[name] for name in chosen if name in protected]:
            raise click.ClickException("\n".join(refused))
        if chosen:
            logs = "its logs" if len(chosen) == 1 else "their logs"
            confirm(f"Remove {', '.join(chosen)} and {logs} from {connection.label}?", yes)
        results = each(chosen, lambda bot: bot.remove(), "removed")
    show_results(results, format_)
