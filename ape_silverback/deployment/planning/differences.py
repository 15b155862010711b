"""Who changed what: compares what the last deployment left, what the project wants, and what the cluster has."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from ape_silverback.deployment.plan import Author, Change, Drift, Value, field_of
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.state import LiveBot, LocalState, RecordedBot


def changes_of(match: Match) -> tuple[Change, ...]:
    """Compare a bot with what it is on the cluster, and find who made each difference."""
    bot, live, recorded = match.bot, match.live, match.recorded
    if live is None:
        return ()
    changes = []
    for name in ("name", *type(bot.configuration).model_fields):
        old, new = field_of(live.configuration, live.name, name), field_of(bot.configuration, bot.name, name)
        if old != new:
            before = field_of(recorded.configuration, recorded.name, name) if recorded else None
            by = author(recorded, name, old, new)
            changes.append(Change(field=name, old=old, new=new, by=by, recorded=before))
    return tuple(changes)


def author(recorded: RecordedBot | None, field: str, old: Value, new: Value) -> Author:
    """Return who changed a field since the last deployment.

    Args:
        recorded: what that left of the bot.
        field: the field.
        old: what the cluster has.
        new: what the project wants.
    """
    if recorded is None:
        return "unknown"
    left = {field_of(recorded.configuration, recorded.name, field)}
    if recorded.previous is not None:  # the change may or may not have been made
        left.add(field_of(recorded.previous, recorded.name, field))
    if old in left:
        return "project"
    return "cluster" if new in left else "both"


def pending_restart(live: LiveBot, inputs: Inputs) -> str | None:
    """Return why a bot has to be restarted since an earlier change; None once it was."""
    pending = inputs.recorded.pending_restarts.get(live.id)
    if pending is None or (None not in (live.started_at, pending.started_at) and live.started_at != pending.started_at):
        return None
    return pending.reason


def is_owed(bot: UUID, inputs: Inputs) -> bool:
    """Return whether a bot of the cluster has to be restarted since an earlier change."""
    live = inputs.live.by_id.get(bot)
    return live is not None and pending_restart(live, inputs) is not None


def code_changed(match: Match, live: LiveBot, local: LocalState) -> bool:
    """Return whether the project's files differ from those that a bot was started with.

    The record has their digest. A bot that was started after the newest of them was written has them anyway, and of one
    that isn't recorded only these times are known.
    """
    code = local.code.get(match.bot.name)
    if code is None:
        return False
    if live.started_at is not None and code.modified < live.started_at:
        return False
    if match.recorded is None or match.recorded.code is None:
        return live.started_at is not None
    return match.recorded.code != code.digest


def digest_changed(match: Match, local: LocalState) -> bool:
    """Return whether the bot's tag certainly names another image than the one that it was started with."""
    here = local.digests.get(match.bot.configuration.image)
    before = match.recorded.digest if match.recorded else None
    return here is not None and before is not None and here != before


def find_drift(inputs: Inputs) -> Iterator[Drift]:
    """Compare what the last deployment left for this target with what the cluster has."""
    for recorded in inputs.recorded.bots:
        if recorded.id is None or not recorded.was_there or not inputs.in_scope(recorded) or not recorded.confirmed:
            continue
        live = inputs.live.by_id.get(recorded.id)
        if live is None:
            yield Drift(name=recorded.name, kind="removed")
            continue
        for name in ("name", *type(recorded.configuration).model_fields):
            now = field_of(live.configuration, live.name, name)
            left = field_of(recorded.configuration, recorded.name, name)
            if author(recorded, name, now, left) in ("cluster", "both"):
                yield Drift(name=recorded.name, kind="changed", field=name, recorded=left, live=now)
        if live.status is not None and not live.runs:
            yield Drift(name=recorded.name, kind="stopped")
    for name, group in inputs.recorded.groups.items():
        if inputs.desired.target not in group.targets or not group.confirmed:
            continue
        there = inputs.live.groups.get(name)
        if there is None:
            yield Drift(name=name, kind="group-removed")
        elif there.variables != set(group.variables):
            now = tuple(sorted(there.variables))
            yield Drift(name=name, kind="group-changed", field="variables", recorded=group.variables, live=now)
