"""What `plan`, `deploy` and `rollback` share: their options, and what these ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.completion import complete_project_bots
from ape_silverback.cli.shared.options import Number, allow_commands_option, together
from ape_silverback.concurrency import CONCURRENCY

if TYPE_CHECKING:
    from ape_silverback.deployment.apply import ApplyOptions
    from ape_silverback.deployment.plan import Plan, PlanOptions
    from ape_silverback.deployment.session import DeployRequest

project_bots = click.argument("bots", metavar="[BOT]...", nargs=-1, shell_complete=complete_project_bots)


env_files_option = click.option(
    "--env-file",
    "env_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="File of NAME=VALUE lines with values of variables. Takes precedence over the environment; repeatable.",
)
prune_option = click.option(
    "--prune", is_flag=True, help="Remove what this project deployed earlier and no longer has."
)

adopt_option = click.option(
    "--adopt",
    is_flag=True,
    help="Take over bots and groups of these names that this project didn't deploy. They belong to it as soon as the "
    "deployment begins, even if that fails.",
)

project_options = together(
    click.option("--target", metavar="NAME", help="Deploy with the settings of this target of the section."),
    click.option("--network", metavar="ECOSYSTEM:NETWORK:PROVIDER", help="Network of the bots, for this run."),
    click.option("--account", metavar="ALIAS", help="Account of the bots, for this run."),
    click.option("--tag", metavar="TAG", help="Tag of the bots' images, for this run; `git` for the commit."),
    click.option("--image", "images", metavar="BOT=IMAGE", multiple=True, help="Image of a bot, for this run."),
    click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Key of the section for this run, such as bots.NAME.account=me; repeatable.",
    ),
    click.option("--allow-dirty", is_flag=True, help="Allow uncommitted changes with --tag git."),
    env_files_option,
    allow_commands_option,
    prune_option,
    click.option("--push-vars", is_flag=True, help="Also send the values of variables that the cluster already has."),
    adopt_option,
    click.option("--keep-drift", is_flag=True, help="Keep changes that were made on the cluster, not in the project."),
    click.option(
        "--force", is_flag=True, help="Also restart bots that haven't changed, such as for a tag that was moved."
    ),
    click.option("--restart/--no-restart", default=True, show_default=True, help="Restart bots whose changes need it."),
)
"""What the project wants, and what the plan may do."""

apply_flags = together(
    click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until bots run and are healthy."),
    click.option(
        "--timeout",
        type=Number(min=0, min_open=True),
        default=180.0,
        show_default=True,
        help="Seconds to wait for a bot to become healthy; at most 60 for one that still looks stopped.",
    ),
    click.option(
        "--settle",
        type=Number(min=0),
        default=7.0,
        show_default=True,
        envvar="SILVERBACK_SETTLE",
        show_envvar=True,
        help="Seconds that a changed bot has to stay healthy.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["all", "rolling"]),
        default="all",
        show_default=True,
        help="Restart running bots all at once, or a few at a time.",
    ),
    click.option(
        "--max-unavailable",
        type=click.IntRange(min=1),
        help="With --strategy rolling: maximum number of bots down at once, failed ones included. Default: 1.",
    ),
    click.option("--fail-fast", is_flag=True, help="Start nothing more once a bot has failed."),
    click.option(
        "--concurrency",
        type=click.IntRange(1, 100),
        default=CONCURRENCY,
        show_default=True,
        help="Maximum number of concurrent requests.",
    ),
)
"""How a plan is carried out."""


def request_of(
    options: dict[str, Any], bots: tuple[str, ...], profile: str | None, cluster: str | None
) -> DeployRequest:
    """Return what this run should do."""
    from ape_silverback.deployment.session import DeployRequest
    from ape_silverback.project.desired import Overrides

    settings = list(options["settings"])
    for image in options["images"]:
        bot, is_one, reference = image.partition("=")
        if not is_one or not bot or not reference:
            raise click.UsageError(f"--image {image}: expected BOT=IMAGE.")
        settings.append(f"bots.{bot}.image={reference}")
    return DeployRequest(
        Path.cwd(),
        bots,
        options["target"],
        profile,
        cluster,
        overrides=Overrides(**{key: options[key] for key in ("network", "account", "tag", "allow_dirty")}),
        settings=settings,
        env_files=options["env_files"],
        commands=options["commands"],
    )


def plan_options_of(options: dict[str, Any], names: Sequence[str] = ()) -> PlanOptions:
    """Return what the plan may do."""
    from ape_silverback.deployment.plan import PlanOptions

    if options["prune"] and names:
        raise click.UsageError("--prune looks at the whole project: name no BOT with it.")
    return PlanOptions(
        prune=options["prune"],
        push_variables=options["push_vars"],
        restart=options["restart"],
        force=options["force"],
        adopt=options["adopt"],
        keep_drift=options["keep_drift"],
    )


def apply_options_of(options: dict[str, Any], rollback: bool = False) -> ApplyOptions:
    """Return how the plan is carried out."""
    from ape_silverback.deployment.apply import ApplyOptions
    from ape_silverback.deployment.wait import Timing

    rolling, most = options["strategy"] == "rolling", options["max_unavailable"]
    if most and not rolling:
        raise click.UsageError("--max-unavailable is for --strategy rolling.")
    if rollback and not options["wait"]:
        raise click.UsageError("--rollback has to wait: it can't go with --no-wait.")
    return ApplyOptions(
        concurrency=options["concurrency"],
        max_unavailable=(most or 1) if rolling else None,
        fail_fast=options["fail_fast"],
        rollback=rollback,
        wait=options["wait"],
        timing=Timing(timeout=options["timeout"], settle=options["settle"]),
    )


CHANGES_A_PLAN = (
    *("target", "network", "account", "tag", "images", "settings", "allow_dirty", "prune", "push_vars"),
    *("adopt", "keep_drift", "force", "restart"),
)
"""Parameters that say what a plan does, so that they make no sense beside a saved one."""


def refuse_beside_plan(ctx: click.Context) -> None:
    """Refuse options that would change a plan which is made already.

    Raises:
        click.UsageError: there are some; names them.
    """
    from click.core import ParameterSource

    given = [
        max((*parameter.opts, *parameter.secondary_opts), key=len)
        for parameter in ctx.command.params
        if parameter.name in (*CHANGES_A_PLAN, "dry_run", "build")
        and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"--plan applies what is in the file, so {', '.join(given)} can't change it: pass it to `plan --out`."
        )


def read_plan(file: Path) -> Plan:
    """Read a saved plan.

    Raises:
        click.ClickException: the file doesn't hold one, or one of another version.
    """
    from pydantic import ValidationError

    from ape_silverback.deployment.plan import VERSION, Plan

    try:
        return Plan.model_validate_json(file.read_bytes())
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        place = ".".join(map(str, detail["loc"]))
        raise click.ClickException(
            f"{file}: not a plan of version {VERSION}: {place + ': ' if place else ''}{detail['msg']}"
        ) from None
