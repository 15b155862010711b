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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ape_silverback.config.models import (
    PlaceOf,
    Section,
    TargetConfig,
    near_match,
    refuse_doubles,
    spelling,
    validate_section,
)
from ape_silverback.exceptions import ConfigurationError
from ape_silverback.toml_lines import toml_lines

KEY = "silverback"
VARIABLE_PREFIX = "APE_SILVERBACK_"
FILES = ("ape-config.yaml", "ape-config.yml", "ape-config.json")
"""A project's configuration files, in the order in which Ape looks for them."""

Places = dict[tuple[str, ...], str]
"""Place of each key below the section, in one spelling → where it was written."""


@dataclass(frozen=True)
class SectionReading:
    """The section with where each of its keys was written.

    Attributes:
        file: the project's configuration file, with a section or without; None when there is no file.
        only_set: bots that nothing names but a setting of this run, which changes bots and makes none.
    """

    section: Section
    file: Path | None
    places: Places = field(default_factory=dict)
    only_set: frozenset[str] = frozenset()

    def place_of(self, *path: str) -> str | None:
        """Tell where a key was written, as ``ape-config.yaml:12``, or None when it wasn't given."""
        return self.places.get(spelling(path))


def read_section(project: Path, settings: Sequence[str] = (), target: str | None = None) -> SectionReading:
    """Read the section of a project.

    Args:
        project: the project's folder. Only this folder is read, as by Ape.
        settings: values of one run that win over all others, as ``bots.NAME.key=value``.
        target: the target of that run: the settings win over it too.

    Raises:
        ConfigurationError: a file can't be read, or a key or a value isn't right. Names file, line and key.
    """
    file = configuration_file(project)
    data, places = _read_files(file)
    data = _overlay(data, os.environ, places)
    section = validate_section(data, _finder(places)) if data is not None else Section()
    named = _bot_names(section)
    for setting in settings:
        data = _lay_over(data or {}, setting, target, places)
    if settings:
        section = validate_section(data, _finder(places))
    return SectionReading(section, file, places, frozenset(_bot_names(section) - named))


def _bot_names(section: Section) -> set[str]:
    """Give the names of the bots of a section and of all its targets."""
    return {name for place in (section, *section.targets.values()) for name in place.bots}


def check_section(data: Any, project: Path | None) -> Section:
    """Check a section that Ape read, with the environment laid over it.

    Args:
        data: what Ape found under ``silverback``, merged from its files and from code.
        project: the project's folder, to tell where keys were written.

    Raises:
        ConfigurationError: as ``read_section``; keys that code set have no place.
    """
    try:
        _, places = _read_files(configuration_file(project) if project else None)
    except ConfigurationError:
        places = {}
    data = _overlay(data, os.environ, places)
    return validate_section(data, _finder(places))


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
    data_folder = Path(os.environ.get("APE_DATA_FOLDER") or Path.home() / ".ape")
    data: Any = None
    places: Places = {}
    for path, label in ((data_folder / FILES[0], f"{data_folder / FILES[0]}"), (file, file.name if file else "")):
        if path is None or not path.is_file():
            continue
        found, its_places = _read_file(path, label)
        if not found:
            continue
        [below] = found
        # Here and not after the merge, where one file would hide what is wrong in the other.
        if not isinstance(below, Mapping):
            validate_section(below, _finder(its_places))
        refuse_doubles(below, _finder(its_places))
        data = below if data is None else _merge(data, below)
        places.update(its_places)
    return data, places


def _read_file(path: Path, label: str) -> tuple[list[Any], Places]:
    """Give what stands under the section's key, in a list that is empty when the file doesn't have it."""
    text = os.path.expandvars(_text(path, label))
    if path.suffix == ".toml":
        return _read_toml(text, label)
    if path.suffix == ".json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{label}:{error.lineno}: not JSON: {error.msg}") from None
        text = text.replace("\t", " ")  # YAML reads JSON, but for tabs between tokens
    return _read_yaml(text, label)


def _text(path: Path, label: str) -> str:
    try:
        return path.read_text(encoding="utf8")
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
    """Refuse a key that is there twice, of which YAML's loader would quietly take the last."""
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
    return f"{label}:{second}: key '{key}' is there twice, first in line {first}"


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


def _merge(base: Any, over: Any) -> Any:
    """Lay one section over another as Ape merges its files: mappings key by key, all else replaced."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {**base, **{key: _merge(base[key], value) if key in base else value for key, value in over.items()}}


def _overlay(data: Any, environ: Mapping[str, str], places: Places) -> Any:
    """Lay the variables ``APE_SILVERBACK_…`` over a section; two underscores lead to a key below."""
    variables = sorted(name for name in environ if name.startswith(VARIABLE_PREFIX))
    if not variables or not (data is None or isinstance(data, Mapping)):
        return data
    result = _own_spelling(data or {})
    for variable in variables:
        path = tuple(variable.removeprefix(VARIABLE_PREFIX).lower().split("__"))
        _set(result, path, environ[variable], f"environment variable {variable}", places)
    return result


def _lay_over(data: Any, setting: str, target: str | None, places: Places) -> Any:
    """Lay one setting of the command line over a section, and over the target that would win over it."""
    if not isinstance(data, Mapping):
        return data
    written, is_one, text = setting.partition("=")
    place = f"option --set {written}"
    if not is_one or not written:
        raise ConfigurationError(f"option --set {setting}: expected KEY=VALUE, such as bots.NAME.tag=v2")
    first, *rest = written.split(".")
    if first == "bots" and len(rest) > 1:  # the name of a bot may have dots
        rest = [".".join(rest[:-1]), rest[-1]]
    path = (first.replace("-", "_"), *rest[:-1], *(key.replace("-", "_") for key in rest[-1:]))
    result = _own_spelling(data)
    _set(result, path, text, place, places)
    if target is not None and path[0] in TargetConfig.model_fields:
        _set(result, ("targets", target, *path), text, place, places)
    return result


def _set(result: dict[str, Any], path: tuple[str, ...], text: str, place: str, places: Places) -> None:
    """Set a key of a section, whose mappings on the way to it are copied."""
    if path[0] not in Section.model_fields:
        raise ConfigurationError(f"{place}: unknown key '{path[0]}'; {near_match(path[0], Section.model_fields)}")
    at = result
    for depth, key in enumerate(path[:-1], start=1):
        below = at.get(key)
        if not isinstance(below, Mapping):  # what the file says there is replaced
            below, places[path[:depth]] = {}, place
        at[key] = at = dict(below)
    at[path[-1]] = _value(place, path, text)
    for known in [known for known in places if known[: len(path)] == path]:
        del places[known]
    places[path] = place


def _own_spelling(data: Mapping[str, Any]) -> dict[str, Any]:
    """Give the keys of the section itself their own names where that makes no two of them one."""
    renamed = {str(key).replace("-", "_"): value for key, value in data.items()}
    return renamed if len(renamed) == len(data) else dict(data)


def _value(place: str, path: tuple[str, ...], text: str) -> Any:
    """Read a value that is text: mappings and lists as JSON, lists also as words between commas."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{place}: not JSON: {error.msg}") from None
    if path[-1] == "environment" or path[-2:-1] == ("variables",):
        return [word.strip() for word in text.split(",") if word.strip()]
    return text
