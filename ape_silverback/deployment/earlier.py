"""The history of a version that told projects apart by the folder's name and knew no ids of bots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ape_silverback.deployment.json_lines import read_lines
from ape_silverback.deployment.record import Record
from ape_silverback.exceptions import FileError


def read_earlier(folder: Path | None, before: int | None) -> list[Record]:
    """Read the history of a version that told projects apart by the folder's name and knew no ids of bots.

    Args:
        folder: where it is.
        before: number of the first deployment that came after it.
    """
    if folder is None:
        return []
    lines: dict[int, dict[str, Any]] = {}
    for line in read_lines(folder / "history.jsonl"):
        number = line.get("id")
        if isinstance(number, int) and line.get("version", 1) == 1 and (before is None or number < before):
            lines[number] = {**lines.get(number, {}), **line}
    targets: dict[str, tuple[Any, str | None]] = {}
    records = []
    for line in lines.values():
        bots = {**(line.get("bots") or {}), **(line.get("leaving") or {})}
        for name, bot in bots.items():  # a deployment changes the bots of its target, and carries the others along
            if targets.get(name, (None, None))[0] != bot:
                targets[name] = bot, line.get("target")
        converted = {
            **line,
            "version": 1,
            "bots": _convert(line.get("bots"), targets),
            "leaving": _convert(line.get("leaving"), targets),
            "groups": {
                name: {"variables": names, "targets": [line.get("target")], "confirmed": False}
                for name, names in (line.get("groups") or {}).items()
            },
        }
        try:
            records.append(Record.model_validate(converted))
        except ValidationError as error:
            where = folder / "history.jsonl"
            raise FileError(f"{where}: not a history of deployments: {error.errors()[0]['msg']}") from None
    return records


def _convert(bots: Any, targets: Mapping[str, tuple[Any, str | None]]) -> list[dict[str, Any]]:
    added = {"confirmed": False, "share_account": True}  # it was allowed
    return [{"name": name, "target": targets[name][1], **added, **bot} for name, bot in (bots or {}).items()]
