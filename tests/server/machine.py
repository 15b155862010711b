"""A runtime whose processes do what a test says: a model of an operating system, for what would take too many bots."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.responses import JSONResponse

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import ClusterConfiguration, RestartPolicy
from ape_silverback.server.alerts import Alerts
from ape_silverback.server.app import make_app
from ape_silverback.server.bounds import BoundedConnections
from ape_silverback.server.runtimes import GONE, Capabilities, ImageError, Observation, Run, State
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.supervisor import Supervisor
from tests.server.without_extensions import WithoutExtensions

KEY = "the-key"

NEVER = RestartPolicy(policy="never")


@dataclass
class Process:
    started: datetime
    variables: dict[str, str]
    account: str | None = None
    alive: bool = True
    ready: bool = False
    stubborn: bool = False
    exit_code: int | None = None


class Machine:
    """A runtime whose processes do what the test says."""

    name = "machine"
    capabilities = Capabilities()

    def __init__(self, logs: Path | None = None) -> None:
        self.logs = logs
        self.processes: dict[uuid.UUID, Process] = {}
        self.ready_at_once = False
        self.broken = False
        self.crashing: set[str] = set()
        self.starts: list[uuid.UUID] = []
        self.broken_for: set[uuid.UUID] = set()
        self.stubborn = False
        self.twice: list[str] = []
        """Accounts that a bot was started with while another one ran with it."""

    def check(self, image: str) -> None:
        pass

    def start(self, run: Run, state: State) -> State:
        bot = run.bot
        assert bot not in self.processes or not self.processes[bot].alive, "two processes of one bot"
        if self.broken or bot in self.broken_for:
            raise ImageError("the folder is gone")
        process = Process(datetime.now(timezone.utc), dict(run.variables), run.account, stubborn=self.stubborn)
        if run.account and any(one.alive and one.account == run.account for one in self.processes.values()):
            self.twice.append(run.account)
        if run.image in self.crashing:
            process.alive, process.exit_code = False, 1
        self.processes[bot] = process
        self.starts.append(bot)
        return {}

    def poll(self, bots: Mapping[uuid.UUID, State]) -> dict[uuid.UUID, Observation]:
        return {bot: self._observe(bot) for bot in bots}

    def _observe(self, bot: uuid.UUID) -> Observation:
        process = self.processes.get(bot)
        if process is None:
            return GONE
        ready = process.ready or self.ready_at_once
        return Observation(process.alive, ready, process.started, process.exit_code)

    def end(self, bot: uuid.UUID, code: int | None) -> None:
        process = self.processes.get(bot)
        if process and process.alive:
            process.alive, process.exit_code = False, code

    def stop(self, bot: uuid.UUID, state: State) -> None:
        if bot in self.processes and not self.processes[bot].stubborn:
            self.end(bot, 0)

    def kill(self, bot: uuid.UUID, state: State) -> None:
        self.end(bot, 137)

    def discard(self, bot: uuid.UUID, state: State) -> None:
        self.processes.pop(bot, None)

    def log_file(self, bot: uuid.UUID) -> Path:
        return self.logs / str(bot) if self.logs else Path(os.devnull)

    def work_folder(self, bot: uuid.UUID) -> Path:
        return Path(os.devnull)

    def listen(self, changed: Callable[[], None]) -> bool:
        return False

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Cluster:
    """The local cluster's own application, served, with processes that are none."""

    url: str
    machine: Machine
    store: Store
    requests: list[str]
    """What came, as ``GET /bots``."""

    faults: dict[str, list[int]]
    """Request, as ``GET /bots/ID/status`` → statuses of the next answers to it; 200 for what the cluster answers."""

    @property
    def environment(self) -> dict[str, str]:
        """What leads a command to it."""
        return {"SILVERBACK_CLUSTER_URI": self.url, "SILVERBACK_CLUSTER_API_KEY": KEY}

    def client(self, **options: Any) -> ClusterClient:
        """Return our client for it."""
        return ClusterClient(base_url=self.url, headers={"X-API-Key": KEY}, **options)

    def log(self, bot: str, *lines: str) -> None:
        """Let a bot say something."""
        [found] = [one for one in self.store.bots() if one.name == bot]
        with self.machine.log_file(found.id).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def record_deployments(self, project: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Let the cluster keep lines of a project's deployments, as `deploy` writes them."""
        for number, line in enumerate(lines):
            httpx.post(
                f"{self.url}/deployments",
                params={"project": project, "after": number},
                json=line,
                headers={"X-API-Key": KEY},
                trust_env=False,
            ).raise_for_status()

    def bot(self, name: str) -> BotRecord:
        """Return what the cluster has of a bot."""
        [found] = [one for one in self.store.bots() if one.name == name]
        return found

    def runs_with(self, bot: str) -> dict[str, str]:
        """Return the variables that a bot's process was started with: those of its groups, and its configuration."""
        process = self.machine.processes[self.bot(bot).id]
        assert process.alive
        return process.variables

    def die(self, bot: str, code: int) -> None:
        """Let a bot's process end."""
        self.machine.end(self.bot(bot).id, code)


@contextmanager
def serving_cluster(
    folder: Path,
    delay: float = 0.0,
    configuration: ClusterConfiguration | None = None,
    alerts: Callable[[Supervisor], Alerts] | None = None,
    expires: Callable[[], float | None] = lambda: None,
    extensions: bool = True,
    machine: type[Machine] = Machine,
) -> Iterator[Cluster]:
    """Serve it for as long as the context lasts. A bot runs a moment after it is started.

    Args:
        folder: where it keeps things.
        delay: seconds that every answer takes longer.
        configuration: what is paid for.
        alerts: makes what notifies people of it.
        expires: up to when it is paid for.
        machine: kind of the machine that it runs bots on.
        extensions: whether it has what this package's cluster serves beyond the API of every cluster.
    """
    store = Store(folder / "cluster")
    (folder / "logs").mkdir()
    runtime = machine(folder / "logs")
    runtime.ready_at_once = True

    def variables_of(bot: BotRecord) -> dict[str, str]:
        values = {
            name: value for group in bot.configuration.environment for name, value in store.values_of(group).items()
        }
        return {"configuration": bot.configuration.model_dump_json(), **values}

    supervisor = Supervisor(store, runtime, variables_of, poll=0.02, stop_grace=0.2, remove_grace=0.2, restart=NEVER)
    app, requests = (
        make_app(
            supervisor,
            KEY,
            configuration=configuration,
            alerts=alerts(supervisor) if alerts else None,
            expires=expires,
        ),
        [],
    )

    served = app if extensions else WithoutExtensions(app)
    faults: dict[str, list[int]] = {}

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            request = f"{scope['method']} {scope['path']}"
            requests.append(request)
            await asyncio.sleep(delay)
            left = faults.get(re.sub("/[0-9a-f-]{36}", "/ID", request))
            if left and (status := left.pop(0)) != 200:
                await JSONResponse({"detail": "oops"}, status)(scope, receive, send)
                return
        await served(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(counted, port=0, http=BoundedConnections, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Cluster(f"http://127.0.0.1:{port}", runtime, store, requests, faults)
    server.should_exit = True
    server.force_exit = True  # followed logs are open requests
    thread.join()
    supervisor.end()
    store.close()
