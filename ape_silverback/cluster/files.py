"""The files of ``~/.silverback``: for their owner only, written as a whole or not at all, by one writer at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ape_silverback.exceptions import ProfileError


@contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold a lock against other processes; the file of the lock stays behind, empty.

    Args:
        path: file of the lock, beside the one that it guards.
        timeout: seconds to wait for who holds it.

    Raises:
        ProfileError: it was held for too long, or can't be made.
    """
    import fcntl

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise ProfileError(f"{path}: can't be written: {error.strerror}") from error
    with file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ProfileError(f"another program has been holding {path} for {timeout:g} s") from None
                time.sleep(0.02)
        yield


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, with mode 0600.

    Raises:
        ProfileError: it can't be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        raise ProfileError(f"{path}: can't be written: {error.strerror}") from error
