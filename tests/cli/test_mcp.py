"""The cluster as tools for language models, asked by the protocol's own client."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ape_silverback.cluster.client import ClusterClient
from tests.conftest import ape_command, environment_of
from tests.server.machine import Cluster
from tests.waiting import wait_for

if TYPE_CHECKING:
    from mcp import Client  # imported where it is used: it costs each process of the tests a second

pytestmark = pytest.mark.xdist_group("cli-mcp")

UPSTREAM = {
    *("cluster_url", "cluster_version", "cluster_configuration", "cluster_health", "list_variable_groups"),
    *("variable_group_info", "new_bot", "list_bots", "bot_info", "update_bot", "remove_bot", "bot_logs"),
    *("start_bot", "stop_bot"),
}
CHANGING = {"new_bot", "update_bot", "remove_bot", "start_bot", "stop_bot", "deploy"}
SECTION = """
silverback:
  network: ethereum:mainnet:node
  registry: ghcr.io/me
  environment: [rpc]
  variables:
    rpc: [RPC_KEY]
"""


@pytest.fixture
def bots(project: Path) -> Path:
    (project / "bots").mkdir()
    (project / "bots" / "blocks.py").touch()
    (project / "ape-config.yaml").write_text(SECTION)
    return project


@pytest.fixture
def ask(served: Cluster, home: Path, bots: Path, client: ClusterClient) -> Callable[..., None]:
    """Run a conversation with `ape silverback cluster mcp`, over stdin and stdout."""

    from mcp import Client, StdioServerParameters

    def ask(talk: Callable[[Client], Awaitable[None]], *options: str) -> None:
        environment = {**environment_of(home), **served.environment, "RPC_KEY": "very-secret"}
        command = ["silverback", "cluster", "mcp", *options]
        server = StdioServerParameters(command=ape_command(), args=command, env=environment, cwd=bots)

        async def run() -> None:
            async with Client(server, read_timeout_seconds=60) as connected:
                await talk(connected)

        asyncio.run(run())

    return ask


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    found = result.structured_content or {}
    return found.get("result", found)


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """Return why a call is refused."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


def test_a_plan_is_shown_applied_by_its_hash_and_the_bot_stopped(
    ask: Callable[..., None], served: Cluster, client: ClusterClient
) -> None:
    async def talk(server: Client) -> None:
        tools = {tool.name: tool.annotations for tool in (await server.list_tools()).tools}
        assert set(tools) >= UPSTREAM | CHANGING
        assert {name for name, found in tools.items() if not found.read_only_hint} == CHANGING
        assert "no plan with this hash" in await refusal(server, "deploy", plan_hash="0" * 64)
        planned = await call(server, "plan")
        assert planned["changes"]
        assert "very-secret" not in json.dumps(planned)
        deployed = await call(server, "deploy", plan_hash=planned["hash"])
        assert deployed["succeeded"], deployed
        assert "no plan with this hash" in await refusal(server, "deploy", plan_hash=planned["hash"])
        served.log("blocks", *(f"2026-01-01T00:00:{second:02} INFO:     block {second}" for second in range(50)))
        lines = await call(server, "bot_logs", bot_name="blocks", lines=2)
        assert [line["message"] for line in lines] == ["block 48", "block 49"]
        assert (await call(server, "bot_health"))[0]["state"] == "running"
        assert (await call(server, "variable_group_info", vargroup_name="rpc"))["variables"] == ["RPC_KEY"]
        assert [one["what"] for one in await call(server, "history")] == ["deploy"]
        await call(server, "stop_bot", bot_name="blocks")
        assert "no bot 'block'; there is: blocks" in await refusal(server, "stop_bot", bot_name="block")
        stale = await call(server, "plan")
        await call(server, "remove_bot", bot_name="blocks")
        wait_for(lambda: not client.bots)
        assert "has changed since the plan was made" in await refusal(server, "deploy", plan_hash=stale["hash"])

    ask(talk, "--allow-changes")


def test_a_protected_bot_isnt_removed(ask: Callable[..., None], bots: Path, client: ClusterClient) -> None:
    section = SECTION + "  bots:\n    blocks:\n      protect: true\n"
    (bots / "ape-config.yaml").write_text(section)

    async def talk(server: Client) -> None:
        planned = await call(server, "plan")
        assert (await call(server, "deploy", plan_hash=planned["hash"]))["succeeded"]
        assert "blocks is protected (silverback.bots.blocks.protect in ape-config.yaml:10)" in await refusal(
            server, "remove_bot", bot_name="blocks"
        )
        (bots / "bots" / "blocks.py").rename(bots / "bots" / "others.py")
        (bots / "ape-config.yaml").write_text(SECTION)
        assert "blocks is protected by its last deployment" in await refusal(server, "remove_bot", bot_name="blocks")
        planned = await call(server, "plan", prune=True)
        assert "bot 'blocks' is protected" in await refusal(server, "deploy", plan_hash=planned["hash"])

    ask(talk, "--allow-changes")
    assert set(client.bots) == {"blocks"}


def test_without_the_option_nothing_can_be_changed(ask: Callable[..., None], client: ClusterClient) -> None:
    client.new_bot("old", "a/b:1", "ethereum", "mainnet", "node")

    async def talk(server: Client) -> None:
        tools = (await server.list_tools()).tools
        assert {tool.name for tool in tools} >= UPSTREAM - CHANGING
        assert all(tool.annotations.read_only_hint for tool in tools)
        assert not CHANGING & {tool.name for tool in tools}
        for tool in CHANGING:
            assert await refusal(server, tool, bot_name="old") == (
                f"{tool} changes the cluster, and this server only reads: start it with --allow-changes"
            )
        assert "Unknown tool" in await refusal(server, "stop_bots", bot_name="old")
        assert await call(server, "list_bots") == ["old"]
        [shown] = (await server.read_resource("silverback://bots")).contents
        assert [bot["name"] for bot in json.loads(shown.text)] == ["old"]

    ask(talk)
    assert client.bots["old"].status.name in ("STARTUP", "RUNNING")


def test_over_http_only_who_has_the_token_is_answered(served: Cluster, home: Path, bots: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp"
    environment = {**environment_of(home), **served.environment, "SILVERBACK_MCP_TOKEN": "the-token"}
    command = [ape_command(), "silverback", "cluster", "mcp", "--transport", "http", "--port", str(port)]

    async def talk() -> str:
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        headers = {"Authorization": "Bearer the-token"}
        async with (
            httpx.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(url, http_client=http), read_timeout_seconds=60) as server,
        ):
            return str(await call(server, "cluster_url"))

    with subprocess.Popen(command, cwd=bots, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    status = httpx.post(url, json={}).status_code
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < deadline, "doesn't start"
                    time.sleep(0.1)
            assert status == 401
            assert asyncio.run(talk()) == served.url
            headers = {"Authorization": "Bearer the-token", "Host": "evil.example", "Accept": "application/json"}
            assert httpx.post(url, json={}, headers=headers).status_code in (403, 421), "a name that leads here"
        finally:
            process.terminate()
            said = process.communicate(timeout=20)[1]
    assert "the-token" not in said
