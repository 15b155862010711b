"""Runs each bot as a process of this machine: ``silverback run`` in the project's folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO
from uuid import UUID

from ape_silverback.project.discovery import find_bot_module, split_project_image
from ape_silverback.server.processes import boot_id, lock_holder, memory_of, on_cores, read_json, with_variable
from ape_silverback.server.runtimes import (
    GONE,
    Capabilities,
    EngineError,
    ImageError,
    Observation,
    Run,
    RuntimeSettings,
    State,
)
from ape_silverback.server.runtimes.cgroups import end_members, make_group, members, remove_group
from ape_silverback.server.runtimes.shim import BUSY, END_OF_ORDER, LOG_BOUND, NO_ORDER

SDK = (sys.executable, "-c", "from ape_silverback.server.runtimes.sdk import main; main()")
"""The bot SDK's own command, run by the interpreter that runs the server."""

SHIM = Path(__file__).with_name("shim.py")

INHERITED = re.compile(
    r"HOME|PATH|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|APE_DATA_FOLDER"
    r"|(?i:https?_proxy|all_proxy|no_proxy)"
)
"""What a bot gets of the server's environment. All else it has to be given, as on any cluster."""

BOT_VARIABLE = "_SILVERBACK_BOT"
"""Holds the bot's id in all processes of a bot, so that they are found wherever they went."""

WORK_VARIABLE = "_SILVERBACK_WORK"
"""Holds the bot's work folder."""

KILL_AGAIN = 2.0
"""Seconds after which a shim that doesn't end its bot is killed itself."""


class ProcessRuntime:
    """Bots as processes, each behind a shim that outlives the server.

    What is known of a run lies in the bot's folder, where the shim writes it, so there is no state to keep elsewhere. A
    bot runs for as long as its shim holds the lock there; one whose shim was killed runs until nothing that it started
    is left.

    Args:
        folder: where each bot has a folder with its log and what is known of its run.
        command: how a bot is run; the module is appended.
        log_bound: bytes of a bot's log.
        allowed: folders that projects have to be in; none for any.
        groups: whether bots get control groups where this machine lets us make them.
    """

    name = "process"
    capabilities = Capabilities()

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = SDK,
        *,
        log_bound: int = LOG_BOUND,
        allowed: Sequence[Path] = (),
        groups: bool = True,
    ) -> None:
        self.folder = folder
        self.command = tuple(command)
        self.log_bound = log_bound
        self.groups = groups
        self.allowed = tuple(path.resolve() for path in allowed)
        self._children: dict[UUID, subprocess.Popen[bytes]] = {}
        self._killed: dict[UUID, float] = {}
        self._closed = threading.Event()

    @classmethod
    def settle(cls, options: Mapping[str, str]) -> dict[str, str]:
        """Return the options: the environment adds none."""
        return dict(options)

    @classmethod
    def create(cls, settings: RuntimeSettings) -> ProcessRuntime:
        """Return the runtime of a cluster.

        Its option is ``allow``: folders that projects have to be in, separated as in ``PATH``.
        """
        options = settings.options
        allowed = [Path(one) for one in options.get("allow", "").split(os.pathsep) if one]
        return cls(settings.folder, log_bound=settings.log_size, allowed=allowed)

    def check(self, image: str) -> None:
        """Check that an image names a folder of this machine with that bot in it.

        Raises:
            ImageError: it doesn't.
        """
        self._project_bot(image)

    def start(self, run: Run, state: State) -> State:
        """Start a bot.

        Raises:
            ImageError: the image can't be run.
            EngineError: processes of its last run are still there.
        """
        project, module = self._project_bot(run.image)
        self._check_alone(run.bot)
        folder = self._folder(run.bot)
        work = self.work_folder(run.bot)
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "run.json").unlink(missing_ok=True)
        inherited = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
        variables = {**inherited, "PYTHONUNBUFFERED": "1", **run.variables}
        variables |= {BOT_VARIABLE: str(run.bot), WORK_VARIABLE: str(work)}
        command = [*self.command, module]
        order = [str(project), str(len(command)), *command]
        order += [f"{name}={value}" for name, value in variables.items()]
        if any("\0" in part for part in order):
            raise ImageError("a value for its environment contains a NUL character")
        order = [str(run.stop_grace), str(self.log_bound), str(self._make_group(run.bot) or ""), *order]
        content = b"\0".join([*map(os.fsencode, order), END_OF_ORDER])
        with _handed(content) as handed, on_cores(run.cores, of=str(self.folder)):
            # The shim gets the bot's variables as data: none of them, such as LD_PRELOAD, applies to itself. A locale
            # would only take memory.
            self._children[run.bot] = subprocess.Popen(
                [sys.executable, "-I", "-S", "-E", SHIM, folder],
                cwd="/",
                env={"LC_ALL": "C"},
                stdin=handed,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._killed.pop(run.bot, None)
        return {}

    def poll(self, bots: Mapping[UUID, State]) -> dict[UUID, Observation]:
        """Return how the latest run of each of these bots is."""
        return {bot: self._observe(bot) for bot in bots}

    def stop(self, bot: UUID, state: State) -> None:
        """Ask a bot to end, which its shim does, and ends it after its grace."""
        self._send(bot, signal.SIGTERM)

    def kill(self, bot: UUID, state: State) -> None:
        """End a bot, and all that it started, at once."""
        first = self._killed.setdefault(bot, time.monotonic())
        if time.monotonic() - first < KILL_AGAIN:
            self._send(bot, signal.SIGUSR1)
        else:  # for example, the shim was stopped with SIGSTOP
            self._send(bot, signal.SIGKILL)
            self._end_left(bot)

    def discard(self, bot: UUID, state: State) -> None:
        """Delete a bot's folder."""
        self._reap(bot)
        if group := self._group(bot):
            remove_group(group)
        shutil.rmtree(self._folder(bot), ignore_errors=True)

    def log_file(self, bot: UUID) -> Path:
        """Return the base of a bot's log; ``.1``, ``.2`` and so on are its files."""
        return self._folder(bot) / "log"

    def work_folder(self, bot: UUID) -> Path:
        """Return the bot's work folder."""
        return self._folder(bot) / "work"

    def memory(self, bots: Iterable[UUID]) -> int:
        """Return how many bytes of memory bots use, with all that they started; what processes share counts once."""
        return sum(memory_of(pid) for bot in bots for pid in self._left(bot))

    def listen(self, changed: Callable[[], None]) -> bool:
        """Call a function whenever a shim has written down something new; True, since that can be relied on.

        Only the end of a shim that was killed has to be looked for.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        events = self.folder / "events"
        with suppress(FileExistsError):
            os.mkfifo(events, 0o600)
        handle = os.open(events, os.O_RDWR | os.O_CLOEXEC)  # for writing too, so that it is never at its end
        threading.Thread(target=self._listen, args=(handle, changed), name="events", daemon=True).start()
        return True

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        with suppress(OSError):
            handle = os.open(self.folder / "events", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(handle, b"\n")
            os.close(handle)

    def _listen(self, handle: int, changed: Callable[[], None]) -> None:
        try:
            while os.read(handle, 4096) and not self._closed.is_set():
                changed()
        finally:
            os.close(handle)

    def _project_bot(self, image: str) -> tuple[Path, str]:
        """Return the folder that an image names and what ``silverback run`` takes to run its bot.

        Raises:
            ImageError: it isn't ``project:FOLDER#MODULE``, this cluster may not run that folder, or it has no such bot.
        """
        cant = f"'{image:.200}' can't be run here"
        parts = split_project_image(image)
        if parts is None:
            raise ImageError(f"{cant}: this cluster runs bots as processes, from images 'project:FOLDER#MODULE'")
        folder, module = parts
        try:
            if not folder.is_dir():
                raise ImageError(f"{cant}: no folder {folder}")
            if self.allowed:
                folder = folder.resolve()  # run what was looked at: a link can be changed meanwhile
                if not any(folder.is_relative_to(one) for one in self.allowed):
                    raise ImageError(f"{cant}: this cluster runs projects in {', '.join(map(str, self.allowed))} only")
            found = find_bot_module(folder, module)
        except (OSError, ValueError) as error:  # a path that the system refuses to look at
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"{cant}: {error}") from None
        if found is None:
            raise ImageError(f"{cant}: {folder} has no bot '{module}'")
        return folder, found.argument

    def _observe(self, bot: UUID) -> Observation:
        folder = self._folder(bot)
        holder = lock_holder(folder / "lock")
        run = read_json(folder / "run.json") or {}
        started, ended = _time(run.get("started")), _time(run.get("ended"))
        ready, code = run.get("ready") is True, run.get("code")
        failed = self._reap(bot)
        if holder is not None:
            return Observation(True, ready, started)
        if ended and isinstance(code, int):
            return Observation(False, ready, started, code, ended)
        if bot in self._children:  # it is about to take the lock
            return Observation(True)
        if not run and failed not in (None, 0):
            return Observation(False, failure=_shim_text(failed or 1))
        if not folder.exists():
            return GONE
        if run.get("boot") not in (None, boot_id()):
            return Observation(False, ready, started, interrupted=True, note="its machine went down")
        if self._end_left(bot):  # the shim was killed: what it leaves behind still runs
            return Observation(True, False, started)
        if group := self._group(bot):
            remove_group(group)
        return Observation(False, ready, started, 128 + signal.SIGKILL if run else None)

    def _reap(self, bot: UUID) -> int | None:
        """Return how the shim that this process started has ended, if it has; None too for other ones."""
        child = self._children.get(bot)
        if child is None or child.poll() is None:
            return None
        del self._children[bot]
        return child.returncode

    def _check_alone(self, bot: UUID) -> None:
        """Check that nothing of a bot's former run is left, so that no account is used twice at once.

        Raises:
            EngineError: there is something.
        """
        if self._observe(bot).alive:
            raise EngineError("its last run hasn't ended")
        if left := self._left(bot):
            raise EngineError(f"processes of its last run are still there: {', '.join(map(str, sorted(left)))}")
        if child := self._children.pop(bot, None):
            child.wait(KILL_AGAIN)

    def _end_left(self, bot: UUID) -> bool:
        """End what is left of a bot whose shim is gone, and return whether there was anything."""
        left = self._left(bot)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left and (group := self._group(bot)):
            end_members(group)  # at once, so that none can start another one meanwhile
        return bool(left)

    def _left(self, bot: UUID) -> set[int]:
        """Return the processes of a bot, wherever they went."""
        group = self._group(bot)
        return {*with_variable(f"{BOT_VARIABLE}={bot}"), *(members(group) if group else ())}

    def _make_group(self, bot: UUID) -> Path | None:
        """Make a control group for a bot where that can be done, and write down where it is for the next server."""
        file = self._folder(bot) / "cgroup"
        file.unlink(missing_ok=True)
        if not self.groups or (group := make_group(bot)) is None:
            return None
        try:
            file.write_text(str(group))
        except OSError:  # one that the next server can't find is of no use
            file.unlink(missing_ok=True)
            return None
        return group

    def _group(self, bot: UUID) -> Path | None:
        try:
            return Path((self._folder(bot) / "cgroup").read_text())
        except (OSError, ValueError):
            return None

    def _send(self, bot: UUID, number: signal.Signals) -> None:
        """Send a signal to a bot's shim: to the process that holds the lock, so it is never another one."""
        if holder := lock_holder(self._folder(bot) / "lock"):
            with suppress(ProcessLookupError):
                os.kill(holder, number)
        elif child := self._children.get(bot):  # it hasn't taken the lock yet, and runs nothing
            child.send_signal(signal.SIGKILL if number is signal.SIGUSR1 else number)

    def _folder(self, bot: UUID) -> Path:
        return self.folder / str(bot)


@contextmanager
def _handed(content: bytes) -> Iterator[IO[bytes]]:
    """Open a file with this content that is in no folder: it holds secrets, and its reader may come late."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("order"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    with file:
        file.write(content)
        file.seek(0)
        yield file


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(timezone.utc)
    except ValueError:
        return None


def _shim_text(code: int) -> str:
    """Return why a shim ran nothing, from its exit code."""
    if code == BUSY:
        return "its last run hasn't ended"
    if code == NO_ORDER or code < 0:
        return "the process that was to run it was killed"
    return os.strerror(code)
