"""Deployments in this process, to the local cluster's application with processes that are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import BotConfiguration
from ape_silverback.deployment.apply import ApplyOptions
from ape_silverback.deployment.deployer import Deployer
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.history import Records
from ape_silverback.deployment.local import fingerprints_of
from ape_silverback.deployment.plan import DEFAULT_PLAN_OPTIONS, PlanOptions
from ape_silverback.deployment.result import DeployResult
from ape_silverback.deployment.state import LocalState
from ape_silverback.deployment.wait import Timing
from ape_silverback.project.desired import DesiredBot, DesiredGroup, DesiredState

QUICK = Timing(timeout=5, settle=0, start=2, stop=5, poll=0.02)
VALUES = {"X": "x-1", "Y": "y-1", "Z": "z-1"}


@pytest.fixture
def deployer(client: ClusterClient, tmp_path: Path) -> Deployer:
    return deployer_with_file(client, tmp_path / "deployments")


def deployer_with_file(client: ClusterClient, root: Path) -> Deployer:
    """Return a deployer whose history is in a folder, as for a cluster that keeps none."""
    return Deployer(client, "here", "here", "app", "the-app", Records.of(root, "app", "the-app", "here"))


def bot(name: str, **fields: Any) -> DesiredBot:
    values = {"image": "registry.example/app:1", "ecosystem": "ethereum", "network": "mainnet", "provider": "node"}
    others = {name: fields.pop(name) for name in ("protect", "renamed_from", "family", "id") if name in fields}
    configuration = BotConfiguration.model_validate(values | fields)
    origins = dict.fromkeys(BotConfiguration.model_fields, "here")
    return DesiredBot(name, "here", name, configuration, origins, **others)


def wanted(*bots: DesiredBot, **groups: tuple[str, ...]) -> DesiredState:
    return DesiredState(
        "app", Path("/app"), bots, tuple(DesiredGroup(name, names, "here") for name, names in groups.items())
    )


Deploy = Callable[..., DeployResult]


@pytest.fixture
def deploy(deployer: Deployer) -> Deploy:
    """Deploy what is wanted; gives what became of it, with all events."""

    def deploy(
        state: DesiredState,
        values: Mapping[str, str] = VALUES,
        on_event: Callable[[Event], None] = lambda event: None,
        plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS,
        **apply_options: Any,
    ) -> DeployResult:
        with deployer.lock():
            plan = deployer.plan(state, LocalState(fingerprints_of(values)), plan_options)
            result = DeployResult(plan)
            options = ApplyOptions(timing=apply_options.pop("timing", QUICK), **apply_options)
            for event in deployer.apply(plan, values, options, fingerprints=fingerprints_of(values)):
                result.add(event)
                on_event(event)
        return result

    return deploy
