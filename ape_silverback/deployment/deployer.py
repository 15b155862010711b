"""The deployments of one project to one cluster: a plan, its application, and what is remembered of both."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ape_silverback.cluster.types import BotConfiguration
from ape_silverback.deployment.apply import DEFAULT_APPLY_OPTIONS, ApplyOptions, Event, apply_plan
from ape_silverback.deployment.history import UNKNOWN_SOURCE, Record, Records, Source
from ape_silverback.deployment.observed import read_live_state
from ape_silverback.deployment.plan import DEFAULT_PLAN_OPTIONS, Plan, PlanOptions, fingerprint, make_plan
from ape_silverback.deployment.result import DeployResult
from ape_silverback.exceptions import DeployError
from ape_silverback.files import silverback_folder
from ape_silverback.project.desired import DesiredBot, DesiredGroup, DesiredState

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient

FOLDER = "deployments"
"""Folder below the user's home where deployments are remembered when the section names no other."""


class Deployer:
    """Deploys one project to one cluster.

    Args:
        client: of the cluster.
        cluster: how to call the cluster in what users read.
        project: name of the Ape project.
        records: what is remembered.
    """

    def __init__(self, client: ClusterClient, cluster: str, project: str, records: Records) -> None:
        self.client = client
        self.cluster = cluster
        self.project = project
        self.records = records

    @classmethod
    def of(cls, client: ClusterClient, cluster: str, identity: str, project: str, folder: Path | None) -> Deployer:
        """Give the deployer of a project.

        Args:
            client: of the cluster.
            cluster: how to call the cluster in what users read.
            identity: what tells the cluster from others, the same on every run.
            project: name of the Ape project.
            folder: where deployments are remembered; None for the usual one.
        """
        return cls(client, cluster, project, Records.of(folder or silverback_folder() / FOLDER, project, identity))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the right to deploy, from before the plan is made to after it is applied.

        Raises:
            DeployError: another process holds it.
        """
        return self.records.lock()

    def plan(
        self, desired: DesiredState, values: Collection[str], plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS
    ) -> Plan:
        """Compare what the project wants with what the cluster has.

        Args:
            desired: what the project wants.
            values: names of the variables whose values are at hand.
            wishes: what is asked of the plan.

        Raises:
            ClusterError: a request failed.
            DeployError: it can't be done, with every reason, a line each.
        """
        known = self.records.known()
        names = {name for bot in desired.bots for name in (bot.name, bot.family, *bot.renamed_from) if name}
        names |= set(known.bots) if plan_options.prune else set()
        live = read_live_state(self.client, self.cluster, names)
        return make_plan(desired, live, values, known, plan_options)

    def check(self, plan: Plan) -> None:
        """Check that a plan which was made earlier is still right.

        Raises:
            DeployError: it was made for another cluster, or the cluster has moved since.
        """
        if plan.cluster != self.cluster:
            raise DeployError(f"the plan is for {plan.cluster}, not for {self.cluster}")
        live = read_live_state(self.client, self.cluster, plan.looked_at.bots)
        if fingerprint(live, plan.looked_at) != plan.state:
            raise DeployError(f"{self.cluster} has changed since the plan was made: make a new plan")

    def accept(self, plan: Plan, values: Collection[str]) -> None:
        """Check that a plan may be carried out with the values that are at hand.

        Raises:
            DeployError: it is refused, or a value is missing.
        """
        if plan.refused:
            raise DeployError("\n".join(plan.refused))
        if missing := sorted(plan.needs.difference(values)):
            raise DeployError(
                f"no value for {', '.join(missing)}: set it in the environment or in a file for --env-file"
            )

    def apply(
        self,
        plan: Plan,
        values: Mapping[str, str],
        apply_options: ApplyOptions = DEFAULT_APPLY_OPTIONS,
        source: Source = UNKNOWN_SOURCE,
        stop: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Carry a plan out, and remember it. To be called with the lock held.

        Args:
            plan: what to do.
            values: the values of the variables that the plan sends.
            manner: how.
            source: where it comes from.
            stop: set to begin nothing more.

        Raises:
            DeployError: the plan is refused, or a value is missing; nothing was changed.
        """
        self.accept(plan, values)
        record: Record | None = None
        if plan.writes or plan.bots != self.records.known().bots:
            self.records.restart_journal()
            record = self.records.begin(source, plan)
        summary = DeployResult(plan, apply_options.wait)
        for event in apply_plan(plan, self.client, values, apply_options, self.records, stop):
            summary.add(event)
            yield event
        if record is not None:  # one that didn't come this far was cut off
            outcome = {name: f"{event.kind}: {event.text}" for name, event in summary.outcome.items()}
            self.records.end(record, outcome)

    def earlier(self, names: Collection[str] = (), to: int | None = None) -> tuple[Record, DesiredState]:
        """Give an earlier deployment, and what it wanted.

        Args:
            names: bots that are to go back; all of them when empty.
            to: its number; None for the one before.

        Raises:
            DeployError: there is none, or it doesn't have a bot.
        """
        history = self.records.history()
        if not history:
            raise DeployError(f"nothing is remembered of deployments to {self.cluster}")
        now = history[-1]
        found: Record | None
        if to is not None:
            found = next((record for record in history if record.id == to), None)
            if found is None:
                raise DeployError(f"there is no deployment {to}; there are {history[0].id} to {now.id}")
        else:
            before = now.restores or now.id
            found = next(
                (
                    record
                    for record in reversed(history)
                    if record.id < before and record.succeeded and _chosen(record, names) != _chosen(now, names)
                ),
                None,
            )
            if found is None:
                raise DeployError(f"no deployment before {before} ended well and differs from what is there")
        if missing := [name for name in names if name not in found.bots]:
            raise DeployError(f"deployment {found.id} has no bot {', '.join(missing)}; it has: {', '.join(found.bots)}")
        return found, _desired(self.project, found, names)


def _chosen(record: Record, names: Collection[str]) -> dict[str, object]:
    return {name: bot.configuration for name, bot in record.bots.items() if not names or name in names}


def _desired(project: str, record: Record, names: Collection[str]) -> DesiredState:
    """Give what a deployment wanted."""
    origin = f"deployment {record.id} of {record.time:%Y-%m-%d %H:%M}"
    bots = []
    for name, bot in record.bots.items():
        if names and name not in names:
            continue
        origins = dict.fromkeys(BotConfiguration.model_fields, origin)
        bots.append(DesiredBot(name, origin, name, bot.configuration, origins, bot.protect))
    used = {group for bot in bots for group in bot.configuration.environment}
    groups = [DesiredGroup(name, names, origin) for name, names in record.groups.items() if name in used]
    return DesiredState(project, Path(), tuple(bots), tuple(groups))
