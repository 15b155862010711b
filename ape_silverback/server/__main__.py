"""The server of the local cluster: ``python -m ape_silverback.server FOLDER PORT``."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from ape_silverback.exceptions import LocalClusterError, SilverbackError
from ape_silverback.server.alerts import Alerts, alerts_of
from ape_silverback.server.app import make_app
from ape_silverback.server.bounds import BoundedConnections, raise_file_limit
from ape_silverback.server.daemon import (
    HOST,
    clusters_folder,
    key_file,
    payments_file,
    platform_folder,
    session_file,
    write_state,
)
from ape_silverback.server.notify import NotifySettings, read_settings, settings_file
from ape_silverback.server.serving import exit_by_sigterm, supervisor_of
from ape_silverback.server.supervisor import Supervisor

if TYPE_CHECKING:
    from ape_silverback.server.platform.store import PlatformStore


def main(folder: Path, port: int) -> None:
    """Serve until SIGTERM, then stop the bots.

    Args:
        folder: everything that the cluster keeps.
        port: to listen on, on the loopback interface.
    """
    os.umask(0o077)
    raise_file_limit()
    hold_lock(folder)
    api_key = key_file(folder).read_text(encoding="utf8")
    address = f"http://{HOST}:{port}"
    supervisor = supervisor_of(folder, lambda: address, api_key)
    notify = read_settings(settings_file(folder))
    alerts = alerts_of(notify, supervisor, folder, address, os.environ)

    def on_start() -> None:
        write_state(folder, port)

    with exit_by_sigterm(), ExitStack() as opened:
        opened.callback(supervisor.store.close)
        opened.callback(supervisor.runtime.close)
        if payments_file(folder).exists():
            from ape_silverback.server.platform.store import PlatformStore  # only who pays loads it

            store = opened.enter_context(closing(PlatformStore(platform_folder(folder))))
            app = _with_platform(store, supervisor, api_key, on_start, folder, address, alerts, notify)
        else:
            app = make_app(supervisor, api_key, on_start, alerts=alerts)
        # Followed logs are open requests: they don't hold up the end.
        uvicorn.run(
            app,
            host=HOST,
            port=port,
            http=BoundedConnections,
            access_log=False,
            log_level="warning",
            ws="none",
            timeout_graceful_shutdown=1,
        )


def hold_lock(folder: Path) -> None:
    """Keep other servers from the folder for as long as this process lives.

    Raises:
        LocalClusterError: another server uses it.
    """
    path = folder / "server.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.lockf(handle, os.F_TLOCK, 0)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks: the daemon's file has to do
            return
        raise LocalClusterError(f"another server uses {folder}; stop it first") from None


def _with_platform(
    store: PlatformStore,
    supervisor: Supervisor,
    api_key: str,
    on_start: Callable[[], None],
    folder: Path,
    address: str,
    alerts: Alerts | None,
    notify: NotifySettings,
) -> FastAPI:
    """Make the application with the platform beside the cluster; only who pays loads what that needs."""
    from ape_silverback.apepay.rpc import HttpNode
    from ape_silverback.server.platform.app import add_platform
    from ape_silverback.server.platform.clusters import Clusters
    from ape_silverback.server.platform.payments import read_payments
    from ape_silverback.server.platform.watcher import Watcher
    from ape_silverback.server.runtimes.loading import read_choice

    logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s")
    logging.getLogger("ape_silverback.server").setLevel(logging.INFO)
    payments = read_payments(payments_file(folder))
    session = session_file(folder).read_text(encoding="utf8")
    clusters = Clusters(store, clusters_folder(folder), address, session, read_choice(folder), notify)
    node = HttpNode(payments.wanted.chain, whole=10.0, pauses=())  # it is asked again a second later
    watcher = Watcher(node, payments, store, clusters)
    app = make_app(supervisor, api_key, on_start, beside=[watcher], alerts=alerts)
    add_platform(app, store, clusters, payments, session)
    return app


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except SilverbackError as error:
        sys.exit(f"ERROR: {error}")
