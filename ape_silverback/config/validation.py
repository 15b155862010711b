"""Checks a section as it was read, and names every problem with its place, key and what was expected. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ape_silverback.config.models import (
    BotConfig,
    HealthyConfig,
    NetworkValues,
    NotifyConfig,
    Part,
    RestartConfig,
    Section,
    StreamConfig,
    TargetConfig,
    kind_of,
    quoting_hint,
)
from ape_silverback.exceptions import ConfigurationError
from ape_silverback.suggestions import did_you_mean

Path = tuple[str, ...]
"""Place of a key below ``silverback``."""

Places = dict[Path, str]
"""Place of each key below ``silverback``, in one spelling → where it was written, as ``ape-config.yaml:12``."""

PlaceOf = Callable[[Path], "str | None"]
"""Returns where a key was written, as ``ape-config.yaml:12``, or None where that isn't known."""

# Key → (model of what is below it, whether names lie between). For the keys that hold more keys of ours.
_NESTED: dict[str, tuple[type[Part], bool]] = {
    "bots": (BotConfig, True),
    "healthy": (HealthyConfig, False),
    "networks": (NetworkValues, True),
    "notify": (NotifyConfig, False),
    "restart": (RestartConfig, False),
    "stream": (StreamConfig, False),
    "targets": (TargetConfig, True),
}

_EXPECTED = {
    "string_type": "expected text",
    "tuple_type": "expected a list",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "int_parsing": "expected a whole number (a chain id)",
}
"""Pydantic's type of an error → what was expected, in the words of the section."""


def validate_section(data: Any, place_of: PlaceOf) -> Section:
    """Return a section that was read as its model.

    Args:
        data: what stands under ``silverback``; None for a key without a value.
        place_of: returns where a key was written.

    Raises:
        ConfigurationError: with every problem, a line each: place, key, what is wrong and what was expected.
    """
    if not isinstance(data, Mapping):
        found = "is empty; add keys or remove it" if data is None else f"is {kind_of(data)}, not keys and values"
        raise ConfigurationError(_line((), found, place_of))
    problems = [_line(path, "isn't UTF-8 text", place_of) for path in _not_utf8(data)]
    if problems:
        raise ConfigurationError("\n".join(problems))
    normalised = _Normaliser(place_of, problems).part(data, Section, ())
    try:
        section = Section.model_validate(normalised)
    except ValidationError as error:
        problems += [_problem(detail, place_of) for detail in error.errors(include_url=False)]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return section


def in_one_spelling(data: Any, place_of: PlaceOf, *, twice: bool = False) -> Any:
    """Return what stands under ``silverback`` with its keys spelled with ``_``, so that files can be merged.

    Keys that aren't known stay as they are, for ``validate_section`` to name.

    Args:
        data: as one file has it.
        place_of: returns where a key was written.
        twice: whether a key may be there in both spellings, of which the later wins: Ape merges files like that.

    Raises:
        ConfigurationError: with a line for each key that is there in both spellings.
    """
    if not isinstance(data, Mapping):
        return data
    normaliser = _Normaliser(place_of, keep_unknown=True)
    result = normaliser.part(data, Section, ())
    if normaliser.doubles and not twice:
        raise ConfigurationError("\n".join(normaliser.doubles))
    return result


def spelling(path: Iterable[str]) -> Path:
    """Return a place in the one spelling that places are compared in."""
    return tuple(str(key).replace("-", "_") for key in path)


def near_match(name: str, known: Iterable[str]) -> str:
    """Return which known keys are near a name, or all that there are, in the spelling of the name."""
    written, other = ("_", "-") if "_" in name else ("-", "_")
    return did_you_mean(name, [key.replace(other, written) for key in known], "known keys", most=1)


@dataclass(frozen=True)
class _Normaliser:
    """Spells the keys of a section with ``_``.

    Attributes:
        unknown: gets a line for each key that isn't there.
        doubles: gets a line for each key that is given in both spellings; the later one is taken.
        keep_unknown: whether keys that aren't there are kept as they are, instead of being left out.
    """

    place_of: PlaceOf
    unknown: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    keep_unknown: bool = False

    def part(self, data: Mapping[Any, Any], model: type[Part], path: Path) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for written, value in data.items():
            key = str(written).replace("-", "_")
            here = (*path, str(written))
            if key not in model.model_fields:
                text = f"unknown key; {near_match(str(written), model.model_fields)}"
                self.unknown.append(_line(here, text, self.place_of))
                if self.keep_unknown:
                    result[written] = value
                continue
            if key in result:
                self.doubles.append(_line(here, "given twice, with '-' and with '_'", self.place_of))
            result[key] = self._below(key, value, here)
        if result.get("network") is not None and result.get("networks") is not None:
            self.doubles.append(_line((*path, "networks"), "given beside `network`; keep one of them", self.place_of))
        return result

    def _below(self, key: str, value: Any, path: Path) -> Any:
        if key not in _NESTED or not isinstance(value, Mapping):
            return value
        model, named = _NESTED[key]
        if not named:
            return self.part(value, model, path)
        return {
            name: self.part(below, model, (*path, str(name))) if isinstance(below, Mapping) else below
            for name, below in value.items()
        }


def _not_utf8(data: Any, path: Path = ()) -> Iterator[Path]:
    """Find keys and values that hold bytes which aren't UTF-8: Python carries them in text as lone surrogates."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            shown = str(key).encode(errors="replace").decode()
            if str(key) != shown:
                yield (*path, shown)
            yield from _not_utf8(value, (*path, shown))
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _not_utf8(value, path)
    elif isinstance(data, str) and data != data.encode(errors="replace").decode():
        yield path


def _problem(detail: Mapping[str, Any], place_of: PlaceOf) -> str:
    """Return one of pydantic's findings in plain words."""
    keys = [str(key) for key in detail["loc"]]
    is_key = bool(keys) and keys[-1] == "[key]"
    path = tuple(keys[:-1] if is_key else keys)
    value = detail["input"]
    if detail["type"] == "value_error":
        text = str(detail["ctx"]["error"])
    elif expected := _EXPECTED.get(detail["type"]):
        text = f"{expected}, got {kind_of(value)}" + (quoting_hint(value) if expected == "expected text" else "")
    else:
        text = f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {kind_of(value)}"
    return _line(path, text, place_of)


def _line(path: Path, text: str, place_of: PlaceOf) -> str:
    place = next((place for end in range(len(path), -1, -1) if (place := place_of(path[:end]))), None)
    return f"{place + ': ' if place else ''}{'.'.join(('silverback', *path))}: {text}"
