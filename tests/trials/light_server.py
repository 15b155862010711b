"""The cluster's server with bots that are light, so that a trial can have many: ``light_server.py FOLDER PORT``."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path

import uvicorn

from ape_silverback.cluster.types import RestartPolicy
from ape_silverback.server.__main__ import hold_lock
from ape_silverback.server.app import make_app
from ape_silverback.server.bounds import BoundedConnections, raise_file_limit
from ape_silverback.server.runtimes.process import ProcessRuntime
from ape_silverback.server.store import Store
from ape_silverback.server.supervisor import Supervisor

KEY = "the-key"

BOT = """
import fcntl, os, sys, time
kind, bot = sys.argv[1], os.environ["_SILVERBACK_BOT"]
witness = os.path.join(os.path.dirname(os.path.abspath(__file__)), "witness")
lock = open(os.path.join(witness, bot + ".lock"), "w")
said = open(os.path.join(witness, bot), "a", buffering=1)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    said.write("TWICE\\n")
said.write(f"{os.getpid()}\\n")
print("INFO:     Startup complete", flush=True)
number = 0
if kind == "burst":
    for _ in range(200):
        os.write(1, (b"x" * 99 + b"\\n") * 600)
    kind = "beat"
while kind == "beat":
    number += 1
    print(f"INFO:     beat {os.getpid()} {number}", flush=True)
    time.sleep(0.05)
begun, lines = time.monotonic(), (b"x" * 99 + b"\\n") * 640
while kind == "flood":
    left = lines
    while left:
        left = left[os.write(1, left):]
    number += len(lines)
    time.sleep(max(begun + number / 20e6 - time.monotonic(), 0))
while True:
    time.sleep(3600)
"""


def prepare(folder: Path) -> None:
    """Make the project of the bots."""
    (folder / "bots").mkdir(parents=True)
    (folder / "witness").mkdir()
    (folder / "process.py").write_text(BOT)
    for kind in ("beat", "burst", "flood", "rest"):
        (folder / "bots" / f"{kind}.py").touch()


def main(folder: Path, port: int) -> None:
    """Serve; SIGUSR1 shows what all threads are at."""
    faulthandler.register(signal.SIGUSR1)
    os.umask(0o077)
    raise_file_limit()
    (folder / "kept").mkdir(exist_ok=True)
    hold_lock(folder / "kept")
    command = (sys.executable, "-I", "-S", str(folder / "process.py"))
    runtime = ProcessRuntime(folder / "kept" / "bots", command)
    restart = RestartPolicy(backoff=0.1, max_backoff=0.5, max_restarts=1000)
    supervisor = Supervisor(Store(folder / "kept"), runtime, lambda _: {}, stop_grace=3.0, restart=restart)
    app = make_app(supervisor, KEY)
    uvicorn.run(app, port=port, http=BoundedConnections, log_level="warning", access_log=False, ws="none")
    runtime.close()
    supervisor.store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
