"""Which bots are protected from being removed by hand: by the project's section, else by what was deployed last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ape_silverback.config.models import BotConfig
from ape_silverback.config.reader import SectionReading
from ape_silverback.deployment.state import RecordedBot


def protected_bots(reading: SectionReading, recorded: Iterable[RecordedBot]) -> dict[str, str]:
    """Return the protected bots of a project by their names on the cluster, each with why and what to do.

    The section decides for the bots that it has, of any target, and for all that it makes of one on several networks.
    For others it is what the last deployment recorded.

    Args:
        reading: the project's section.
        recorded: what earlier deployments to the cluster left.
    """
    section = reading.section
    places: list[tuple[tuple[str, ...], Mapping[str, BotConfig]]] = [(("bots",), section.bots)]
    places += [(("targets", target, "bots"), wanted.bots) for target, wanted in section.targets.items()]
    protected: dict[str, str] = {}
    for path, bots in places:
        for name, bot in bots.items():
            if bot.protect and name not in protected:
                key, place = ".".join(("silverback", *path, name, "protect")), reading.place_of(*path, name, "protect")
                protected[name] = f"({key}{f' in {place}' if place else ''}): remove that key first"
    declared = {name for _, bots in places for name in bots}
    for one in recorded:
        name = one.family or one.name
        if name in protected:
            protected[one.name] = protected[name]
        elif one.protect and name not in declared:
            protected[one.name] = "by its last deployment: deploy it once with `protect: false` first"
    return {name: f"{name} is protected {why}" for name, why in protected.items()}
