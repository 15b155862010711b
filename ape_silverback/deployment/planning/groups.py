"""What happens to the variable groups that the project declares."""

from __future__ import annotations

from ape_silverback.deployment.plan import CreateGroup, UpdateGroup
from ape_silverback.deployment.planning.inputs import Inputs
from ape_silverback.deployment.state import RecordedGroup
from ape_silverback.project.desired import DesiredGroup


def plan_group(group: DesiredGroup, inputs: Inputs) -> CreateGroup | UpdateGroup | None:
    """Decide what happens to a variable group that the project declares."""
    live = inputs.live.groups.get(group.name)
    if live is None:
        return CreateGroup(name=group.name, variables=group.variables)
    recorded = inputs.recorded.groups.get(group.name)
    add = tuple(name for name in group.variables if name not in live.variables)
    remove = tuple(sorted(live.variables.difference(group.variables, shared_variables(group.name, inputs))))
    drift: tuple[str, ...] = ()
    if recorded is not None:
        changed = live.variables.symmetric_difference(recorded.variables)
        drift = tuple(name for name in (*add, *remove) if name in changed)
        if inputs.options.keep_drift:
            add = tuple(name for name in add if name not in drift)
            remove = tuple(name for name in remove if name not in drift)
            drift = ()
    there = [name for name in group.variables if name in live.variables]
    push = tuple(name for name in there if inputs.options.push_variables or _value_changed(name, recorded, inputs))
    if not (add or push or remove):
        return None
    return UpdateGroup(
        id=live.id, name=group.name, add=add, push=push, remove=remove, drift=drift, adopts=inputs.adopts(recorded)
    )


def shared_variables(group: str, inputs: Inputs) -> set[str]:
    """Return the variables of a group that stay since a rollback of some bots leaves others that use them."""
    if not (inputs.desired.restores and inputs.desired.selected):
        return set()
    selected = {bot.name for bot in inputs.desired.bots}
    recorded = inputs.recorded.groups.get(group)
    others = any(bot.name not in selected for bot in inputs.live.users(group))
    return set(recorded.variables) if recorded and others else set()


def _value_changed(name: str, recorded: RecordedGroup | None, inputs: Inputs) -> bool:
    """Return whether the value that is here certainly isn't the one that was sent."""
    if recorded is None or name not in recorded.fingerprints or name in inputs.local.empty:
        return False
    sent, here = recorded.fingerprints[name], inputs.local.values.get(name)
    return here is not None and is_comparable(sent, here) and sent != here


def is_comparable(one: str, other: str) -> bool:
    """Return whether two fingerprints, as ``KEY:DIGEST``, were made with one key."""
    return one.partition(":")[0] == other.partition(":")[0]


def sent_variables(action: CreateGroup | UpdateGroup) -> tuple[str, ...]:
    """Return the variables whose values an action sends."""
    return action.variables if isinstance(action, CreateGroup) else (*action.add, *action.push)
