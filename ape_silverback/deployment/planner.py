"""Decides what has to happen on a cluster so that it has what the project wants.

Pure: no I/O, no clock, no terminal. Three things are compared: what the last deployment left, what the project wants,
and what the cluster has. A bot is this project's when the record has its id; its name proves nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from uuid import UUID

from ape_silverback.cluster.types import POLICIES, ResourceStatus
from ape_silverback.deployment.creation import identify
from ape_silverback.deployment.plan import (
    DEFAULT_PLAN_OPTIONS,
    Action,
    Author,
    BotAction,
    Change,
    CreateBot,
    CreateGroup,
    Drift,
    KeepBot,
    Orphan,
    Plan,
    PlanOptions,
    PlanScope,
    RemoveBot,
    RemoveGroup,
    RestartBot,
    StartBot,
    UpdateBot,
    UpdateGroup,
    Value,
    field_of,
)
from ape_silverback.deployment.signers import (
    PlannedBot,
    accounts_of,
    handovers,
    shared_accounts,
    variables_of,
    waiting,
    without_passphrase,
    without_plugin,
)
from ape_silverback.deployment.state import (
    NOTHING_LOCAL,
    NOTHING_RECORDED,
    LiveBot,
    LiveGroup,
    LiveState,
    LocalState,
    RecordedBot,
    RecordedGroup,
    RecordedState,
)
from ape_silverback.exceptions import DeployError
from ape_silverback.project.desired import DesiredBot, DesiredGroup, DesiredState

KEEP_A_HISTORY = "keep ~/.silverback/deployments from run to run, or name a folder with `history:` of the section"


@dataclass(frozen=True)
class Match:
    """A bot of the project, and what it is on the cluster.

    Attributes:
        live: None for a bot that isn't there.
        recorded: what the last deployment left of it; None for one that this project didn't deploy.
    """

    bot: DesiredBot
    live: LiveBot | None
    recorded: RecordedBot | None

    @property
    def is_strange(self) -> bool:
        """Whether it is on the cluster, and this project didn't deploy it."""
        return self.live is not None and self.recorded is None


@dataclass(frozen=True)
class Inputs:
    """What a plan is made of."""

    desired: DesiredState
    live: LiveState
    recorded: RecordedState
    local: LocalState
    options: PlanOptions

    def in_scope(self, bot: RecordedBot) -> bool:
        """Whether a recorded bot belongs to the target that is deployed."""
        return bot.target == self.desired.target

    def owned(self, bot: LiveBot) -> RecordedBot | None:
        """Return what the record has of a live bot; None for one that this project didn't deploy."""
        return next((one for one in self.recorded.bots if one.id == bot.id), None)


def make_plan(
    desired: DesiredState,
    live: LiveState,
    recorded: RecordedState = NOTHING_RECORDED,
    local: LocalState = NOTHING_LOCAL,
    plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS,
) -> Plan:
    """Compare what the project wants with what the cluster has and what earlier deployments left.

    Args:
        desired: what the project wants.
        live: what the cluster has.
        recorded: what is recorded of earlier deployments.
        local: values, code and images of this machine.
        plan_options: what the plan may do.

    Raises:
        DeployError: it can't be done, with every reason, a line each: a group or a credential that isn't there, a
            value that is missing, a name that is taken, a group that is still used.
    """
    desired = _without_unknown_policies(desired, live.extensions)
    inputs = Inputs(desired, live, identify(recorded, live), local, plan_options)
    matches = [match_bot(bot, inputs) for bot in desired.bots]
    groups = [action for group in desired.groups if (action := plan_group(group, inputs))]
    touched = {action.name for action in groups if isinstance(action, UpdateGroup)}
    bots = [(match, plan_bot(match, touched, inputs)) for match in matches]
    passing = handovers([PlannedBot(match.bot, match.live, action) for match, action in bots], local)
    bots = [(match, waiting(action, passing.after.get(match.bot.name, ()))) for match, action in bots]
    planned = [PlannedBot(match.bot, match.live, action) for match, action in bots]
    others = list(restart_others(matches, touched, inputs))
    removals = plan_removals(matches, inputs)
    private_keys = list(_private_keys(groups, inputs))
    problems = [
        *_conflicts(matches, inputs),
        *shared_accounts(planned, live, local),
        *passing.problems,
        *_missing(groups, inputs),
        *(f"{text} (refused since the section is `strict:`)" for text in private_keys if desired.strict),
        *_still_used(removals, matches, inputs),
    ]
    if problems:
        raise DeployError("\n".join(problems))
    actions: tuple[Action, ...] = (*groups, *(action for _, action in bots if action is not None), *others, *removals)
    scope = _scope(matches, others, inputs)
    removed = {action.id for action in removals if isinstance(action, RemoveBot)}
    return Plan(
        project=desired.project,
        identity=desired.identity,
        target=desired.target,
        cluster=live.cluster,
        cluster_identity=live.identity,
        actions=actions,
        orphans=tuple(_orphans(matches, removals, inputs)),
        drift=tuple(_drift(inputs)),
        unknown=tuple(_unknown(matches, groups, inputs)),
        pending=tuple(_pending(touched, inputs)),
        warnings=(
            *_warnings(matches, actions, inputs),
            *private_keys,
            *without_passphrase(planned, desired, live, local),
            *without_plugin(planned, local),
        ),
        strangers=tuple(_strangers(bots, groups, inputs)),
        bots=tuple(_bots_after(bots, removed, inputs)),
        leaving=tuple(bot for bot in inputs.recorded.bots if bot.id in removed),
        origins={bot.name: _origins_of(bot) for bot in desired.bots},
        groups=_groups_after(groups, inputs),
        started_at={
            action.id: started
            for action in actions
            if isinstance(action, UpdateBot | RestartBot | KeepBot)
            and (started := live.by_id[action.id].started_at) is not None
        },
        settled=tuple(identity for identity in inputs.recorded.pending_restarts if not _is_owed(identity, inputs)),
        looked_at=scope,
        state=fingerprint(live, scope, recorded.last),
    )


# Which bot of the cluster a bot of the project is


def match_bot(bot: DesiredBot, inputs: Inputs) -> Match:
    """Find a bot of the project on the cluster: by the record's id, then by names that it had, then by its name."""
    live = inputs.live
    names = (bot.name, *bot.renamed_from)
    recorded = [one for one in inputs.recorded.bots if one.id is not None and one.id in live.by_id]
    ordered = chain(
        (one for one in recorded if one.id == bot.id),
        (one for name in names for one in recorded if one.name == name and inputs.in_scope(one)),
        (one for name in names for one in recorded if one.name == name),
        (one for one in recorded if _is_same_family(bot, one) and inputs.in_scope(one)),
    )
    if (found := next(ordered, None)) is not None and found.id is not None:
        return Match(bot, live.by_id[found.id], found)
    return Match(bot, next((live.bots[name] for name in names if name in live.bots), None), None)


def _is_same_family(bot: DesiredBot, recorded: RecordedBot) -> bool:
    """Return whether a bot went from one network to several, or back, on the network of a recorded one."""
    went_on = bot.family == recorded.name or recorded.family == bot.name
    here, there = bot.configuration, recorded.configuration
    return bool(went_on and (here.ecosystem, here.network) == (there.ecosystem, there.network))


# Variable groups


def plan_group(group: DesiredGroup, inputs: Inputs) -> CreateGroup | UpdateGroup | None:
    """Decide what happens to a variable group that the project declares."""
    live = inputs.live.groups.get(group.name)
    if live is None:
        return CreateGroup(name=group.name, variables=group.variables)
    recorded = inputs.recorded.groups.get(group.name)
    add = tuple(name for name in group.variables if name not in live.variables)
    remove = tuple(sorted(live.variables.difference(group.variables, _shared(group.name, inputs))))
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
        id=live.id, name=group.name, add=add, push=push, remove=remove, drift=drift, adopts=_adopts(recorded, inputs)
    )


def _shared(group: str, inputs: Inputs) -> set[str]:
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


def _adopts(recorded: object | None, inputs: Inputs) -> bool:
    return recorded is None and inputs.options.adopt


def _without_unknown_policies(desired: DesiredState, extensions: frozenset[str]) -> DesiredState:
    """Leave out policies that the cluster doesn't know, and warn of them."""
    unknown = [
        (field, text)
        for field, extension, text in (
            ("restart", "restart-policy", "restarts bots by its own rules"),
            ("healthy", "health-details", "judges the health of bots by its own rules"),
            ("heartbeat", "heartbeat", "sends no heartbeats of bots"),
        )
        if extension not in extensions and any(getattr(bot.configuration, field) for bot in desired.bots)
    ]
    if not unknown:
        return desired
    without: dict[str, None] = dict.fromkeys(field for field, _ in unknown)
    bots = tuple(replace(bot, configuration=bot.configuration.model_copy(update=without)) for bot in desired.bots)
    warnings = tuple(f"`{field}:` isn't used: this cluster {text}" for field, text in unknown)
    return replace(desired, bots=bots, warnings=(*desired.warnings, *warnings))


def _origins_of(bot: DesiredBot) -> dict[str, str]:
    """Return where the values came from that are set of a bot."""
    return {name: origin for name, origin in bot.origins.items() if getattr(bot.configuration, name) not in (None, ())}


# Bots


def plan_bot(match: Match, touched: set[str], inputs: Inputs) -> BotAction | None:
    """Decide what happens to a bot of the project; None for one that keeps what was changed on the cluster."""
    bot, live, options = match.bot, match.live, inputs.options
    if live is None:
        removed = any(one.name == bot.name and one.was_there for one in inputs.recorded.bots)
        if removed and options.keep_drift:
            return None
        return CreateBot(name=bot.name, configuration=bot.configuration, removed=removed)
    adopts = _adopts(match.recorded, inputs)
    changes = changes_of(match)
    if options.keep_drift:
        changes = tuple(change for change in changes if change.by != "cluster")
    stopping = live.status is ResourceStatus.SHUTDOWN
    name = bot.name if any(change.field == "name" for change in changes) else live.name
    if changes:
        # Policies hold at once.
        restart = live.runs and options.restart and any(change.field not in POLICIES for change in changes)
        return UpdateBot(
            id=live.id,
            name=name,
            changes=changes,
            runs=live.runs,
            restart=restart,
            stopping=stopping,
            adopts=adopts,
        )
    if not live.runs:
        if options.keep_drift and match.recorded is not None:
            return None
        return StartBot(id=live.id, name=name, stopping=stopping, adopts=adopts)
    reason = "; ".join(_reasons(match, live, touched, inputs))
    if reason and options.restart:
        return RestartBot(id=live.id, name=name, reason=reason, adopts=adopts)
    return KeepBot(id=live.id, name=name, owes=reason or None, adopts=adopts)


def _reasons(match: Match, live: LiveBot, touched: set[str], inputs: Inputs) -> Iterator[str]:
    """Return why a running bot whose configuration is right has to be restarted."""
    if changed := [group for group in match.bot.configuration.environment if group in touched]:
        yield f"variables of {', '.join(changed)} change"
    elif (pending := pending_restart(live, inputs)) is not None:
        yield pending
    if code_changed(match, live, inputs.local):
        yield "code changed"
    if digest_changed(match, inputs.local):
        yield f"the tag of {match.bot.configuration.image} was moved"
    if inputs.options.force:
        yield "--force"


def pending_restart(live: LiveBot, inputs: Inputs) -> str | None:
    """Return why a bot has to be restarted since an earlier change; None once it was."""
    pending = inputs.recorded.pending_restarts.get(live.id)
    if pending is None or (None not in (live.started_at, pending.started_at) and live.started_at != pending.started_at):
        return None
    return pending.reason


def _is_owed(bot: UUID, inputs: Inputs) -> bool:
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


def restart_others(matches: Iterable[Match], touched: set[str], inputs: Inputs) -> Iterator[RestartBot | KeepBot]:
    """Restart the project's bots beside those that are deployed, where they use a variable group that changes."""
    deployed = {match.live.id for match in matches if match.live is not None}
    for live in inputs.live.bots.values():
        changed = [group for group in live.configuration.environment if group in touched]
        if changed and live.id not in deployed and live.status is not None and live.runs and inputs.owned(live):
            reason = f"variables of {', '.join(changed)} change"
            if inputs.options.restart:
                yield RestartBot(id=live.id, name=live.name, reason=reason)
            else:
                yield KeepBot(id=live.id, name=live.name, owes=reason)


def _pending(touched: set[str], inputs: Inputs) -> Iterator[str]:
    """Name bots of others that use a variable group which changes."""
    wanted = {bot.name for bot in inputs.desired.bots}
    for group in sorted(touched):
        others = [
            bot.name
            for bot in inputs.live.users(group)
            if bot.name not in wanted and not inputs.owned(bot) and (bot.status is None or bot.runs)
        ]
        if others:
            yield f"{', '.join(others)}: not this project's, but with variable group {group}; restart by hand"


# Removals


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


def _orphans(matches: Iterable[Match], removals: Iterable[RemoveBot | RemoveGroup], inputs: Inputs) -> Iterator[Orphan]:
    """Name what the project deployed before for this target and no longer has, where it isn't removed."""
    removed = {(type(action), action.name) for action in removals}
    for live, bot in _left_over_bots(matches, inputs):
        if (RemoveBot, live.name) not in removed:
            yield Orphan(kind="bot", name=live.name, confirmed=bot.confirmed)
    if not inputs.desired.selected:
        for group, recorded in _left_over_groups(inputs):
            if (RemoveGroup, group.name) not in removed:
                yield Orphan(kind="group", name=group.name, confirmed=recorded.confirmed)


# What can't be done


def _conflicts(matches: Iterable[Match], inputs: Inputs) -> Iterator[str]:
    """Find names that clash, and what a plan can't be asked for."""
    desired, live = inputs.desired, inputs.live
    if inputs.options.prune and desired.selected:
        yield "pruning looks at the whole project: name no bots with it"
    names = [bot.name for bot in desired.bots]
    yield from (f"two bots are called '{name}'" for name in dict.fromkeys(names) if names.count(name) > 1)
    for bot in desired.bots:
        for old in bot.renamed_from:
            if old in desired.every_name:
                yield f"{bot.name}: renamed-from '{old}', which is a bot of the project"
    sources = [old for bot in desired.bots for old in bot.renamed_from]
    yield from (f"two bots are renamed-from '{old}'" for old in dict.fromkeys(sources) if sources.count(old) > 1)
    matched = [match.live.id for match in matches if match.live is not None]
    for match in matches:
        bot, found = match.bot, match.live
        taken = live.bots.get(bot.name)
        if found is not None and taken is not None and taken.id != found.id:
            yield f"{bot.name}: it is called '{found.name}' on the cluster, and another bot has its name; rename one"
        if found is not None and matched.count(found.id) > 1 and names.count(bot.name) == 1:
            yield f"{bot.name}: '{found.name}' of the cluster is meant by two bots of the project"
        for old in bot.renamed_from:
            other = live.bots.get(old)
            if found is not None and other is not None and other.id != found.id and inputs.owned(other):
                yield f"{bot.name}: renamed-from '{old}', but both are on the cluster: remove one of them"


def _missing(groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> Iterator[str]:
    """Find groups, credentials and values that a plan needs and that aren't there."""
    declared = {group.name: group for group in inputs.desired.groups}
    for bot in inputs.desired.bots:
        wanted, origins = bot.configuration, bot.origins
        for group in wanted.environment:
            if group not in declared and group not in inputs.live.groups:
                yield (
                    f"{bot.name}: variable group '{group}' ({origins['environment']}) is neither on the cluster nor "
                    "under `variables:` of the section"
                )
        if wanted.heartbeat and wanted.heartbeat not in variables_of(bot, inputs.desired, inputs.live):
            yield (
                f"{bot.name}: no variable group of the bot has '{wanted.heartbeat}', which its heartbeat "
                f"({origins['heartbeat']}) names: list it under `variables:`, in a group of its `environment:`"
            )
        if wanted.credential_name and wanted.credential_name not in inputs.live.credentials:
            there = ", ".join(sorted(inputs.live.credentials)) or "none"
            yield (
                f"{bot.name}: the cluster has no registry credential '{wanted.credential_name}' "
                f"({origins['credential_name']}); it has: {there}"
            )
    for action in groups:
        origin = declared[action.name].origin
        for name in action.variables if isinstance(action, CreateGroup) else (*action.add, *action.push):
            if name in inputs.local.empty:
                yield (
                    f"variable '{name}' of group '{action.name}' ({origin}) is set, but empty: set a value, or list it "
                    "under `allow-empty:` of the section"
                )
            elif name not in inputs.local.values:
                yield (
                    f"variable '{name}' of group '{action.name}' ({origin}) has no value: set it in the environment or "
                    "in a file for --env-file"
                )


def _still_used(removals: Iterable[RemoveBot | RemoveGroup], matches: Iterable[Match], inputs: Inputs) -> Iterator[str]:
    """Find variable groups that others use, so that they can't be removed."""
    removals = list(removals)
    gone = {action.id for action in removals if isinstance(action, RemoveBot)}
    gone |= {match.live.id for match in matches if match.live is not None}
    for action in removals:
        if isinstance(action, RemoveGroup):
            users = [bot.name for bot in inputs.live.users(action.name) if bot.id not in gone]
            if users:
                verb = "uses" if len(users) == 1 else "use"
                yield f"variable group '{action.name}' can't be removed: {', '.join(users)} of the cluster {verb} it"


def _strangers(
    bots: Iterable[tuple[Match, BotAction | None]], groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs
) -> Iterator[str]:
    """Name what the plan would change, and this project didn't deploy."""
    for match, action in bots:
        if match.is_strange and not inputs.options.adopt and not isinstance(action, KeepBot):
            yield match.live.name if match.live else match.bot.name
    for group in groups:
        if isinstance(group, UpdateGroup) and not group.adopts and group.name not in inputs.recorded.groups:
            yield f"variable group {group.name}"


# What is said besides


def _drift(inputs: Inputs) -> Iterator[Drift]:
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


def _unknown(matches: Iterable[Match], groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> Iterator[str]:
    """Name what a plan can't know."""
    sent = {action.name: set(_sent(action)) for action in groups}
    for group in inputs.desired.groups:
        if group.name not in inputs.live.groups:
            continue
        recorded = inputs.recorded.groups.get(group.name)
        fingerprints = recorded.fingerprints if recorded else {}
        unknown = [
            name
            for name in group.variables
            if name not in sent.get(group.name, ())
            and not (
                name in fingerprints
                and name in inputs.local.values
                and is_comparable(fingerprints[name], inputs.local.values[name])
            )
        ]
        if unknown:
            yield (
                f"whether the values of {', '.join(unknown)} in {group.name} are still right: a cluster never returns "
                "them (--push-vars sends them)"
            )
    moved = [match.bot for match in matches if match.live is not None and _tag_may_have_moved(match, inputs)]
    if moved:
        yield (
            f"whether the image tags of {', '.join(bot.name for bot in moved)} were moved: no engine here has both "
            "digests (--force restarts the bots)"
        )
    if inputs.desired.restores and any(_runs_folder(bot) for bot in inputs.desired.bots):
        yield "the code of that deployment: this cluster runs the project's folder as it is now"


def _tag_may_have_moved(match: Match, inputs: Inputs) -> bool:
    image = match.bot.configuration.image
    if match.live is None or match.live.configuration.image != image or _runs_folder(match.bot) or "@" in image:
        return False
    return image not in inputs.local.digests or match.recorded is None or match.recorded.digest is None


def _runs_folder(bot: DesiredBot) -> bool:
    return bot.configuration.image.startswith("project:")


def _sent(action: CreateGroup | UpdateGroup) -> tuple[str, ...]:
    return action.variables if isinstance(action, CreateGroup) else (*action.add, *action.push)


def _networks_after(live: LiveState, actions: Iterable[Action]) -> set[str]:
    """Return the networks that the bots of the cluster use once a plan is carried out."""
    used = {bot.id: (bot.configuration.ecosystem, bot.configuration.network) for bot in live.bots.values()}
    created = set()
    for action in actions:
        match action:
            case CreateBot():
                created.add((action.configuration.ecosystem, action.configuration.network))
            case UpdateBot():
                ecosystem, network = used[action.id]
                used[action.id] = (
                    str(action.new.get("ecosystem", ecosystem)),
                    str(action.new.get("network", network)),
                )
            case RemoveBot():
                used.pop(action.id, None)
            case _:
                pass
    return {f"{ecosystem}:{network}" for ecosystem, network in {*used.values(), *created}}


def _warnings(matches: Iterable[Match], actions: Iterable[Action], inputs: Inputs) -> Iterator[str]:
    """Name what is worth knowing but stops nothing."""
    live, recorded = inputs.live, inputs.recorded
    actions = list(actions)
    more = sum(isinstance(action, CreateBot) - isinstance(action, RemoveBot) for action in actions)
    after = len(live.bots) + more
    if live.limit is not None and more > 0 and after > live.limit:
        yield f"{after} bots would be on the cluster, which is paid for {live.limit}: some may not run"
    networks = _networks_after(live, actions)
    if live.network_limit is not None and len(networks) > live.network_limit:
        yield (
            f"bots would use {len(networks)} networks ({', '.join(sorted(networks))}), and the cluster is paid for "
            f"{live.network_limit}: some may not run"
        )
    if recorded.last == 0 and (live.bots or inputs.options.prune):
        yield (
            f"nothing is recorded here of earlier deployments of this project to {live.cluster}: bots that it deployed "
            f"can't be told from others', and --prune removes nothing; {KEEP_A_HISTORY}"
        )
    if recorded.origin is not None:
        yield (
            f"{recorded.origin}: history of an earlier version, which told projects apart by the folder's name; what "
            "it has and the project hasn't is never removed"
        )
    unmade = {bot.name for bot in recorded.bots if bot.creating and inputs.in_scope(bot)}
    for match in matches:
        if match.is_strange and match.bot.name in unmade:
            yield (
                f"{match.bot.name}: a deployment of this project was cut off when it was to be created, and nothing "
                "proves that the bot of this name is the one: look at it before you pass --adopt"
            )
        if match.recorded is not None and not inputs.in_scope(match.recorded):
            yield f"{match.bot.name}: moves here from {_target(match.recorded.target)}"
    for group in inputs.desired.groups:
        there = inputs.live.groups.get(group.name)
        kept = _shared(group.name, inputs).difference(group.variables) if there else set()
        if there and (kept := kept & there.variables):
            yield f"variable group {group.name} keeps {', '.join(sorted(kept))}, since other bots use it"


def _private_keys(groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> Iterator[str]:
    """Name the variables that a plan sends, and whose value looks like a private key; never the value."""
    for action in groups:
        for name in _sent(action):
            if name in inputs.local.private_keys:
                yield (
                    f"the value of {name} in {action.name} looks like a private key, which every bot with this group "
                    "can read: let the bot sign with an `account:` instead"
                )


def _target(name: str | None) -> str:
    return f"target '{name}'" if name else "the section without a target"


# What is recorded of it


def _bots_after(
    bots: Iterable[tuple[Match, BotAction | None]], removed: set[UUID], inputs: Inputs
) -> Iterator[RecordedBot]:
    """Return the project's bots after the plan, of all targets."""
    matched = {match.live.id for match, _ in bots if match.live is not None}
    wanted = {match.bot.name for match, _ in bots}
    for recorded in inputs.recorded.bots:
        if recorded.id is not None and recorded.id in inputs.live.by_id:
            stays = recorded.id not in matched | removed
        else:  # one that was removed elsewhere stays for as long as the project has it, so that the next plan can tell
            is_kept = not inputs.in_scope(recorded) or recorded.name in inputs.desired.every_name
            stays = is_kept and recorded.name not in wanted
        if stays:
            yield recorded
    for match, action in bots:
        if match.is_strange and not inputs.options.adopt:
            continue
        if action is None:  # keeps what was changed on the cluster
            before = match.recorded or next(one for one in inputs.recorded.bots if one.name == match.bot.name)
            yield before
            continue
        yield _after(match, action, inputs)


def _after(match: Match, action: BotAction, inputs: Inputs) -> RecordedBot:
    """Return what a bot is after its action."""
    bot, live, recorded = match.bot, match.live, match.recorded
    starts = not isinstance(action, KeepBot) and not (isinstance(action, UpdateBot) and action.runs > action.restart)
    code, digest = inputs.local.code.get(bot.name), inputs.local.digests.get(bot.configuration.image)
    fresh_code = code is not None and (starts or live is None or not code_changed(match, live, inputs.local))
    return RecordedBot(
        name=bot.name,
        id=live.id if live else None,
        target=inputs.desired.target,
        configuration=bot.configuration,
        previous=live.configuration if live and isinstance(action, UpdateBot) else None,
        protect=bot.protect,
        share_account=bot.share_account,
        family=bot.family,
        code=code.digest if code and fresh_code else recorded.code if recorded else None,
        digest=digest if starts or not recorded else recorded.digest,
    )


def _groups_after(actions: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> dict[str, RecordedGroup]:
    """Return the project's variable groups after the plan, of all targets; those that it removes until it has."""
    adopted = {action.name for action in actions if isinstance(action, UpdateGroup) and action.adopts}
    after = {name: group for name, group in inputs.recorded.groups.items() if name in inputs.live.groups}
    for group in inputs.desired.groups:
        before = after.get(group.name)
        if before is None and group.name in inputs.live.groups and group.name not in adopted:
            continue  # it isn't this project's
        targets = dict.fromkeys([*(before.targets if before else ()), inputs.desired.target])
        kept = before.fingerprints if before else {}
        shared = _shared(group.name, inputs).difference(group.variables)
        after[group.name] = RecordedGroup(
            variables=(*group.variables, *sorted(shared)),
            id=_group_id(group.name, before, inputs),
            targets=tuple(targets),
            fingerprints={name: value for name, value in kept.items() if name in group.variables},
        )
    return after


def _group_id(name: str, before: RecordedGroup | None, inputs: Inputs) -> UUID | None:
    """Return the id of a variable group, where a cluster's groups keep theirs."""
    live = inputs.live.groups.get(name)
    if live is None or "chosen-ids" not in inputs.live.extensions:
        return before.id if before else None
    return live.id


# What a plan depends on


def _scope(matches: Iterable[Match], others: Iterable[RestartBot | KeepBot], inputs: Inputs) -> PlanScope:
    desired = inputs.desired
    bots = {bot.name for bot in desired.bots} | {old for bot in desired.bots for old in bot.renamed_from}
    bots |= {match.live.name for match in matches if match.live} | {action.name for action in others}
    groups = {group.name for group in desired.groups}
    groups |= {group for bot in desired.bots for group in bot.configuration.environment}
    if inputs.options.prune:
        bots |= {bot.name for bot in inputs.recorded.bots}
        groups |= set(inputs.recorded.groups)
    credentials = {bot.configuration.credential_name for bot in desired.bots if bot.configuration.credential_name}
    return PlanScope(
        bots=tuple(sorted(bots)),
        groups=tuple(sorted(groups)),
        credentials=tuple(sorted(credentials)),
        accounts=tuple(sorted(accounts_of(desired.bots, inputs.local))),
    )


def fingerprint(live: LiveState, looked_at: PlanScope, last: int = 0) -> str:
    """Return what shows whether the cluster or the record changed since a plan was made."""
    bots = [live.bots[name] for name in looked_at.bots if name in live.bots]
    groups = [live.groups[name] for name in looked_at.groups if name in live.groups]
    state = [
        [[str(bot.id), bot.name, bot.runs, bot.configuration.model_dump()] for bot in bots],
        [[str(group.id), group.name, sorted(group.variables)] for group in groups],
        [[name, name in live.credentials] for name in looked_at.credentials],
        last,
    ]
    if looked_at.accounts:  # a bot that came since, and that may sign with one of them
        signing = [bot for bot in live.bots.values() if bot.configuration.account in looked_at.accounts]
        state.append(sorted(str(bot.id) for bot in signing if bot.status is not ResourceStatus.STOPPED))
    return hashlib.sha256(json.dumps(state, default=list).encode()).hexdigest()


def fingerprints_after(plan: Plan, values: Mapping[str, str]) -> dict[str, RecordedGroup]:
    """Return the plan's groups with the fingerprints of the values that it sends."""
    sent = {action.name: _sent(action) for action in plan.of(CreateGroup, UpdateGroup)}

    def after(name: str, group: RecordedGroup) -> dict[str, str]:
        kept = {one: value for one, value in group.fingerprints.items() if one not in sent.get(name, ())}
        return kept | {one: values[one] for one in sent.get(name, ()) if one in values}

    return {name: group.model_copy(update={"fingerprints": after(name, group)}) for name, group in plan.groups.items()}
