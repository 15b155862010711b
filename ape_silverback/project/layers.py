"""The places that may give values of a bot, laid over each other. Each value has its origin.

Precedence, highest first: the command line, the target's bot, the target, the bot, the section. Where a bot runs on
several networks, the values of one network stand just above those of the place that lists the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.networks import Sourced, split_choice

if TYPE_CHECKING:
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.project.desired import Overrides

_OPTIONS = {"environment": "group", "cluster_access": "cluster-access"}
"""Keys whose option has another name."""


@dataclass(frozen=True)
class Layer:
    """One place that may give values of a bot.

    Attributes:
        values: a part of the section, or ``Overrides``; None where the section has nothing.
        origin: returns the origin of a key's value, as ``bots.a.tag (ape-config.yaml:4)``.
        network: a network that is given in place of the values' own.
    """

    values: Any
    origin: Callable[[str], str]
    network: str | None = None

    def get(self, name: str) -> Any:
        """Return the value of a key, or None."""
        if self.network is not None and name == "network":
            return self.network
        return getattr(self.values, name, None)


@dataclass(frozen=True)
class Layers:
    """The places that may give values of one bot, the one that wins first."""

    layers: tuple[Layer, ...]

    def all(self, name: str) -> list[tuple[Any, str]]:
        """Return the values that are given for a key, each with its origin."""
        return [(value, layer.origin(name)) for layer in self.layers if (value := layer.get(name)) is not None]

    def first(self, name: str, default: Any = None, origin: str = "default") -> tuple[Any, str]:
        """Return the value of a key that wins and its origin, else the default and its origin."""
        return next(iter(self.all(name)), (default, origin))

    def by_network(self) -> list[tuple[Sourced, Layers]] | None:
        """Return the networks of a bot that runs on several, each with the layers there; None for a bot on one.

        A ``network:`` in a higher place than ``networks:`` puts the bot on that one, unless it only names a provider.

        Raises:
            ResolutionError: the command line names one network for a bot that runs on several.
        """
        for index, layer in enumerate(self.layers):
            if networks := layer.get("networks"):
                origin = layer.origin("networks")
                return [
                    (
                        Sourced(choice, origin),
                        Layers((*self.layers[:index], _on(layer, choice, values), *self.layers[index:])),
                    )
                    for choice, values in networks.items()
                ]
            network = Sourced(layer.get("network") or "", layer.origin("network"))
            if any(split_choice(network)[:2]):
                below = Layers(self.layers[index + 1 :])
                if index == 0 and below.by_network():
                    raise ResolutionError(
                        f"'{network.value}' ({network.origin}) is one network, but this bot runs on those of "
                        f"{below.first('networks')[1]}; deploy one of its bots by name, or change `networks:`"
                    )
                return None
        return None


def _on(layer: Layer, choice: str, values: Any) -> Layer:
    """Return the layer of one network of those that a layer lists."""

    def origin(name: str) -> str:
        return layer.origin("networks" if name == "network" else f"networks.{choice}.{name}")

    return Layer(values, origin, choice)


def layers_of(reading: SectionReading, bot: str, target: str | None, options: Overrides) -> Layers:
    """Return the places that may give values of a bot.

    Args:
        reading: the section.
        bot: name of the bot in the section.
        target: name of one of the section's targets.
        options: values of the command line.
    """
    section = reading.section

    def at(*path: str) -> Callable[[str], str]:
        def origin(name: str) -> str:
            keys = _split(name)
            key = ".".join((*path, *(key.replace("_", "-") for key in keys)))
            place = reading.place_of(*path, *keys)
            return f"{key} ({place})" if place else key

        return origin

    layers = [Layer(options, lambda name: f"option --{_OPTIONS.get(name, name)}")]
    if target is not None:
        wanted = section.targets[target]
        layers.append(Layer(wanted.bots.get(bot), at("targets", target, "bots", bot)))
        layers.append(Layer(wanted, at("targets", target)))
    layers.append(Layer(section.bots.get(bot), at("bots", bot)))
    layers.append(Layer(section, at()))
    return Layers(tuple(layers))


def _split(name: str) -> Sequence[str]:
    """Return the keys of ``networks.CHOICE.KEY``, of which the choice may have dots, or the one key that it is."""
    first, _, below = name.partition(".")
    choice, _, key = below.rpartition(".")
    return (first, choice, key) if below else (first,)
