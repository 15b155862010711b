"""What a plan has to know of accounts: two running bots never sign with one, and each bot can use its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.deployment.plan import BotAction, CreateBot, KeepBot, RestartBot, StartBot, UpdateBot
from ape_silverback.deployment.state import LiveBot, LiveState, LocalState
from ape_silverback.project.desired import DesiredBot, DesiredState

Signer = tuple[str, str, str]
"""Who signs, and where: the account, the ecosystem and the network."""


@dataclass(frozen=True)
class PlannedBot:
    """A bot of the project, what it is on the cluster, and what is done with it.

    Attributes:
        live: None for a bot that isn't there.
        action: None for one that keeps what was changed on the cluster.
    """

    bot: DesiredBot
    live: LiveBot | None
    action: BotAction | None


def signer_of(configuration: BotConfiguration, local: LocalState) -> Signer | None:
    """Return who signs for a bot: an account by its address where it is a keyfile here, since two may be of one.

    None for a bot that signs nothing, and for test accounts on a local network or a fork: nothing is lost there, and
    projects start with one account for all their bots.
    """
    account, network = configuration.account, configuration.network
    if not account or (account.startswith("TEST::") and (network == "local" or network.endswith("-fork"))):
        return None
    return local.keyfiles.get(account, account), configuration.ecosystem, network


def shared_accounts(bots: Iterable[PlannedBot], live: LiveState, local: LocalState) -> Iterator[str]:
    """Find bots that would sign with one account on one network, together or with others that run on the cluster.

    Each bot of the project has to agree with ``share-account: true``. A bot that this plan removes counts, since it
    runs until the others do. Exempt are test accounts on a local network or a fork: see ``signer_of``.
    """
    bots = list(bots)
    own = {one.live.id for one in bots if one.live is not None}
    using: dict[Signer, list[DesiredBot]] = {}
    for one in bots:
        if (signer := signer_of(one.bot.configuration, local)) is not None:
            using.setdefault(signer, []).append(one.bot)
    for signer, sharing in using.items():
        others = [
            there.name
            for _, there in sorted(live.bots.items())
            if there.id not in own
            and there.status is not ResourceStatus.STOPPED
            and signer_of(there.configuration, local) == signer
        ]
        refused = [bot for bot in sharing if not bot.share_account]
        if refused and len(sharing) + len(others) > 1:
            names = [*(bot.name for bot in sharing), *(f"{name} (on the cluster)" for name in others)]
            yield (
                f"{', '.join(names)}: they sign with one account, {_named([*refused, *sharing])}, on "
                f"{':'.join(signer[1:])}, and would take each other's nonces; give each its own account, or set "
                f"`share-account: true` for {', '.join(bot.name for bot in refused)}"
            )


def _named(bots: Iterable[DesiredBot]) -> str:
    """Return an account as bots call it, each name with where it comes from."""
    origins: dict[str, str] = {}
    for bot in bots:
        origins.setdefault(str(bot.configuration.account), str(bot.origins["account"]))
    return " alias ".join(f"'{alias}' ({origin})" for alias, origin in origins.items())


def accounts_of(bots: Iterable[DesiredBot], local: LocalState) -> set[str]:
    """Return the aliases of the accounts that bots sign with; all aliases of one that is a keyfile here."""
    signers = {signer[0] for bot in bots if (signer := signer_of(bot.configuration, local)) is not None}
    return signers.difference(local.keyfiles.values()) | {
        alias for alias, address in local.keyfiles.items() if address in signers
    }


@dataclass(frozen=True)
class Handovers:
    """Accounts that pass from one bot of the project to another.

    Attributes:
        after: bot that takes one over → the bots that have to have stopped before it starts.
        problems: why it can't be done.
    """

    after: Mapping[str, tuple[UUID, ...]]
    problems: tuple[str, ...]


def handovers(bots: Iterable[PlannedBot], local: LocalState) -> Handovers:
    """Find the accounts that pass from one bot of the project to another, as when two bots swap theirs.

    The one that takes an account over starts once the one that gives it up has stopped. Bots that agree to share theirs
    wait for none.
    """
    bots = list(bots)
    using: dict[Signer, list[tuple[PlannedBot, LiveBot]]] = {}
    for one in bots:
        if one.live is None or one.live.status is ResourceStatus.STOPPED:
            continue
        signer = signer_of(one.live.configuration, local)
        if signer is not None and signer != signer_of(one.bot.configuration, local):
            using.setdefault(signer, []).append((one, one.live))
    after: dict[str, tuple[UUID, ...]] = {}
    problems = []
    for one in bots:
        signer = signer_of(one.bot.configuration, local)
        if signer is None or signer not in using or one.action is None or isinstance(one.action, KeepBot):
            continue
        former = [(giving, live) for giving, live in using[signer] if giving is not one]
        former = [pair for pair in former if not (one.bot.share_account and pair[0].bot.share_account)]
        for giving, live in former:
            if not _stops(giving.action):
                problems.append(
                    f"{one.bot.name}: takes over account '{one.bot.configuration.account}' of {live.name}, which would "
                    f"go on running with it: stop {live.name} first, or let the deployment restart it"
                )
        if former:
            after[one.bot.name] = tuple(live.id for _, live in former)
    return Handovers(after, tuple(problems))


def _stops(action: BotAction | None) -> bool:
    """Return whether a bot that runs has stopped in the course of an action."""
    match action:
        case UpdateBot():
            return action.restart or action.stopping
        case RestartBot():
            return True
        case StartBot():
            return action.stopping
        case _:
            return False


def waiting(action: BotAction | None, after: tuple[UUID, ...]) -> BotAction | None:
    """Return an action that starts a bot once others have stopped."""
    if after and isinstance(action, CreateBot | UpdateBot | RestartBot | StartBot):
        return action.model_copy(update={"after": after})
    return action


def without_passphrase(
    bots: Iterable[PlannedBot], desired: DesiredState, live: LiveState, local: LocalState
) -> Iterator[str]:
    """Name the bots that are started with a keyfile account and without its passphrase."""
    for one in bots:
        account = one.bot.configuration.account
        if account not in local.keyfiles or one.action is None or isinstance(one.action, KeepBot):
            continue
        variable = f"APE_ACCOUNTS_{account}_PASSPHRASE"
        if variable in variables_of(one.bot, desired, live):
            continue
        hint = "add it" if variable.isidentifier() else "no variable can be called so, rename the account first"
        yield (
            f"{one.bot.name}: account '{account}' is a keyfile, and {variable} isn't in a variable group of the bot, "
            f"so that it would wait for the passphrase forever: {hint}"
        )


def variables_of(bot: DesiredBot, desired: DesiredState, live: LiveState) -> set[str]:
    """Return the names of the variables that a bot gets from its groups once a plan is carried out."""
    declared = {group.name: frozenset(group.variables) for group in desired.groups}
    there = {name: group.variables for name, group in live.groups.items()} | declared
    return {name for group in bot.configuration.environment for name in there.get(group, ())}


def without_plugin(bots: Iterable[PlannedBot], local: LocalState) -> Iterator[str]:
    """Name the bots that are started from an image that doesn't install the plugin of their account."""
    for one in bots:
        package = local.missing_plugins.get(one.bot.name)
        if package is None or one.action is None or isinstance(one.action, KeepBot):
            continue
        yield (
            f"{one.bot.name}: account '{one.bot.configuration.account}' needs {package}, which the requirements of the "
            "bot's image don't name: add it to requirements-bot.txt, unless the base image has it"
        )
