"""What the checks say of honest streams, on a real chain: outcomes, requests, and every byte of a product code."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ape_silverback.apepay.contract import Stream
from ape_silverback.apepay.rpc import HttpNode, Node, RpcRequest
from ape_silverback.cluster.types import ClusterConfiguration, StreamClaim
from ape_silverback.config.models import StreamConfig
from ape_silverback.exceptions import ChainError, StreamError, StreamNotVerified
from ape_silverback.stream.claims import Claim
from ape_silverback.stream.gate import require_trust
from ape_silverback.stream.verify import Check, Report, verify, without_stream
from tests.cluster.server import Reply, Request, answer, html, serving
from tests.stream.nodes import as_reply, forward, public_node, refusal
from tests.stream.payments import CLUSTER_ID, CONFIGURATIONS, DAY, STANDARD, TOKEN, Payments

NAMES = ("address", "pinned", "platform", "chain", "code", "controller", "stream", "product", "time")


def claim(payments: Payments, stream: int, **changes: Any) -> Claim:
    """Return what an honest platform says, but for some changes."""
    said = {"chain_id": 1337, "manager": payments.manager, "stream_id": stream}
    given: dict[str, Any] = {
        "cluster": "space/prod",
        "cluster_id": CLUSTER_ID,
        "configuration": STANDARD,
        "manager": payments.manager,
        "stream": StreamClaim(**{**said, **{key: changes.pop(key) for key in list(changes) if key in said}}),
    }
    return Claim(**{**given, **changes})


def verified(node: Node, *claims: Claim, trust: StreamConfig | None = None) -> list[Report]:
    return verify(claims, trust or StreamConfig(), lambda _: nullcontext(node))


def outcomes(report: Report) -> dict[str, str]:
    return {check.name: check.outcome for check in report.checks}


def test_an_honest_stream_passes_all_checks_in_three_requests_at_one_block(payments: Payments, chain: str) -> None:
    stream = payments.open_stream()
    pins = StreamConfig(managers={1337: payments.manager}, controllers={1337: payments.controller})
    with serving(lambda request: forward(chain, request)) as server, HttpNode(server.url) as node:
        [report] = verified(node, claim(payments, stream), trust=pins)
    assert outcomes(report) == dict.fromkeys(NAMES, "pass")
    assert len(server.requests) == 3
    assert report.trusted
    assert report.block is not None


def test_many_clusters_of_one_chain_share_its_requests(payments: Payments, chain: str) -> None:
    ids = [uuid.uuid4() for _ in range(5)]
    claims = [claim(payments, payments.open_stream(one), cluster_id=one) for one in ids]
    with serving(lambda request: forward(chain, request)) as server, HttpNode(server.url) as node:
        reports = verified(node, *claims)
    assert [report.trusted for report in reports] == [True] * 5
    assert len(server.requests) == 3


def test_all_reads_name_the_block_that_was_read_first(payments: Payments, chain: str) -> None:
    stream = payments.open_stream()

    class Listening:
        sent: list[RpcRequest] = []  # noqa: RUF012 - of one test

        def batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
            self.sent += requests
            return payments.node.batch(requests)

    node = Listening()
    [report] = verified(node, claim(payments, stream))
    assert {str(request.params[0 if "Block" in request.method else -1]) for request in node.sent[3:]} == {
        hex(report.block or 0)
    }


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_node_that_takes_no_batches_is_asked_one_by_one(payments: Payments, chain: str, status: int) -> None:
    stream = payments.open_stream()

    def behave(request: Request) -> Reply:
        if isinstance(request.json(), list):
            error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no batches"}}
            return answer(error) if status == 200 else html(status)
        return forward(chain, request)

    with serving(behave) as server, HttpNode(server.url) as node:
        [report] = verified(node, claim(payments, stream))
    assert report.trusted
    assert sum(isinstance(request.json(), list) for request in server.requests) == 1


def test_a_batch_in_which_everything_is_refused_is_asked_one_by_one(payments: Payments, chain: str) -> None:
    stream = payments.open_stream()

    def behave(request: Request) -> Reply:
        if isinstance(asked := request.json(), list):
            return as_reply([refusal(one, "rate limit for batches") for one in asked])
        return forward(chain, request)

    with serving(behave) as server, HttpNode(server.url) as node:
        [report] = verified(node, claim(payments, stream))
    assert report.trusted


# A hiccup isn't distrust


@pytest.fixture
def still(payments: Payments) -> Iterator[None]:
    """The chain makes no blocks by itself."""
    payments.ask("evm_setIntervalMining", 0)
    yield
    payments.ask("evm_setIntervalMining", 1)


def test_one_refusal_for_now_is_asked_again(payments: Payments, chain: str) -> None:
    stream, left = payments.open_stream(), [1]

    def once(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if request["method"] == "eth_getCode" and left:
            return refusal(request, "header not found") if left.pop() else answer
        return answer

    with serving(lambda request: forward(chain, request, once)) as server, HttpNode(server.url) as node:
        [report] = verified(node, claim(payments, stream))
    assert outcomes(report)["code"] == "pass"
    assert report.trusted


def test_of_nodes_of_which_one_is_two_blocks_behind_a_block_is_read_that_all_have(
    payments: Payments, chain: str, still: None
) -> None:
    stream = payments.open_stream()
    payments.ask("anvil_mine", hex(10))
    latest = int(payments.ask("eth_blockNumber"), 16)

    def lags(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        block = request["params"][-1] if request["params"] else None
        lacking = isinstance(block, str) and block.startswith("0x") and len(block) < 20 and int(block, 16) > latest - 2
        return refusal(request, "header not found") if lacking else answer

    with serving(lambda request: forward(chain, request, lags)) as server, HttpNode(server.url) as node:
        [report] = verified(node, claim(payments, stream))
    assert report.trusted
    assert report.block is not None
    assert report.block <= latest - 2


def test_a_node_that_goes_on_refusing_is_no_verdict(payments: Payments, chain: str) -> None:
    def refuses(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        return refusal(request, "header not found") if request["method"] == "eth_getCode" else answer

    stream = payments.open_stream()
    with serving(lambda request: forward(chain, request, refuses)) as server, HttpNode(server.url, pauses=()) as node:
        [report] = verified(node, claim(payments, stream))
    assert (report.trusted, report.verdict) == (False, "unverified")
    with pytest.raises(
        StreamNotVerified, match=r"couldn't be verified, so nothing was sent; try again later:\n  code:"
    ):
        require_trust(report)
    failed = report.model_copy(update={"checks": (Check(name="time", outcome="fail", text="it has run out"),)})
    with pytest.raises(StreamError, match="isn't trusted:\n  time: it has run out") as stopped:
        require_trust(failed)
    assert not isinstance(stopped.value, StreamNotVerified)


def test_a_chain_that_is_reorganised_while_it_is_read_is_read_again(
    payments: Payments, chain: str, still: None
) -> None:
    stream, left = payments.open_stream(), [1]
    payments.ask("anvil_mine", hex(10))
    payments.send(payments.token, "DEBUG_mint", payments.owner, TOKEN)  # in the newest block, and in no other one

    def behave(request: Request) -> Reply:
        if left and "eth_getCode" in str(request.json()):
            left.pop()
            payments.ask("anvil_reorg", 3, [])
        return forward(chain, request)

    with serving(behave) as server, HttpNode(server.url) as node:
        [report] = verified(node, claim(payments, stream))
    assert report.trusted
    assert sum("eth_getCode" in str(request.json()) for request in server.requests) == 2


# Who opened a stream is looked up only where it matters, and within the limits of public nodes


def test_logs_are_searched_only_for_a_stream_that_was_handed_on(payments: Payments, chain: str) -> None:
    stream = payments.open_stream()
    for searches, outcome in ((0, "its owner"), (1, "who opened it")):
        with serving(lambda request: forward(chain, request)) as server, HttpNode(server.url) as node:
            [report] = verified(node, claim(payments, stream))
        assert outcome in next(check.text for check in report.checks if check.name == "product")
        assert sum("eth_getLogs" in str(request.json()) for request in server.requests) == searches
        payments.send(payments.manager, "set_stream_owner", stream, payments.accounts[3]) if not searches else None


@pytest.mark.parametrize("keeps_state", [True, False])
@pytest.mark.parametrize("funded", [False, True])
def test_who_opened_a_stream_is_found_at_a_node_that_searches_ten_blocks(
    payments: Payments, chain: str, still: None, keeps_state: bool, funded: bool
) -> None:
    payments.ask("anvil_mine", hex(40))
    stream = payments.open_stream()
    payments.send(payments.manager, "set_stream_owner", stream, payments.accounts[3])
    if funded:
        payments.ask("anvil_mine", hex(25))
        payments.send(payments.token, "DEBUG_mint", payments.owner, TOKEN)
        payments.send(payments.token, "approve", payments.manager, TOKEN)
        payments.send(payments.manager, "fund_stream", stream, TOKEN)
    payments.ask("anvil_mine", hex(40))
    oldest = 0 if keeps_state else int(payments.ask("eth_blockNumber"), 16) - 10
    with serving(public_node(chain, oldest_state=oldest)) as server, HttpNode(server.url, pauses=()) as node:
        [report] = verified(node, claim(payments, stream))
    assert report.trusted
    assert "who opened it" in next(check.text for check in report.checks if check.name == "product")
    assert sum("eth_getLogs" in str(request.json()) for request in server.requests) < 20


def test_a_node_whose_limits_hide_who_opened_a_stream_is_no_verdict(payments: Payments, chain: str) -> None:
    stream = payments.open_stream()
    payments.send(payments.manager, "set_stream_owner", stream, payments.accounts[3])
    with serving(public_node(chain, blocks=0)) as server, HttpNode(server.url, pauses=()) as node:
        [report] = verified(node, claim(payments, stream))
    assert report.verdict == "unverified"


def test_nothing_pinned_is_skipped_with_the_reason_and_what_was_found(payments: Payments) -> None:
    [report] = verified(payments.node, claim(payments, payments.open_stream()))
    assert report.trusted
    skipped = {check.name: check.text for check in report.checks if check.outcome == "skip"}
    assert skipped == {
        "pinned": "no manager is pinned for chain 1337",
        "controller": f"{report.controller}; none is pinned for chain 1337",
    }
    assert report.controller is not None
    assert report.controller.lower() == payments.controller


def test_little_time_is_a_warning_that_stops_nothing(payments: Payments) -> None:
    stream = payments.open_stream()
    payments.advance(28 * DAY)
    [report] = verified(payments.node, claim(payments, stream))
    assert outcomes(report)["time"] == "warn"
    assert report.trusted
    [plenty] = verified(payments.node, claim(payments, stream), trust=StreamConfig(minimum_time_left=3600))  # type: ignore[arg-type]
    assert outcomes(plenty)["time"] == "pass"


def test_a_stream_that_was_handed_on_is_still_its_clusters(payments: Payments) -> None:
    stream = payments.open_stream()
    payments.send(payments.manager, "set_stream_owner", stream, payments.accounts[3])
    [report] = verified(payments.node, claim(payments, stream))
    assert report.trusted
    assert "who opened it" in next(check.text for check in report.checks if check.name == "product")


def test_a_cluster_whose_configuration_isnt_told_is_known_by_its_signature(payments: Payments) -> None:
    stream = payments.open_stream()
    [report] = verified(payments.node, claim(payments, stream, configuration=None))
    assert report.trusted
    [other] = verified(payments.node, claim(payments, stream, configuration=None, cluster_id=uuid.uuid4()))
    assert outcomes(other)["product"] == "fail"


def test_a_cluster_may_not_be_paid_for_twice_by_one_stream(payments: Payments) -> None:
    code = STANDARD.get_product_code(payments.owner, CLUSTER_ID)
    other = STANDARD.get_product_code(payments.owner, uuid.uuid4())
    [once] = verified(payments.node, claim(payments, payments.open_stream(products=[other, code])))
    [twice] = verified(payments.node, claim(payments, payments.open_stream(products=[code, code])))
    assert (outcomes(once)["product"], outcomes(twice)["product"]) == ("pass", "fail")


@given(configuration=CONFIGURATIONS, cluster_id=st.uuids(), place=st.integers(0, 31), change=st.integers(1, 255))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_product_code_with_any_other_byte_isnt_the_clusters(
    honest: Answers, configuration: ClusterConfiguration, cluster_id: uuid.UUID, place: int, change: int
) -> None:
    code = configuration.get_product_code(honest.stream.owner, cluster_id)
    other = bytearray(code)
    other[place] ^= change
    for told in (configuration, None):
        said = claim(honest.payments, honest.number, cluster_id=cluster_id, configuration=told)
        [right] = honest.with_products(code).verified(said)
        [wrong] = honest.with_products(bytes(other)).verified(said)
        assert outcomes(right)["product"] == "pass"
        assert outcomes(wrong)["product"] == "fail"


class Answers:
    """What a real node answered of one stream, with other products put into it."""

    def __init__(self, payments: Payments, number: int) -> None:
        self.payments, self.number = payments, number
        self.stream = Stream.of(payments.read(payments.manager, "streams", number))
        self._recorded: dict[RpcRequest, Any] = {}
        self._products: tuple[bytes, ...] = ()

    def with_products(self, *products: bytes) -> Answers:
        self._products = products
        return self

    def verified(self, said: Claim) -> list[Report]:
        return verified(self, said)

    def batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: RpcRequest) -> Any:
        from eth_abi.abi import encode

        key = RpcRequest(request.method, (str(request.params),))
        if key not in self._recorded:
            [self._recorded[key]] = self.payments.node.batch([request])
        if request.method == "eth_call" and request.params[0]["data"].startswith("0x64d60d91"):  # streams(uint256)
            one = self.stream
            times = (one.funded_amount, one.expires_at, one.last_update, one.last_claim)
            kind = "(address,address,uint256,uint256,uint256,uint256,bytes32[])"
            return "0x" + encode([kind], [(one.owner, one.token, *times, self._products)]).hex()
        return self._recorded[key]


@pytest.fixture
def honest(payments: Payments) -> Answers:
    return Answers(payments, payments.open_stream())


# What can't be found out is an outcome of its own


@contextmanager
def out_of_reach(_: int) -> Iterator[Node]:
    raise ChainError("the node at 127.0.0.1 can't be reached")
    yield


@contextmanager
def unknown_chain(chain_id: int) -> Iterator[Node]:
    raise StreamError(f"no network of this project has chain id {chain_id}")
    yield


@pytest.mark.parametrize(
    ("node_of", "name", "outcome"), [(out_of_reach, "chain", "error"), (unknown_chain, "address", "fail")]
)
def test_a_chain_that_cant_be_read_is_never_a_pass(
    payments: Payments, node_of: Callable[[int], AbstractContextManager[Node]], name: str, outcome: str
) -> None:
    [report] = verify([claim(payments, 0)], StreamConfig(), node_of)
    assert not report.trusted
    assert [(check.name, check.outcome) for check in report.stopping] == [(name, outcome)]
    assert "pass" not in {outcomes(report)[one] for one in ("code", "stream", "product", "time")}


@pytest.mark.parametrize(
    ("method", "function", "name"),
    [
        ("eth_chainId", "", "chain"),
        ("eth_getBlockByNumber", "", "chain"),
        ("eth_getCode", "", "code"),
        ("eth_call", "0x7a0becb3", "code"),  # MIN_STREAM_LIFE()
        ("eth_call", "0xf77c4791", "controller"),  # controller()
        ("eth_call", "0x4c438faa", "stream"),  # num_streams()
        ("eth_call", "0x64d60d91", "stream"),  # streams(uint256)
        ("eth_call", "0xce37cfe1", "stream"),  # token_is_accepted(address)
        ("eth_call", "0x9d3e5c05", "time"),  # time_left(uint256)
    ],
)
def test_a_request_that_the_node_refuses_is_an_error_of_its_check(
    payments: Payments, method: str, function: str, name: str
) -> None:
    class Refusing:
        def batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
            return [
                ChainError(f"refuses {one.method}")
                if one.method == method and function in str(one.params[:1])
                else payments.node.batch([one])[0]
                for one in requests
            ]

    [report] = verified(Refusing(), claim(payments, payments.open_stream()))
    assert not report.trusted
    assert [(check.name, check.outcome) for check in report.stopping] == [(name, "error")]


@pytest.mark.parametrize("reply", [Reply(200, b"<html>"), Reply(500, b"oops"), Reply(200, b"[]"), Reply(wait=2.0)])
def test_a_node_that_answers_nonsense_or_too_late_is_an_error(payments: Payments, reply: Reply) -> None:
    with serving(lambda _: reply) as server, HttpNode(f"{server.url}/v2/hunter2", timeout=0.5, pauses=()) as node:
        [report] = verified(node, claim(payments, 0))
    assert outcomes(report)["chain"] == "error"
    assert "hunter2" not in report.model_dump_json()


def test_a_cluster_without_a_stream_is_skipped_unless_one_is_required() -> None:
    assert without_stream("direct", "it is reached directly", required=False).trusted
    refused = without_stream("direct", "it is reached directly", required=True)
    assert not refused.trusted
    assert "stream: require" in refused.checks[0].text
