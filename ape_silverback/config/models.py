"""The ``silverback:`` section as plain models: one class a part, every key documented where it is declared.

Keys may be written with ``-`` or ``_``; names of bots, groups and targets are data and stay as they are. Reading files
and the environment is the light reader's work (``section.py``); what is here is pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from ape_silverback.addresses import checksummed_address
from ape_silverback.durations import read_span
from ape_silverback.exceptions import ConfigurationError
from ape_silverback.suggestions import did_you_mean

Path = tuple[str, ...]
"""Place of a key below ``silverback``."""

PlaceOf = Callable[[Path], "str | None"]
"""Tells where a key was written, as ``ape-config.yaml:12``, or None when that isn't known."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _time_span(value: Any) -> Any:
    """Read "3 days", "2h", "1 day, 2 hours", or seconds; leave the rest (ISO 8601) to pydantic."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text.isdecimal():
        return timedelta(seconds=int(text))
    try:
        if (span := read_span(text)) is not None:
            return span
    except OverflowError:
        raise ValueError(f"{value!r} is longer than there is time") from None
    if text.startswith("p"):
        return value.strip().upper()
    raise ValueError(f"expected a time span such as '3 days', '12h' or seconds, got {value!r}")


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"expected a name (letters, digits, '-', '_', '.'), got {value!r}")
    return value


def _cluster(value: Any) -> Any:
    if isinstance(value, str) and len([part for part in value.split("/") if part]) not in (1, 2):
        raise ValueError(f"expected WORKSPACE/NAME, got {value!r}")
    return value


def _variable_names(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 - for pydantic
            "expected a list of names; values never belong in this file: they come from the environment or --env-file"
        )
    if isinstance(value, list | tuple):
        for name in value:
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
                hint = "; a value never belongs in this file" if isinstance(name, str) and "=" in name else ""
                raise ValueError(f"{str(name).partition('=')[0]!r} is no name of a variable{hint}")
    return value


def _empty_is_default(value: Any) -> Any:
    return {} if value is None else value


Text = Annotated[str, StringConstraints(strip_whitespace=True)]
Name = Annotated[str, BeforeValidator(_name)]
VariableNames = Annotated[tuple[str, ...], BeforeValidator(_variable_names)]
ChecksummedAddress = Annotated[str, BeforeValidator(checksummed_address)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BotValues(_Part):
    """What may be said of a bot at every level: the section, a target, a bot, a target's bot."""

    network: Text | None = None
    """Where bots run, as ``ecosystem:network:provider``. Parts left out come from the Ape project."""

    account: Text | None = None
    """Alias of the account that bots sign with, as the cluster knows it. Empty text: none."""

    registry: Text | None = None
    """Container registry and path. Images default to ``{registry}/{project}-{bot}:{tag}``."""

    tag: Text | None = None
    """Tag of the images that are named after the registry; ``git`` for the commit. ``latest`` when not set."""

    credential: Text | None = None
    """Name of the cluster's registry credential for a private image. Empty text: none."""

    environment: tuple[Name, ...] | None = None
    """Variable groups of a bot, in order: of two that set one variable, the later wins."""

    cluster_access: bool | None = None
    """Whether a bot gets the address and the key of its cluster, to manage it. ``false`` when not set."""


class BotConfig(BotValues):
    """One bot of the project."""

    image: Text | None = None
    """Its whole image reference, in place of the one that is named after the registry."""

    module: Text | None = None
    """What ``silverback run`` takes to run it: a module of ``bots/``. The bot's name when not set."""

    protect: bool | None = None
    """Whether ``deploy --prune`` and ``bots remove`` are refused to remove it. ``false`` when not set."""

    renamed_from: Name | None = None
    """Name that it had on the cluster before: it is renamed there, and not made anew."""


class StreamConfig(_Part):
    """What has to be true of the payment stream of a cluster."""

    managers: dict[int, ChecksummedAddress] = Field(default_factory=dict)
    """Chain id → address of the StreamManager that is trusted there."""

    controllers: dict[int, ChecksummedAddress] = Field(default_factory=dict)
    """Chain id → address of the controller that the StreamManager has to have."""

    minimum_time_left: Annotated[timedelta, BeforeValidator(_time_span)] = timedelta(days=3)
    """Time that should be left on a stream, such as ``3 days``; below it there is a warning."""

    require: bool = False
    """Whether a cluster without a stream is refused."""


class _Deployment(BotValues):
    """Where bots are deployed to, and which."""

    profile: Text | None = None
    """Profile of ``~/.silverback/profile.toml`` that says how to reach the cluster."""

    cluster: Annotated[Text | None, BeforeValidator(_cluster)] = None
    """The cluster, as ``WORKSPACE/NAME``. For a profile of the platform."""

    variables: dict[Name, VariableNames] = Field(default_factory=dict)
    """Variable groups to make: name → names of their variables. Values come from the environment or --env-file."""

    bots: dict[Name, Annotated[BotConfig, BeforeValidator(_empty_is_default)]] = Field(default_factory=dict)
    """The bots, by name. Without any, they are those that the bot SDK finds in the project."""


class TargetConfig(_Deployment):
    """A place to deploy to: what differs there from the section. Chosen with ``deploy --target``."""

    stream: StreamConfig | None = None
    """What has to be true of the payment stream of this target's cluster, in place of the section's."""


class Section(_Deployment):
    """The ``silverback:`` section of ``ape-config.yaml``."""

    stream: StreamConfig = StreamConfig()
    """What has to be true of the payment stream of the cluster."""

    history: Text | None = None
    """Folder that remembers deployments, from the project's folder on. ``~/.silverback/deployments`` when not set."""

    targets: dict[Name, Annotated[TargetConfig, BeforeValidator(_empty_is_default)]] = Field(default_factory=dict)
    """Targets, by name."""

    def stream_of(self, target: str | None) -> StreamConfig:
        """Give what has to be true of the payment stream, of a target's cluster where one is named."""
        wanted = self.targets.get(target) if target else None
        return wanted.stream if wanted and wanted.stream else self.stream


# Key → (model of what is below it, whether names lie between). For the keys that hold more keys of ours.
_NESTED: dict[str, tuple[type[_Part], bool]] = {
    "bots": (BotConfig, True),
    "stream": (StreamConfig, False),
    "targets": (TargetConfig, True),
}


def validate_section(data: Any, place_of: PlaceOf) -> Section:
    """Check a section as it was read.

    Args:
        data: what stands under ``silverback``; None for a key without a value.
        place_of: tells where a key was written.

    Raises:
        ConfigurationError: with every problem, a line each: place, key, what is wrong and what was expected.
    """
    if not isinstance(data, Mapping):
        found = "is empty: give it keys or take it out" if data is None else f"is {_kind(data)}, not keys and values"
        raise ConfigurationError(_line((), found, place_of))
    problems: list[str] = []
    normalised = _Normaliser(place_of, problems).part(data, Section, ())
    try:
        section = Section.model_validate(normalised)
    except ValidationError as error:
        problems += [_problem(detail, place_of) for detail in error.errors(include_url=False)]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return section


def refuse_doubles(data: Any, place_of: PlaceOf) -> None:
    """Refuse a key that one file gives in both spellings. Of two files each may have its own.

    Raises:
        ConfigurationError: with a line for each.
    """
    normaliser = _Normaliser(place_of)
    if isinstance(data, Mapping):
        normaliser.part(data, Section, ())
    if normaliser.doubles:
        raise ConfigurationError("\n".join(normaliser.doubles))


def spelling(path: Iterable[str]) -> Path:
    """Give a place in the one spelling that places are compared in."""
    return tuple(str(key).replace("-", "_") for key in path)


def near_match(name: str, known: Iterable[str]) -> str:
    """Return which known keys are near a name, or all that there are, in the spelling of the name."""
    written, other = ("_", "-") if "_" in name else ("-", "_")
    return did_you_mean(name, [key.replace(other, written) for key in known], "known keys", most=1)


@dataclass(frozen=True)
class _Normaliser:
    """Gives the keys of a section their own names.

    Attributes:
        unknown: gets a line for each key that isn't there.
        doubles: gets a line for each key that is given in both spellings; the later one is taken.
    """

    place_of: PlaceOf
    unknown: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)

    def part(self, data: Mapping[Any, Any], model: type[_Part], path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for written, value in data.items():
            key = str(written).replace("-", "_")
            here = (*path, str(written))
            if key not in model.model_fields:
                text = f"unknown key; {near_match(str(written), model.model_fields)}"
                self.unknown.append(_line(here, text, self.place_of))
                continue
            if key in result:
                self.doubles.append(_line(here, "given twice, with '-' and with '_'", self.place_of))
            result[key] = self._below(key, value, here)
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


def _problem(detail: Mapping[str, Any], place_of: PlaceOf) -> str:
    """Say one of pydantic's findings in plain words."""
    keys = [str(key) for key in detail["loc"]]
    is_key = bool(keys) and keys[-1] == "[key]"
    path = tuple(keys[:-1] if is_key else keys)
    value = detail["input"]
    expected = {
        "string_type": "expected text",
        "tuple_type": "expected a list",
        "dict_type": "expected keys and values",
        "model_type": "expected keys and values",
        "bool_parsing": "expected true or false",
        "bool_type": "expected true or false",
        "int_parsing": "expected a whole number (a chain id)",
    }.get(detail["type"])
    if detail["type"] == "value_error":
        text = str(detail["ctx"]["error"])
    elif expected:
        text = f"{expected}, got {_kind(value)}"
        if expected == "expected text" and isinstance(value, int | float):
            text += "; put it in quotes"
    else:
        text = f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {value!r}"
    return _line(path, text, place_of)


def _line(path: Path, text: str, place_of: PlaceOf) -> str:
    place = next((place for end in range(len(path), -1, -1) if (place := place_of(path[:end]))), None)
    return f"{place + ': ' if place else ''}{'.'.join(('silverback', *path))}: {text}"


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    return repr(value)
