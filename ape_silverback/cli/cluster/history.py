"""``ape silverback cluster history`` and ``rollback``: earlier deployments of this project to this cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.apply import apply, events_option
from ape_silverback.cli.shared.deploy_options import (
    apply_flags,
    apply_options_of,
    env_files_option,
    project_bots,
    prune_option,
)
from ape_silverback.cli.shared.gate import no_verify_option, pass_gate
from ape_silverback.cli.shared.options import allow_commands_option, cluster_options, format_option
from ape_silverback.cli.shared.output import show, show_table, time_text
from ape_silverback.cli.shared.terminal import note, style, warn

if TYPE_CHECKING:
    from ape_silverback.config.env_file import Commands
    from ape_silverback.deployment.record import Record

target_option = click.option("--target", metavar="NAME", help="Target of the section.")


@click.command()
@target_option
@format_option
@cluster_options
def history(target: str | None, format_: str, profile: str | None, cluster: str | None) -> None:
    """Show who deployed this project to the cluster, when, from which commit, and how it ended; the newest last.

    The record is in ~/.silverback/deployments, or in the folder that `history:` of the section names. Its file
    project.json names the project and the cluster that it is about; edit it after the project has moved.

    \b
    Example:
        ape silverback cluster history
    """
    from ape_silverback.deployment.session import DeployRequest, open_session

    with open_session(DeployRequest(Path.cwd(), target=target, profile=profile, cluster=cluster), warn) as session:
        records = session.deployer.records.history()

    def text() -> None:
        if not records:
            note("No deployment to this cluster is recorded.")
            return
        rows = [
            (
                str(one.id),
                time_text(one.time),
                one.by,
                _what(one),
                _commit(one),
                ", ".join(bot.name for bot in one.of_target(one.target)) or "-",
                _ended(one),
            )
            for one in records
        ]
        show_table(("ID", "TIME", "BY", "WHAT", "COMMIT", "BOTS", "ENDED"), rows)

    show([record.model_dump(mode="json") for record in records], format_, text)


@click.command()
@project_bots
@click.option(
    "--to",
    metavar="ID",
    type=click.IntRange(min=1),
    help="ID of the deployment, from `history`. Default: the one before.",
)
@click.option("-y", "--yes", is_flag=True, help="Don't ask before changes are made.")
@target_option
@env_files_option
@allow_commands_option
@prune_option
@apply_flags
@no_verify_option
@events_option
@cluster_options
def rollback(
    bots: tuple[str, ...],
    to: int | None,
    yes: bool,
    no_verify: bool,
    target: str | None,
    env_files: tuple[Path, ...],
    commands: Commands | None,
    prune: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
    **options: Any,
) -> None:
    """Go back to what an earlier deployment gave the bots: all of them, or each BOT.

    Without --to it is the last one before that succeeded and differs. Bots keep their ids, so one that was renamed
    since gets its old name back. Bots that came later are left alone, unless --prune is given. Values of variables
    aren't recorded: those that are on the cluster stay.

    \b
    Examples:
        ape silverback cluster rollback
        ape silverback cluster rollback liquidator --to 7 --yes
    """
    from ape_silverback.deployment.plan import PlanOptions
    from ape_silverback.deployment.record import Source
    from ape_silverback.deployment.session import DeployRequest, open_session

    apply_options = apply_options_of(options)
    if prune and bots:
        raise click.UsageError("--prune looks at all bots: name no BOT with it.")
    request = DeployRequest(Path.cwd(), bots, target, profile, cluster, env_files=env_files, commands=commands)
    with open_session(request, warn) as session, session.deployer.lock():
        pass_gate(session.connection, session.stream, no_verify=no_verify)
        record, desired = session.earlier(to)
        note(f"Back to deployment {record.id} of {time_text(record.time)} by {record.by}.")
        plan = session.plan(desired, PlanOptions(prune=prune))
        source = Source(
            what=f"rollback to {record.id}",
            selected=bots,
            commit=record.commit,
            dirty=record.dirty,
            restores=record.id,
            digests=record.digests,
        )
        apply(session, plan, apply_options, yes=yes, format_=format_, source=source)


def _what(record: Record) -> str:
    names = f" {' '.join(record.selected)}" if record.selected else ""
    return f"{record.what}{names}" + (f" --target {record.target}" if record.target else "")


def _commit(record: Record) -> str:
    if record.commit is None:
        return "-"
    return record.commit[:12] + ("+" if record.dirty else "")


def _ended(record: Record) -> str:
    if record.outcome is None:
        return style("cut off", fg="red")
    if record.succeeded:
        return style("succeeded", fg="green")
    wrong = [name for name, text in record.outcome.items() if not text.startswith(("ready", "applied"))]
    return style(f"failed: {', '.join(wrong)}", fg="red")
