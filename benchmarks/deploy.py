"""A deployment of 250 bots to a server that takes 50 ms for every answer, against the public command line.

Wall time and requests of the first deployment, of a second one that changes nothing, and of one that changes and
restarts every bot. The public command line makes one bot a command: a few are run, and the rest is extrapolated. The
cluster is the local cluster's application with bots that aren't processes, in this process, so that its own work is
part of every time.
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
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import program, shown
from tests.server.machine import Cluster, serving_cluster

BOTS = 250
DELAY = 0.05
PUBLIC_BOTS = 7
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")

DEPLOY = (program("ape"), "silverback", "cluster", "deploy", "--yes", "--prune")
NEW = (program("silverback"), "cluster", "bots", "new", "--network", "ethereum:mainnet:node", "--group", "rpc")

SECTION = """\
name: many
silverback:
  network: ethereum:mainnet:node
  registry: ghcr.io/me
  environment: [rpc]
  variables:
    rpc: [RPC_KEY]
"""


def deployments() -> Iterator[str]:
    """Yield a table of the deployments, and print each row when it is there."""
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
            yield from shown("| what | seconds | requests | which |", "| --- | --- | --- | --- |")
            first, row = run("deploy, first", cluster, folder, *DEPLOY)
            yield from shown(row)
            yield from shown(run("deploy, nothing to do", cluster, folder, *DEPLOY)[1])
            yield from shown(run("deploy, all changed", cluster, folder, *DEPLOY, "--tag", "2")[1])
            public = [
                run("public, one bot", cluster, folder, *NEW, "--image", "a/b:1", f"public{number}")
                for number in range(PUBLIC_BOTS)
            ]
            median = statistics.median(seconds for seconds, _ in public)
            yield from shown(
                public[-1][1],
                "",
                f"{BOTS} bots with the public command line: {median * BOTS:.0f} s, extrapolated from the median "
                f"{median:.2f} s of {PUBLIC_BOTS}. The first deployment takes 1/{median * BOTS / first:.0f} of that.",
            )


def run(what: str, cluster: Cluster, folder: Path, *command: str) -> tuple[float, str]:
    """Run a command; return the seconds that it took, and a row that shows them.

    Raises:
        SystemExit: it failed; shows what it printed.
    """
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
    return took, f"| {what} | {took:.2f} | {len(cluster.requests)} | {detail} |"
