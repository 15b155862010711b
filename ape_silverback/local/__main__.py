"""The server of the local cluster: ``python -m ape_silverback.local FOLDER PORT``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ape_silverback.local.app import make_app
from ape_silverback.local.control import (
    HOST,
    clusters_folder,
    key_file,
    payments_file,
    platform_folder,
    session_file,
    write_state,
)
from ape_silverback.local.serving import supervisor_of
from ape_silverback.local.supervisor import Supervisor


def main(folder: Path, port: int) -> None:
    """Serve until SIGTERM, then stop the bots.

    Args:
        folder: everything that the cluster keeps.
        port: to listen on, on the loopback interface.
    """
    os.umask(0o077)
    api_key = key_file(folder).read_text(encoding="utf8")
    address = f"http://{HOST}:{port}"
    supervisor = supervisor_of(folder, lambda: address, api_key)

    def on_start() -> None:
        write_state(folder, port)

    if payments_file(folder).exists():
        app = _with_platform(supervisor, api_key, on_start, folder, address)
    else:
        app = make_app(supervisor, api_key, on_start)
    # Followed logs are open requests: they don't hold up the end.
    uvicorn.run(
        app, host=HOST, port=port, access_log=False, log_level="warning", ws="none", timeout_graceful_shutdown=1
    )
    supervisor.store.close()


def _with_platform(
    supervisor: Supervisor, api_key: str, on_start: Callable[[], None], folder: Path, address: str
) -> FastAPI:
    """Make the application with the platform beside the cluster; only who pays loads what that needs."""
    from ape_silverback.contracts.rpc import HttpNode
    from ape_silverback.local.clusters import Clusters
    from ape_silverback.local.payments import read_payments
    from ape_silverback.local.platform import add_platform
    from ape_silverback.local.platform_store import PlatformStore
    from ape_silverback.local.watcher import Watcher

    logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s")
    logging.getLogger("ape_silverback.local").setLevel(logging.INFO)
    payments = read_payments(payments_file(folder))
    session = session_file(folder).read_text(encoding="utf8")
    store = PlatformStore(platform_folder(folder))
    clusters = Clusters(store, clusters_folder(folder), address, session)
    watcher = Watcher(HttpNode(payments.wanted.chain), payments, store, clusters)
    app = make_app(supervisor, api_key, on_start, beside=[watcher])
    add_platform(app, store, clusters, payments, session)
    return app


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
