"""How a plan is shown: as text, as JSON, and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ape_silverback.cli.shared.output import value_text
from ape_silverback.cli.shared.terminal import echo, echo_text, plain, safe_json, safe_line, style, warn

if TYPE_CHECKING:
    from ape_silverback.deployment.plan import Action, Change, Drift, Plan, UpdateGroup

MARKDOWN = "markdown"

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
    shown = [action for action in plan.actions if plan.writes or _is_worth_telling(action)]
    lines = [f"  {line}" for action in shown for line in _lines(action, plan)]
    lines += [f"  {line}" for line in _left_over(plan)]
    lines += [f"  not known: {text}" for text in plan.unknown]
    if plan.writes:
        return [f"Plan for {plan.cluster}:", *lines, *usage(plan), summary(plan)]
    names = list(plan.watched)
    if not names:
        return [f"Nothing to change on {plan.cluster}.", *lines]
    be, them = ("is", "it") if len(names) == 1 else ("are", "them")
    wanted = "the project says" if plan.restores is None else f"deployment {plan.restores} had {them}"
    return [f"Nothing to change on {plan.cluster}: {', '.join(names)} {be} as {wanted}.", *lines]


def _is_worth_telling(action: Action) -> bool:
    """Return whether a plan that changes nothing mentions a bot that it keeps."""
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


def show_drift(plan: Plan, format_: str) -> None:
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


def usage(plan: Plan) -> list[str]:
    """Return how much is used then of what is paid for: a line, or none if the cluster doesn't tell."""
    if (found := plan.usage) is None:
        return []
    networks = f"{len(found.networks)} of {found.networks_paid} networks"
    return [f"Used of what is paid for: {found.bots} of {found.bots_paid} bots, {networks}."]


AUTHORS = {
    "project": "changed in the project",
    "cluster": "changed on the cluster since the last deployment",
    "both": "changed in the project and on the cluster",
    "unknown": "not recorded who changed it",
}
"""Who made a difference, in words."""


def _lines(action: Action, plan: Plan) -> list[str]:
    """Return one action of a plan: a sign, what is done and to what; below, what changes and who changed it."""
    sign, what, colour = SIGNS[action.kind]
    details = _details(action, plan.restores)
    if getattr(action, "adopts", False):
        from ape_silverback.deployment.planning.takeovers import group_label

        label = group_label(action.name) if action.kind == "update-group" else action.name
        owner = plan.owners.get(label)
        back = "back" if label in plan.taken_over else "over"
        details.append(f"taken {back} from {owner}" if owner else "taken over: this project didn't deploy it")
    return [style(f"{sign} {what} {action.name}{_remark(action)}", fg=colour), *(f"      {line}" for line in details)]


def _remark(action: Action) -> str:
    """Return what follows the name of an action on its first line."""
    match action.kind:
        case "create":
            return ", which was removed on the cluster" if action.removed else ""
        case "update":
            return " and restart" if action.restart else "" if action.runs else " and start"
        case "restart":
            return f": {action.reason}"
        case "start":
            return ", which is about to stop" if action.stopping else ", which is stopped"
        case "keep":
            return f", which should be restarted: {action.owes}" if action.owes else ""
        case "remove":
            return ", which is protected" if action.protected else ""
        case "create-group":
            return f": {', '.join(action.variables)}"
        case "update-group":
            signed = [f"{sign}{name}" for sign, names in _by_sign(action) for name in names]
            return f": {' '.join(signed)}"
        case "remove-group":
            return ""


def _details(action: Action, restores: int | None) -> list[str]:
    """Return the lines below the first one of an action."""
    match action.kind:
        case "create":
            return [f"{key_text(key)}: {value_text(value)}" for key, value in action.configuration if value]
        case "update":
            keeps = action.runs and not action.restart
            changes = [_change_text(change, restores) for change in action.changes]
            return [*changes, "it keeps its old configuration until it restarts"] if keeps else changes
        case "update-group":
            return [f"{', '.join(action.drift)}: {AUTHORS['cluster']}"] if action.drift else []
        case "restart" | "start" | "keep" | "remove" | "create-group" | "remove-group":
            return []


def _by_sign(group: UpdateGroup) -> tuple[tuple[str, Sequence[str]], ...]:
    return ("+", group.add), ("*", group.push), ("-", group.remove)


def _change_text(change: Change, restores: int | None) -> str:
    by = AUTHORS[change.by]
    if restores is not None and change.by in ("project", "both"):
        by = f"as deployment {restores} had it" + (f"; {AUTHORS['cluster']}" if change.by == "both" else "")
    was = f", where {value_text(change.recorded)} was deployed" if change.by == "both" else ""
    return f"{key_text(change.field)}: {value_text(change.old)} -> {value_text(change.new)} ({by}{was})"


def markdown(plan: Plan) -> list[str]:
    """Return a plan for a pull request."""
    lines = [f"### Plan for {_escaped(plan.cluster)}", ""]
    if not plan.writes:
        lines.append("Nothing to change.")
    else:
        lines += [" ".join([summary(plan).capitalize(), *usage(plan)]), "", "```diff"]
        for action in plan.actions:
            first, *details = (plain(safe_line(line)).replace("```", "'''") for line in _lines(action, plan))
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
