"""The deployments of one project to one cluster: a plan, its application, and the record of both."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from ape_silverback.cluster.types import BotConfiguration
from ape_silverback.deployment.apply import DEFAULT_APPLY_OPTIONS, ApplyOptions, apply_plan
from ape_silverback.deployment.creation import with_creations
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.history import Records
from ape_silverback.deployment.lines import ClusterLines
from ape_silverback.deployment.observed import Answers, ask_cluster, live_state
from ape_silverback.deployment.plan import DEFAULT_PLAN_OPTIONS, CreateBot, Plan, PlanOptions, UpdateBot
from ape_silverback.deployment.planner import make_plan
from ape_silverback.deployment.planning.outcome import fingerprints_after
from ape_silverback.deployment.planning.scope import fingerprint
from ape_silverback.deployment.record import UNKNOWN_SOURCE, Record, Source
from ape_silverback.deployment.result import DeployResult
from ape_silverback.deployment.state import NOTHING_LOCAL, LiveState, LocalState, RecordedState
from ape_silverback.exceptions import DeployError
from ape_silverback.project.desired import DesiredBot, DesiredGroup, DesiredState

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient


@dataclass(frozen=True)
class Look:
    """What a plan compares the project with.

    Attributes:
        recorded: what earlier deployments left. It is read first, so that one from another machine that comes between
            the two is noticed.
        answers: what the cluster has answered.
    """

    recorded: RecordedState
    answers: Answers


@dataclass(frozen=True)
class Deployer:
    """Deploys one project to one cluster.

    Attributes:
        client: client of the cluster.
        cluster: label of the cluster in messages.
        cluster_identity: identifies the cluster, on every run and under every profile: its id, or its address.
        project: name of the Ape project.
        identity: identifies the project; names needn't be unique.
        records: what is recorded of its deployments.
        address: address of the cluster; it identified the cluster in plans before clusters had ids.
    """

    client: ClusterClient
    cluster: str
    cluster_identity: str
    project: str
    identity: str
    records: Records
    address: str | None = None

    @classmethod
    def of(
        cls,
        client: ClusterClient,
        cluster: str,
        cluster_identity: str,
        project: str,
        identity: str,
        root: Path,
        address: str | None = None,
    ) -> Deployer:
        """Return the deployer of a project; see ``Records.of``. A cluster that keeps records keeps its history."""
        kept = ClusterLines(client, identity) if "deployments" in client.extensions else None
        records = Records.of(root, project, identity, cluster_identity, kept, address)
        return cls(client, cluster, cluster_identity, project, identity, records, address)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the right to deploy, from before the plan is made to after it is applied.

        Raises:
            DeployError: another process holds it.
        """
        return self.records.lock()

    def look(self) -> Look:
        """Look at what earlier deployments left and at what the cluster has.

        Raises:
            ClusterError: a request failed.
            FileError: the record can't be read.
        """
        recorded = self.records.known()
        return Look(recorded, ask_cluster(self.client))

    def plan(
        self,
        desired: DesiredState,
        local: LocalState = NOTHING_LOCAL,
        plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS,
        look: Look | None = None,
    ) -> Plan:
        """Compare what the project wants with what the cluster has and what earlier deployments left.

        Args:
            desired: what the project wants.
            local: values, code and images of this machine.
            plan_options: what the plan may do.
            look: what ``look`` has returned; None to look now.

        Raises:
            ClusterError: a request failed.
            DeployError: it can't be done, with every reason, a line each.
        """
        look = look or self.look()
        recorded = look.recorded
        names = {name for bot in desired.bots for name in (bot.name, bot.family, *bot.renamed_from) if name}
        accounts = {bot.configuration.account for bot in desired.bots if bot.configuration.account}
        live = self._live_state(
            look.answers,
            names | {bot.name for bot in recorded.bots},
            accounts | local.keyfiles.keys(),
            credentials=any(bot.configuration.credential_name for bot in desired.bots),
        )
        return make_plan(replace(desired, identity=self.identity), live, recorded, local, plan_options)

    def check(self, plan: Plan) -> None:
        """Check that a plan which was made earlier is still right.

        Raises:
            DeployError: it was made for another project or cluster, or the cluster or the record has moved since.
        """
        if plan.identity != self.identity:
            raise DeployError(
                f"the plan is of another project: {plan.project} ({plan.identity}), not {self.project} "
                f"({self.identity})"
            )
        if plan.cluster_identity not in (self.cluster_identity, self.address):
            raise DeployError(f"the plan is for {plan.cluster}, not for {self.cluster}")
        looked_at = plan.looked_at
        live = self._live_state(
            ask_cluster(self.client), looked_at.bots, looked_at.accounts, credentials=bool(looked_at.credentials)
        )
        if fingerprint(live, looked_at, self.records.known().last) != plan.state:
            raise DeployError(f"{self.cluster} has changed since the plan was made: make a new plan")

    def check_allowed(self, plan: Plan) -> None:
        """Check that a plan may be applied at all.

        Raises:
            DeployError: it would remove what is protected, or change what this project didn't deploy.
        """
        if plan.refused:
            raise DeployError("\n".join(plan.refused))

    def accept(self, plan: Plan, values: Collection[str]) -> None:
        """Check that a plan may be carried out with the values that are at hand.

        Raises:
            DeployError: it is refused, or a value is missing.
        """
        self.check_allowed(plan)
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
        fingerprints: Mapping[str, str] | None = None,
    ) -> Iterator[Event]:
        """Carry a plan out, and record it. To be called with the lock held.

        Args:
            plan: what to do.
            values: the values of the variables that the plan sends.
            apply_options: how.
            source: where it comes from.
            stop: set to begin nothing more.
            fingerprints: variable → fingerprint of its value.

        Raises:
            DeployError: the plan is refused, or a value is missing; nothing was changed.
        """
        self.accept(plan, values)
        before = self.records.known()
        started = {one.name for one in plan.bot_actions if not (isinstance(one, UpdateBot) and one.runs_on)}
        planned = plan.model_copy(
            update={
                "groups": fingerprints_after(plan, fingerprints or {}),
                "bots": tuple(  # the others run on with the image that they were started with
                    bot.model_copy(update={"digest": source.digests.get(bot.name, bot.digest)})
                    if bot.name in started
                    else bot
                    for bot in plan.bots
                ),
            }
        )
        choose_ids = "chosen-ids" in self.client.extensions
        planned = with_creations(planned, before, choose_ids=choose_ids, removed=self._removed(planned, before))
        record: Record | None = None
        if plan.writes or planned.bots != before.bots or planned.groups != before.groups:
            record = self.records.begin(source, planned)
        result = DeployResult(plan, apply_options.wait)
        for event in apply_plan(planned, self.client, values, apply_options, self.records.journal, stop):
            result.add(event)
            yield event
        if record is not None:  # one that didn't come this far was cut off
            self.records.end(record, planned, result.outcome, before)

    def earlier(
        self, names: Collection[str] = (), to: int | None = None, target: str | None = None
    ) -> tuple[Record, DesiredState]:
        """Find an earlier deployment, and what it wanted.

        Args:
            names: bots to go back with; all of them when empty.
            to: its number; None for the one before.
            target: target of the section.

        Raises:
            DeployError: there is none, or it doesn't have a bot.
        """
        history = self.records.history()
        of_target = [record for record in history if record.target == target]
        if not of_target:
            raise DeployError(f"no deployment to {self.cluster} is recorded")
        now = of_target[-1]
        if to is not None:
            found = next((record for record in of_target if record.id == to), None)
            if found is None:
                numbers = ", ".join(str(record.id) for record in of_target[-20:])
                raise DeployError(f"no deployment {to}; the history has: {numbers}")
        else:
            # What a rollback of all bots restored was undone already; one of some bots is undone like a deployment.
            before = now.restores if now.restores and not now.selected else now.id
            found = next(
                (
                    record
                    for record in reversed(of_target)
                    if record.id < before
                    and record.succeeded
                    and _chosen(record, names, target) != _chosen(history[-1], names, target)
                ),
                None,
            )
            if found is None:
                raise DeployError(f"no deployment before {before} succeeded and differs from what is there")
        bots = found.of_target(target)
        if missing := [name for name in names if name not in {bot.name for bot in bots}]:
            there = ", ".join(bot.name for bot in bots)
            raise DeployError(f"deployment {found.id} has no bot {', '.join(missing)}; it has: {there}")
        return found, self._restored(found, names)

    def _restored(self, record: Record, names: Collection[str]) -> DesiredState:
        """Return what a deployment wanted, for its bots as they are called and known now."""
        origin = f"deployment {record.id} of {record.time:%Y-%m-%d %H:%M}"
        origins = dict.fromkeys(BotConfiguration.model_fields, origin)
        bots = tuple(
            DesiredBot(
                name=bot.name,
                origin=origin,
                module=bot.name,
                configuration=bot.configuration,
                origins=origins,
                protect=bot.protect,
                share_account=bot.share_account,
                family=bot.family,
                id=bot.id,
            )
            for bot in record.of_target(record.target)
            if not names or bot.name in names
        )
        used = {group for bot in bots for group in bot.configuration.environment}
        groups = [DesiredGroup(name, one.variables, origin) for name, one in record.groups.items() if name in used]
        return DesiredState(
            project=self.project,
            folder=Path(),
            bots=bots,
            groups=tuple(groups),
            identity=self.identity,
            target=record.target,
            selected=tuple(names),
            names=frozenset(bot.name for bot in record.of_target(record.target)),
            group_names=frozenset(record.groups),
            restores=record.id,
        )

    def _removed(self, plan: Plan, recorded: RecordedState) -> set[UUID]:
        """Return which bots that a plan creates were created before, though no answer told so, and removed since."""
        names = {action.name for action in plan.of(CreateBot)}
        creating = {bot.id for bot in recorded.bots if bot.creating and bot.id is not None and bot.name in names}
        if not creating or "removed-logs" not in self.client.extensions:
            return set()
        return creating.intersection(bot.id for bot in self.client.removed_bots.values())

    def _live_state(
        self, answers: Answers, names: Collection[str], accounts: Collection[str], *, credentials: bool
    ) -> LiveState:
        return live_state(
            self.client, answers, self.cluster, self.cluster_identity, names, accounts, credentials=credentials
        )


def _chosen(record: Record, names: Collection[str], target: str | None) -> dict[str, object]:
    return {bot.name: bot.configuration for bot in record.of_target(target) if not names or bot.name in names}
