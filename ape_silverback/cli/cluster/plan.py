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
    from ape_silverback.deployment.plan import Action, Plan

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


@click.command(cls=_Detailed, short_help="Show what deploy would do")
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
@click.option("--detailed-exitcode", is_flag=True, help="Exit code 0: nothing to change, 1: error, 2: changes.")
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
    """
    from ape_silverback.deployment.session import open_session

    plan_options = plan_options_of(options, bots)
    with open_session(request_of(options, bots, profile, cluster), warn) as session:
        made = session.plan(session.resolve(), plan_options)
    if out is not None:
        _write(out, made)
    show_plan(made, format_)
    if detailed_exitcode and made.writes:
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
    if not plan.writes:
        names = list(plan.watched)
        be = "is" if len(names) == 1 else "are"
        head = [f"Nothing to change on {plan.cluster}: {', '.join(names)} {be} as the project says."]
        return [*head, *(line for action in plan.actions for line in _lines(action) if getattr(action, "owes", None))]
    lines = [f"Plan for {plan.cluster}:"]
    lines += [f"  {line}" for action in plan.actions for line in _lines(action)]
    lines += [f"  not known: {text}" for text in plan.unknown]
    return [*lines, summary(plan)]


def summary(plan: Plan) -> str:
    """Say in one line how much a plan does."""
    kinds = [action.kind.removesuffix("-group") for action in plan.actions]
    counts = {
        "to create": kinds.count("create"),
        "to change": kinds.count("update"),
        "to restart": kinds.count("restart"),
        "to start": kinds.count("start"),
        "to remove": kinds.count("remove"),
        "as they are": kinds.count("keep"),
    }
    return f"{', '.join(f'{count} {what}' for what, count in counts.items() if count)}."


def _lines(action: Action) -> list[str]:
    """Give what a plan says of one action: a sign, what, and for changes old and new."""
    sign, what, colour = SIGNS[action.kind]
    first, details = f"{sign} {what} {action.name}", []
    if action.kind == "create":
        details = [f"{key_text(key)}: {value_text(value)}" for key, value in action.configuration if value]
    elif action.kind == "update":
        first += " and restart" if action.restart else "" if action.runs else " and start"
        details = [
            f"{key_text(change.field)}: {value_text(change.old)} -> {value_text(change.new)}"
            for change in action.changes
        ]
        if action.runs and not action.restart:
            details.append("it runs with what it had until it is restarted")
    elif action.kind == "restart":
        first += f": {action.reason}"
    elif action.kind == "start":
        first += ", which is stopped"
    elif action.kind == "keep" and action.owes:
        first += f", which should be restarted: {action.owes}"
    elif action.kind == "remove" and action.protected:
        first += ", which is protected"
    elif action.kind == "create-group":
        first += f": {', '.join(action.variables)}"
    elif action.kind == "update-group":
        signed = [
            f"{sign}{name}" for sign in "+*-" for name in {"+": action.add, "*": action.push, "-": action.remove}[sign]
        ]
        first += f": {' '.join(signed)}"
    return [style(first, fg=colour), *(f"      {line}" for line in details)]


def markdown(plan: Plan) -> list[str]:
    """Give a plan for a pull request."""
    lines = [f"### Plan for {_escaped(plan.cluster)}", ""]
    if not plan.writes:
        lines.append("Nothing to change.")
    else:
        lines += [summary(plan).capitalize(), "", "```diff"]
        for action in plan.actions:
            first, *details = (plain(safe_line(line)).replace("```", "'''") for line in _lines(action))
            lines += [f"{DIFF.get(first[0], first[0])}{first[1:]}", *(f" {line}" for line in details)]
        lines.append("```")
    notes = [f"- Not known: {text}" for text in plan.unknown] if plan.writes else []
    notes += [f"- **Warning**: {text}" for text in plan.warnings]
    notes += [f"- **Refused**: {text}" for text in plan.refused]
    return [*lines, *(["", *map(_escaped, notes)] if notes else [])]


def _escaped(text: str) -> str:
    """Return text as Markdown that shows it: names and messages of a cluster make no tags, links or mentions."""
    return safe_line(text).replace("<", "&lt;").replace("[", "\\[").replace("@", "&#64;")


def key_text(name: str) -> str:
    """Give a field of the API as the section spells it."""
    return {"credential_name": "credential"}.get(name, name).replace("_", "-")
