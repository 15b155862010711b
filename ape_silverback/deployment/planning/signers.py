"""Who signs: bots that would share an account, keys in variables, and keyfiles without their passphrase."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.deployment.plan import BotAction, CreateGroup, KeepBot, UpdateGroup
from ape_silverback.deployment.planning.groups import sent_variables, variables_of
from ape_silverback.deployment.planning.inputs import Inputs, Match
from ape_silverback.deployment.state import LocalState
from ape_silverback.project.desired import DesiredBot

Signer = tuple[str, str, str]
"""Who signs, and where: the account, the ecosystem and the network."""


def _signer(configuration: BotConfiguration, local: LocalState) -> Signer | None:
    """Return who signs for a bot: an account by its address where it is a keyfile here, since two may be of one.

    None for a bot that signs nothing, and for test accounts on a local network or a fork: nothing is lost there, and
    projects start with one account for all their bots.
    """
    account, network = configuration.account, configuration.network
    if not account or (account.startswith("TEST::") and (network == "local" or network.endswith("-fork"))):
        return None
    return local.keyfiles.get(account, account), configuration.ecosystem, network


def find_shared_accounts(matches: Iterable[Match], inputs: Inputs) -> Iterator[str]:
    """Find bots that would sign with one account on one network, together or with others that run on the cluster.

    Each bot of the project has to agree with ``share-account: true``. A bot that this plan removes counts, since it
    runs until the others do. Exempt are test accounts on a local network or a fork: see ``_signer``.
    """
    matches = list(matches)
    matched = {match.live.id for match in matches if match.live is not None}
    using: dict[Signer, list[DesiredBot]] = {}
    for match in matches:
        if (signer := _signer(match.bot.configuration, inputs.local)) is not None:
            using.setdefault(signer, []).append(match.bot)
    for signer, bots in using.items():
        others = [
            live.name
            for _, live in sorted(inputs.live.bots.items())
            if live.id not in matched
            and live.status is not ResourceStatus.STOPPED
            and _signer(live.configuration, inputs.local) == signer
        ]
        refused = [bot for bot in bots if not bot.share_account]
        if refused and len(bots) + len(others) > 1:
            first = refused[0]
            names = [*(bot.name for bot in bots), *(f"{name} (on the cluster)" for name in others)]
            yield (
                f"{', '.join(names)}: they sign with one account, '{first.configuration.account}' "
                f"({first.origins['account']}), on {':'.join(signer[1:])}, and would take each other's nonces; give "
                f"each its own account, or set `share-account: true` for {', '.join(bot.name for bot in refused)}"
            )


def find_private_keys(groups: Iterable[CreateGroup | UpdateGroup], inputs: Inputs) -> Iterator[str]:
    """Name the variables that a plan sends, and whose value looks like a private key; never the value."""
    for action in groups:
        for name in sent_variables(action):
            if name in inputs.local.private_keys:
                yield (
                    f"the value of {name} in {action.name} looks like a private key, which every bot with this group "
                    "can read: let the bot sign with an `account:` instead"
                )


def find_without_passphrase(bots: Iterable[tuple[Match, BotAction | None]], inputs: Inputs) -> Iterator[str]:
    """Name the bots that are started with a keyfile account and without its passphrase."""
    for match, action in bots:
        account = match.bot.configuration.account
        if account not in inputs.local.keyfiles or action is None or isinstance(action, KeepBot):
            continue
        variable = f"APE_ACCOUNTS_{account}_PASSPHRASE"
        if variable in variables_of(match.bot, inputs):
            continue
        hint = "add it" if variable.isidentifier() else "no variable can be called so, rename the account first"
        yield (
            f"{match.bot.name}: account '{account}' is a keyfile, and {variable} isn't in a variable group of the bot, "
            f"which would wait for the passphrase for ever: {hint}"
        )
