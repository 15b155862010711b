"""Applying a plan at a terminal: show it, ask, show what happens and how it ended. `deploy` and `rollback` share it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.plan_text import show_plan
from ape_silverback.cli.shared.terminal import INTERRUPTED, confirm, echo, echo_text, note, safe_json

if TYPE_CHECKING:
    from ape_silverback.deployment.apply import ApplyOptions
    from ape_silverback.deployment.events import Event
    from ape_silverback.deployment.plan import Plan
    from ape_silverback.deployment.record import Source
    from ape_silverback.deployment.result import DeployResult
    from ape_silverback.deployment.session import DeploySession
    from ape_silverback.images.build import Build
    from ape_silverback.project.desired import DesiredBot

events_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"], case_sensitive=False),
    default="text",
    show_default=True,
    help="Output format; json is one event per line, as docs/userguides/output.md describes.",
)


def apply(
    session: DeploySession,
    plan: Plan,
    apply_options: ApplyOptions,
    *,
    yes: bool,
    format_: str,
    images: Sequence[DesiredBot] = (),
    build: Build | None = None,
    source: Source | None = None,
) -> None:
    """Show a plan, ask, apply it, and show what happens. The keywords are those of ``DeploySession.apply``.

    Raises:
        click.ClickException: something failed.
        click.exceptions.Exit: it was interrupted.
    """
    from ape_silverback.cli.shared.progress import progress, show_failure
    from ape_silverback.deployment.result import DeployResult
    from ape_silverback.exceptions import SilverbackError

    as_json = format_ == "json"
    if as_json:
        _show_event("plan", plan=plan.model_dump(mode="json"))
    else:
        show_plan(plan)
    result = DeployResult(plan, apply_options.wait)
    try:
        session.deployer.check_allowed(plan)
        if images:
            note(f"Images to build first: {', '.join(dict.fromkeys(bot.configuration.image for bot in images))}.")
        if unfinished := session.deployer.records.unfinished():
            note(f"The last deployment was interrupted; outcome unknown: {', '.join(unfinished)}.")
        if plan.writes:
            confirm(f"Apply this to {plan.cluster}?", yes)
        left = "Changes in flight will complete; run the same command again for the rest."
        with interruptible() as stop, progress(left) as shown:
            events = session.apply(
                plan, apply_options, images=images, build=build, stop=stop, show_line=note, source=source
            )
            with closing(events):
                for event in events:
                    result.add(event)
                    if as_json:
                        _show_event(event.kind, event)
                    else:
                        shown.show(event)
    except SilverbackError as error:
        result.error = str(error)
        raise
    finally:
        if as_json:  # always the last line, whatever happened
            _show_event("done", text=f"{result.error}; {result.text}" if result.error else result.text)
    for event in result.failures:
        show_failure(event)
    _show_result(result, as_json, stop.is_set())


def _show_result(result: DeployResult, as_json: bool, interrupted: bool) -> None:
    if interrupted:
        failed = [event.name for event in result.failures]
        for what, names in (("Done", result.written), ("Failed", failed), ("Not started", result.not_started)):
            note(f"{what}: {', '.join(dict.fromkeys(names)) or 'nothing'}.")
        note("Run the same command again for the rest.")
        raise click.exceptions.Exit(INTERRUPTED)
    result.check()
    if not as_json:
        echo(result.text if result.plan.writes else f"Nothing changed: {result.text}")


@contextmanager
def interrupts_to(handler: Callable[[int, Any], None]) -> Iterator[dict[signal.Signals, Any]]:
    """Handle SIGINT and SIGTERM for as long as the context lasts; yield the handlers of before."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield before
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Make the first interrupt end a deployment after what is in flight, and a second one at once."""
    stop = threading.Event()

    def interrupt(number: int, _: Any) -> None:
        if stop.is_set():
            signal.signal(number, before[signal.Signals(number)])
            raise KeyboardInterrupt
        stop.set()
        note("Interrupted: changes in flight will complete. Interrupt again to leave at once.")

    with interrupts_to(interrupt) as before:
        yield stop


def _show_event(kind: str, event: Event | None = None, text: str | None = None, plan: Any = None) -> None:
    from ape_silverback.cli.shared.documents import EventDocument

    document = EventDocument(event=kind, text=text, plan=plan)
    if event is not None:
        document = EventDocument(
            event=kind,
            name=event.name,
            text=event.text,
            state=str(event.status).lower() if event.status is not None else None,
            errors=list(event.errors),
            log=list(event.log),
        )
    echo_text(safe_json(document.data()))
