"""Deploy Silverback bots from an Ape project.

Ape imports this module at every start, so it imports nothing but Ape's registration. The public names are loaded when
they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ape import plugins

# Public name → the module that has it.
_PUBLIC = {
    "ClusterClient": "ape_silverback.cluster.client",
    "PlatformClient": "ape_silverback.cluster.client",
    "Section": "ape_silverback.config",
    "SilverbackError": "ape_silverback.exceptions",
    "__version__": "ape_silverback.version",
    "read_section": "ape_silverback.section",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the names are above


@plugins.register(plugins.Config)  # type: ignore[attr-defined]
def config_class() -> Iterator[type]:
    """Give Ape the class of the ``silverback:`` section."""
    from ape_silverback.plugin import SilverbackConfig

    yield SilverbackConfig


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
