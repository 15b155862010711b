"""The image of ``bot.sh``, which does what a test says: a shell, in the layout of the bot SDK's images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from demo.engine import BUSYBOX

APPLETS = (
    "sh",
    "adduser",
    "cat",
    "chown",
    "echo",
    "env",
    "head",
    "id",
    "ls",
    "mkdir",
    "sleep",
    "tail",
    "touch",
    "tr",
    "wget",
)
BOT = Path(__file__).with_name("bot.sh")
IMAGE = "127.0.0.1:1/silverback-test/bot:1"
"""Image of ``bot.sh``: what each conformance test runs, in the layout of the bot SDK's images. No registry is there: a
node of a swarm asks for an image that it has, too."""


KEEPING_IMAGE = "127.0.0.1:1/silverback-test/keeping:1"
"""The same with the folder that the bot SDK keeps its state in, as our own images have it."""


def busybox_archive(*more: str) -> bytes:
    """Return a file system with a shell, more folders, and ``bot.sh`` as the bot SDK's own command."""
    assert BUSYBOX
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "home", "home/harambe", "home/harambe/project", "tmp", *more):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755 if name != "tmp" else 0o1777
            folder.uid = folder.gid = 1000 if name.startswith("home/") else 0
            archive.addfile(folder)
        archive.add(BUSYBOX, "bin/busybox", filter=_executable)
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        archive.add(BOT, "bin/silverback", filter=_executable)
        _add_text(archive, "etc/passwd", "root:x:0:0::/root:/bin/sh\nharambe:x:1000:1000::/home/harambe:/bin/sh\n")
        _add_text(archive, "etc/group", "root:x:0:\nharambe:x:1000:\n")
    return buffer.getvalue()


def _executable(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mode, info.uid, info.gid = 0o755, 0, 0
    return info


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), 0o644
    archive.addfile(info, io.BytesIO(text.encode()))


BOT_IMAGE = ("USER harambe", "WORKDIR /home/harambe/project", 'ENTRYPOINT ["/bin/silverback"]')
"""How an image of ``busybox_archive`` runs, as those of the bot SDK do: without a command."""
