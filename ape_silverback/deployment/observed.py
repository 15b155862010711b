"""What a cluster has, read in as few requests as the cluster allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from ape_silverback.cluster.resource import by_name
from ape_silverback.cluster.states import states_of
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.deployment.state import LiveBot, LiveGroup, LiveState
from ape_silverback.exceptions import ClusterError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient, RegistryCredentials, VariableGroup
    from ape_silverback.cluster.types import ClusterHealth


@dataclass(frozen=True)
class Answers:
    """What a cluster has answered, before it is known which of its bots matter.

    Attributes:
        bots: as they were listed.
        health: the cluster's; None where the list of bots shows their states.
        groups: the variable groups, by name.
        credentials: the registry credentials, by name; None while none of the bots has any.
        claims: as for ``LiveState``.
    """

    bots: Sequence[Bot]
    health: ClusterHealth | None
    groups: Mapping[str, VariableGroup]
    credentials: Mapping[str, RegistryCredentials] | None
    claims: Mapping[UUID, Mapping[str, int]]


def ask_cluster(client: ClusterClient) -> Answers:
    """Ask a cluster for its bots, groups and what else a plan needs, all at once.

    Raises:
        ClusterError: a request failed.
    """
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        groups = pool.submit(lambda: client.variable_groups)
        claims = pool.submit(_read_claims, client)
        health = None if "task" in client.extensions else pool.submit(lambda: client.health)
        bots = client.list_bots()
        credentials = pool.submit(lambda: client.credentials) if any(bot.credential_name for bot in bots) else None
        return Answers(
            bots,
            health.result() if health else None,
            groups.result(),
            credentials.result() if credentials else None,
            claims.result(),
        )


def live_state(
    client: ClusterClient,
    answers: Answers,
    cluster: str,
    identity: str,
    names: Iterable[str],
    accounts: Iterable[str],
    *,
    credentials: bool,
) -> LiveState:
    """Return what a cluster has, and ask it for what its answers leave open.

    Args:
        client: client of the cluster.
        answers: what it has answered.
        cluster: label of the cluster in messages.
        identity: identifies the cluster.
        names: the bots whose status is needed. Where neither the list nor the cluster's health shows a status, only
            these bots are asked for theirs.
        accounts: likewise the bots with one of these accounts.
        credentials: whether the registry credentials are needed though no bot has any.

    Raises:
        ClusterError: a request failed.
    """
    wanted, signing = set(names), set(accounts)
    known = client.credentials if answers.credentials is None and credentials else answers.credentials
    names_by_id = {credential.id: name for name, credential in (known or {}).items()}
    states = states_of(answers.bots, answers.health, lambda bot: bot.name in wanted or bot.account in signing)
    paid = client.configuration
    return LiveState(
        cluster=cluster,
        identity=identity,
        bots=by_name(_live_bot(state.bot, state.status, names_by_id) for state in states),
        groups={
            name: LiveGroup(group.id, name, frozenset(group.variables), group.created)
            for name, group in answers.groups.items()
        },
        credentials=frozenset(names_by_id.values()),
        limit=paid.bots if paid else None,
        extensions=client.extensions,
        network_limit=paid.networks if paid else None,
        claims=answers.claims,
    )


def _read_claims(client: ClusterClient) -> dict[UUID, dict[str, int]]:
    """Return which projects have each bot and variable group, where the cluster keeps their records."""
    if "deployment-claims" not in client.extensions:
        return {}
    return client.get_as(dict[UUID, dict[str, int]], "/deployments/claims")


def status_or_error(bots: Iterable[Bot]) -> dict[str, ResourceStatus | ClusterError]:
    """Return bots' statuses by name, or the error of each whose status couldn't be read.

    What the cluster listed with them is taken; the others are asked side by side.
    """

    def status_of(bot: Bot) -> ResourceStatus | ClusterError:
        if bot.task is not None and bot.task.last_status in ResourceStatus.__members__:
            return ResourceStatus[bot.task.last_status]
        try:
            return bot.status
        except ClusterError as error:
            return error

    bots = list(bots)
    if all(bot.task is not None for bot in bots):  # nothing to ask: no threads
        return {bot.name: status_of(bot) for bot in bots}
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return dict(zip((bot.name for bot in bots), pool.map(status_of, bots), strict=True))


def _live_bot(bot: Bot, status: ResourceStatus | None, credentials: dict[str, str]) -> LiveBot:
    """Return a bot with its credential's name, where the cluster answers with the id."""
    configuration = bot.configuration
    if (credential := configuration.credential_name) in credentials:
        configuration = configuration.model_copy(update={"credential_name": credentials[str(credential)]})
    started = bot.task.started_at if bot.task else None
    return LiveBot(bot.id, bot.name, status, configuration, started, bot.created)
