"""What the shell offers on TAB: names that are asked for quickly, kept for seconds, and left out when that fails.

Nothing is written to disk: names are kept in ``XDG_RUNTIME_DIR``, which is in memory, where there is one.
"""

from __future__ import annotations

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
"""Seconds that a cluster gets to answer."""

Names = Callable[[click.Context], Iterable[str]]
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(names: Names) -> Completer:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
        try:
            return sorted(name for name in names(ctx) if name.startswith(incomplete) and safe_line(name) == name)
        except Exception:  # noqa: BLE001 - a shell that waits for TAB must see nothing of it
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

    return _kept(f"clusters {ctx.params.get('profile')}", ask)


def _workspaces(ctx: click.Context) -> Iterable[str]:
    from ape_silverback.connect import platform

    def ask() -> list[str]:
        with platform(ctx.params.get("profile"), patience=PATIENCE, warn=_ignore) as connection:
            return list(connection.client.workspaces)

    return _kept(f"workspaces {ctx.params.get('profile')}", ask)


def _on_cluster(kind: str) -> Names:
    def names(ctx: click.Context) -> Iterable[str]:
        from ape_silverback.connect import connected

        profile, cluster = ctx.params.get("profile"), ctx.params.get("cluster")

        def ask() -> list[str]:
            with connected(profile, cluster, patience=PATIENCE, warn=_ignore) as connection:
                return list(getattr(connection.client, kind))

        return _kept(f"{kind} {profile} {cluster} {Path.cwd()}", ask)

    return names


def _kept(key: str, ask: Callable[[], list[str]]) -> list[str]:
    """Give names as they were some seconds ago, else ask for them."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder or not Path(folder).is_dir():
        return ask()
    from ape_silverback.files import write_private

    environment = {name: value for name, value in os.environ.items() if name.startswith("SILVERBACK_")}
    file = Path(folder) / "ape-silverback" / "completion.json"
    key = json.dumps([key, os.environ.get("HOME"), sorted(name for name in environment if "KEY" not in name)])
    kept: dict[str, Any] = _read(file)
    if key not in kept or not 0 <= time.time() - kept[key]["at"] < KEPT_FOR:
        kept = {other: entry for other, entry in kept.items() if 0 <= time.time() - entry["at"] < KEPT_FOR}
        kept[key] = {"at": time.time(), "names": ask()}
        write_private(file, json.dumps(kept))
    names: list[str] = kept[key]["names"]
    return names


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
