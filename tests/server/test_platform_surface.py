"""The platform's routes, as clients see them: the real application on a real chain."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from silverback.cluster.client import PlatformClient as PublicClient

from ape_silverback.cluster.client import PlatformClient
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.exceptions import Conflict, NotFound, ProfileError, Unauthorized, ValidationFailed
from ape_silverback.server.daemon import Started
from ape_silverback.server.platform.app import slug_of
from ape_silverback.version import __version__
from tests.server.conftest import local_cluster
from tests.server.payer import Payer
from tests.server.test_platform import client_of
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("local-platform-surface")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, anvil: str) -> Iterator[Started]:
    """The local cluster, with the platform."""
    folder = tmp_path_factory.mktemp("home") / ".silverback" / "local"
    cluster = local_cluster(folder, "--chain", anvil, "--dev-payments")
    yield cluster.up()
    cluster.down()


@pytest.fixture
def client(started: Started) -> Iterator[PlatformClient]:
    """Our client for it, which leaves it without the workspaces that are empty."""
    with client_of(started) as client:
        yield client
        for workspace in client.workspaces.values():
            if not workspace.clusters:
                workspace.remove()


# Who gets in


@pytest.mark.parametrize("path", ["/workspaces", "/versions", "/streams/manager/1337", "/c/any/where/bots"])
@pytest.mark.parametrize("cookies", [{}, {"session": "wrong"}])
def test_without_the_session_nothing_is_told(started: Started, path: str, cookies: dict[str, str]) -> None:
    headers = {"X-API-Key": started.api_key}  # that of the direct cluster opens nothing here
    answer = httpx.get(started.running.host + path, cookies=cookies, headers=headers)
    assert answer.status_code == 401
    assert "session" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_form_of_another_site_isnt_accepted_with_the_cookie(started: Started, headers: dict[str, str]) -> None:
    assert started.platform is not None
    host, cookies = started.running.host, {"session": started.platform.session}
    before = httpx.get(f"{host}/workspaces", cookies=cookies).json()
    answer = httpx.post(f"{host}/workspaces", data={"slug": "theirs"}, cookies=cookies, headers=headers)
    assert answer.status_code == 403
    assert httpx.get(f"{host}/workspaces", cookies=cookies).json() == before
    own = {"Sec-Fetch-Site": "same-origin", "Origin": host}
    assert httpx.get(f"{host}/workspaces", cookies=cookies, headers=own).status_code == 200


def test_the_session_doesnt_open_the_direct_cluster(started: Started) -> None:
    assert started.platform is not None
    with client_of(started) as client, pytest.raises(Unauthorized):
        client.call("GET", "/bots")


# Workspaces


def test_a_workspace_is_made_renamed_and_removed(client: PlatformClient) -> None:
    made = client.create_workspace(workspace_name="Ada's Bots & Co.")
    assert (made.name, made.slug) == ("Ada's Bots & Co.", "ada-s-bots-co")
    assert made.owner
    renamed = made.update(name="Farm", slug="farm")
    assert client.workspaces["farm"] == renamed
    assert made.slug not in client.workspaces
    assert (renamed.id, renamed.name, renamed.slug) == (made.id, "Farm", "farm")
    assert renamed.update(slug="farm").slug == "farm"
    renamed.remove()
    assert "farm" not in client.workspaces
    with pytest.raises(NotFound):
        made.update(name="late")


def test_what_isnt_named_is_numbered(client: PlatformClient) -> None:
    made = {client.create_workspace().slug for _ in range(3)}
    assert len(made) == 3
    assert all(re.fullmatch(r"workspace(-\d+)?", slug) for slug in made)
    assert client.create_workspace(workspace_slug="x").name == "x"


def test_a_slug_is_taken_once(client: PlatformClient) -> None:
    one, other = client.create_workspace("one"), client.create_workspace("other")
    for attempt in (
        lambda: client.create_workspace("one"),
        lambda: client.create_workspace(workspace_name="ONE!"),
        lambda: other.update(slug="one"),
    ):
        with pytest.raises(Conflict, match=r"already a workspace 'one'|workspace 'one' exists already"):
            attempt()
    assert set(client.workspaces) == {"one", "other"}
    # In another workspace a cluster may have the same.
    assert [space.create_cluster("same").slug for space in (one, other)] == ["same", "same"]
    with pytest.raises(Conflict, match="cluster 'same' exists already"):
        one.create_cluster("same")


@pytest.mark.parametrize("slug", ["Upper", "-a", "a-", "a b", "a/b", "ä", "a" * 64, "a\n"])
def test_a_slug_that_isnt_one_is_refused(client: PlatformClient, slug: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        client.create_workspace(workspace_slug=slug)
    assert list(refused.value.fields) == ["slug"]
    assert client.workspaces.keys() & {slug} == set()


@pytest.mark.parametrize("name", [" ", "a\x1b[2J", "a" * 101])
def test_a_name_that_cant_be_shown_is_refused(client: PlatformClient, name: str) -> None:
    with pytest.raises(ValidationFailed):
        client.create_workspace(workspace_name=name, workspace_slug="fine")


@pytest.mark.parametrize(
    ("name", "slug"), [("My Bots", "my-bots"), ("  Ünïcode -- 2 ", "unicode-2"), ("漢字", ""), ("x" * 99, "x" * 63)]
)
def test_a_slug_is_made_from_a_name(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_a_name_that_gives_no_slug_asks_for_one(client: PlatformClient) -> None:
    with pytest.raises(ValidationFailed, match="give one"):
        client.create_workspace(workspace_name="漢字")
    assert client.create_workspace("kanji", "漢字").name == "漢字"


def test_a_workspace_with_a_cluster_stays(client: PlatformClient) -> None:
    workspace = client.create_workspace("full")
    workspace.create_cluster("only")
    with pytest.raises(Conflict, match="still has clusters"):
        workspace.remove()
    assert "full" in client.workspaces


# Clusters


def test_a_cluster_waits_for_payment_under_its_own_name(client: PlatformClient) -> None:
    workspace = client.create_workspace()
    made = workspace.create_cluster(cluster_name="Prod")
    assert (made.slug, made.status, made.version) == ("prod", ResourceStatus.CREATED, None)
    renamed = workspace.update_cluster(str(made.id), name="Production", slug="production")
    assert workspace.clusters == {"production": renamed}
    assert (renamed.id, renamed.name) == (made.id, "Production")
    with pytest.raises(ProfileError, match="no cluster 'prod'"):
        workspace.get_cluster_client("prod")
    with workspace.get_cluster_client("production") as cluster, pytest.raises(Conflict, match="isn't paid for yet"):
        _ = cluster.version


def test_a_cluster_is_found_in_its_own_workspace_only(client: PlatformClient) -> None:
    mine, other = client.create_workspace(), client.create_workspace()
    made = mine.create_cluster()
    assert other.clusters == {}
    with pytest.raises(NotFound):
        other.update_cluster(str(made.id), name="stolen")
    with pytest.raises(NotFound):
        other.get_stream_info(made)


def test_an_unpaid_cluster_and_an_unknown_version_cant_be_migrated(client: PlatformClient) -> None:
    workspace = client.create_workspace()
    made = workspace.create_cluster()
    assert workspace.available_versions == [__version__]
    with pytest.raises(Conflict, match="isn't running"):
        workspace.migrate_cluster(str(made.id))
    with pytest.raises(ValidationFailed, match="no version"):
        workspace.migrate_cluster(str(made.id), "0.0.1")


# Streams


def test_manager_and_tokens_are_those_of_the_chain_and_of_no_other(started: Started, client: PlatformClient) -> None:
    assert started.platform is not None
    assert client.get_stream_manager(1337) == started.platform.payments.manager
    assert client.get_accepted_tokens(1337) == dict(started.platform.payments.tokens)
    for ask in (client.get_stream_manager, client.get_accepted_tokens):
        with pytest.raises(NotFound, match="on chain 1337, not on chain 1"):
            ask(1)


# The public SDK


def test_the_public_client_speaks_to_it(started: Started, client: PlatformClient) -> None:
    assert started.platform is not None
    with PublicClient(base_url=started.running.host, cookies={"session": started.platform.session}) as public:
        workspace = public.create_workspace(workspace_name="From Outside")
        assert workspace.slug == "from-outside"
        assert workspace.build_display_fields()["owner"]
        made = workspace.create_cluster(cluster_name="Prod")
        assert (made.slug, int(made.status)) == ("prod", 0)
        with pytest.raises(Exception, match="paid for yet"):
            _ = workspace.get_cluster_client("prod").version
        assert workspace.update_cluster(str(made.id), slug="production").slug == "production"
        assert workspace.get_stream_info(made) is None
        assert workspace.available_versions == [__version__]
        assert public.get_stream_manager(1337).address == started.platform.payments.manager
    assert list(client.workspaces["from-outside"].clusters) == ["production"]


def test_strangers_dont_learn_which_clusters_there_are(started: Started, anvil: str) -> None:
    with client_of(started) as client:
        space = client.create_workspace(workspace_slug="quiet")
        paid = space.create_cluster("paid")
        tokens = client.get_accepted_tokens(1337)
        payer = Payer.at(anvil, client.get_stream_manager(1337), tokens["TEST"])
        stream = payer.pay(paid)
        wait_for(lambda: space.clusters["paid"].status is ResourceStatus.RUNNING, seconds=60)
        try:
            host = started.running.host
            for path in ("openapi.json", "health", "ui/login", "", "bots"):
                answers = [httpx.get(f"{host}/c/quiet/{name}/{path}") for name in ("paid", "none")]
                assert [one.status_code for one in answers] == [401, 401], path
                assert answers[0].content == answers[1].content
            assert client.cluster_client("quiet", "paid").version
        finally:
            payer.cancel(stream)
            wait_for(lambda: space.clusters["paid"].status is ResourceStatus.REMOVED, seconds=60)
