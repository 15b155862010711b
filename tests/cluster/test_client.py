"""Every operation of the API goes out as the contract says, and what comes back belongs to the client that asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ape_silverback.cluster.client import (
    Bot,
    ClusterClient,
    PlatformClient,
    RegistryCredentials,
    VariableGroup,
    Workspace,
)
from ape_silverback.cluster.types import ClusterInfo, ResourceStatus
from ape_silverback.exceptions import ProfileError, UnexpectedAnswer
from tests.cluster.server import BOT, CLUSTER, CREDENTIAL, GROUP, WORKSPACE, Reply, Request, answer, in_turn, serving

MANAGER = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
B, G, W, C = (
    f"/{kind}/{one['id']}"
    for kind, one in (("bots", BOT), ("vars", GROUP), ("workspaces", WORKSPACE), ("clusters", CLUSTER))
)
OF = {"workspace": WORKSPACE["id"]}


def bot(client: ClusterClient) -> Bot:
    return Bot.model_validate(BOT)._bind(client)


def group(client: ClusterClient) -> VariableGroup:
    return VariableGroup.model_validate(GROUP)._bind(client)


def credential(client: ClusterClient) -> RegistryCredentials:
    return RegistryCredentials.model_validate(CREDENTIAL)._bind(client)


def workspace(client: PlatformClient) -> Workspace:
    return Workspace.model_validate(WORKSPACE)._bind(client)


OPENAPI = {"info": {"version": "1.2", "x-config": {"cpu": 2}}}
NEW_BOT = {
    key: BOT[key]
    for key in ("name", "image", "ecosystem", "network", "provider", "account", "environment", "credential_name")
}
KEEP = {
    "name": None,
    "image": None,
    "credential_name": "<no-change>",
    "ecosystem": None,
    "network": None,
    "provider": None,
    "account": "<no-change>",
    "environment": None,
    "cluster_access": None,
}

# what is called → the answer, the request's line, query, JSON body, and what the call gives (None: not looked at)
CLUSTER_CALLS: list[tuple[Callable[[ClusterClient], Any], Any, str, dict[str, str], Any, Any]] = [
    (lambda c: c.version, OPENAPI, "GET /openapi.json", {}, None, "1.2"),
    (lambda c: c.configuration.cpu, OPENAPI, "GET /openapi.json", {}, None, 2),
    (lambda c: c.health.bots["a"].healthy, {"bots": {"a": {"healthy": True}}}, "GET /health", {}, None, True),
    (lambda c: set(c.credentials), [CREDENTIAL], "GET /credentials", {}, None, {"ghcr"}),
    (
        lambda c: c.new_credentials("ghcr", "ghcr.io", "e@x", "u", "p").id,
        CREDENTIAL,
        "POST /credentials",
        {},
        {"name": "ghcr", "hostname": "ghcr.io", "email": "e@x", "username": "u", "password": "p"},
        "c-1",
    ),
    (
        lambda c: credential(c).update(username="u2").name,
        CREDENTIAL,
        "PATCH /credentials/ghcr",
        {},
        {"hostname": None, "email": None, "username": "u2", "password": None},
        "ghcr",
    ),
    (lambda c: credential(c).remove(), None, "DELETE /credentials/ghcr", {}, None, None),
    (lambda c: set(c.variable_groups), [GROUP], "GET /vars", {}, None, {"rpc"}),
    (
        lambda c: c.new_variable_group("rpc", {"KEY": "1"}).name,
        GROUP,
        "POST /vars",
        {"name": "rpc"},
        {"KEY": "1"},
        "rpc",
    ),
    (
        lambda c: group(c).update(KEY="2", OLD=None).name,
        GROUP,
        f"PATCH {G}",
        {},
        {"variables": {"KEY": "2", "OLD": None}},
        "rpc",
    ),
    (lambda c: group(c).remove(), None, f"DELETE {G}", {}, None, None),
    (lambda c: set(c.bots), [BOT], "GET /bots", {}, None, {"a"}),
    (lambda c: c.new_bot(**NEW_BOT).name, BOT, "POST /bots", {}, {**NEW_BOT, "cluster_access": False}, "a"),
    (
        lambda c: c.new_bot(**{**NEW_BOT, "environment": None}, cluster_access=True).name,
        BOT,
        "POST /bots",
        {},
        {**NEW_BOT, "environment": [], "cluster_access": True},
        "a",
    ),
    (lambda c: bot(c).update(image="x").name, BOT, f"PATCH {B}", {}, {**KEEP, "image": "x"}, "a"),
    (
        lambda c: bot(c).update(account=None, environment=[]).name,
        BOT,
        f"PATCH {B}",
        {},
        {**KEEP, "account": None, "environment": []},
        "a",
    ),
    (lambda c: bot(c).remove(), None, f"DELETE {B}", {}, None, None),
    (lambda c: bot(c).status, 7, f"GET {B}/status", {}, None, ResourceStatus.STOPPED),
    (lambda c: bot(c).is_healthy, {"healthy": False}, f"GET {B}/health", {}, None, False),
    (lambda c: bot(c).start(), None, f"POST {B}/start", {}, None, None),
    (lambda c: bot(c).stop(), None, f"POST {B}/stop", {}, None, None),
    (lambda c: bot(c).errors, ["oh"], f"GET {B}/errors", {}, None, ["oh"]),
    (lambda c: bot(c).logs, None, f"GET {B}/logs", {"log_level": "INFO", "follow": "false"}, None, []),
]


@pytest.mark.parametrize(("call", "reply", "line", "query", "body", "gives"), CLUSTER_CALLS)
def test_an_operation_of_a_cluster(
    call: Callable[[ClusterClient], Any], reply: Any, line: str, query: dict[str, str], body: Any, gives: Any
) -> None:
    last = answer(reply) if reply is not None else Reply()
    looks = 1 if line in ("POST /vars", "POST /credentials", "POST /bots") else 0  # whether there is one of that name
    replies = in_turn(*[answer([])] * looks, last)
    with serving(replies) as server, ClusterClient(base_url=server.url, headers={"X-API-Key": "k"}) as client:
        assert call(client) == gives
        *looked, request = server.requests
    assert [one.line for one in looked] == [line.replace("POST", "GET")] * looks
    assert request.line == line
    assert request.query == query
    assert (request.json() if request.body else None) == body
    assert request.headers["X-API-Key"] == "k"
    assert request.headers["User-Agent"].startswith("ape-silverback/0.8")


PLATFORM_CALLS: list[tuple[Callable[[PlatformClient], Any], Any, str, dict[str, str], dict[str, str] | None, Any]] = [
    (lambda p: set(p.workspaces), [WORKSPACE], "GET /workspaces", {}, None, {"space"}),
    (
        lambda p: p.create_workspace("space", "Space").slug,
        WORKSPACE,
        "POST /workspaces",
        {},
        {"slug": "space", "name": "Space"},
        "space",
    ),
    (
        lambda p: p.create_workspace(workspace_name="Space").slug,
        WORKSPACE,
        "POST /workspaces",
        {},
        {"name": "Space"},
        "space",
    ),
    (lambda p: workspace(p).update(name="N").slug, WORKSPACE, f"PATCH {W}", {}, {"name": "N"}, "space"),
    (lambda p: workspace(p).remove(), None, f"DELETE {W}", {}, None, None),
    (lambda p: workspace(p).owner, {"username": "me"}, f"GET /users/{WORKSPACE['owner_id']}", {}, None, "me"),
    (lambda p: set(workspace(p).clusters), [CLUSTER], "GET /clusters", OF, None, {"cluster"}),
    (
        lambda p: workspace(p).create_cluster("cluster").slug,
        CLUSTER,
        "POST /clusters/",
        OF,
        {"slug": "cluster"},
        "cluster",
    ),
    (
        lambda p: workspace(p).update_cluster(CLUSTER["id"], slug="c").slug,
        CLUSTER,
        f"PATCH {C}",
        OF,
        {"slug": "c"},
        "cluster",
    ),
    (lambda p: workspace(p).migrate_cluster(CLUSTER["id"], "1.3"), None, f"PUT {C}", OF, {"version": "1.3"}, None),
    (lambda p: workspace(p).migrate_cluster(CLUSTER["id"]), None, f"PUT {C}", OF, None, None),
    (lambda p: workspace(p).available_versions, ["1.2"], "GET /versions", {}, None, ["1.2"]),
    (
        lambda p: str(workspace(p).get_stream_info(ClusterInfo.model_validate(CLUSTER))),
        {"chain_id": 1, "manager": MANAGER.lower(), "stream_id": 3},
        f"GET {C}/stream",
        OF,
        None,
        f"eip155:1:{MANAGER}/3",
    ),
    (lambda p: p.get_stream_manager(8453), MANAGER.lower(), "GET /streams/manager/8453", {}, None, MANAGER),
    (
        lambda p: p.get_accepted_tokens(8453),
        [{"symbol": "USDT", "address": MANAGER.lower()}],
        "GET /streams/tokens/8453",
        {},
        None,
        {"USDT": MANAGER},
    ),
]


@pytest.mark.parametrize(("call", "reply", "line", "query", "form", "gives"), PLATFORM_CALLS)
def test_an_operation_of_the_platform(
    call: Callable[[PlatformClient], Any], reply: Any, line: str, query: Any, form: Any, gives: Any
) -> None:
    looks = 1 if line.startswith("POST") else 0  # whether there is one of that slug or name
    replies = in_turn(*[answer([])] * looks, answer(reply) if reply is not None else Reply())
    with serving(replies) as server, PlatformClient(base_url=server.url, cookies={"session": "token"}) as client:
        assert call(client) == gives
        *looked, request = server.requests
    assert [one.line for one in looked] == [line.replace("POST", "GET").rstrip("/")] * looks
    assert request.line == line
    assert request.query == query
    assert (request.form() if request.body else None) == form
    if form:
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Cookie"] == "session=token"


def test_a_cluster_that_has_no_stream_gives_none() -> None:
    with serving(in_turn(Reply(200, b"null"))) as server, PlatformClient(base_url=server.url) as client:
        assert workspace(client).get_stream_info(ClusterInfo.model_validate(CLUSTER)) is None


def test_a_manager_that_is_no_address_is_no_answer() -> None:
    with (
        serving(in_turn(answer("0x12"))) as server,
        PlatformClient(base_url=server.url) as client,
        pytest.raises(UnexpectedAnswer),
    ):
        client.get_stream_manager(1)


def test_a_cluster_of_the_platform_is_reached_through_it() -> None:
    def behave(request: Request) -> Reply:
        pages = {"/workspaces": [WORKSPACE], "/clusters": [CLUSTER], "/c/space/cluster/bots": [BOT]}
        return answer(pages[request.path])

    with serving(behave) as server, PlatformClient(base_url=server.url, cookies={"session": "token"}) as platform:
        cluster = platform.get_cluster_client("space", "cluster")
        assert set(cluster.bots) == {"a"}
        assert server.requests[-1].headers["Cookie"] == "session=token"
        with pytest.raises(ProfileError, match="no workspace 'moon'; known: space"):
            platform.get_cluster_client("moon", "cluster")
        with pytest.raises(ProfileError, match="has no cluster 'moon'; known: cluster"):
            platform.get_cluster_client("space", "moon")


# Lists


def test_a_list_may_come_in_pages_that_are_linked() -> None:
    def behave(request: Request) -> Reply:
        page = int(request.query.get("page", 1))
        more = {"Link": f'</bots?page={page + 1}>; rel="next"'} if page < 3 else {}
        return answer([{**BOT, "name": f"bot-{page}"}], headers=more)

    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        assert list(client.bots) == ["bot-1", "bot-2", "bot-3"]
        assert len(server.requests) == 3


def test_a_list_may_come_in_pages_that_name_the_next() -> None:
    def behave(request: Request) -> Reply:
        page = int(request.query.get("page", 1))
        return answer(
            {"items": [{**GROUP, "name": f"g-{page}"}], "next": f"/vars?page={page + 1}" if page < 2 else None}
        )

    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        assert list(client.variable_groups) == ["g-1", "g-2"]


@pytest.mark.parametrize(
    "link",
    ["?page=2", "bots?page=2", "/c/space/cluster/bots?page=2", "/bots?page=2", "{url}/c/space/cluster/bots?page=2"],
)
def test_a_next_page_may_be_named_in_any_way(link: str) -> None:
    def behave(request: Request) -> Reply:
        if "page" in request.query:
            return answer([{**BOT, "name": "second"}])
        return answer([BOT], headers={"Link": f'<{link.format(url=server.url)}>; rel="next"'})

    with serving(behave) as server, ClusterClient(base_url=f"{server.url}/c/space/cluster") as client:
        assert list(client.bots) == ["a", "second"]
        assert server.lines == ["GET /c/space/cluster/bots"] * 2


@pytest.mark.parametrize("raw", ["nonsense", {"bots": 9999}, {"version": "x"}, [], 5])
def test_a_configuration_that_cant_be_read_stops_nothing(raw: object) -> None:
    schema = answer({"info": {"version": "9", "x-config": raw}})
    with serving(in_turn(schema)) as server, ClusterClient(base_url=server.url) as client:
        assert client.configuration is None
        assert client.version == "9"


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_dates_at_the_ends_of_time_are_read(created: str) -> None:
    replies = in_turn(answer([{**BOT, "created": created}]))
    with serving(replies) as server, ClusterClient(base_url=server.url) as client:
        assert client.bots["a"].created.year in (1, 9999)


def test_a_next_page_that_is_no_address_is_no_answer() -> None:
    replies = in_turn(answer({"items": [BOT], "next": "http://127.0.0.1:port/"}))
    with (
        serving(replies) as server,
        ClusterClient(base_url=server.url) as client,
        pytest.raises(UnexpectedAnswer, match="a next page that isn't an address"),
    ):
        _ = client.bots


def test_pages_that_go_round_in_a_circle_end() -> None:
    replies = in_turn(answer([BOT], headers={"Link": '</bots>; rel="next"'}))
    with serving(replies) as server, ClusterClient(base_url=server.url) as client:
        assert list(client.bots) == ["a"]
        assert len(server.requests) <= 2


def test_many_bots_with_groups_and_credentials_take_three_requests() -> None:
    lists = {
        "/bots": [
            {**BOT, "name": f"bot-{n}", "environment": ["rpc"], "credential_name": ("c-1", "ghcr")[n % 2]}
            for n in range(200)
        ],
        "/vars": [GROUP],
        "/credentials": [CREDENTIAL],
    }
    with serving(lambda request: answer(lists[request.path])) as server, ClusterClient(base_url=server.url) as client:
        bots = client.bots.values()
        assert [one.vargroups[0].name for one in bots] == ["rpc"] * 200
        assert [one.credential and one.credential.name for one in bots] == ["ghcr"] * 200
        assert sorted(server.lines) == ["GET /bots", "GET /credentials", "GET /vars"]


def test_a_bot_without_credentials_asks_for_none() -> None:
    with serving(in_turn(answer([BOT]))) as server, ClusterClient(base_url=server.url) as client:
        assert client.bots["a"].credential is None
        assert len(server.requests) == 1


# Whose is what


def test_what_a_client_made_stays_with_it() -> None:
    with (
        serving(in_turn(answer([BOT]))) as first,
        serving(in_turn(answer([{**BOT, "name": "b"}]))) as second,
        ClusterClient(base_url=first.url) as one,
        ClusterClient(base_url=second.url) as other,
    ):
        a, b = one.bots["a"], other.bots["b"]
        assert (a.cluster, b.cluster) == (one, other)
        first.behave = second.behave = in_turn(answer(4))
        assert (a.status, b.status) == (ResourceStatus.RUNNING, ResourceStatus.RUNNING)
        assert (len(first.requests), len(second.requests)) == (2, 2)


def test_things_are_equal_by_what_they_say_and_fit_in_sets() -> None:
    with serving(in_turn(answer([BOT]))) as server, ClusterClient(base_url=server.url) as client:
        first, second = client.bots["a"], client.bots["a"]
        assert first == second
        assert len({first, second}) == 1
        assert first != second.model_copy(update={"image": "x"})


def test_two_of_one_name_are_both_there() -> None:
    twin = "99999999-9999-4999-8999-999999999999"
    pages = {"/bots": BOT, "/vars": GROUP, "/credentials": CREDENTIAL}

    def behave(request: Request) -> Reply:
        return answer([pages[request.path], {**pages[request.path], "id": twin}])

    with serving(behave) as server, ClusterClient(base_url=server.url) as client:
        for found in (client.bots, client.variable_groups, client.credentials):
            first, second = found.values()
            assert list(found) == [first.name, f"{first.name} ({twin})"]
            assert str(second.id) == twin
