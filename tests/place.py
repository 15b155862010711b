"""A project with two bots, a home, and the real `ape` in both: what a user has."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from subprocess import CompletedProcess

from tests.conftest import run_ape

BOT = """
from ape import chain
from ape.logging import logger
from silverback import SilverbackBot

bot = SilverbackBot()

@bot.on_(chain.blocks)
def watch(block):
    logger.info(f"Saw block {block.number}")
"""

CRASHING = """
raise RuntimeError("the pool has no such token")
"""


class Place:
    """A project, a home with a running local cluster, and the real `ape` in both."""

    def __init__(self, folder: Path, anvil: str) -> None:
        self.project = folder / "project"
        self.home = folder / "home"
        self.anvil = anvil
        (self.project / "bots").mkdir(parents=True)
        self.home.mkdir()
        for name in ("left", "right"):
            (self.project / "bots" / f"{name}.py").write_text(BOT)
        self.configure()

    def configure(self, section: str = "", foundry: str | None = None) -> None:
        (self.project / "ape-config.yaml").write_text(
            f"name: pair\nethereum:\n  local:\n    default_provider: foundry\nfoundry:\n"
            f"  host: {foundry or self.anvil}\n{section}"
        )

    def ape(self, *arguments: str, **environment: str) -> CompletedProcess[str]:
        return run_ape(self.home, self.project, arguments, **environment)

    def cluster(self, *arguments: str, code: int = 0, **environment: str) -> CompletedProcess[str]:
        result = self.ape("silverback", "cluster", *arguments, **environment)
        assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
        assert "ape_silverback/cli" not in result.stderr, "a traceback of ours"
        return result

    def pid_of(self, bot: str) -> int:
        folder = self.home / ".silverback" / "local"
        with sqlite3.connect(folder / "cluster.db") as db:
            [[identity]] = db.execute("SELECT id FROM bots WHERE name = ?", (bot,)).fetchall()
        return int(json.loads((folder / "bots" / identity / "run.json").read_text())["bot"])
