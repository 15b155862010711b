"""Deploys 250 bots to a server that takes 50 ms for every answer: ``python benchmarks/deploy.py``.

Wall time and requests of the first deployment, of a second one that changes nothing, and of one that changes and
restarts every bot; against the public command line, which makes one bot a command. Of that a few are run, and the rest
is extrapolated. The cluster is the local cluster's application with bots that are no processes, in this process, so
that its own work is part of every time. Ratios carry over to other machines, seconds don't.
"""

from __future__ import annotations

import collections
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.server.machine import Cluster, serving_cluster

BOTS = 250
DELAY = 0.05
PUBLIC_BOTS = 7
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")

SECTION = """\
name: many
silverback:
  network: ethereum:mainnet:node
  registry: ghcr.io/me
  environment: [rpc]
  variables:
    rpc: [RPC_KEY]
"""


def main() -> None:
    """Run all of it and show a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bots").mkdir()
        for number in range(BOTS):
            (folder / "bots" / f"bot{number}.py").touch()
        (folder / "ape-config.yaml").write_text(SECTION)
        with serving_cluster(folder, DELAY) as cluster:
            profile = folder / ".silverback" / "profile.toml"
            profile.parent.mkdir()
            key = cluster.environment["SILVERBACK_CLUSTER_API_KEY"]
            profile.write_text(
                f'default-profile = "here"\n[auth]\n[profile.here]\nhost = "{cluster.url}"\napi-key = "{key}"\n'
            )
            load = os.getloadavg()[0]
            print(f"{BOTS} bots, {DELAY * 1000:.0f} ms an answer, {os.cpu_count()} processors, load {load:.1f}")
            deploy = [program("ape"), "silverback", "cluster", "deploy", "--yes", "--prune"]
            first = run("deploy, first", cluster, folder, *deploy)
            run("deploy, nothing to do", cluster, folder, *deploy)
            run("deploy, all changed", cluster, folder, *deploy, "--tag", "2")
            new = [
                program("silverback"),
                "cluster",
                "bots",
                "new",
                "--network",
                "ethereum:mainnet:node",
                "--group",
                "rpc",
            ]
            times = [
                run("public, one bot", cluster, folder, *new, "--image", "a/b:1", f"public{number}")
                for number in range(PUBLIC_BOTS)
            ]
            median = statistics.median(times)
            print(
                f"public, {BOTS} bots: {median * BOTS:.0f} s, extrapolated from the median {median:.2f} s of "
                f"{PUBLIC_BOTS}; the first deployment takes 1/{median * BOTS / first:.0f} of that"
            )


def program(name: str) -> str:
    """Return where a command is."""
    return str(Path(sys.executable).with_name(name))


def run(what: str, cluster: Cluster, folder: Path, *command: str) -> float:
    """Run a command, show what it took, and give the seconds."""
    cluster.requests.clear()
    environment = {**os.environ, "HOME": str(folder), "APE_DATA_FOLDER": f"{folder}/.ape", "RPC_KEY": "x"}
    begun = time.perf_counter()
    result = subprocess.run(
        command, cwd=folder, env=environment, input="y\n", capture_output=True, text=True, check=False
    )  # the public one asks
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    took = time.perf_counter() - begun
    counts = collections.Counter(ID.sub("ID", request) for request in cluster.requests)
    detail = ", ".join(f"{count} {request}" for request, count in counts.most_common())
    print(f"{what:<24}{took:>7.2f} s {len(cluster.requests):>5} requests: {detail}", flush=True)
    return took


if __name__ == "__main__":
    main()
