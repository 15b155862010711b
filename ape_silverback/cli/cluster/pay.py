"""``ape silverback cluster pay``: pay for a cluster of the platform with an ApePay stream."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.completion import complete_clusters
from ape_silverback.cli.shared.gate import show_report
from ape_silverback.cli.shared.group import LazyGroup
from ape_silverback.cli.shared.options import format_option, platform_options
from ape_silverback.cli.shared.output import show
from ape_silverback.cli.shared.payment import (
    Paying,
    PaymentSession,
    Signing,
    network_option,
    open_payment,
    payment_options,
    sending,
    show_stream,
    signing_options,
)
from ape_silverback.cli.shared.terminal import confirm, echo, note

if TYPE_CHECKING:
    from ape_silverback.cluster.types import ClusterConfiguration

HERE = "ape_silverback.cli.cluster.pay"

CLOCKS_APART = timedelta(days=1)
"""How far the platform's clock and the chain's may be apart."""

pay = LazyGroup(
    name="pay",
    help="Pay for a cluster of the platform with an ApePay stream: open it, look at it, extend it, cancel it.",
    commands_by_section={
        "Look": {"info": (f"{HERE}:info", "Show a cluster's payment stream")},
        "Change": {
            "create": (f"{HERE}:create", "Open a payment stream for a cluster"),
            "add-time": (f"{HERE}:add_time", "Extend a cluster's payment stream"),
            "cancel": (f"{HERE}:cancel", "Cancel a cluster's payment stream"),
        },
    },
)

_path = click.argument("path", metavar="CLUSTER_PATH", shell_complete=complete_clusters)


@click.command()
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
    help="A setting that differs from the tier, such as `bots 20` or `memory '4 GiB'`; repeatable.",
)
@click.option("--token", metavar="TOKEN", help="Token to pay with, by symbol or address. Default: the only one.")
@payment_options
def create(path: str, tier: str, updates: tuple[tuple[str, str], ...], token: str | None, **options: Any) -> None:
    """Pay for a cluster that isn't paid for yet. CLUSTER_PATH is WORKSPACE/NAME.

    The StreamManager is verified and everything is shown before anything is signed. A price that rises in between
    makes the payment fail, and costs nothing but gas. Run again after an interruption, the command finds a payment that
    went through.

    \b
    Examples:
        ape silverback cluster pay create my-workspace/prod --time '30 days' --token USDC
        ape silverback cluster pay create my-workspace/prod -t premium -c bots 50 --amount 100
    """
    from ape_silverback.stream.quote import Quote, quote_stream

    configuration, paying = _configuration(tier, updates), Paying(**options)
    with open_payment(path, paying.profile, paying.network, paying, new=True) as session:

        def quote() -> Quote:
            _check_new(session)
            return quote_stream(
                session.node,
                session.payer,
                session.manager,
                session.token(token),
                configuration,
                session.cluster.info.id,
                amount=paying.amount,
                seconds=paying.seconds,
                since=session.cluster.info.created - CLOCKS_APART,
            )

        session.pass_gate(paying.no_verify)
        document = session.pay(None, quote, paying)
    show(document.data(), paying.format_, lambda: show_stream(document))
    note(f"The platform sees it within minutes: `ape silverback cluster info -c {session.name}`.")


@click.command("info")
@_path
@network_option
@format_option
@platform_options
def info(path: str, network: str | None, format_: str, profile: str | None) -> None:
    """Show the payment stream of a cluster, and whether it is trusted. CLUSTER_PATH is WORKSPACE/NAME.

    \b
    Example:
        ape silverback cluster pay info my-workspace/prod
    """
    with open_payment(path, profile, network) as session:
        report = session.report
        document = session.document(session.state(), report=report)

    def text() -> None:
        show_stream(document)
        echo()
        show_report(report)

    show(document.data(), format_, text)


@click.command("add-time")
@_path
@payment_options
def add_time(path: str, **options: Any) -> None:
    """Extend the payment stream of a cluster, which may be somebody else's. CLUSTER_PATH is WORKSPACE/NAME.

    Run again after an interruption, the command finds a payment that went through, and doesn't pay twice.

    \b
    Example:
        ape silverback cluster pay add-time my-workspace/prod --time '30 days'
    """
    from ape_silverback.stream.quote import quote_extension

    paying = Paying(**options)
    with open_payment(path, paying.profile, paying.network, paying) as session:
        state = session.state()
        if state.time_left:  # else the quote reports that it has run out, which is the better error
            session.pass_gate(paying.no_verify)
        document = session.pay(
            state.number,
            lambda: quote_extension(
                session.node, session.payer, session.state(), amount=paying.amount, seconds=paying.seconds
            ),
            paying,
        )
    show(document.data(), paying.format_, lambda: show_stream(document))


@click.command()
@_path
@signing_options
def cancel(path: str, **options: Any) -> None:
    """End the payment stream of a cluster, and so the cluster. CLUSTER_PATH is WORKSPACE/NAME.

    What isn't spent goes back to the owner of the stream. It can't be undone.

    \b
    Example:
        ape silverback cluster pay cancel my-workspace/prod
    """
    from ape_silverback.stream.pay import cancel_stream
    from ape_silverback.stream.quote import check_cancel

    signing = Signing(**options)
    with open_payment(path, signing.profile, signing.network, signing) as session:
        state = session.state()
        if state.time_left:  # else there is nothing to cancel, which is the better error
            session.pass_gate(signing.no_verify)
        check_cancel(session.node, session.payer, state)
        note(
            f"Cancelling refunds about {state.token.about(state.rest)} to {state.stream.owner}, "
            f"and ends {session.name} with all of its bots."
        )
        confirm(f"Cancel stream {state.number} of {session.name}? This can't be undone.", signing.yes)
        with sending():
            made = cancel_stream(session.sender, state)
        document = session.document(made.state, made)
    refunded = f"{made.state.token.text(made.refund)} refunded to {made.state.stream.owner}"
    show(
        document.data(),
        signing.format_,
        lambda: echo(f"{session.name}: cancelled, {refunded} ({made.transaction})"),
    )


def _check_new(session: PaymentSession) -> None:
    """Check that a cluster isn't paid for yet, as far as the platform knows."""
    from ape_silverback.cluster.types import ResourceStatus

    status = session.cluster.info.status
    if status is not ResourceStatus.CREATED:
        hint = "; `pay add-time` extends the stream that it has" if status is ResourceStatus.RUNNING else ""
        raise click.ClickException(
            f"{session.name} is {str(status).lower()}: a new stream is for a cluster that was just made{hint}"
        )


def _configuration(tier: str, updates: tuple[tuple[str, str], ...]) -> ClusterConfiguration:
    from pydantic import ValidationError

    from ape_silverback.cluster.types import ClusterConfiguration, ClusterTier
    from ape_silverback.suggestions import did_you_mean

    known = [name for name in ClusterConfiguration.model_fields if name != "version"]
    for key, _ in updates:
        if key not in known:
            raise click.UsageError(f"--config {key}: no such setting; {did_you_mean(key, known)}.")
    values: dict[str, Any] = ClusterTier[tier.upper()].configuration().model_dump()
    try:
        return ClusterConfiguration.model_validate({**values, **dict(updates)})
    except ValidationError as error:
        problems = [f"--config {detail['loc'][0]}: {detail['msg']}" for detail in error.errors(include_url=False)]
        raise click.UsageError("; ".join(problems)) from None
