"""What a plan depends on, and its fingerprint, which shows whether any of it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.deployment.plan import KeepBot, PlanScope, RestartBot
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.planning.takeovers import next_claim
from ape_silverback.deployment.signers import accounts_of
from ape_silverback.deployment.state import LiveState


def scope_of(matches: Iterable[Match], others: Iterable[RestartBot | KeepBot], inputs: Inputs) -> PlanScope:
    """Return what a plan looked at."""
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
        [*(next_claim(bot.id, live) for bot in bots), *(next_claim(group.id, live) for group in groups)],
    ]
    if looked_at.accounts:  # a bot that came since, and that may sign with one of them
        signing = [bot for bot in live.bots.values() if bot.configuration.account in looked_at.accounts]
        state.append(sorted(str(bot.id) for bot in signing if bot.status is not ResourceStatus.STOPPED))
    return hashlib.sha256(json.dumps(state, default=list).encode()).hexdigest()
