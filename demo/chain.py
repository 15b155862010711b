"""A real EVM node for the demo and the tests: anvil, started on a free port and stopped again."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

TOOLS = Path(__file__).parents[1] / ".tools"
CHAIN_ID = 1337
"""What Ape expects of ``ethereum:local``."""


def find_anvil() -> Path | None:
    """Find the node: the variable ANVIL_BIN, then what ``make`` installed, then the search path.

    The npm package's own command is a wrapper around a child process, which would outlive it: the binary is taken.
    """
    if given := os.environ.get("ANVIL_BIN"):
        return Path(given)
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine().lower()]
    installed = TOOLS / f"node_modules/@foundry-rs/anvil-{platform.system().lower()}-{machine}/bin/anvil"
    if installed.exists():
        return installed
    found = shutil.which("anvil")
    return Path(found) if found else None


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_anvil(
    anvil: Path,
    block_time: float = 1.0,
    timeout: float = 30.0,
    port: int | None = None,
    chain_id: int = CHAIN_ID,
    options: Sequence[str] = (),
) -> Iterator[str]:
    """Run a chain for as long as the context lasts; gives its URL.

    Args:
        anvil: the node.
        block_time: seconds between two blocks.
        timeout: seconds that it gets to answer.
        port: to listen on; by default a free one.
        chain_id: what it says it is.
        options: more options of the node.

    Raises:
        RuntimeError: it didn't answer in time.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    usual = ("--chain-id", str(chain_id), "--port", str(port), "--block-time", f"{block_time:g}", "--silent")
    with subprocess.Popen([anvil, *usual, *options], stdin=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + timeout
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"anvil didn't answer at {url}")
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(url: str) -> bool:
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}'
    try:
        with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=2):
            return True
    except (URLError, OSError):
        return False
