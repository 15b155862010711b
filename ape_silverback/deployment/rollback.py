"""Restores what bots had that fail after a change: `deploy --rollback`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.deployment.events import AGAIN, Event
from ape_silverback.deployment.journal import ActionJournal
from ape_silverback.deployment.plan import Plan, RestartBot, UpdateBot, UpdateGroup, started_after
from ape_silverback.deployment.wait import Timing, wait_until_ready, wait_until_stopped
from ape_silverback.exceptions import DeployError, SilverbackError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient, VariableGroup


def find_group(client: ClusterClient, name: str) -> VariableGroup:
    """Return a variable group of the cluster.

    Raises:
        ClusterError: the request failed.
        DeployError: it isn't there any more.
    """
    groups = client.variable_groups
    if name not in groups:
        raise DeployError(f"it was removed from the cluster in the meantime; {AGAIN}")
    return groups[name]


@dataclass(frozen=True)
class Rollback:
    """What failed of a plan, and goes back.

    Attributes:
        failed: names of what failed.
        skipped: names of what wasn't begun.
        ready: names of the bots that run and are healthy with the change.
    """

    plan: Plan
    client: ClusterClient
    values: Mapping[str, str]
    journal: ActionJournal
    timing: Timing
    failed: Collection[str]
    skipped: Collection[str]
    ready: Collection[str]

    def run(self, pool: ThreadPoolExecutor) -> Iterator[Event]:
        """Restore what failed bots had before a change, groups first; then wait for them."""
        bots = [one for one in self.plan.of(UpdateBot, RestartBot) if one.name in self.failed]
        if not bots:
            return
        try:
            there = {bot.id: bot for bot in self.client.bots.values()}
        except SilverbackError as error:
            yield from (Event("failed", one.name, f"can't be rolled back: {error}") for one in bots)
            return
        users = {bot.name: set(bot.environment) for bot in there.values()}
        for group in self.plan.of(UpdateGroup):
            if any(group.name in users.get(bot.name, ()) for bot in bots):
                happy = sorted(name for name in self.ready if group.name in users.get(name, ()))
                yield self._roll_group_back(group, happy)
        stopping: dict[str, Bot] = {}
        for event, bot in pool.map(lambda action: self._give_back(action, there.get(action.id)), bots):
            if bot is not None:
                stopping[bot.name] = bot
            else:
                yield event
        back = []
        for event in wait_until_stopped(self.client, list(stopping), self.timing):
            if event.kind == "state":
                continue
            bot = stopping[event.name]
            event = self._started_again(bot) if event.kind == "applied" else event
            if event.kind == "applied":
                back.append(bot.name)
            yield event
        for event in wait_until_ready(self.client, back, self.timing):
            if event.kind == "ready":
                yield Event("rolled-back", event.name, "it has what it had before, and is running and healthy")
            else:
                yield event

    def _give_back(self, action: UpdateBot | RestartBot, bot: Bot | None) -> tuple[Event, Bot | None]:
        """Restore the configuration that a bot had, and stop it."""
        heirs = [
            one.name
            for one in self.plan.bot_actions
            if action.id in started_after(one) and one.name not in self.skipped
        ]
        if heirs:
            return Event("failed", action.name, f"can't be rolled back: {', '.join(heirs)} took over its account"), None
        if bot is None:
            return Event("failed", action.name, "can't be rolled back: it is no longer on the cluster"), None
        try:
            if isinstance(action, UpdateBot):
                old: dict[str, Any] = action.old
                bot = bot.update(**old)
            if bot.status is not ResourceStatus.STOPPED:
                bot.stop()
        except SilverbackError as error:
            return Event("failed", action.name, f"can't be rolled back: {error}"), None
        return Event("applied", bot.name, "gets back what it had"), bot

    def _started_again(self, bot: Bot) -> Event:
        try:
            bot.start()
        except SilverbackError as error:
            return Event("failed", bot.name, f"can't be rolled back: {error}")
        self.journal.end_action("rollback", bot.name, settles=bot.id)
        return Event("applied", bot.name, "gets back what it had")

    def _roll_group_back(self, action: UpdateGroup, happy: Sequence[str]) -> Event:
        if happy:
            verb = "runs" if len(happy) == 1 else "run"
            return Event("skipped", action.name, f"keeps its new variables: {', '.join(happy)} {verb} well with them")
        known = [name for name in action.remove if name in self.values]
        lost = [*(name for name in action.remove if name not in self.values), *action.push]
        try:
            find_group(self.client, action.name).update(
                **dict.fromkeys(action.add), **{name: self.values[name] for name in known}
            )
        except SilverbackError as error:
            return Event("failed", action.name, f"can't be rolled back: {error}")
        text = f"; the old values of {', '.join(lost)} aren't known" if lost else ""
        return Event("rolled-back", action.name, f"has the variables that it had{text}")
