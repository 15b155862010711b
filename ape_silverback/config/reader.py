"""The light reader: the ``silverback:`` section, read without Ape's own configuration.

It reads what Ape would read: the files of one folder, Ape's global file underneath, ``$VAR`` expanded. Ape takes most
of a second for that, which is too much for a command that only has to know which cluster to talk to. The environment
(``APE_SILVERBACK_…``) wins over the files. Every key is known by its file and line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ape_silverback.config.models import Section, TargetConfig
from ape_silverback.config.overlays import Overlays, merge
from ape_silverback.config.validation import (
    PlaceOf,
    Places,
    in_one_spelling,
    spelling,
    validate_section,
)
from ape_silverback.exceptions import ConfigurationError, ResolutionError
from ape_silverback.project.discovery import discover_bots
from ape_silverback.suggestions import did_you_mean
from ape_silverback.toml_lines import toml_lines

KEY = "silverback"
FILES = ("ape-config.yaml", "ape-config.yml", "ape-config.json")
"""A project's configuration files, in the order in which Ape looks for them."""

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<plain>\w+))")


@dataclass(frozen=True)
class SectionReading:
    """The section, with where each of its keys was written.

    Attributes:
        file: the project's configuration file, with a section or without; None when there is no file.
        declared: names of the bots that the files declare, in order, not counting those of targets.
        unknown_bots: bots that only an overlay names and the project doesn't have → that overlay.
        warnings: what is worth knowing, a line each.
    """

    section: Section
    file: Path | None
    places: Places = field(default_factory=dict)
    declared: tuple[str, ...] = ()
    unknown_bots: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def place_of(self, *path: str) -> str | None:
        """Return where a key was written, as ``ape-config.yaml:12``, or None when it wasn't given."""
        return self.places.get(spelling(path))

    def target(self, name: str | None) -> TargetConfig | None:
        """Return a target of the section; None for no name.

        Raises:
            ResolutionError: the section has no such target.
        """
        if name is None:
            return None
        if name not in self.section.targets:
            raise _no_target(name, self.section.targets)
        return self.section.targets[name]


def read_section(project: Path, settings: Sequence[str] = (), target: str | None = None) -> SectionReading:
    """Read the section of a project.

    Args:
        project: the project's folder. Only this folder is read, as by Ape.
        settings: values of one run that win over all others, as ``bots.NAME.key=value``.
        target: the target of that run: the settings win over it too.

    Raises:
        ConfigurationError: a file can't be read, or a key or a value isn't right. Names file, line and key.
        ResolutionError: the section has no such target.
    """
    file = configuration_file(project)
    return _read(*_read_files(file), file, project, settings, target)


def check_section(data: Any, project: Path | None) -> Section:
    """Check a section that Ape read, with the environment laid over it.

    Args:
        data: what Ape found under ``silverback``, merged from its files and from code.
        project: the project's folder, to find its bots and where keys were written.

    Raises:
        ConfigurationError: as ``read_section``; keys that code set have no place.
    """
    file, places = None, Places()
    with suppress(ConfigurationError):
        file = configuration_file(project) if project else None
        _, places = _read_files(file)
    return _read(in_one_spelling(data, _finder(places), twice=True), places, file, project).section


def _read(
    data: Any,
    places: Places,
    file: Path | None,
    project: Path | None,
    settings: Sequence[str] = (),
    target: str | None = None,
) -> SectionReading:
    """Lay the environment and settings over what was read from files, and check the whole."""
    bots = data.get("bots") if isinstance(data, Mapping) else None
    declared = tuple(map(str, bots)) if isinstance(bots, Mapping) else ()
    overlays = Overlays(data, places, lambda: discover_bots(project) if project else ())
    overlays.environment(os.environ)
    section = validate_section(overlays.data, _finder(places)) if overlays.data is not None else Section()
    if target is not None and target not in section.targets:
        raise _no_target(target, section.targets)  # before a setting could make one of this name
    for setting in settings:
        overlays.setting(setting, target)
    if settings:
        section = validate_section(overlays.data, _finder(places))
    return SectionReading(section, file, places, declared, overlays.unknown_bots, tuple(overlays.warnings))


def _no_target(name: str, targets: Mapping[str, TargetConfig]) -> ResolutionError:
    hint = did_you_mean(name, targets) if targets else "it has no targets"
    return ResolutionError(f"no target '{name}' in the silverback section; {hint}")


def unset_variables(text: str) -> list[str]:
    """Return the names of the shell variables that a text of the section still refers to: they aren't set."""
    return [match["braced"] or match["plain"] or "" for match in _VARIABLE.finditer(text)]


def _finder(places: Places) -> PlaceOf:
    return lambda path: places.get(spelling(path))


def configuration_file(project: Path) -> Path | None:
    """Find the file that Ape would read in a folder: a ``pyproject.toml`` with a table of Ape's replaces all others."""
    pyproject = project / "pyproject.toml"
    if pyproject.is_file() and "[tool.ape" in _text(pyproject, pyproject.name):
        return pyproject
    return next((project / name for name in FILES if (project / name).is_file()), None)


def _read_files(file: Path | None) -> tuple[Any, Places]:
    """Read the section of the project's file over that of Ape's global one. None when neither has it."""
    files: list[tuple[Path, str]] = []
    with suppress(RuntimeError):  # a user without a home folder has no global file
        data_folder = Path(os.environ.get("APE_DATA_FOLDER") or Path.home() / ".ape")
        files.append((data_folder / FILES[0], f"{data_folder / FILES[0]}"))
    if file is not None:
        files.append((file, file.name))
    data: Any = None
    places: Places = {}
    for path, label in files:
        if not path.is_file():
            continue
        found, its_places = _read_file(path, label)
        if not found:
            continue
        [below] = found
        # Here and not after the merge, where one file would hide what is wrong in the other.
        if not isinstance(below, Mapping):
            validate_section(below, _finder(its_places))
        below = in_one_spelling(below, _finder(its_places))
        data = below if data is None else merge(data, below)
        places.update(its_places)
    return data, places


def _read_file(path: Path, label: str) -> tuple[list[Any], Places]:
    """Return what stands under the section's key, in a list that is empty when the file doesn't have it."""
    written = _text(path, label)
    text = os.path.expandvars(written)
    if not is_utf8(text):
        names = [name for name in unset_variables(written) if not is_utf8(os.environ.get(name, ""))]
        raise ConfigurationError(f"{label}: environment variable {names[0]}, which it refers to, isn't UTF-8 text")
    if path.suffix == ".toml":
        return _read_toml(text, label)
    if path.suffix == ".json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{label}:{error.lineno}: not JSON: {error.msg}") from None
        text = text.replace("\t", " ")  # YAML reads JSON, but for tabs between tokens
    return _read_yaml(text, label)


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded: Python carries bytes that aren't UTF-8 as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(path: Path, label: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{label}:{line}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"{label}: can't be read: {error.strerror}") from None


def _read_yaml(text: str, label: str) -> tuple[list[Any], Places]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        root = loader.get_single_node()
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return [], {}
        if not isinstance(root, yaml.MappingNode):
            # Ape itself goes round and round for minutes here.
            raise ConfigurationError(f"{label}:{root.start_mark.line + 1}: expected keys and values, such as `name: …`")
        found = [(key, value) for key, value in root.value if str(key.value).replace("-", "_") == KEY]
        if len(found) > 1:
            first, second = (key.start_mark.line + 1 for key, _ in found[:2])
            raise ConfigurationError(_twice(label, KEY, first, second))
        for key, value in found:
            places: Places = {(): f"{label}:{key.start_mark.line + 1}"}
            _check_twice(value, label)
            data = loader.construct_document(value)
            _yaml_places(value, (), label, places)
            return [data], places
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigurationError(f"{label}:{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{label}: not YAML: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{label}: can't be read: {error}") from None
    finally:
        loader.dispose()
    return [], {}


def _check_twice(node: Any, label: str) -> None:
    """Refuse a key that is there twice: YAML's loader would silently take the last."""
    import yaml

    seen: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if key.value in seen and key.value != "<<":
            raise ConfigurationError(_twice(label, key.value, seen[key.value], line))
        if isinstance(key.value, str):
            seen[key.value] = line
        _check_twice(value, label)


def _twice(label: str, key: str, first: int, second: int) -> str:
    return f"{label}:{second}: duplicate key '{key}', first in line {first}"


def _yaml_places(node: Any, path: tuple[str, ...], label: str, places: Places) -> None:
    import yaml

    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        here = spelling((*path, str(key.value)))
        places[here] = f"{label}:{key.start_mark.line + 1}"
        _yaml_places(value, here, label, places)


def _read_toml(text: str, label: str) -> tuple[list[Any], Places]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import toml as tomllib  # what Ape reads it with there
    try:
        tables = tomllib.loads(text).get("tool", {}).get("ape", {})
    except ValueError as error:
        # Without a line it is the end of the document that the parser stumbled over.
        line = match[1] if (match := re.search(r"line (\d+)", str(error))) else max(1, len(text.splitlines()))
        raise ConfigurationError(f"{label}:{line}: not TOML: {error}") from None
    for key, value in tables.items():
        if key.replace("-", "_") == KEY:
            return [value], {
                spelling(path[3:]): f"{label}:{line}"
                for path, line in toml_lines(text).items()
                if spelling(path[:3]) == ("tool", "ape", KEY)
            }
    return [], {}
