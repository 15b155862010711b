"""What the project deployed before and no longer has: what is removed, and what is only named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import UUID

from ape_silverback.deployment.plan import Orphan, RemoveBot, RemoveGroup
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.state import LiveBot, LiveGroup, RecordedBot, RecordedGroup


def plan_removals(matches: Iterable[Match], inputs: Inputs) -> list[RemoveBot | RemoveGroup]:
    """Decide what is removed with ``prune``: only what the record has for this target and the project doesn't."""
    if not inputs.options.prune:
        return []
    bots = [
        RemoveBot(id=live.id, name=live.name, protected=recorded.protect)
        for live, recorded in _left_over_bots(matches, inputs)
        if recorded.confirmed
    ]
    gone = {action.id for action in bots}
    groups = [
        RemoveGroup(id=group.id, name=group.name)
        for group, recorded in _left_over_groups(inputs)
        if recorded.confirmed and not _kept_users(group.name, gone, inputs)
    ]
    return [*bots, *groups]


def _left_over_bots(matches: Iterable[Match], inputs: Inputs) -> Iterator[tuple[LiveBot, RecordedBot]]:
    """Find the bots that the record has for this target and the project doesn't."""
    matched = {match.live.id for match in matches if match.live is not None}
    for recorded in sorted(inputs.recorded.bots, key=lambda bot: bot.name):
        live = inputs.live.by_id.get(recorded.id) if recorded.id else None
        is_wanted = recorded.name in inputs.desired.every_name
        if live is not None and inputs.in_scope(recorded) and live.id not in matched and not is_wanted:
            yield live, recorded


def _left_over_groups(inputs: Inputs) -> Iterator[tuple[LiveGroup, RecordedGroup]]:
    """Find the variable groups that only this target made and that the project no longer has."""
    declared = {group.name for group in inputs.desired.groups} | set(inputs.desired.group_names)
    used = {group for bot in inputs.desired.bots for group in bot.configuration.environment}
    for name, recorded in sorted(inputs.recorded.groups.items()):
        live = inputs.live.groups.get(name)
        only_here = set(recorded.targets) <= {inputs.desired.target}
        if live is not None and only_here and name not in declared | used:
            yield live, recorded


def _kept_users(group: str, gone: set[UUID], inputs: Inputs) -> list[LiveBot]:
    """Return the project's bots that go on using a group: those of another target, or that weren't selected."""
    wanted = {bot.name for bot in inputs.desired.bots}
    return [
        bot
        for bot in inputs.live.users(group)
        if bot.id not in gone and bot.name not in wanted and inputs.owned(bot) is not None
    ]


def find_orphans(
    matches: Iterable[Match], removals: Iterable[RemoveBot | RemoveGroup], inputs: Inputs
) -> Iterator[Orphan]:
    """Name what the project deployed before for this target and no longer has, where it isn't removed."""
    removed = {(type(action), action.name) for action in removals}
    for live, bot in _left_over_bots(matches, inputs):
        if (RemoveBot, live.name) not in removed:
            yield Orphan(kind="bot", name=live.name, confirmed=bot.confirmed)
    if not inputs.desired.selected:
        for group, recorded in _left_over_groups(inputs):
            if (RemoveGroup, group.name) not in removed:
                yield Orphan(kind="group", name=group.name, confirmed=recorded.confirmed)
