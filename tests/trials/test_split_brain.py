"""A swarm whose worker is cut off for two minutes while it lives, and later lost for good: no signer runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.engine import missing
from tests.engines.nodes import Nodes, two_nodes
from tests.engines.split_brain import prepared

pytestmark = pytest.mark.trial


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if reason := missing():
        pytest.skip(reason)
    with two_nodes() as made:
        yield made


def test_a_signer_never_runs_twice_whatever_happens_to_its_node(
    nodes: Nodes, tmp_path: Path, home: Path, project: Path
) -> None:
    watchers = ("watch-1", "watch-2", "watch-3")
    with prepared(nodes, tmp_path / "cluster", home, project, cut_for=120.0, settle=20.0, watchers=watchers) as (
        play,
        client,
    ):
        figures = {**play.cut_and_mend(client), **play.lose(client)}
    for what, figure in figures.items():
        print(f"{what}: {figure:.1f}")
