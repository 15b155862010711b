"""The files of ``~/.silverback``: for their owner only, written as a whole or not at all, by one writer at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ape_silverback.exceptions import FileError


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that aren't there, for their owner only; one that is there stays as it is."""
    for missing in reversed([folder, *folder.parents]):
        missing.mkdir(mode=0o700, exist_ok=True)  # with `parents` the mode would be for the last one only


@contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold a lock against other processes; the file of the lock stays behind, empty.

    Args:
        path: file of the lock, beside the one that it guards.
        timeout: seconds to wait for who holds it.

    Raises:
        FileError: it was held for too long, or can't be made.
    """
    import fcntl

    try:
        make_private_folder(path.parent)
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w")
    except OSError as error:
        raise FileError(f"{path}: can't be written: {error.strerror}") from error
    with file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FileError(f"another program has been holding {path} for {timeout:g} s") from None
                time.sleep(0.02)
        yield


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, with mode 0600.

    Raises:
        FileError: it can't be written.
    """
    try:
        make_private_folder(path.parent)
        # mkstemp makes a file that only its owner can read.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(f"{path}: can't be written: {error.strerror}") from error
