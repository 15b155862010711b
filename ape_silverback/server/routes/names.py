"""What names and variables may look like, in every request."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from ape_silverback.cluster.types import SET_BY_CLUSTER

MOST_THINGS = 1000
"""Bots, variable groups and registry credentials of a cluster, each."""

MOST_VARIABLES = 1000
"""Variables of a group."""

MOST_VALUE_BYTES = 100_000
"""Bytes of a variable's value: Linux starts no process with one of 128 KiB."""


def _text(value: str) -> str:
    """Refuse what no process, file or database could take."""
    if "\0" in value:
        raise ValueError("NUL characters aren't allowed")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text that can be encoded as UTF-8") from None
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError("expected at most 63 letters, digits, '-', '_' and '.', beginning with a letter or digit")
    return value


def _variables(values: dict[str, Any]) -> dict[str, Any]:
    if len(values) > MOST_VARIABLES:
        raise ValueError(f"expected at most {MOST_VARIABLES} variables")
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name):
            raise ValueError(f"{name[:60]!a} isn't a valid variable name")
        if name in SET_BY_CLUSTER:
            raise ValueError(f"'{name}' is set by the cluster")
        if value is not None:
            try:
                size = len(_text(value).encode())
            except ValueError as error:
                raise ValueError(f"value of '{name}': {error}") from None
            if size > MOST_VALUE_BYTES:
                raise ValueError(f"value of '{name}': expected at most {MOST_VALUE_BYTES} bytes")
    return values


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, StringConstraints(max_length=256), AfterValidator(_text)]
"""Text of a request that isn't a name: an alias, a network, a host."""

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]
"""Name of a variable."""

LongText = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_text)]
"""Text that may be longer: an image, a password."""

Values = Annotated[dict[str, str], AfterValidator(_variables)]
Changes = Annotated[dict[str, str | None], AfterValidator(_variables)]
