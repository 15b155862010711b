"""Runs each bot as a container of a Docker Engine, on this machine or on another that ``DOCKER_HOST`` names.

Containers are found again by their labels. An image that the engine has isn't pulled, so what was built there needs no
registry. Variables aren't in labels or names; anyone who may use the engine can read them with ``docker inspect``.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from uuid import UUID

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import CancellableStream
from docker.utils import kwargs_from_env, parse_repository_tag
from requests.exceptions import RequestException

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
from ape_silverback.server.runtimes.engine_log import Answer, EngineLog

LABEL = "io.ape-silverback"
CLUSTER_LABEL, BOT_LABEL, NAME_LABEL = f"{LABEL}.cluster", f"{LABEL}.bot", f"{LABEL}.name"

IMAGE = re.compile(r"(?=.{1,4096}$)[A-Za-z0-9][\w.\-:/]*(?:@sha256:[0-9a-f]{64})?")
"""Roughly an image reference; the engine knows it exactly."""

TIMEOUT = 30
"""Seconds that the engine gets for an answer."""

SESSIONS = ".silverback-sessions"
"""Where the bot SDK keeps its state and records, in the folder that it runs in."""

SDK_FOLDER = "/home/harambe/project"
"""Work folder of the bot SDK's images, and of ours. What a bot writes there is known, so the rest can be read-only."""

SDK_WRITES = (
    *(f"/home/harambe/{name}" for name in (".ape", ".cache", ".silverback")),
    *(f"{SDK_FOLDER}/{name}" for name in (".build", ".cache")),
)

TMP = "/tmp"  # noqa: S108 - of the container

NO_USER = "65534:65534"
"""Who a bot is whose image names no user, or root."""

MOST_PROCESSES = 512
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
"""The engine's own copy of a log is only on the way to the cluster's."""

DRAIN = 10.0
"""Seconds that the log of a container that ended may take to arrive before its end is told anyway."""

ASK_ANEW = 1.0
"""Seconds after which the engine is asked for the rest of such a log, in place of following it."""

REFRESH = 5.0
"""Seconds for which what was copied out of a work folder is taken for new."""

LARGEST_FILE = 16 * 1024 * 1024
"""Bytes; larger files of a work folder aren't copied."""

Engine = Any
"""The low-level client of PyPI ``docker``, whose types are incomplete."""


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
        self.folders: dict[str, frozenset[str]] = {}

    @classmethod
    def settle(cls, options: Mapping[str, str]) -> dict[str, str]:
        """Return the options to keep: with the engine that the environment names now, so that it stays the same one."""
        found = _engine_of_environment()
        return {**found, **options}

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
        self._launches[run.bot] = Launch(self, run)
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
        """Return a copy of what the SDK keeps of a bot, at most some seconds old."""
        folder = self._folder(bot) / "work"
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
        """Remove a bot's containers, whatever their state, and the volumes that only they have."""
        for container in self._list({"label": [f"{BOT_LABEL}={bot}"]}):
            if log := self._logs.pop(container["Id"], None):
                log.close()
            with suppress(NotFound):
                self.engine.remove_container(container["Id"], v=True, force=True)

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
            state = self.engine.inspect_container(container)["State"]
        except NotFound:
            return GONE
        end = Observation(
            alive=False,
            ready=self._is_ready(bot, container),
            started_at=moment(state["StartedAt"]),
            exit_code=state["ExitCode"],
            stopped_at=moment(state["FinishedAt"]),
            note="out of memory" if state["OOMKilled"] else None,
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
            "since": _unix(since) if since else 0,
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


class Followed:
    """An answer of the engine that another thread may end, while it is read."""

    def __init__(self, answer: requests.Response) -> None:
        self.answer = answer
        self.raw = cast("IO[bytes]", answer.raw)

    def close(self) -> None:
        """End it, and the read that waits for more of it."""
        CancellableStream(iter(()), self.answer).close()


class Launch:
    """One start of a bot, in a thread: pull, create, start.

    Attributes:
        note: what it is doing.
        failure: why the bot couldn't be started; None while it isn't known, or when it was.
        finished: whether there is nothing more to come.
    """

    def __init__(self, runtime: DockerRuntime, run: Run) -> None:
        self.runtime = runtime
        self.run = run
        self.note: str | None = None
        self.failure: str | None = None
        self.finished = False
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"start of {run.name}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End it before the bot is started, if that is still possible, and wait for that."""
        self._cancelled.set()
        self._thread.join(timeout=TIMEOUT)

    def _run(self) -> None:
        engine = self.runtime.engine
        try:
            image = self._image(engine)
            if not self._cancelled.is_set():
                self.runtime.remove_containers(self.run.bot)
                container = self._create(engine, image)
                if not self._cancelled.is_set():
                    engine.start(container)
        except (DockerException, RequestException, EngineError, OSError) as error:
            self.failure = engine_text(error)
        finally:
            if self._cancelled.is_set():
                self.failure = self.failure or "stopped before it was started"
            self.finished = True

    def _image(self, engine: Engine) -> dict[str, Any]:
        """Return the image as the engine has it, pulled if need be."""
        with suppress(ImageNotFound):
            return dict(engine.inspect_image(self.run.image))
        self.note = f"pulling {self.run.image}"
        repository, tag = parse_repository_tag(self.run.image)
        credential = self.run.credential
        login = {"username": credential.username, "password": credential.password} if credential else None
        layers: dict[str, str] = {}
        try:
            events = engine.pull(repository, tag or "latest", stream=True, decode=True, auth_config=login)
        except APIError as error:
            raise EngineError(pull_error(self.run, engine_text(error))) from error
        for event in events:
            if self._cancelled.is_set():
                break
            if "error" in event:
                raise EngineError(pull_error(self.run, str(event["error"])))
            if "id" in event and event.get("status", "").split(":")[0] != "Pulling from":
                layers[event["id"]] = event.get("status", "")
            there = sum(status in ("Pull complete", "Already exists") for status in layers.values())
            self.note = f"pulling {self.run.image}: {there} of {len(layers)} layers"
        self.note = None
        return dict(engine.inspect_image(self.run.image)) if not self._cancelled.is_set() else {}

    def _create(self, engine: Engine, image: Mapping[str, Any]) -> str:
        """Create the container, with everything that it may write to."""
        runtime, run, config = self.runtime, self.run, image["Config"] or {}
        folder = config.get("WorkingDir") or "/"
        sessions = f"{folder.rstrip('/')}/{SESSIONS}"
        known = folder == SDK_FOLDER
        kept = self._folders_of(engine, str(image["Id"])) if known else frozenset()
        user = user_of(config)
        limits = run.limits
        with suppress(APIError):  # it is there
            engine.create_volume(runtime.volume(run.bot), labels=labels_of(runtime.settings, run))
        host = engine.create_host_config(
            network_mode=runtime.settings.options.get("network", "bridge"),
            binds=[f"{runtime.volume(run.bot)}:{sessions}"],
            read_only=known,
            # What the image brings is copied into a volume with its owner; a new volume would belong to root.
            tmpfs={path: "rw,exec,mode=1777" for path in (TMP, *SDK_WRITES) if path not in kept} if known else None,
            init=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=MOST_PROCESSES,
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            nano_cpus=int(limits.cpus * 1e9) if limits.cpus else None,
            log_config=docker.types.LogConfig(type="json-file", config=LOG_OPTIONS),
        )
        created = engine.create_container(
            run.image,
            command=command_of(config),
            name=f"silverback-{run.name}-{str(run.bot)[:8]}",
            environment=environment_of(run, user),
            volumes=[sessions, *sorted(kept)],
            host_config=host,
            labels=labels_of(runtime.settings, run),
            user=user,
        )
        container = str(created["Id"])
        engine.put_archive(container, sessions, _open_folder(run.name))
        return container

    def _folders_of(self, engine: Engine, image: str) -> frozenset[str]:
        """Return which of the folders that the bot SDK writes to an image has."""
        if image not in self.runtime.folders:
            labels = {CLUSTER_LABEL: f"{self.runtime.settings.cluster}-look"}
            container = engine.create_container(image, command=["look"], labels=labels)["Id"]
            try:
                url = f"{engine.base_url}/v{engine.api_version}/containers/{container}/archive"
                there = (path for path in SDK_WRITES if engine.head(url, params={"path": path}, timeout=TIMEOUT).ok)
                self.runtime.folders[image] = frozenset(there)
            finally:
                engine.remove_container(container, force=True)
        return self.runtime.folders[image]


def connect(options: Mapping[str, str]) -> Engine:
    """Return a client of the engine that the options name, else the environment.

    Raises:
        EngineError: it doesn't answer.
    """
    options = {**_engine_of_environment(), **options} if "host" not in options else options
    arguments: dict[str, Any] = {"base_url": options["host"]} if "host" in options else {}
    if folder := options.get("certificates"):
        place = Path(folder)
        arguments["tls"] = docker.tls.TLSConfig(
            client_cert=(str(place / "cert.pem"), str(place / "key.pem")), ca_cert=str(place / "ca.pem"), verify=True
        )
    if options.get("host", "").startswith("ssh://"):
        arguments["use_ssh_client"] = True
    try:
        engine = docker.APIClient(version="auto", timeout=TIMEOUT, **arguments)
        engine.ping()
    except (DockerException, RequestException, OSError) as error:
        where = options.get("host", "unix:///var/run/docker.sock")
        raise EngineError(f"no Docker Engine answers at {where}: {engine_text(error)}") from error
    return engine


def labels_of(settings: RuntimeSettings, run: Run) -> dict[str, str]:
    """Return the labels by which what an engine has of a bot is found."""
    return {CLUSTER_LABEL: settings.cluster, BOT_LABEL: str(run.bot), NAME_LABEL: run.name}


def environment_of(run: Run, user: str | None) -> dict[str, str]:
    """Return a bot's environment."""
    home = {"HOME": TMP} if user == NO_USER else {}
    return {"PYTHONUNBUFFERED": "1", **home, **run.variables}


def user_of(config: Mapping[str, Any]) -> str | None:
    """Return who a bot is in its container; None for who its image says, unless that is root."""
    named = str(config.get("User") or "").partition(":")[0]
    return None if named not in ("", "root", "0") else NO_USER


def command_of(config: Mapping[str, Any]) -> list[str] | None:
    """Return what an image is run with: ``run`` for one of the bot SDK that names no command, else its own."""
    entry = config.get("Entrypoint") or []
    return ["run"] if entry and PurePosixPath(entry[0]).name == "silverback" and not config.get("Cmd") else None


def moment(text: str) -> datetime | None:
    """Return a time of the engine; None for the one that means none."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    found = datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc, microsecond=int(f"{fraction:0<6}"[:6]))
    return found if found.year > 1 else None


def pull_error(run: Run, text: str) -> str:
    """Return why an image can't be pulled, from what the engine or the registry answered."""
    refused = any(word in text.lower() for word in ("unauthorized", "authentication required", "no basic auth"))
    if refused and run.credential:
        credential = run.credential
        text = (
            f"{credential.hostname} refused the bot's registry credential (user {credential.username}); "
            "correct it with `ape silverback cluster registry update`"
        )
    elif refused:
        text = f"{text}; the registry needs a credential: give the bot one"
    return f"image '{run.image}' can't be pulled: {text}"


def engine_text(error: Exception) -> str:
    """Return an engine's reason for a failure, in one line."""
    text = str(error.explanation if isinstance(error, APIError) and error.explanation else error)
    return " ".join(text.split())


def _engine_of_environment() -> dict[str, str]:
    """Return where the engine is that ``DOCKER_HOST`` or Docker's current context names."""
    if host := kwargs_from_env().get("base_url"):
        secured = os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH")
        folder = os.environ.get("DOCKER_CERT_PATH") or str(Path.home() / ".docker")
        return {"host": host, **({"certificates": folder} if secured else {})}
    with suppress(DockerException, OSError, KeyError):
        if host := ContextAPI.kwargs_from_context().get("base_url"):
            return {"host": host}
    return {}


def _open_folder(name: str) -> bytes:
    """Return an archive with a folder that everybody in the container may write to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    return buffer.getvalue()


def _unix(stamp: str) -> str:
    """Return a stamp of a log as seconds since 1970, with nanoseconds."""
    found, fraction = stamp.rstrip("Z").split(".")
    seconds = datetime.fromisoformat(found).replace(tzinfo=timezone.utc).timestamp()
    return f"{seconds:.0f}.{fraction}"
