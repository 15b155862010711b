"""The process between the server and a bot: it notices the end of the bot whenever that comes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ape_silverback.server.runtimes.process import SHIM
from ape_silverback.server.runtimes.shim import END_OF_ORDER

SLOW = """
import sys, time
sys.path.insert(0, sys.argv[1])
import shim
sys.setprofile(lambda frame, event, argument: time.sleep(0.01) if event == "c_call" else None)
shim.main(sys.argv[2])
"""
"""The shim on a machine on which everything takes long, so that what seldom comes in between does."""

QUIET = """
import os, sys, time
os.close(1)
os.close(2)
time.sleep(float(sys.argv[1]))
os._exit(2)
"""
"""A bot whose output ends a moment before it does, as that of every process does."""


def test_a_bot_that_ends_at_any_moment_after_its_output_is_seen_to_end(tmp_path: Path) -> None:
    shims = {}
    for delay in range(0, 60, 4):  # milliseconds; the shim takes 10 for each step
        folder = tmp_path / str(delay)
        folder.mkdir()
        command = [sys.executable, "-I", "-S", "-c", QUIET, str(delay / 1000)]
        order = ["5", "100000", "", "/", str(len(command)), *command, "A=b"]
        shims[folder] = shim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", "-c", SLOW, SHIM.parent, folder], stdin=subprocess.PIPE
        )
        assert shim.stdin
        shim.stdin.write(b"\0".join([*map(str.encode, order), END_OF_ORDER]))
        shim.stdin.close()
    deadline = time.monotonic() + 30
    try:
        while (left := [shim for shim in shims.values() if shim.poll() is None]) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            pytest.fail(f"{len(left)} of {len(shims)} wait for a bot that has ended")
    finally:
        for shim in shims.values():
            shim.kill()
    assert [json.loads((folder / "run.json").read_text())["code"] for folder in shims] == [2] * len(shims)
