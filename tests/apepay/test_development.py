"""ApePay on a development chain: what is shipped is what its source says, and what is deployed has its terms."""

from __future__ import annotations

import uuid

import pytest

from ape_silverback.apepay.contract import published_code
from ape_silverback.apepay.development import (
    MIN_STREAM_LIFE,
    RATE,
    TOKEN,
    Deployment,
    deploy,
    fixed_rate_validator,
)
from ape_silverback.apepay.rpc import HttpNode
from ape_silverback.exceptions import ChainError
from demo.chain import find_anvil, running_anvil
from scripts.compile_validator import compiled
from tests.server.payer import Payer
from tests.stream.payments import STANDARD

HOUR = 3600
PRODUCT = bytes(range(32))


@pytest.fixture(scope="module")
def deployed(chain: str) -> Deployment:
    """What was deployed there."""
    with HttpNode(chain) as node:
        return deploy(node)


@pytest.fixture
def payer(chain: str, deployed: Deployment) -> Payer:
    """One who asks and pays."""
    return Payer.at(chain, deployed.manager, deployed.token)


def test_the_shipped_validator_is_what_its_source_compiles_to() -> None:
    assert fixed_rate_validator() == compiled()


def test_the_stream_manager_is_the_published_one_under_its_terms(payer: Payer, deployed: Deployment) -> None:
    code = bytes.fromhex(payer.ask("eth_getCode", deployed.manager, "latest")[2:])
    assert code == published_code() + MIN_STREAM_LIFE.to_bytes(32, "big")
    assert payer.read(payer.manager, "controller") == deployed.controller.lower() == payer.controller != payer.owner
    assert payer.read(payer.manager, "validators", 0) == deployed.validator.lower()
    assert payer.read(payer.manager, "token_is_accepted", deployed.token)


def test_every_account_of_the_node_has_test_tokens(payer: Payer, deployed: Deployment) -> None:
    for account in payer.accounts:
        assert payer.read(deployed.token, "balanceOf", account, kind="TestToken") >= 1_000_000 * TOKEN


@pytest.mark.parametrize("amount", [0, RATE - 1, RATE, TOKEN, 5 * TOKEN])
def test_a_token_pays_for_about_an_hour(payer: Payer, deployed: Deployment, amount: int) -> None:
    life = payer.read(payer.manager, "compute_stream_life", payer.owner, deployed.token, amount, [PRODUCT])
    assert life == amount // RATE
    assert abs(life - amount / TOKEN * HOUR) <= 1


@pytest.mark.parametrize("products", [[], [PRODUCT, PRODUCT]])
def test_nothing_and_several_products_get_no_time_and_so_no_stream(
    payer: Payer, deployed: Deployment, products: list[bytes]
) -> None:
    assert payer.read(payer.manager, "compute_stream_life", payer.owner, deployed.token, TOKEN, products) == 0
    with pytest.raises(AssertionError, match="'status': '0x0'"):
        payer.create(*products)


def test_a_stream_holds_what_was_paid_and_runs_out_when_that_says(payer: Payer) -> None:
    product = STANDARD.get_product_code(payer.owner, uuid.uuid4())
    stream = payer.stream(payer.create(product, amount=2 * TOKEN))
    assert (stream.owner.lower(), stream.funded_amount, stream.products) == (payer.owner, 2 * TOKEN, (product,))
    assert stream.expires_at - stream.last_update == 2 * TOKEN // RATE


def test_nothing_is_deployed_on_a_chain_that_isnt_for_development() -> None:
    binary = find_anvil()
    assert binary is not None
    with running_anvil(binary, chain_id=1) as url, HttpNode(url) as node:
        with pytest.raises(ChainError, match="chain 1 isn't a development chain"):
            deploy(node)
        payer = Payer.at(url, "", "")
        assert int(payer.ask("eth_getTransactionCount", payer.owner, "latest"), 16) == 0


def test_a_node_with_one_account_has_nobody_to_be_paid() -> None:
    binary = find_anvil()
    assert binary is not None
    refused = pytest.raises(ChainError, match="1 unlocked accounts")
    with running_anvil(binary, options=("--accounts", "1")) as url, HttpNode(url) as node, refused:
        deploy(node)
