"""``ape silverback doctor``: what keeps deployments from working on this machine, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import click

from ape_silverback.cli.shared.options import cluster_options, format_option
from ape_silverback.cli.shared.output import messages_on_stderr, show
from ape_silverback.cli.shared.terminal import echo, echo_text, style
from ape_silverback.plurals import plural

COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "skipped": "bright_black"}


@click.command()
@click.option(
    "--report", "as_report", is_flag=True, help="Write a text for a bug report, in Markdown and without secrets."
)
@format_option
@cluster_options
def doctor(as_report: bool, format_: str, profile: str | None, cluster: str | None) -> None:
    """Check versions, configuration, bots, profile, login, cluster, clock, chains, container engine and files.

    Each line is ok, a warning or an error with its cure, or skipped, since a check that it rests on has an error. Exit
    code 1 if there is an error. Changes nothing.

    \b
    Example:
        ape silverback doctor
        ape silverback doctor --report
    """
    from ape_silverback.doctor import examine, report

    with messages_on_stderr():
        findings = examine(Path.cwd(), profile, cluster)
    if as_report:
        echo_text(report(findings))
        return

    def text() -> None:
        width = max(len(one.check) for one in findings)
        for one in findings:
            first, *more = one.text.splitlines() or [""]
            echo(f"{style(f'{one.outcome:<7}', fg=COLOURS[one.outcome])}  {one.check:<{width}}  {first}")
            for line in [*more, *(one.cure or "").splitlines()]:
                echo(f"{'':<{width + 11}}{style(line, dim=True)}")

    show([one.model_dump(mode="json") for one in findings], format_, text)
    if errors := sum(one.outcome == "error" for one in findings):
        raise click.ClickException(f"{plural(errors, 'error')} found")
