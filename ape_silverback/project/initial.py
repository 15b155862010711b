"""The first ``silverback:`` section of a project: of the bots that it has, of a cluster, or of a compose file. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ape_silverback.cluster.types import SET_BY_CLUSTER, BotConfiguration, RestartPolicy
from ape_silverback.config.writer import Entry
from ape_silverback.exceptions import ConfigurationError
from ape_silverback.project.discovery import discover_bots, find_bot_module, split_project_image
from ape_silverback.project.needs import needs_of

GROUP = "settings"
"""Name of the variable group for what the bots' code reads from the environment."""

RESTARTS = {"no": "never", "on-failure": "on-failure", "always": "always", "unless-stopped": "always"}
"""What compose calls ``restart`` → the policy of the section."""

MOST_RESTARTS = 1000
"""Most restarts that the section takes."""

_NETWORK = "Where the bots run, as ECOSYSTEM:NETWORK:PROVIDER. Parts left out come from this Ape project."
_REGISTRY = (
    "Images for clusters other than a local one: {registry}/{project}-{bot}:{tag}. `ape silverback build` makes them."
)
_VARIABLES = "Variable groups. Values come from the environment of `deploy` or from --env-file, never from this file."


@dataclass(frozen=True)
class InitialSection:
    """A section to be written.

    Attributes:
        entries: its keys.
        bots: names of the bots in it.
        notes: what isn't in it, a line each.
    """

    entries: tuple[Entry, ...]
    bots: tuple[str, ...]
    notes: tuple[str, ...] = ()


def section_of_project(folder: Path) -> InitialSection:
    """Return a section for the bots that are found in a project.

    Raises:
        ConfigurationError: it has none.
    """
    found = discover_bots(folder)
    if not found:
        raise ConfigurationError("this project has no bots: put one at bots/NAME.py, then run this again")
    needs = {name: needs_of(folder, name) for name in found}
    required = tuple(dict.fromkeys(one for bot in needs.values() for one in bot.variables if one not in SET_BY_CLUSTER))
    signers = [name for name, bot in needs.items() if bot.signs]
    entries = [
        Entry(
            "profile",
            None,
            "The cluster. `ape silverback cluster up` starts one on this machine and makes it the profile `local`.",
            "profile: local",
        ),
        Entry("network", None, _NETWORK, "network: ethereum:mainnet"),
        Entry(
            "account",
            None,
            f"Alias of the account to sign with, as the cluster knows it. {_and(signers)} use `bot.signer`."
            if signers
            else "Alias of the account to sign with, as the cluster knows it. No bot uses `bot.signer` yet.",
            "account: my-alias",
        ),
        Entry("registry", None, _REGISTRY, "registry: ghcr.io/my-org"),
    ]
    if required:
        entries += [
            Entry("variables", {GROUP: list(required)}, f"{_VARIABLES}\nThe bots' code reads these."),
            Entry("environment", [GROUP], "Groups that every bot gets."),
        ]
    bots: dict[str, dict[str, Any]] = {name: {} for name in found}
    entries.append(Entry("bots", bots, "The bots: name on the cluster -> what differs for this bot."))
    return InitialSection(tuple(entries), tuple(found))


def section_of_cluster(
    folder: Path,
    bots: Mapping[str, BotConfiguration],
    groups: Mapping[str, Sequence[str]],
    *,
    profile: str | None,
    cluster: str | None,
) -> InitialSection:
    """Return the section that describes what a cluster runs.

    Args:
        folder: the project's folder.
        bots: name of each bot → its configuration, with credentials by name.
        groups: name of each variable group → its variables.
        profile: profile that reaches the cluster.
        cluster: the cluster of the platform, as ``WORKSPACE/NAME``.

    Raises:
        ConfigurationError: the cluster has no bots, or none that can be described here.
    """
    if not bots:
        raise ConfigurationError("the cluster has no bots to describe")
    notes = []
    described: dict[str, dict[str, Any]] = {}
    for name, bot in bots.items():
        values: dict[str, Any] = {}
        project = split_project_image(bot.image)
        if project is None:
            values["image"] = bot.image
        elif project[0].resolve() != folder.resolve():
            notes.append(f"{name}: left out, it runs from the folder {project[0]}")
            continue
        elif project[1] != name:
            values["module"] = project[1]
        values["network"] = f"{bot.ecosystem}:{bot.network}:{bot.provider}"
        if bot.account:
            values["account"] = bot.account
        if bot.credential_name:
            values["credential"] = bot.credential_name
        if bot.environment:
            values["environment"] = list(bot.environment)
        if bot.cluster_access:
            values["cluster-access"] = True
        described[name] = values | _policies_of(bot)
    if not described:
        raise ConfigurationError(
            "nothing to describe here, so nothing was written; run this in the project that the bots run from, or use "
            "`ape silverback init` for the bots of this one\n" + "\n".join(notes)
        )
    used = [group for values in described.values() for group in values.get("environment", ())]
    variables = {name: list(groups[name]) for name in dict.fromkeys(used) if name in groups}
    entries = [Entry(key, value) for key, value in (("profile", profile), ("cluster", cluster)) if value]
    entries += _shared(described, ("network", "credential", "environment", "restart", "healthy", "heartbeat"))
    if variables:
        entries.append(Entry("variables", variables, _VARIABLES))
    entries.append(Entry("bots", described, "The bots, as they were on the cluster."))
    return InitialSection(tuple(entries), tuple(described), tuple(notes))


def _policies_of(bot: BotConfiguration) -> dict[str, Any]:
    """Return the keys for what a cluster expects of a bot, and does when it ends; none where it has its own default."""
    values: dict[str, Any] = {}
    if (restart := bot.restart) is not None:
        spans = {"window": restart.window, "backoff": restart.backoff, "max-backoff": restart.max_backoff}
        settings = {"policy": restart.policy, "max-restarts": restart.max_restarts} | _spans(spans)
        usual = RestartPolicy(policy=restart.policy)
        values["restart"] = restart.policy if restart == usual else settings
    if (healthy := bot.healthy) is not None:
        values["healthy"] = _spans({"silent": healthy.silent}) | {"lag": healthy.lag}
    if bot.heartbeat:
        values["heartbeat"] = bot.heartbeat
    return values


def _spans(seconds: Mapping[str, float]) -> dict[str, str | float]:
    return {key: _span(value) for key, value in seconds.items()}


def _span(seconds: float) -> str | float:
    """Return a time span as people write it; as a number of seconds where it isn't a whole one."""
    if not float(seconds).is_integer():
        return seconds
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    return next(f"{int(seconds) // size}{unit}" for unit, size in units if int(seconds) % size == 0)


def _shared(bots: Mapping[str, dict[str, Any]], keys: Iterable[str]) -> list[Entry]:
    """Take values that all of several bots have out of them, into the section."""
    entries = []
    for key in keys:
        values = [bot.get(key) for bot in bots.values()]
        if len(values) > 1 and values[0] is not None and all(value == values[0] for value in values):
            entries.append(Entry(key, values[0], "For all bots."))
            for bot in bots.values():
                del bot[key]
    return entries


@dataclass
class _Service:
    """A service of a compose file, as a bot."""

    values: dict[str, Any] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def section_of_compose(
    folder: Path, content: Any, file: str, variables_of: Mapping[str, Sequence[str]]
) -> InitialSection:
    """Return a section for the bots that a compose file runs.

    Args:
        folder: the project's folder.
        content: the file, read.
        file: its name, for errors.
        variables_of: name of each env file that services use → the names in it.

    Raises:
        ConfigurationError: it has no services, or none of them is a bot.
    """
    services = content.get("services") if isinstance(content, Mapping) else None
    if not isinstance(services, Mapping):
        raise ConfigurationError(f"{file}: expected a compose file with `services:`")
    bots: dict[str, dict[str, Any]] = {}
    groups: dict[tuple[str, ...], str] = {}
    notes = []
    for name, service in services.items():
        found = _bot_of(folder, str(name), service, variables_of) if isinstance(service, Mapping) else None
        if found is None:
            notes.append(f"{name}: left out, it doesn't run a bot")
            continue
        if found.variables:
            group = groups.setdefault(found.variables, str(name))
            found.values["environment"] = [group]
        bots[str(name)] = found.values
        notes += [f"{name}: {note}" for note in found.notes]
    if not bots:
        raise ConfigurationError(f"{file}: none of its services runs a bot (`silverback run`)")
    entries = [Entry("profile", None, "The cluster that takes the place of compose.", "profile: local")]
    if not any("network" in bot for bot in bots.values()):
        entries.append(Entry("network", None, _NETWORK, "network: ethereum:mainnet"))
    entries += _shared(bots, ("network", "account", "restart"))
    if groups:
        entries.append(Entry("variables", {name: list(names) for names, name in groups.items()}, _VARIABLES))
    entries.append(Entry("bots", bots, f"The bots, as {file} ran them."))
    return InitialSection(tuple(entries), tuple(bots), tuple(notes))


def _bot_of(
    folder: Path, name: str, service: Mapping[str, Any], variables_of: Mapping[str, Sequence[str]]
) -> _Service | None:
    """Return a service as a bot; None for one that isn't."""
    command = _words(service.get("entrypoint")) + _words(service.get("command"))
    environment = _environment(service.get("environment"))
    for env_file in _env_files(service.get("env_file")):
        environment |= dict.fromkeys(variables_of.get(env_file, ()), None)
    runs = "run" in command and (command[0] in ("silverback", "run") or "silverback" in command)
    is_ours = find_bot_module(folder, name) is not None
    if not runs and not is_ours and not any(variable in SET_BY_CLUSTER for variable in environment):
        return None
    found = _Service()
    module, options = _run_arguments(command)
    if service.get("image") and not service.get("build"):
        found.values["image"] = str(service["image"])
    elif service.get("build"):
        found.notes.append("it was built by compose; `ape silverback build` makes its image")
    if module and module != name:
        found.values["module"] = module
    network = options.get("--network") or environment.get("SILVERBACK_NETWORK_CHOICE")
    account = options.get("--account") or environment.get("SILVERBACK_SIGNER_ALIAS")
    for key, value in (("network", network), ("account", account)):
        if value and "$" not in value:
            found.values[key] = value
        elif value:
            found.notes.append(f"its {key} is {value} in compose; set `{key}:`")
    found.variables = tuple(
        variable
        for variable in environment
        if variable not in SET_BY_CLUSTER and re.fullmatch(r"[A-Za-z_]\w*", variable)
    )
    if (restart := service.get("restart")) is not None:
        if policy := _restart_of(restart):
            found.values["restart"] = policy
        else:
            found.notes.append(f"its restart is {restart} in compose; set `restart:`")
    return found


def _restart_of(restart: Any) -> str | dict[str, Any] | None:
    """Return what compose calls ``restart`` as the section has it; None for what compose doesn't know either."""
    if restart is False:  # YAML's `no`
        return "never"
    policy, _, most = str(restart).partition(":")
    if policy == "on-failure" and most.isdecimal() and 1 <= int(most) <= MOST_RESTARTS:
        return {"policy": policy, "max-restarts": int(most)}
    return RESTARTS.get(str(restart))


def _run_arguments(command: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """Return the module and the options of ``silverback run`` in a command."""
    words = list(command[command.index("run") + 1 :]) if "run" in command else []
    module, options = None, {}
    while words:
        word = words.pop(0)
        if word.startswith("--") and "=" in word:
            option, _, value = word.partition("=")
            options[option] = value
        elif word.startswith("-"):
            if words and not words[0].startswith("-"):
                options[word] = words.pop(0)
        elif module is None:
            module = word
    return module, options


def _words(command: Any) -> list[str]:
    if isinstance(command, str):
        try:
            return shlex.split(command)
        except ValueError:
            return command.split()
    return [str(word) for word in command] if isinstance(command, list) else []


def _environment(environment: Any) -> dict[str, str | None]:
    """Return the variables of a service with their values, which only serve to find network and account."""
    if isinstance(environment, Mapping):
        return {str(name): None if value is None else str(value) for name, value in environment.items()}
    pairs = (str(entry).partition("=") for entry in environment) if isinstance(environment, list) else ()
    return {name: value if is_one else None for name, is_one, value in pairs}


def _env_files(value: Any) -> list[str]:
    entries = value if isinstance(value, list) else [value] if value else []
    return [str(entry.get("path", "")) if isinstance(entry, Mapping) else str(entry) for entry in entries]


def env_files_of(content: Any) -> list[str]:
    """Return the env files that the services of a compose file use, as they are written."""
    services = content.get("services") if isinstance(content, Mapping) else None
    found = [
        name
        for service in (services.values() if isinstance(services, Mapping) else ())
        if isinstance(service, Mapping)
        for name in _env_files(service.get("env_file"))
    ]
    return list(dict.fromkeys(found))


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
