"""What happens to the bots of the project, and to those beside them that use a variable group which changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ape_silverback.cluster.types import POLICIES, ResourceStatus
from ape_silverback.deployment.plan import BotAction, CreateBot, KeepBot, RestartBot, StartBot, UpdateBot
from ape_silverback.deployment.planning.differences import changes_of, code_changed, digest_changed, pending_restart
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.state import LiveBot
from ape_silverback.project.desired import DesiredBot, DesiredState


def plan_bot(match: Match, touched: set[str], inputs: Inputs) -> BotAction | None:
    """Decide what happens to a bot of the project; None for one that keeps what was changed on the cluster."""
    bot, live, options = match.bot, match.live, inputs.options
    if live is None:
        removed = any(one.name == bot.name and one.was_there for one in inputs.recorded.bots)
        if removed and options.keep_drift:
            return None
        return CreateBot(name=bot.name, configuration=bot.configuration, removed=removed)
    adopts = inputs.adopts(match.recorded)
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


def find_pending(touched: set[str], inputs: Inputs) -> Iterator[str]:
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


def origins_of(bot: DesiredBot) -> dict[str, str]:
    """Return where the values came from that are set of a bot."""
    return {name: origin for name, origin in bot.origins.items() if getattr(bot.configuration, name) not in (None, ())}


def unknown_policies(desired: DesiredState, extensions: frozenset[str]) -> dict[str, str]:
    """Return the policies of bots that a cluster doesn't know: the key of each → what to warn of."""
    return {
        field: f"`{field}:` isn't used: this cluster {text}"
        for field, extension, text in (
            ("restart", "restart-policy", "restarts bots by its own rules"),
            ("healthy", "health-details", "judges the health of bots by its own rules"),
            ("heartbeat", "heartbeat", "sends no heartbeats of bots"),
        )
        if extension not in extensions and any(getattr(bot.configuration, field) for bot in desired.bots)
    }


def without_policies(desired: DesiredState, fields: Iterable[str]) -> DesiredState:
    """Return what a project wants without some policies, which the cluster wouldn't know."""
    without: dict[str, None] = dict.fromkeys(fields)
    if not without:
        return desired
    bots = (replace(bot, configuration=bot.configuration.model_copy(update=without)) for bot in desired.bots)
    return replace(desired, bots=tuple(bots))
