"""What a bot's process runs: the bot SDK's own command line, with what a cluster needs of it besides.

- A signal is noticed at once. The SDK's handler of SIGTERM sets an event, which a sleeping loop notices only when
  something else wakes it: a bot with nothing but a cron job would go on for up to a minute.
- The network is named by ``--network``. The SDK compares ``SILVERBACK_NETWORK_CHOICE`` with Ape's spelling of the
  choice, which differs for a provider with its own address, such as ``node``.
- State and recordings lie in the bot's work folder, not in the project's: two bots never share them. State of a chain
  that was reset is dropped. A full disk costs them, not the bot.
- Every few seconds the bot writes that it works, and how far it is; every minute the balance of its account.
- A bot that ends because something failed, such as its connection, exits with 1. The SDK exits with 0, as it does when
  its circuit breaker stops it.

A process runs this file. A container gets it as ``sitecustomize.py``, which Python imports before anything else: there
it waits for the SDK's command, and prints what it records, since an engine brings a bot's output from any node. Hence
it imports nothing but Python and the SDK. ``reports.py`` takes what is printed out of the log.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

WORK_VARIABLE = "_SILVERBACK_WORK"
"""Names the bot's work folder."""

BEAT = 10.0
"""Seconds between two signs of work."""

HEAD_TIMEOUT = 8.0
"""Seconds that a node has to tell its head, or a balance."""

BALANCE_EVERY = 60.0
"""Seconds between two looks at the balance of the bot's account."""


COMMAND = "silverback._cli"
"""Module of the SDK's command."""

MARK = "\x1e"
"""Begins a report among the lines that a bot prints."""

LONGEST_REPORT = 48 * 1024
"""Bytes of a report; an engine splits lines that are longer than 64 KiB."""

LONGEST_ERROR = 2000
"""Characters of an error in a report."""


class WakefulPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes event loops that any signal wakes up."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop. That it handles one signal by itself, here one that is never sent, lets it notice all."""
        loop = super().new_event_loop()
        loop.add_signal_handler(signal.SIGUSR2, lambda: None)
        return loop


def main() -> None:
    """Run ``silverback run`` with the arguments of this process."""
    arguments = ["run", "--record"]
    if choice := os.environ.pop("SILVERBACK_NETWORK_CHOICE", None):  # before the SDK reads it
        arguments += ["--network", choice]
    _direct_loopback()
    gc.disable()  # what is imported stays: looking through it again and again is a fifth of what a bot's start costs
    from silverback._cli import cli

    _extend_sdk(Path(os.environ.get(WORK_VARIABLE) or Path.cwd()), reports=False)
    gc.freeze()
    gc.enable()
    cli([*arguments, *sys.argv[1:]], prog_name="silverback")


def wait_for_command() -> None:
    """Extend the SDK once its command is imported, in whatever program this process runs."""
    sys.meta_path.insert(0, _CommandFinder())
    _import_hidden()


class _CommandFinder(importlib.machinery.PathFinder):
    """Finds the SDK's command, and extends the SDK when that is imported."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how the SDK's command is loaded; None for any other module."""
        if fullname != COMMAND or (spec := super().find_spec(fullname, path, target)) is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_extend(module: ModuleType) -> None:
            _settle_in_container()
            load(module)
            try:
                _extend_sdk(Path.cwd(), reports=True)
            except Exception as error:  # noqa: BLE001 - of a version of the SDK that isn't known: the bot goes on
                os.write(2, f"WARNING:  the cluster can't measure this bot: {error!r}\n".encode())

        setattr(spec.loader, "exec_module", load_and_extend)  # noqa: B010 - a method
        return spec


def _settle_in_container() -> None:
    choice = os.environ.get("SILVERBACK_NETWORK_CHOICE")
    if choice and sys.argv[1:2] == ["run"] and "--network" not in sys.argv:
        del os.environ["SILVERBACK_NETWORK_CHOICE"]
        sys.argv[2:2] = ["--network", choice]
    _direct_loopback()


def _import_hidden() -> None:
    """Import the ``sitecustomize`` that this one hides, if there is one."""
    here = Path(__file__).parent
    others = [place for place in sys.path if place and Path(place) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec and spec.loader:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _report(**content: object) -> None:
    """Print a report, in one piece."""
    line = f"{MARK}{json.dumps(content)}\n".encode()
    if len(line) <= LONGEST_REPORT:
        with suppress(OSError):
            os.write(1, line)


def _direct_loopback() -> None:
    """Keep requests to this machine, which go to a node or to the cluster with its key, from any proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        given = [one for one in os.environ.get(name, "").split(",") if one]
        os.environ[name] = ",".join([*given, *{"127.0.0.1", "localhost", "::1"}.difference(given)])


def _extend_sdk(work: Path, *, reports: bool) -> None:
    """Replace what the SDK's command makes its runner of.

    Args:
        work: the bot's work folder.
        reports: whether what it records is printed, not kept there.
    """
    import silverback._cli as command
    import silverback.runner as runners
    from ape import chain
    from ape.logging import logger
    from silverback.exceptions import Halt
    from silverback.recorder import BaseRecorder, JSONLineRecorder, TaskResult
    from silverback.state import Datastore, StateSnapshot
    from silverback.types import SilverbackID, TaskType

    def folder_of(bot: SilverbackID) -> Path:
        return work / ".silverback-sessions" / bot.name / bot.ecosystem / bot.network

    class WorkDatastore(Datastore):
        async def init(self, bot_id: SilverbackID) -> StateSnapshot | None:
            self.state_backup_file = folder_of(bot_id) / "state.json"
            self.state_backup_file.parent.mkdir(parents=True, exist_ok=True)
            try:
                found = StateSnapshot.model_validate_json(self.state_backup_file.read_bytes())
            except (OSError, ValueError):
                found = None
            genesis, head = "", None
            with suppress(Exception):  # a node that doesn't answer now may do so in a moment
                genesis, head = await asyncio.to_thread(_chain_of, chain)
            genesis_file = self.state_backup_file.with_name("genesis")
            known = _text(genesis_file)
            behind = head is not None and found is not None and found.last_block_seen - head
            if found and ((known and genesis and known != genesis) or behind > _tolerance(bot_id.network)):
                logger.warning("The chain was reset: what the bot knew of the former one is dropped")
                found = None
                self.state_backup_file.unlink(missing_ok=True)
            if genesis:
                _replace(genesis_file, genesis)
            return found

        async def save(self, snapshot: StateSnapshot) -> None:
            _replace(self.state_backup_file, snapshot.model_dump_json())

    class WorkRecorder(JSONLineRecorder):
        async def init(self, bot_id: SilverbackID) -> None:
            self.session_results_file = folder_of(bot_id) / f"session-{_now()}.jsonl"

        async def add_result(self, result: TaskResult) -> None:
            with suppress(OSError):
                await super().add_result(result)

    class ReportingRecorder(BaseRecorder):
        """Reports each task, and hands it on to the recorder that the image chose, if any."""

        def __init__(self, other: BaseRecorder | None) -> None:
            self.other = None if isinstance(other, JSONLineRecorder) else other

        async def init(self, bot_id: SilverbackID) -> None:
            if self.other:
                await self.other.init(bot_id)

        async def add_result(self, result: TaskResult) -> None:
            content = json.loads(result.model_dump_json())
            if content.get("error"):
                content["error"] = content["error"][:LONGEST_ERROR]
            _report(task=content)
            if self.other:
                await self.other.add_result(result)

    class Working:
        """Records that it works, and how it ended."""

        recorder: BaseRecorder | None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if reports:
                self.recorder = ReportingRecorder(self.recorder)
            self._block_tasks: set[str] = set()
            self._under_way = 0
            self._halted = False
            self._processed = -1
            self._progress_at: str | None = None
            self._first_head: int | None = None
            self._balance: dict[str, str] | None = None
            self._balance_due = 0.0

        async def _block_task(self, task_data: Any) -> None:
            self._block_tasks.add(task_data.name)
            await super()._block_task(task_data)  # type: ignore[misc]

        async def run_task(self, task_data: Any, *args: Any, **kwargs: Any) -> Any:
            handles_block = task_data.name in self._block_tasks
            if handles_block and not self._under_way:
                self._progress_at = _now()  # up to now there was nothing to do
            self._under_way += handles_block
            try:
                return await super().run_task(task_data, *args, **kwargs)  # type: ignore[misc]
            except Halt:
                self._halted = True
                raise
            finally:
                if handles_block:
                    self._under_way -= 1
                    self._progress_at = _now()

        def _daemon_tasks(self) -> list[Coroutine[Any, Any, None]]:
            return [*super()._daemon_tasks(), self._beat()]  # type: ignore[misc]

        async def _beat(self) -> None:
            self._write_heartbeat(None)  # before a task that never ends can keep this from running
            while True:
                head = None
                if self._block_tasks:
                    with suppress(Exception):  # a node that doesn't answer has no head
                        head = await asyncio.wait_for(asyncio.to_thread(_height, chain), HEAD_TIMEOUT)
                    self._first_head = head if self._first_head is None else self._first_head
                await self._look_at_balance()
                await self._tell(head)
                await asyncio.sleep(BEAT)

        async def _look_at_balance(self) -> None:
            signer = self.bot.signer  # type: ignore[attr-defined]
            if signer is None or time.monotonic() < self._balance_due:
                return
            self._balance_due = time.monotonic() + BALANCE_EVERY
            with suppress(Exception):  # a node that doesn't answer has none
                self._balance = await asyncio.wait_for(asyncio.to_thread(_balance_of, signer, chain), HEAD_TIMEOUT)

        async def _tell(self, head: int | None) -> None:
            snapshot = await self.run_system_task(  # type: ignore[attr-defined]
                TaskType.SYSTEM_CREATE_SNAPSHOT, raise_on_error=False
            )
            if snapshot is None:
                return
            self._processed = snapshot.last_block_processed
            if head is not None and head <= self._processed and not self._under_way:
                self._progress_at = _now()
            self._write_heartbeat(head)
            await self.datastore.save(snapshot)  # type: ignore[attr-defined]

        def _write_heartbeat(self, head: int | None) -> None:
            content = {
                "updated": _now(),
                "blocks": bool(self._block_tasks),
                "under_way": self._under_way,
                "processed": self._processed,
                "processed_at": self._progress_at,
                "head": head,
                "first": self._first_head,
                "balance": self._balance,
            }
            if reports:
                _report(beat=content)
            else:
                _replace(work / "heartbeat.json", json.dumps(content))

        async def run(self) -> None:
            await super().run()  # type: ignore[misc]
            if not self._halted and not self.shutdown_event.is_set():  # type: ignore[attr-defined]
                sys.exit(1)

    class WorkingWebsocketRunner(Working, runners.WebsocketRunner):
        pass

    class WorkingPollingRunner(Working, runners.PollingRunner):
        pass

    for needed in ("_block_task", "_daemon_tasks", "run_task", "run_system_task"):
        getattr(runners.BaseRunner, needed)  # which other versions of the SDK may not have
    for name, replaced in {
        "Datastore": WorkDatastore,
        "WebsocketRunner": WorkingWebsocketRunner,
        "PollingRunner": WorkingPollingRunner,
    }.items():
        setattr(runners, name, replaced)
    if not reports:
        setattr(command, "JSONLineRecorder", WorkRecorder)  # noqa: B010 - not exported, but what `run --record` makes
    asyncio.set_event_loop_policy(WakefulPolicy())


def _balance_of(signer: Any, chain: Any) -> dict[str, str]:
    ecosystem = chain.provider.network.ecosystem
    return {
        "amount": f"{Decimal(int(signer.balance)).scaleb(-ecosystem.fee_token_decimals):f}",
        "symbol": str(ecosystem.fee_token_symbol),
        "time": _now(),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def _chain_of(chain: Any) -> tuple[str, int]:
    """Return the hash of the first block, empty when the node doesn't tell, and the number of the last."""
    head = _height(chain)
    try:
        return chain.provider.get_block(0).hash.to_0x_hex(), head
    except Exception:  # noqa: BLE001 - some nodes keep no old blocks
        return "", head


def _tolerance(network: str) -> int:
    """Return how many blocks a node may be behind the bot's state without being of another chain.

    The nodes behind one address of a public provider don't all know the latest blocks; a development chain is one node.
    """
    return 0 if network == "local" else 20


def _height(chain: Any) -> int:
    return int(chain.provider.get_block("latest").number)


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""


def _replace(file: Path, text: str) -> None:
    """Replace a file as a whole; a disk without room leaves the former one."""
    draft = file.with_name(f"{file.name}.new")
    try:
        draft.write_text(text)
        draft.replace(file)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


if __name__ == "sitecustomize":
    wait_for_command()
