"""Deploy Silverback bots from an Ape project.

Ape imports this module at every start, and pytest through the fixtures at every run, so it imports next to nothing. The
public names are loaded when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker

if TYPE_CHECKING:
    from ape_silverback.api import deploy, deploy_events, plan, project_bots
    from ape_silverback.cluster.client import ClusterClient, PlatformClient
    from ape_silverback.config.models import Section
    from ape_silverback.config.reader import read_section
    from ape_silverback.deployment.apply import ApplyOptions
    from ape_silverback.deployment.events import Event
    from ape_silverback.deployment.plan import Plan, PlanOptions
    from ape_silverback.deployment.result import DeployResult
    from ape_silverback.deployment.wait import Timing
    from ape_silverback.exceptions import DeployFailed, SilverbackError
    from ape_silverback.images.build import Build
    from ape_silverback.project.desired import Overrides
    from ape_silverback.version import __version__

# Module → the public names that it has.
_PUBLIC = {
    "api": ("deploy", "deploy_events", "plan", "project_bots"),
    "cluster.client": ("ClusterClient", "PlatformClient"),
    "config.models": ("Section",),
    "deployment.apply": ("ApplyOptions",),
    "deployment.events": ("Event",),
    "deployment.plan": ("Plan", "PlanOptions"),
    "deployment.result": ("DeployResult",),
    "deployment.wait": ("Timing",),
    "project.desired": ("Overrides",),
    "exceptions": ("DeployFailed", "SilverbackError"),
    "images.build": ("Build",),
    "config.reader": ("read_section",),
    "version": ("__version__",),
}
_PLACES = {name: f"ape_silverback.{module}" for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "ApplyOptions",
    "Build",
    "ClusterClient",
    "DeployFailed",
    "DeployResult",
    "Event",
    "Overrides",
    "Plan",
    "PlanOptions",
    "PlatformClient",
    "Section",
    "SilverbackError",
    "Timing",
    "__version__",
    "deploy",
    "deploy_events",
    "plan",
    "project_bots",
    "read_section",
]


# What `ape.plugins.register` gives a function, without Ape: to import it would change what Ctrl-C does in every pytest.
@HookimplMarker("ape")
def config_class() -> Iterator[type]:
    """Yield the class of the ``silverback:`` section."""
    from ape_silverback.plugin import SilverbackConfig

    yield SilverbackConfig


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
