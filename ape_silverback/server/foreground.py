"""Serves a cluster in the foreground, for a machine that is left alone: under systemd, or in a container."""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from ape_silverback.exceptions import LocalClusterError
from ape_silverback.files import make_private_folder, write_private
from ape_silverback.server.__main__ import hold_lock
from ape_silverback.server.alerts import alerts_of
from ape_silverback.server.app import make_app
from ape_silverback.server.bounds import BoundedConnections, raise_file_limit
from ape_silverback.server.daemon import key_file
from ape_silverback.server.notify import NotifySettings, apprise_sender
from ape_silverback.server.runtimes import Limits
from ape_silverback.server.runtimes.loading import choose_runtime, read_choice
from ape_silverback.server.serving import exit_by_sigterm, supervisor_of

GRACE = 5
"""Seconds that requests get to end once the server is asked to."""


@dataclass(frozen=True)
class ServeOptions:
    """How a cluster is served.

    Attributes:
        folder: everything that it keeps.
        certificate: file with the TLS certificate and what it is signed by.
        key: file with the certificate's private key.
        insecure: whether it may listen elsewhere than on the loopback interface without TLS.
        address: where its bots with access to the cluster find it; None for where it listens.
        keep_bots: whether bots go on when the server ends.
        limits: what each bot may use at most.
        notify: who is told when something breaks.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    address: str | None = None
    keep_bots: bool = False
    runtime: str | None = None
    runtime_options: Mapping[str, str] = field(default_factory=dict)
    log_size: int | None = None
    limits: Limits = field(default_factory=Limits)
    notify: NotifySettings = field(default_factory=NotifySettings)

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"


class _AnnouncedServer(uvicorn.Server):
    """A server that reports when it listens: its application starts before its sockets do."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell so."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def serve(options: ServeOptions, ready: Callable[[str], None]) -> None:
    """Serve a cluster until SIGTERM or SIGINT: then requests end, and bots stop unless they are to be kept.

    Args:
        ready: called with a line for people once it answers.

    Raises:
        ConfigurationError: a variable that should hold an address for notifications isn't set, or holds none.
        LocalClusterError: it can't be served so; the text is the reason.
    """
    _check(options)
    apprise_sender(options.notify.addresses())
    os.umask(0o077)
    raise_file_limit()
    make_private_folder(options.folder)
    hold_lock(options.folder)
    choose_runtime(options.folder, options.runtime, options.runtime_options, options.log_size)
    api_key = _first_key(options.folder)
    address = options.address or options.url
    supervisor = supervisor_of(options.folder, lambda: address, api_key)
    supervisor.keep_running = options.keep_bots
    supervisor.limits = options.limits
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    alerts = alerts_of(options.notify, supervisor, options.folder, address, os.environ)

    app = make_app(
        supervisor,
        api_key,
        alerts=alerts,
        hosts=("127.0.0.1", "localhost", "[::1]") if _is_loopback(options.host) else ("*",),
    )
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        http=BoundedConnections,
        access_log=False,
        log_level="warning",
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=str(options.certificate) if options.certificate else None,
        ssl_keyfile=str(options.key) if options.key else None,
    )
    line = (
        f"Serving the cluster in {options.folder} at {options.url} (runtime {read_choice(options.folder).name}); "
        f"its first key is in {key_file(options.folder)}"
    )
    try:
        with exit_by_sigterm():
            _AnnouncedServer(config, lambda: ready(line)).run()
    finally:
        supervisor.runtime.close()
        supervisor.store.close()


def _check(options: ServeOptions) -> None:
    if (options.certificate is None) != (options.key is None):
        raise LocalClusterError("TLS needs both --tls-cert and --tls-key")
    for option, file in (("--tls-cert", options.certificate), ("--tls-key", options.key)):
        if file is not None and not os.access(file, os.R_OK):
            raise LocalClusterError(f"{option}: {file} can't be read")
    if not _is_loopback(options.host) and options.certificate is None and not options.insecure:
        raise LocalClusterError(
            f"keys would travel to {options.host} unencrypted; pass --tls-cert and --tls-key, or --insecure where "
            "something in front of it, such as a reverse proxy, does TLS"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _first_key(folder: Path) -> str:
    """Return the key that is there before any other, which bots with access to the cluster use too."""
    file = key_file(folder)
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32))
    return file.read_text(encoding="utf8").strip()
