"""The main job, end to end: this repository's bots on a local cluster and a real chain.

Starts a chain and a local cluster, deploys the bots, makes something happen on the chain, shows that the bots handle
it, and stops everything. Everything is temporary but the bots' own `.silverback-sessions`. Exit code 1 on any failure.

With `--docker` the bots are containers: of the Docker Engine that answers here, else of one that is started for it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil

from demo.chain import find_anvil, running_anvil

UP = ("silverback", "cluster", "up")
DEPLOY = ("silverback", "cluster", "deploy", "--yes")

PROJECT = Path(__file__).parents[1]
BOTS = ("blocks", "streams")
BLOCK = re.compile(r"Block (\d+):")
BLOCKS_TO_SEE = 2
CLUSTER = "demo/prod"
"""Cluster of the local platform that is paid for."""

PATIENCE = 60.0
"""Seconds to wait for log lines."""


class Failed(Exception):
    """The demo didn't show what it should."""


def main(*, containers: bool = False) -> int:
    """Run the demo; return its exit code."""
    started = time.monotonic()
    anvil = find_anvil()
    if anvil is None:
        print("anvil is missing: `make demo` installs it", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="ape-silverback-demo-") as folder, running_anvil(anvil) as chain:
        print(f"A chain runs at {chain}.")
        environment = {
            **os.environ,
            "HOME": folder,
            "APE_DATA_FOLDER": f"{folder}/.ape",
            "APE_FOUNDRY_HOST": chain,  # the value of the variable group that ape-config.yaml names
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        for name in [name for name in environment if name.startswith(("SILVERBACK_", "APE_SILVERBACK_"))]:
            del environment[name]
        try:
            with _engine() if containers else nullcontext() as engine:
                blocks = _show(environment | (engine or {}), chain, containers)
        except (Failed, subprocess.CalledProcessError) as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            return 1
        left = _processes_of(folder)
        if left:
            print(f"\nThe demo failed: still running: {left}", file=sys.stderr)
            return 1
    print(
        f"\nDone in {time.monotonic() - started:.0f} s: deployed {len(BOTS)} bots, running and healthy; they handled "
        f"{', '.join(f'{count} blocks ({name})' for name, count in blocks.items())} and a payment stream; a second "
        f"deploy changed nothing; {CLUSTER} was paid for, verified and deployed to; nothing is left running."
    )
    return 0


@contextmanager
def _engine() -> Iterator[dict[str, str]]:
    """Yield what leads to a Docker Engine that has an image of this environment, to build on."""
    from demo.engine import engine_here
    from demo.sdk_image import SDK_IMAGE, SDK_IMAGE_CHANGES, sdk_archive

    with engine_here() as engine:
        print(f"A Docker Engine answers at {engine.host}; this environment becomes an image to build on.", flush=True)
        engine.import_image(sdk_archive(), SDK_IMAGE, SDK_IMAGE_CHANGES)
        try:
            yield {"DOCKER_HOST": engine.host, "DOCKER_BUILDKIT": "0"}
        finally:
            engine.remove_images(SDK_IMAGE, *(f"ape-silverback-{bot}:latest" for bot in BOTS))


def _show(environment: dict[str, str], chain: str, containers: bool) -> dict[str, int]:
    """Do the main job, take everything down, and return how many blocks each bot was seen to handle."""
    runtime = ("--runtime", "docker", "--docker-network", "host") if containers else ()
    try:
        _ape(environment, *UP, *runtime, "--chain", chain, "--dev-payments")
        if containers:
            from demo.sdk_image import SDK_IMAGE

            _ape(environment, "silverback", "build", "--engine", "docker", "--base", SDK_IMAGE)
        return _deploy(environment)
    finally:
        if containers:
            _ape(environment, "silverback", "cluster", "bots", "remove", "--all", "--yes", check=False)
        _ape(environment, "silverback", "cluster", "down", check=False)


def _deploy(environment: dict[str, str]) -> dict[str, int]:
    _ape(environment, *DEPLOY)
    _pay(environment)

    logs = {name: _wait_for_log(environment, name) for name in BOTS}
    _ape(environment, "silverback", "cluster", "status")
    for name, lines in logs.items():
        print(f"\nLast log lines of {name}:")
        print("\n".join(f"  {line}" for line in lines[-8:]))
    print()
    again = _ape(environment, *DEPLOY)
    if "Nothing changed" not in again:
        raise Failed("a second deploy should change nothing")
    return {name: len({number for line in lines for number in BLOCK.findall(line)}) for name, lines in logs.items()}


def _pay(environment: dict[str, str]) -> None:
    """Pay for a cluster of the local platform, which the bot `streams` sees, verify the payment and deploy there."""
    platform = {**environment, "APE_SILVERBACK_PROFILE": "local-platform", "APE_SILVERBACK_CLUSTER": CLUSTER}
    workspace, cluster = CLUSTER.split("/")
    _ape(platform, "silverback", "cluster", "workspaces", "new", "--slug", workspace)
    _ape(platform, "silverback", "cluster", "new", workspace, "--slug", cluster)
    _ape(platform, "silverback", "cluster", "pay", "create", CLUSTER, "--time", "1 day", "--yes")
    deadline = time.monotonic() + PATIENCE
    while '"running"' not in _ape(platform, "silverback", "cluster", "list", workspace, "--format", "json", quiet=True):
        if time.monotonic() > deadline:
            raise Failed(f"{CLUSTER} doesn't run {PATIENCE:.0f} s after it was paid for")
        time.sleep(1)
    _ape(platform, "silverback", "cluster", "verify")
    _ape(platform, "silverback", "cluster", "deploy", "blocks", "--yes")
    _ape(platform, "silverback", "cluster", "bots", "remove", "blocks", "--yes")


def _wait_for_log(environment: dict[str, str], name: str) -> list[str]:
    """Return a bot's log once it shows handled blocks, and for `streams` the stream that was opened."""
    deadline = time.monotonic() + PATIENCE
    while True:
        log = _ape(environment, "silverback", "cluster", "bots", "logs", name, quiet=True)
        blocks = set(BLOCK.findall(log))
        if len(blocks) >= BLOCKS_TO_SEE and (name != "streams" or "opened by" in log):
            return [line for line in log.splitlines() if "Block " in line or "opened by" in line]
        if time.monotonic() > deadline:
            raise Failed(f"the log of {name} shows no handled blocks after {PATIENCE:.0f} s:\n{log}")
        time.sleep(1)


def _ape(environment: dict[str, str], *arguments: str, quiet: bool = False, check: bool = True) -> str:
    """Run an ``ape`` command in the project, show it unless quiet, and give what it printed."""
    if not quiet:
        print(f"\n$ ape {' '.join(arguments)}", flush=True)
    result = subprocess.run(
        [str(Path(sys.executable).with_name("ape")), *arguments],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and result.returncode:
        raise Failed(
            f"`ape {' '.join(arguments)}` ended with {result.returncode}\n{result.stdout}{result.stderr or ''}"
        )
    if not quiet:
        print(result.stdout, end="", flush=True)
    return result.stdout


def _processes_of(home: str) -> list[str]:
    """Name the processes that were started with this HOME."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("HOME") == home:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):  # it ended, or belongs to somebody else
            continue
    return found


if __name__ == "__main__":
    sys.exit(main(containers="--docker" in sys.argv))
