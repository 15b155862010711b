"""Compares our commands with the public ones, shows how they grow with the bots, and writes ``results.md``.

Both sides run alternately against one cluster, the local cluster's application with bots that aren't processes. Ratios
are those of processor time, which carry over to other machines; seconds don't.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from ape_silverback.cluster.client import ClusterClient
from benchmarks.deploy import deployments
from benchmarks.measure import Costs, imports, measured, program, shown
from benchmarks.server import answers, rest
from tests.server.machine import KEY, Cluster, serving_cluster

BOTS = 20
LINES = 100_000
SIZES = (1, 10, 100, 250)
RESULTS = Path(__file__).with_name("results.md")
SECTION = """\
name: many
silverback:
  network: ethereum:mainnet:node
  registry: ghcr.io/me
"""

OURS = (program("ape"), "silverback", "cluster")
PUBLIC = (program("silverback"), "cluster")
DEFAULT_NETWORK = """\
from ape import networks
network = networks.default_ecosystem.default_network
print(network.name, network.default_provider_name)
"""
"""What Ape itself needs to know a project's default network."""

COMPARED: dict[str, tuple[tuple[str, ...], tuple[str, ...], float | None]] = {
    "cluster --help, to `ape --version`": ((*OURS, "--help"), (program("ape"), "--version"), 1.15),
    "plan of one bot, to Ape's default network": (
        (*OURS, "plan", "bot0"),
        (program("python"), "-c", DEFAULT_NETWORK),
        1.1,
    ),
    "plan of one bot, to `ape networks list`": ((*OURS, "plan", "bot0"), (program("ape"), "networks", "list"), None),
    "bots list": ((*OURS, "bots", "list"), (*PUBLIC, "bots", "list"), 0.22),
    f"bots logs, {LINES:,} lines": ((*OURS, "bots", "logs", "bot0"), (*PUBLIC, "bots", "logs", "bot0"), 0.3),
    "bots info": ((*OURS, "bots", "info", "bot0"), (*PUBLIC, "bots", "info", "bot0"), None),
    "vars list": ((*OURS, "vars", "list"), (*PUBLIC, "vars", "list"), None),
    "health": ((*OURS, "health"), (*PUBLIC, "health"), None),
}
"""What is compared → our command, the other one, and the ratio that is wanted."""

GROWING = {
    "deploy, new": ("deploy", "--yes"),
    "deploy, nothing to do": ("deploy", "--yes"),
    "plan": ("plan",),
    "bots list": ("bots", "list"),
    "status": ("status",),
}
"""What grows → our command, in the order in which they run."""


def main() -> None:
    """Run all of it, print the tables and write them down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="Rounds of each comparison, after a warm-up. [10]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="File to write. [benchmarks/results.md]")
    options = parser.parse_args()
    text = "\n".join(
        [
            "# Benchmarks",
            "",
            f"`make bench`: ape-silverback {version('ape-silverback')}, silverback {version('silverback')}, eth-ape "
            f"{version('eth-ape')}, Python {platform.python_version()}, {os.cpu_count()} processors, load "
            f"{os.getloadavg()[0]:.1f} before it.",
            "",
            f"## Against the public command line, {BOTS} bots, {options.rounds} rounds",
            "",
            *compare(options.rounds),
            "",
            "## What a plan of one bot adds to Ape's default network",
            "",
            *parts_of_plan(),
            "",
            "## Growing with the bots",
            "",
            *grow(),
            "",
            "## A deployment of 250 bots, 50 ms an answer",
            "",
            *deployments(),
            "",
            "## The server",
            "",
            *answers(),
            "",
            *rest(),
            "",
        ]
    )
    options.out.write_text(text, encoding="utf8")
    print(f"\nWrote {options.out}.")


def compare(rounds: int) -> Iterator[str]:
    """Yield a table of the comparisons, and print each row when it is there."""
    yield from shown(
        "| command | ratio | wanted | requests, ours | public | ours, s | ± | public, s | ± |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    )
    with clusters(BOTS) as (cluster, folder, environment):
        with ClusterClient(base_url=cluster.url, headers={"X-API-Key": KEY}) as client:
            for number in range(BOTS):
                client.new_bot(f"bot{number}", "a/b:1", "ethereum", "mainnet", "node")
        lines = (f"2026-01-01T00:00:00+00:00 INFO:     Handled block {line} of the chain" for line in range(LINES))
        cluster.log("bot0", *lines)
        for name, (ours, public, wanted) in COMPARED.items():
            runs = [
                [measured(command, folder, environment, cluster.requests) for command in (ours, public)]
                for _ in range(rounds + 1)
            ]
            mine, other = (Costs(side) for side in zip(*runs[1:], strict=True))
            yield from shown(
                f"| {name} | {mine.cpu / other.cpu:.2f} | {wanted or ''} | {mine.requests} | {other.requests} | "
                f"{mine.cpu:.2f} | {mine.spread:.0%} | {other.cpu:.2f} | {other.spread:.0%} |"
            )


def parts_of_plan() -> Iterator[str]:
    """Yield a table of what a plan does besides what Ape does to say its default network."""
    plan, alone = (*OURS, "plan", "bot0"), (program("python"), "-c", DEFAULT_NETWORK)
    yield from shown("| part | modules | ms of imports |", "| --- | --- | --- |")
    with clusters(BOTS) as (_, folder, environment):
        taken, base = (imports(command, folder, environment) for command in (plan, alone))
    added = {name: seconds for name, seconds in taken.items() if name not in base}
    rooms: dict[str, list[float]] = defaultdict(list)
    for name, seconds in added.items():
        package, _, rest = name.partition(".")
        rooms[f"{package}.{rest.partition('.')[0]}" if package == "ape_silverback" and rest else package].append(
            seconds
        )
    for room, each in sorted(rooms.items(), key=lambda item: -sum(item[1])):
        if sum(each) > 0.002:
            yield from shown(f"| {room} | {len(each)} | {sum(each) * 1000:.0f} |")
    yield from shown(
        f"| all of it | {len(added)} | {sum(added.values()) * 1000:.0f} |",
        f"| Ape alone | {len(base)} | {sum(base.values()) * 1000:.0f} |",
    )


def grow() -> Iterator[str]:
    """Yield a table of what our commands cost with more bots, and print each row when it is there."""
    headings = [*(f"{size} bots: requests" for size in SIZES), *(f"{size}: s" for size in SIZES)]
    yield from shown(f"| command | {' | '.join(headings)} |", f"| --- |{' --- |' * len(headings)}")
    costs = {size: dict(growth(size)) for size in SIZES}
    for name in GROWING:
        requests = " | ".join(str(costs[size][name].requests) for size in SIZES)
        seconds = " | ".join(f"{costs[size][name].cpu:.2f}" for size in SIZES)
        yield from shown(f"| {name} | {requests} | {seconds} |")


def growth(size: int) -> Iterator[tuple[str, Costs]]:
    """Yield what each command costs with some bots."""
    with clusters(size) as (cluster, folder, environment):
        for name, arguments in GROWING.items():
            rounds = 1 if name == "deploy, new" else 3
            runs = [measured((*OURS, *arguments), folder, environment, cluster.requests) for _ in range(rounds)]
            yield name, Costs(runs)


@contextmanager
def clusters(bots: int) -> Iterator[tuple[Cluster, Path, dict[str, str]]]:
    """Serve a cluster and make a project with some bots; gives both and the environment of a user of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bots").mkdir()
        for number in range(bots):
            (folder / "bots" / f"bot{number}.py").touch()
        (folder / "ape-config.yaml").write_text(SECTION)
        with serving_cluster(folder) as cluster:
            profile = folder / ".silverback" / "profile.toml"
            profile.parent.mkdir()
            profile.write_text(
                f'default-profile = "here"\n[auth]\n[profile.here]\nhost = "{cluster.url}"\napi-key = "{KEY}"\n'
            )
            yield cluster, folder, {**os.environ, "HOME": name, "APE_DATA_FOLDER": f"{name}/.ape"}


if __name__ == "__main__":
    main()
