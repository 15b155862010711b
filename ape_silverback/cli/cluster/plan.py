"""``ape silverback cluster plan``: what `deploy` would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.deploy_options import plan_options_of, project_bots, project_options, request_of
from ape_silverback.cli.shared.options import cluster_options
from ape_silverback.cli.shared.plan_text import MARKDOWN, show_drift, show_plan
from ape_silverback.cli.shared.terminal import note, warn

if TYPE_CHECKING:
    from ape_silverback.deployment.plan import Plan

CHANGES = 2
"""Exit code with ``--detailed-exitcode`` for a plan that changes something."""


class _Detailed(click.Command):
    """A command whose mistakes have exit code 1 with ``--detailed-exitcode``, where 2 means changes."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        detailed = "--detailed-exitcode" in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            error.exit_code = 1 if detailed else error.exit_code
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            error.exit_code = 1 if ctx.params["detailed_exitcode"] else error.exit_code
            raise


@click.command(cls=_Detailed)
@project_bots
@project_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", MARKDOWN], case_sensitive=False),
    default="text",
    show_default=True,
    help="Output format; docs/userguides/output.md describes JSON, and markdown is for pull requests.",
)
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help="Exit with 0 if there is nothing to do, 1 on an error, 2 if there are changes or left-over bots.",
)
@click.option(
    "--drift-only",
    is_flag=True,
    help="Show only what was changed on the cluster since the last deployment; exit code 2 then means drift.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the plan to this file, for `deploy --plan`.",
)
@cluster_options
def plan(
    bots: tuple[str, ...],
    format_: str,
    detailed_exitcode: bool,
    drift_only: bool,
    out: Path | None,
    profile: str | None,
    cluster: str | None,
    **options: Any,
) -> None:
    """Show what `deploy` would do: for all bots of the project, or each BOT by name or glob. Changes nothing.

    \b
    Examples:
        ape silverback cluster plan
        ape silverback cluster plan --prune --out plan.json && ape silverback cluster deploy --plan plan.json
        ape silverback cluster plan --drift-only --detailed-exitcode
    """
    from ape_silverback.deployment.session import open_session

    plan_options = plan_options_of(options, bots)
    if drift_only and out is not None:
        raise click.UsageError("--drift-only makes no plan for --out.")
    with open_session(request_of(options, bots, profile, cluster), warn) as session:
        _, made = session.plan_project(plan_options)
        if drift_only and not session.deployer.records.known().last:
            raise click.ClickException(f"no deployment to {made.cluster} is recorded, so drift can't be told")
    if out is not None:
        _write(out, made)
    if drift_only:
        show_drift(made, format_)
    else:
        show_plan(made, format_)
    if detailed_exitcode and (made.drift if drift_only else made.differs):
        raise click.exceptions.Exit(CHANGES)


def _write(file: Path, plan: Plan) -> None:
    try:
        file.write_text(plan.model_dump_json(indent=2) + "\n", encoding="utf8")
    except OSError as error:
        raise click.ClickException(f"{file}: can't be written: {error.strerror}") from None
    note(f"The plan is in {file}.")
