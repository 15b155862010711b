"""Copies of a cluster: its database as it is at one moment, while its server runs.

Values of variables and passwords stay encrypted in a copy. The key that decrypts them is in a separate file, and goes
into the copy only on request.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.exceptions import LocalClusterError
from ape_silverback.files import make_private_folder
from ape_silverback.server.__main__ import hold_lock
from ape_silverback.version import __version__

DATABASE, SECRET, RUNTIME, ABOUT = "cluster.db", "secret.key", "runtime.json", "backup.json"
LARGEST = 1 << 30
"""Bytes of a file in a copy."""


def back_up(folder: Path, file: Path, *, with_key: bool = False) -> None:
    """Copy a cluster into a file that only its owner can read.

    Args:
        folder: everything that the cluster keeps.
        file: made, or replaced as a whole.
        with_key: whether the copy holds the key that decrypts its values.

    Raises:
        LocalClusterError: no cluster is there, or the file can't be written.
    """
    if not (folder / DATABASE).exists():
        raise LocalClusterError(f"no cluster in {folder}")
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as name:
            copy, draft = Path(name, DATABASE), Path(name, "draft")
            with closing(sqlite3.connect(folder / DATABASE)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            os.close(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600))
            with tarfile.open(draft, "w:gz") as archive:
                about = json.dumps({"version": __version__, "with_key": with_key}).encode()
                info = tarfile.TarInfo(ABOUT)
                info.size = len(about)
                archive.addfile(info, io.BytesIO(about))
                archive.add(copy, DATABASE)
                for one in (RUNTIME, *((SECRET,) if with_key else ())):
                    if (folder / one).exists():
                        archive.add(folder / one, one)
            draft.replace(file)
    except (OSError, sqlite3.Error) as error:
        raise LocalClusterError(f"{file}: can't be written: {error}") from error


def restore(file: Path, folder: Path, secret: Path | None = None) -> list[str]:
    """Make a cluster of a copy; its bots stay stopped, since those of the original may be running.

    Args:
        file: what ``back_up`` made.
        folder: of the new cluster, which mustn't exist.
        secret: the key that decrypts its values, where the copy doesn't hold it.

    Returns:
        The names of the bots.

    Raises:
        LocalClusterError: it can't be read, its key is missing, or there is a cluster in the folder.
    """
    if (folder / DATABASE).exists():
        raise LocalClusterError(f"there is a cluster in {folder} already; restore into another folder")
    try:
        content = _read(file)
        if secret is not None:
            content[SECRET] = secret.read_bytes()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise LocalClusterError(
            f"{error.filename if isinstance(error, OSError) else file}: can't be read: {error}"
        ) from error
    if DATABASE not in content:
        raise LocalClusterError(f"{file} isn't a backup of a cluster")
    if SECRET not in content:
        raise LocalClusterError(
            f"{file} doesn't hold the key of its values; pass --secret-key with the file {SECRET} of the cluster that "
            "it was made of"
        )
    make_private_folder(folder)
    hold_lock(folder)
    for name in (SECRET, RUNTIME, DATABASE):
        if name in content:
            handle = os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as opened:
                opened.write(content[name])
    return _stop_bots(folder)


def _read(file: Path) -> dict[str, bytes]:
    """Return the parts of a copy that are known, by name."""
    found = {}
    with tarfile.open(file, "r:gz") as archive:
        for member in archive:
            if member.name in (DATABASE, SECRET, RUNTIME) and member.isreg() and member.size <= LARGEST:
                opened = archive.extractfile(member)
                found[member.name] = opened.read() if opened else b""
    return found


def _stop_bots(folder: Path) -> list[str]:
    """Keep the bots of a restored cluster stopped, and return their names.

    Raises:
        LocalClusterError: the database, or the key of its values, can't be used.
    """
    from ape_silverback.server.store import Store

    store = Store(folder)
    try:
        bots = store.bots()
        for bot in bots:
            if bot.status is not ResourceStatus.DEPROVISIONING:
                task = bot.task.model_copy(
                    update={"last_status": "STOPPED", "stop_code": "user", "stopped_reason": "restored from a backup"}
                )
                store.set_bot_state(bot.id, task, False)
        for group in store.groups():
            store.values_of(group.name)
    finally:
        store.close()
    return [bot.name for bot in bots]
