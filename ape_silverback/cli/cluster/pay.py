"""``ape silverback cluster pay``: pay for a cluster of the platform with an ApePay stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from ape.cli import verbosity_option

from ape_silverback.cli.shared.completion import complete_clusters
from ape_silverback.cli.shared.gate import no_verify_option, show_report
from ape_silverback.cli.shared.group import LazyGroup
from ape_silverback.cli.shared.options import Span, format_option, platform_options, profile_option, yes_option
from ape_silverback.cli.shared.output import show
from ape_silverback.cli.shared.payment import paying, sending, show_stream
from ape_silverback.cli.shared.terminal import confirm, echo, note

if TYPE_CHECKING:
    from ape_silverback.cluster.types import ClusterConfiguration

HERE = "ape_silverback.cli.cluster.pay"

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
    with paying(path, profile, network, new=True) as payment:
        status = payment.place[1].status
        if status is not ResourceStatus.CREATED:
            hint = "; `pay add-time` extends the stream that it has" if status is ResourceStatus.RUNNING else ""
            raise click.ClickException(
                f"{payment.name} is {str(status).lower()}: a new stream is for a cluster that was just made{hint}"
            )
        manager = payment.manager()
        payment.gate(no_verify)
        signer = payment.signer(account)
        quote = offer_stream(
            payment.node,
            str(signer.address),
            manager,
            payment.token(token),
            configuration,
            payment.place[1].id,
            amount=amount,
            seconds=seconds,
        )
        document = payment.send(quote, signer, approve, yes)
    show(document.data(), format_, lambda: show_stream(document))
    note(f"The platform sees it within minutes: `ape silverback cluster info -c {payment.name}`.")


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
    with paying(path, profile, network) as payment:
        state = payment.state()
        report = payment.report
        document = payment.document(state, report=report)

    def text() -> None:
        show_stream(document)
        echo()
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
    with paying(path, profile, network) as payment:
        state = payment.state()
        if state.time_left:  # else it is told that it has run out, which the verification would say too
            payment.gate(no_verify)
        signer = payment.signer(account)
        quote = offer_time(payment.node, str(signer.address), state, amount=amount, seconds=seconds)
        document = payment.send(quote, signer, approve, yes)
    show(document.data(), format_, lambda: show_stream(document))


@click.command(short_help="Cancel a cluster's payment stream")
@_path
@_account
@_network
@yes_option
@no_verify_option
@format_option
@profile_option
@verbosity_option()
def cancel(
    path: str,
    account: str | None,
    network: str | None,
    yes: bool,
    no_verify: bool,
    format_: str,
    profile: str | None,
) -> None:
    """End the payment stream of a cluster, and so the cluster. CLUSTER_PATH is WORKSPACE/NAME.

    What isn't spent goes back to the owner of the stream. It can't be undone.

    \b
    Example:
        ape silverback cluster pay cancel my-workspace/prod
    """
    from ape_silverback.stream.pay import check_cancel, send_cancel

    with paying(path, profile, network) as payment:
        state = payment.state()
        if state.time_left:  # else there is nothing to cancel, which is the better error
            payment.gate(no_verify)
        signer = payment.signer(account)
        check_cancel(payment.node, str(signer.address), state)
        note(
            f"Cancelling refunds about {state.token.about(state.rest)} to {state.stream.owner}, "
            f"and ends {payment.name} with all of its bots."
        )
        confirm(f"Cancel stream {state.number} of {payment.name}? This can't be undone.", yes)
        with sending():
            sent = send_cancel(payment.provider, payment.node, signer, state, tell=note)
        document = payment.document(sent.state, sent)
    refunded = f"{sent.state.token.text(sent.refund)} refunded to {sent.state.stream.owner}"
    show(document.data(), format_, lambda: echo(f"{payment.name}: cancelled, {refunded} ({sent.transaction})"))


def _configuration(tier: str, updates: tuple[tuple[str, str], ...]) -> ClusterConfiguration:
    from pydantic import ValidationError

    from ape_silverback.cluster.types import ClusterConfiguration, ClusterTier
    from ape_silverback.config.validation import near_match

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
