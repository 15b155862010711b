"""Why a plan can't be made, or can't be applied: names that clash, what is missing, what isn't the project's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ape_silverback.deployment.plan import (
    Action,
    BotAction,
    CreateGroup,
    KeepBot,
    RemoveBot,
    RemoveGroup,
    RestartBot,
    StartBot,
    UpdateBot,
    UpdateGroup,
)
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.planning.takeovers import group_label, owner_of
from ape_silverback.deployment.signers import variables_of


def find_conflicts(matches: Iterable[Match], inputs: Inputs) -> Iterator[str]:
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


def find_missing(groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> Iterator[str]:
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


def find_still_used(
    removals: Iterable[RemoveBot | RemoveGroup], matches: Iterable[Match], inputs: Inputs
) -> Iterator[str]:
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


def find_strangers(
    bots: Iterable[tuple[Match, BotAction | None]], groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs
) -> Iterator[str]:
    """Name what the plan would change, and this project didn't deploy."""
    for match, action in bots:
        if match.is_strange and not inputs.options.adopt and not isinstance(action, KeepBot):
            yield match.live.name if match.live else match.bot.name
    for group in groups:
        if isinstance(group, UpdateGroup) and not group.adopts and group.name not in inputs.recorded.groups:
            yield group_label(group.name)


def find_owners(actions: Iterable[Action], strangers: Iterable[str], inputs: Inputs) -> dict[str, str]:
    """Return the projects that have what a plan changes or takes over, and this project hasn't."""
    live = inputs.live
    there = {name: bot.id for name, bot in live.bots.items()}
    there |= {group_label(name): group.id for name, group in live.groups.items()}
    ids = {label: there[label] for label in strangers if label in there}
    for action in actions:
        if isinstance(action, UpdateGroup) and action.adopts:
            ids[group_label(action.name)] = action.id
        elif isinstance(action, UpdateBot | RestartBot | StartBot | KeepBot) and action.adopts:
            ids[action.name] = action.id
    found = {label: owner_of(identity, live, inputs.desired.identity) for label, identity in ids.items()}
    return {label: owner for label, owner in found.items() if owner is not None}
