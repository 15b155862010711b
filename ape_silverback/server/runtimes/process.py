"""Runs each bot as a process of this machine: ``silverback run`` in the project's folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from ape_silverback.project.discovery import find_bot_module, split_project_image
from ape_silverback.server.runtimes import GONE, Capabilities, ImageError, Observation, Run, RuntimeSettings, State

SDK = (sys.executable, "-c", "from ape_silverback.server.runtimes.sdk import main; main()", "run")
"""The bot SDK's own command, run by the interpreter that runs the server."""

SHIM = Path(__file__).with_name("shim.py")

INHERITED = re.compile(
    r"HOME|PATH|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|APE_DATA_FOLDER"
    r"|(?i:https?_proxy|all_proxy|no_proxy)"
)
"""What a bot gets of the server's environment. All else it has to be given, as on any cluster."""


class ProcessRuntime:
    """Bots as processes, each behind a shim that outlives the server.

    What is known of a run lies in the bot's folder, where the shim writes it, so there is no state to keep elsewhere.

    Args:
        folder: where each bot has a folder with its log and what is known of its run.
        command: how a bot is run; the module is appended.
    """

    name = "process"
    capabilities = Capabilities()

    def __init__(self, folder: Path, command: Sequence[str] = SDK) -> None:
        self.folder = folder
        self.command = tuple(command)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    def settle(cls, options: Mapping[str, str]) -> dict[str, str]:
        """Return the options: there are none."""
        return dict(options)

    @classmethod
    def create(cls, settings: RuntimeSettings) -> ProcessRuntime:
        """Return the runtime of a cluster."""
        return cls(settings.folder)

    def check(self, image: str) -> None:
        """Check that an image names a folder of this machine with that bot in it.

        Raises:
            ImageError: it doesn't.
        """
        _project_bot(image)

    def start(self, run: Run, state: State) -> State:
        """Start a bot.

        Raises:
            ImageError: the image can't be run.
        """
        project, module = _project_bot(run.image)
        folder = self._folder(run.bot)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("run.json", "bot.json", "ready", "exit.json"):
            (folder / name).unlink(missing_ok=True)
        inherited = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", SHIM, folder, *self.command, module],
            cwd=project,
            env={**inherited, "PYTHONUNBUFFERED": "1", **run.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._children[process.pid] = process
        created = psutil.Process(process.pid).create_time()
        started = {"pid": process.pid, "created": created, "started": datetime.now(timezone.utc).isoformat()}
        draft = folder / "run.new"
        draft.write_text(json.dumps(started))
        draft.replace(folder / "run.json")
        return {}

    def poll(self, bots: Mapping[UUID, State]) -> dict[UUID, Observation]:
        """Return how the latest run of each of these bots is."""
        return {bot: self._observe(bot) for bot in bots}

    def _observe(self, bot: UUID) -> Observation:
        folder = self._folder(bot)
        run = _read(folder / "run.json")
        if run is None:
            return GONE
        started = datetime.fromisoformat(run["started"])
        alive = self._shim(run) is not None
        if ended := _read(folder / "exit.json"):
            at = datetime.fromisoformat(ended["at"].replace("Z", "+00:00"))
            return Observation(False, (folder / "ready").exists(), started, ended["code"], at)
        if not alive:  # the shim was killed, and took the bot with it
            self.kill(bot, {})
            return Observation(False, (folder / "ready").exists(), started, 128 + signal.SIGKILL, None)
        return Observation(True, (folder / "ready").exists(), started)

    def stop(self, bot: UUID, state: State) -> None:
        """Ask a bot to end: SIGTERM, which the shim passes on."""
        if (run := _read(self._folder(bot) / "run.json")) and (shim := self._shim(run)):
            shim.terminate()

    def kill(self, bot: UUID, state: State) -> None:
        """End a bot, its shim, and what they started, at once."""
        folder = self._folder(bot)
        run, there = _read(folder / "run.json"), _read(folder / "bot.json")
        if run is None:
            return
        if self._shim(run) is not None or (there and _is_in_group(there["pid"], run["pid"])):
            with suppress(ProcessLookupError):
                os.killpg(run["pid"], signal.SIGKILL)

    def discard(self, bot: UUID, state: State) -> None:
        """Delete a bot's folder."""
        shutil.rmtree(self._folder(bot), ignore_errors=True)

    def log_file(self, bot: UUID) -> Path:
        """Return the file that holds a bot's log."""
        return self._folder(bot) / "log"

    def work_folder(self, bot: UUID) -> Path:
        """Return the bot's work folder."""
        return self._folder(bot) / "work"

    def close(self) -> None:
        """Do nothing: there is no engine."""

    def end_all(self, grace: float) -> list[int]:
        """End every bot that still runs, whoever started it; give the pids of their shims.

        Args:
            grace: seconds that they have to end by themselves.
        """
        shims = {}
        for file in self.folder.glob("*/run.json"):
            if (run := _read(file)) and (shim := self._shim(run)):
                shims[UUID(file.parent.name)] = shim
        for shim in shims.values():
            shim.terminate()
        _, remaining = psutil.wait_procs(shims.values(), timeout=grace)
        for bot, shim in shims.items():
            if shim in remaining:
                self.kill(bot, {})
        return [shim.pid for shim in shims.values()]

    def _folder(self, bot: UUID) -> Path:
        return self.folder / str(bot)

    def _shim(self, run: Mapping[str, Any]) -> psutil.Process | None:
        """Give the shim of a run if it is there: the same pid could be another process by now."""
        if (child := self._children.get(run["pid"])) and child.poll() is not None:
            del self._children[run["pid"]]
        try:
            process = psutil.Process(run["pid"])
            same = abs(process.create_time() - run["created"]) < 0.01
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _project_bot(image: str) -> tuple[Path, str]:
    """Return the folder that an image names and what ``silverback run`` takes to run its bot.

    Raises:
        ImageError: it isn't ``project:FOLDER#MODULE``, or there is no such folder or bot.
    """
    parts = split_project_image(image)
    if parts is None:
        raise ImageError(
            f"'{image}' can't be run here: this cluster runs bots as processes, from images 'project:FOLDER#MODULE'"
        )
    folder, module = parts
    if not folder.is_dir():
        raise ImageError(f"'{image}' can't be run here: there is no folder {folder}")
    found = find_bot_module(folder, module)
    if found is None:
        raise ImageError(f"'{image}' can't be run here: {folder} has no bot '{module}'")
    return folder, found.argument


def _is_in_group(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return content
