"""What the commands of `pay` share: their options, the way to the platform and the chain, signing, and output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.gate import no_verify_option, show_verified, warn_unverified
from ape_silverback.cli.shared.options import (
    Span,
    format_option,
    platform,
    platform_options,
    together,
    yes_option,
)
from ape_silverback.cli.shared.output import configuration_facts, messages_on_stderr, show_facts, time_text
from ape_silverback.cli.shared.terminal import INTERRUPTED, confirm, note

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI

    from ape_silverback.apepay.rpc import Node
    from ape_silverback.cli.shared.documents import StreamDocument
    from ape_silverback.cluster.types import ClusterConfiguration
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.connect import PlatformConnection
    from ape_silverback.stream.claims import Claim, PlatformCluster
    from ape_silverback.stream.pay import Payment
    from ape_silverback.stream.pending import PaymentMemory
    from ape_silverback.stream.quote import Quote
    from ape_silverback.stream.state import StreamState
    from ape_silverback.stream.transactions import Sender
    from ape_silverback.stream.verify import Report

network_option = click.option(
    "--network",
    metavar="ECOSYSTEM:NETWORK:PROVIDER",
    help="Network of the stream. Default: the project's one with its chain id, for a new stream the project's default.",
)

signing_options = together(
    click.option(
        "--account",
        metavar="ALIAS",
        help="Account that signs. Default: `account:` of the section, else a prompt. With --yes, the passphrase comes "
        "from APE_ACCOUNTS_<ALIAS>_PASSPHRASE.",
    ),
    network_option,
    yes_option,
    no_verify_option,
    format_option,
    platform_options,
)
"""What every command has that signs."""

payment_options = together(
    click.option("--amount", metavar="AMOUNT", help="Tokens to pay, such as '12.5' or '12.5 USDC'."),
    click.option(
        "--time",
        "seconds",
        type=Span(),
        metavar="TIME",
        help="Time to pay for, such as '30 days', or the date to pay until.",
    ),
    click.option(
        "--approve",
        type=click.Choice(["exact", "unlimited", "none"]),
        default="exact",
        show_default=True,
        help="Allowance to grant the StreamManager if it has too little.",
    ),
    signing_options,
)
"""What every command has that pays."""


@dataclass(frozen=True)
class Signing:
    """The options of a command that signs."""

    account: str | None
    network: str | None
    yes: bool
    no_verify: bool
    format_: str
    profile: str | None


@dataclass(frozen=True)
class Paying(Signing):
    """The options of a command that pays."""

    amount: str | None
    seconds: int | None
    approve: str

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.seconds is None):
            raise click.UsageError("Pass exactly one of --amount or --time.")


@dataclass(frozen=True)
class PaymentSession:
    """A cluster of the platform, its stream, and the way to both.

    Attributes:
        above: the platform.
        trust: what the section has about streams.
        report: on the cluster's stream; for a new one on the StreamManager.
        account: that signs; None for a session that only reads.
    """

    above: PlatformConnection
    cluster: PlatformCluster
    provider: ProviderAPI
    node: Node
    trust: StreamConfig
    report: Report
    account: AccountAPI | None

    @property
    def name(self) -> str:
        """The cluster, as ``WORKSPACE/NAME``."""
        return self.cluster.path

    @property
    def manager(self) -> str:
        """Address of the StreamManager, which the platform named."""
        assert self.report.manager is not None  # noqa: S101 - reports on a claim have one
        return self.report.manager

    @property
    def payer(self) -> str:
        """Address of the account that signs."""
        assert self.account is not None  # noqa: S101 - for commands that sign
        return str(self.account.address)

    @cached_property
    def sender(self) -> Sender:
        """Sends the transactions of the account."""
        from ape_silverback.stream.transactions import Sender

        assert self.account is not None  # noqa: S101
        return Sender(self.provider, self.node, self.account, note)

    def state(self) -> StreamState:
        """Read the stream. Not from other code than the StreamManager's, whose answers would mean nothing.

        Raises:
            StreamError: the code isn't the StreamManager's, or the stream doesn't exist.
        """
        from ape_silverback.stream.gate import require_trust
        from ape_silverback.stream.state import read_stream

        if self.report.outcome_of("code") != "pass" or self.report.stream_id is None:
            require_trust(self.report)
        assert self.report.stream_id is not None  # noqa: S101
        return read_stream(self.node, self.manager, self.report.stream_id)

    def pass_gate(self, no_verify: bool) -> None:
        """Stop at a stream that isn't trusted, before anything is signed."""
        from ape_silverback.stream.gate import check_skip, require_trust

        if no_verify:
            check_skip(self.trust)
            warn_unverified(self.name, "your tokens")
        else:
            require_trust(self.report)
            show_verified(self.report)

    def token(self, wanted: str | None) -> str:
        """Return the address of the token to pay with, of those that the platform takes."""
        chain_id = self.provider.chain_id
        accepted = self.above.client.get_accepted_tokens(chain_id)
        known = ", ".join(sorted(accepted)) or "none"
        if wanted is None:
            if len(accepted) == 1:
                return next(iter(accepted.values()))
            raise click.UsageError(f"Pass --token. The platform takes on chain {chain_id}: {known}.")
        for symbol, address in accepted.items():
            if wanted.lower() in (symbol.lower(), address.lower()):
                return address
        raise click.ClickException(f"the platform takes no token '{wanted}' on chain {chain_id}; it takes: {known}")

    def pay(self, stream: int | None, quote: Callable[[], Quote], options: Paying) -> StreamDocument:
        """Pay, unless an earlier run did so and didn't see it; return the stream after that.

        Args:
            stream: id of the stream that is extended; None for a new one.
            quote: works out the payment.
            options: of the command.
        """
        from ape_silverback.exceptions import FileLocked
        from ape_silverback.stream.pay import settle
        from ape_silverback.stream.pending import PaymentMemory

        purpose = f"cluster {self.cluster.info.id}" if stream is None else f"stream {stream}"
        memory = PaymentMemory.of(self.provider.chain_id, self.manager, self.payer, purpose)
        try:
            with memory.lock():
                with sending():
                    paid = settle(self.sender, memory, self.manager, stream)
                if paid is None:
                    return self._send(quote(), memory, options)
        except FileLocked as error:
            raise click.ClickException(f"another process is paying for {self.name} from this account") from error
        note(
            f"It was mined: this is the payment, and nothing more was paid. Run the command again to pay once more. "
            f"Transaction: {paid.transaction}"
        )
        return self.document(paid.state, paid)

    def _send(self, quote: Quote, memory: PaymentMemory, options: Paying) -> StreamDocument:
        """Show a quote, ask, and pay."""
        from ape_silverback.stream.pay import UNLIMITED, pay

        if quote.needs_approval and options.approve == "none":
            raise click.ClickException(
                f"the StreamManager may take {quote.token.text(quote.allowance)} of {self.payer}; "
                f"the payment takes {quote.token.text(quote.amount)}: leave out `--approve none`"
            )
        self._show_quote(quote, options.approve)
        confirm(f"Pay {quote.token.text(quote.amount)} for {self.name}?", options.yes)
        approval = UNLIMITED if options.approve == "unlimited" else None
        with sending():
            paid = pay(self.sender, quote, memory, approval=approval)
        note(f"Paid {quote.token.text(quote.amount)} in transaction {paid.transaction}.")
        return self.document(paid.state, paid)

    def _show_quote(self, quote: Quote, approve: str) -> None:
        from ape_silverback.durations import span_text

        facts = {"cluster": self.name}
        if quote.configuration is not None:
            facts |= configuration_facts(quote.configuration)
        allowed = "isn't needed" if not quote.needs_approval else f"{approve}: {quote.token.text(quote.amount)}"
        if quote.needs_approval and approve == "unlimited":
            allowed = "unlimited"
        checks = sum(check.outcome in ("pass", "warn") for check in self.report.checks)
        facts |= {
            "payment": f"{quote.token.text(quote.amount)} of {self.payer}",
            "lasts" if quote.stream is None else "lasts then": span_text(quote.life),
            "price": f"about {quote.token.about(quote.per_day)} a day",
            "token": quote.token.address,
            "manager": f"{quote.manager} ({checks} checks passed)",
            "approval": allowed,
        }
        show_facts(facts, err=True)

    def document(self, state: StreamState, made: Payment | None = None, report: Report | None = None) -> StreamDocument:
        """Describe the stream."""
        from ape_silverback.cli.shared.documents import StreamDocument

        token = state.token
        return StreamDocument(
            cluster=self.name,
            chain_id=self.provider.chain_id,
            manager=state.manager,
            stream_id=state.number,
            owner=state.stream.owner,
            token=token.symbol,
            token_address=token.address,
            rest=token.about(state.rest),
            per_day=token.about(state.per_day),
            seconds_left=state.time_left,
            expires=state.expires,
            cancelable=state.cancelable,
            products=[f"0x{product.hex()}" for product in state.stream.products],
            configuration=_configuration_of(state),
            transaction=made.transaction if made else None,
            refund=token.text(made.refund) if made and made.refund else None,
            verification=report.model_dump(mode="json") if report else None,
        )


@contextmanager
def sending() -> Iterator[None]:
    """Note after an interrupt that what was sent can't be called back."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Ape makes an exit of an interrupt
        note("\nInterrupted. A transaction that was sent may still be mined: the same command finds it.")
        raise click.exceptions.Exit(INTERRUPTED) from None


@contextmanager
def open_payment(
    path: str, profile: str | None, network: str | None, signing: Signing | None = None, *, new: bool = False
) -> Iterator[PaymentSession]:
    """Find the cluster, connect to the chain, and verify what is there. Data is shown outside of it.

    Args:
        path: the cluster, as ``WORKSPACE/NAME``.
        profile: option ``--profile``.
        network: option ``--network``.
        signing: options of a command that signs; None for one that only reads.
        new: whether a stream is to be opened.
    """
    from ape_silverback.cluster.choice import choose_cluster
    from ape_silverback.config.reader import read_section
    from ape_silverback.connect import find_cluster
    from ape_silverback.stream.chain import connected_provider, network_with, node_of
    from ape_silverback.stream.claims import PlatformCluster, claim_for_new_stream, read_claims
    from ape_silverback.stream.verify import verify

    section = (reading := read_section(Path.cwd())).section
    account = _signer(signing.account or section.account, signing.yes) if signing else None
    with messages_on_stderr(), platform(profile, reading) as above:
        cluster = PlatformCluster(*find_cluster(above.client, *choose_cluster(above.profile, path)))
        claim = None if new else _claim(read_claims(above.client, [cluster])[0], path)
        choice = network or (network_with(claim.stream.chain_id) if claim else None)
        with connected_provider(choice) as provider, node_of(provider) as node:
            if claim is None:
                claim = claim_for_new_stream(above.client, cluster, provider.chain_id)
            elif provider.chain_id != claim.stream.chain_id:
                raise click.ClickException(
                    f"the stream of {path} is on chain {claim.stream.chain_id}, "
                    f"{provider.network_choice} is chain {provider.chain_id}"
                )
            [report] = verify([claim], section.stream, lambda _: nullcontext(node))
            yield PaymentSession(above, cluster, provider, node, section.stream, report, account)


def _claim(claim: Claim | None, path: str) -> Claim:
    if claim is None:
        raise click.ClickException(f"{path} isn't paid for by a stream")
    return claim


def _signer(alias: str | None, yes: bool) -> AccountAPI:
    """Return the account that signs: the one of an alias, or the one that is chosen at a prompt.

    Raises:
        click.UsageError: no alias and no terminal to ask at, or --yes would have to ask for a passphrase.
    """
    from ape.cli import AccountAliasPromptChoice
    from ape.logging import LogLevel, logger
    from ape_accounts.accounts import KeyfileAccount

    choice: Any = AccountAliasPromptChoice()
    if alias is None and not sys.stdin.isatty():
        raise click.UsageError("Pass --account, or set `account:` in the section: stdin isn't a terminal.")
    account: AccountAPI = choice.convert(alias, None, None) if alias else choice.select_account()
    if yes and isinstance(account, KeyfileAccount):
        variable = f"APE_ACCOUNTS_{account.alias}_PASSPHRASE"
        if not os.environ.get(variable):
            raise click.UsageError(f"--yes signs without asking: set {variable}, or leave out --yes.")
        with logger.at_level(LogLevel.ERROR):  # it warns of what --yes asks for
            account.set_autosign(True)
    return account


def _configuration_of(state: StreamState) -> ClusterConfiguration | None:
    from ape_silverback.cluster.types import ClusterConfiguration

    for product in state.stream.products:
        try:
            return ClusterConfiguration.from_product_code(product)
        except ValueError:
            continue
    return None


def show_stream(document: StreamDocument) -> None:
    """Show a payment stream."""
    from ape_silverback.durations import span_text

    show_facts(
        {
            "cluster": document.cluster,
            "stream": f"{document.stream_id} of {document.manager} on chain {document.chain_id}",
            "owner": document.owner,
            "left": f"{document.rest}, {document.per_day} a day",
            "time left": span_text(document.seconds_left),
            "expires": time_text(document.expires),
            "cancelable": "yes" if document.cancelable else "no",
            **configuration_facts(document.configuration),
        }
    )
