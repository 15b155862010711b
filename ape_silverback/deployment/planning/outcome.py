"""What is recorded of a plan: the project's bots and variable groups after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

from ape_silverback.deployment.plan import BotAction, CreateGroup, KeepBot, Plan, UpdateBot, UpdateGroup
from ape_silverback.deployment.planning.differences import code_changed
from ape_silverback.deployment.planning.groups import sent_variables, shared_variables
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.planning.takeovers import next_claim
from ape_silverback.deployment.state import RecordedBot, RecordedGroup


def bots_after(
    bots: Iterable[tuple[Match, BotAction | None]], removed: set[UUID], inputs: Inputs
) -> Iterator[RecordedBot]:
    """Return the project's bots after the plan, of all targets."""
    matched = {match.live.id for match, _ in bots if match.live is not None}
    wanted = {match.bot.name for match, _ in bots}
    for recorded in inputs.recorded.bots:
        if recorded.id is not None and recorded.id in inputs.live.by_id:
            stays = recorded.id not in matched | removed
        else:  # one that was removed elsewhere stays for as long as the project has it, for the next plan to report
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
    starts = not (isinstance(action, KeepBot | UpdateBot) and action.runs_on)
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
        claim=recorded.claim if recorded else next_claim(live.id, inputs.live) if live else 0,
        code=code.digest if code and fresh_code else recorded.code if recorded else None,
        digest=digest if starts or not recorded else recorded.digest,
    )


def groups_after(actions: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> dict[str, RecordedGroup]:
    """Return the project's variable groups after the plan, of all targets; those that it removes until it has."""
    adopted = {action.name for action in actions if isinstance(action, UpdateGroup) and action.adopts}
    after = {name: group for name, group in inputs.recorded.groups.items() if name in inputs.live.groups}
    for group in inputs.desired.groups:
        before = after.get(group.name)
        if before is None and group.name in inputs.live.groups and group.name not in adopted:
            continue  # it isn't this project's
        targets = dict.fromkeys([*(before.targets if before else ()), inputs.desired.target])
        kept = before.fingerprints if before else {}
        shared = shared_variables(group.name, inputs).difference(group.variables)
        after[group.name] = RecordedGroup(
            variables=(*group.variables, *sorted(shared)),
            id=_group_id(group.name, before, inputs),
            targets=tuple(targets),
            claim=before.claim if before else _group_claim(group.name, inputs),
            fingerprints={name: value for name, value in kept.items() if name in group.variables},
        )
    return after


def _group_id(name: str, before: RecordedGroup | None, inputs: Inputs) -> UUID | None:
    """Return the id of a variable group, where a cluster's groups keep theirs."""
    live = inputs.live.groups.get(name)
    if live is None or "chosen-ids" not in inputs.live.extensions:
        return before.id if before else None
    return live.id


def _group_claim(name: str, inputs: Inputs) -> int:
    """Return the number of the claim on a group that is created or taken over."""
    live = inputs.live.groups.get(name)
    return next_claim(live.id, inputs.live) if live is not None else 0


def fingerprints_after(plan: Plan, values: Mapping[str, str]) -> dict[str, RecordedGroup]:
    """Return the plan's groups with the fingerprints of the values that it sends."""
    sent = {action.name: sent_variables(action) for action in plan.of(CreateGroup, UpdateGroup)}

    def after(name: str, group: RecordedGroup) -> dict[str, str]:
        kept = {one: value for one, value in group.fingerprints.items() if one not in sent.get(name, ())}
        return kept | {one: values[one] for one in sent.get(name, ()) if one in values}

    return {name: group.model_copy(update={"fingerprints": after(name, group)}) for name, group in plan.groups.items()}
