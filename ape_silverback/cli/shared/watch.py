"""The loop of `deploy --watch`: logs of all bots on one screen, and a restart of those that a saved file concerns."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ape_silverback.cli.shared.apply import interruptible, interrupts_to
from ape_silverback.cli.shared.log_text import log_formatter
from ape_silverback.cli.shared.progress import show_failure, show_until_stopped
from ape_silverback.cli.shared.terminal import agreed, complain, echo_lines, note

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient
    from ape_silverback.connect import Connection
    from ape_silverback.deployment.wait import Timing
    from ape_silverback.deployment.watch import BotCode, CodeChange

LINES_BEFORE = 10
"""Lines of each log that are shown of the time before."""


def check_watchable(connection: Connection) -> None:
    """Check that a saved file can reach the bots of a cluster.

    Raises:
        click.ClickException: it doesn't run this machine's files, or watchfiles isn't installed.
    """
    from importlib.util import find_spec

    from ape_silverback.transport import is_loopback

    if connection.kind() != "local" or not is_loopback(connection.client.base_url):
        raise click.ClickException(
            f"--watch needs a cluster that runs the files of this machine, and {connection.label} doesn't: "
            "`ape silverback cluster up` starts one"
        )
    if find_spec("watchfiles") is None:
        raise click.ClickException('--watch needs watchfiles: pip install "ape-silverback[server]"')


def watch(client: ClusterClient, code: BotCode, timing: Timing, on_exit: str | None) -> None:
    """Show the logs of bots, and restart those whose code is saved, until an interrupt.

    Args:
        client: client of their cluster.
        code: of the bots.
        timing: how long to wait for a bot that is restarted; it doesn't have to settle.
        on_exit: whether to ``keep`` the bots running in the end, or to ``stop`` them; None to ask.

    Raises:
        click.ClickException: there is nothing left to watch.
    """
    bots = [bot for name, bot in client.bots.items() if name in code.names]
    changes: queue.Queue[CodeChange | BaseException] = queue.Queue()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_show_logs, args=(bots, stop, changes), name="logs", daemon=True),
        threading.Thread(target=_take_changes, args=(code, stop, changes), name="files", daemon=True),
    ]
    note(f"Watching the files of {', '.join(code.names)}. Ctrl-C to quit.")
    with _ended_by_signals() as ended_by:
        try:
            for thread in threads:
                thread.start()
            while True:
                match changes.get():
                    case BaseException() as error:
                        raise error
                    case change:
                        with interruptible() as interrupted:
                            _take_over(client, change, replace(timing, settle=0), changes, interrupted)
                        if interrupted.is_set():
                            break
        except (KeyboardInterrupt, SystemExit):  # Ape makes an exit of an interrupt
            pass
        finally:
            stop.set()
            for thread in threads:
                thread.join(2)
    _end(client, code.names, timing, on_exit, ask=signal.SIGTERM not in ended_by)


def _show_logs(bots: Sequence[Bot], stop: threading.Event, changes: queue.Queue[Any]) -> None:
    """Show what bots write until the last of them is removed."""
    from ape_silverback.cluster.merged_logs import LogEnd, follow_logs

    lines_of = log_formatter(bots, "text")
    try:
        for piece in follow_logs(bots, tail=LINES_BEFORE, stop=stop):
            if not isinstance(piece, LogEnd):
                echo_lines(lines_of(piece))
            elif piece.error is not None:
                complain(f"{piece.bot.name}: its log can't be read any more: {piece.error}")
            else:
                note(f"{piece.bot.name}: no longer on the cluster")
        if not stop.is_set():
            changes.put(click.ClickException("no bot is left to watch"))
    except BaseException as error:  # noqa: BLE001 - raised where it is seen
        changes.put(error)


def _take_changes(code: BotCode, stop: threading.Event, changes: queue.Queue[Any]) -> None:
    from ape_silverback.deployment.watch import watch_code

    try:
        for change in watch_code(code, stop):
            changes.put(change)
    except OSError as error:
        changes.put(click.ClickException(f"the project's files can't be watched: {error}"))
    except BaseException as error:  # noqa: BLE001 - raised where it is seen
        changes.put(error)


def _take_over(
    client: ClusterClient,
    change: CodeChange,
    timing: Timing,
    changes: queue.Queue[Any],
    interrupted: threading.Event,
) -> None:
    """Restart the bots that a change concerns, and tell why others go on as they are."""
    from ape_silverback.deployment.watch import restart_with_code
    from ape_silverback.exceptions import ClusterError

    saved = f"{', '.join(change.files)} changed"
    for fault in change.faults:
        complain(f"{fault.text}; not restarted: {', '.join(fault.bots)}")
    if change.restored:
        note(f"{saved} back; not restarted: {', '.join(change.restored)}")
    if not change.restart:
        return
    note(f"{saved}; restarting {', '.join(change.restart)}")

    def given_up() -> str | None:
        if interrupted.is_set():
            return "interrupted"
        return None if changes.empty() else "there is a newer change"

    try:
        for event in restart_with_code(client, change.restart, timing, given_up):
            if event.kind == "failed":
                show_failure(replace(event, log=()))  # it is on the screen
            elif event.kind in ("ready", "skipped"):
                note(f"{event.name}: {event.text}")
    except ClusterError as error:
        complain(str(error))


def _end(client: ClusterClient, names: Sequence[str], timing: Timing, on_exit: str | None, *, ask: bool) -> None:
    """Stop the bots, or leave them running, as was asked for or is answered now."""
    shown = ", ".join(names)
    if sys.stderr.isatty():
        note("")  # what follows begins a line
    if on_exit is None and ask and sys.stdin.isatty() and agreed(f"Stop {shown}?"):
        on_exit = "stop"
    if on_exit != "stop":
        note(f"Still running: {shown}. To stop: ape silverback cluster bots stop {' '.join(names)}")
        return
    running = [bot for name, bot in client.bots.items() if name in names]
    for bot in running:
        bot.stop()
    if failed := show_until_stopped(client, [bot.name for bot in running], timing):
        raise click.ClickException("\n".join(f"{name}: {text}" for name, text in failed.items()))
    note(f"Stopped: {shown}.")


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Make an interrupt of the signal that ends a process, too; yield a list that takes the signal's number."""
    seen: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    with interrupts_to(interrupt):
        yield seen
