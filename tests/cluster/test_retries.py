"""What is tried again and what isn't: never a duplicate, never an endless wait."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import Bot, ClusterClient, PlatformClient, VariableGroup, Workspace
from ape_silverback.exceptions import (
    ClusterError,
    Conflict,
    ConnectionBroken,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerError,
)
from tests.cluster.server import (
    BOT,
    CLUSTER,
    CREDENTIAL,
    GROUP,
    WORKSPACE,
    Behaviour,
    Reply,
    Request,
    answer,
    in_turn,
    serving,
)
from tests.server.machine import KEY, serving_cluster

QUICK = Retries(attempts=12, first_delay=0.001, longest_delay=0.01, deadline=30.0)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Address of a cluster whose bots are no processes."""
    with serving_cluster(tmp_path) as served:
        yield served.url


def flaky(upstream: str, fault: Callable[[], str]) -> Behaviour:
    """Pass requests on; before or after that, answer with what goes wrong."""
    inner = httpx.Client(base_url=upstream, headers={"X-API-Key": KEY}, limits=httpx.Limits(max_connections=50))

    def behave(request: Request) -> Reply:
        what = fault()
        if what == "refuse":
            return Reply(503)
        headers = {"Content-Type": "application/json"}
        got = inner.request(
            request.method, request.path, params=request.query, content=request.body, headers=headers, timeout=30
        )
        if what == "lose":
            return Reply(503)
        if what == "reset":
            return Reply(got.status_code, got.content, {"Content-Type": "application/json"}, reset_after=1)
        return Reply(got.status_code, got.content, {"Content-Type": "application/json"})

    return behave


@contextmanager
def through(upstream: str, fault: Callable[[], str], retries: Retries = QUICK) -> Iterator[ClusterClient]:
    with (
        serving(flaky(upstream, fault)) as server,
        ClusterClient(base_url=server.url, headers={"X-API-Key": KEY}, retries=retries) as client,
    ):
        yield client


def make_bot(client: ClusterClient, name: str) -> Bot:
    return client.new_bot(name, "any:1", "ethereum", "local", "foundry")


@pytest.mark.parametrize("seed", range(3))
def test_with_three_in_ten_requests_failing_there_are_exactly_so_many(cluster: str, seed: int) -> None:
    dice = random.Random(seed)
    faults = {"refuse": 0, "lose": 0}

    def fault() -> str:
        what = dice.choices(("", "refuse", "lose"), (0.7, 0.15, 0.15))[0]
        if what:
            faults[what] += 1
        return what

    with through(cluster, fault) as client, ThreadPoolExecutor(16) as pool:
        bots = [pool.submit(make_bot, client, f"bot-{number}") for number in range(50)]
        groups = [pool.submit(client.new_variable_group, f"group-{number}", {"A": "1"}) for number in range(10)]
        made = {future.result().id for future in bots}
        made_groups = {future.result().id for future in groups}
    with ClusterClient(base_url=cluster, headers={"X-API-Key": KEY}) as client:
        assert {bot.id for bot in client.bots.values()} == made
        assert {group.id for group in client.variable_groups.values()} == made_groups
    assert (len(made), len(made_groups)) == (50, 10)
    assert min(faults.values()) > 5, "the test's own faults didn't happen"


@pytest.mark.parametrize("how", ["lose", "reset"])
def test_a_create_whose_answer_was_lost_is_found_by_name(cluster: str, how: str) -> None:
    lost: dict[str, str] = {}

    def once(kind: str) -> Callable[[], str]:
        lost[kind] = how
        return lambda: lost.pop(kind, "")

    with through(cluster, once("bot")) as client:
        assert make_bot(client, "a").name == "a"
    with through(cluster, once("group")) as client:
        assert client.new_variable_group("g", {"A": "1"}).variables == ["A"]
    with through(cluster, once("credential")) as client:
        assert client.new_credentials("c", "h", "e", "u", "p").hostname == "h"
    assert not lost
    with ClusterClient(base_url=cluster, headers={"X-API-Key": KEY}) as client:
        assert (len(client.bots), len(client.variable_groups), len(client.credentials)) == (1, 1, 1)


def test_what_is_found_can_be_used(cluster: str) -> None:
    faults = iter(["lose"])
    with through(cluster, lambda: next(faults, "")) as client:
        bot = make_bot(client, "a")
        assert bot.cluster is client
        bot.stop()


def test_a_name_that_was_taken_before_is_a_conflict(cluster: str) -> None:
    with ClusterClient(base_url=cluster, headers={"X-API-Key": KEY}) as client:
        make_bot(client, "a")
        with pytest.raises(Conflict):
            make_bot(client, "a")


def ours() -> dict[str, Any]:
    """Return what the cluster lists once it has made the bot of `make_bot`."""
    now = datetime.now(timezone.utc).isoformat()
    return {**BOT, "created": now, "image": "any:1", "network": "local", "provider": "foundry"}


def test_a_name_that_our_own_lost_request_took_is_no_conflict() -> None:
    """The look-up came too early: the cluster still worked on the first request."""
    listing = iter([[], [], [ours()]])
    posts = iter([Reply(503), answer({"detail": "taken"}, 409)])

    def behave(request: Request) -> Reply:
        return next(posts) if request.method == "POST" else answer(next(listing))

    with serving(behave) as server, ClusterClient(base_url=server.url, retries=QUICK) as client:
        assert make_bot(client, "a").name == "a"
        assert server.lines == ["GET /bots", "POST /bots", "GET /bots", "POST /bots", "GET /bots"]


def losing(listed: list[dict[str, Any]], *, before: bool = False, **headers: str) -> Behaviour:
    """Lose the answer of every POST, and list what is given: from the first POST on, or before as well."""
    listing = before

    def behave(request: Request) -> Reply:
        nonlocal listing
        if request.method == "POST":
            listing = True
            return Reply(502)
        return answer(listed if listing else [], headers=headers)

    return behave


def make_group(client: ClusterClient) -> VariableGroup:
    return client.new_variable_group("rpc", {"KEY": "new value"})


CREATES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "bot": (lambda client: make_bot(client, "a"), ours()),
    "group": (make_group, GROUP),
    "credential": (lambda client: client.new_credentials("ghcr", "ghcr.io", "e", "u", "p"), CREDENTIAL),
    "workspace": (lambda client: client.create_workspace("space", "Space"), WORKSPACE),
    "cluster": (
        lambda client: Workspace.model_validate(WORKSPACE)._bind(client).create_cluster("cluster", "Cluster"),
        CLUSTER,
    ),
}


def client_of(kind: str, url: str, **more: Any) -> ClusterClient | PlatformClient:
    return (PlatformClient if kind in ("workspace", "cluster") else ClusterClient)(base_url=url, retries=QUICK, **more)


@pytest.mark.parametrize("kind", CREATES)
@pytest.mark.parametrize("seconds", [0, 60])
def test_what_was_there_before_is_never_taken_for_ours_though_it_is_the_same(kind: str, seconds: int) -> None:
    make, listed = CREATES[kind]
    before = {**listed, "created": (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()}
    with serving(losing([before], before=True)) as server, client_of(kind, server.url) as client:
        with pytest.raises(Conflict, match=f"{kind}.* exists already, and stays as it is; nothing was sent"):
            make(client)
        assert not any(line.startswith("POST") for line in server.lines)


def test_an_older_bot_is_never_taken_for_ours_without_a_look_beforehand() -> None:
    before = {**ours(), "created": (datetime.now(timezone.utc) - timedelta(minutes=1)).isoformat()}
    with serving(losing([before], before=True)) as server, client_of("bot", server.url) as client:
        with pytest.raises(Conflict, match="bot 'a' was there before, and stays as it is; nothing was created"):
            client.new_bot("a", "any:1", "ethereum", "local", "foundry", look_first=False)
        assert server.lines == ["POST /bots", "GET /bots"]


def test_a_bot_of_a_chosen_id_is_told_from_one_that_is_the_same(cluster: str) -> None:
    """Somebody else's was made while the first request was under way, which never arrived."""
    with ClusterClient(base_url=cluster, headers={"X-API-Key": KEY}) as other:

        def lost() -> str:
            if faults := next(todo, ""):
                make_bot(other, "a")
            return faults

        todo = iter(["", "refuse"])  # the first is for what the cluster offers
        with through(cluster, lost) as client, pytest.raises(Conflict):
            client.new_bot("a", "any:1", "ethereum", "local", "foundry", identity=client.new_id())
        assert len(other.bots) == 1


@pytest.mark.parametrize("kind", CREATES)
@pytest.mark.parametrize("ahead", [0, 3600, -3600])
def test_what_a_lost_create_made_is_ours_whatever_the_clusters_clock_shows(kind: str, ahead: int) -> None:
    make, listed = CREATES[kind]
    there = datetime.now(timezone.utc) + timedelta(seconds=ahead)
    date = format_datetime(there, usegmt=True)
    with (
        serving(losing([{**listed, "created": there.isoformat()}], Date=date)) as server,
        client_of(kind, server.url) as client,
    ):
        assert str(make(client).id) == listed["id"]


OTHER = {
    "bot": {"image": "someone-elses:1"},
    "group": {"variables": ["KEY", "MORE"]},
    "credential": {"hostname": "docker.io"},
    "workspace": {"name": "Another"},
    "cluster": {"name": "Another"},
}


@pytest.mark.parametrize("kind", OTHER)
def test_what_somebody_else_made_meanwhile_is_a_conflict_that_names_the_difference(kind: str) -> None:
    make, listed = CREATES[kind]
    now = datetime.now(timezone.utc).isoformat()
    with (
        serving(losing([{**listed, "created": now, **OTHER[kind]}])) as server,
        client_of(kind, server.url) as client,
        pytest.raises(Conflict, match=f"other values of {next(iter(OTHER[kind]))}"),
    ):
        make(client)


def test_a_removal_that_never_arrived_doesnt_make_a_404_a_success() -> None:
    with serving(in_turn(answer({"detail": "no such bot"}, 404))) as server, ExitStack() as stack:
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", 0))  # not loopback, so that another attempt is made
            port = probe.getsockname()[1]

        def start(_: float) -> None:
            stack.enter_context(forwarding(port, server.server_port))

        retries = Retries(attempts=3, first_delay=0.001, sleep=start)
        with ClusterClient(base_url=f"http://0.0.0.0:{port}", retries=retries) as client, pytest.raises(NotFound):
            Bot.model_validate(BOT)._bind(client).remove()
        assert server.lines == [f"DELETE /bots/{BOT['id']}"]


@contextmanager
def forwarding(port: int, to: int) -> Iterator[None]:
    """Begin to listen, and pass one connection on."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    with socket.create_server(("0.0.0.0", port)) as listener, socket.create_connection(("127.0.0.1", to)) as inner:

        def forward() -> None:
            outer, _ = listener.accept()
            threading.Thread(target=pump, args=(inner, outer), daemon=True).start()
            pump(outer, inner)
            outer.close()

        threading.Thread(target=forward, daemon=True).start()
        yield


def test_a_removal_whose_answer_was_lost_is_no_error_and_a_second_one_is(cluster: str) -> None:
    faults = iter(["", "lose"])
    with through(cluster, lambda: next(faults, "")) as client:
        group = client.new_variable_group("g", {})
        group.remove()
        with pytest.raises(NotFound):
            group.remove()


@pytest.mark.parametrize("act", [Bot.start, Bot.stop])
def test_start_and_stop_are_tried_again(act: Callable[[Bot], None]) -> None:
    with (
        serving(in_turn(Reply(503), Reply(200, b"lost", reset_after=0), Reply(200))) as server,
        ClusterClient(base_url=server.url, retries=QUICK) as client,
    ):
        act(Bot.model_validate(BOT)._bind(client))
        assert len(server.requests) == 3


def test_an_update_is_tried_again_with_the_same_body() -> None:
    with (
        serving(in_turn(Reply(503), Reply(502), answer(GROUP))) as server,
        ClusterClient(base_url=server.url, retries=QUICK) as client,
    ):
        VariableGroup.model_validate(GROUP)._bind(client).update(KEY="1")
        assert [request.json() for request in server.requests] == [{"variables": {"KEY": "1"}}] * 3


def test_a_post_of_somebody_elses_is_sent_once() -> None:
    """The client is an `httpx.Client`: what it is given directly is repeated only if that is safe."""
    with serving(in_turn(Reply(503))) as server, ClusterClient(base_url=server.url, retries=QUICK) as client:
        assert client.post("/anything").status_code == 503
        assert client.get("/anything").status_code == 503
        assert server.lines == ["POST /anything"] + ["GET /anything"] * QUICK.attempts


def waits_of(*replies: Reply, retries: Retries) -> list[float]:
    """Return the seconds that were waited between attempts."""
    slept: list[float] = []
    patient = Retries(retries.attempts, retries.deadline, retries.first_delay, retries.longest_delay, slept.append)
    with (
        serving(in_turn(*replies)) as server,
        ClusterClient(base_url=server.url, retries=patient) as client,
        suppress(ClusterError),
    ):
        _ = client.bots
    return slept


def test_it_waits_longer_each_time_but_never_too_long() -> None:
    waits = waits_of(Reply(503), retries=Retries(attempts=8, first_delay=0.2, longest_delay=3.0))
    assert len(waits) == 7
    assert 0.1 <= waits[0] <= 0.2
    assert 0.4 <= waits[2] <= 0.8
    assert max(waits) <= 3.0


@pytest.mark.parametrize(("asked", "least"), [("2", 2.0), ("0", 0.0), ("soon", 0.0), ("9999999", 10.0), ("-5", 0.0)])
def test_it_waits_as_long_as_the_server_asks(asked: str, least: float) -> None:
    [wait] = waits_of(Reply(429, headers={"Retry-After": asked}), answer([]), retries=Retries())
    assert least <= wait <= max(least, 0.2)


def test_it_waits_until_the_date_that_the_server_names() -> None:
    from email.utils import formatdate

    moment = formatdate(time.time() + 4, usegmt=True)
    [wait] = waits_of(Reply(503, headers={"Retry-After": moment}), answer([]), retries=Retries())
    assert 2.0 <= wait <= 4.0


def test_it_gives_up_at_the_deadline() -> None:
    begun = time.monotonic()
    retries = Retries(attempts=1000, first_delay=0.1, longest_delay=0.1, deadline=0.5)
    with (
        serving(in_turn(Reply(503))) as server,
        ClusterClient(base_url=server.url, retries=retries) as client,
        pytest.raises((ServerError, RequestTimeout)),  # a busy machine may be asked right at the deadline
    ):
        _ = client.bots
    assert 0.2 < time.monotonic() - begun < 5.0
    assert 2 <= len(server.requests) <= 11


@pytest.mark.parametrize("call", ["ask", "create", "remove"])
def test_the_deadline_is_for_all_of_a_call(call: str) -> None:
    """Answers that never come, look-ups and the waits between them, together."""

    def behave(request: Request) -> Reply:
        return Reply(503, wait=0.2) if request.method == "POST" else Reply(503, wait=0.45)

    retries = Retries(attempts=1000, first_delay=0.01, longest_delay=0.01, deadline=1.0)
    with serving(behave) as server, ClusterClient(base_url=server.url, retries=retries) as client:
        bot = Bot.model_validate(BOT)._bind(client)
        begun = time.monotonic()
        with pytest.raises(ClusterError):
            {"ask": lambda: client.bots, "create": lambda: make_bot(client, "a"), "remove": bot.remove}[call]()
        assert 0.7 < time.monotonic() - begun < 1.3
        assert len(server.requests) >= 2


def test_a_server_that_asks_for_more_time_than_there_is_isnt_waited_for() -> None:
    begun = time.monotonic()
    with (
        serving(in_turn(answer({"detail": "later"}, 429, headers={"Retry-After": "9"}))) as server,
        ClusterClient(base_url=server.url, retries=Retries(deadline=1.0)) as client,
        pytest.raises(RateLimited),
    ):
        _ = client.bots
    assert time.monotonic() - begun < 1.5
    assert len(server.requests) == 1


def test_retries_can_be_turned_off() -> None:
    with (
        serving(in_turn(Reply(200, b"[]", reset_after=0))) as server,
        ClusterClient(base_url=server.url, retries=Retries(attempts=1)) as client,
        pytest.raises(ConnectionBroken),
    ):
        _ = client.bots
    assert len(server.requests) == 1
