"""Files that only grow: a JSON document a line, for their owner only, whole lines also after a kill or a full disk."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ape_silverback.exceptions import FileError
from ape_silverback.files import make_private_folder

_writing = threading.Lock()


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Return the documents of a file; a line that was torn while it was written is left out.

    Raises:
        FileError: it can't be read.
    """
    try:
        text = file.read_text(encoding="utf8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: can't be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            yield document


def append_line(file: Path, document: Mapping[str, Any]) -> None:
    """Add a document in one write, so that a process that is killed leaves a whole line or none.

    Raises:
        FileError: it can't be written.
    """
    data = f"{json.dumps(document, ensure_ascii=False)}\n".encode()
    make_private_folder(file.parent)
    try:
        with _writing:
            torn = _is_torn(file)
            handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, b"\n" + data if torn else data)
            finally:
                os.close(handle)
    except OSError as error:
        raise FileError(f"{file}: can't be written: {error.strerror}") from error


def _is_torn(file: Path) -> bool:
    """Return whether the last line was cut off, as by a full disk."""
    try:
        with file.open("rb") as content:
            return content.seek(0, os.SEEK_END) > 0 and content.seek(-1, os.SEEK_END) >= 0 and content.read() != b"\n"
    except FileNotFoundError:
        return False
