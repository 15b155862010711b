"""Takes the screenshots of the dashboard in ``docs/userguides/images``, and measures its pages.

Run ``python docs/screenshots.py`` after a change of the dashboard: it serves a cluster whose bots are made up, and
looks at it with headless Chromium. With a folder as its argument it writes every page there, wide and narrow, light and
dark.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ape_silverback.cluster.client import ClusterClient  # noqa: E402
from ape_silverback.cluster.types import ClusterConfiguration  # noqa: E402
from tests.server.dashboard.conftest import chromium  # noqa: E402
from tests.server.machine import KEY, Cluster, serving_cluster  # noqa: E402

IMAGES = ROOT / "docs" / "userguides" / "images"
NETWORKS = ("ethereum:mainnet", "base:mainnet", "arbitrum:mainnet", "ethereum:sepolia")
NAMES = (
    "liquidator",
    "price-watcher",
    "compliance-ethereum-mainnet",
    "compliance-base-mainnet",
    "keeper",
    "oracle",
    "arb-watch",
    "vault-monitor",
    "sweeper",
    "alerts",
    "treasury",
    "mempool",
    "nft-floor",
    "gas-tracker",
    "bridge-watch",
    "peg-monitor",
    "governor",
    "yield-bot",
    "rebalancer",
    "sequencer",
)
ERROR = """Traceback (most recent call last):
  File "/home/harambe/project/bots/liquidator.py", line 48, in liquidate
    health = pool.healthFactor(position.owner)
ValueError: rate limit reached: 429 Too Many Requests"""
SIZES = {"wide": 1440, "narrow": 390}


def main() -> None:
    """Take the pictures and print the measurements."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    random.seed(7)
    with tempfile.TemporaryDirectory() as place:
        paid = ClusterConfiguration(bots=25, networks=10)
        expires = time.time() + 41 * 86400
        with serving_cluster(Path(place), configuration=paid, expires=lambda: expires) as cluster:
            bot = furnish(cluster, Path(place) / "work")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
                paths = {
                    "dashboard": "/",
                    "dashboard-bot": f"/ui/bots/{bot}",
                    "dashboard-deployments": "/ui/deployments",
                }
                if folder:
                    folder.mkdir(parents=True, exist_ok=True)
                    for scheme in ("light", "dark"):
                        for size, width in SIZES.items():
                            for name, path in {**paths, "login": "/ui/login"}.items():
                                with_page(browser, cluster, path, width, scheme, folder / f"{name}-{size}-{scheme}.png")
                else:
                    with_page(browser, cluster, "/", 1440, "light", IMAGES / "dashboard.png")
                    with_page(browser, cluster, paths["dashboard-bot"], 1440, "dark", IMAGES / "dashboard-bot.png")
                    with_page(browser, cluster, "/", 390, "dark", IMAGES / "dashboard-narrow.png")
                    with_page(
                        browser, cluster, paths["dashboard-bot"], 390, "light", IMAGES / "dashboard-bot-narrow.png"
                    )
                    with_page(
                        browser, cluster, paths["dashboard-deployments"], 1440, "light", IMAGES / "deployments.png"
                    )
                for name, path in paths.items():
                    print(name, measure(browser, cluster, path))
                browser.close()


def furnish(cluster: Cluster, work: Path) -> str:
    """Make bots that have lived for a while, and return the id of one in trouble."""
    cluster.machine.work_folder = lambda bot: work / str(bot)  # type: ignore[method-assign]
    client = ClusterClient(base_url=cluster.url, headers={"X-API-Key": KEY})
    for at, name in enumerate(NAMES):
        ecosystem, network = NETWORKS[at % 4].split(":")
        client.new_bot(
            name,
            image=f"ghcr.io/my-org/shop-{name}:v{at % 3 + 1}",
            ecosystem=ecosystem,
            network=network,
            provider="alchemy",
            account=("deployer", None, "keeper")[at % 3],
        )
    deadline = time.monotonic() + 30
    while any(bot.task.last_status != "RUNNING" for bot in client.bots.values() if bot.task):
        assert time.monotonic() < deadline, "bots don't start"
        time.sleep(0.05)
    now = datetime.now(timezone.utc)
    lines = []
    for second in range(240, 0, -6):
        stamp = (now - timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
        number = 21_480_000 - second // 12
        if second % 60 == 0:
            lines += [f"{stamp} ERROR:   liquidate - Exception: ValueError", *ERROR.splitlines()]
        elif second % 42 == 0:
            lines.append(f"{stamp} WARNING: position 0x3f…a1 is close to liquidation, health 1.02")
        else:
            lines.append(f"{stamp} INFO:    liquidate[block={number}] - 0.{random.randint(100, 999)}s")
    cluster.log("liquidator", *lines)
    bots = client.bots
    for at, name in enumerate(NAMES):
        record(work / str(bots[name].id), now, at, lag=210 if name == "vault-monitor" else at % 2)
    deploy(cluster, client)
    client.bots["alerts"].stop()
    cluster.die("liquidator", 1)
    cluster.die("oracle", 137)
    time.sleep(7)  # the cluster looks at the work of bots every few seconds
    return str(bots["liquidator"].id)


def record(work: Path, now: datetime, at: int, lag: int) -> None:
    """Write what a bot records: its tasks, and the signs of its work."""
    sessions = work / ".silverback-sessions"
    sessions.mkdir(parents=True)
    gas = 22.0
    with (sessions / "session-1.jsonl").open("w") as file:
        for second in range(3600, 0, -6):
            gas += random.uniform(-0.4, 0.4)
            task: dict[str, Any] = {
                "task_name": "liquidate",
                "execution_time": random.lognormvariate(-2.6, 0.5),
                "error": "rate limit" if random.random() < (0.06 if at == 0 else 0.0) else None,
                "completed": (now - timedelta(seconds=second)).isoformat(),
                "block_number": 21_480_000 - second // 12,
                "metrics": {
                    "gas_price": {"type": "scalar", "data": gas},
                    "positions": {"type": "scalar", "data": 140 + second // 400},
                },
            }
            file.write(f"{json.dumps(task)}\n")
    head = 21_480_000
    told = {
        "updated": (datetime.now(timezone.utc) + timedelta(seconds=1)).isoformat(),
        "blocks": True,
        "processed": head - lag,
        "processed_at": datetime.now(timezone.utc).isoformat(),
        "head": head,
        "first": 0,
        "balance": {"amount": "0.0043" if at % 3 else "1.8214", "symbol": "ETH", "time": now.isoformat()},
    }
    (work / "heartbeat.json").write_text(json.dumps(told))


def deploy(cluster: Cluster, client: ClusterClient) -> None:
    """Record three deployments of a project."""
    bots = [
        {"name": bot.name, "id": str(bot.id), "configuration": json.loads(bot.configuration.model_dump_json())}
        for bot in client.list_bots()
    ]
    origins = {
        bot["name"]: {
            "image": "registry (ape-config.yaml:4), tag: --tag",
            "ecosystem": "silverback.network (ape-config.yaml:3)",
            "network": "silverback.network (ape-config.yaml:3)",
            "provider": "default provider of the network",
            "account": f"bots.{bot['name']}.account (ape-config.yaml:12)",
        }
        for bot in bots
    }
    lines: list[dict[str, Any]] = []
    for number, (commit, outcome) in enumerate(
        (
            ("1f0c9ae4d2b37c55", dict.fromkeys(NAMES[:3], "ready: running and healthy")),
            (
                "8d21b7703fe19a42",
                {"liquidator": "ready: running and healthy", "oracle": "rolled-back: it has what it had before"},
            ),
            (
                "c4e8815a90d7b6f1",
                {
                    "liquidator": "failed: it stopped: ValueError: rate limit reached",
                    "keeper": "applied: updated and restarted",
                },
            ),
        ),
        1,
    ):
        moment = (datetime.now(timezone.utc) - timedelta(days=3 - number, hours=5, minutes=number)).isoformat()
        before = [
            {**bot, "configuration": {**bot["configuration"], "image": f"{bot['configuration']['image'][:-1]}{number}"}}
            for bot in bots
            if bot["name"] in outcome
        ]
        others = [bot for bot in bots if bot["name"] not in outcome]
        lines.append(
            {
                "id": number,
                "time": moment,
                "by": "ana@laptop",
                "commit": commit,
                "dirty": number == 2,
                "target": "production",
                "bots": before + others if number < 3 else bots,
                "origins": origins,
            }
        )
        lines.append({"id": number, "outcome": outcome})
    cluster.record_deployments("github.com/my-org/shop", lines)


def with_page(browser: Browser, cluster: Cluster, path: str, width: int, scheme: str, file: Path) -> None:
    """Take a picture of a page, all of it where that is short enough."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    if path != "/ui/login":
        log_in(page, cluster)
    page.goto(f"{cluster.url}{path}")
    page.wait_for_timeout(1500)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.screenshot(path=file, full_page=height < (2800 if width > 1000 else 1e9) and width > 1000)
    context.close()


def log_in(page: Page, cluster: Cluster) -> None:
    """Log in by a one-time link."""
    answer = httpx.get(f"{cluster.url}/ui/links", headers={"X-API-Key": KEY}, trust_env=False)
    page.goto(f"{cluster.url}{answer.json()['path']}")


def measure(browser: Browser, cluster: Cluster, path: str) -> dict[str, Any]:
    """Load a page with an empty cache, and return its weight in bytes and the time to its first paint."""
    paints = []
    weight: dict[str, Any] = {}
    for _ in range(5):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        log_in(page, cluster)
        page.goto("about:blank")
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        page.goto(f"{cluster.url}{path}")
        page.wait_for_timeout(700)
        entries = page.evaluate(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".map(one => [one.name, one.transferSize, one.decodedBodySize])"
        )
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        weight = {
            "sent": sum(one[1] for one in entries),
            "decoded": sum(one[2] for one in entries),
            "requests": len(entries),
        }
        context.close()
    return {**weight, "first_paint_ms": round(sorted(paints)[2])}


if __name__ == "__main__":
    main()
