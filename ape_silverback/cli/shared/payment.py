"""What the commands of `pay` share: the way to the platform and to the chain, what is signed, and what is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.gate import show_verified, warn_unverified
from ape_silverback.cli.shared.options import platform
from ape_silverback.cli.shared.output import configuration_facts, messages_on_stderr, show_facts, time_text
from ape_silverback.cli.shared.terminal import INTERRUPTED, confirm, note

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI

    from ape_silverback.apepay.rpc import Node
    from ape_silverback.cli.shared.documents import StreamDocument
    from ape_silverback.cluster.types import ClusterConfiguration
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.connect import PlatformConnection
    from ape_silverback.stream.gate import Place
    from ape_silverback.stream.pay import Payment, Quote
    from ape_silverback.stream.quote import StreamState
    from ape_silverback.stream.verify import Report


@dataclass
class Paying:
    """A cluster that is paid for, with the way to the platform and to the chain.

    Attributes:
        report: on its stream; for a new one on the StreamManager.
    """

    above: PlatformConnection
    place: Place
    provider: ProviderAPI
    node: Node
    trust: StreamConfig
    report: Report
    section_account: str | None

    @property
    def name(self) -> str:
        """The cluster, as ``WORKSPACE/NAME``."""
        from ape_silverback.stream.gate import name_of

        return name_of(self.place)

    def manager(self) -> str:
        """Give the StreamManager, which the platform named."""
        assert self.report.manager is not None  # noqa: S101 - reports on a claim have one
        return self.report.manager

    def state(self) -> StreamState:
        """Read the stream. Not from other code than the StreamManager's, whose answers would mean nothing.

        Raises:
            StreamError: the code isn't the StreamManager's, or there is no such stream.
        """
        from ape_silverback.stream.gate import require_trust
        from ape_silverback.stream.quote import read_stream

        if self.report.outcome_of("code") != "pass" or self.report.stream_id is None:
            require_trust(self.report)
        assert self.report.stream_id is not None  # noqa: S101
        return read_stream(self.node, self.manager(), self.report.stream_id)

    def gate(self, no_verify: bool) -> None:
        """Stop at a stream that isn't trusted, before anything is signed."""
        from ape_silverback.stream.gate import check_skip, require_trust

        if no_verify:
            check_skip(self.trust)
            warn_unverified(self.name, "your tokens")
        else:
            require_trust(self.report)
            show_verified(self.report)

    def token(self, wanted: str | None) -> str:
        """Choose the token to pay with, of those that the platform takes; gives its address."""
        chain_id = self.provider.chain_id
        accepted = self.above.client.get_accepted_tokens(chain_id)
        known = ", ".join(sorted(accepted)) or "none"
        if wanted is None:
            if len(accepted) == 1:
                return next(iter(accepted.values()))
            raise click.UsageError(f"Name the token with --token. The platform takes on chain {chain_id}: {known}.")
        for symbol, address in accepted.items():
            if wanted.lower() in (symbol.lower(), address.lower()):
                return address
        raise click.ClickException(f"the platform takes no token '{wanted}' on chain {chain_id}; it takes: {known}")

    def signer(self, alias: str | None) -> AccountAPI:
        """Give the account that signs: the option's, the section's, or the one that is chosen when asked."""
        from ape.cli import AccountAliasPromptChoice

        choice = AccountAliasPromptChoice()
        alias = alias or self.section_account
        if alias is None and not sys.stdin.isatty():
            raise click.UsageError("Name the account that signs with --account, or with `account:` in the section.")
        account: AccountAPI = choice.convert(alias, None, None) if alias else choice.select_account()
        return account

    def send(self, quote: Quote, signer: AccountAPI, approve: str, yes: bool) -> StreamDocument:
        """Show an quote, ask, pay, and give what came of it."""
        from ape_silverback.stream.pay import UNLIMITED, send_offer

        if quote.needs_approval and approve == "none":
            raise click.ClickException(
                f"the StreamManager may take {quote.token.text(quote.allowance)} of {signer.address}; "
                f"the payment takes {quote.token.text(quote.amount)}: leave out `--approve none`"
            )
        self._show_quote(quote, str(signer.address), approve)
        confirm(f"Pay {quote.token.text(quote.amount)} for {self.name}?", yes)
        approval = UNLIMITED if approve == "unlimited" else None
        with sending():
            sent = send_offer(self.provider, self.node, signer, quote, approval=approval, tell=note)
        note(f"Paid {quote.token.text(quote.amount)} in transaction {sent.transaction}.")
        return self.document(sent.state, sent)

    def _show_quote(self, quote: Quote, payer: str, approve: str) -> None:
        from ape_silverback.stream.verify import span_text

        facts = {"cluster": self.name}
        if quote.configuration is not None:
            facts |= configuration_facts(quote.configuration)
        allowed = "isn't needed" if not quote.needs_approval else f"{approve}: {quote.token.text(quote.amount)}"
        if quote.needs_approval and approve == "unlimited":
            allowed = "unlimited"
        checks = sum(check.outcome in ("pass", "warn") for check in self.report.checks)
        facts |= {
            "payment": f"{quote.token.text(quote.amount)} of {payer}",
            "lasts" if quote.stream is None else "lasts then": span_text(quote.life),
            "price": f"about {quote.token.about(quote.per_day)} a day",
            "token": quote.token.address,
            "manager": f"{quote.manager} ({checks} checks passed)",
            "approval": allowed,
        }
        show_facts(facts, err=True)

    def document(self, state: StreamState, sent: Payment | None = None, report: Report | None = None) -> StreamDocument:
        """Describe the stream."""
        from ape_silverback.cli.shared.documents import StreamDocument, VerificationDocument

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
            configuration=_decoded(state),
            transaction=sent.transaction if sent else None,
            refund=token.text(sent.refund) if sent and sent.refund else None,
            verification=VerificationDocument.of(report) if report else None,
        )


@contextmanager
def sending() -> Iterator[None]:
    """Say after an interrupt that what was sent can't be called back."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Ape makes an exit of an interrupt
        note("\nInterrupted. A transaction that was sent already still goes into a block: `pay info` tells.")
        raise click.exceptions.Exit(INTERRUPTED) from None


@contextmanager
def paying(path: str, profile: str | None, network: str | None, *, new: bool = False) -> Iterator[Paying]:
    """Find the cluster, connect to the chain, and verify what is there. Data is shown outside of it."""
    from ape_silverback.cluster.settings import choose_cluster
    from ape_silverback.config.reader import read_section
    from ape_silverback.connect import find_cluster
    from ape_silverback.stream.chain import connected_provider, network_with, node_of
    from ape_silverback.stream.gate import claim_of_new, claims_of
    from ape_silverback.stream.verify import verify

    reading: SectionReading = read_section(Path.cwd())
    with messages_on_stderr(), platform(profile, reading) as above:
        place = find_cluster(above.client, *choose_cluster(above.profile, path))
        claim = None
        if not new:
            [claim] = claims_of(above.client, [place])
            if claim is None:
                raise click.ClickException(f"{path} isn't paid for by a stream")
        choice = network or (network_with(claim.stream.chain_id) if claim else None)
        with connected_provider(choice) as provider, node_of(provider) as node:
            if claim is None:
                claim = claim_of_new(above.client, place, provider.chain_id)
            elif provider.chain_id != claim.stream.chain_id:
                raise click.ClickException(
                    f"the stream of {path} is on chain {claim.stream.chain_id}, "
                    f"{provider.network_choice} is chain {provider.chain_id}"
                )
            trust = reading.section.stream
            [report] = verify([claim], trust, lambda _: nullcontext(node))
            yield Paying(above, place, provider, node, trust, report, reading.section.account)


def _decoded(state: StreamState) -> ClusterConfiguration | None:
    from ape_silverback.cluster.types import ClusterConfiguration

    for product in state.stream.products:
        try:
            return ClusterConfiguration.from_product_code(product)
        except ValueError:
            continue
    return None


def show_stream(document: StreamDocument) -> None:
    """Show a payment stream."""
    from ape_silverback.stream.verify import span_text

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
