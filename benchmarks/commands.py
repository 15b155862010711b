"""Times commands against the public ``silverback`` command line, in one run: ``python benchmarks/commands.py``.

The cluster is the local cluster's application with bots that are no processes. What is compared is a whole process,
from the shell's point of view; ratios carry over to other machines, seconds don't.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ape_silverback.cluster.client import ClusterClient
from tests.server.machine import KEY, serving_cluster

BOTS = 20
ROUNDS = 7
COMMANDS = ("bots list", "bots info *", "bots health *", "bots logs bot-0", "vars list", "health", "--help")


def main() -> None:
    """Run each command in turn with both, and show medians and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving_cluster(folder) as cluster:
            headers = {"X-API-Key": KEY}
            with ClusterClient(base_url=cluster.url, headers=headers) as client:
                for number in range(BOTS):
                    client.new_bot(f"bot-{number}", "a/b:1", "ethereum", "mainnet", "alchemy")
            profile = folder / ".silverback" / "profile.toml"
            profile.parent.mkdir()
            profile.write_text(
                f'default-profile = "here"\n[auth]\n[profile.here]\nhost = "{cluster.url}"\napi-key = "{KEY}"\n'
            )
            environment = {**os.environ, "HOME": name, "APE_DATA_FOLDER": f"{name}/.ape"}
            programs = {
                "ours": [str(Path(sys.executable).with_name("ape")), "silverback", "cluster"],
                "public": [str(Path(sys.executable).with_name("silverback")), "cluster"],
            }
            print(f"{'command':<20}{'ours':>8}{'public':>8}{'ratio':>7}   medians of {ROUNDS}, in seconds, {BOTS} bots")
            for command in COMMANDS:
                times: dict[str, list[float]] = {program: [] for program in programs}
                for _ in range(ROUNDS):
                    for program, words in programs.items():
                        begun = time.perf_counter()
                        subprocess.run(
                            [*words, *command.split()], cwd=folder, env=environment, capture_output=True, check=True
                        )
                        times[program].append(time.perf_counter() - begun)
                ours, public = (statistics.median(times[program]) for program in programs)
                print(f"{command:<20}{ours:>8.2f}{public:>8.2f}{ours / public:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
