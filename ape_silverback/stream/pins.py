"""Pins what is trusted in the project's configuration file; comments, order and all the rest stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ape_silverback.config.editing import edited, replace_text
from ape_silverback.exceptions import ConfigurationError, StreamError
from ape_silverback.stream.verify import Report

KEY = "silverback"
NEW_FILE = "ape-config.yaml"


Pins = Mapping[str, Mapping[int, str]]
"""``managers`` and ``controllers`` → chain id → address."""


def pins_from(reports: Sequence[Report]) -> dict[str, dict[int, str]]:
    """Return ``managers`` and ``controllers`` of the streams that are trusted, by chain id.

    Raises:
        StreamError: two of them differ on one chain.
    """
    pins: dict[str, dict[int, str]] = {"managers": {}, "controllers": {}}
    for report in reports:
        if not report.trusted or report.chain_id is None:
            continue
        for what, found in (("managers", report.manager), ("controllers", report.controller)):
            if found is not None and pins[what].setdefault(report.chain_id, found) != found:
                raise StreamError(
                    f"the clusters have different {what} on chain {report.chain_id}, {pins[what][report.chain_id]} and "
                    f"{found}: only one can be pinned"
                )
    return pins


def write_pins(folder: Path, file: Path | None, pins: Pins, target: str | None = None) -> Path:
    """Pin managers and controllers below ``silverback.stream``; return the file.

    Args:
        folder: the project's folder.
        file: its configuration file; None makes one.
        pins: what to pin.
        target: the section's target whose ``stream`` it is; None for that of the section itself.

    Raises:
        ConfigurationError: the file can't be read or written, or has something else there.
    """
    file = file or folder / NEW_FILE
    path = (KEY, *(("targets", target) if target else ()), "stream")
    kept = {key: value for key, value in pins.items() if value}
    try:
        replace_text(file, lambda text: _pinned(file.suffix, text, path, kept))
    except (TypeError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{file.name}: `{KEY}: stream:` can't be written there: {error}") from error
    return file


def _lay_in(content: Any, path: tuple[str, ...], pins: Pins, number: type) -> None:
    """Put pins below a path of keys; ``number`` makes the key of a chain id that isn't there yet."""
    for key in path:
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
    for name, values in pins.items():
        if content.get(name) is None:
            content[name] = {}
        for chain_id, address in values.items():
            written = next((key for key in content[name] if str(key) == str(chain_id)), number(chain_id))
            if content[name].get(written) != address:
                content[name][written] = address


def _pinned(suffix: str, text: str, path: tuple[str, ...], pins: Pins) -> str:
    """Return the text of a configuration file with pins below a path of keys."""
    if suffix in (".toml", ".json"):
        return edited(suffix, text, lambda content: _lay_in(content, path, pins, str))
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    # An address without quotes is a number in YAML.
    quoted = {
        name: {chain_id: DoubleQuotedScalarString(address) for chain_id, address in values.items()}
        for name, values in pins.items()
    }
    if YAML().load(text) is None:  # nothing but comments, which would have nothing to belong to
        text += f"{KEY}:\n"
    return edited(suffix, text, lambda content: _lay_in(content, path, quoted, int))
