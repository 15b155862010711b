"""ApePay on a chain of its own, where time is advanced and code is replaced, and a platform that says so."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ape_silverback.apepay.development import deploy
from ape_silverback.apepay.rpc import HttpNode
from ape_silverback.stream.chain import connected_provider
from tests.cli.conftest import Run, runner
from tests.cli.platform import Platform, serving_platform
from tests.server.machine import serving_cluster
from tests.stream.payments import STANDARD, Payments
from tests.stream.world import World

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI


@pytest.fixture
def payments(chain: str) -> Iterator[Payments]:
    """ApePay, deployed for one test."""
    with HttpNode(chain) as node:
        yield Payments.on(node)


@pytest.fixture(scope="module")
def provider(chain: str) -> Iterator[ProviderAPI]:
    """Ape, connected to the chain."""
    with connected_provider(f"ethereum:local:{chain}") as provider:
        yield provider


@pytest.fixture
def priced(chain: str) -> Iterator[Payments]:
    """ApePay with a price: a token an hour."""
    with HttpNode(chain) as node:
        made = deploy(node)
        payments = Payments(node, made.validator, made.token, made.manager)
        payments.accounts = [payments.checksummed(one) for one in payments.ask("eth_accounts")]
        yield payments


@pytest.fixture
def account(provider: ProviderAPI) -> AccountAPI:
    """The first test account, which is the chain's first too."""
    account: AccountAPI = provider.account_manager.test_accounts[0]
    return account


@pytest.fixture
def world(tmp_path: Path, home: Path, project: Path, payments: Payments, chain: str) -> Iterator[World]:
    with serving_cluster(tmp_path) as behind:
        platform = Platform(behind=behind)
        space = platform.add_workspace("space", "Space")
        cluster = platform.add_cluster(space, "prod", "Prod", status=4, configuration=STANDARD.model_dump())
        number = payments.open_stream(uuid.UUID(cluster))
        stream = {"chain_id": 1337, "manager": payments.manager, "stream_id": number}
        platform.streams[cluster] = stream
        platform.managers[1337] = payments.manager
        with serving_platform(platform, home):
            yield World(platform, space, payments, uuid.UUID(cluster), chain, stream, project)


@pytest.fixture
def run(world: World, home: Path, project: Path) -> Run:
    """`ape silverback cluster …` in a project with a bot, for the platform's cluster."""
    ape = runner(home, project, APE_SILVERBACK_CLUSTER="space/prod")

    def run(*arguments: str, **more: Any) -> Any:
        (project / "ape-config.yaml").write_text(world.configuration())
        return ape(*arguments, **more)

    return run
