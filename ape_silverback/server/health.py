"""How healthy a bot is: whether it does its work, which its files tell, and not only whether there is a process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ape_silverback.cluster.types import BotHealth, HealthPolicy
from ape_silverback.durations import short_span_text
from ape_silverback.plurals import plural
from ape_silverback.server.processes import read_json
from ape_silverback.timezones import with_timezone

HEARTBEAT = "heartbeat.json"
"""Written into a bot's work folder by ``runtimes/sdk.py``."""

SESSIONS = ".silverback-sessions"
"""Folder of the bot SDK, with ``NAME/ECOSYSTEM/NETWORK/state.json``."""


@dataclass(frozen=True)
class Signs:
    """What a bot's files tell of its work.

    Attributes:
        updated: when it last wrote them.
        blocks: whether it handles blocks.
        under_way: how many blocks it is handling.
        processed: the last block that it handled.
        progress_at: when it last finished handling one, or had nothing to handle.
        lag: blocks of the chain that it hasn't handled.
    """

    updated: datetime
    blocks: bool = False
    under_way: int = 0
    processed: int | None = None
    progress_at: datetime | None = None
    lag: int | None = None


@dataclass(frozen=True)
class Balance:
    """What the account of a bot had when the bot last looked.

    Attributes:
        amount: in the currency of the network.
        symbol: of that currency.
        time: when the bot looked.
    """

    amount: Decimal
    symbol: str
    time: datetime

    def __str__(self) -> str:
        rounded = self.amount.quantize(Decimal("0.0001")) if self.amount < 1000 else self.amount.quantize(Decimal(1))
        return f"{rounded:,f} {self.symbol}"


def read_balance(work: Path) -> Balance | None:
    """Return the balance of a bot's account, as the bot last wrote it; None if it hasn't, or has no account."""
    match read_json(work / HEARTBEAT):
        case {"balance": {"amount": str(amount), "symbol": str(symbol), "time": str(at)}}:
            time = _time(at)
            with suppress(InvalidOperation):
                value = Decimal(amount)
                if time is not None and value.is_finite() and value >= 0:
                    return Balance(value, symbol[:20], time)
    return None


def read_signs(work: Path, since: datetime | None) -> Signs | None:
    """Return what the files in a bot's work folder tell of the run since then; None if it hasn't told anything yet."""
    signs = _signs_of_heartbeat(read_json(work / HEARTBEAT)) or _signs_of_state(_state_file(work))
    return signs if signs and (since is None or signs.updated >= since) else None


def judge(
    policy: HealthPolicy, signs: Signs | None, running_since: datetime | None, now: datetime, *, ready: bool = True
) -> BotHealth:
    """Return the health of a bot that runs. Pure.

    A bot that handles blocks is silent while there are blocks that it doesn't finish; any other one while nothing shows
    that it could handle what comes. A bot whose files tell nothing counts as healthy if its start is complete.

    Args:
        policy: what is expected of it.
        signs: what its files tell.
        running_since: when it was started.
        now: the time.
        ready: whether its log shows that its start is complete.
    """
    if signs is None:
        waited = (now - running_since).total_seconds() if running_since and not ready else 0.0
        is_late = waited > policy.silent
        return BotHealth(
            healthy=not is_late, reason=f"hasn't finished starting after {short_span_text(waited)}" if is_late else None
        )
    behind = signs.blocks and (signs.lag != 0 or signs.under_way > 0)
    heartbeat = (signs.progress_at or running_since or signs.updated) if behind else signs.updated
    silence = (now - heartbeat).total_seconds()
    reason = None
    if silence > policy.silent:
        did = "handled no block" if behind else "showed no sign of work"
        reason = f"{did} for {short_span_text(silence)}"
    elif signs.lag is not None and signs.lag > policy.lag:
        reason = f"{plural(signs.lag, 'block')} behind"
    lag = signs.lag if (now - signs.updated).total_seconds() <= policy.silent else None  # the chain has gone on since
    return BotHealth(healthy=reason is None, reason=reason, heartbeat=heartbeat, last_block=signs.processed, lag=lag)


def _signs_of_heartbeat(content: dict[str, Any] | None) -> Signs | None:
    match content:
        case {
            "updated": str(updated),
            "blocks": bool(blocks),
            "processed": int(processed),
            "head": head,
            "first": first,
            "processed_at": at,
        }:
            if (time := _time(updated)) is None:
                return None
            lag = None
            if blocks and isinstance(head, int):
                begun = max(processed, first if isinstance(first, int) else head)
                lag = max(head - begun, 0)
            under_way = content.get("under_way") if content else None
            return Signs(
                time, blocks, under_way if isinstance(under_way, int) else 0, _block(processed), _time(at), lag
            )
    return None


def _signs_of_state(content: dict[str, Any] | None) -> Signs | None:
    match content:
        case {
            "last_updated": str() | int() | float() as updated,
            "last_block_seen": int(seen),
            "last_block_processed": int(processed),
        }:
            if (time := _time(updated)) is None:
                return None
            lag = max(seen - processed, 0) if seen >= 0 else None
            # Which blocks it waits for isn't told here, so it is judged by the minute in which the file is written.
            return Signs(time, processed=_block(processed), lag=lag)
    return None


def _state_file(work: Path) -> dict[str, Any] | None:
    with suppress(OSError):
        files = sorted((work / SESSIONS).glob("*/*/*/state.json"), key=lambda file: file.stat().st_mtime)
        return read_json(files[-1]) if files else None
    return None


def _block(number: int) -> int | None:
    return number if number >= 0 else None


def _time(value: object) -> datetime | None:
    with suppress(ValueError, OverflowError, OSError):
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, timezone.utc)
        return with_timezone(datetime.fromisoformat(str(value).replace("Z", "+00:00")))
    return None
