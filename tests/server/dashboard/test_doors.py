"""Who gets in, and what a page may load."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest

import ape_silverback.server.dashboard as dashboard
from ape_silverback.server.authentication import Grant
from ape_silverback.server.dashboard.sessions import LINK_LIFE, SESSION_LIFE, Sessions
from ape_silverback.server.runtimes import Node
from tests.conftest import Ape
from tests.server.dashboard.conftest import Site
from tests.server.machine import KEY

STATIC = Path(dashboard.__file__).with_name("static")


@pytest.fixture
def outside(site: Site) -> httpx.Client:
    """A client that isn't logged in."""
    return httpx.Client(base_url=site.url, trust_env=False)


@pytest.fixture
def inside(site: Site) -> httpx.Client:
    """A client that is logged in."""
    client = httpx.Client(base_url=site.url, trust_env=False)
    assert client.get(site.link(), follow_redirects=True).status_code == 200
    return client


def test_a_link_opens_one_session_and_only_for_a_while() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    link = sessions.new_link(Grant("read"))
    assert (sessions.use_link(link), sessions.use_link(link)) == (Grant("read"), None)
    late = sessions.new_link(Grant("write"))
    now[0] += LINK_LIFE
    assert sessions.use_link(late) is None
    session = sessions.open(Grant("write"))
    assert sessions.grant_of(session) == Grant("write")
    now[0] += SESSION_LIFE
    assert sessions.grant_of(session) is None


def test_a_session_ends_when_it_is_closed() -> None:
    sessions = Sessions()
    session = sessions.open(Grant("write"))
    sessions.close(session)
    assert [sessions.grant_of(token) for token in (session, "", None, "x", "\udc80")] == [None] * 5


def test_nothing_shows_without_a_session(outside: httpx.Client, site: Site) -> None:
    bot = site.bot("secret")
    pages = ["/", "/ui/deployments", f"/ui/bots/{bot.id}", f"/ui/bots/{bot.id}/charts", "/ui/confirm/stop"]
    for path in pages:
        answer = outside.get(path)
        assert (answer.status_code, "secret" in answer.text) == (303, False)
        assert answer.headers["location"].startswith("/ui/login?next=")
    for path in ("/ui/events", f"/ui/bots/{bot.id}/log"):
        assert outside.get(path, headers={"Accept": "text/event-stream"}).status_code == 401
    assert outside.get("/ui/links").status_code == 401
    assert outside.post(f"/ui/do/stop?bot={bot.id}").status_code == 303
    assert site.client.bots["secret"].task.last_status == "RUNNING"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"HX-Request": "true", "Origin": "http://evil.example"},
        {"HX-Request": "true", "Sec-Fetch-Site": "cross-site"},
        {"HX-Request": "true", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_what_another_site_sends_does_nothing(inside: httpx.Client, site: Site, headers: dict[str, str]) -> None:
    name = f"target-{len(site.client.bots)}"
    bot = site.bot(name)
    assert inside.post("/ui/do/stop", data={"bot": str(bot.id)}, headers=headers).status_code == 403
    assert site.client.bots[name].task.last_status == "RUNNING"  # type: ignore[union-attr]


def test_a_login_leads_nowhere_else(outside: httpx.Client) -> None:
    for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
        answer = outside.post("/ui/login", data={"key": KEY, "next": elsewhere})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_page_may_load_nothing_from_elsewhere(inside: httpx.Client) -> None:
    answer = inside.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "style=" not in answer.text
    assert "onclick" not in answer.text
    assert answer.text.count("<script") == answer.text.count('<script src="/ui/static/')


def test_what_is_vendored_is_what_was_published() -> None:
    listed = json.loads((STATIC / "vendor" / "vendored.json").read_text())
    for one in listed:
        content = (STATIC / "vendor" / one["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"], one["file"]
        assert (STATIC / "vendor" / one["licence_file"]).read_text()
    files = {one["file"] for one in listed} | {one["licence_file"] for one in listed} | {"vendored.json"}
    assert {file.name for file in (STATIC / "vendor").iterdir()} == files


def test_the_command_line_opens_it(site: Site, outside: httpx.Client, ape: Ape) -> None:
    result = ape("silverback", "cluster", "open", "--print", **site.cluster.environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert outside.get(result.stdout.strip(), follow_redirects=True).status_code == 200
    assert outside.get(result.stdout.strip()).status_code == 401


def test_deployments_that_were_recorded_here_are_shown_as_text(inside: httpx.Client, site: Site) -> None:
    lines: list[dict[str, object]] = [
        {"id": 1, "time": "2026-11-01T12:00:00Z", "by": "me@laptop", "commit": "a" * 40, "what": "deploy"},
        {"id": 1, "outcome": {"alpha": "ready", "<b>beta</b>": "failed: it stopped"}},
        {"id": 2, "time": "2026-11-02T12:00:00Z", "by": "me@laptop", "target": "my target"},
        {"id": 3, "time": "yesterday", "by": 7},
        {"written": "by a client of the future"},
    ]
    for number, line in enumerate(lines):
        query = {"project": "shop", "after": str(number)}
        answer = httpx.post(
            f"{site.url}/deployments", params=query, json=line, headers={"X-API-Key": KEY}, trust_env=False
        )
        assert answer.status_code == 200, answer.text
    page = inside.get("/ui/deployments").text
    assert page.index("ape silverback cluster rollback --to 2 --target &#39;my target&#39;") < page.index(
        "<code>aaaaaaaa</code>"
    )
    assert '<li class="bad">&lt;b&gt;beta&lt;/b&gt;: failed: it stopped</li>' in page
    assert "still going on, or cut off" in page
    assert "yesterday" not in page


def test_a_key_that_may_only_read_sees_everything_and_changes_nothing(site: Site, outside: httpx.Client) -> None:
    bot = site.bot("watched")
    key = site.new_key("viewer", "read")
    assert outside.post("/ui/login", data={"key": key.secret}).status_code == 303
    for path in ("/", f"/ui/bots/{bot.id}"):
        page = outside.get(path)
        assert (page.status_code, "watched" in page.text, "Read-only" in page.text) == (200, True, True)
        assert "hx-get" not in page.text
        assert "hx-post" not in page.text
        assert "checkbox" not in page.text
    sent = {"HX-Request": "true"}
    assert outside.get(f"/ui/confirm/stop?bot={bot.id}").status_code == 403
    assert outside.post("/ui/do/stop", data={"bot": str(bot.id)}, headers=sent).status_code == 403
    assert outside.post(f"/ui/bots/{bot.id}/acknowledge", headers=sent).status_code == 403
    assert site.client.bots["watched"].task.last_status == "RUNNING"  # type: ignore[union-attr]


def test_a_revoked_key_opens_nothing_any_more_also_where_it_is_logged_in(site: Site, outside: httpx.Client) -> None:
    key = site.new_key("goes", "write")
    link = httpx.get(f"{site.url}/ui/links", headers={"X-API-Key": key.secret}, trust_env=False).json()["path"]
    assert outside.post("/ui/login", data={"key": key.secret}).status_code == 303
    assert outside.get("/").status_code == 200
    key.revoke()
    assert outside.get("/").status_code == 303
    assert outside.get(link).status_code == 401
    assert outside.post("/ui/login", data={"key": key.secret}).status_code == 401


def test_the_pages_weigh_little_on_the_wire(inside: httpx.Client, site: Site) -> None:
    bot = site.bot("light")
    for path, most in (("/", 65_000), (f"/ui/bots/{bot.id}", 95_000)):
        page = inside.get(path)
        weight = len(page.content)
        for address in set(re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', page.text)):
            with inside.stream("GET", address) as answer:
                weight += len(b"".join(answer.iter_raw()))
        assert weight < most


def test_nodes_are_shown_where_there_are_several(
    site: Site, inside: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inside.get("/ui/nodes").status_code == 404
    node = Node("id-1", "<b>left</b>", "ready", "drain", manager=True, cpus=4, memory=8 << 30, engine="20.10.24")
    for name in ("settle", "create", "move"):
        monkeypatch.setattr(site.cluster.machine, name, lambda *_: {}, raising=False)
    monkeypatch.setattr(site.cluster.machine, "nodes", lambda: [node], raising=False)
    page = inside.get("/ui/nodes").text
    assert "&lt;b&gt;left&lt;/b&gt;" in page
    assert "ready (drain)" in page
    assert "8.0 GiB" in page
    assert '<a href="/ui/nodes" aria-current="page">Nodes</a>' in page
