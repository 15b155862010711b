"""Runs each bot as a service of a Docker Swarm, with one replica.

A bot without an account may run on any node; the engine starts it on another one when a node is lost. A bot with an
account stays on the node where it was first placed: an engine that lost sight of a node would start a second copy while
the first one goes on signing. Such a bot is shown as unreachable until its node answers, or until a user who knows
that the node is off moves it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import (
    ContainerSpec,
    DriverConfig,
    Resources,
    RestartPolicy,
    ServiceMode,
    TaskTemplate,
    UpdateConfig,
)
from requests.exceptions import RequestException

from ape_silverback.server.runtimes import (
    GONE,
    Capabilities,
    EngineError,
    Node,
    Observation,
    PlacementError,
    Run,
    State,
)
from ape_silverback.server.runtimes.docker import (
    BOT_LABEL,
    CLUSTER_LABEL,
    LOG_OPTIONS,
    DockerRuntime,
    Engine,
    command_of,
    connect,
    engine_text,
    environment_of,
    labels_of,
    moment,
    pull_error,
    user_of,
)
from ape_silverback.server.runtimes.engine_log import Answer, EngineLog

RESTART_DELAY = 10_000_000_000
"""Nanoseconds after which the engine starts a bot again that crashed, if no server did something about it before. It
doesn't wait when a node is lost."""

REMOVE_AFTER = 2.0
"""Seconds after which the service of a bot that ended is removed: by then its end is in the store."""

BEFORE = frozenset({"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"})
ENDED = frozenset({"complete", "failed", "shutdown", "rejected", "remove"})
"""States of a task whose container isn't running any more. Of an orphaned one the engine only doesn't know."""

BY_ITSELF = frozenset({"complete", "failed", "rejected"})
"""Those of them that weren't requested."""


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
        with _engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={run.bot}"]}):
                self._remove(service["ID"])
            bound = state.get("node") if run.account else None
            with self._logged_in(run) as engine:
                engine.create_service(**self._service(run, bound))
        return {"signer": run.account is not None, "node": bound}

    def poll(self, bots: Mapping[UUID, State]) -> dict[UUID, Observation]:
        """Return how the latest run of each of these bots is.

        Raises:
            EngineError: the engine doesn't answer.
        """
        with _engine_errors():
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
        with _engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={bot}"]}):
                if _replicas(service):
                    self._scale_down(service)

    def kill(self, bot: UUID, state: State) -> None:
        """End a bot: the engine does, once its grace is over."""
        self.stop(bot, state)

    def discard(self, bot: UUID, state: State) -> None:
        """Delete a bot's service and log."""
        with _engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={bot}"]}):
                self._remove(service["ID"])
        super().discard(bot, state)

    def nodes(self) -> list[Node]:
        """Return the nodes of the swarm.

        Raises:
            EngineError: the engine doesn't answer.
        """
        with _engine_errors():
            return self._nodes()

    def move(self, bot: UUID, state: State, node: str) -> State:
        """Forget the node of a bot, which doesn't run there any more, and bind it to another one.

        Args:
            node: its name or id.

        Raises:
            PlacementError: there is no such node, or it can't take a bot.
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
        with _engine_errors():
            for service in self._services({"label": [f"{BOT_LABEL}={bot}"]}):
                self._remove(service["ID"])
        return {"signer": True, "node": found[0].id}

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
            return Observation(alive=True, started_at=verdict.observation.started_at)
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
        kept = {"signer": state.get("signer", False), "node": verdict.node or state.get("node")}
        return replace(observation, state={**kept, "end": end})

    def _follow_task(self, bot: UUID, task: Task) -> None:
        def follow(since: str) -> Answer:
            return self.stream(f"/tasks/{task.id}/logs", since, follow=task.id not in self._ended_at)

        self._logs[task.id] = EngineLog(
            self._folder(bot), task.id, follow, lambda: task.id in self._ended_at, self.settings.log_size
        )

    @contextmanager
    def _logged_in(self, run: Run) -> Iterator[Engine]:
        """Yield a client that hands the bot's credential to the nodes that pull its image.

        It is the bot's alone: a client remembers logins, and would pull for every other bot with them.
        """
        if not (credential := run.credential):
            yield self.engine
            return
        engine = connect(self.settings.options)
        try:
            try:
                engine.login(credential.username, credential.password, registry=credential.hostname, reauth=True)
            except APIError as error:
                raise EngineError(pull_error(run, engine_text(error))) from error
            yield engine
        finally:
            engine.close()

    def _service(self, run: Run, node: str | None) -> dict[str, Any]:
        """Return what the engine should run."""
        try:
            config = self.engine.inspect_image(run.image)["Config"] or {}
        except ImageNotFound:  # only the nodes have it, or get it: it is run as one of the bot SDK
            config = {"Entrypoint": ["silverback"], "User": "unknown"}
        user, labels, limits = user_of(config), labels_of(self.settings, run), run.limits
        network = self.settings.options.get("network", "bridge")
        container = ContainerSpec(
            run.image,
            args=command_of(config),
            env=environment_of(run, user),
            labels=labels,
            user=user,
            init=True,
            cap_drop=["ALL"],
            stop_grace_period=int(run.stop_grace * 1e9),
        )
        template = TaskTemplate(
            container,
            resources=Resources(cpu_limit=int(limits.cpus * 1e9) if limits.cpus else None, mem_limit=limits.memory),
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


@dataclass(frozen=True)
class Task:
    """One run of a service's container, as the engine shows it.

    Attributes:
        node: id; None while it isn't placed.
        at: when the engine last heard of it.
    """

    id: str
    state: str
    created: str
    node: str | None
    at: datetime | None
    started: bool
    exit_code: int | None
    error: str | None

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Task:
        """Return a task of the Engine API."""
        status = task["Status"]
        container = status.get("ContainerStatus") or {}
        return cls(
            id=task["ID"],
            state=status["State"],
            created=task["CreatedAt"],
            node=task.get("NodeID") or None,
            at=moment(status["Timestamp"]),
            started=bool(container.get("ContainerID")),
            exit_code=container.get("ExitCode", 0) if container.get("ContainerID") else None,
            error=status.get("Err"),
        )


@dataclass(frozen=True)
class Verdict:
    """What the tasks of a service mean for its bot.

    Attributes:
        task: id of the one that decided, if any.
        node: id of its node.
    """

    observation: Observation
    task: str | None = None
    node: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the bot runs, or may run."""
        return self.observation.alive


def judge(
    tasks: Sequence[Task],
    nodes: Mapping[str, Node],
    state: State,
    *,
    asked: bool,
    there: bool,
    now: datetime | None = None,
) -> Verdict:
    """Return how a bot is, from the tasks of its service.

    Of a bot without an account the newest task counts. One with an account has ended only when the engine has seen all
    of its tasks end: a task that vanished while its node was away has not.

    Args:
        tasks: of its service.
        nodes: of the swarm, by id.
        state: what was remembered of the bot.
        asked: whether it was asked to end.
        there: whether it has a service.
        now: the time (default: the real one).
    """
    ordered = sorted(tasks, key=lambda task: task.created)
    signer = bool(state.get("signer"))
    if signer:
        ordered = [task for task in ordered if task.state not in ENDED] or ordered[-1:]
    bound = state.get("node")
    if not ordered:
        if signer and state.get("unreachable_since") and not _answers(nodes, bound):
            return Verdict(_unreachable(state, nodes, bound, now), node=bound)
        if not there:
            return Verdict(GONE)
        if asked:
            return Verdict(Observation(alive=False), node=bound)
        return Verdict(Observation(alive=True, note="waits for a node"), node=bound)
    task = ordered[-1]
    if len(ordered) > 1 and task.state in BEFORE and ordered[-2].state in BY_ITSELF:
        task = ordered[-2]  # the engine would start it again soon: what follows a crash isn't the engine's to decide
    node = task.node or bound
    name = _name(nodes, node)
    if task.state in ENDED:
        started = task.started or task.exit_code is not None
        return Verdict(
            Observation(
                alive=False,
                exit_code=task.exit_code,
                stopped_at=task.at,
                failure=None if started else (task.error or "the engine doesn't tell why"),
                interrupted=task.state == "shutdown" and not asked,
                node=name,
            ),
            task.id,
            node,
        )
    if signer and task.node and (task.state == "orphaned" or not _answers(nodes, task.node)):
        return Verdict(_unreachable(state, nodes, task.node, now), task.id, node)
    note = None
    if task.state in BEFORE:
        note = task.error or {"preparing": f"{name} prepares it, and pulls its image if need be"}.get(
            task.state, "waits for a node"
        )
    kept = None
    if signer and (state.get("unreachable_since") or state.get("node") != node):
        kept = {"signer": True, "node": node}
    running = task.at if task.state == "running" else None
    return Verdict(Observation(alive=True, note=note, node=name, started_at=running, state=kept), task.id, node)


def _unreachable(state: State, nodes: Mapping[str, Node], node: str | None, now: datetime | None) -> Observation:
    since = state.get("unreachable_since")
    moment_ = datetime.fromisoformat(since) if since else now or datetime.now(timezone.utc)
    name = _name(nodes, node)
    kept = {"signer": True, "node": node, "unreachable_since": moment_.isoformat()}
    return Observation(
        alive=True,
        note=f"its node {name} doesn't answer",
        unreachable_since=moment_,
        node=name,
        state=None if since else kept,
    )


def _answers(nodes: Mapping[str, Node], node: str | None) -> bool:
    return node is not None and node in nodes and nodes[node].state == "ready"


def _name(nodes: Mapping[str, Node], node: str | None) -> str | None:
    return nodes[node].name if node is not None and node in nodes else node


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


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn what the engine refuses into ``EngineError``."""
    try:
        yield
    except (DockerException, RequestException) as error:
        raise EngineError(engine_text(error)) from error
