"""Runs each bot as a container of a Docker Engine, on this machine or on another that ``DOCKER_HOST`` names.

Containers are found again by their labels. An image that the engine has isn't pulled, so what was built there needs no
registry. Variables aren't in labels or names; anyone who may use the engine can read them with ``docker inspect``.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from docker.errors import APIError, DockerException, NotFound
from docker.types import LogConfig
from requests.exceptions import RequestException

from ape_silverback.server.health import HEARTBEAT
from ape_silverback.server.runtimes import (
    GONE,
    Capabilities,
    EngineError,
    ImageError,
    Observation,
    Run,
    RuntimeSettings,
    State,
)
from ape_silverback.server.runtimes.containers import (
    BOT_LABEL,
    CLUSTER_LABEL,
    EXTENSION_FOLDER,
    LOG_OPTIONS,
    MOST_PROCESSES,
    SESSIONS,
    Layouts,
    environment_of,
    labels_of,
    sessions_archive,
)
from ape_silverback.server.runtimes.engine import (
    TIMEOUT,
    Engine,
    Followed,
    connect,
    engine_of_environment,
    moment,
    unix_time,
)
from ape_silverback.server.runtimes.engine_log import Answer, EngineLog
from ape_silverback.server.runtimes.launch import Launch

IMAGE = re.compile(r"(?=.{1,4096}$)[A-Za-z0-9][\w.\-:/]*(?:@sha256:[0-9a-f]{64})?")
"""Roughly an image reference; the engine knows it exactly."""

DRAIN = 10.0
"""Seconds that the log of a container that ended may take to arrive before its end is told anyway."""

ASK_ANEW = 1.0
"""Seconds after which the engine is asked for the rest of such a log, in place of following it."""

REFRESH = 5.0
"""Seconds for which what was copied out of a work folder is taken for new."""

LARGEST_FILE = 16 * 1024 * 1024
"""Bytes; larger files of a work folder aren't copied."""


class DockerRuntime:
    """Bots as containers.

    Args:
        settings: of the cluster; the options are ``host``, ``certificates`` and ``network``.
        engine: the client of the engine.
    """

    name = "docker"
    capabilities = Capabilities(limits=True)

    def __init__(self, settings: RuntimeSettings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self._launches: dict[UUID, Launch] = {}
        self._logs: dict[str, EngineLog] = {}
        self._ends: dict[str, Observation] = {}  # an ended container doesn't change
        self._ended_at: dict[str, float] = {}
        self._started: dict[str, datetime] = {}
        self._copied: dict[UUID, float] = {}
        self._layouts = Layouts(engine, settings.cluster)

    @classmethod
    def settle(cls, options: Mapping[str, str]) -> dict[str, str]:
        """Return the options to keep: with the engine that the environment names now, so that it stays the same one."""
        return {**engine_of_environment(), **options}

    @classmethod
    def create(cls, settings: RuntimeSettings) -> DockerRuntime:
        """Return the runtime of a cluster.

        Raises:
            EngineError: the engine doesn't answer.
        """
        return cls(settings, connect(settings.options))

    def check(self, image: str) -> None:
        """Raise if this isn't an image.

        Raises:
            ImageError: it isn't.
        """
        if image.startswith("project:"):
            raise ImageError(f"'{image}' is a folder, and this cluster runs images; build one: `deploy --build`")
        if not IMAGE.fullmatch(image):
            raise ImageError(f"'{image}' isn't a valid image reference")

    def start(self, run: Run, state: State) -> State:
        """Start a bot; its image is pulled first if the engine doesn't have it.

        Raises:
            ImageError: the image can't be run.
        """
        self.check(run.image)
        self._launches[run.bot] = Launch(self.engine, run, self._create)
        return {}

    def poll(self, bots: Mapping[UUID, State]) -> dict[UUID, Observation]:
        """Return how the latest run of each of these bots is.

        Raises:
            EngineError: the engine doesn't answer.
        """
        # Before the question: what is started while it is answered isn't in the answer.
        starting = {bot for bot, launch in self._launches.items() if not launch.finished}
        containers = self._containers()
        return {bot: self._observe(bot, containers.get(str(bot)), starting=bot in starting) for bot in bots}

    def stop(self, bot: UUID, state: State) -> None:
        """Ask a bot to end: SIGTERM. A pull of its image ends."""
        self._signal(bot, "SIGTERM")

    def kill(self, bot: UUID, state: State) -> None:
        """End a bot, and all that it started, at once."""
        self._signal(bot, "SIGKILL")

    def discard(self, bot: UUID, state: State) -> None:
        """Delete a bot's container, volume and log."""
        if launch := self._launches.pop(bot, None):
            launch.cancel()
        self.remove_containers(bot)
        with suppress(NotFound, APIError):
            self.engine.remove_volume(self.volume(bot))
        shutil.rmtree(self._folder(bot), ignore_errors=True)

    def log_file(self, bot: UUID) -> Path:
        """Return the file that a bot's log is copied to."""
        return self._folder(bot) / "log"

    def work_folder(self, bot: UUID) -> Path:
        """Return what a bot reports, else a copy of what the SDK keeps of it, at most some seconds old."""
        folder = self._folder(bot) / "work"
        if (folder / HEARTBEAT).exists():
            return folder
        if time.monotonic() - self._copied.get(bot, -REFRESH) >= REFRESH:
            self._copied[bot] = time.monotonic()
            with suppress(DockerException, RequestException, OSError, tarfile.TarError):
                if container := self._containers().get(str(bot)):
                    self._copy_sessions(container["Id"], folder)
        return folder

    def listen(self, changed: Callable[[], None]) -> bool:
        """Return False: the engine is polled."""
        return False

    def close(self) -> None:
        """Close the connection to the engine."""
        for launch in self._launches.values():
            launch.cancel()
        for log in self._logs.values():
            log.close()
        self.engine.close()

    def volume(self, bot: UUID) -> str:
        """Return the name of the volume that holds a bot's sessions."""
        return f"silverback-{bot}"

    def remove_containers(self, bot: UUID) -> None:
        """Remove a bot's containers in any state, and the volumes that only they have."""
        for container in self._list({"label": [f"{BOT_LABEL}={bot}"]}):
            if log := self._logs.pop(container["Id"], None):
                log.close()
            with suppress(NotFound):
                self.engine.remove_container(container["Id"], v=True, force=True)

    def _create(self, run: Run, image: Mapping[str, Any]) -> str:
        """Create a bot's container, with everything that it may write to, in place of those that it had."""
        self.remove_containers(run.bot)
        engine, layout, limits = self.engine, self._layouts.of(image), run.limits
        with suppress(APIError):  # it is there
            engine.create_volume(self.volume(run.bot), labels=labels_of(self.settings, run))
        host = engine.create_host_config(
            network_mode=self.settings.options.get("network", "bridge"),
            binds=[f"{self.volume(run.bot)}:{layout.sessions}"],
            read_only=layout.is_sdk,
            tmpfs=dict.fromkeys(layout.scratch, "rw,exec,mode=1777") or None,
            init=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=MOST_PROCESSES,
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            nano_cpus=int(limits.cpus * 1e9) if limits.cpus else None,
            log_config=LogConfig(type="json-file", config=LOG_OPTIONS),
        )
        created = engine.create_container(
            run.image,
            command=layout.command,
            name=f"silverback-{run.name}-{str(run.bot)[:8]}",
            environment=environment_of(run, layout, f"{layout.sessions}/{EXTENSION_FOLDER}"),
            volumes=[layout.sessions, *layout.brought],
            host_config=host,
            labels=labels_of(self.settings, run),
            user=layout.user,
        )
        container = str(created["Id"])
        engine.put_archive(container, layout.sessions, sessions_archive(run.name))
        return container

    def _observe(self, bot: UUID, container: Mapping[str, Any] | None, *, starting: bool) -> Observation:
        launch = self._launches.get(bot)
        if launch and (starting or not launch.finished):
            return Observation(alive=True, note=launch.note)
        if launch and launch.failure:
            return Observation(alive=False, failure=launch.failure)
        if container is None or container["State"] == "created":  # a server was killed before it could start it
            return GONE
        identity = container["Id"]
        if identity not in self._logs:
            self._follow(bot, identity)
        if container["State"] in ("exited", "dead", "removing"):
            return self._end_of(bot, identity)
        return Observation(True, self._is_ready(bot, identity), self._start_of(identity))

    def _end_of(self, bot: UUID, container: str) -> Observation:
        if container in self._ends:
            return self._ends[container]
        since = self._ended_at.setdefault(container, time.monotonic())
        if not self._is_drained(container, since):
            return Observation(True, self._is_ready(bot, container), self._start_of(container))
        try:
            found = self.engine.inspect_container(container)
        except NotFound:
            return GONE
        state, memory = found["State"], found["HostConfig"]["Memory"]
        bound = f" (it may use {memory / 2**20:.0f} MiB)" if memory else ""
        end = Observation(
            alive=False,
            ready=self._is_ready(bot, container),
            started_at=moment(state["StartedAt"]),
            exit_code=state["ExitCode"],
            stopped_at=moment(state["FinishedAt"]),
            note=f"out of memory{bound}" if state["OOMKilled"] else None,
        )
        self._ends[container] = end
        return end

    def _is_drained(self, source: str, ended: float) -> bool:
        """Return whether all that an ended container printed is in the log, or took too long to come."""
        log = self._logs[source]
        waited = time.monotonic() - ended
        if not log.complete and waited > ASK_ANEW:
            log.finish()
        return log.complete or waited > DRAIN

    def _follow(self, bot: UUID, container: str) -> None:
        def follow(since: str) -> Answer:
            return self.stream(f"/containers/{container}/logs", since)

        self._logs[container] = EngineLog(
            self._folder(bot),
            container,
            follow,
            lambda: container in self._ended_at or self._has_ended(container),
            self.settings.log_size,
        )

    def _has_ended(self, container: str) -> bool:
        try:
            return not self.engine.inspect_container(container)["State"]["Running"]
        except NotFound:
            return True

    def stream(self, path: str, since: str, *, follow: bool = True) -> Answer:
        """Ask the engine for the output of a container or a task, from a time on, as long as it comes."""
        parameters = {
            "follow": int(follow),
            "stdout": 1,
            "stderr": 1,
            "timestamps": 1,
            "since": unix_time(since) if since else 0,
        }
        url = f"{self.engine.base_url}/v{self.engine.api_version}{path}"
        answer = self.engine.get(url, params=parameters, stream=True, timeout=(TIMEOUT, 60.0))
        answer.raise_for_status()
        return Followed(answer)

    def _is_ready(self, bot: UUID, source: str) -> bool:
        try:
            return (self._folder(bot) / "ready").read_text(encoding="utf8") == source
        except FileNotFoundError:
            return False

    def _start_of(self, container: str) -> datetime | None:
        if container not in self._started:
            with suppress(NotFound):
                started = moment(self.engine.inspect_container(container)["State"]["StartedAt"])
                if started:
                    self._started[container] = started
        return self._started.get(container)

    def _signal(self, bot: UUID, signal: str) -> None:
        if launch := self._launches.get(bot):
            launch.cancel()
        for container in self._list({"label": [f"{BOT_LABEL}={bot}"], "status": ["running", "paused"]}):
            with suppress(NotFound, APIError):  # it ended meanwhile
                self.engine.kill(container["Id"], signal)

    def _containers(self) -> dict[str, dict[str, Any]]:
        """Return the newest container of each bot of the cluster, by the bot's id."""
        found = self._list({"label": [f"{CLUSTER_LABEL}={self.settings.cluster}"]})
        return {one["Labels"][BOT_LABEL]: one for one in sorted(found, key=lambda one: one["Created"])}

    def _list(self, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return list(self.engine.containers(all=True, filters=filters))
        except (DockerException, RequestException) as error:
            raise EngineError(f"the engine doesn't answer: {error}") from error

    def _copy_sessions(self, container: str, folder: Path) -> None:
        working = self.engine.inspect_container(container)["Config"]["WorkingDir"] or "/"
        stream, _ = self.engine.get_archive(container, f"{working}/{SESSIONS}")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if member.isreg() and member.size <= LARGEST_FILE and ".." not in path.parts and not path.is_absolute():
                    content = archive.extractfile(member)
                    target = folder / path
                    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    draft = target.with_name(f"{target.name}.new")
                    draft.write_bytes(content.read() if content else b"")
                    draft.replace(target)

    def _folder(self, bot: UUID) -> Path:
        return self.settings.folder / str(bot)
