"""Which bots a project has: those that it declares, else those that are found, with one for each network of a bot."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.layers import Layers, layers_of
from ape_silverback.project.networks import ConfigurationFiles, ResolvedNetwork, Sourced, resolve_network
from ape_silverback.suggestions import did_you_mean

if TYPE_CHECKING:
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.project.desired import Overrides

NAMES = "{bot}-{ecosystem}-{network}"
"""Names of the bots of one that runs on several networks, when the section gives none."""


@dataclass(frozen=True)
class Member:
    """A bot to be deployed: one that the section or the folder has, or one network of it.

    Attributes:
        name: its name on the cluster.
        bot: its name in the section.
        origin: where the project declares it.
        layers: the places that may give its values.
        network: where it runs, for a bot on several networks; None for one whose network isn't resolved yet.
        earlier: names of it that an earlier name of the bot in the section stands for.
        problem: why it can't be deployed.
    """

    name: str
    bot: str
    origin: str
    layers: Layers
    network: ResolvedNetwork | None = None
    earlier: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def family(self) -> str | None:
        """Name in the section of a bot that runs on several networks; None for one that runs on one."""
        return self.bot if self.network is not None or self.problem else None


def known_bots(reading: SectionReading, found: Mapping[str, str], target: str | None = None) -> dict[str, str]:
    """Return the project's bots: those that the section declares, else those that are found in the folder.

    A target's bots, the environment and settings change bots and make none. Only in a project that has none otherwise
    are they those of the target.

    Args:
        reading: the section.
        found: what ``discover_bots`` returns for the project's folder.
        target: name of one of the section's targets.

    Returns:
        Name of each bot in the section → its origin.

    Raises:
        ResolutionError: a target's bot or an overlay isn't one of the project's bots.
    """
    wanted = reading.target(target)
    of_target = wanted.bots if wanted is not None else {}
    if reading.declared:
        known = {name: f"silverback.bots.{name}" for name in reading.declared}
    elif found:
        known = {name: f"found at {path}" for name, path in found.items()}
    else:
        known = {name: f"silverback.targets.{target}.bots.{name}" for name in of_target}
    problems = []
    for name in of_target:
        if name not in known:
            key = f"silverback.targets.{target}.bots.{name}"
            place = reading.place_of("targets", str(target), "bots", name)
            problems.append(
                f"{key}{f' ({place})' if place else ''}: this project has no bot '{name}'; {did_you_mean(name, known)} "
                "(a target changes bots; declare new ones under silverback.bots)"
            )
    for name, place in reading.unknown_bots.items():
        if name not in known:
            problems.append(f"{place}: this project has no bot '{name}'; {did_you_mean(name, known)}")
    if problems:
        raise ResolutionError("\n".join(problems))
    return known


def members_of(
    reading: SectionReading,
    known: Mapping[str, str],
    target: str | None,
    options: Overrides,
    files: ConfigurationFiles,
) -> list[Member]:
    """Return the bots to be deployed, in the order of the section.

    Args:
        reading: the section.
        known: what ``known_bots`` returns.
        target: name of one of the section's targets.
        options: values of the command line.
        files: what Ape's configuration files declare.
    """
    members: list[Member] = []
    for bot, origin in known.items():
        layers = layers_of(reading, bot, target, options)
        try:
            networks = layers.by_network()
        except ResolutionError as error:
            members.append(Member(bot, bot, origin, layers, problem=str(error)))
            continue
        if networks is None:
            members.append(Member(bot, bot, origin, layers))
        else:
            members += [_on_network(bot, origin, choice, on, files) for choice, on in networks]
    taken = Counter(member.name for member in members)
    for at, member in enumerate(members):
        if taken[member.name] > 1 and member.problem is None:
            others = sorted({other.bot for other in members if other.name == member.name})
            where = f"bots {' and '.join(others)} have" if len(others) > 1 else f"two networks of bot {member.bot} have"
            problem = f"{where} this name; set `names:` for them"
            members[at] = Member(member.name, member.bot, member.origin, member.layers, member.network, (), problem)
    return members


def _on_network(bot: str, origin: str, choice: Sourced, layers: Layers, files: ConfigurationFiles) -> Member:
    try:
        network = resolve_network([Sourced(*given) for given in layers.all("network")], files)
    except ResolutionError as error:
        return Member(f"{bot} on {choice.value}", bot, origin, layers, problem=str(error))
    names, _ = layers.first("names", default=NAMES)

    def name_of(bot: str) -> str:
        template = names if isinstance(names, str) else names.get(choice.value, NAMES)
        return str(template.format(bot=bot, ecosystem=network.ecosystem.value, network=network.network.value))

    earlier = tuple(name_of(name) for name in layers.first("renamed_from", default=())[0])
    where = f"{origin}, one of {choice.origin}"
    return Member(name_of(bot), bot, where, layers, network, earlier)


def choose(names: Sequence[str], members: Iterable[Member]) -> list[Member]:
    """Return the bots that are meant by name, by the name of their family, or by glob; all of them for no names.

    Raises:
        ResolutionError: there are none, or a name means none.
    """
    members = list(members)
    if not members:
        raise ResolutionError(
            "this project has no bots: put one at bots/NAME.py, or declare them under `silverback: bots:` "
            "in ape-config.yaml. (Ape reads only the current folder.)"
        )
    if not names:
        return members
    chosen: dict[str, Member] = {}
    for name in names:
        meant = [one for one in members if name in (one.name, one.bot)] or [
            one for one in members if fnmatch.fnmatchcase(one.name, name) or fnmatch.fnmatchcase(one.bot, name)
        ]
        if not meant:
            known = {known for one in members for known in (one.name, one.bot)}
            raise ResolutionError(f"this project has no bot '{name}'; {did_you_mean(name, known)}")
        chosen.update({one.name: one for one in meant})
    return list(chosen.values())
