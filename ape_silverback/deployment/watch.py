"""Which bots a saved file concerns, for a cluster that runs the project's folder: those that import it.

A file that isn't Python any more, in the middle of an edit say, concerns no bot until it is again.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.concurrency import CONCURRENCY
from ape_silverback.deployment.events import AGAIN, Event
from ape_silverback.deployment.restart import restart_bots
from ape_silverback.deployment.wait import Timing, wait_until_ready
from ape_silverback.exceptions import SilverbackError
from ape_silverback.project.discovery import split_project_image
from ape_silverback.project.imports import bot_code

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient
    from ape_silverback.project.desired import DesiredBot

Contents = Mapping[Path, str]
"""File → digest of what is in it."""

GATHER = 400
"""Longest time in milliseconds for which saves that follow one another are taken together."""


@dataclass(frozen=True)
class Fault:
    """Why bots can't be run with the code as it is now.

    Attributes:
        text: what is wrong, and where.
        bots: which of them.
    """

    text: str
    bots: tuple[str, ...]


@dataclass(frozen=True)
class CodeChange:
    """What was saved.

    Attributes:
        files: those that differ, by their paths in the project.
        restart: the bots that run with them, and can be restarted.
        restored: the bots whose code is again that with which they run.
        faults: why others can't be restarted.
    """

    files: tuple[str, ...]
    restart: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


class BotCode:
    """The code of bots: with what they run, and what was saved since.

    Args:
        bots: they are taken to run with the code as it is now.
    """

    def __init__(self, bots: Iterable[DesiredBot]) -> None:
        self._modules: dict[str, tuple[Path, str]] = {}
        for bot in bots:
            if split := split_project_image(bot.configuration.image):
                self._modules[bot.name] = split[0], bot.module
        self._runs = self._read()
        self._seen = dict(self._runs)
        self._known: dict[Path, str] = {}
        self._know(self._runs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bots."""
        return tuple(self._modules)

    def folders(self) -> set[Path]:
        """Return the folders that hold the code, and those where more may come."""
        files = {file.parent for contents in self._seen.values() for file in contents}
        projects = {folder for folder, _ in self._modules.values()}
        return {folder for folder in (*files, *projects, *(one / "bots" for one in projects)) if folder.is_dir()}

    def look(self) -> CodeChange | None:
        """Return what has changed since the last look; None if nothing has."""
        now = self._read()
        changed = {name: contents for name, contents in now.items() if contents != self._seen[name]}
        if not changed:
            return None
        files = {
            self._shown(name, file)
            for name in changed
            for file in self._seen[name].keys() | now[name].keys()
            if now[name].get(file) != self._known.get(file) and (file in now[name] or not file.exists())
        }
        faults: dict[str, list[str]] = {}
        restart, restored = [], []
        for name, contents in changed.items():
            if text := self._fault(name, contents):
                faults.setdefault(text, []).append(name)
            elif contents == self._runs[name]:
                restored.append(name)
            else:
                restart.append(name)
                self._runs[name] = contents
        self._seen = now
        self._know(now)
        return CodeChange(
            tuple(sorted(files)),
            tuple(restart),
            tuple(restored),
            tuple(Fault(text, tuple(names)) for text, names in faults.items()),
        )

    def _know(self, read: Mapping[str, Contents]) -> None:
        """Keep what is in each file: one that a bot doesn't import for a while hasn't changed by that."""
        for contents in read.values():
            self._known |= contents

    def _fault(self, name: str, contents: Contents) -> str | None:
        """Return why a bot can't be run with what was saved. What was there before isn't judged."""
        if not contents:
            return f"{name}: its module isn't there any more"
        before = self._runs[name]
        for file in sorted(contents):
            if contents[file] != before.get(file) and (text := syntax_error(file)):
                return f"{self._shown(name, file)}{text}"
        return None

    def _shown(self, name: str, file: Path) -> str:
        return file.relative_to(self._modules[name][0]).as_posix()

    def _read(self) -> dict[str, Contents]:
        digests: dict[Path, str] = {}
        found: dict[str, Contents] = {}
        for name, (folder, module) in self._modules.items():
            files = bot_code(folder, module)
            for file in files:
                if file not in digests:
                    try:
                        digests[file] = hashlib.sha256(file.read_bytes()).hexdigest()
                    except OSError:  # removed since, or not to be read: no code
                        continue
            found[name] = {file: digests[file] for file in files if file in digests}
        return found


def syntax_error(file: Path) -> str | None:
    """Return the line of a file that isn't Python and what is wrong there, as ``:LINE: TEXT``; None if it is Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except SyntaxError as error:
        return f":{error.lineno or 1}: {error.msg}"
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return f": {error}"
    return None


def watch_code(code: BotCode, stop: threading.Event) -> Iterator[CodeChange]:
    """Wait for changes of the code of bots, and return each.

    Only folders that hold code are watched: neither ``node_modules`` nor a virtual environment costs anything.

    Args:
        code: of the bots.
        stop: set to end, within a second.

    Raises:
        ImportError: watchfiles isn't installed.
        OSError: the system can't watch the folders.
    """
    from watchfiles import PythonFilter, watch

    while not stop.is_set():
        folders, unseen = code.folders(), True
        for saved in watch(
            *folders,
            watch_filter=PythonFilter(),
            debounce=GATHER,
            stop_event=stop,
            rust_timeout=1000,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        ):
            if saved or unseen:  # what was saved before this watch began comes with its first second
                unseen = False
                if change := code.look():
                    yield change
            if code.folders() != folders:
                break


def restart_with_code(
    client: ClusterClient, names: Iterable[str], timing: Timing, given_up: Callable[[], str | None]
) -> Iterator[Event]:
    """Start bots with the code as it is now, and wait until they run and are healthy.

    Args:
        client: client of their cluster.
        names: of the bots.
        timing: how long.
        given_up: returns why to wait no longer; None to go on.

    Raises:
        ClusterError: the cluster doesn't answer as it should.
    """
    there = client.bots
    bots = [there[name] for name in names if name in there]
    for name in names:
        if name not in there:
            yield Event("failed", name, f"no longer on the cluster; {AGAIN}")
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        stopped = [bot for bot, active in zip(bots, pool.map(_is_active, bots), strict=True) if not active]
        started = list(pool.map(_start, stopped))
    waited = []
    for event in (*started, *restart_bots(client, [bot for bot in bots if bot not in stopped], timing)):
        if event.kind == "applied":
            waited.append(event.name)
        yield event
    yield from wait_until_ready(client, waited, timing, given_up)


def _is_active(bot: Bot) -> bool:
    return bot.status is not ResourceStatus.STOPPED


def _start(bot: Bot) -> Event:
    try:
        bot.start()
    except SilverbackError as error:
        return Event("failed", bot.name, str(error))
    return Event("applied", bot.name, "started")
