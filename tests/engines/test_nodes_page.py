"""The dashboard's page of nodes, on a real swarm."""

from __future__ import annotations

import re

import httpx
import pytest

from ape_silverback.cluster.client import ClusterClient
from tests.engines.conftest import Server
from tests.engines.served import KEY
from tests.engines.test_conformance import RUNNING, new_bot, until
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("engines")


@pytest.mark.parametrize("server", ["swarm"], indirect=True)
def test_the_page_of_nodes_shows_the_machine_its_bots_and_what_it_is(client: ClusterClient, server: Server) -> None:
    bot = until(new_bot(client, server, "steady"), RUNNING)
    assert server.engine
    engine = server.engine.client()
    [node] = engine.nodes()
    engine.close()
    described = node["Description"]
    browser = httpx.Client(base_url=server.url, trust_env=False, follow_redirects=True)
    browser.get(httpx.get(f"{server.url}/ui/links", headers={"X-API-Key": KEY}, trust_env=False).json()["path"])

    def cells(page: str) -> list[str]:
        body = page.partition("<tbody>")[2].partition("</tbody>")[0]
        return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", body, re.DOTALL)]

    shown = wait_for(lambda: (found := cells(browser.get("/ui/nodes").text))[-1] and found)
    assert shown == [
        described["Hostname"],
        "ready",
        "manager",
        f"{described['Resources']['NanoCPUs'] / 1e9:g}",
        f"{described['Resources']['MemoryBytes'] / 1024**3:.1f} GiB",
        described["Engine"]["EngineVersion"],
        "one",
    ]
    page = browser.get(f"/ui/bots/{bot.id}").text
    assert f"<dt>Node</dt><dd>{described['Hostname']}</dd>" in page
    assert "/ui/nodes" in page
