"""``ape silverback cluster pay``: pay for a cluster of the platform with an ApePay stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ape.cli import verbosity_option

from ape_silverback.cli.completion import complete_clusters
from ape_silverback.cli.connection import platform
from ape_silverback.cli.group import LazyGroup
from ape_silverback.cli.options import Span, format_option, platform_options, profile_option, yes_option
from ape_silverback.cli.output import confirm, messages_on_stderr, note, show, show_facts, time_text
from ape_silverback.cli.verify import no_verify_option, show_report, show_verified, warn_unverified

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI

    from ape_silverback.cli.documents import StreamDocument
    from ape_silverback.cluster.types import ClusterConfiguration
    from ape_silverback.config import StreamConfig
    from ape_silverback.connection import PlatformConnection
    from ape_silverback.contracts.rpc import Node
    from ape_silverback.section import SectionReading
    from ape_silverback.stream.clusters import Place
    from ape_silverback.stream.pay import Offer, Sent
    from ape_silverback.stream.quote import StreamState
    from ape_silverback.stream.verify import Report

HERE = "ape_silverback.cli.pay"

pay = LazyGroup(
    name="pay",
    help="Pay for a cluster of the platform with an ApePay stream: open it, look at it, extend it, cancel it.",
    short_help="Pay for a cluster",
    commands_by_section={
        "Look": {"info": f"{HERE}:info"},
        "Change": {"create": f"{HERE}:create", "add-time": f"{HERE}:add_time", "cancel": f"{HERE}:cancel"},
    },
)

_path = click.argument("path", metavar="CLUSTER_PATH", shell_complete=complete_clusters)
_network = click.option(
    "--network",
    metavar="ECOSYSTEM:NETWORK:PROVIDER",
    help="Network to pay on. Default: the stream's, for a new one the project's.",
)
_account = click.option(
    "--account", metavar="ALIAS", help="Account that signs. Default: `account:` of the section, else you are asked."
)
_amount = click.option("--amount", metavar="AMOUNT", help="Tokens to pay, such as '12.5' or '12.5 USDC'.")
_time = click.option(
    "--time", "seconds", type=Span(), metavar="TIME", help="Time to pay for: '30 days', or until when."
)
_approve = click.option(
    "--approve",
    type=click.Choice(["exact", "unlimited", "none"]),
    default="exact",
    show_default=True,
    help="What the StreamManager is allowed to take first, where it isn't yet.",
)


@click.command(short_help="Open a payment stream for a cluster")
@_path
@click.option(
    "-t",
    "--tier",
    type=click.Choice(["standard", "premium"], case_sensitive=False),
    default="standard",
    show_default=True,
    help="Configuration to begin with.",
)
@click.option(
    "-c",
    "--config",
    "updates",
    metavar="KEY VALUE",
    type=(str, str),
    multiple=True,
    help="A setting that differs from the tier, such as `bots 20` or `memory '4 GiB'`; may be repeated.",
)
@click.option("--token", metavar="TOKEN", help="Token to pay with, by symbol or address. Default: the only one.")
@_amount
@_time
@_approve
@_account
@_network
@yes_option
@no_verify_option
@format_option
@profile_option
@verbosity_option()
def create(
    path: str,
    tier: str,
    updates: tuple[tuple[str, str], ...],
    token: str | None,
    amount: str | None,
    seconds: int | None,
    approve: str,
    account: str | None,
    network: str | None,
    yes: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
) -> None:
    """Pay for a cluster that isn't paid for yet. CLUSTER_PATH is WORKSPACE/NAME.

    The StreamManager is verified and everything is shown before anything is signed. A price that rises in between
    makes the payment fail, and costs nothing but gas.

    \b
    Examples:
        ape silverback cluster pay create my-workspace/prod --time '30 days' --token USDC
        ape silverback cluster pay create my-workspace/prod -t premium -c bots 50 --amount 100
    """
    from ape_silverback.cluster.types import ResourceStatus
    from ape_silverback.stream.pay import offer_stream

    configuration = _configuration(tier, updates)
    _one_of(amount, seconds)
    with _paying(path, profile, network, new=True) as paying:
        status = paying.place[1].status
        if status is not ResourceStatus.CREATED:
            hint = "; `pay add-time` extends the stream that it has" if status is ResourceStatus.RUNNING else ""
            raise click.ClickException(
                f"{paying.name} is {str(status).lower()}: a new stream is for a cluster that was just made{hint}"
            )
        manager = paying.manager()
        paying.gate(no_verify)
        signer = paying.signer(account)
        offer = offer_stream(
            paying.node,
            str(signer.address),
            manager,
            paying.token(token),
            configuration,
            paying.place[1].id,
            amount=amount,
            seconds=seconds,
        )
        document = paying.send(offer, signer, approve, yes)
    show(document.data(), format_, lambda: _show_stream(document))
    note(f"The platform sees it within minutes: `ape silverback cluster info -c {paying.name}`.")


@click.command("info", short_help="Show a cluster's payment stream")
@_path
@_network
@format_option
@platform_options
def info(path: str, network: str | None, format_: str, profile: str | None) -> None:
    """Show the payment stream of a cluster, and whether it is to be trusted. CLUSTER_PATH is WORKSPACE/NAME.

    \b
    Example:
        ape silverback cluster pay info my-workspace/prod
    """
    with _paying(path, profile, network) as paying:
        state = paying.state()
        report = paying.report
        document = paying.document(state, report=report)

    def text() -> None:
        _show_stream(document)
        click.echo()
        show_report(report)

    show(document.data(), format_, text)


@click.command("add-time", short_help="Extend a cluster's payment stream")
@_path
@_amount
@_time
@_approve
@_account
@_network
@yes_option
@no_verify_option
@format_option
@profile_option
@verbosity_option()
def add_time(
    path: str,
    amount: str | None,
    seconds: int | None,
    approve: str,
    account: str | None,
    network: str | None,
    yes: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
) -> None:
    """Extend the payment stream of a cluster, which may be somebody else's. CLUSTER_PATH is WORKSPACE/NAME.

    \b
    Example:
        ape silverback cluster pay add-time my-workspace/prod --time '30 days'
    """
    from ape_silverback.stream.pay import offer_time

    _one_of(amount, seconds)
    with _paying(path, profile, network) as paying:
        state = paying.state()
        if state.time_left:  # else it is told that it has run out, which the verification would say too
            paying.gate(no_verify)
        signer = paying.signer(account)
        offer = offer_time(paying.node, str(signer.address), state, amount=amount, seconds=seconds)
        document = paying.send(offer, signer, approve, yes)
    show(document.data(), format_, lambda: _show_stream(document))


@click.command(short_help="Cancel a cluster's payment stream")
@_path
@_account
@_network
@yes_option
@format_option
@profile_option
@verbosity_option()
def cancel(path: str, account: str | None, network: str | None, yes: bool, format_: str, profile: str | None) -> None:
    """End the payment stream of a cluster, and so the cluster. CLUSTER_PATH is WORKSPACE/NAME.

    What isn't spent goes back to the owner of the stream. It can't be undone.

    \b
    Example:
        ape silverback cluster pay cancel my-workspace/prod
    """
    from ape_silverback.stream.pay import check_cancel, send_cancel

    with _paying(path, profile, network) as paying:
        state = paying.state()
        signer = paying.signer(account)
        check_cancel(paying.node, str(signer.address), state)
        note(
            f"Cancelling refunds about {state.token.about(state.rest)} to {state.stream.owner}, "
            f"and ends {paying.name} with all of its bots."
        )
        confirm(f"Cancel stream {state.number} of {paying.name}? This can't be undone.", yes)
        sent = send_cancel(paying.provider, paying.node, signer, state, tell=note)
        document = paying.document(sent.state, sent)
    refunded = f"{sent.state.token.text(sent.refund)} refunded to {sent.state.stream.owner}"
    show(document.data(), format_, lambda: click.echo(f"{paying.name}: cancelled, {refunded} ({sent.transaction})"))


@dataclass
class _Paying:
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
        from ape_silverback.stream.clusters import name_of

        return name_of(self.place)

    def manager(self) -> str:
        """Give the StreamManager, which the platform named."""
        assert self.report.manager is not None  # noqa: S101 - reports on a claim have one
        return self.report.manager

    def state(self) -> StreamState:
        """Read the stream. Not from other code than the StreamManager's, whose answers would mean nothing.

        Raises:
            click.ClickException: the code isn't the StreamManager's, or there is no such stream.
        """
        from ape_silverback.stream.clusters import require_trust
        from ape_silverback.stream.quote import read_stream

        if self.report.outcome_of("code") != "pass" or self.report.stream_id is None:
            require_trust(self.report)
        assert self.report.stream_id is not None  # noqa: S101
        return read_stream(self.node, self.manager(), self.report.stream_id)

    def gate(self, no_verify: bool) -> None:
        """Stop at a stream that isn't trusted, before anything is signed."""
        from ape_silverback.exceptions import StreamError
        from ape_silverback.stream.clusters import require_trust

        if not no_verify:
            require_trust(self.report)
            show_verified(self.report)
        elif self.trust.require:
            raise StreamError("the verification can't be left out: `stream: require` of the section asks for it")
        else:
            warn_unverified(self.name, "your tokens")

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

    def send(self, offer: Offer, signer: AccountAPI, approve: str, yes: bool) -> StreamDocument:
        """Show an offer, ask, pay, and give what came of it."""
        from ape_silverback.stream.pay import UNLIMITED, send_offer

        if offer.needs_approval and approve == "none":
            raise click.ClickException(
                f"the StreamManager may take {offer.token.text(offer.allowance)} of {signer.address}; "
                f"the payment takes {offer.token.text(offer.amount)}: leave out `--approve none`"
            )
        self._show_offer(offer, str(signer.address), approve)
        confirm(f"Pay {offer.token.text(offer.amount)} for {self.name}?", yes)
        approval = UNLIMITED if approve == "unlimited" else None
        sent = send_offer(self.provider, self.node, signer, offer, approval=approval, tell=note)
        note(f"Paid {offer.token.text(offer.amount)} in transaction {sent.transaction}.")
        return self.document(sent.state, sent)

    def _show_offer(self, offer: Offer, payer: str, approve: str) -> None:
        from ape_silverback.stream.verify import span_text

        facts = {"cluster": self.name}
        if offer.configuration is not None:
            facts |= _settings(offer.configuration)
        allowed = "isn't needed" if not offer.needs_approval else f"{approve}: {offer.token.text(offer.amount)}"
        if offer.needs_approval and approve == "unlimited":
            allowed = "unlimited"
        checks = sum(check.outcome in ("pass", "warn") for check in self.report.checks)
        facts |= {
            "payment": f"{offer.token.text(offer.amount)} of {payer}",
            "lasts" if offer.stream is None else "lasts then": span_text(offer.life),
            "price": f"about {offer.token.about(offer.per_day)} a day",
            "token": offer.token.address,
            "manager": f"{offer.manager} ({checks} checks passed)",
            "approval": allowed,
        }
        show_facts(facts, err=True)

    def document(self, state: StreamState, sent: Sent | None = None, report: Report | None = None) -> StreamDocument:
        """Describe the stream."""
        from ape_silverback.cli.documents import StreamDocument, VerificationDocument

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
def _paying(path: str, profile: str | None, network: str | None, *, new: bool = False) -> Iterator[_Paying]:
    """Find the cluster, connect to the chain, and verify what is there. Data is shown outside of it."""
    from ape_silverback.cluster.settings import choose_cluster
    from ape_silverback.connection import find_cluster
    from ape_silverback.section import read_section
    from ape_silverback.stream.chain import connected_provider, network_with, node_of
    from ape_silverback.stream.clusters import claim_of_new, claims_of
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
            yield _Paying(above, place, provider, node, trust, report, reading.section.account)


def _configuration(tier: str, updates: tuple[tuple[str, str], ...]) -> ClusterConfiguration:
    from pydantic import ValidationError

    from ape_silverback.cluster.types import ClusterConfiguration, ClusterTier
    from ape_silverback.config import near_match

    known = [name for name in ClusterConfiguration.model_fields if name != "version"]
    for key, _ in updates:
        if key not in known:
            raise click.UsageError(f"--config {key}: no such setting; {near_match(key, known)}")
    values: dict[str, Any] = ClusterTier[tier.upper()].configuration().model_dump()
    try:
        return ClusterConfiguration.model_validate({**values, **dict(updates)})
    except ValidationError as error:
        problems = [f"--config {detail['loc'][0]}: {detail['msg']}" for detail in error.errors(include_url=False)]
        raise click.UsageError("; ".join(problems)) from None


def _one_of(amount: str | None, seconds: int | None) -> None:
    if (amount is None) == (seconds is None):
        raise click.UsageError("Say how much: either --amount or --time.")


def _settings(configuration: ClusterConfiguration) -> dict[str, str]:
    parts = configuration.settings_display_dict()
    parts.pop("version")
    return {key: str(value) for part in parts.values() for key, value in part.items()}


def _decoded(state: StreamState) -> ClusterConfiguration | None:
    from ape_silverback.cluster.types import ClusterConfiguration

    for product in state.stream.products:
        try:
            return ClusterConfiguration.decode(product[:8])
        except ValueError:
            continue
    return None


def _show_stream(document: StreamDocument) -> None:
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
            **(_settings(document.configuration) if document.configuration else {"product": "not a cluster's"}),
        }
    )
