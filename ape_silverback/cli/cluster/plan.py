"""``ape silverback cluster plan``: what `deploy` would do; and how plans are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.deploy_options import plan_options_of, project_bots, project_options, request_of
from ape_silverback.cli.shared.options import cluster_options
from ape_silverback.cli.shared.output import value_text
from ape_silverback.cli.shared.terminal import echo, echo_text, note, plain, safe_json, safe_line, style, warn

if TYPE_CHECKING:
    from ape_silverback.deployment.plan import Action, Change, Drift, Plan

MARKDOWN = "markdown"
CHANGES = 2
"""Exit code with ``--detailed-exitcode`` for a plan that changes something."""

SIGNS = {
    "create": ("+", "create bot", "green"),
    "update": ("~", "update bot", "yellow"),
    "restart": ("~", "restart bot", "yellow"),
    "start": (">", "start bot", "green"),
    "keep": ("=", "keep bot", None),
    "remove": ("-", "remove bot", "red"),
    "create-group": ("+", "create variable group", "green"),
    "update-group": ("~", "update variable group", "yellow"),
    "remove-group": ("-", "remove variable group", "red"),
}
DIFF = {"~": "!", ">": "+", "=": " "}
"""Sign of a plan → the one that colours a line of a diff."""


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
    help="How to show it: for people, as docs/userguides/output.md describes, or for a pull request.",
)
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help="Exit code 0: the cluster is as the project wants it, 1: error, 2: changes, or bots that are left over.",
)
@click.option(
    "--drift-only",
    is_flag=True,
    help="Show only what was changed on the cluster since the last deployment; exit code 2 is for that then.",
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
        made = session.plan(session.resolve(), plan_options)
        if drift_only and not session.deployer.records.known().last:
            raise click.ClickException(f"no deployment to {made.cluster} is recorded, so drift can't be told")
    if out is not None:
        _write(out, made)
    if drift_only:
        _show_drift(made, format_)
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


def show_plan(plan: Plan, format_: str = "text") -> None:
    """Show a plan: on stdout, with warnings on stderr."""
    if format_ == "json":
        echo_text(safe_json(plan.model_dump(mode="json"), indent=2))
    elif format_ == MARKDOWN:
        for line in markdown(plan):
            echo(line)
    else:
        for line in _text(plan):
            echo(line)
    if format_ != MARKDOWN:
        for text in plan.warnings:
            warn(text)
        for text in plan.refused:
            warn(f"`deploy` refuses this plan: {text}")


def _text(plan: Plan) -> list[str]:
    lines = [f"  {line}" for action in plan.actions for line in _lines(action)] if plan.writes else []
    if not plan.writes:
        lines = [f"  {line}" for action in plan.actions if _is_worth_telling(action) for line in _lines(action)]
    lines += [f"  {line}" for line in _left_over(plan)]
    lines += [f"  not known: {text}" for text in plan.unknown]
    if plan.writes:
        return [f"Plan for {plan.cluster}:", *lines, summary(plan)]
    names = list(plan.watched)
    if not names:
        return [f"Nothing to change on {plan.cluster}.", *lines]
    be = "is" if len(names) == 1 else "are"
    return [f"Nothing to change on {plan.cluster}: {', '.join(names)} {be} as the project says.", *lines]


def _is_worth_telling(action: Action) -> bool:
    """Return whether a plan that changes nothing tells about a bot that it keeps."""
    return bool(getattr(action, "owes", None) or getattr(action, "adopts", False))


def _left_over(plan: Plan) -> list[str]:
    """Return what the plan leaves: orphans, changes on the cluster, bots that run with something older."""
    lines = []
    for orphan in plan.orphans:
        what = f"{'bot' if orphan.kind == 'bot' else 'variable group'} {orphan.name}"
        hint = "--prune removes it" if orphan.confirmed else "remove it by hand if it is yours"
        lines.append(style(f"? {what} was deployed before and isn't in the project any more: {hint}", fg="yellow"))
    lines += [f"! {drift_text(drift)}, and left so" for drift in plan.accepted_drift]
    return [*lines, *(style(f"! {text}", fg="yellow") for text in plan.pending)]


def drift_text(drift: Drift) -> str:
    """Return one change that was made on the cluster, in a line."""
    match drift.kind:
        case "removed":
            return f"bot {drift.name} was removed on the cluster"
        case "stopped":
            return f"bot {drift.name} was deployed to run, and is stopped"
        case "changed":
            field, was, now = key_text(drift.field or ""), value_text(drift.recorded), value_text(drift.live)
            return f"bot {drift.name}: {field} was changed on the cluster: {was} -> {now}"
        case "group-removed":
            return f"variable group {drift.name} was removed on the cluster"
        case "group-changed":
            was, now = value_text(drift.recorded), value_text(drift.live)
            return f"variable group {drift.name} was changed on the cluster: {was} -> {now}"


def _show_drift(plan: Plan, format_: str) -> None:
    """Show what was changed on the cluster since the last deployment."""
    lines = [drift_text(drift) for drift in plan.drift]
    none = f"No drift on {plan.cluster}: it is as the last deployment left it."
    if format_ == "json":
        echo_text(safe_json([drift.model_dump(mode="json") for drift in plan.drift], indent=2))
    elif format_ == MARKDOWN:
        echo(f"### Drift on {_escaped(plan.cluster)}")
        echo()
        for line in lines or ["None."]:
            echo(f"- {_escaped(line)}" if lines else line)
    else:
        echo(f"Drift on {plan.cluster}:" if lines else none)
        for line in lines:
            echo(f"  ! {line}")


def summary(plan: Plan) -> str:
    """Return in one line how much a plan does."""
    kinds = [action.kind.removesuffix("-group") for action in plan.actions]
    counts = {
        "to create": kinds.count("create"),
        "to change": kinds.count("update"),
        "to restart": kinds.count("restart"),
        "to start": kinds.count("start"),
        "to remove": kinds.count("remove"),
        "as they are": kinds.count("keep"),
        "left over": len(plan.orphans),
    }
    return f"{', '.join(f'{count} {what}' for what, count in counts.items() if count)}."


AUTHORS = {
    "project": "changed in the project",
    "cluster": "changed on the cluster since the last deployment",
    "both": "changed in the project and on the cluster",
    "unknown": "not recorded who changed it",
}
"""Who made a difference, in words."""


def _lines(action: Action) -> list[str]:
    """Return what a plan says of one action: a sign, what, and for changes old, new and who made the difference."""
    sign, what, colour = SIGNS[action.kind]
    first, details = f"{sign} {what} {action.name}", []
    match action.kind:
        case "create":
            first += ", which was removed on the cluster" if action.removed else ""
            details = [f"{key_text(key)}: {value_text(value)}" for key, value in action.configuration if value]
        case "update":
            first += " and restart" if action.restart else "" if action.runs else " and start"
            details = [_change_text(change) for change in action.changes]
            if action.runs and not action.restart:
                details.append("it runs with what it had until it is restarted")
        case "restart":
            first += f": {action.reason}"
        case "start":
            first += ", which is about to stop" if action.stopping else ", which is stopped"
        case "keep":
            first += f", which should be restarted: {action.owes}" if action.owes else ""
        case "remove":
            first += ", which is protected" if action.protected else ""
        case "create-group":
            first += f": {', '.join(action.variables)}"
        case "update-group":
            signed = [*(f"+{name}" for name in action.add), *(f"*{name}" for name in action.push)]
            first += f": {' '.join([*signed, *(f'-{name}' for name in action.remove)])}"
            if action.drift:
                details.append(f"{', '.join(action.drift)}: {AUTHORS['cluster']}")
        case "remove-group":
            pass
    if getattr(action, "adopts", False):
        details.append("taken over: this project didn't deploy it")
    return [style(first, fg=colour), *(f"      {line}" for line in details)]


def _change_text(change: Change) -> str:
    was = f", where {value_text(change.recorded)} was deployed" if change.by == "both" else ""
    return f"{key_text(change.field)}: {value_text(change.old)} -> {value_text(change.new)} ({AUTHORS[change.by]}{was})"


def markdown(plan: Plan) -> list[str]:
    """Return a plan for a pull request."""
    lines = [f"### Plan for {_escaped(plan.cluster)}", ""]
    if not plan.writes:
        lines.append("Nothing to change.")
    else:
        lines += [summary(plan).capitalize(), "", "```diff"]
        for action in plan.actions:
            first, *details = (plain(safe_line(line)).replace("```", "'''") for line in _lines(action))
            lines += [f"{DIFF.get(first[0], first[0])}{first[1:]}", *(f" {line}" for line in details)]
        lines.append("```")
    notes = [f"- {plain(safe_line(line))[2:]}" for line in _left_over(plan)]
    notes += [f"- Not known: {text}" for text in plan.unknown]
    notes += [f"- **Warning**: {text}" for text in plan.warnings]
    notes += [f"- **Refused**: {text}" for text in plan.refused]
    return [*lines, *(["", *map(_escaped, notes)] if notes else [])]


def _escaped(text: str) -> str:
    """Return text as Markdown that shows it: names and messages of a cluster make no tags, links or mentions."""
    return safe_line(text).replace("<", "&lt;").replace("[", "\\[").replace("@", "&#64;")


def key_text(name: str) -> str:
    """Return a field of the API as the section spells it."""
    return {"credential_name": "credential"}.get(name, name).replace("_", "-")
