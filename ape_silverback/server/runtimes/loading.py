"""Finds runtimes through the entry point group ``ape_silverback.runtimes``.

An entry point names a class with a class method ``create``, which takes ``RuntimeSettings``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ape_silverback.exceptions import LocalClusterError
from ape_silverback.files import write_private
from ape_silverback.server.runtimes import EngineError, Runtime, RuntimeSettings
from ape_silverback.server.runtimes.process import ProcessRuntime
from ape_silverback.server.runtimes.shim import LOG_BOUND

GROUP = "ape_silverback.runtimes"
DEFAULT = ProcessRuntime.name


@dataclass(frozen=True)
class RuntimeChoice:
    """The runtime that a cluster was given.

    Attributes:
        name: of the entry point.
        cluster: id of the cluster on the engine, where others may have bots too; made when the choice is written.
        options: of this runtime.
        log_size: bytes of a bot's log.
    """

    name: str = DEFAULT
    cluster: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    log_size: int = LOG_BOUND


_CHOICE = TypeAdapter(RuntimeChoice)


def read_choice(folder: Path) -> RuntimeChoice:
    """Return the runtime that a cluster has, by the cluster's folder; processes where none was chosen.

    Raises:
        LocalClusterError: the file that it is kept in is damaged.
    """
    try:
        return _CHOICE.validate_json(_choice_file(folder).read_bytes())
    except FileNotFoundError:
        return RuntimeChoice()
    except (OSError, ValidationError) as error:  # not taken for the default, which may run more than was allowed
        reason = error.strerror if isinstance(error, OSError) else "it isn't what `up` or `serve` writes"
        raise LocalClusterError(
            f"{_choice_file(folder)}, where the cluster's runtime is kept, can't be read: {reason}; restore it, or "
            "delete it and pass --runtime and its options again"
        ) from None


def write_choice(folder: Path, choice: RuntimeChoice) -> None:
    """Set the runtime of a cluster, which its next server uses."""
    content = {**asdict(choice), "cluster": choice.cluster or str(uuid.uuid4()), "options": dict(choice.options)}
    write_private(_choice_file(folder), json.dumps(content))


def choose_runtime(
    folder: Path, name: str | None, options: Mapping[str, str] | None, log_size: int | None = None
) -> None:
    """Set where the bots of a cluster run, for the server that is started next.

    Args:
        folder: of the cluster.
        name: of the runtime; None for what the cluster has, at first processes.
        options: of that runtime; processes keep those that aren't given.
        log_size: bytes of a bot's log; None for what the cluster has.

    Raises:
        LocalClusterError: it isn't installed, its engine doesn't answer, or it doesn't have such options.
    """
    before = read_choice(folder)
    choice = wanted_choice(before, name, options or {})
    if log_size is not None:
        choice = replace(choice, log_size=log_size)
    create_runtime(choice.name, settings_of(folder, choice)).close()  # whether its engine answers
    if choice != before:
        write_choice(folder, choice)


def wanted_choice(before: RuntimeChoice, name: str | None, options: Mapping[str, str]) -> RuntimeChoice:
    """Return the choice that a cluster should have after the one that it has had.

    What processes are confined to stays until it is given anew.

    Raises:
        LocalClusterError: the runtime isn't installed, or doesn't have such options.
    """
    wanted = before.name if name is None else name
    if wanted == DEFAULT:
        kept = before.options if before.name == DEFAULT else {}
        return replace(before, name=wanted, options={**kept, **options})
    if "allow" in options:
        raise LocalClusterError(
            f"the folders of --allow are for bots that run as processes; this cluster's runtime is '{wanted}'"
        )
    return before if name is None else replace(before, name=wanted, options=settled(wanted, options))


def runtime_of(folder: Path) -> Runtime:
    """Return the runtime of a cluster, by the cluster's folder.

    Raises:
        LocalClusterError: it isn't installed, or its engine doesn't answer.
    """
    choice = read_choice(folder)
    return create_runtime(choice.name, settings_of(folder, choice))


def settings_of(folder: Path, choice: RuntimeChoice) -> RuntimeSettings:
    """Return what a runtime gets to know of the cluster in a folder."""
    return RuntimeSettings(folder / "bots", choice.cluster, choice.options, choice.log_size)


def _choice_file(folder: Path) -> Path:
    return folder / "runtime.json"


def runtime_names() -> list[str]:
    """Return the names of the runtimes that are installed."""
    return sorted({DEFAULT, *(found.name for found in entry_points(group=GROUP))})


def settled(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that a cluster with this runtime keeps.

    Raises:
        LocalClusterError: no such runtime is installed, or it lacks a package.
    """
    return _class(name).settle(options)


def create_runtime(name: str, settings: RuntimeSettings) -> Runtime:
    """Return the runtime of a cluster.

    Raises:
        LocalClusterError: no such runtime is installed, it lacks a package, or its engine doesn't answer.
    """
    try:
        return _class(name).create(settings)
    except EngineError as error:
        raise LocalClusterError(f"runtime '{name}': {error}") from error


def _class(name: str) -> type[Runtime]:
    if name == DEFAULT:  # without a look at every package that is installed
        return ProcessRuntime
    for found in entry_points(group=GROUP, name=name):
        try:
            loaded: type[Runtime] = found.load()
        except ModuleNotFoundError as error:
            raise LocalClusterError(
                f"runtime '{name}' needs the package {error.name}: pip install \"ape-silverback[{name}]\""
            ) from error
        return loaded
    raise LocalClusterError(f"no runtime '{name}' is installed; there is: {', '.join(runtime_names())}")
