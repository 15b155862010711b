"""What a plan is made of, and which bot of the cluster each bot of the project is.

A bot is this project's when the record has its id; its name proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from ape_silverback.deployment.plan import PlanOptions
from ape_silverback.deployment.state import LiveBot, LiveState, LocalState, RecordedBot, RecordedGroup, RecordedState
from ape_silverback.project.desired import DesiredBot, DesiredState


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
    """What a plan is made of.

    Attributes:
        recorded: without what another project took over since.
        taken_over: that, by its name on the cluster → the project that took it over.
    """

    desired: DesiredState
    live: LiveState
    recorded: RecordedState
    local: LocalState
    options: PlanOptions
    taken_over: Mapping[str, str] = field(default_factory=dict)

    def in_scope(self, bot: RecordedBot) -> bool:
        """Whether a recorded bot belongs to the target that is deployed."""
        return bot.target == self.desired.target

    def owned(self, bot: LiveBot) -> RecordedBot | None:
        """Return what the record has of a live bot; None for one that this project didn't deploy."""
        return next((one for one in self.recorded.bots if one.id == bot.id), None)

    def adopts(self, recorded: RecordedBot | RecordedGroup | None) -> bool:
        """Return whether something of the cluster is taken over: it isn't recorded, and the plan may."""
        return recorded is None and self.options.adopt


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
