"""What names and variables may look like, in every request."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from ape_silverback.cluster.types import SET_BY_CLUSTER


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError("expected at most 63 letters, digits, '-', '_' and '.'")
    return value


def _variables(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"'{name}' isn't a valid name of a variable")
        if name in SET_BY_CLUSTER:
            raise ValueError(f"'{name}' is set by the cluster")
    return values


Name = Annotated[str, AfterValidator(_name)]
Values = Annotated[dict[str, str], AfterValidator(_variables)]
Changes = Annotated[dict[str, str | None], AfterValidator(_variables)]
