"""How many requests commands take on a cluster that has only what every cluster has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.server.machine import Cluster, serving_cluster

pytestmark = pytest.mark.xdist_group("requests")

MOST = {
    ("plan",): 4,
    ("deploy", "--yes"): 5,
    ("status",): 4,
    ("bots", "list"): 4,
    ("bots", "info", "bot*"): 4,
    ("bots", "info", "bot0"): 4,
    ("info",): 4,
    ("bots", "health"): 4,
    ("bots", "errors", "bot0"): 4,
}
"""Most requests of each command, once the bots are deployed."""

EACH = {("bots", "errors"): 3}
"""Likewise, beside one for each bot: what no cluster tells of several at once."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serving_cluster(tmp_path_factory.mktemp("cluster"), extensions=False) as cluster:
        yield cluster


def test_a_bot_takes_a_request_to_create_and_everything_else_takes_a_few_however_many_there_are(
    run: Run, served: Cluster, project: Path
) -> None:
    (project / "bots").mkdir()
    (project / "ape-config.yaml").write_text(
        "name: many\nsilverback:\n  network: ethereum:mainnet:node\n  registry: x.io\n"
    )

    def count(*command: str, **environment: str) -> Counter[str]:
        served.requests.clear()
        run(*command, **environment)
        return Counter(served.requests)

    for number in (1, 250):
        for name in range(number):
            (project / "bots" / f"bot{name}.py").touch()
        new = number - len(served.store.bots())
        counts = count("deploy", "--yes", **({"SILVERBACK_SETTLE": "7"} if number > 1 else {}))  # as for users
        assert counts["POST /bots"] == new
        assert counts.total() <= new + 8, counts
        totals = {command: count(*command).total() for command in MOST}
        print(
            f"\nwith {number} bots: deploy {counts.total()}",
            *(f"{' '.join(c)} {n}" for c, n in totals.items()),
            sep=", ",
        )
        assert all(totals[command] <= MOST[command] for command in MOST), totals
        for command, most in EACH.items():
            counts = count(*command)
            print(" ".join(command), counts.total())
            assert number <= counts.total() <= number + most, counts
