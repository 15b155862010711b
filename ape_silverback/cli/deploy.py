"""``ape silverback cluster deploy``: make the cluster have what the project wants."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.connection import Connection, connected
from ape_silverback.cli.options import cluster_options
from ape_silverback.cli.output import confirm, note, value_text, warn

if TYPE_CHECKING:
    from ape_silverback.deployment.plan import Action, Plan
    from ape_silverback.desired import DesiredState, Options
    from ape_silverback.section import SectionReading


@click.command(short_help="Make the cluster have the project's bots")
@click.argument("bots", metavar="[BOT]...", nargs=-1)
@click.option("-y", "--yes", is_flag=True, help="Don't ask before changes are made.")
@click.option(
    "--dry-run", is_flag=True, help="Show the resolved bots, where each value comes from, and the plan; stop."
)
@click.option("--target", metavar="NAME", help="Deploy as this target of the section says.")
@click.option("--network", metavar="ECOSYSTEM:NETWORK:PROVIDER", help="Network of the bots, for this run.")
@click.option("--account", metavar="ALIAS", help="Account of the bots, for this run.")
@click.option("--tag", metavar="TAG", help="Tag of the bots' images, for this run.")
@click.option(
    "--env-file",
    "env_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="File with values of variables, as NAME=VALUE lines. Wins over the environment; may be repeated.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=180.0,
    show_default=True,
    help="Seconds to wait for a bot to be running and healthy.",
)
@cluster_options
def deploy(
    bots: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    target: str | None,
    network: str | None,
    account: str | None,
    tag: str | None,
    env_files: tuple[Path, ...],
    timeout: float,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Deploy the project's bots: all of them, or each BOT by name or glob.

    Compares the project with the cluster, shows the difference, applies it, and waits until every bot runs and is
    healthy. Bots of the cluster that aren't in the project are left alone. The same command again changes nothing.

    \b
    Examples:
        ape silverback cluster deploy --dry-run
        ape silverback cluster deploy blocks --yes
    """
    from ape_silverback.desired import Options
    from ape_silverback.exceptions import NoClusterError
    from ape_silverback.section import read_section

    reading = read_section(Path.cwd())
    options = Options(network=network, account=account, tag=tag)
    try:
        with connected(profile, cluster, reading, target) as connection:
            desired = _resolve(reading, connection.kind(), bots, target, options)
            _deploy(connection, desired, _values(reading, target, env_files), yes=yes, dry_run=dry_run, timeout=timeout)
    except NoClusterError:
        if not dry_run:
            raise
        _show_desired(_resolve(reading, None, bots, target, options))
        note("\nNo cluster is chosen, so this isn't compared with one. `ape silverback cluster up` starts a local one.")


def _resolve(
    reading: SectionReading, kind: Any, names: tuple[str, ...], target: str | None, options: Options
) -> DesiredState:
    from ape_silverback.project import resolve

    desired = resolve(reading, Path.cwd(), kind=kind, names=names, target=target, options=options)
    for warning in desired.warnings:
        warn(warning)
    return desired


def _deploy(
    connection: Connection,
    desired: DesiredState,
    values: Mapping[str, str],
    *,
    yes: bool,
    dry_run: bool,
    timeout: float,
) -> None:
    from ape_silverback.cli.progress import progress, show_failure
    from ape_silverback.deployment.apply import Timing, apply_plan
    from ape_silverback.deployment.live import read_live_state
    from ape_silverback.deployment.plan import make_plan

    if dry_run:
        _show_desired(desired)  # before anything that can fail: it is what was asked for
    live = read_live_state(connection.client, connection.label, (bot.name for bot in desired.bots))
    plan = make_plan(desired, live, values.keys())
    _show_plan(plan)
    if dry_run:
        note("Dry run: nothing was changed.")
        return
    if plan.writes:
        confirm(f"Apply this to {plan.cluster}?", yes)

    failures, ready = [], 0
    with progress("What was begun is finished by the cluster; the same command again does the rest.") as shown:
        for event in apply_plan(plan, connection.client, values, Timing(timeout=timeout)):
            shown.show(event)
            ready += event.kind == "ready"
            if event.kind == "failed":
                failures.append(event)
    for event in failures:
        show_failure(event)
    counts = f"{ready} of {len(plan.bots)} bots running and healthy on {plan.cluster}."
    if failures:
        raise click.ClickException(f"{', '.join(event.name for event in failures)} failed; {counts}")
    click.echo(counts if plan.writes else f"Nothing changed: {counts}")


def _values(reading: SectionReading, target: str | None, env_files: tuple[Path, ...]) -> dict[str, str]:
    """Give the values of the declared variables: of the environment, and over them of the files."""
    from dotenv import dotenv_values

    section = reading.section
    places = [section.variables or {}]
    if target in section.targets:
        places.append(section.targets[target].variables or {})
    declared = {name for place in places for names in place.values() for name in names}
    values = {name: os.environ[name] for name in declared if name in os.environ}
    for file in env_files:
        values |= {name: value for name, value in dotenv_values(file, interpolate=False).items() if value is not None}
    return values


def _show_desired(desired: DesiredState) -> None:
    for bot in desired.bots:
        click.echo(f"{click.style(bot.name, bold=True)}  ({bot.origin})")
        shown = {name: value_text(getattr(bot, name)) for name in bot.FIELDS}
        width = max(map(len, shown.values()))
        for name, value in shown.items():
            click.echo(f"  {_key(name):<14}  {value:<{width}}  {click.style(bot.origins[name], dim=True)}")
        click.echo()


def _show_plan(plan: Plan) -> None:
    if not plan.writes:
        click.echo(f"Nothing to change on {plan.cluster}: {_names(plan)} as the project says.")
        return
    click.echo(f"Plan for {plan.cluster}:")
    for action in plan.actions:
        for line in _action_lines(action):
            click.echo(f"  {line}")
    for text in plan.unknown:
        click.echo(f"  not known: {text}")


def _action_lines(action: Action) -> list[str]:
    """Give what a plan says of one action: a sign, what, and for changes old and new."""
    if action.kind == "create":
        details = [f"      {_key(key)}: {value_text(value)}" for key, value in action.configuration.items() if value]
        return [click.style(f"+ create bot {action.name}", fg="green"), *details]
    if action.kind == "update":
        suffix = " and restart" if action.restart else " and start"
        changes = [
            f"      {_key(change.field)}: {value_text(change.old)} -> {value_text(change.new)}"
            for change in action.changes
        ]
        return [click.style(f"~ update bot {action.name}{suffix}", fg="yellow"), *changes]
    if action.kind == "restart":
        return [click.style(f"~ restart bot {action.name}: {action.reason}", fg="yellow")]
    if action.kind == "start":
        return [click.style(f"> start bot {action.name}, which is stopped", fg="green")]
    if action.kind == "create-group":
        return [click.style(f"+ create variable group {action.name}: {', '.join(action.variables)}", fg="green")]
    if action.kind == "update-group":
        signed = [*(f"+{name}" for name in action.add), *(f"-{name}" for name in action.remove)]
        return [click.style(f"~ update variable group {action.name}: {' '.join(signed)}", fg="yellow")]
    return [f"= keep bot {action.name}"]


def _key(name: str) -> str:
    return {"credential_name": "credential"}.get(name, name).replace("_", "-")


def _names(plan: Plan) -> str:
    names = [action.name for action in plan.bots]
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
