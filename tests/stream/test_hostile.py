"""A platform, a contract or a node that lies: `deploy` stops at the check that sees it, and nothing is written.

Everything is real but the platform's answers: the `ape` command, the cluster behind it, the chain, ApePay's contracts.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ape_silverback.apepay.contract import ZERO_ADDRESS, published_code
from ape_silverback.connect import connected
from ape_silverback.exceptions import StreamError
from ape_silverback.stream.gate import open_for_writing
from tests.cli.conftest import Run
from tests.cluster.server import Reply, Request, serving
from tests.stream.nodes import forward
from tests.stream.payments import DAY, STANDARD, forwarding
from tests.stream.world import World


def other_contract_with_the_same_abi(world: World) -> None:
    code = bytearray.fromhex(world.payments.ask("eth_getCode", world.payments.manager, "latest")[2:])
    code[len(published_code()) - 1] ^= 1  # a byte that no call comes by
    world.replace_code("0x" + code.hex())


def longer_code(world: World) -> None:
    world.replace_code(world.payments.ask("eth_getCode", world.payments.manager, "latest") + "00")


def shorter_code(world: World) -> None:
    world.replace_code(world.payments.ask("eth_getCode", world.payments.manager, "latest")[:-2])


def proxy_to_the_genuine_one(world: World) -> None:
    genuine = world.payments.deploy_manager(world.payments.controller)
    world.replace_code(forwarding(genuine))


def delegating_proxy(world: World) -> None:
    genuine = world.payments.deploy_manager(world.payments.controller)
    world.replace_code(f"0x363d3d373d3d3d363d73{genuine[2:]}5af43d82803e903d91602b57fd5bf3")  # EIP-1167


def another_controller(world: World) -> None:
    world.pins["controllers"] = {1337: world.payments.accounts[5]}


def no_code(world: World) -> None:
    world.replace_code("0x")


def unknown_chain(world: World) -> None:
    world.stream["chain_id"] = 987654321


def lower_case(world: World) -> None:
    world.stream["manager"] = world.platform.managers[1337] = world.payments.manager.lower()


def wrong_checksum(world: World) -> None:
    flipped = world.payments.manager.swapcase().replace("0X", "0x")
    world.stream["manager"] = flipped


def zero_address(world: World) -> None:
    world.stream["manager"] = ZERO_ADDRESS


def no_address(world: World) -> None:
    world.stream["manager"] = "0x1234"


def beyond_the_end(world: World) -> None:
    world.stream["stream_id"] += 1


def below_zero(world: World) -> None:
    world.stream["stream_id"] = -1


def too_large(world: World) -> None:
    world.stream["stream_id"] = 2**256


def another_clusters_product(world: World) -> None:
    world.reopen(STANDARD.get_product_code(world.payments.owner, uuid.uuid4()))


def changed_configuration(world: World) -> None:
    code = bytearray(STANDARD.get_product_code(world.payments.owner, world.cluster))
    code[3] += 1  # another number of bots
    world.reopen(bytes(code))


def reserved_byte(world: World) -> None:
    code = bytearray(STANDARD.get_product_code(world.payments.owner, world.cluster))
    code[2] = 1  # a byte that the configuration doesn't use
    world.reopen(bytes(code))


def another_owners_signature(world: World) -> None:
    world.reopen(STANDARD.get_product_code(world.payments.accounts[4], world.cluster))


def more_than_is_paid_for(world: World) -> None:
    world.record["configuration"] = STANDARD.model_copy(update={"bots": 200}).model_dump()


def unaccepted_token(world: World) -> None:
    payments = world.payments
    payments.send(payments.manager, "set_token_accepted", payments.token, False, sender=payments.controller)


def run_out(world: World) -> None:
    world.payments.advance(31 * DAY)


def cancelled(world: World) -> None:
    world.payments.advance(DAY)
    world.payments.send(world.payments.manager, "cancel_stream", world.stream["stream_id"])


def not_the_pinned_one(world: World) -> None:
    world.pins["managers"] = {1337: world.payments.deploy_manager(world.payments.controller)}


def not_the_platforms(world: World) -> None:
    world.platform.managers[1337] = world.payments.deploy_manager(world.payments.controller)


def platform_names_none(world: World) -> None:
    world.platform.managers.clear()


def platform_names_no_address(world: World) -> None:
    world.platform.managers[1337] = "0xnothing"


LIES: dict[Callable[[World], None], str] = {
    unknown_chain: "address",
    lower_case: "address",
    wrong_checksum: "address",
    zero_address: "address",
    no_address: "address",
    not_the_pinned_one: "pinned",
    not_the_platforms: "platform",
    platform_names_none: "platform",
    platform_names_no_address: "platform",
    other_contract_with_the_same_abi: "code",
    longer_code: "code",
    shorter_code: "code",
    proxy_to_the_genuine_one: "code",
    delegating_proxy: "code",
    no_code: "code",
    another_controller: "controller",
    beyond_the_end: "stream",
    below_zero: "stream",
    too_large: "stream",
    unaccepted_token: "stream",
    another_clusters_product: "product",
    changed_configuration: "product",
    reserved_byte: "product",
    another_owners_signature: "product",
    more_than_is_paid_for: "product",
    run_out: "time",
    cancelled: "time",
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_is_seen_by_its_check(lie: Callable[[World], None], world: World) -> None:
    lie(world)
    reading = world.reading()
    network = None if lie is unknown_chain else f"ethereum:local:{world.node}"
    with connected(None, "space/prod", reading) as connection, pytest.raises(StreamError) as stopped:
        open_for_writing(connection, reading.section.stream, network=network)
    assert stopping_checks(str(stopped.value)) == [LIES[lie]]


@pytest.mark.parametrize("check", dict.fromkeys(LIES.values()))
def test_a_deployment_stops_at_the_check_before_anything_is_written(check: str, run: Run, world: World) -> None:
    lie = next(lie for lie in LIES if LIES[lie] == check)
    lie(world)
    stopped_at(check, run, world)


def stopped_at(check: str, run: Run, world: World, verdict: str = "isn't trusted") -> str:
    """Deploy; it has to stop at one check, with nothing written. Return the error."""
    result = run("deploy", "--yes", code=1)
    assert stopping_checks(result.stderr, verdict) == [check]
    assert world.platform.written == []
    return str(result.stderr)


def stopping_checks(said: str, verdict: str = "isn't trusted") -> list[str]:
    """Return the checks in an error about a stream."""
    assert f"the payment stream of space/prod {verdict}" in said
    return [line.strip().partition(":")[0] for line in said.splitlines() if line.startswith("  ")]


def test_a_node_that_is_on_another_chain_is_seen(run: Run, world: World) -> None:
    world.stream["chain_id"] = 1
    world.platform.managers[1] = world.payments.manager
    result = run("verify", "--network", f"ethereum:local:{world.node}", code=1)
    assert "the node is on chain 1337, not on 1" in result.stdout
    assert world.platform.written == []


def lying_node(chain: str, method: str, result: Any) -> Callable[[Request], Reply]:
    """Forward to a chain, but answer one method with something else."""
    return lambda request: forward(
        chain, request, lambda one, real: {**real, "result": result} if one["method"] == method else real
    )


def test_a_node_that_lies_about_its_chain_id_is_seen(run: Run, world: World) -> None:
    world.stream["chain_id"] = 31337
    world.platform.managers[31337] = world.payments.manager
    with serving(lying_node(world.node, "eth_chainId", hex(31337))) as node:
        result = run("verify", "--network", f"ethereum:local:{node.url}", code=1)
    assert "the node reports chain 31337, but its EVM runs chain 1337" in result.stdout


def test_a_node_that_is_gone_stops_a_deployment(run: Run, world: World) -> None:
    world.node = "http://127.0.0.1:9"
    said = stopped_at("chain", run, world, "couldn't be verified, so nothing was sent; try again later")
    assert "can't connect to ethereum:local" in said


def test_an_honest_platform_gets_its_bots_and_the_manager_is_shown_with_the_line_that_pins_it(
    run: Run, world: World
) -> None:
    result = run("deploy", "--yes")
    assert f"Verified space/prod: stream {world.stream['stream_id']} of {world.payments.manager}" in result.stderr
    assert f'managers: {{1337: "{world.payments.manager}"}}' in result.stderr
    assert world.platform.written == [
        "POST /c/space/prod/deployments",
        "POST /c/space/prod/bots",
        "POST /c/space/prod/deployments",
    ]
    world.pins["managers"] = {1337: world.payments.manager}
    again = run("deploy", "--yes")
    assert "Nothing changed" in again.stdout
    assert "pinned" not in again.stderr


def test_a_bot_made_by_hand_waits_for_the_verification_too(run: Run, world: World) -> None:
    not_the_platforms(world)
    result = run("bots", "new", "watcher", code=1)
    assert "platform: it isn't the platform's manager" in result.stderr
    assert world.platform.written == []


def test_leaving_out_the_verification_is_loud_and_can_be_forbidden(run: Run, world: World, project: Path) -> None:
    no_code(world)
    result = run("bots", "new", "watcher", "--no-verify")
    assert "WARNING: the payment stream of space/prod" in result.stderr
    assert "NOT verified" in result.stderr
    refused = run("deploy", "--yes", "--no-verify", code=1, APE_SILVERBACK_STREAM__REQUIRE="true")
    assert "stream: require" in refused.stderr
    assert world.platform.written == ["POST /c/space/prod/bots"]


def test_a_cluster_that_nobody_streams_for_is_used_unless_a_stream_is_required(run: Run, world: World) -> None:
    world.platform.streams.clear()
    refused = run("deploy", "--yes", code=1, APE_SILVERBACK_STREAM__REQUIRE="true")
    assert "names no stream that pays for it" in refused.stderr
    assert world.platform.written == []
    run("deploy", "--yes")
    assert world.platform.written == [
        "POST /c/space/prod/deployments",
        "POST /c/space/prod/bots",
        "POST /c/space/prod/deployments",
    ]


@pytest.mark.parametrize("payment", [("create", "--amount", "1"), ("add-time", "--amount", "1"), ("cancel",)])
def test_nothing_is_signed_for_a_stream_that_isnt_trusted(payment: tuple[str, ...], run: Run, world: World) -> None:
    not_the_pinned_one(world)
    world.record["status"] = 0 if payment[0] == "create" else 4
    signed = world.payments.ask("eth_getTransactionCount", world.payments.owner, "latest")
    result = run("pay", payment[0], "space/prod", *payment[1:], "--account", "TEST::0", "--yes", code=1)
    assert "isn't trusted" in result.stderr
    assert "Sending" not in result.stderr
    assert world.payments.ask("eth_getTransactionCount", world.payments.owner, "latest") == signed


def test_text_of_a_platform_and_a_token_cant_command_the_terminal(run: Run, world: World) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    world.platform.managers[1337] = evil
    shown = run("verify", code=1)
    world.platform.managers[1337] = world.payments.manager
    world.record["name"] = evil
    told = run("deploy", "--yes")
    for text in (shown.stdout, shown.stderr, told.stdout, told.stderr):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "owned" in shown.stdout
