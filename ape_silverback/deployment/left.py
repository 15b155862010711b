"""What a deployment has really left, from its events and its journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ape_silverback.deployment.events import Event
from ape_silverback.deployment.journal import ActionJournal
from ape_silverback.deployment.plan import Plan, RemoveGroup, UpdateBot, UpdateGroup
from ape_silverback.deployment.record import Record
from ape_silverback.deployment.state import RecordedBot, RecordedGroup, RecordedState


def bots_left(record: Record, plan: Plan, events: Mapping[str, Event], before: RecordedState) -> Iterator[RecordedBot]:
    """Return the bots as a deployment that ended has really left them."""
    earlier = {bot.id: bot for bot in before.bots if bot.id is not None}
    renamed = {action.name: action.old["name"] for action in plan.of(UpdateBot) if "name" in action.old}
    for bot in record.bots:
        event = events.get(bot.name)
        if event is not None and event.kind == "skipped" and event.text.startswith("not started"):
            if bot.id in earlier:
                yield earlier[bot.id]
            continue
        if not bot.was_there:
            yield bot
        elif event is not None and event.kind == "failed" and bot.previous is not None:
            yield bot  # the change may have been made
        elif any(one.kind == "rolled-back" for one in (event, events.get(str(renamed.get(bot.name)))) if one):
            name = str(renamed.get(bot.name, bot.name))
            yield bot.model_copy(
                update={
                    "name": name,
                    "configuration": bot.previous or bot.configuration,
                    "previous": None,
                    "code": None,
                }
            )
        else:
            yield bot.model_copy(update={"previous": None})
    for bot in record.leaving:
        event = events.get(bot.name)
        if event is None or event.kind != "applied":
            yield bot


def groups_left(
    record: Record, plan: Plan, events: Mapping[str, Event], before: RecordedState
) -> dict[str, RecordedGroup]:
    """Return the variable groups as a deployment that ended has really left them."""
    removed = {action.name for action in plan.of(RemoveGroup)}
    groups = {
        name: group
        for name, group in record.groups.items()
        if not (name in removed and name in events and events[name].kind == "applied")
    }
    for action in plan.of(UpdateGroup):
        event = events.get(action.name)
        if event is not None and event.kind not in ("applied", "skipped") and action.name in groups:
            groups.pop(action.name)
            if action.name in before.groups:
                groups[action.name] = before.groups[action.name]
    return groups


def bots_with_creations(bots: Iterable[RecordedBot], record: Record, journal: ActionJournal) -> Iterator[RecordedBot]:
    """Return bots, with what the journal of their deployment shows of those to be created."""
    made, begun = journal.made("create"), journal.begun("create")
    for bot in bots:
        if not bot.creating or bot.target != record.target or bot.begun is not None:
            yield bot
        elif bot.name in made:
            yield bot.model_copy(update={"id": made[bot.name], "creating": False})
        elif bot.name in begun:
            yield bot.model_copy(update={"begun": begun[bot.name]})
        else:
            yield bot.model_copy(update={"id": None, "creating": False})


def groups_with_creations(groups: Mapping[str, RecordedGroup], journal: ActionJournal) -> dict[str, RecordedGroup]:
    """Return groups, with what the journal of their deployment shows of those to be created."""
    made, begun = journal.made("create-group"), journal.begun("create-group")
    left = {}
    for name, group in groups.items():
        if not group.creating:
            left[name] = group
        elif name in made:
            left[name] = group.model_copy(update={"id": group.id and made[name], "creating": False})
        elif name in begun:
            left[name] = group.model_copy(update={"begun": begun[name]})
    return left
