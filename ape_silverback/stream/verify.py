"""Whether the payment stream of a cluster is what the platform says: named checks, each with its own outcome.

A platform, a proxy before it, or a node may lie, so nothing is believed further than these checks go. All that is read
of one chain is read at one block, in three requests where the node takes batches, however many streams there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from ape_silverback.addresses import checksummed_address
from ape_silverback.apepay.contract import WORD, ZERO_ADDRESS, Stream, published_code, published_version
from ape_silverback.cluster.types import ClusterConfiguration, StreamClaim
from ape_silverback.config.models import StreamConfig
from ape_silverback.exceptions import ChainError
from ape_silverback.stream.reading import NOTHING_READ, NodeOf, OnChainState, key_of, read_chain

Outcome = Literal["pass", "warn", "fail", "error", "skip"]
CheckName = Literal["address", "pinned", "platform", "chain", "code", "controller", "stream", "product", "time"]

MANY_YEARS = 36_500 * 24 * 60 * 60


class Check(BaseModel):
    """One check of a stream."""

    model_config = ConfigDict(frozen=True)

    name: CheckName
    outcome: Outcome
    """`pass`; `warn` for what is worth knowing; `fail` for what isn't as it should be; `error` for what couldn't be
    found out; `skip` for what wasn't looked at. `fail` and `error` stop a deployment."""
    text: str
    """What was found, or why it was skipped."""
    expected: str | None = None
    found: str | None = None


class Report(BaseModel):
    """What the checks say of one cluster's stream: `verify`."""

    model_config = ConfigDict(frozen=True)

    cluster: str
    """The cluster, as `WORKSPACE/NAME`, or what it is called else."""
    chain_id: int | None = None
    manager: str | None = None
    """Address of the StreamManager, as the platform says it."""
    stream_id: int | None = None
    block: int | None = None
    """Number of the block at which the chain was read."""
    controller: str | None = None
    """Controller of the StreamManager, as the chain says it."""
    checks: tuple[Check, ...] = ()

    @property
    def stopping(self) -> tuple[Check, ...]:
        """The checks for which nothing may be sent to the cluster."""
        return tuple(check for check in self.checks if check.outcome in ("fail", "error"))

    @property
    def trusted(self) -> bool:
        """Whether nothing stops."""
        return not self.stopping

    def outcome_of(self, name: CheckName) -> Outcome | None:
        """Give the outcome of a check."""
        return next((check.outcome for check in self.checks if check.name == name), None)


@dataclass(frozen=True)
class Claim:
    """What the platform says of a cluster and its stream. Nothing of it is believed yet.

    Attributes:
        cluster: how to call the cluster in what users read.
        cluster_id: the key that its product code was signed with.
        configuration: what it should be paid for; None when the platform doesn't say.
        manager: the StreamManager that the platform names for the chain; an error when it doesn't.
        unopened: whether the stream is yet to be opened, so that there is only the manager to look at.
    """

    cluster: str
    cluster_id: UUID
    configuration: ClusterConfiguration | None
    stream: StreamClaim
    manager: str | Exception
    unopened: bool = False


def without_stream(cluster: str, reason: str, *, required: bool) -> Report:
    """Give the report on a cluster that has no stream to look at."""
    if required:
        reason = f"{reason}, and `stream: require` of the section asks for one"
    return Report(cluster=cluster, checks=(Check(name="stream", outcome="fail" if required else "skip", text=reason),))


def verify(claims: Sequence[Claim], trust: StreamConfig, node_of: NodeOf) -> list[Report]:
    """Check the streams of clusters; gives a report for each, in order.

    Args:
        claims: what the platform says.
        trust: what is pinned, and how much time should be left.
        node_of: opens the node of a chain. Called once for each chain, and for those only whose address is one.
    """
    facts: dict[int, OnChainState] = {}
    for chain_id in dict.fromkeys(claim.stream.chain_id for claim in claims):
        on_it = [claim.stream for claim in claims if claim.stream.chain_id == chain_id and _is_address(claim.stream)]
        facts[chain_id] = read_chain(chain_id, on_it, node_of) if on_it else NOTHING_READ
    return [_Checker(claim, trust, facts[claim.stream.chain_id]).report() for claim in claims]


def _is_address(stream: StreamClaim) -> bool:
    return _address_problem(stream.manager) is None


def _address_problem(address: str) -> str | None:
    """Say what is wrong with an address that has to be checksummed (EIP-55)."""
    try:
        checksummed = checksummed_address(address)
    except ValueError as error:
        return str(error)
    if address == ZERO_ADDRESS:
        return "the zero address"
    return None if address == checksummed else f"not checksummed (EIP-55): expected {checksummed}"


class _Checker:
    """Judges one claim by what was read. Pure."""

    def __init__(self, claim: Claim, trust: StreamConfig, facts: OnChainState) -> None:
        self.claim, self.stream, self.trust, self.facts = claim, claim.stream, trust, facts

    def report(self) -> Report:
        """Go through the checks; those that rest on one that isn't passed are skipped."""
        checks: dict[str, Check] = {}
        rests_on: dict[CheckName, tuple[CheckName, str]] = {
            "pinned": ("address", "there is no address to compare"),
            "platform": ("address", "there is no address to compare"),
            "chain": ("address", "there is nothing to look for on a chain"),
            "code": ("chain", "what another chain says is of no use"),
            "controller": ("code", "what other code answers is of no use"),
            "stream": ("code", "what other code answers is of no use"),
            "product": ("stream", "there is no stream to look at"),
            "time": ("stream", "there is no stream to look at"),
        }
        names: tuple[CheckName, ...] = ("address", *rests_on)
        for name in names:
            below, why = rests_on.get(name, (None, ""))
            if below is not None and checks[below].outcome not in ("pass", "warn"):
                checks[name] = Check(name=name, outcome="skip", text=f"{why}: `{below}` isn't passed")
                continue
            try:
                checks[name] = getattr(self, f"_{name}")()
            except ChainError as error:
                checks[name] = Check(name=name, outcome="error", text=str(error))
        controller = self.facts.answers.get((self.stream.manager, "controller"))
        return Report(
            cluster=self.claim.cluster,
            chain_id=self.stream.chain_id,
            manager=self.stream.manager,
            stream_id=None if self.claim.unopened else self.stream.stream_id,
            block=self.facts.block,
            controller=checksummed_address(controller)
            if isinstance(controller, str) and checks["code"].outcome == "pass"
            else None,
            checks=tuple(checks.values()),
        )

    def _address(self) -> Check:
        if problem := _address_problem(self.stream.manager):
            return Check(name="address", outcome="fail", text=problem, found=self.stream.manager)
        if self.facts.unknown:
            return Check(name="address", outcome="fail", text=str(self.facts.unknown), found=str(self.stream.chain_id))
        return Check(name="address", outcome="pass", text=f"{self.stream.manager} on chain {self.stream.chain_id}")

    def _pinned(self) -> Check:
        pinned = self.trust.managers.get(self.stream.chain_id)
        if pinned is None:
            return Check(name="pinned", outcome="skip", text=f"no manager is pinned for chain {self.stream.chain_id}")
        return _compared("pinned", pinned, self.stream.manager, "the pinned manager")

    def _platform(self) -> Check:
        named = self.claim.manager
        if isinstance(named, Exception):
            return Check(name="platform", outcome="error", text=f"the platform names no manager: {named}")
        return _compared("platform", named, self.stream.manager, "the platform's manager")

    def _chain(self) -> Check:
        facts, wanted = self.facts, self.stream.chain_id
        if facts.error:
            raise facts.error
        if facts.reported != wanted:
            text = f"the node is on chain {facts.reported}, not on {wanted}"
            return Check(name="chain", outcome="fail", text=text, expected=str(wanted), found=str(facts.reported))
        if facts.evm not in (None, wanted):
            text = f"the node says that it is chain {wanted}, but its EVM runs chain {facts.evm}"
            return Check(name="chain", outcome="fail", text=text, expected=str(wanted), found=str(facts.evm))
        return Check(name="chain", outcome="pass", text=f"the node is on chain {wanted}, at block {facts.block}")

    def _code(self) -> Check:
        code: bytes = self.facts.get(self.stream.manager, "code")
        published = published_code()
        expected = (
            f"StreamManager of apepay {published_version()}, {len(published)} bytes and MIN_STREAM_LIFE behind it"
        )
        if not code:
            return Check(name="code", outcome="fail", text="no code is there", expected=expected, found="no code")
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(code, published, strict=False))
        same = sum(1 for _ in alike)
        if same < len(published) or len(code) != len(published) + WORD:
            found = f"{len(code)} bytes" + (
                f", other from byte {same} on" if same < min(len(code), len(published)) else ""
            )
            return Check(name="code", outcome="fail", text="other code is there", expected=expected, found=found)
        life: int = self.facts.get(self.stream.manager, "MIN_STREAM_LIFE")
        if code[len(published) :] != life.to_bytes(WORD, "big"):
            found = f"{int.from_bytes(code[len(published) :], 'big')} in the code, {life} answered"
            text = "MIN_STREAM_LIFE in the code isn't the one that is answered"
            return Check(name="code", outcome="fail", text=text, expected=expected, found=found)
        text = f"the StreamManager of apepay {published_version()}, with MIN_STREAM_LIFE {span_text(life)}"
        return Check(name="code", outcome="pass", text=text)

    def _controller(self) -> Check:
        found = checksummed_address(self.facts.get(self.stream.manager, "controller"))
        pinned = self.trust.controllers.get(self.stream.chain_id)
        if pinned is None:
            text = f"{found}; none is pinned for chain {self.stream.chain_id}"
            return Check(name="controller", outcome="skip", text=text, found=found)
        return _compared("controller", pinned, found, "the pinned controller")

    def _stream(self) -> Check:
        if self.claim.unopened:
            return Check(name="stream", outcome="skip", text="it is yet to be opened")
        number: int = self.facts.get(self.stream.manager, "num_streams")
        if not 0 <= self.stream.stream_id < number:
            expected = f"0 to {number - 1}" if number else "none: there is no stream"
            text = f"there is no stream {self.stream.stream_id}"
            return Check(name="stream", outcome="fail", text=text, expected=expected, found=str(self.stream.stream_id))
        found: Stream = self.facts.get(key_of(self.stream), "streams")
        if found.owner == ZERO_ADDRESS:
            return Check(name="stream", outcome="fail", text="the stream has no owner", found=found.owner)
        if not self.facts.get(key_of(self.stream), "token_is_accepted"):
            text = f"its token {found.token} isn't accepted"
            return Check(name="stream", outcome="fail", text=text, found=found.token)
        return Check(name="stream", outcome="pass", text=f"stream {self.stream.stream_id} of {found.owner}")

    def _product(self) -> Check:
        """Look for the one product that is this cluster's. Whole codes are compared: no byte may be another."""
        found: Stream = self.facts.get(key_of(self.stream), "streams")
        shown = ", ".join(f"0x{product.hex()}" for product in found.products) or "no product"
        configurations = [self.claim.configuration] if self.claim.configuration else _decoded(found.products)
        signers = [found.owner]
        if matches := self._matches(found, configurations, signers):
            who = "its owner"
        else:  # the stream may have been handed on: its product is signed for who opened it
            creator: str = self.facts.get(key_of(self.stream), "creator")
            matches, who = self._matches(found, configurations, [creator]), f"{creator}, who opened it"
        if len(matches) != 1:
            problem = "isn't paid for by this stream" if not matches else "is paid for more than once by this stream"
            expected = "a product code of this cluster, its configuration and its owner"
            text = f"this cluster {problem}"
            return Check(name="product", outcome="fail", text=text, expected=expected, found=shown)
        [paid] = matches
        text = f"{paid.cpu} vCPU, {paid.memory} GiB, {paid.bots} bots, {paid.networks} networks, signed for {who}"
        if self.claim.configuration is None:
            text += "; the platform doesn't say what it should be"
        return Check(name="product", outcome="pass", text=text)

    def _matches(
        self, stream: Stream, configurations: Iterable[ClusterConfiguration], signers: Iterable[str]
    ) -> list[ClusterConfiguration]:
        wanted = {
            configuration.get_product_code(signer, self.claim.cluster_id): configuration
            for configuration in configurations
            for signer in signers
        }
        return [wanted[product] for product in stream.products if product in wanted]

    def _time(self) -> Check:
        left: int = self.facts.get(key_of(self.stream), "time_left")
        least = int(self.trust.minimum_time_left.total_seconds())
        if not left:
            return Check(name="time", outcome="fail", text="it has run out", expected="time left", found="none")
        if left < least:
            text = f"{span_text(left)} left, less than {span_text(least)}"
            return Check(name="time", outcome="warn", text=text)
        return Check(name="time", outcome="pass", text=f"{span_text(left)} left")


def _compared(name: CheckName, expected: str, found: str, what: str) -> Check:
    if expected == found:
        return Check(name=name, outcome="pass", text=f"it is {what}")
    return Check(name=name, outcome="fail", text=f"it isn't {what}", expected=expected, found=found)


def _decoded(products: Iterable[bytes]) -> list[ClusterConfiguration]:
    """Give the configurations that product codes decode to, of those that do."""
    found = []
    for product in products:
        try:
            found.append(ClusterConfiguration.from_product_code(product))
        except ValueError:
            continue
    return found


def span_text(seconds: int) -> str:
    """Give a time span in its two largest units, such as ``29 days 3 hours``."""
    if seconds >= MANY_YEARS:
        return "more than 100 years"
    parts: list[str] = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "no time"
