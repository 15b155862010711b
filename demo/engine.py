"""Real Docker Engines for the demo and the tests: a daemon each, with everything that it keeps in one folder."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import docker
import psutil
from docker.errors import DockerException
from requests.exceptions import RequestException

DOCKERD = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
BUSYBOX = shutil.which("busybox")
PATIENCE = 60.0
"""Seconds that a daemon gets to answer."""


def missing() -> str | None:
    """Return why no engine can be started here; None if one can."""
    if os.geteuid() != 0:
        return "a Docker daemon can only be started by root"
    if DOCKERD is None:
        return "dockerd is not installed (apt-get install docker.io)"
    if BUSYBOX is None:
        return "busybox is not installed (apt-get install busybox-static)"
    return None


@dataclass(frozen=True)
class Engine:
    """A Docker Engine that runs.

    Attributes:
        host: as ``DOCKER_HOST`` takes it.
        namespace: network namespace that it is in, if any.
    """

    host: str
    process: subprocess.Popen[bytes] | None = None
    namespace: str | None = None

    def client(self) -> docker.APIClient:
        """Return a client of it."""
        return docker.APIClient(base_url=self.host, version="auto", timeout=60)

    def import_image(self, archive: bytes, name: str, changes: Sequence[str]) -> None:
        """Make an image of a file system."""
        client = self.client()
        try:
            client.import_image_from_data(archive, repository=name.rpartition(":")[0], tag=name.rpartition(":")[2])
            _configure(client, name, changes)
        finally:
            client.close()

    def remove_images(self, *names: str) -> None:
        """Remove images that are there."""
        client = self.client()
        for name in names:
            with suppress(DockerException):
                client.remove_image(name, force=True)
        client.close()

    def processes(self) -> list[psutil.Process]:
        """Return what runs in its containers, by their shims."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.Error):
                if self.host.removeprefix("unix://").rpartition("/")[0] in " ".join(process.info["cmdline"] or ()):
                    found += process.children(recursive=True)
        return found


def _configure(client: docker.APIClient, name: str, changes: Sequence[str]) -> None:
    """Build an image on one with lines of a Containerfile: the import takes none of them in every version."""
    text = "\n".join([f"FROM {name}", *changes]).encode()
    for event in client.build(fileobj=io.BytesIO(text), tag=name, rm=True, decode=True):
        assert "error" not in event, event


@contextmanager
def engine_here() -> Iterator[Engine]:
    """Yield the engine that answers on this machine, else one that runs as long as the context lasts.

    Raises:
        RuntimeError: none answers, and none can be started.
    """
    here = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    try:
        here.client().close()
    except (DockerException, RequestException, OSError) as error:
        if reason := missing():
            raise RuntimeError(f"no Docker Engine answers at {here.host}, and {reason}") from error
    else:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as folder, running_engine(Path(folder)) as engine:
        yield engine


@contextmanager
def running_engine(folder: Path, namespace: str | None = None) -> Iterator[Engine]:
    """Run an engine for as long as the context lasts; its containers end with it.

    Args:
        folder: everything that it keeps; short, since the path of a socket may have no more than 108 bytes.
        namespace: network namespace to run it in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "storage-driver": _storage_driver(),
        "data-root": folder / "data",
        "exec-root": folder / "exec",
        "pidfile": folder / "pid",
        "host": f"unix://{folder / 'sock'}",
    }
    # Not `ip netns exec`, which mounts /sys anew, where the daemon then finds no cgroups.
    inside = [] if namespace is None else ["nsenter", f"--net=/var/run/netns/{namespace}", *_named(namespace)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*inside, str(DOCKERD), "--iptables=false", "--bridge=none", *_options(arguments)],
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            start_new_session=True,
        )
    engine = Engine(f"unix://{folder / 'sock'}", process, namespace)
    try:
        _wait_until_it_answers(engine, process, folder / "log")
        yield engine
    finally:
        _end(engine, process, folder)


def _named(host: str) -> list[str]:
    """Return what gives a process its own host name, which is that of its node in a swarm."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]


def _options(arguments: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in arguments.items()]


def _storage_driver() -> str:
    """Return the driver that copies nothing, where the kernel has it."""
    return "overlay2" if "overlay" in Path("/proc/filesystems").read_text() else "vfs"


def _wait_until_it_answers(engine: Engine, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(DockerException, RequestException, OSError):
            client = engine.client()
            client.ping()
            client.close()
            return
        assert process.poll() is None, f"dockerd ended:\n{log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"dockerd doesn't answer:\n{log.read_text()[-2000:]}"
        time.sleep(0.1)


def _end(engine: Engine, process: subprocess.Popen[bytes], folder: Path) -> None:
    """End a daemon and all that it started, and delete what it keeps."""
    with suppress(DockerException, RequestException, OSError):
        client = engine.client()
        with suppress(DockerException):
            client.leave_swarm(force=True)
        for container in client.containers(all=True):
            with suppress(DockerException):
                client.remove_container(container["Id"], force=True, v=True)
        client.close()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    end_processes_of(folder)
    for mount in reversed(psutil.disk_partitions(all=True)):
        if Path(mount.mountpoint).is_relative_to(folder):
            subprocess.run(["umount", "-l", mount.mountpoint], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def end_processes_of(folder: Path) -> None:
    """End what a killed daemon left: its containerd, the shims, and what they run."""
    shims = []
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if any(str(folder) in argument for argument in process.info["cmdline"] or ()):
                shims.append(process)
    everything = []
    for process in shims:
        with suppress(psutil.Error):
            everything += [*process.children(recursive=True), process]
    for process in everything:
        with suppress(psutil.Error):
            process.kill()
