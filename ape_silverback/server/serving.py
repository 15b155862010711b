"""What serves one cluster of this machine: its folder, what runs its bots, and what they find in their environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ape_silverback.server.runtimes.process import ProcessRuntime
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.supervisor import Supervisor


def supervisor_of(folder: Path, address: Callable[[], str], api_key: str) -> Supervisor:
    """Make the supervisor of a cluster's bots.

    Args:
        folder: everything that the cluster keeps.
        address: gives the cluster's address, for bots that have access to it.
        api_key: what these bots get as their key.
    """
    store = Store(folder)

    def variables_of(bot: BotRecord) -> Mapping[str, str]:
        """Give what a bot finds in its environment: its groups, and over them what its configuration says."""
        variables: dict[str, str] = {}
        for group in bot.configuration.environment:
            variables |= store.values_of(group)
        configuration = bot.configuration
        network = f"{configuration.ecosystem}:{configuration.network}:{configuration.provider}"
        variables |= {"SILVERBACK_BOT_NAME": bot.name, "SILVERBACK_NETWORK_CHOICE": network}
        if account := bot.configuration.account:
            variables["SILVERBACK_SIGNER_ALIAS"] = account
        if bot.configuration.cluster_access:
            variables |= {"SILVERBACK_CLUSTER_URI": address(), "SILVERBACK_CLUSTER_API_KEY": api_key}
        return variables

    return Supervisor(store, ProcessRuntime(bots_folder(folder)), variables_of)


def bots_folder(folder: Path) -> Path:
    """Give where a cluster's bots keep their logs and what is known of their runs."""
    return folder / "bots"
