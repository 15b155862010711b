"""Starts and stops the local cluster's server, from the command line's side. Imports no part of the server."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ape_silverback.exceptions import LocalClusterError
from ape_silverback.files import locked, make_private_folder, silverback_folder, write_private
from ape_silverback.server.processes import ProcessIdentity, read_json
from ape_silverback.version import __version__

if TYPE_CHECKING:
    from ape_silverback.server.notify import NotifySettings
    from ape_silverback.server.platform.payments import Payments, Wanted

HOST = "127.0.0.1"
NEEDED = (
    "fastapi",
    "uvicorn",
    "psutil",
    "cryptography",
    "silverback",
    "python_multipart",
    "jinja2",
    "prometheus_client",
    "apprise",
)
"""What the extra `local` brings."""

LOG_LINES = 15
"""Lines of the server's log that are shown when it doesn't start."""


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        host: its address, as a profile has it.
    """

    host: str
    pid: int
    started_at: datetime
    version: str


@dataclass(frozen=True)
class Started:
    """What ``up`` gives.

    Attributes:
        already: it ran before.
        platform: what pays for clusters, and what opens the platform; None without it.
    """

    running: Running
    api_key: str = field(repr=False)
    already: bool
    platform: StartedPlatform | None = None


@dataclass(frozen=True)
class StartedPlatform:
    """The platform of a server that runs."""

    payments: Payments
    session: str = field(repr=False)


class LocalCluster:
    """The local cluster of this user.

    Args:
        folder: everything that it keeps; by default ``~/.silverback/local``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or silverback_folder() / "local"

    @property
    def server_log(self) -> Path:
        """What the server printed."""
        return self.folder / "server.log"

    def running(self) -> Running | None:
        """Return the server that runs, or None."""
        match read_json(_state_file(self.folder)):
            case {"port": int(port), "started": str(started), "version": str(version), **state}:
                server = ProcessIdentity.read({str(key): value for key, value in state.items()})
                if server and server.is_alive():
                    return Running(f"http://{HOST}:{port}", server.pid, datetime.fromisoformat(started), version)
        return None

    def up(
        self,
        port: int | None = None,
        timeout: float = 30.0,
        wanted: Wanted | None = None,
        runtime: str | None = None,
        runtime_options: Mapping[str, str] | None = None,
        notify: NotifySettings | None = None,
        log_size: int | None = None,
    ) -> Started:
        """Start the server in the background and wait until it answers; one that runs already stays.

        Args:
            port: to listen on; by default the last one, or a free one when that is taken.
            timeout: seconds to wait.
            wanted: what pays for clusters; None for no platform, or for that of a server that runs.
            runtime: where bots run, by its name; None for what the cluster has, at first processes.
            runtime_options: of that runtime.
            log_size: bytes of a bot's log; None for what the cluster has, at first 50 MiB.
            notify: where notifications go; None for nowhere. A running server keeps what it has.

        Raises:
            ConfigurationError: a variable that should hold an address isn't set, or holds none.
            LocalClusterError: it can't be started, or runs with another platform or runtime; the text is the reason.
            ChainError: the chain that should pay doesn't answer, or refuses.
        """
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise LocalClusterError(
                f'the local cluster needs {", ".join(missing)}: pip install "ape-silverback[server]"'
            )
        from ape_silverback.server.runtimes.loading import choose_runtime

        make_private_folder(self.folder)
        with self._alone(timeout):
            if running := self._answering(timeout):
                platform = self._platform()
                _check_same(wanted, platform)
                self._check_runtime(runtime, runtime_options)
                self._check_log_size(log_size)
                return Started(running, key_file(self.folder).read_text(encoding="utf8"), True, platform)
            self._choose_notifications(notify)
            chosen = self._choose_port(port)
            choose_runtime(self.folder, runtime, runtime_options, log_size)
            api_key = self._keep_key()
            platform = self._prepare_platform(wanted)
            return Started(self._spawn(chosen, timeout), api_key, False, platform)

    def down(self, timeout: float = 60.0) -> bool:
        """Stop the bots, then the server.

        Args:
            timeout: seconds to wait.

        Returns:
            Whether anything ran.

        Raises:
            LocalClusterError: it didn't stop in time.
        """
        if not self.folder.exists() or find_spec("psutil") is None:
            return False
        with self._alone(timeout):
            server = ProcessIdentity.read(read_json(_state_file(self.folder)) or {})
            runs = server is not None and server.is_alive()
            if server and runs:
                os.kill(server.pid, signal.SIGTERM)
                deadline = time.monotonic() + timeout
                while server.is_alive():
                    if time.monotonic() > deadline:
                        raise LocalClusterError(
                            f"the local cluster (pid {server.pid}) didn't stop within {timeout:g} s; its log: "
                            f"{self.server_log}"
                        )
                    time.sleep(0.05)
            left = self._end_orphans()
            for file in (_state_file(self.folder), key_file(self.folder), session_file(self.folder)):
                file.unlink(missing_ok=True)
            return runs or left

    def _keep_key(self) -> str:
        """Return the key of the server that is started next: that of the one before, whose bots may still use it."""
        try:
            if key := key_file(self.folder).read_text(encoding="utf8").strip():
                return key
        except (OSError, UnicodeDecodeError):
            pass  # there is none, or none that could be used
        key = secrets.token_urlsafe(32)
        write_private(key_file(self.folder), key)
        return key

    def _end_orphans(self) -> bool:
        """End the bots that a killed server left."""
        return _end_bots(self.folder) | self._end_orphans_of_clusters()

    def _end_orphans_of_clusters(self) -> bool:
        """Likewise for those of the platform's clusters."""
        return sum(map(_end_bots, clusters_folder(self.folder).glob("*"))) > 0

    def _platform(self) -> StartedPlatform | None:
        """Return the platform of the server that runs."""
        if not payments_file(self.folder).exists():
            return None
        from ape_silverback.server.platform.payments import read_payments

        session = session_file(self.folder).read_text(encoding="utf8")
        return StartedPlatform(read_payments(payments_file(self.folder)), session)

    def _check_runtime(self, name: str | None, options: Mapping[str, str] | None) -> None:
        """Raise if a server that runs doesn't have the runtime that is asked for.

        Raises:
            LocalClusterError: it has another one, or other options.
        """
        from ape_silverback.server.runtimes.loading import read_choice, wanted_choice

        choice = read_choice(self.folder)
        wanted = wanted_choice(choice, name, options or {})
        if wanted != choice:
            difference = "other options of its runtime" if wanted.name == choice.name else f"runtime '{choice.name}'"
            raise LocalClusterError(
                f"the local cluster is running with {difference}; run `ape silverback cluster down` first, then `up` "
                "with these options again"
            )

    def _check_log_size(self, size: int | None) -> None:
        """Raise if a server that runs keeps logs of another size than is asked for.

        Raises:
            LocalClusterError: it does.
        """
        from ape_silverback.server.runtimes.loading import read_choice

        if size is not None and size != (kept := read_choice(self.folder).log_size):
            raise LocalClusterError(
                f"the local cluster is running with logs of at most {kept:,} bytes a bot; run `ape silverback cluster "
                "down` first, then `up` with --log-max-size"
            )

    def _prepare_platform(self, wanted: Wanted | None) -> StartedPlatform | None:
        """Set what pays for clusters, for the server that is started next."""
        if wanted is None:
            payments_file(self.folder).unlink(missing_ok=True)
            self._end_orphans_of_clusters()  # otherwise they would run unattended
            return None
        from ape_silverback.server.platform.payments import settle, write_payments

        payments = settle(wanted, platform_folder(self.folder))
        platform = StartedPlatform(payments, secrets.token_urlsafe(32))
        write_payments(payments_file(self.folder), payments)
        write_private(session_file(self.folder), platform.session)
        return platform

    def _answering(self, timeout: float) -> Running | None:
        """Return the server that runs once it answers, or None when there is none or it ends.

        Raises:
            LocalClusterError: it runs but doesn't answer in time.
        """
        deadline = time.monotonic() + timeout
        while running := self.running():
            if _answers(int(running.host.rpartition(":")[2])):
                return running
            if time.monotonic() > deadline:
                raise LocalClusterError(
                    f"the local cluster is running (pid {running.pid}) but doesn't answer at {running.host}; "
                    "`ape silverback cluster down` stops it"
                )
            time.sleep(0.05)
        return None

    def _choose_port(self, wanted: int | None) -> int:
        if wanted is not None:
            if not _is_free(wanted):
                raise LocalClusterError(f"port {wanted} of {HOST} is in use; choose another with --port")
            return wanted
        match read_json(_port_file(self.folder)):
            case {"port": int(last)} if 0 < last < 65536 and _is_free(last):
                return last
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            return int(probe.getsockname()[1])

    def _choose_notifications(self, notify: NotifySettings | None) -> None:
        """Set down who is told when something breaks, for the server that is started next.

        Raises:
            ConfigurationError: as for ``up``.
        """
        from ape_silverback.server.notify import apprise_sender, settings_file

        if notify is None or not notify.variables:
            settings_file(self.folder).unlink(missing_ok=True)
            return
        apprise_sender(notify.addresses())
        write_private(settings_file(self.folder), notify.model_dump_json())

    def _spawn(self, port: int, timeout: float) -> Running:
        _state_file(self.folder).unlink(missing_ok=True)
        log = os.open(self.server_log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            server = subprocess.Popen(
                [sys.executable, "-m", "ape_silverback.server", str(self.folder), str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        finally:
            os.close(log)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise LocalClusterError(
                    f"the local cluster ended at once, with code {server.returncode}{self._log_tail()}"
                )
            if (running := self.running()) and _answers(port):
                return running
            time.sleep(0.05)
        server.terminate()
        raise LocalClusterError(f"the local cluster didn't answer within {timeout:g} s{self._log_tail()}")

    def _log_tail(self) -> str:
        lines = self.server_log.read_text(encoding="utf8", errors="replace").splitlines()[-LOG_LINES:]
        return "; its log ends with:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""

    def _alone(self, timeout: float) -> AbstractContextManager[None]:
        """Keep two commands from starting or stopping it at once."""
        return locked(self.folder / "lock", timeout)


def key_file(folder: Path) -> Path:
    """Return the file that holds the key of the server that runs."""
    return folder / "api-key"


def platform_folder(folder: Path) -> Path:
    """Return the folder of what the platform keeps."""
    return folder / "platform"


def clusters_folder(folder: Path) -> Path:
    """Return the folder in which each of the platform's clusters has one."""
    return platform_folder(folder) / "clusters"


def session_file(folder: Path) -> Path:
    """Return the file that holds what opens the platform of the server that runs."""
    return platform_folder(folder) / "session"


def payments_file(folder: Path) -> Path:
    """Return the file with what pays for clusters; without it the server has no platform."""
    return platform_folder(folder) / "payments.json"


def write_state(folder: Path, port: int) -> None:
    """Write down that this process is the server, so that it is found."""
    identity = ProcessIdentity.of(os.getpid())
    assert identity is not None  # noqa: S101 - this process is there
    started = {"port": port, "started": datetime.now(timezone.utc).isoformat(), "version": __version__}
    write_private(_state_file(folder), json.dumps(identity.dump() | started))
    write_private(_port_file(folder), json.dumps({"port": port}))


def _check_same(wanted: Wanted | None, platform: StartedPlatform | None) -> None:
    """Check that a server that runs has the platform that is wanted.

    Raises:
        LocalClusterError: it hasn't, or the chain of its platform was started anew.
        ChainError: the chain doesn't answer.
    """
    if wanted is None:
        return
    from ape_silverback.server.platform.payments import still_there

    again = "`ape silverback cluster down` first, then `up` with these options"
    if platform is None:
        raise LocalClusterError(f"the local cluster is running without payments: run {again}")
    if platform.payments.wanted != wanted:
        raise LocalClusterError(
            f"the local cluster is running with another chain, StreamManager or tokens: run {again}"
        )
    if not still_there(platform.payments):
        raise LocalClusterError(
            f"the chain was started anew: it has no StreamManager at {platform.payments.manager} any more; run {again}"
        )


def _end_bots(folder: Path) -> bool:
    """End the bots of a cluster that still run, and return whether there were any."""
    from ape_silverback.server.serving import end_bots

    return end_bots(folder, grace=10.0)


def _state_file(folder: Path) -> Path:
    return folder / "server.json"


def _port_file(folder: Path) -> Path:
    return folder / "port.json"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _answers(port: int) -> bool:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/openapi.json")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
