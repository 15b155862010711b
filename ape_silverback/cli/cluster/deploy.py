"""``ape silverback cluster deploy``: deploy the project's bots."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.apply import apply, events_option
from ape_silverback.cli.shared.deploy_options import (
    apply_flags,
    apply_options_of,
    plan_options_of,
    project_bots,
    project_options,
    read_plan,
    refuse_beside_plan,
    request_of,
)
from ape_silverback.cli.shared.gate import no_verify_option, pass_gate
from ape_silverback.cli.shared.options import cluster_options
from ape_silverback.cli.shared.output import value_text
from ape_silverback.cli.shared.plan_text import key_text, show_plan
from ape_silverback.cli.shared.terminal import complain, confirm, echo, note, style, warn
from ape_silverback.cli.shared.watch import check_watchable, watch

if TYPE_CHECKING:
    from ape_silverback.deployment.plan import Plan, PlanOptions
    from ape_silverback.deployment.session import DeploySession
    from ape_silverback.project.desired import DesiredBot, DesiredState


@click.command()
@project_bots
@click.option("-y", "--yes", is_flag=True, help="Don't ask before changes are made.")
@click.option(
    "--dry-run", is_flag=True, help="Show the resolved bots, where each value comes from, and the plan; then stop."
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Apply a plan from `plan --out` as it is, unless the cluster has changed since.",
)
@project_options
@apply_flags
@click.option("--rollback", is_flag=True, help="Roll back a bot that fails after a change.")
@click.option("--build", is_flag=True, help="Build the images of the deployed bots first, as `build` does.")
@click.option(
    "--push/--no-push",
    default=True,
    show_default=True,
    help="With --build: push the images, since a cluster pulls them.",
)
@click.option(
    "--watch",
    "watching",
    is_flag=True,
    help="Keep running: show the bots' logs, and restart bots when a file they import is saved. Local clusters only.",
)
@click.option(
    "--on-exit",
    type=click.Choice(["keep", "stop"], case_sensitive=False),
    help="With --watch: what to do with the bots after Ctrl-C. Default: ask; keep if stdin isn't a terminal.",
)
@no_verify_option
@events_option
@cluster_options
@click.pass_context
def deploy(
    ctx: click.Context,
    /,
    bots: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    plan_file: Path | None,
    rollback: bool,
    build: bool,
    push: bool,
    watching: bool,
    on_exit: str | None,
    no_verify: bool,
    format_: str,
    profile: str | None,
    cluster: str | None,
    **options: Any,
) -> None:
    """Deploy the project's bots: all of them, or each BOT by name or glob.

    Verifies the payment stream of a cluster of the platform, compares the project with the cluster and with what the
    last deployment left, shows the difference, applies it, and waits until every bot runs and is healthy. Bots that
    this project didn't deploy are left alone. Run again, it changes nothing, or finishes what was cut off.

    \b
    Examples:
        ape silverback cluster deploy --dry-run
        ape silverback cluster deploy blocks --yes
        ape silverback cluster deploy --target production --strategy rolling --rollback
        ape silverback cluster deploy --yes --watch
    """
    from ape_silverback.deployment.session import open_session
    from ape_silverback.deployment.watch import BotCode
    from ape_silverback.exceptions import DeployFailed, NoClusterError
    from ape_silverback.images.build import Build

    _refuse_beside_watch(ctx)
    plan_options, apply_options = plan_options_of(options, bots), apply_options_of(options, rollback)
    request = request_of(options, bots, profile, cluster)
    saved = None
    if plan_file is not None:
        refuse_beside_plan(ctx)
        if bots:
            raise click.UsageError("--plan applies what is in the file: name no BOT with it.")
        saved = read_plan(plan_file)
        request = replace(request, target=saved.target)
    try:
        with open_session(request, warn) as session:
            if watching:
                check_watchable(session.connection)
            if dry_run:
                look = session.begin_look()
                desired = session.resolve()
                _show_desired(desired)  # before anything that can fail: it is what was asked for
                show_plan(session.plan(desired, plan_options, look))
                note("Dry run: nothing was changed.")
                return
            pass_gate(session.connection, session.stream, no_verify=no_verify)
            with session.deployer.lock():
                images: list[DesiredBot] = []
                code = None
                if saved is not None:
                    plan = saved
                    session.deployer.check(plan)
                else:
                    look = session.begin_look()
                    desired = session.resolve()
                    code = BotCode(desired.bots) if watching else None
                    plan = _adopting(session, desired, session.plan(desired, plan_options, look), plan_options, yes)
                    images = session.to_build(plan, desired) if build else []
                if build and not images:
                    note(_nothing_to_build(session, plan))
                try:
                    apply(session, plan, apply_options, yes=yes, format_=format_, images=images, build=Build(push))
                except DeployFailed as error:
                    if code is None:
                        raise
                    complain(f"Error: {error}")
            if code is not None:
                watch(session.connection.client, code, apply_options.timing, on_exit)
    except NoClusterError:
        if not dry_run:
            raise
        _show_desired(request.resolve(request.read(), None, warn))
        note("\nNo cluster is chosen, so this isn't compared with one. `ape silverback cluster up` starts a local one.")


def _adopting(session: DeploySession, desired: DesiredState, plan: Plan, plan_options: PlanOptions, yes: bool) -> Plan:
    """Ask at a terminal whether to take over what this project didn't deploy; return the plan that follows."""
    if not plan.strangers or yes or not sys.stdin.isatty():
        return plan
    them = "it" if len(plan.strangers) == 1 else "them"
    names = [f"{name} ({plan.owners[name]})" if name in plan.owners else name for name in plan.strangers]
    confirm(f"{', '.join(names)}: on {plan.cluster}, but not this project's. Take {them} over?", yes)
    return session.plan(desired, replace(plan_options, adopt=True))


def _refuse_beside_watch(ctx: click.Context) -> None:
    """Refuse options that make no sense with ``--watch``, and the one that makes none without it.

    Raises:
        click.UsageError: there is one; names it.
    """
    from click.core import ParameterSource

    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if not ctx.params["watching"]:
        if "on_exit" in given:
            raise click.UsageError("--on-exit is for --watch.")
        return
    for name, option in (("dry_run", "--dry-run"), ("plan_file", "--plan"), ("format_", "--format")):
        if name in given and ctx.params[name] != "text":
            raise click.UsageError(f"--watch and {option} can't be combined.")


def _nothing_to_build(session: DeploySession, plan: Plan) -> str:
    if session.connection.kind() == "local":
        return "No image is built: this cluster runs the project's folder."
    if plan.writes:
        return "No image is built: none of the bots that change is made of this project."
    return "No image is built: no bot changes. For code that is new under an old tag, --force restarts the bots."


def _show_desired(desired: DesiredState) -> None:
    for bot in desired.bots:
        echo(f"{style(bot.name, bold=True)}  ({bot.origin})")
        shown = {name: value_text(value) for name, value in bot.configuration}
        width = max(map(len, shown.values()))
        for name, value in shown.items():
            echo(f"  {key_text(name):<14}  {value:<{width}}  {style(bot.origins[name], dim=True)}")
        echo()
