"""The identity of a project, the same on every machine that it is checked out on."""

from __future__ import annotations

import re
from pathlib import Path

from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.git import ask_git


def project_identity(folder: Path, explicit: str | None = None) -> str:
    """Return the identity of a project, which no other project has.

    Args:
        folder: the project's folder.
        explicit: ``project:`` of the section, which wins: two folders with one identity share what they deployed.

    Returns:
        ``project:`` as it is written; else, in a git repository, the address of its remote without credentials, or the
        repository's folder, and the path in it; else the folder.
    """
    if explicit:
        return explicit
    folder = folder.resolve()
    top, common = _ask(folder, "rev-parse", "--show-toplevel"), _ask(folder, "rev-parse", "--git-common-dir")
    if not top or not common:
        return folder.as_uri()
    path = folder.relative_to(Path(top).resolve()).as_posix() if folder.is_relative_to(Path(top).resolve()) else "."
    below = "" if path == "." else f"#{path}"
    remotes = (_ask(folder, "remote") or "").split()
    name = "origin" if "origin" in remotes else remotes[0] if len(remotes) == 1 else None
    address = _ask(folder, "remote", "get-url", name) if name else None
    if address:
        return f"git:{normalized(address)}{below}"
    return f"{(folder / common).resolve().as_uri()}{below}"


def _ask(folder: Path, *arguments: str) -> str | None:
    try:
        return ask_git(folder, *arguments)
    except ResolutionError:
        return None


def normalized(address: str) -> str:
    """Return a remote's address as ``host/path``: the same for HTTPS and SSH, without user, password and ``.git``."""
    text = address.strip().rstrip("/").removesuffix(".git")
    if match := re.fullmatch(r"[a-z][a-z0-9+.-]*://(?:[^/@]*@)?([^/]*)/(.*)", text, re.IGNORECASE):
        host, path = match[1].lower(), match[2]
        return f"{re.sub(r':(22|80|443)$', '', host)}/{path}" if host else f"/{path}"
    if match := re.fullmatch(r"(?:[^/@]*@)?([^/:]+):(?!/)(.*)", text):
        return f"{match[1].lower()}/{match[2]}"
    return text
