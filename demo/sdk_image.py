"""This environment as an image: Python, Ape and the bot SDK, in the layout of the bot SDK's own images."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from demo.engine import BUSYBOX

SDK_IMAGE = "127.0.0.1:1/silverback-demo/sdk:1"
SITE = Path("opt/site-packages")
"""Where the image has what this virtual environment has."""

UNUSED = re.compile(
    r"(mypy|mypyc|ruff|pip|hypothesis|_hypothesis\w*|_pytest|pytest|xdist|jedi|vyper|librt|ast_serialize|docker|"
    r"playwright|selenium|pyarrow|fastapi|uvicorn|nodejs\w*|\w+__mypyc|__editable__\w*|types_\w+|\w+-stubs)\b.*"
)
"""What a bot doesn't need of it, so that the image stays small."""

WHEELS_EXPECT = re.compile(r"lib(c|m|dl|rt|util|pthread|resolv|z|stdc\+\+|gcc_s)\.so\.\d+ ")
"""Libraries that a manylinux wheel may use without bringing them."""

SDK_IMAGE_CHANGES = (
    "ENV PYTHONPATH=/opt/site-packages PYTHONDONTWRITEBYTECODE=1",
    "USER harambe",
    "WORKDIR /home/harambe/project",
    'ENTRYPOINT ["silverback"]',
)

COMMAND = """#!{python}
import sys
from {module} import cli
sys.exit(cli())
"""


def sdk_archive(unused: re.Pattern[str] = UNUSED, *besides: Path) -> bytes:
    """Return a file system in which the bot SDK runs as the user ``harambe``.

    Args:
        unused: packages of this environment that are left out.
        besides: packages elsewhere that are put in.
    """
    python = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    packages = Path(sysconfig.get_paths()["purelib"])
    buffer = io.BytesIO()
    folders: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(source: Path, target: Path | str) -> None:
            _add_parents(archive, str(target).lstrip("/"), folders)
            archive.add(source, str(target).lstrip("/"), filter=_taken)

        _add_folder(archive, "tmp", 0o1777)
        for name in ("home", "home/harambe", "home/harambe/project"):
            _add_folder(archive, name, 0o755, owner=1000 if name != "home" else 0)
            folders.add(name)
        add(python, python)
        add(stdlib, stdlib)
        for one in (*packages.iterdir(), *besides):
            if not unused.fullmatch(one.name):
                add(one, SITE / one.name)
        for library in _libraries([python, *(stdlib / "lib-dynload").glob("*.so")]):
            add(library.resolve(), library)
        assert BUSYBOX
        add(Path(BUSYBOX), "bin/busybox")
        for applet in ("sh", "id", "chown", "adduser", "echo", "cat", "ls", "mkdir", "env", "test"):
            _add_link(archive, f"bin/{applet}", "busybox")
        _add_parents(archive, "usr/bin/python", folders)
        for name in ("python", "python3"):
            _add_link(archive, f"usr/bin/{name}", str(python))
        for name, module in (("silverback", "silverback._cli"), ("ape", "ape._cli")):
            _add_text(archive, f"usr/bin/{name}", COMMAND.format(python=python, module=module), 0o755)
        _add_folder(archive, "etc", 0o755)
        _add_text(archive, "etc/passwd", "root:x:0:0::/root:/bin/sh\nharambe:x:1000:1000::/home/harambe:/bin/sh\n")
        _add_text(archive, "etc/group", "root:x:0:\nharambe:x:1000:\n")
    return buffer.getvalue()


def _libraries(binaries: list[Path]) -> Iterator[Path]:
    """Yield the shared libraries that binaries need, the loader included, and those that wheels expect everywhere."""
    needed = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    found = set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", needed, re.M))
    loader = ["/sbin/ldconfig", "-p"]
    for line in subprocess.run(loader, capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, place = line.strip().partition(" => ")
        if WHEELS_EXPECT.match(name) and "64" in name:
            found.add(place)
    yield from (Path(name) for name in sorted(found))


def _taken(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what no bot needs, and let everybody read the rest."""
    name = info.name.rpartition("/")[2]
    if name in ("test", "tests", "idlelib", "tkinter", "ensurepip") and "/ape" not in info.name:
        return None
    if name.startswith("config-3") or re.fullmatch(r".*/lib/python3\.\d+/site-packages", info.name):
        return None
    info.uid = info.gid = 0
    info.mode |= 0o444 | (0o111 if info.isdir() or info.mode & 0o100 else 0)
    return info


def _add_parents(archive: tarfile.TarFile, path: str, there: set[str]) -> None:
    for parent in reversed(Path(path).parents):
        name = parent.as_posix()
        if name != "." and name not in there:
            there.add(name)
            _add_folder(archive, name, 0o755)


def _add_folder(archive: tarfile.TarFile, name: str, mode: int, owner: int = 0) -> None:
    folder = tarfile.TarInfo(name)
    folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, owner, owner
    archive.addfile(folder)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    archive.addfile(link)


def _add_text(archive: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), mode
    archive.addfile(info, io.BytesIO(text.encode()))
