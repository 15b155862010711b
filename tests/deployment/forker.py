"""Deploys in a process of its own each time it is told to, which the test kills: `python forker.py URL FOLDER`.

Reads lines from stdin, `STATE`, forks a child that deploys this state, and prints its process id; a line after that
waits for the child, and prints its exit code. Forking from a process that has deployed once, and so has imported and
built all that it takes, saves a second a time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.deployment.apply import ApplyOptions
from ape_silverback.deployment.plan import PlanOptions
from ape_silverback.deployment.state import LocalState
from ape_silverback.project.desired import DesiredState
from tests.deployment.conftest import QUICK, bot, deployer_with_file, wanted
from tests.server.machine import KEY

STATES = 4


def state(number: int) -> DesiredState:
    """Return one of some states that differ in everything that can differ."""
    network = ("mainnet", "sepolia")[number % 2]
    groups = {"rpc": ("X",) if number % 2 else ("X", "Y")}
    bots = [bot("steady", environment=("rpc",)), bot("changing", network=network)]
    if number in (1, 2):
        bots.append(bot("sometimes", environment=("rpc", "db"), account="me" if number == 1 else None))
        groups["db"] = ("Z",)
    bots.append(bot("new" if number >= 2 else "old", renamed_from=("old",) if number >= 2 else ("new",)))
    return wanted(*bots, **groups)


def values(number: int) -> dict[str, str]:
    """Return the values that a deployment of a state sends."""
    return {name: f"{name}-{number}" for name in "XYZ"}


def deploy(url: str, folder: Path, number: int) -> bool:
    """Deploy a state, with everything of earlier ones removed and all values sent."""
    with ClusterClient(base_url=url, headers={"X-API-Key": KEY}) as client:
        deployer = deployer_with_file(client, folder)
        with deployer.lock():
            plan_options = PlanOptions(prune=True, push_variables=True)
            local = LocalState(dict.fromkeys(values(number), "key:value"))
            plan = deployer.plan(state(number), local, plan_options)
            events = list(deployer.apply(plan, values(number), ApplyOptions(timing=QUICK)))
    return not [event for event in events if event.kind in ("failed", "skipped")]


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    assert deploy(url, folder, 0)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(0 if deploy(url, folder, int(line)) else 1)
        print(child, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
