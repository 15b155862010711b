"""Payments on a real chain with the real contracts: what each costs, and what can't be paid, which is said at once."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.apepay.contract import contract
from ape_silverback.apepay.development import MIN_STREAM_LIFE, RATE, TOKEN
from ape_silverback.apepay.rpc import HttpNode
from ape_silverback.exceptions import ChainError, StreamError
from ape_silverback.stream.pay import Payment, cancel_stream, pay
from ape_silverback.stream.pending import PaymentMemory
from ape_silverback.stream.quote import Quote, amount_for, check_cancel, quote_extension, quote_stream
from ape_silverback.stream.state import MOST_STREAMS, STREAMS_AT_ONCE, StreamState, live_streams, read_stream
from ape_silverback.stream.tokens import Token
from ape_silverback.stream.transactions import Sender
from tests.cluster.server import serving
from tests.stream.nodes import forward, public_node
from tests.stream.payments import DAY, STANDARD, Payments, granting

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI

HOUR = 60 * 60


def quoted(payments: Payments, cluster: uuid.UUID | None = None, **more: Any) -> Quote:
    given = {"token": payments.token, "configuration": STANDARD, "cluster_id": cluster or uuid.uuid4(), **more}
    return quote_stream(payments.node, payments.owner, payments.manager, **given)


def paid(
    provider: ProviderAPI,
    payments: Payments,
    account: AccountAPI,
    quote: Quote,
    tell: Callable[[str], None] = lambda _: None,
    **more: Any,
) -> Payment:
    memory = PaymentMemory.of(1337, quote.manager, str(account.address), str(uuid.uuid4()))
    return pay(Sender(provider, payments.node, account, tell), quote, memory, **more)


def balance(payments: Payments, account: str) -> int:
    return int(payments.read(payments.token, "balanceOf", account, kind="TestToken"))


def opened(provider: ProviderAPI, payments: Payments, account: AccountAPI, seconds: int = 10 * HOUR) -> Payment:
    return paid(provider, payments, account, quoted(payments, seconds=seconds))


def now(payments: Payments, state: StreamState) -> StreamState:
    return read_stream(payments.node, state.manager, state.number)


def test_a_stream_is_opened_extended_and_cancelled_with_exact_approvals(
    provider: ProviderAPI, priced: Payments, account: AccountAPI
) -> None:
    before = balance(priced, priced.owner)
    cluster = uuid.uuid4()
    quote = quoted(priced, cluster, seconds=10 * HOUR)
    assert (quote.token.text(quote.amount), quote.life, quote.needs_approval) == ("10 TEST", 10 * HOUR, True)
    steps: list[str] = []
    sent = paid(provider, priced, account, quote, tell=steps.append)
    assert [re.sub("0x[0-9a-f]{64}", "HASH", step) for step in steps] == [
        "Sending the approval of TEST, transaction HASH …",
        "Sending the payment, transaction HASH …",
    ]
    assert sent.transaction in steps[1]
    assert balance(priced, priced.owner) == before - quote.amount
    assert priced.read(priced.token, "allowance", priced.owner, priced.manager, kind="TestToken") == 0
    assert sent.state.stream.products == (STANDARD.get_product_code(priced.owner, cluster),)
    assert sent.state.stream.expires_at == sent.state.stream.last_update + 10 * HOUR

    more = quote_extension(priced.node, priced.owner, now(priced, sent.state), seconds=5 * HOUR)
    assert abs(5 * TOKEN - more.amount) < 60 * RATE  # what passes between two looks
    longer = paid(provider, priced, account, more)
    assert abs(longer.state.stream.expires_at - sent.state.stream.expires_at - 5 * HOUR) < 60

    priced.advance(HOUR)
    state = now(priced, sent.state)
    check_cancel(priced.node, priced.owner, state)
    end = cancel_stream(Sender(provider, priced.node, account), state)
    assert 0 <= state.rest - end.refund < 60 * RATE
    assert balance(priced, priced.owner) == before - quote.amount - more.amount + end.refund
    assert end.state.time_left == 0


def test_an_unlimited_approval_is_given_only_when_asked_for_and_used_again(
    provider: ProviderAPI, priced: Payments, account: AccountAPI
) -> None:
    paid(provider, priced, account, quoted(priced, amount="2"), approval=2**256 - 1)
    assert not quoted(priced, amount="2").needs_approval


@pytest.mark.parametrize(
    ("payment", "said"),
    [
        ({"amount": "0"}, "it has to be above zero"),
        ({"amount": "-1"}, "it has to be above zero"),
        ({"amount": "many"}, "expected a number of tokens"),
        ({"amount": "NaN"}, "expected a number of tokens"),
        ({"amount": "1e99"}, "the payment takes"),
        ({"amount": "1.5 USDC"}, "the stream is paid for in TEST"),
        ({"amount": "0.0000000000000000001"}, "at most 18 digits after the point"),
        ({"amount": "9000000"}, "has .* TEST; the payment takes 9000000 TEST"),
        ({"amount": "0.001"}, "pays for 3 seconds; a stream has to last 1 minute at least"),
        ({"seconds": 10**11}, "at most 100 years"),
    ],
)
def test_a_payment_that_cant_be_made_is_refused_before_anything_is_signed(
    priced: Payments, payment: dict[str, Any], said: str
) -> None:
    with pytest.raises(StreamError, match=said):
        quoted(priced, **payment)


def test_a_token_that_isnt_accepted_is_named(priced: Payments) -> None:
    other = priced.deploy("TestToken")
    with pytest.raises(StreamError, match=f"doesn't accept TEST \\({other}\\)"):
        quoted(priced, token=other, amount="1")


def test_a_cluster_is_not_paid_for_twice_while_the_platform_hasnt_seen_the_first_payment(
    provider: ProviderAPI, priced: Payments, account: AccountAPI
) -> None:
    cluster = uuid.uuid4()
    sent = paid(provider, priced, account, quoted(priced, cluster, amount="1"))
    larger = STANDARD.model_copy(update={"bots": 50})
    with pytest.raises(StreamError, match=f"stream {sent.state.number} of this account pays for this cluster already"):
        quoted(priced, cluster, amount="1", configuration=larger)
    quoted(priced, amount="1")  # another cluster is another matter
    priced.advance(2 * HOUR)
    quoted(priced, cluster, amount="1")  # it has run out


def test_a_node_that_searches_no_blocks_for_events_and_keeps_no_state_will_do(
    provider: ProviderAPI, priced: Payments, account: AccountAPI, chain: str
) -> None:
    cluster = uuid.uuid4()
    others = [opened(provider, priced, account).state for _ in range(2)]
    oldest = int(priced.ask("eth_blockNumber"), 16)
    with serving(public_node(chain, blocks=0, oldest_state=oldest)) as server, HttpNode(server.url) as node:
        limited = replace(priced, node=node)
        quote = quoted(limited, cluster, amount="1")
        sent = paid(provider, limited, account, quote)
        with pytest.raises(StreamError, match=f"stream {sent.state.number} of this account pays for this cluster"):
            quoted(limited, cluster, amount="1")
        now = datetime.fromtimestamp(others[-1].now, timezone.utc)
        assert live_streams(node, priced.manager, lambda _: True, now - timedelta(days=1)) == [2, 1, 0]
        assert live_streams(node, priced.manager, lambda _: True, now + timedelta(days=1)) == []


def test_a_node_that_claims_streams_without_end_isnt_asked_for_all_of_them(
    provider: ProviderAPI, priced: Payments, account: AccountAPI, chain: str
) -> None:
    number = opened(provider, priced, account).state.number
    calls = contract("StreamManager")
    count, stream = calls.call(priced.manager, "num_streams"), calls.call(priced.manager, "streams", number)
    real = priced.ask("eth_call", {"to": priced.manager, "data": stream.data}, "latest")

    def claim(request: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        data = request["params"][0]["data"] if request["method"] == "eth_call" else ""
        if data == count.data:
            return {**given, "result": "0x" + "f" * 64}
        return {**given, "result": real} if data.startswith(stream.data[:10]) else given

    with serving(lambda request: forward(chain, request, claim)) as server, HttpNode(server.url) as node:
        with pytest.raises(ChainError, match="too many to look for"):
            live_streams(node, priced.manager, lambda _: False)
        assert len(server.requests) <= MOST_STREAMS // STREAMS_AT_ONCE + 2


def test_a_price_that_rose_after_the_quote_reverts_the_payment(
    provider: ProviderAPI, priced: Payments, account: AccountAPI
) -> None:
    quote = quoted(priced, seconds=10 * HOUR)
    priced.ask("anvil_setCode", priced.validator, granting(9 * HOUR))
    before = balance(priced, priced.owner)
    with pytest.raises(
        StreamError, match=r"price has risen: 10 TEST pays for 9 hours now, not for 10 hours; the approval"
    ):
        paid(provider, priced, account, quote)
    assert balance(priced, priced.owner) == before
    assert priced.read(priced.manager, "num_streams") == 0


def test_validators_without_a_price_for_it_are_said(priced: Payments) -> None:
    priced.ask("anvil_setCode", priced.validator, "0x7f" + "ff" * 32 + "60005260206000f3")
    with pytest.raises(StreamError, match="asks no price for this configuration"):
        quoted(priced, amount="1")
    priced.ask("anvil_setCode", priced.validator, "0x60006000fd")
    with pytest.raises(StreamError, match="sells nothing for this payment"):
        quoted(priced, amount="1")
    priced.ask("anvil_setCode", priced.validator, granting(0))
    with pytest.raises(StreamError, match="grant no time for any amount"):
        quoted(priced, seconds=HOUR)


def test_a_stream_that_has_run_out_is_neither_extended_nor_cancelled(
    provider: ProviderAPI, priced: Payments, account: AccountAPI
) -> None:
    sent = opened(provider, priced, account)
    priced.advance(11 * HOUR)
    state = now(priced, sent.state)
    with pytest.raises(StreamError, match="has run out: it can't be extended"):
        quote_extension(priced.node, priced.owner, state, amount="1")
    with pytest.raises(StreamError, match="there is nothing to cancel"):
        check_cancel(priced.node, priced.owner, state)


def test_an_extension_is_refused_for_a_token_that_is_no_longer_accepted_or_a_price_that_would_shorten_it(
    provider: ProviderAPI, priced: Payments, account: AccountAPI
) -> None:
    state = now(priced, opened(provider, priced, account).state)
    real = priced.ask("eth_getCode", priced.validator, "latest")
    priced.ask("anvil_setCode", priced.validator, granting(HOUR))
    with pytest.raises(StreamError, match="would end earlier"):
        quote_extension(priced.node, priced.owner, state, amount="1")
    priced.ask("anvil_setCode", priced.validator, real)
    with pytest.raises(StreamError, match="it has to be above zero"):
        quote_extension(priced.node, priced.owner, state, amount="0")
    priced.send(priced.manager, "set_token_accepted", priced.token, False, sender=priced.accounts[1])
    with pytest.raises(StreamError, match="no longer accepts TEST"):
        quote_extension(priced.node, priced.owner, state, amount="1")


def test_somebody_else_may_extend_a_stream(provider: ProviderAPI, priced: Payments, account: AccountAPI) -> None:
    state = now(priced, opened(provider, priced, account).state)
    other = provider.account_manager.test_accounts[3]
    quote = quote_extension(priced.node, str(other.address), state, amount="3")
    assert paid(provider, priced, other, quote).state.time_left > state.time_left + 2 * HOUR


def test_who_may_cancel_when(provider: ProviderAPI, priced: Payments, account: AccountAPI) -> None:
    state = now(priced, opened(provider, priced, account).state)
    with pytest.raises(StreamError, match=r"can't be cancelled yet: its owner may in (1 minute|\d+ seconds)"):
        check_cancel(priced.node, priced.owner, state)
    check_cancel(priced.node, priced.accounts[1], state)  # the controller needn't wait
    with pytest.raises(StreamError, match=f"belongs to {priced.owner}: {priced.accounts[4]} can't cancel it"):
        check_cancel(priced.node, priced.accounts[4], state)
    priced.send(priced.manager, "set_capabilities", priced.accounts[4], 8, sender=priced.accounts[1])
    check_cancel(priced.node, priced.accounts[4], state)
    priced.advance(MIN_STREAM_LIFE)
    check_cancel(priced.node, priced.owner, now(priced, state))


def test_there_is_no_stream_beyond_the_last_one(priced: Payments) -> None:
    with pytest.raises(StreamError, match="has no stream 7"):
        read_stream(priced.node, priced.manager, 7)


@given(rate=st.integers(1, 10**24), seconds=st.integers(1, 10 * 365 * DAY), decimals=st.integers(0, 18))
def test_the_amount_for_a_time_pays_for_it_and_for_little_more(rate: int, seconds: int, decimals: int) -> None:
    unit = 10**decimals
    amount, pays = amount_for(seconds, lambda amount: amount // rate, unit)
    assert pays == amount // rate >= seconds
    assert pays <= seconds + 2


@pytest.mark.parametrize(("smallest_units_a_day", "shown"), [(86400, "0.000864"), (2, "0.00000002")])
def test_a_dear_token_is_quoted_in_its_smallest_unit(smallest_units_a_day: int, shown: str) -> None:
    token = Token("0x", "WBTC", 8)
    amount, pays = amount_for(30 * DAY, lambda amount: amount * DAY // smallest_units_a_day, token.one)
    assert (amount, pays) == (30 * smallest_units_a_day, 30 * DAY)
    assert token.about(smallest_units_a_day) == f"{shown} WBTC"


@given(amount=st.integers(1, 2**200), decimals=st.integers(0, 30))
def test_an_amount_that_is_shown_is_read_again(amount: int, decimals: int) -> None:
    token = Token("0x", "TEST", decimals)
    assert token.amount(token.text(amount)) == amount


def test_amounts_read_well() -> None:
    token = Token("0x", "USDC", 6)
    assert [token.text(one) for one in (1, 1_500_000, 20 * 10**6)] == ["0.000001 USDC", "1.5 USDC", "20 USDC"]
    assert Token("0x", "TEST", 18).about(719 * TOKEN + 123456789 * 10**9) == "719.1234 TEST"
