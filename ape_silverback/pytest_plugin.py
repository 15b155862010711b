"""Fixtures for the tests of an Ape project whose bots are to run: ``silverback_cluster`` and ``deployed_bots``.

pytest loads this at every run of every project where the package is installed, so it imports nothing but pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ape_silverback.cluster.client import Bot, ClusterClient


@pytest.fixture(scope="session")
def silverback_cluster() -> Iterator[ClusterClient]:
    """The client of a local cluster that lives as long as the test session.

    Its home folder is a temporary one, so that neither the user's own local cluster nor what is remembered of
    deployments is touched; nothing of it is left behind. ``deploy(client=silverback_cluster)`` deploys to it.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from ape_silverback.cluster.client import ClusterClient
    from ape_silverback.config.overlays import VARIABLE_PREFIX
    from ape_silverback.server.daemon import LocalCluster

    with TemporaryDirectory(prefix="silverback-cluster-") as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{VARIABLE_PREFIX}HISTORY", f"{home}/deployments")
        cluster = LocalCluster(Path(home, "cluster"))
        with pytest.MonkeyPatch.context() as started_with:  # which its bots inherit
            started_with.setenv("HOME", home)
            started_with.delenv("APE_DATA_FOLDER", raising=False)
            started = cluster.up()
        try:
            headers = {"X-API-Key": started.api_key}
            with ClusterClient(base_url=started.running.host, headers=headers) as client:
                yield client
        finally:
            cluster.down()


@pytest.fixture
def silverback_deploy_options() -> dict[str, Any]:
    """What ``deployed_bots`` passes to ``ape_silverback.deploy``; a project's own fixture of this name replaces it."""
    return {}


@pytest.fixture
def deployed_bots(silverback_cluster: ClusterClient, silverback_deploy_options: dict[str, Any]) -> dict[str, Bot]:
    """The project's bots by name, running and healthy on ``silverback_cluster``.

    Every test that asks for them finds them so: what an earlier test changed or stopped is put right.

    Raises:
        DeployFailed: one doesn't get there; has the reason.
    """
    from ape_silverback.api import deploy

    summary = deploy(client=silverback_cluster, **silverback_deploy_options)
    bots = silverback_cluster.bots
    return {name: bots[name] for name in summary.ready}
