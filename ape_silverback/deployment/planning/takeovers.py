"""Which project has a bot or a variable group, where the cluster keeps the records of all projects.

A project that takes something over claims it with a number that is higher than every claim so far. The project that had
it finds the higher claim with its next plan, and no longer has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from ape_silverback.deployment.state import LiveState, RecordedBot, RecordedGroup, RecordedState


def without_taken(recorded: RecordedState, live: LiveState, project: str) -> tuple[RecordedState, dict[str, str]]:
    """Return the record without what another project took over, and which project that was: bot or group → project.

    Args:
        recorded: what is recorded of earlier deployments.
        live: what the cluster has.
        project: identity of the project.
    """
    bots, groups, taken = [], {}, {}
    for bot in recorded.bots:
        there = live.by_id.get(bot.id) if bot.id else None
        if there is not None and (other := _taken_by(bot, live, project)):
            taken[there.name] = other
        else:
            bots.append(bot)
    for name, group in recorded.groups.items():
        if name in live.groups and (other := _taken_by(group, live, project)):
            taken[group_label(name)] = other
        else:
            groups[name] = group
    return replace(recorded, bots=tuple(bots), groups=groups), taken


def _taken_by(thing: RecordedBot | RecordedGroup, live: LiveState, project: str) -> str | None:
    """Return the project that took something over since this one claimed it."""
    claims = _claims_of_others(thing.id, live, project)
    claim, other = max(((claim, one) for one, claim in claims.items()), default=(0, ""))
    return other if claim and (claim, other) > (thing.claim, project) else None


def next_claim(thing: UUID, live: LiveState) -> int:
    """Return the number with which something is claimed that is taken over."""
    return max(live.claims.get(thing, {}).values(), default=0) + 1


def owner_of(thing: UUID, live: LiveState, project: str) -> str | None:
    """Return the other project that has something, or the projects where none of them took it over; None without."""
    claims = _claims_of_others(thing, live, project)
    newest = max(claims.values(), default=0)
    return ", ".join(sorted(one for one, claim in claims.items() if claim == newest)) or None


def group_label(name: str) -> str:
    """Return how a plan names a variable group where it names bots, too."""
    return f"variable group {name}"


def _claims_of_others(thing: UUID | None, live: LiveState, project: str) -> Mapping[str, int]:
    claims = live.claims.get(thing, {}) if thing else {}
    return {one: claim for one, claim in claims.items() if one != project}
