"""Decides what has to happen on a cluster so that it has what the project wants.

Pure: no I/O, no clock, no terminal. Three things are compared: what the last deployment left, what the project wants,
and what the cluster has. A bot is this project's when the record has its id; its name proves nothing.
"""

from __future__ import annotations

from ape_silverback.config.private_keys import refused_text
from ape_silverback.deployment.creation import identify
from ape_silverback.deployment.plan import (
    DEFAULT_PLAN_OPTIONS,
    Action,
    KeepBot,
    Plan,
    PlanOptions,
    RemoveBot,
    RestartBot,
    UpdateBot,
    UpdateGroup,
)
from ape_silverback.deployment.planning.bots import (
    find_pending,
    origins_of,
    plan_bot,
    restart_others,
    unknown_policies,
    without_policies,
)
from ape_silverback.deployment.planning.differences import find_drift, is_owed
from ape_silverback.deployment.planning.groups import plan_group
from ape_silverback.deployment.planning.inputs import Inputs, match_bot
from ape_silverback.deployment.planning.outcome import bots_after, groups_after
from ape_silverback.deployment.planning.problems import (
    find_conflicts,
    find_missing,
    find_owners,
    find_still_used,
    find_strangers,
)
from ape_silverback.deployment.planning.remarks import find_private_keys, find_unknown, find_warnings
from ape_silverback.deployment.planning.removals import find_orphans, plan_removals
from ape_silverback.deployment.planning.scope import fingerprint, scope_of
from ape_silverback.deployment.planning.takeovers import without_taken
from ape_silverback.deployment.planning.usage import usage_after
from ape_silverback.deployment.signers import (
    PlannedBot,
    handovers,
    shared_accounts,
    waiting,
    without_passphrase,
    without_plugin,
)
from ape_silverback.deployment.state import NOTHING_LOCAL, NOTHING_RECORDED, LiveState, LocalState, RecordedState
from ape_silverback.exceptions import DeployError
from ape_silverback.project.desired import DesiredState


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
    unknown = unknown_policies(desired, live.extensions)
    desired = without_policies(desired, unknown)
    still_ours, taken_over = without_taken(identify(recorded, live), live, desired.identity)
    inputs = Inputs(desired, live, still_ours, local, plan_options, taken_over)
    matches = [match_bot(bot, inputs) for bot in desired.bots]
    groups = [action for group in desired.groups if (action := plan_group(group, inputs))]
    touched = {action.name for action in groups if isinstance(action, UpdateGroup)}
    bots = [(match, plan_bot(match, touched, inputs)) for match in matches]
    passing = handovers([PlannedBot(match.bot, match.live, action) for match, action in bots], local)
    bots = [(match, waiting(action, passing.after.get(match.bot.name, ()))) for match, action in bots]
    planned = [PlannedBot(match.bot, match.live, action) for match, action in bots]
    others = list(restart_others(matches, touched, inputs))
    removals = plan_removals(matches, inputs)
    private_keys = list(find_private_keys(groups, inputs))
    problems = [
        *find_conflicts(matches, inputs),
        *shared_accounts(planned, live, local),
        *passing.problems,
        *find_missing(groups, inputs),
        *(refused_text(text) for text in private_keys if desired.strict),
        *find_still_used(removals, matches, inputs),
    ]
    if problems:
        raise DeployError("\n".join(problems))
    actions: tuple[Action, ...] = (*groups, *(action for _, action in bots if action is not None), *others, *removals)
    scope = scope_of(matches, others, inputs)
    strangers = tuple(find_strangers(bots, groups, inputs))
    removed = {action.id for action in removals if isinstance(action, RemoveBot)}
    return Plan(
        project=desired.project,
        identity=desired.identity,
        target=desired.target,
        cluster=live.cluster,
        cluster_identity=live.identity,
        restores=desired.restores,
        actions=actions,
        orphans=tuple(find_orphans(matches, removals, inputs)),
        drift=tuple(find_drift(inputs)),
        unknown=tuple(find_unknown(matches, groups, inputs)),
        pending=tuple(find_pending(touched, inputs)),
        warnings=(
            *unknown.values(),
            *find_warnings(matches, actions, strangers, inputs),
            *private_keys,
            *without_passphrase(planned, desired, live, local),
            *without_plugin(planned, local),
        ),
        usage=usage_after(live, actions),
        strangers=strangers,
        owners=find_owners(actions, strangers, inputs),
        taken_over=taken_over,
        bots=tuple(bots_after(bots, removed, inputs)),
        leaving=tuple(bot for bot in inputs.recorded.bots if bot.id in removed),
        origins={bot.name: origins_of(bot) for bot in desired.bots},
        groups=groups_after(groups, inputs),
        started_at={
            action.id: started
            for action in actions
            if isinstance(action, UpdateBot | RestartBot | KeepBot)
            and (started := live.by_id[action.id].started_at) is not None
        },
        settled=tuple(identity for identity in inputs.recorded.pending_restarts if not is_owed(identity, inputs)),
        looked_at=scope,
        state=fingerprint(live, scope, recorded.last),
    )
