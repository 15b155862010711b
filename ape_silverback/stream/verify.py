"""Whether the payment stream of a cluster is what the platform claims: named checks, each with its own outcome.

A platform, a proxy before it, or a node may lie, so nothing is believed further than these checks go. All that is read
of one chain is read at one block, in three batches however many streams there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from ape_silverback.addresses import checksummed_address
from ape_silverback.apepay.contract import WORD, ZERO_ADDRESS, Stream, published_code, published_version
from ape_silverback.cluster.types import ClusterConfiguration, StreamClaim
from ape_silverback.config.models import StreamConfig
from ape_silverback.durations import span_text
from ape_silverback.exceptions import ChainError, NotFound, UnexpectedAnswer
from ape_silverback.plurals import plural
from ape_silverback.stream.claims import Claim
from ape_silverback.stream.reading import NOTHING_READ, NodeOf, OnChainState, key_of, read_chain

Outcome = Literal["pass", "warn", "fail", "error", "skip"]
CheckName = Literal["address", "pinned", "platform", "chain", "code", "controller", "stream", "product", "time"]
Verdict = Literal["trusted", "untrusted", "unverified"]


class Check(BaseModel):
    """One check of a payment stream: in `verify`."""

    model_config = ConfigDict(frozen=True)

    name: CheckName
    """`address`, `pinned`, `platform`, `chain`, `code`, `controller`, `stream`, `product` or `time`."""
    outcome: Outcome
    """`pass`; `warn` for what is worth knowing; `fail` for what isn't as it should be; `error` for what couldn't be
    found out; `skip` for what wasn't looked at. `fail` and `error` stop a deployment."""
    text: str
    """What was found, or why it was skipped."""
    expected: str | None = None
    """Where something has to have a certain value, that value."""
    found: str | None = None
    """The value that it has."""


class Report(BaseModel):
    """The checks of one cluster's payment stream: `verify`."""

    model_config = ConfigDict(frozen=True)

    cluster: str
    """The cluster, as `WORKSPACE/NAME`, or its address."""
    chain_id: int | None = None
    """Chain of the stream, as the platform claims (EIP-155)."""
    manager: str | None = None
    """Address of the StreamManager, as the platform claims."""
    stream_id: int | None = None
    """Id of the stream, as the platform claims."""
    block: int | None = None
    """Number of the block at which the chain was read."""
    controller: str | None = None
    """Controller of the StreamManager, as the chain answers."""
    checks: tuple[Check, ...] = ()
    """In their order; those that rest on one that didn't pass are skipped."""

    @property
    def stopping(self) -> tuple[Check, ...]:
        """The checks for which nothing may be sent to the cluster."""
        return tuple(check for check in self.checks if check.outcome in ("fail", "error"))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def trusted(self) -> bool:
        """Whether nothing stops a deployment."""
        return not self.stopping

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """`untrusted` where a check failed; `unverified` where none failed but some couldn't be made: try again."""
        outcomes = {check.outcome for check in self.checks}
        return "untrusted" if "fail" in outcomes else "unverified" if "error" in outcomes else "trusted"

    def outcome_of(self, name: CheckName) -> Outcome | None:
        """Return the outcome of a check."""
        return next((check.outcome for check in self.checks if check.name == name), None)


def without_stream(cluster: str, reason: str, *, required: bool) -> Report:
    """Return the report on a cluster that has no stream to look at."""
    if required:
        reason = f"{reason}, and `stream: require` of the section asks for one"
    return Report(cluster=cluster, checks=(Check(name="stream", outcome="fail" if required else "skip", text=reason),))


def verify(claims: Sequence[Claim], trust: StreamConfig, node_of: NodeOf) -> list[Report]:
    """Check the streams of clusters; return a report for each, in order.

    Args:
        claims: what the platform claims.
        trust: what is pinned, and how much time should be left.
        node_of: opens the node of a chain. Called once for each chain on which a manager has a valid address.
    """

    def needs_creator(claimed: StreamClaim, stream: Stream) -> bool:
        return any(claim.stream == claimed and not _paid_for(claim, stream, stream.owner) for claim in claims)

    states: dict[int, OnChainState] = {}
    for chain_id in dict.fromkeys(claim.stream.chain_id for claim in claims):
        on_it = [claim.stream for claim in claims if claim.stream.chain_id == chain_id and _is_address(claim.stream)]
        states[chain_id] = read_chain(chain_id, on_it, node_of, needs_creator) if on_it else NOTHING_READ
    return [_Checker(claim, trust, states[claim.stream.chain_id]).report() for claim in claims]


def _is_address(stream: StreamClaim) -> bool:
    return _address_problem(stream.manager) is None


def _address_problem(address: str) -> str | None:
    """Return what is wrong with an address that has to be checksummed (EIP-55); None if nothing is."""
    try:
        checksummed = checksummed_address(address)
    except ValueError as error:
        return str(error)
    if address == ZERO_ADDRESS:
        return "the zero address"
    return None if address == checksummed else f"not checksummed (EIP-55): expected {checksummed}"


class _Checker:
    """Judges one claim by what was read. Pure."""

    def __init__(self, claim: Claim, trust: StreamConfig, state: OnChainState) -> None:
        self.claim, self.stream, self.trust, self.state = claim, claim.stream, trust, state

    def report(self) -> Report:
        """Make the checks; those that rest on one that didn't pass are skipped."""
        checks: dict[CheckName, Check] = {}
        for name, make in self._makers.items():
            below, why = RESTS_ON.get(name, (None, ""))
            if below is not None and checks[below].outcome not in ("pass", "warn"):
                checks[name] = Check(name=name, outcome="skip", text=f"{why}: `{below}` didn't pass")
                continue
            try:
                checks[name] = make()
            except ChainError as error:
                checks[name] = Check(name=name, outcome="error", text=str(error))
        controller = self.state.answers.get((self.stream.manager, "controller"))
        return Report(
            cluster=self.claim.cluster,
            chain_id=self.stream.chain_id,
            manager=self.stream.manager,
            stream_id=None if self.claim.unopened else self.stream.stream_id,
            block=self.state.block,
            controller=checksummed_address(controller)
            if isinstance(controller, str) and checks["code"].outcome == "pass"
            else None,
            checks=tuple(checks.values()),
        )

    @property
    def _makers(self) -> dict[CheckName, Callable[[], Check]]:
        """The checks, in their order."""
        return {
            "address": self._address,
            "pinned": self._pinned,
            "platform": self._platform,
            "chain": self._chain,
            "code": self._code,
            "controller": self._controller,
            "stream": self._stream,
            "product": self._product,
            "time": self._time,
        }

    def _address(self) -> Check:
        if problem := _address_problem(self.stream.manager):
            return Check(name="address", outcome="fail", text=problem, found=self.stream.manager)
        if self.state.unknown:
            return Check(name="address", outcome="fail", text=str(self.state.unknown), found=str(self.stream.chain_id))
        return Check(name="address", outcome="pass", text=f"{self.stream.manager} on chain {self.stream.chain_id}")

    def _pinned(self) -> Check:
        pinned = self.trust.managers.get(self.stream.chain_id)
        if pinned is None:
            return Check(name="pinned", outcome="skip", text=f"no manager is pinned for chain {self.stream.chain_id}")
        return _compared("pinned", pinned, self.stream.manager, "the pinned manager")

    def _platform(self) -> Check:
        named = self.claim.manager
        if isinstance(named, NotFound | UnexpectedAnswer):
            text = f"the platform names no manager for chain {self.stream.chain_id}: {named}"
            return Check(name="platform", outcome="fail", text=text)
        if isinstance(named, Exception):
            return Check(name="platform", outcome="error", text=f"the platform doesn't name its manager: {named}")
        return _compared("platform", named, self.stream.manager, "the platform's manager")

    def _chain(self) -> Check:
        state, wanted = self.state, self.stream.chain_id
        if state.error:
            raise state.error
        if state.reported != wanted:
            text = f"the node is on chain {state.reported}, not on {wanted}"
            return Check(name="chain", outcome="fail", text=text, expected=str(wanted), found=str(state.reported))
        if state.evm not in (None, wanted):
            text = f"the node reports chain {wanted}, but its EVM runs chain {state.evm}"
            return Check(name="chain", outcome="fail", text=text, expected=str(wanted), found=str(state.evm))
        return Check(name="chain", outcome="pass", text=f"the node is on chain {wanted}, at block {state.block}")

    def _code(self) -> Check:
        code: bytes = self.state.get(self.stream.manager, "code")
        published = published_code()
        expected = f"StreamManager of apepay {published_version()}, {len(published)} bytes followed by MIN_STREAM_LIFE"
        if not code:
            return Check(
                name="code", outcome="fail", text="no contract at the address", expected=expected, found="no code"
            )
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(code, published, strict=False))
        same = sum(1 for _ in alike)
        if same < len(published) or len(code) != len(published) + WORD:
            found = f"{len(code)} bytes" + (
                f", different from byte {same} on" if same < min(len(code), len(published)) else ""
            )
            return Check(
                name="code", outcome="fail", text="the code at the address is another", expected=expected, found=found
            )
        life: int = self.state.get(self.stream.manager, "MIN_STREAM_LIFE")
        if code[len(published) :] != life.to_bytes(WORD, "big"):
            found = f"{int.from_bytes(code[len(published) :], 'big')} in the code, {life} answered"
            text = "MIN_STREAM_LIFE in the code differs from the one that it returns"
            return Check(name="code", outcome="fail", text=text, expected=expected, found=found)
        text = f"the StreamManager of apepay {published_version()}, with MIN_STREAM_LIFE {span_text(life)}"
        return Check(name="code", outcome="pass", text=text)

    def _controller(self) -> Check:
        found = checksummed_address(self.state.get(self.stream.manager, "controller"))
        pinned = self.trust.controllers.get(self.stream.chain_id)
        if pinned is None:
            text = f"{found}; none is pinned for chain {self.stream.chain_id}"
            return Check(name="controller", outcome="skip", text=text, found=found)
        return _compared("controller", pinned, found, "the pinned controller")

    def _stream(self) -> Check:
        if self.claim.unopened:
            return Check(name="stream", outcome="skip", text="it is yet to be opened")
        number: int = self.state.get(self.stream.manager, "num_streams")
        if not 0 <= self.stream.stream_id < number:
            expected = f"0 to {number - 1}" if number else "none: there is no stream"
            text = f"there is no stream {self.stream.stream_id}"
            return Check(name="stream", outcome="fail", text=text, expected=expected, found=str(self.stream.stream_id))
        found: Stream = self.state.get(key_of(self.stream), "streams")
        if found.owner == ZERO_ADDRESS:
            return Check(name="stream", outcome="fail", text="the stream has no owner", found=found.owner)
        if not self.state.get(key_of(self.stream), "token_is_accepted"):
            text = f"its token {found.token} isn't accepted"
            return Check(name="stream", outcome="fail", text=text, found=found.token)
        return Check(name="stream", outcome="pass", text=f"stream {self.stream.stream_id} of {found.owner}")

    def _product(self) -> Check:
        """Find the one product that is this cluster's. Whole codes are compared: no byte may differ."""
        found: Stream = self.state.get(key_of(self.stream), "streams")
        who = "its owner"
        if not (paid := _paid_for(self.claim, found, found.owner)):
            # The stream may have been handed on: its product is signed for the account that opened it.
            creator: str = self.state.get(key_of(self.stream), "creator")
            who, paid = f"{creator}, who opened it", _paid_for(self.claim, found, creator)
        if len(paid) != 1:
            problem = "isn't paid for by this stream" if not paid else "is paid for more than once by this stream"
            return Check(
                name="product",
                outcome="fail",
                text=f"this cluster {problem}",
                expected="a product code of this cluster, its configuration and its owner",
                found=", ".join(f"0x{product.hex()}" for product in found.products) or "no product",
            )
        [one] = paid
        limits = f"{plural(one.bots, 'bot')}, {plural(one.networks, 'network')}"
        text = f"{one.cpu} vCPU, {one.memory} GiB, {limits}, signed for {who}"
        if self.claim.configuration is None:
            text += "; the platform doesn't answer what it should be"
        return Check(name="product", outcome="pass", text=text)

    def _time(self) -> Check:
        left: int = self.state.get(key_of(self.stream), "time_left")
        least = int(self.trust.minimum_time_left.total_seconds())
        if not left:
            return Check(name="time", outcome="fail", text="it has run out", expected="time left", found="none")
        if left < least:
            text = f"{span_text(left)} left, less than {span_text(least)}"
            return Check(name="time", outcome="warn", text=text)
        return Check(name="time", outcome="pass", text=f"{span_text(left)} left")


RESTS_ON: Mapping[CheckName, tuple[CheckName, str]] = {
    "pinned": ("address", "there is no address to compare"),
    "platform": ("address", "there is no address to compare"),
    "chain": ("address", "there is nothing to look for on a chain"),
    "code": ("chain", "another chain has nothing to do with it"),
    "controller": ("code", "other code may answer anything"),
    "stream": ("code", "other code may answer anything"),
    "product": ("stream", "there is no stream to look at"),
    "time": ("stream", "there is no stream to look at"),
}
"""Check → the check that has to pass before it means something, and why."""


def _paid_for(claim: Claim, stream: Stream, signer: str) -> list[ClusterConfiguration]:
    """Return the configurations of a cluster that a stream pays for with products signed for an account."""
    configurations = [claim.configuration] if claim.configuration else _decoded(stream.products)
    wanted = {one.get_product_code(signer, claim.cluster_id): one for one in configurations}
    return [wanted[product] for product in stream.products if product in wanted]


def _compared(name: CheckName, expected: str, found: str, what: str) -> Check:
    if expected == found:
        return Check(name=name, outcome="pass", text=f"it is {what}")
    return Check(name=name, outcome="fail", text=f"it isn't {what}", expected=expected, found=found)


def _decoded(products: Iterable[bytes]) -> list[ClusterConfiguration]:
    """Return the configurations that product codes are for, of those that are for one."""
    found = []
    for product in products:
        try:
            found.append(ClusterConfiguration.from_product_code(product))
        except ValueError:
            continue
    return found
