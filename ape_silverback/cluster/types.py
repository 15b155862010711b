"""The models of the HTTP API, shared by clients and the server.

Names, fields, bounds and defaults are those of the reference module ``silverback.cluster.types``. Where the wire format
of today carries more than the reference, the model takes it with a default. Unknown fields are ignored, because the
hosted side moves first. Nothing here does I/O.
"""

from __future__ import annotations

import enum
import re
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from ape.logging import LogLevel
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, computed_field, field_validator

from ape_silverback.addresses import checksummed_address
from ape_silverback.durations import span_text
from ape_silverback.plurals import plural
from ape_silverback.timezones import with_timezone

if TYPE_CHECKING:
    from eth_typing import ChecksumAddress
    from typing_extensions import Self
else:
    ChecksumAddress = str

PRODUCT_PART_SIZE = 16
"""Bytes of each half of a product code: the configuration, then its signature."""


SET_BY_CLUSTER = frozenset(
    {
        "SILVERBACK_BOT_NAME",
        "SILVERBACK_CLUSTER_API_KEY",
        "SILVERBACK_CLUSTER_URI",
        "SILVERBACK_NETWORK_CHOICE",
        "SILVERBACK_SIGNER_ALIAS",
    }
)
"""Variables that a bot gets from its configuration, which no variable group may set."""


Moment = Annotated[datetime, AfterValidator(with_timezone)]
"""A time; one that a server wrote without a zone is in UTC, so that all of them can be compared."""


class WireModel(BaseModel):
    """Base of what travels. Pydantic prepares a model when it is first used: a command uses few of them."""

    model_config = ConfigDict(defer_build=True)


class WorkspaceInfo(WireModel):
    """A workspace of the platform, which owns clusters."""

    id: uuid.UUID
    owner_id: uuid.UUID
    name: str
    slug: str
    created: Moment


_UNITS = {"cpu": "vCPU", "memory": "GiB", "bandwidth": "KiB/sec", "duration": "months"}
_OTHER_SPELLINGS = {"KiB/s": "KiB/sec", "vCPUs": "vCPU", "month": "months"}


class ClusterConfiguration(WireModel):
    """Configuration of the cluster (represented as 16 byte value).

    Amounts may be given with their unit, as ``"2 GiB"``, ``"1 vCPU"``, ``"5 KiB/sec"`` or ``"3 months"``.
    """

    version: int = 1
    """Version of this configuration (used for encoding/decoding)"""

    cpu: Annotated[int, Field(ge=1, le=64)] = 1
    """Max vCPUs shared by all bots in cluster"""

    memory: Annotated[int, Field(ge=1, le=128)] = 1
    """Max memory (in GiB) shared by all bots in cluster"""

    networks: Annotated[int, Field(ge=1, le=20)] = 1
    """Maximum number of concurrent networks all bots can use"""

    bots: Annotated[int, Field(ge=1, le=250)] = 1
    """Maximum number of guaranteed concurrently running bots"""

    bandwidth: Annotated[int, Field(ge=1, le=250)] = 1
    """Rate at which data should be emitted by cluster (in KiB/sec)"""

    duration: Annotated[int, Field(ge=1, le=120)] = 1
    """Time to keep data recording duration (in months)"""

    # Position in the encoded integer, lowest byte first. Byte 5 is reserved (zero). Not to be reordered.
    _BYTES: ClassVar[dict[str, int]] = {
        "version": 0,
        "cpu": 1,
        "memory": 2,
        "networks": 3,
        "bots": 4,
        "bandwidth": 6,
        "duration": 7,
    }

    @field_validator("cpu", "memory", "bandwidth", "duration", mode="before")
    @classmethod
    def _take_unit(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, str):
            return value
        unit = _UNITS[info.field_name]
        match = re.fullmatch(r"\s*(\d+)\s*(\S*)\s*", value)
        if not match or _OTHER_SPELLINGS.get(match[2], match[2]) not in ("", unit):
            raise ValueError(f"expected a whole number, with or without the unit '{unit}'; got {value!r}")
        return int(match[1])

    @classmethod
    def decode(cls, value: Any) -> ClusterConfiguration:
        """Decode the configuration from 8 byte integer value.

        Args:
            value: the integer, its big-endian bytes, or a configuration (returned as it is).

        Raises:
            ValueError: it has another type, an unknown version, or a byte out of its bounds.
        """
        if isinstance(value, ClusterConfiguration):
            return value
        if isinstance(value, bytes):
            value = int.from_bytes(value, "big")
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"can't decode a cluster configuration from {type(value).__name__}")  # noqa: TRY004
        settings = {name: (value >> (8 * place)) & 0xFF for name, place in cls._BYTES.items()}
        if settings["version"] != 1:
            raise ValueError(f"unsupported version of a cluster configuration: {settings['version']}")
        return cls(**settings)

    def encode(self) -> int:
        """Encode configuration as 8 byte integer value."""
        return sum(getattr(self, name) << (8 * place) for name, place in self._BYTES.items())

    def settings_display_dict(self) -> dict[str, Any]:
        """Return the settings by the part of the cluster that they limit, amounts with units."""
        return {
            "version": self.version,
            "runner": {"bots": self.bots, "networks": self.networks},
            "cluster": {"cpu": f"{self.cpu} vCPU", "memory": f"{self.memory} GiB"},
            "recorder": {"bandwidth": f"{self.bandwidth} KiB/sec", "duration": f"{self.duration} months"},
        }

    @classmethod
    def from_product_code(cls, product: bytes) -> ClusterConfiguration:
        """Return the configuration that a product code is for; its signature isn't verified.

        Raises:
            ValueError: it isn't a product code of a cluster.
        """
        encoded, padding = product[:8], product[8:PRODUCT_PART_SIZE]
        if len(product) != 2 * PRODUCT_PART_SIZE or any(padding):
            raise ValueError(f"not the product code of a cluster: 0x{product.hex()}")
        return cls.decode(encoded)

    def _product_configuration(self) -> bytes:
        encoded = self.encode()
        return encoded.to_bytes((encoded.bit_length() + 7) // 8, "big").ljust(PRODUCT_PART_SIZE, b"\0")

    def _product_signature(self, owner: str, cluster_id: uuid.UUID) -> bytes:
        import hmac

        message = bytes.fromhex(owner.removeprefix("0x")) + self._product_configuration()
        return hmac.digest(cluster_id.bytes, message, "md5")

    def get_product_code(self, owner: str, cluster_id: uuid.UUID) -> bytes:
        """Return the ApePay product code of a cluster with this configuration.

        Args:
            owner: address of the account that funds the stream.
            cluster_id: the cluster's id, the key of the signature. It is a shared secret of the workspace.

        Returns:
            32 bytes: 16 of configuration, 16 of HMAC-MD5 signature.
        """
        return bytes(self._product_configuration() + self._product_signature(owner, cluster_id))

    def validate_product_code(self, owner: str, signature: bytes, cluster_id: uuid.UUID) -> bool:
        """Return whether the signature half of a product code is that of this configuration, owner and cluster."""
        import hmac

        return hmac.compare_digest(self._product_signature(owner, cluster_id), bytes(signature))


ClusterKind = Literal["platform", "direct", "engine", "local"]
"""How a cluster is reached, which decides what it can run: images of a registry on the hosted platform and at a direct
address, images of this machine's engine, or the project's folder on this machine."""


def _encoded(**settings: int) -> int:
    """Return the integer of a configuration. Validating it would prepare the model, which few commands use."""
    return ClusterConfiguration.model_construct(**settings).encode()  # type: ignore[arg-type]


class ClusterTier(enum.IntEnum):
    """Suggestions for different tier configurations."""

    STANDARD = _encoded(cpu=1, memory=2, networks=3, bots=5, bandwidth=1, duration=3)
    PREMIUM = _encoded(cpu=4, memory=8, networks=10, bots=20, bandwidth=5, duration=12)

    def configuration(self) -> ClusterConfiguration:
        """Return the configuration of this tier."""
        return ClusterConfiguration.decode(int(self))


class ResourceStatus(enum.IntEnum):
    """Generic enum that represents that status of any associated resource or service.

    ``str(…)`` of it is for display.
    """

    CREATED = 0
    """Resource record created, but not provisioning yet (likely awaiting payment)"""

    PROVISIONING = 2
    """Resource is provisioning infrastructure (on payment received)"""

    STARTUP = 3
    """Resource is being put into the RUNNING state"""

    RUNNING = 4
    """Resource is in good health (Resource itself should be reporting status now)"""

    SHUTDOWN = 6
    """Resource is being put into the STOPPED state"""

    STOPPED = 7
    """Resource has stopped (due to errors, user action, or resource contraints)"""

    DEPROVISIONING = 8
    """User removal action or payment expiration event triggered"""

    REMOVED = 9
    """Infrastructure de-provisioning complete (Cannot change from this state)"""

    def __str__(self) -> str:
        return self.name.capitalize()


class StreamClaim(WireModel):
    """A cluster's payment stream as the platform wrote it: nothing of it is checked."""

    chain_id: int
    manager: str
    stream_id: int

    def __str__(self) -> str:
        return f"eip155:{self.chain_id}:{self.manager}/{self.stream_id}"


class StreamInfo(WireModel):
    """The ApePay payment stream of a cluster, as the platform names it. Verify it before you trust it."""

    chain_id: int
    manager: Annotated[ChecksumAddress, BeforeValidator(checksummed_address)]
    stream_id: int

    def __str__(self) -> str:
        return f"eip155:{self.chain_id}:{self.manager}/{self.stream_id}"


class ClusterInfo(WireModel):
    """The platform's record of a cluster.

    ``id`` is the key of the cluster's product code: treat it as a secret of the workspace.
    """

    id: uuid.UUID
    version: str | None
    configuration: ClusterConfiguration | None = None
    name: str
    slug: str
    expiration: Moment | None = None
    stream_id: uuid.UUID | None = None
    created: Moment
    status: ResourceStatus
    last_updated: Moment


class ServiceHealth(WireModel):
    """Health of one service."""

    healthy: bool


class ClusterHealth(WireModel):
    """Health of a cluster: of each network (``ecosystem:network``) and each bot, by name."""

    networks: dict[str, ServiceHealth] = Field(default_factory=dict)
    bots: dict[str, ServiceHealth] = Field(default_factory=dict)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cluster(self) -> ServiceHealth:
        """Health of the whole: whether every network and every bot is healthy."""
        return ServiceHealth(healthy=all(service.healthy for service in [*self.networks.values(), *self.bots.values()]))


class RegistryCredentialsInfo(WireModel):
    """Credentials for a container registry, without the secret part."""

    id: str
    name: str
    hostname: str
    created: Moment
    updated: Moment


class VariableGroupInfo(WireModel):
    """A group of environment variables: names only, values are write-only."""

    id: uuid.UUID
    name: str
    variables: list[str]
    """Names of its variables. Their values are never returned."""

    created: Moment


class BotTaskStatus(WireModel):
    """What the cluster knows of the task (process, container) that runs a bot."""

    last_status: str
    exit_code: int | None
    reason: str | None
    started_at: Moment | None
    stop_code: str | None
    stopped_at: Moment | None
    stopped_reason: str | None


def _span(seconds: float) -> str:
    return span_text(int(seconds)) if seconds >= 1 else f"{seconds:g} seconds"


class RestartPolicy(WireModel):
    """When a bot that ended is started again. For clusters that announce ``restart-policy``."""

    model_config = ConfigDict(frozen=True)

    policy: Literal["never", "on-failure", "always"] = "on-failure"
    """A bot that its circuit breaker stopped didn't fail: only ``always`` starts it again."""

    max_restarts: Annotated[int, Field(ge=1, le=1000)] = 5
    """Crashes within the window after which it stays down."""

    window: Annotated[float, Field(gt=0, le=7 * 86400)] = 600.0
    """Seconds."""

    backoff: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Seconds until the first restart; doubled for each crash within the window."""

    max_backoff: Annotated[float, Field(gt=0, le=86400)] = 300.0
    """Seconds until a restart at most."""

    def __str__(self) -> str:
        if self.policy == "never":
            return self.policy
        often = "1 crash" if self.max_restarts == 1 else f"{self.max_restarts} crashes in {_span(self.window)}"
        return f"{self.policy}, {_span(self.backoff)} to {_span(self.max_backoff)} later, until {often}"


class HealthPolicy(WireModel):
    """What a healthy bot may do at most. For clusters that announce ``health-details``."""

    model_config = ConfigDict(frozen=True)

    silent: Annotated[float, Field(ge=1, le=7 * 86400)] = 300.0
    """Seconds without a sign of work."""

    lag: Annotated[int, Field(ge=0)] = 20
    """Blocks that it has seen and not handled."""

    def __str__(self) -> str:
        return f"silent for at most {_span(self.silent)}, at most {plural(self.lag, 'block')} behind"


POLICIES = frozenset({"restart", "healthy", "heartbeat"})
"""Fields of a bot that not every cluster knows, and that hold at once, without a restart."""


class BotConfiguration(WireModel):
    """What is deployed of a bot: the fields that ``POST /bots`` and ``PATCH /bots/{id}`` take, besides its name."""

    model_config = ConfigDict(frozen=True)

    image: str
    credential_name: str | None = None
    """Registry credential of the cluster; None for a public image. A cluster may answer with its id."""

    ecosystem: str
    network: str
    provider: str
    account: str | None = None
    """Alias of the account it signs with; None for a bot that signs nothing."""

    environment: tuple[str, ...] = ()
    """Names of its variable groups, in order: of two that set one variable, the later wins."""

    cluster_access: bool = False
    """Whether it gets the cluster's address and key."""

    restart: RestartPolicy | None = None
    """When it is started again; None for the cluster's own policy. For clusters that announce ``restart-policy``."""

    healthy: HealthPolicy | None = None
    """What is expected of it; None for what the cluster expects. For clusters that announce ``health-details``."""

    heartbeat: str | None = None
    """Variable of its groups that holds the address to request while it is healthy. For clusters that announce
    ``heartbeat``."""


class Crash(WireModel):
    """An end of a bot that wasn't asked for."""

    model_config = ConfigDict(frozen=True)

    time: Moment
    reason: str
    started: Moment | None = None
    """When the run began that ended so; None where that wasn't kept."""


class RestartStatus(WireModel):
    """How often a bot was started again by its cluster, since its user started it."""

    count: int = 0
    crashes: list[Crash] = Field(default_factory=list)
    """The last ones, the oldest first."""

    next_start: Moment | None = None
    """When it is started again; None while it runs, and when it isn't."""


class BotHealth(WireModel):
    """How healthy a bot is, and why."""

    model_config = ConfigDict(frozen=True)

    healthy: bool
    reason: str | None = None
    """What is wrong; None for a healthy bot."""

    heartbeat: Moment | None = None
    """When it last showed that it works."""

    last_block: int | None = None
    """The last block that it handled; None before the first, and for bots without blocks."""

    lag: int | None = None
    """Blocks that it has seen and not handled."""


KeyRole = Literal["read", "write"]
"""What an API key allows: to look, or to change things too."""


class KeyInfo(WireModel):
    """A named API key of a cluster that announces `keys`, without its secret: `keys list`."""

    id: uuid.UUID
    name: str
    role: KeyRole
    created: Moment
    last_use: Moment | None
    """When it was last used, to a minute; None for never."""


class NewKeyInfo(KeyInfo):
    """An API key that was just created: `keys new`."""

    key: str = Field(repr=False)
    """The key itself, which can't be shown again."""


class NodeInfo(WireModel):
    """A machine of a cluster that announces `nodes`: `nodes`."""

    id: str
    name: str
    state: str
    """``ready``, ``down``, or another word of the engine."""

    availability: str
    """Whether it takes bots: ``active``, ``pause`` or ``drain``."""

    manager: bool
    cpus: float
    memory: int
    """Bytes."""

    engine: str
    """Version of its container engine."""

    bots: list[str] = Field(default_factory=list)
    """Names of the bots that run there, or were last seen there."""


class BotInfo(WireModel):
    """A bot and its configuration on the cluster."""

    id: uuid.UUID
    name: str
    created: Moment
    image: str
    credential_name: str | None
    ecosystem: str
    network: str
    provider: str
    account: str | None
    environment: list[str]
    cluster_access: bool = False
    """Whether the bot gets the cluster's address and key. Newer than the reference."""

    task: BotTaskStatus | None = None
    """What runs the bot, from clusters that tell it in the same answer, as the local one does; else None."""

    restart: RestartPolicy | None = None
    """When it is started again, from clusters that announce ``restart-policy``; None for the cluster's own policy."""

    healthy: HealthPolicy | None = None
    """What is expected of it, from clusters that announce ``health-details``; None for what the cluster expects."""

    heartbeat: str | None = None
    """Variable with the address that is requested while it is healthy, from clusters that announce ``heartbeat``."""

    restarts: RestartStatus | None = None
    """From clusters that announce ``restarts``."""

    health: BotHealth | None = None
    """From clusters that announce ``health-details``."""

    node: str | None = None
    """Name of the machine that it runs on, from clusters that announce ``nodes`` and have several."""

    unreachable_since: Moment | None = None
    """Since when its machine hasn't answered, so that it may or may not run; from clusters of several machines."""

    @property
    def configuration(self) -> BotConfiguration:
        """What is deployed of it."""
        return BotConfiguration.model_validate({name: getattr(self, name) for name in BotConfiguration.model_fields})


class RemovedBotInfo(WireModel):
    """A bot that was removed, and whose log is kept for a while. From clusters that announce ``removed-logs``."""

    id: uuid.UUID
    name: str
    removed: Moment
    errors: list[str] = Field(default_factory=list)
    """Those of its last run."""


def _measurement(value: float) -> float:
    """Refuse a whole number that can't be calculated with: others are at most 2**1024."""
    try:
        float(value)
    except OverflowError:
        raise ValueError("expected a number of at most 308 digits") from None
    return value


class BotTaskResult(WireModel):
    """What a bot recorded of one run of a task. From clusters that announce ``metrics``."""

    completed: Moment
    """When it ended."""

    task: str
    execution_time: float
    """Seconds."""

    error: str | None = None
    """What it failed with; failed tasks record no metrics."""

    block_number: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    metrics: dict[str, Annotated[bool | int | float, AfterValidator(_measurement)]] = Field(default_factory=dict)
    """What it measured, by name."""


def _log_level(value: Any) -> Any:
    """Take a level as a number, as the digits of one, or as its name."""
    if isinstance(value, str):
        name = value.strip().upper()
        if name in LogLevel.__members__:
            return LogLevel[name]
        if name.isdigit():
            return int(name)
    return value


class BotLogEntry(WireModel):
    """One line of a bot's log."""

    # A raw line is `TIMESTAMP LEVEL: message`, level and colon padded to nine characters, then a space. The message is
    # kept as it is, leading spaces included, because lines that continue a message are indented.
    _RAW_LINE: ClassVar[re.Pattern[str]] = re.compile(
        r"(?P<timestamp>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
        r"(?: (?:(?P<level>DEBUG|INFO|SUCCESS|WARNING|ERROR): {1,5})?(?P<message>.*))?",
        re.DOTALL,
    )

    level: Annotated[LogLevel | None, BeforeValidator(_log_level)] = None
    timestamp: datetime | None = None
    message: str

    @classmethod
    def parse_line(cls, line: str) -> Self:
        """Read a raw line of a log. Any other line is the message of an entry without level or time."""
        if match := cls._RAW_LINE.fullmatch(line):
            try:
                return cls(
                    timestamp=match["timestamp"].replace(",", "."),
                    level=match["level"],
                    message=match["message"] or "",
                )
            except ValueError:  # digits in the shape of a time, such as a month 13
                pass
        return cls(message=line)

    def __str__(self) -> str:
        """Return the entry as a raw line, which ``parse_line`` reads."""
        level = "" if self.level is None else f"{self.level.name + ':':<9} "
        return f"{self.timestamp.isoformat()} {level}{self.message}" if self.timestamp else f"{level}{self.message}"
