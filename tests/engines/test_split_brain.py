"""A swarm whose worker is cut off for a moment while it lives; `make trials` has the long version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.engine import missing
from tests.engines.nodes import Nodes, two_nodes
from tests.engines.split_brain import prepared

pytestmark = pytest.mark.xdist_group("split-brain")


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if reason := missing():
        pytest.skip(reason)
    with two_nodes(heartbeat=1.0) as made:
        yield made


def test_a_signer_that_is_cut_off_stays_the_only_one_and_is_moved_when_its_node_is_lost(
    nodes: Nodes, tmp_path: Path, home: Path, project: Path
) -> None:
    with prepared(nodes, tmp_path / "cluster", home, project, cut_for=0.0, settle=0.0, watchers=("watch",)) as (
        play,
        client,
    ):
        play.cut_and_mend(client)
        play.lose(client)
