"""The gate before every command that writes to a cluster or pays for one, and how verifications are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.options import connected
from ape_silverback.cli.shared.output import messages_on_stderr, show_table
from ape_silverback.cli.shared.terminal import echo, note, style, warn

if TYPE_CHECKING:
    from ape_silverback.config.models import StreamConfig
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.connect import Connection
    from ape_silverback.stream.verify import Report

COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "error": "red"}

VERDICTS = {
    "trusted": style("trusted", fg="green"),
    "untrusted": style("not trusted", fg="red"),
    "unverified": style("couldn't be verified", fg="red"),
}

no_verify_option = click.option(
    "--no-verify", is_flag=True, help="Skip the verification of the cluster's payment stream. Dangerous."
)
"""Belongs to every command that writes to a cluster or pays for one."""


def show_report(report: Report) -> None:
    """Show the checks of a stream."""
    verdict = VERDICTS[report.verdict]
    if all(check.outcome == "skip" for check in report.checks):
        verdict = "nothing to verify"
    where = ""
    if report.manager is not None:
        where = f": stream {report.stream_id} of {report.manager} on chain {report.chain_id}"
    echo(f"{style(report.cluster, bold=True)}{where}: {verdict}")
    rows: list[tuple[str, str, str]] = []
    for check in report.checks:
        rows.append((check.name, style(check.outcome, fg=COLOURS.get(check.outcome)), check.text))
        if check.outcome not in ("pass", "skip"):
            rows += [("", "", f"{key}: {value}") for key in ("expected", "found") if (value := getattr(check, key))]
    show_table(("CHECK", "", ""), rows)


def pin_hint(report: Report) -> str | None:
    """Return how to pin a manager that is trusted without a pin; None where there is nothing to pin."""
    if not report.trusted or report.outcome_of("pinned") != "skip" or report.manager is None:
        return None
    return (
        f"No StreamManager is pinned for chain {report.chain_id}: the platform and the contract's code were trusted. "
        "Pin it with `ape silverback cluster verify --pin`, or in ape-config.yaml:\n"
        f'  silverback:\n    stream:\n      managers: {{{report.chain_id}: "{report.manager}"}}'
    )


@contextmanager
def connected_for_writing(
    profile: str | None, cluster: str | None, no_verify: bool, reading: SectionReading | None = None
) -> Iterator[Connection]:
    """Connect to the cluster as ``connected`` does, and pass the gate: every command that writes starts with this."""
    from ape_silverback.config.reader import read_section

    reading = reading or read_section(Path.cwd())
    with connected(profile, cluster, reading) as connection:
        pass_gate(connection, reading.section.stream, no_verify=no_verify)
        yield connection


def pass_gate(connection: Connection, trust: StreamConfig, *, no_verify: bool, network: str | None = None) -> None:
    """Verify the payment stream of the cluster, show the result, and let the client write.

    Raises:
        StreamError: it isn't trusted or couldn't be verified, or the verification is required and was to be skipped.
        ClusterError: the platform doesn't answer which stream it has.
    """
    from ape_silverback.stream.gate import open_for_writing

    with messages_on_stderr():
        report = open_for_writing(connection, trust, verify=not no_verify, network=network)
    if report is None:
        if connection.is_platform:
            warn_unverified(connection.label, "your bots and the values of their variables")
    elif report.manager is not None:
        show_verified(report)


def warn_unverified(cluster: str, what: str) -> None:
    """Warn loudly that a stream isn't verified, and what others may get."""
    warn(f"the payment stream of {cluster} is NOT verified (--no-verify): {what} will be sent to it anyway")


def show_verified(report: Report) -> None:
    """Note in short that a stream is trusted, and what is worth knowing all the same."""
    passed = sum(check.outcome in ("pass", "warn") for check in report.checks)
    stream = "" if report.stream_id is None else f"stream {report.stream_id} of "
    note(f"Verified {report.cluster}: {stream}{report.manager}, {passed} checks passed.")
    for check in report.checks:
        if check.outcome == "warn":
            warn(f"{check.name}: {check.text}")
    if hint := pin_hint(report):
        note(hint)
