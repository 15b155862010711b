"""The server of the local cluster: ``python -m ape_silverback.local FOLDER PORT``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import uvicorn

from ape_silverback.local.app import make_app
from ape_silverback.local.control import HOST, key_file, write_state
from ape_silverback.local.runtimes.process import ProcessRuntime
from ape_silverback.local.store import BotRecord, Store
from ape_silverback.local.supervisor import Supervisor


def main(folder: Path, port: int) -> None:
    """Serve until SIGTERM, then stop the bots.

    Args:
        folder: everything that the cluster keeps.
        port: to listen on, on the loopback interface.
    """
    os.umask(0o077)
    api_key = key_file(folder).read_text(encoding="utf8")
    store = Store(folder)
    address = f"http://{HOST}:{port}"

    def variables_of(bot: BotRecord) -> Mapping[str, str]:
        """Give what a bot finds in its environment: its groups, and over them what its configuration says."""
        variables: dict[str, str] = {}
        for group in bot.configuration["environment"]:
            variables |= store.values_of(group)
        network = ":".join(bot.configuration[part] for part in ("ecosystem", "network", "provider"))
        variables |= {"SILVERBACK_BOT_NAME": bot.name, "SILVERBACK_NETWORK_CHOICE": network}
        if account := bot.configuration["account"]:
            variables["SILVERBACK_SIGNER_ALIAS"] = account
        if bot.configuration["cluster_access"]:
            variables |= {"SILVERBACK_CLUSTER_URI": address, "SILVERBACK_CLUSTER_API_KEY": api_key}
        return variables

    supervisor = Supervisor(store, ProcessRuntime(folder / "bots"), variables_of)
    app = make_app(supervisor, api_key, on_start=lambda: write_state(folder, port))
    # Followed logs are open requests: they don't hold up the end.
    uvicorn.run(
        app, host=HOST, port=port, access_log=False, log_level="warning", ws="none", timeout_graceful_shutdown=1
    )
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
