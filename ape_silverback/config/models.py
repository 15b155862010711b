"""The ``silverback:`` section as plain models: one class a part, every key documented where it is declared.

Keys may be written with ``-`` or ``_``; names of bots, groups and targets are data and keep their spelling. Everything
here is pure: ``validation.py`` checks what was read, ``reader.py`` reads files and the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from ape_silverback.addresses import checksummed_address
from ape_silverback.durations import read_span

LONGEST_SPAN = timedelta(days=36525)
"""Longest time span that a key may hold: a hundred years, so that adding it to any date of today can't overflow."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def kind_of(value: Any) -> str:
    """Return what a value is, in the words of an error."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, date):  # a datetime too; YAML and TOML make them of text that looks like one
        return f"the date {value}"
    return repr(value)


def quoting_hint(value: Any) -> str:
    """Return what to do about a value that YAML read as something else than text; empty for other values."""
    return "; put it in quotes" if isinstance(value, int | float | date) else ""


def _time_span(value: Any) -> timedelta:
    """Read "3 days", "2h", "1 day, 2 hours", ISO 8601, or a number of seconds."""
    from pydantic import TypeAdapter, ValidationError

    expected = f"expected a time span such as '3 days', '12h' or seconds, got {kind_of(value)}"
    span: Any = value
    try:
        if isinstance(value, str):
            text = value.strip().lower()
            span = int(text) if text.isdecimal() else read_span(text)
            if span is None:
                span = TypeAdapter(timedelta).validate_python(value.strip().upper()) if text.startswith("p") else None
        if isinstance(span, int | float) and not isinstance(span, bool):
            span = timedelta(seconds=span)
    except (OverflowError, ValidationError):
        raise ValueError(f"{expected}: that isn't between 0 and 100 years") from None
    except ValueError:
        raise ValueError(expected) from None
    if not isinstance(span, timedelta):
        raise ValueError(expected)  # noqa: TRY004 - for pydantic
    if not timedelta(0) <= span <= LONGEST_SPAN:
        raise ValueError(f"{expected}: that isn't between 0 and 100 years")
    return span


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        hint = quoting_hint(value)
        raise ValueError(f"expected a name (letters, digits, '-', '_', '.'), got {kind_of(value)}{hint}")
    return value


def _cluster(value: Any) -> Any:
    if isinstance(value, str) and len([part for part in value.split("/") if part]) not in (1, 2):
        raise ValueError(f"expected WORKSPACE/NAME, got {value!r}")
    return value


def _variable_names(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 - for pydantic
            "expected a list of names; values never belong in this file: they come from the environment or --env-file"
        )
    if isinstance(value, list | tuple):
        for name in value:
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
                hint = "; a value never belongs in this file" if isinstance(name, str) and "=" in name else ""
                raise ValueError(f"{str(name).partition('=')[0]!r} isn't a valid variable name{hint}")
    return value


def _variable(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        raise ValueError(
            "expected the name of a variable that holds the address, which may be a secret; got an address"
        )
    if value not in (None, "") and not (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        raise ValueError(f"expected the name of a variable, got {kind_of(value)}")
    return value


def _networks(value: Any) -> Any:
    """Read a list of networks as networks without differences."""
    if isinstance(value, Mapping):
        networks = {name: {} if below is None else below for name, below in value.items()}
    elif isinstance(value, list | tuple):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"expected networks, as 'ethereum:mainnet', got {kind_of(name)}")  # noqa: TRY004
            if value.count(name) > 1:
                raise ValueError(f"'{name}' is listed twice")
        networks = {name: {} for name in value}
    elif value is None:
        return None
    else:
        hint = f"; use `network:` for one, or [{value}]" if isinstance(value, str) else ""
        raise ValueError(f"expected a list of networks, got {kind_of(value)}{hint}")
    if not networks:
        raise ValueError("expected at least one network")
    return networks


def _names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    known = {"bot", "ecosystem", "network"}
    parts = set(re.findall(r"\{(.*?)\}", value))
    if parts - known or not _NAME.fullmatch(re.sub(r"\{\w+\}", "x", value)):
        raise ValueError(f"expected a name with {{bot}}, {{ecosystem}} and {{network}}, got {value!r}")
    return value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _empty_is_default(value: Any) -> Any:
    return {} if value is None else value


Text = Annotated[str, StringConstraints(strip_whitespace=True)]
Name = Annotated[str, BeforeValidator(_name)]
VariableNames = Annotated[tuple[str, ...], BeforeValidator(_variable_names)]
ChecksummedAddress = Annotated[str, BeforeValidator(checksummed_address)]


class Part(BaseModel):
    """A part of the section: frozen, and without keys that aren't declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # one section is read


def _policy(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


def _blocks(value: Any) -> Any:
    match = re.fullmatch(r"(\d+)\s*blocks?", value.strip()) if isinstance(value, str) else None
    return int(match[1]) if match else value


PositiveSpan = Annotated[timedelta, BeforeValidator(_time_span), Field(gt=timedelta())]


class RestartConfig(Part):
    """When a bot that ended is started again, on a cluster of one's own."""

    policy: Literal["never", "on-failure", "always"] = "on-failure"
    """``on-failure`` when not set. A bot that its circuit breaker stopped, after too many failed tasks, is started
    again by ``always`` only."""

    max_restarts: Annotated[int, Field(ge=1, le=1000)] = 5
    """Crashes within the window after which it stays down. ``5`` when not set."""

    window: PositiveSpan = timedelta(minutes=10)
    """Time in which crashes are counted. ``10m`` when not set."""

    backoff: PositiveSpan = timedelta(seconds=1)
    """Time until the first restart, doubled for each crash within the window. ``1s`` when not set."""

    max_backoff: PositiveSpan = timedelta(minutes=5)
    """Time until a restart at most. ``5m`` when not set."""


class HealthyConfig(Part):
    """What is expected of a healthy bot, on a cluster of one's own."""

    silent: PositiveSpan = timedelta(minutes=5)
    """Time without a sign of work after which it is unhealthy. ``5m`` when not set."""

    lag: Annotated[int, BeforeValidator(_blocks), Field(ge=0)] = 20
    """Blocks that it may be behind the head of its chain, such as ``20 blocks``. ``20`` when not set."""


class NetworkValues(Part):
    """Keys of a bot that may differ by network."""

    account: Text | None = None
    """Alias of the account that bots sign with, as the cluster knows it. Empty text: none."""

    registry: Text | None = None
    """Container registry and path. Images default to ``{registry}/{project}-{bot}:{tag}``."""

    tag: Text | None = None
    """Tag of the images that are named after the registry; ``git`` for the commit. ``latest`` when not set."""

    credential: Text | None = None
    """Name of the cluster's registry credential for a private image. Empty text: none."""

    environment: tuple[Name, ...] | None = None
    """Variable groups of a bot, in order: of two that set one variable, the later wins."""

    cluster_access: bool | None = None
    """Whether a bot gets the address and the key of its cluster, to manage it. ``false`` when not set."""

    restart: Annotated[RestartConfig | None, BeforeValidator(_policy)] = None
    """When a bot that ended is started again: a policy, or a map of its settings. For clusters of one's own."""

    healthy: HealthyConfig | None = None
    """What is expected of a healthy bot. For clusters of one's own."""

    heartbeat: Annotated[Text | None, BeforeValidator(_variable)] = None
    """Variable, of the bot's groups, that holds an address. The cluster requests it every minute while the bot is
    healthy, so that a service elsewhere notices its silence. Empty text: none. For clusters of one's own."""


class BotValues(NetworkValues):
    """Keys of a bot that every level may give: the section, a target, a bot, a target's bot."""

    network: Text | None = None
    """Where bots run, as ``ecosystem:network:provider``. Parts left out come from the Ape project."""

    networks: Annotated[dict[Text, NetworkValues] | None, BeforeValidator(_networks)] = None
    """Networks of a bot that runs on several, in place of ``network``: a list, or network → what differs there."""

    names: Annotated[dict[Text, Name] | Text | None, BeforeValidator(_names)] = None
    """Names of the bots that ``networks`` makes: a text with ``{bot}``, ``{ecosystem}`` and ``{network}``, or network
    → name. ``{bot}-{ecosystem}-{network}`` when not set."""


class BotConfig(BotValues):
    """One bot of the project."""

    image: Text | None = None
    """Its whole image reference, in place of the one that is named after the registry."""

    module: Text | None = None
    """What ``silverback run`` takes to run it: a module of ``bots/``. The bot's name when not set."""

    protect: bool | None = None
    """Whether ``deploy --prune`` and ``bots remove`` refuse to remove it. ``false`` when not set."""

    share_account: bool | None = None
    """Whether it may sign with an account that another bot of the cluster uses on the same network. ``false`` when not
    set: two bots that sign with one account at once take each other's nonces."""

    renamed_from: Annotated[tuple[Name, ...] | None, BeforeValidator(_one_or_more)] = None
    """Its earlier name on the cluster, or a list of them, the latest first: a bot of such a name is renamed, instead of
    a new one being created."""


class StreamConfig(Part):
    """Requirements on the payment stream of a cluster."""

    managers: dict[int, ChecksummedAddress] = Field(default_factory=dict)
    """Chain id → address of the StreamManager that is trusted there."""

    controllers: dict[int, ChecksummedAddress] = Field(default_factory=dict)
    """Chain id → address of the controller that the StreamManager must have."""

    minimum_time_left: Annotated[timedelta, BeforeValidator(_time_span)] = timedelta(days=3)
    """Time that should be left on a stream, such as ``3 days``; below it there is a warning."""

    require: bool = False
    """Whether a cluster without a stream is refused."""


NoticeKind = Literal[
    "crashed",
    "restart-loop",
    "unhealthy",
    "recovered",
    "circuit-breaker",
    "deploy-failed",
    "rolled-back",
    "stream-low",
    "balance-low",
    "disk-low",
]
"""Events of a cluster that people can be told of."""


class NotifyConfig(Part):
    """Who is told when something breaks on a cluster of one's own. Read by ``up`` and ``serve``."""

    urls: VariableNames = ()
    """Names of variables of the environment, each holding an address that apprise knows, such as ``slack://…``."""

    events: tuple[NoticeKind, ...] = get_args(NoticeKind)
    """Events to tell. All of them when not set."""

    minimum_balance: Annotated[Decimal, Field(ge=0)] = Decimal("0.01")
    """Balance, in the currency of its network, below which a signer's balance is low. ``0.01`` when not set."""


class _Deployment(BotValues):
    """Where bots are deployed to, and which."""

    profile: Text | None = None
    """Profile of ``~/.silverback/profile.toml`` that reaches the cluster."""

    cluster: Annotated[Text | None, BeforeValidator(_cluster)] = None
    """The cluster, as ``WORKSPACE/NAME``. For a profile of the platform."""

    variables: dict[Name, VariableNames] = Field(default_factory=dict)
    """Variable groups to create: name → names of their variables. Values come from the environment or --env-file."""

    allow_empty: VariableNames = ()
    """Names of variables whose value may be empty. Of all others an empty value is refused: it is a missing secret."""

    bots: dict[Name, Annotated[BotConfig, BeforeValidator(_empty_is_default)]] = Field(default_factory=dict)
    """The bots, by name. When there are none, they are those that the bot SDK finds in the project."""


class TargetConfig(_Deployment):
    """A place to deploy to: what differs there from the section. Chosen with ``deploy --target``."""

    stream: StreamConfig | None = None
    """Requirements on the payment stream of this target's cluster, in place of the section's."""


class Section(_Deployment):
    """The ``silverback:`` section of ``ape-config.yaml``."""

    stream: StreamConfig = StreamConfig()
    """Requirements on the payment stream of the cluster."""

    project: Name | None = None
    """Name of the project in the history of deployments. Default: its repository and folder tell it apart."""

    strict: bool = False
    """Whether a variable whose value looks like a private key is refused, in place of a warning."""

    notify: NotifyConfig = NotifyConfig()
    """Who is told when something breaks on a cluster of one's own."""

    history: Text | None = None
    """Folder for the history of deployments, relative to the project. ``~/.silverback/deployments`` when not set."""

    targets: dict[Name, Annotated[TargetConfig, BeforeValidator(_empty_is_default)]] = Field(default_factory=dict)
    """Targets, by name."""

    def stream_of(self, target: str | None) -> StreamConfig:
        """Return the requirements on the payment stream, those of a target where it has its own.

        Args:
            target: name of a target of the section; None for the section itself.
        """
        return (self.targets[target].stream if target is not None else None) or self.stream
