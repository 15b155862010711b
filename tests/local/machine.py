"""A runtime whose processes do what a test says: a model of an operating system, for what would take too many bots."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ape_silverback.local.runtimes import ImageError, Observation


@dataclass
class Process:
    started: datetime
    alive: bool = True
    ready: bool = False
    stubborn: bool = False
    exit_code: int | None = None


class Machine:
    """A runtime whose processes do what the test says."""

    name = "machine"

    def __init__(self) -> None:
        self.processes: dict[uuid.UUID, Process] = {}
        self.broken = False
        self.stubborn = False

    def check(self, image: str) -> None:
        pass

    def start(self, bot: uuid.UUID, image: str, variables: Mapping[str, str]) -> None:
        assert bot not in self.processes or not self.processes[bot].alive, "two processes of one bot"
        if self.broken:
            raise ImageError("the folder is gone")
        self.processes[bot] = Process(datetime.now(timezone.utc), stubborn=self.stubborn)

    def observe(self, bot: uuid.UUID) -> Observation:
        process = self.processes.get(bot)
        if process is None:
            return Observation(alive=False)
        return Observation(process.alive, process.ready, process.started, process.exit_code)

    def end(self, bot: uuid.UUID, code: int | None) -> None:
        process = self.processes.get(bot)
        if process and process.alive:
            process.alive, process.exit_code = False, code

    def stop(self, bot: uuid.UUID) -> None:
        if bot in self.processes and not self.processes[bot].stubborn:
            self.end(bot, 0)

    def kill(self, bot: uuid.UUID) -> None:
        self.end(bot, 137)

    def discard(self, bot: uuid.UUID) -> None:
        self.processes.pop(bot, None)

    def log_file(self, bot: uuid.UUID) -> Path:
        return Path(os.devnull)
