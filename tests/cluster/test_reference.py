"""Every class, field, type, bound, default and enum value of the reference module exists here under the same name.

``reference.json`` holds what the reference says of ``silverback.cluster``.
"""

from __future__ import annotations

import enum
import inspect
import json
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from silverback.cluster import client as public_client

from ape_silverback.cluster import client as our_client

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("reference.json").read_text())
FIELDS = [(name, field) for name, content in REFERENCE.items() for field in content.get("fields", {})]
MEMBERS = [(name, member) for name, content in REFERENCE.items() for member in content.get("members", {})]
METHODS = [(name, method) for name, content in REFERENCE.items() for method in content.get("methods", {})]


def ours(name: str) -> Any:
    module, _, cls = name.partition(".")
    return getattr(import_module(f"ape_silverback.cluster.{module}"), cls)


def spelled(annotation: Any) -> str:
    """Write a type as the reference writes it."""
    if annotation is NoneType:
        return "None"
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return " | ".join(map(spelled, get_args(annotation)))
    if origin is not None and hasattr(annotation, "__metadata__"):
        return spelled(get_args(annotation)[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(spelled, get_args(annotation)))}]"
    return str(annotation.__name__)


def test_the_reference_is_whole() -> None:
    assert len(REFERENCE) == 24
    assert len(FIELDS) == 93
    assert len(MEMBERS) == 8


@pytest.mark.parametrize("name", REFERENCE)
def test_the_class_is_here_with_its_base_and_its_docstring(name: str) -> None:
    cls = ours(name)
    bases = {base.__name__ for base in cls.__mro__}
    assert set(REFERENCE[name]["bases"]) <= bases
    assert inspect.getdoc(cls)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_the_field_is_here_with_its_type_bounds_and_default(name: str, field: str) -> None:
    cls, expected = ours(name), REFERENCE[name]["fields"][field]
    assert issubclass(cls, BaseModel)
    info = cls.model_fields[field]
    assert spelled(info.annotation) == {"address": "str"}.get(expected["type"], expected["type"])
    bounds = {"ge": None, "le": None}
    for rule in info.metadata:
        bounds["ge"] = rule.ge if isinstance(rule, Ge) else bounds["ge"]
        bounds["le"] = rule.le if isinstance(rule, Le) else bounds["le"]
    assert bounds == {"ge": expected.get("ge"), "le": expected.get("le")}
    if expected.get("default") == "<factory>":
        assert info.default_factory is dict
    elif "default" in expected:
        assert info.default == expected["default"]
    else:
        assert info.default is PydanticUndefined
        assert info.is_required()


@pytest.mark.parametrize(("name", "member"), MEMBERS)
def test_the_enum_value_is_here(name: str, member: str) -> None:
    cls = ours(name)
    assert issubclass(cls, enum.IntEnum)
    assert cls[member].value == REFERENCE[name]["members"][member]
    assert len(cls) == len(REFERENCE[name]["members"])


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_the_method_is_here_with_its_arguments(name: str, method: str) -> None:
    found = list(inspect.signature(getattr(ours(name), method)).parameters.values())
    expected = [part.partition(":")[0].lstrip("*") for part in REFERENCE[name]["methods"][method].split(", ") if part]
    assert [one.name for one in found if one.name != "self"] == expected


# What the public SDK's classes have today, so that code written for them works here

PUBLIC_CLASSES = ("Bot", "ClusterClient", "PlatformClient", "RegistryCredentials", "VariableGroup", "Workspace")


def own_names(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")} - {
        "cluster",
        "platform_client",
        "client",
        "model_config",
    }


@pytest.mark.parametrize("cls", PUBLIC_CLASSES)
def test_every_name_of_the_public_class_is_here(cls: str) -> None:
    public, mine = getattr(public_client, cls), getattr(our_client, cls)
    for name in own_names(public):
        if name in getattr(public, "model_fields", {}):
            assert name in mine.model_fields
            continue
        there, here = inspect.getattr_static(public, name), inspect.getattr_static(mine, name)
        if inspect.isfunction(there) and name != "send":
            wanted, found = inspect.signature(there).parameters, inspect.signature(here).parameters
            assert list(wanted) == list(found)[: len(wanted)], name
            for parameter, told in wanted.items():
                # What could be left out there can be left out here.
                assert told.default is told.empty or found[parameter].default is not told.empty, (name, parameter)
        elif not inspect.isfunction(there):
            assert not inspect.isfunction(here), f"{name} is a property there"
