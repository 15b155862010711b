"""A plan's remarks: what can't be known, and what is worth knowing but stops nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ape_silverback.config.private_keys import private_key_text
from ape_silverback.deployment.plan import Action, CreateGroup, KeepBot, RestartBot, StartBot, UpdateBot, UpdateGroup
from ape_silverback.deployment.planning.groups import is_comparable, sent_variables, shared_variables
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.planning.takeovers import group_label
from ape_silverback.deployment.planning.usage import too_much, usage_after
from ape_silverback.project.desired import DesiredBot

KEEP_A_HISTORY = "keep ~/.silverback/deployments from run to run, or name a folder with `history:` of the section"


def find_unknown(
    matches: Iterable[Match], groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs
) -> Iterator[str]:
    """Name what a plan can't know."""
    sent = {action.name: set(sent_variables(action)) for action in groups}
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


def find_warnings(
    matches: Iterable[Match], actions: Iterable[Action], strangers: Iterable[str], inputs: Inputs
) -> Iterator[str]:
    """Name what is worth knowing but stops nothing."""
    live, recorded = inputs.live, inputs.recorded
    actions = list(actions)
    if usage := usage_after(live, actions):
        yield from too_much(usage, live)
    adopted = [
        group_label(action.name) if isinstance(action, UpdateGroup) else f"bot {action.name}"
        for action in actions
        if isinstance(action, UpdateGroup | UpdateBot | RestartBot | StartBot | KeepBot) and action.adopts
    ]
    if adopted:
        be = "is" if len(adopted) == 1 else "are"
        yield (
            f"{', '.join(adopted)} {be} this project's as soon as the deployment begins, even if that fails: a later "
            "`--prune` may remove what the project no longer has"
        )
    yield from find_taken_over(inputs, strangers)
    if recorded.last == 0 and "deployments" in live.extensions:  # the cluster keeps the record, so none was lost
        if inputs.options.prune:
            yield f"{live.cluster} knows no earlier deployment of this project: --prune removes nothing"
    elif recorded.last == 0 and (live.bots or inputs.options.prune):
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
        kept = shared_variables(group.name, inputs).difference(group.variables) if there else set()
        if there and (kept := kept & there.variables):
            yield f"variable group {group.name} keeps {', '.join(sorted(kept))}, since other bots use it"


def find_taken_over(inputs: Inputs, strangers: Iterable[str]) -> Iterator[str]:
    """Name what this project deployed and another one took over since, where that doesn't stop the plan."""
    if inputs.options.adopt:
        return
    stopping = set(strangers)
    left = {label: owner for label, owner in inputs.taken_over.items() if label not in stopping}
    for owner in dict.fromkeys(left.values()):
        labels = [label for label, other in left.items() if other == owner]
        it, is_gone = ("it", "it is") if len(labels) == 1 else ("them", "they are")
        yield (
            f"{', '.join(labels)}: taken over by {owner} since this project deployed {it}; {is_gone} no longer this "
            "project's"
        )


def find_private_keys(groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> Iterator[str]:
    """Name the variables that a plan sends, and whose value looks like a private key; never the value."""
    for action in groups:
        for name in sent_variables(action):
            if name in inputs.local.private_keys:
                yield private_key_text(name, action.name)


def _target(name: str | None) -> str:
    return f"target '{name}'" if name else "the section without a target"
