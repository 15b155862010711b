"""Runs each bot as a service of a Docker Swarm, with one replica.

A bot without an account may run on any node; the engine starts it on another one when a node is lost. A bot with an
account stays on the node where it was first placed: an engine that lost sight of a node would start a second copy while
the first one goes on signing. Such a bot is shown as unreachable until its node answers, or until a user who knows
that the node is off moves it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import (
    ConfigReference,
    ContainerSpec,
    DriverConfig,
    Mount,
    Resources,
    RestartPolicy,
    ServiceMode,
    TaskTemplate,
    UpdateConfig,
)
from requests.exceptions import RequestException

from ape_silverback.server.runtimes import Capabilities, EngineError, Node, Observation, PlacementError, Run, State
from ape_silverback.server.runtimes.containers import (
    BOT_LABEL,
    CLUSTER_LABEL,
    EXTENSION,
    LOG_OPTIONS,
    MOST_PROCESSES,
    UNKNOWN,
    Layout,
    environment_of,
    extension_text,
    labels_of,
)
from ape_silverback.server.runtimes.docker import DockerRuntime
from ape_silverback.server.runtimes.engine import Engine, connect, engine_errors, engine_text, is_refusal, pull_error
from ape_silverback.server.runtimes.engine_log import Answer, EngineLog
from ape_silverback.server.runtimes.tasks import BEFORE, ENDED, Task, judge, kept_of

RESTART_DELAY = 10_000_000_000
"""Nanoseconds after which the engine starts a bot again that crashed, if no server did something about it before. It
doesn't wait when a node is lost."""

EXTENSION_PLACE = "/opt/ape-silverback"
"""Folder in a container for what extends the bot SDK."""

REMOVE_AFTER = 2.0
"""Seconds after which the service of a bot that ended is removed: by then its end is in the store."""


class SwarmRuntime(DockerRuntime):
    """Bots as services. The engine has to be a manager of the swarm."""

    name = "swarm"
    capabilities = Capabilities(limits=True, move=True, restart=True)

    def start(self, run: Run, state: State) -> State:
        """Start a bot; the engine pulls its image where it is placed.

        Raises:
            ImageError: the image can't be run.
            EngineError: the engine refuses.
        """
        self.check(run.image)
        with engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={run.bot}"]}):
                self._remove(service["ID"])
            bound = state.get("node") if run.account else None
            with self._logged_in(run) as engine:
                engine.create_service(**self._service(run, state, bound))
        return {**kept_of(state, bound), "signer": run.account is not None}

    def poll(self, bots: Mapping[UUID, State]) -> dict[UUID, Observation]:
        """Return how the latest run of each of these bots is.

        Raises:
            EngineError: the engine doesn't answer.
        """
        with engine_errors():
            services = self._services({"label": [f"{CLUSTER_LABEL}={self.settings.cluster}"]})
            tasks = self.engine.tasks({"service": [one["ID"] for one in services]}) if services else []
            nodes = {node.id: node for node in self._nodes()}
        of_bot = {one["Spec"]["Labels"][BOT_LABEL]: one for one in services}
        seen = {}
        for bot, state in bots.items():
            service = of_bot.get(str(bot))
            own = [Task.of(task) for task in tasks if service and task["ServiceID"] == service["ID"]]
            seen[bot] = self._see(bot, state, service, own, nodes)
        return seen

    def stop(self, bot: UUID, state: State) -> None:
        """Ask a bot to end: the engine sends SIGTERM, and SIGKILL after its grace."""
        with engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={bot}"]}):
                if _replicas(service):
                    self._scale_down(service)

    def kill(self, bot: UUID, state: State) -> None:
        """End a bot: the engine does, once its grace is over."""
        self.stop(bot, state)

    def discard(self, bot: UUID, state: State) -> None:
        """Delete a bot's service and log."""
        with engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={bot}"]}):
                self._remove(service["ID"])
        super().discard(bot, state)
        with suppress(DockerException, RequestException):  # those that lie on other nodes stay there
            for volume in self.engine.volumes(filters={"label": [f"{BOT_LABEL}={bot}"]})["Volumes"] or ():
                self.engine.remove_volume(volume["Name"])
            for config in self.engine.configs(filters={"label": [f"{BOT_LABEL}={bot}"]}):
                self.engine.remove_config(config["ID"])

    def nodes(self) -> list[Node]:
        """Return the nodes of the swarm.

        Raises:
            EngineError: the engine doesn't answer.
        """
        with engine_errors():
            return self._nodes()

    def move(self, bot: UUID, state: State, node: str) -> State:
        """Forget the node of a bot, which doesn't run there any more, and bind it to another one.

        Args:
            node: its name or id.

        Raises:
            PlacementError: the node doesn't exist, or can't take a bot.
            EngineError: the engine doesn't answer.
        """
        found = [one for one in self.nodes() if node in (one.id, one.name)]
        if not found:
            known = ", ".join(one.name for one in self.nodes())
            raise PlacementError(f"no node '{node}'; there is: {known}")
        if not found[0].available:
            raise PlacementError(f"node '{node}' is {found[0].state} and can't take a bot")
        if not state.get("signer"):
            raise PlacementError("it has no account, so the engine places it by itself")
        with engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={bot}"]}):
                self._remove(service["ID"])
        return {**kept_of(state, found[0].id), "moves": int(state.get("moves", 0)) + 1}

    def _see(
        self,
        bot: UUID,
        state: State,
        service: Mapping[str, Any] | None,
        tasks: Sequence[Task],
        nodes: Mapping[str, Node],
    ) -> Observation:
        if (end := state.get("end")) and (service is None or end["service"] == service["ID"]):
            if service:  # a server was killed before it could remove it
                self._remove(service["ID"])
            return _end_of(end)
        asked = service is not None and not _replicas(service)
        verdict = judge(tasks, nodes, state, asked=asked, there=service is not None)
        for task in tasks:
            if task.state not in BEFORE and task.id not in self._logs:
                self._follow_task(bot, task)
            if task.state in ENDED:
                self._ended_at.setdefault(task.id, time.monotonic())
        if verdict.alive or service is None:
            ready = verdict.task is not None and self._is_ready(bot, verdict.task)
            return replace(verdict.observation, ready=ready)
        if not all(self._is_drained(task.id, self._ended_at[task.id]) for task in tasks if task.state in ENDED):
            return Observation(alive=True, started_at=verdict.observation.started_at, node=verdict.observation.node)
        observation = verdict.observation
        end = {
            "service": service["ID"],
            "exit_code": observation.exit_code,
            "stopped_at": observation.stopped_at.isoformat() if observation.stopped_at else None,
            "started_at": observation.started_at.isoformat() if observation.started_at else None,
            "failure": observation.failure,
            "interrupted": observation.interrupted,
        }
        timer = threading.Timer(REMOVE_AFTER, self._remove, [service["ID"]])
        timer.daemon = True
        timer.start()
        return replace(observation, state={**kept_of(state, verdict.node or state.get("node")), "end": end})

    def _follow_task(self, bot: UUID, task: Task) -> None:
        def follow(since: str) -> Answer:
            return self.stream(f"/tasks/{task.id}/logs", since, follow=task.id not in self._ended_at)

        self._logs[task.id] = EngineLog(
            self._folder(bot), task.id, follow, lambda: task.id in self._ended_at, self.settings.log_size
        )

    @contextmanager
    def _logged_in(self, run: Run) -> Iterator[Engine]:
        """Yield a client that hands the bot's credential to the nodes that pull its image.

        It is the bot's alone: a client remembers logins, and would pull for every other bot with them. Without an
        answer of the registry, nodes run the image that they have.
        """
        if not (credential := run.credential):
            yield self.engine
            return
        engine = connect(self.settings.options)
        try:
            try:
                engine.login(credential.username, credential.password, registry=credential.hostname, reauth=True)
            except APIError as error:
                if is_refusal(text := engine_text(error)):
                    raise EngineError(pull_error(run, text)) from error
            yield engine
        finally:
            engine.close()

    def _service(self, run: Run, state: State, node: str | None) -> dict[str, Any]:
        """Return what the engine should run."""
        try:
            layout = self._layouts.of(self.engine.inspect_image(run.image))
        except ImageNotFound:  # only the nodes have it, or get it
            layout = UNKNOWN
        labels, network = labels_of(self.settings, run), self.settings.options.get("network", "bridge")
        container = ContainerSpec(
            run.image,
            args=layout.command,
            env=environment_of(run, layout, EXTENSION_PLACE),
            configs=[self._extension(run)] if layout.python_path is not None else None,
            labels=labels,
            user=layout.user,
            init=True,
            cap_drop=["ALL"],
            read_only=layout.is_sdk,
            mounts=self._mounts(run, state, layout),
            privileges={"NoNewPrivileges": True},  # engines before 25 pass over it
            stop_grace_period=int(run.stop_grace * 1e9),
        )
        template = TaskTemplate(
            container,
            resources=_resources(run),
            restart_policy=RestartPolicy(
                condition="none" if run.account else "on-failure", delay=RESTART_DELAY, window=0
            ),
            placement={"Constraints": [f"node.id=={node}"]} if node else None,
            log_driver=DriverConfig("json-file", options=LOG_OPTIONS),
            networks=None if network == "bridge" else [network],
        )
        return {
            "task_template": template,
            "name": f"silverback-{run.name}-{str(run.bot)[:8]}",
            "labels": labels,
            "mode": ServiceMode("replicated", replicas=1),
            "update_config": UpdateConfig(parallelism=1, order="stop-first"),
        }

    def _extension(self, run: Run) -> ConfigReference:
        """Return what the engine puts into the bot's container, on whatever node: the extension of the bot SDK."""
        text = extension_text()
        name = f"silverback-{run.bot}-{hashlib.sha256(text).hexdigest()[:8]}"
        if found := self.engine.configs(filters={"name": [name]}):
            identity = found[0]["ID"]
        else:
            identity = self.engine.create_config(name, text, labels=labels_of(self.settings, run))["ID"]
        return ConfigReference(identity, name, filename=f"{EXTENSION_PLACE}/{EXTENSION}", mode=0o444)

    def _mounts(self, run: Run, state: State, layout: Layout) -> list[Mount]:
        """Return where a bot may write.

        What the SDK keeps stays only for a bot that is bound to a node, in images that have the folder: another node's
        volume would be of an earlier time, and no one can open a new volume on another node to the bot's user.
        """
        kept, temporary = list(layout.brought), list(layout.scratch)
        mounts = []
        if layout.sessions in layout.there and run.account:
            name = f"{self.volume(run.bot)}-{moves}" if (moves := state.get("moves")) else self.volume(run.bot)
            mounts.append(Mount(layout.sessions, name, labels=labels_of(self.settings, run)))
        elif layout.is_sdk:
            (kept if layout.sessions in layout.there else temporary).append(layout.sessions)
        mounts += [Mount(path, None) for path in kept]  # the engine removes these with the container
        return mounts + [Mount(path, None, type="tmpfs", tmpfs_mode=0o1777) for path in temporary]

    def _scale_down(self, service: Mapping[str, Any]) -> None:
        spec = service["Spec"]
        self.engine.update_service(
            service["ID"],
            service["Version"]["Index"],
            task_template=spec["TaskTemplate"],
            name=spec["Name"],
            labels=spec["Labels"],
            mode=ServiceMode("replicated", replicas=0),
        )

    def _remove(self, service: str) -> None:
        with suppress(DockerException, RequestException):
            self.engine.remove_service(service)

    def _services(self, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(self.engine.services(filters=filters))

    def _nodes(self) -> list[Node]:
        return [_node(one) for one in self.engine.nodes()]


def _end_of(end: Mapping[str, Any]) -> Observation:
    stopped, started = (datetime.fromisoformat(end[key]) if end[key] else None for key in ("stopped_at", "started_at"))
    return Observation(
        alive=False,
        exit_code=end["exit_code"],
        stopped_at=stopped,
        started_at=started,
        failure=end["failure"],
        interrupted=end["interrupted"],
    )


def _resources(run: Run) -> Resources:
    """Return what a bot may use at most."""
    limits = run.limits
    found = Resources(cpu_limit=int(limits.cpus * 1e9) if limits.cpus else None, mem_limit=limits.memory)
    found.setdefault("Limits", {})["Pids"] = MOST_PROCESSES
    return found


def _replicas(service: Mapping[str, Any]) -> int:
    return int(service["Spec"]["Mode"]["Replicated"]["Replicas"])


def _node(node: Mapping[str, Any]) -> Node:
    resources = node["Description"]["Resources"]
    return Node(
        id=node["ID"],
        name=node["Description"]["Hostname"],
        state=node["Status"]["State"],
        availability=node["Spec"]["Availability"],
        manager=node["Spec"]["Role"] == "manager",
        cpus=resources["NanoCPUs"] / 1e9,
        memory=resources["MemoryBytes"],
        engine=node["Description"]["Engine"]["EngineVersion"],
    )
