"""The files of ``~/.silverback``: for their owner only, written as a whole or not at all, by one writer at a time."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ape_silverback.exceptions import FileError, FileLocked

HOME_VARIABLE = "SILVERBACK_HOME"
"""Environment variable that names a folder to use in place of ``~/.silverback``."""


def silverback_folder() -> Path:
    """Return the folder of the user's files: ``SILVERBACK_HOME``, else ``~/.silverback``, where the public SDK looks.

    Raises:
        FileError: neither is set, and the user has no home folder.
    """
    if configured := os.environ.get(HOME_VARIABLE):
        path = Path(configured)
        if not path.is_absolute():
            raise FileError(f"{HOME_VARIABLE}={configured}: must be an absolute path")
        return path
    try:
        return Path.home() / ".silverback"
    except RuntimeError:  # HOME isn't set, and the user's id has no entry in the password database
        raise FileError(
            f"this user has no home folder for ~/.silverback; set {HOME_VARIABLE} to a folder that can be written"
        ) from None


def make_private_folder(folder: Path) -> None:
    """Make a folder, and missing ones above it, for their owner only; an existing one stays as it is.

    Raises:
        FileError: it can't be made.
    """
    try:
        for missing in reversed([folder, *folder.parents]):
            if not missing.is_dir():
                missing.mkdir(mode=0o700, exist_ok=True)  # with `parents` the mode would be for the last one only
    except OSError as error:
        raise _not_written(folder, error) from error


@contextmanager
def locked(path: Path, timeout: float = 0.0, holder: str = "") -> Iterator[None]:
    """Hold a lock against other processes; the lock's file stays behind.

    Args:
        path: file of the lock, beside the one that it guards.
        timeout: seconds to wait while another process holds it.
        holder: who holds it meanwhile, written into the file for the errors of others.

    Raises:
        FileLocked: another process held it for that long.
        FileError: the file can't be written, or its file system has no locks.
    """
    import fcntl

    make_private_folder(path.parent)
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf8", errors="replace")
    except OSError as error:
        raise _not_written(path, error) from error
    with file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise FileLocked(path, timeout, file.read(1000).strip()) from None
                time.sleep(0.02)
            except OSError as error:  # such as a network file system whose server has no locks
                raise FileError(
                    f"{path}: can't be locked: {error.strerror}; set {HOME_VARIABLE} to a folder on a local disk"
                ) from error
        if not holder:
            yield
            return
        try:
            file.truncate(0)
            file.write(holder)
            file.flush()
        except OSError as error:
            raise _not_written(path, error) from error
        try:
            yield
        finally:
            file.truncate(0)


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, with mode 0600.

    Raises:
        FileError: it can't be written.
    """
    make_private_folder(path.parent)
    try:
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
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> FileError:
    hint = ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"; make it writable, or set {HOME_VARIABLE} to a folder that is"
    return FileError(f"{path}: can't be written: {error.strerror}{hint}")
