"""A cluster's server for the conformance tests: ``python -m tests.engines.served FOLDER PORT``.

It is what ``up`` starts, but for shorter waits, and processes run ``bot.sh`` in place of the bot SDK, as images do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from ape_silverback.cluster.types import RestartPolicy
from ape_silverback.server.app import make_app
from ape_silverback.server.runtimes import Limits
from ape_silverback.server.runtimes.process import ProcessRuntime
from ape_silverback.server.serving import supervisor_of
from tests.engines.engine import BOT

KEY = "the-key"
MEMORY = 64 * 1024 * 1024
"""Bytes that a bot may use."""


def main(folder: Path, port: int) -> None:
    supervisor = supervisor_of(folder, lambda: f"http://127.0.0.1:{port}", KEY)
    if isinstance(supervisor.runtime, ProcessRuntime):
        supervisor.runtime.command = ("/bin/sh", str(BOT), "run")
    supervisor.poll, supervisor.ready_after = 0.1, 20.0
    supervisor.stop_grace = supervisor.remove_grace = 1.5
    supervisor.limits = Limits(memory=MEMORY)
    supervisor.restart = RestartPolicy(policy="never")  # but for bots that have their own
    uvicorn.run(make_app(supervisor, KEY), host="127.0.0.1", port=port, log_level="warning", ws="none")
    supervisor.runtime.close()
    supervisor.store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
