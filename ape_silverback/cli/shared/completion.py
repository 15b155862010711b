"""Names for the shell's completion: asked for with little patience, kept for seconds, left out on failure.

Names are kept in memory, in ``XDG_RUNTIME_DIR`` where there is one, never on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from ape_silverback.cli.shared.terminal import safe_line

KEPT_FOR = 10.0
"""Seconds for which names are kept."""

PATIENCE = 1.0
"""Seconds that a cluster has to answer."""

Names = Callable[[click.Context], Iterable[str]]
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(names: Names) -> Completer:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
        try:
            return sorted(name for name in names(ctx) if name.startswith(incomplete) and safe_line(name) == name)
        except Exception:  # noqa: BLE001 - completion must stay silent
            return []

    return complete


def _ignore(_: str) -> None:
    """Keep a warning from a shell that waits for TAB."""


def _profiles(_: click.Context) -> Iterable[str]:
    from ape_silverback.cluster.settings import read_profiles

    return read_profiles().profile


def _clusters(ctx: click.Context) -> Iterable[str]:
    from ape_silverback.connect import cluster_paths, platform

    def ask() -> list[str]:
        with platform(ctx.params.get("profile"), patience=PATIENCE, warn=_ignore) as connection:
            return cluster_paths(connection.client)

    return _kept(ctx, "clusters", ask)


def _workspaces(ctx: click.Context) -> Iterable[str]:
    from ape_silverback.connect import platform

    def ask() -> list[str]:
        with platform(ctx.params.get("profile"), patience=PATIENCE, warn=_ignore) as connection:
            return list(connection.client.workspaces)

    return _kept(ctx, "workspaces", ask)


def _on_cluster(kind: str) -> Names:
    def names(ctx: click.Context) -> Iterable[str]:
        from ape_silverback.connect import connected

        profile, cluster = ctx.params.get("profile"), ctx.params.get("cluster")

        def ask() -> list[str]:
            with connected(profile, cluster, patience=PATIENCE, warn=_ignore) as connection:
                return list(getattr(connection.client, kind))

        return _kept(ctx, kind, ask)

    return names


def _kept(ctx: click.Context, kind: str, ask: Callable[[], list[str]]) -> list[str]:
    """Return names as they were some seconds ago, else ask for them."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder or not Path(folder).is_dir():
        return ask()
    from ape_silverback.files import write_private

    file = Path(folder) / "ape-silverback" / "completion.json"
    key = _key(ctx, kind)
    kept: dict[str, Any] = _read(file)
    if key not in kept or not 0 <= time.time() - kept[key]["at"] < KEPT_FOR:
        kept = {other: entry for other, entry in kept.items() if 0 <= time.time() - entry["at"] < KEPT_FOR}
        kept[key] = {"at": time.time(), "names": ask()}
        write_private(file, json.dumps(kept))
    names: list[str] = kept[key]["names"]
    return names


def _key(ctx: click.Context, kind: str) -> str:
    """Return a digest of where the names are: of the profile's address and key, whatever chose it, and of its login."""
    from ape_silverback.connect import read_choice
    from ape_silverback.files import silverback_folder

    choice, cluster = read_choice(ctx.params.get("profile"), ctx.params.get("cluster"))
    where = [kind, str(silverback_folder()), choice.profile.model_dump_json(), cluster or ""]
    return hashlib.sha256("\0".join(where).encode("utf8", "surrogateescape")).hexdigest()


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


complete_profiles = _completer(_profiles)
complete_clusters = _completer(_clusters)
complete_workspaces = _completer(_workspaces)
complete_bots = _completer(_on_cluster("bots"))
complete_groups = _completer(_on_cluster("variable_groups"))
complete_credentials = _completer(_on_cluster("credentials"))


def _project_bots(_: click.Context) -> Iterable[str]:
    from ape_silverback.config.reader import read_section
    from ape_silverback.project.discovery import discover_bots

    return read_section(Path.cwd()).declared or discover_bots(Path.cwd())


complete_project_bots = _completer(_project_bots)
