"""Creations whose answer isn't known: what of the cluster is what a deployment that was cut off has made.

A name proves nothing: someone else may have made the same in the meantime. On a cluster that lets its clients choose
ids, what is to be made has its id in the record before the first request. On all others what counts is what wasn't
there before, is as it was to be, and came into being just after the creation was begun, by the cluster's own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from ape_silverback.deployment.plan import Action, CreateBot, CreateGroup, Plan
from ape_silverback.deployment.state import LiveBot, LiveGroup, LiveState, RecordedBot, RecordedGroup, RecordedState
from ape_silverback.timezones import with_timezone

CLOCKS = timedelta(seconds=5)
"""By which the clocks behind a cluster's ``Date`` and its ``created`` may differ."""

UNDER_WAY = timedelta(seconds=90)
"""For which a request may be under way: a client that lives on gives up after 60 s, and of one that was killed nothing
more arrives after that."""


def identify(recorded: RecordedState, live: LiveState) -> RecordedState:
    """Return the record with what has become of creations whose answer isn't known.

    Variable groups that turned out to belong to someone else are left out. A bot of a history of an earlier version,
    which knew no ids, is the one of its name.
    """
    known = {bot.id for bot in recorded.bots if not bot.creating}

    def identified(bot: RecordedBot) -> RecordedBot:
        if bot.creating and bot.id in live.by_id:
            return bot.model_copy(update={"creating": False, "begun": None})
        found = live.bots.get(bot.name)
        if bot.id is not None or found is None or found.id in known:
            return bot
        is_made = bot.creating and found.configuration == bot.configuration and _was_made(bot.begun, found)
        if is_made or not bot.confirmed:
            return bot.model_copy(update={"id": found.id, "creating": False, "begun": None})
        return bot

    groups = {}
    for name, group in recorded.groups.items():
        there = live.groups.get(name)
        if there is None:
            if not group.creating:
                groups[name] = group
        elif group.creating and group.id is None:
            if set(group.variables) == there.variables and _was_made(group.begun, there):
                groups[name] = group.model_copy(update={"creating": False, "begun": None})
        elif group.id in (None, there.id):
            groups[name] = group.model_copy(update={"creating": False, "begun": None})
    return replace(recorded, bots=tuple(map(identified, recorded.bots)), groups=groups)


def _was_made(begun: datetime | None, found: LiveBot | LiveGroup) -> bool:
    """Return whether something came into being while the request for it was under way."""
    if begun is None or found.created is None:
        return False
    return begun - CLOCKS <= with_timezone(found.created) <= begun + UNDER_WAY


def with_creations(
    plan: Plan,
    recorded: RecordedState,
    *,
    choose_ids: bool,
    removed: Collection[UUID] = (),
    new_id: Callable[[], UUID] = uuid4,
) -> Plan:
    """Return a plan that is about to be carried out, which marks what it creates.

    Args:
        plan: the plan.
        recorded: what is recorded so far. An id that was chosen for something stays until that is there.
        choose_ids: whether the cluster lets its clients choose ids.
        removed: ids of bots that were there and are no more; the cluster takes none of them again.
        new_id: makes an id.
    """
    creating = [bot for bot in recorded.bots if bot.creating and bot.id not in removed]
    bot_ids = {bot.name: bot.id for bot in creating if bot.target == plan.target}
    group_ids = {name: group.id for name, group in recorded.groups.items() if group.creating}
    bots = {one.name: (bot_ids.get(one.name) or new_id()) if choose_ids else None for one in plan.of(CreateBot)}
    groups = {one.name: (group_ids.get(one.name) or new_id()) if choose_ids else None for one in plan.of(CreateGroup)}

    def chosen(action: Action) -> Action:
        match action:
            case CreateBot():
                return action.model_copy(update={"id": bots[action.name]})
            case CreateGroup():
                return action.model_copy(update={"id": groups[action.name]})
            case _:
                return action

    def marked(bot: RecordedBot) -> RecordedBot:
        if bot.name not in bots or bot.target != plan.target:
            return bot
        return bot.model_copy(update={"id": bots[bot.name], "creating": True, "begun": None})

    def marked_group(name: str, group: RecordedGroup) -> RecordedGroup:
        if name not in groups:
            return group
        return group.model_copy(update={"id": groups[name], "creating": True, "begun": None})

    return plan.model_copy(
        update={
            "actions": tuple(map(chosen, plan.actions)),
            "bots": tuple(map(marked, plan.bots)),
            "groups": {name: marked_group(name, group) for name, group in plan.groups.items()},
        }
    )
