"""What a cluster has, read in as few requests as the cluster allows."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

from ape_silverback.cluster.resource import by_name
from ape_silverback.cluster.states import read_states
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.deployment.state import LiveBot, LiveGroup, LiveState
from ape_silverback.exceptions import ClusterError

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient


def read_live_state(
    client: ClusterClient,
    cluster: str,
    identity: str,
    names: Iterable[str],
    accounts: Iterable[str] = (),
    *,
    credentials: bool = True,
) -> LiveState:
    """Read bots, groups and credentials at once.

    Args:
        client: client of the cluster.
        cluster: label of the cluster in messages.
        identity: identifies the cluster.
        names: the bots whose status is needed. Where neither the list nor the cluster's health shows a status, only
            these bots are asked for theirs.
        accounts: likewise the bots with one of these accounts.
        credentials: False to read registry credentials only if a bot of the cluster has one.

    Raises:
        ClusterError: a request failed.
    """
    wanted, signing = set(names), set(accounts)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        groups = pool.submit(lambda: client.variable_groups)
        asked = pool.submit(lambda: client.credentials) if credentials else None
        configuration = pool.submit(lambda: client.configuration)
        claims = pool.submit(_read_claims, client)
        states = read_states(client, lambda bot: bot.name in wanted or bot.account in signing, health=False)
        paid = configuration.result()
        if asked is None and any(state.bot.credential_name for state in states):
            asked = pool.submit(lambda: client.credentials)
        names_by_id = {credential.id: name for name, credential in (asked.result() if asked else {}).items()}
        return LiveState(
            cluster=cluster,
            identity=identity,
            bots=by_name(_live_bot(state.bot, state.status, names_by_id) for state in states),
            groups={
                name: LiveGroup(group.id, name, frozenset(group.variables), group.created)
                for name, group in groups.result().items()
            },
            credentials=frozenset(names_by_id.values()),
            limit=paid.bots if paid else None,
            extensions=client.extensions,
            network_limit=paid.networks if paid else None,
            claims=claims.result(),
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
