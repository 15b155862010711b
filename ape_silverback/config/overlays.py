"""What is laid over the section of the files for one run: the environment, then the settings of the command line.

Overlays change values. They make no bot: of a bot that the project doesn't have they are left out and noted, so that a
typing error neither deploys a bot nor hides those that are there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ape_silverback.config.models import BotConfig, Section, TargetConfig
from ape_silverback.config.validation import Path, Places, in_one_spelling, near_match, spelling
from ape_silverback.exceptions import ConfigurationError
from ape_silverback.suggestions import did_you_mean

VARIABLE_PREFIX = "APE_SILVERBACK_"

_LISTS = {
    name
    for model in (Section, TargetConfig, BotConfig)
    for name, key in model.model_fields.items()
    if "tuple[" in str(key.annotation) or name == "networks"
}
"""Keys whose value is a list, which an overlay may also give as words between commas."""

_NAMED = ("bots", "targets", "variables")
"""Keys below which names stand that the user chooses."""


@dataclass
class Overlays:
    """A section to which overlays are applied one after the other.

    Attributes:
        data: what the files have, in one spelling; None when they have no section.
        places: place of each key; an overlay becomes the place of what it sets.
        found: returns the names of the bots in the project's folder.
        unknown_bots: bots that the project doesn't have → the overlay that names each.
        warnings: what is worth knowing, a line each.
    """

    data: Any
    places: Places
    found: Callable[[], Collection[str]]
    unknown_bots: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def environment(self, environ: Mapping[str, str]) -> None:
        """Apply the variables ``APE_SILVERBACK_…``; two underscores lead to a key below.

        Variables know neither case nor hyphens, so a name is found by its letters and digits.

        Raises:
            ConfigurationError: a variable is a mistyped key, means two names, or means a target that isn't there.
        """
        for variable in sorted(name for name in environ if name.startswith(VARIABLE_PREFIX)):
            place = f"environment variable {variable}"
            first, *rest = variable.removeprefix(VARIABLE_PREFIX).lower().split("__")
            if first not in Section.model_fields:
                hint = near_match(first, Section.model_fields)
                if hint.startswith("did you mean"):
                    raise ConfigurationError(f"{place}: unknown key '{first}'; {hint}")
                # Somebody else's, such as a version that an image notes down.
                self.warnings.append(f"{place} isn't used: the section has no key '{first}'")
                continue
            self._apply((first, *self._names(first, rest, place)), environ[variable], place)

    def setting(self, written: str, target: str | None) -> None:
        """Apply a setting of the command line, such as ``bots.NAME.tag=v2``, also over the target that would win.

        Raises:
            ConfigurationError: it isn't KEY=VALUE, its key isn't known, or it means a target that isn't there.
        """
        key, is_one, text = written.partition("=")
        place = f"option --set {key}"
        if not is_one or not key:
            raise ConfigurationError(f"option --set {written}: expected KEY=VALUE, such as bots.NAME.tag=v2")
        first, *rest = key.split(".")
        first = first.replace("-", "_")
        if first not in Section.model_fields:
            raise ConfigurationError(f"{place}: unknown key '{first}'; {near_match(first, Section.model_fields)}")
        path = (first, *_with_dots(first, rest, self._known(first)))
        if path[0] == "targets" and len(path) > 1:
            self._check_target(path[1], place)
        self._apply(path, text, place)
        if target is not None and first in TargetConfig.model_fields:
            self._apply(("targets", target, *path), text, place)

    def _apply(self, path: Path, text: str, place: str) -> None:
        """Set a key. A mapping changes the keys that it has, as one file over another; all else is replaced."""
        patch: Any = _value(place, path, text)
        for key in reversed(path):
            patch = {key: patch}
        patch = in_one_spelling(patch, lambda _: place)
        self._leave_out_unknown_bots(patch, place)
        if self.data is not None and not isinstance(self.data, Mapping):
            return  # the files have no section that could be changed: validation names it
        for here, below in _walk(patch):
            if not isinstance(below, Mapping) or not isinstance(_at(self.data, here), Mapping):
                for known in [known for known in self.places if known[: len(here)] == spelling(here)]:
                    del self.places[known]
                self.places[spelling(here)] = place
        self.data = merge(self.data or {}, patch)

    def _leave_out_unknown_bots(self, patch: Any, place: str) -> None:
        places = (
            [patch, *(patch.get("targets") or {}).values()] if isinstance(patch.get("targets"), Mapping) else [patch]
        )
        known = self._known("bots")
        for above in places:
            if isinstance(above, Mapping) and isinstance(bots := above.get("bots"), dict):
                for name in [name for name in bots if name not in known]:
                    self.unknown_bots[str(name)] = place
                    del bots[name]

    def _known(self, key: str) -> set[str]:
        """Return the names that stand below a key: for bots those of every target too, or those that are found."""
        data = self.data if isinstance(self.data, Mapping) else {}
        names = _names_in(data, key)
        if key == "targets":
            return names
        targets = data.get("targets")
        for target in targets.values() if isinstance(targets, Mapping) else ():
            names |= _names_in(target, key)
        if key == "bots" and not _names_in(data, key):
            names |= set(self.found())
        return names

    def _names(self, first: str, rest: Sequence[str], place: str) -> tuple[str, ...]:
        """Return the path of a variable with the names that it means."""
        if first not in _NAMED or not rest:
            return tuple(rest)
        return self._named((first,), rest, place)

    def _named(self, above: Path, rest: Sequence[str], place: str) -> tuple[str, ...]:
        """Return the path of a variable below a key that holds names, each in the spelling of the one it means."""
        key = above[-1]
        known = self._known(key) if key != "networks" else _names_in(_at(self.data, above[:-1]), key)
        for end in range(len(rest), 0, -1):  # a name may have two underscores itself
            word = _letters("__".join(rest[:end]))
            candidates = sorted(name for name in known if _letters(name) == word)
            if len(candidates) > 1:
                both = " and ".join(f"'{name}'" for name in candidates)
                raise ConfigurationError(f"{place}: means {both}; use --set {key}.NAME.KEY=VALUE, or rename one")
            if candidates:
                name, below = candidates[0], rest[end:]
                if below and below[0] in (*_NAMED, "networks") and below[1:] and key in ("bots", "targets"):
                    return (name, below[0], *self._named((*above, name, below[0]), below[1:], place))
                return (name, *below)
        if key == "targets" and len(rest) > 1:
            self._check_target(rest[0], place)
        return tuple(rest)

    def _check_target(self, name: str, place: str) -> None:
        known = self._known("targets")
        if name not in known:
            hint = did_you_mean(name, known) if known else "it has no targets"
            raise ConfigurationError(f"{place}: no target '{name}' in the silverback section; {hint}")


def merge(base: Any, over: Any) -> Any:
    """Return one section laid over another as Ape merges its files: mappings key by key, all else replaced."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    # `network` and `networks` are one setting in two forms: the later one replaces the other.
    if isinstance(over.get("networks"), Mapping) and isinstance(base.get("networks"), list):
        base = {**base, "networks": dict.fromkeys(base["networks"])}
    if isinstance(over.get("network"), str):
        base = {key: value for key, value in base.items() if key != "networks"}
    elif "networks" in over and isinstance(base.get("network"), str):
        base = {key: value for key, value in base.items() if key != "network"}
    return {**base, **{key: merge(base[key], value) if key in base else value for key, value in over.items()}}


def _names_in(data: Any, key: str) -> set[str]:
    below = data.get(key) if isinstance(data, Mapping) else None
    return {str(name) for name in below} if isinstance(below, Mapping | list) else set()


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _with_dots(first: str, rest: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Return the path below the first key of a setting, in which names of bots may have dots."""
    if first == "targets" and rest:
        name, *below = rest
        yield name
        if below:
            yield (key := below[0].replace("-", "_"))
            yield from _with_dots(key, below[1:], known)
        return
    if first != "bots" or len(rest) < 2:
        yield from (key if first in _NAMED else key.replace("-", "_") for key in rest)
        return
    whole = [end for end in range(1, len(rest)) if ".".join(rest[:end]) in known]
    end = max(whole, default=len(rest) - 1)
    yield ".".join(rest[:end])
    yield rest[end].replace("-", "_")
    yield from rest[end + 1 :]


def _walk(patch: Mapping[Any, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in patch.items():
        here = (*path, str(key))
        yield here, value
        if isinstance(value, Mapping):
            yield from _walk(value, here)


def _at(data: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def _value(place: str, path: Path, text: str) -> Any:
    """Read a value that is text: mappings and lists as JSON, lists also as words between commas."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{place}: not JSON: {getattr(error, 'msg', 'nested too deeply')}") from None
    if path[-1] in _LISTS or path[-2:-1] == ("variables",):
        return [word.strip() for word in text.split(",") if word.strip()]
    return text
