"""The dashboard of a served cluster, in a real browser."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ape_silverback.cluster.client import Bot
from tests.server.machine import KEY, Cluster, serving_cluster

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


@dataclass(frozen=True)
class NamedKey:
    """A named key of a cluster."""

    secret: str
    address: str

    def revoke(self) -> None:
        """Revoke it."""
        httpx.delete(self.address, headers={"X-API-Key": KEY}, trust_env=False).raise_for_status()


class Site:
    """A cluster with bots, its address, and ways into its dashboard."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.url = cluster.url
        self.client = cluster.client()
        cluster.machine.work_folder = lambda bot: folder / str(bot)  # type: ignore[method-assign]

    def link(self) -> str:
        """Return a one-time link."""
        answer = httpx.get(f"{self.url}/ui/links", headers={"X-API-Key": KEY}, trust_env=False)
        return self.url + str(answer.json()["path"])

    def new_key(self, name: str, role: str) -> NamedKey:
        """Make a named key."""
        body = {"name": name, "role": role}
        answer = httpx.post(f"{self.url}/keys", json=body, headers={"X-API-Key": KEY}, trust_env=False).json()
        return NamedKey(answer["key"], f"{self.url}/keys/{answer['id']}")

    def bot(self, name: str, **values: str) -> Bot:
        """Make a bot that runs."""
        given = {"image": f"ghcr.io/me/{name}:1", "ecosystem": "ethereum", "network": "mainnet", "provider": "node"}
        bot = self.client.new_bot(name, **{**given, **values})
        deadline = time.monotonic() + 20
        while self.client.bots[name].task.last_status != "RUNNING":  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return bot

    def record(self, bot: Bot, count: int, **metrics: float) -> None:
        """Let a bot record tasks of the last minutes, one a second."""
        folder = self.cluster.machine.work_folder(bot.id) / ".silverback-sessions" / bot.name
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(timezone.utc)
        with (folder / "session-1.jsonl").open("a") as file:
            for second in range(count):
                document = {
                    "task_name": "watch",
                    "execution_time": 0.05,
                    "error": None,
                    "completed": (now - timedelta(seconds=count - second)).isoformat(),
                    "block_number": second,
                    "metrics": {name: {"type": "scalar", "data": value} for name, value in metrics.items()},
                }
                file.write(f"{json.dumps(document)}\n")

    def deployed(self, bot: Bot, outcome: str) -> None:
        """Record that a bot was deployed, as a client does, and what its account has."""
        project = {"project": f"shop-{bot.name}"}
        recorded = {"name": bot.name, "id": str(bot.id), "configuration": bot.configuration.model_dump(mode="json")}
        origins = {"account": f"bots.{bot.name}.account (ape-config.yaml:8)", "image": "registry (ape-config.yaml:3)"}
        lines: list[dict[str, object]] = [
            {
                "id": 1,
                "time": datetime.now(timezone.utc).isoformat(),
                "by": "me@laptop",
                "commit": "c0ffee00" * 5,
                "bots": [recorded],
                "origins": {bot.name: origins},
            },
            {"id": 1, "outcome": {bot.name: outcome}},
        ]
        for number, line in enumerate(lines):
            httpx.post(
                f"{self.url}/deployments",
                params={**project, "after": str(number)},
                json=line,
                headers={"X-API-Key": KEY},
                trust_env=False,
            ).raise_for_status()
        work = self.cluster.machine.work_folder(bot.id)
        work.mkdir(parents=True, exist_ok=True)
        told = {"amount": "0.0021", "symbol": "ETH", "time": datetime.now(timezone.utc).isoformat()}
        (work / "heartbeat.json").write_text(json.dumps({"balance": told}))

    def say(self, bot: str, text: str, level: str = "INFO") -> None:
        """Let a bot log a line now."""
        stamp = datetime.now(timezone.utc).isoformat()
        self.cluster.log(bot, f"{stamp} {level + ':':<9} {text}")


def chromium() -> str | None:
    """Return the browser of this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield Site(cluster, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, as the machine's packages have it."""
    if (program := chromium()) is None:
        pytest.skip("Chromium isn't installed (Debian's package `chromium`)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that knows no cookie yet; any error of a script fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert not problems


@pytest.fixture
def logged_in(page: Page, site: Site) -> Page:
    """A page that is logged in, at the overview."""
    page.goto(site.link())
    return page
