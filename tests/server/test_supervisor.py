"""The life of a bot: the state machine against every order of events, and against real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.server.database import NameTakenError
from ape_silverback.server.lifecycle import ALIVE, TRANSITIONS
from ape_silverback.server.logs import read_log
from ape_silverback.server.processes import read_json
from ape_silverback.server.runtimes import ImageError, Run
from ape_silverback.server.runtimes.process import ProcessRuntime
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.supervisor import Supervisor
from tests.server.machine import KEY, NEVER, Machine, serving_cluster
from tests.waiting import wait_for

STATUS = ResourceStatus
CONFIGURATION = BotConfiguration(
    image="project:/nowhere#bot", ecosystem="ethereum", network="local", provider="foundry"
)


# Every order of events, on a machine whose processes end when the test says so


class RecordingStore(Store):
    """Keeps every state that is written."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.written: dict[uuid.UUID, list[ResourceStatus]] = {}

    def set_bot_state(self, bot: uuid.UUID, task: Any, wanted: bool) -> None:
        states = self.written.setdefault(bot, [STATUS.CREATED])
        if STATUS[task.last_status] is not states[-1]:
            states.append(STATUS[task.last_status])
        super().set_bot_state(bot, task, wanted)


bots = st.integers(0, 3)


class LifeOfBots(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        # In memory where that can be had: thousands of commits would each wait for the disk.
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.machine = Machine()
        self.store = RecordingStore(self.folder)
        self.supervise()
        self.restarted: set[uuid.UUID] = set()

    def supervise(self) -> None:
        # No time passes here: what would be waited for is decided at once, and the test looks instead of the watch.
        grace = {"stop_grace": -2.0, "remove_grace": -1.0}
        self.supervisor = Supervisor(self.store, self.machine, lambda _: {}, poll=0.001, restart=NEVER, **grace)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def some(self, index: int) -> BotRecord | None:
        there = self.store.bots()
        return there[index % len(there)] if there else None

    @rule(name=st.sampled_from("abcd"))
    def create(self, name: str) -> None:
        taken = name in {bot.name for bot in self.store.bots()}
        try:
            self.supervisor.create(name, CONFIGURATION)
        except NameTakenError:
            assert taken
        else:
            assert not taken

    @rule(index=bots)
    def start(self, index: int) -> None:
        if bot := self.some(index):
            self.supervisor.start(bot)
            after = self.store.bot(bot.id)
            assert after
            assert after.wanted
            assert after.status in (STATUS.STARTUP, STATUS.RUNNING, STATUS.SHUTDOWN) or self.machine.broken

    @rule(index=bots)
    def stop(self, index: int) -> None:
        if bot := self.some(index):
            self.supervisor.stop(bot)
            after = self.store.bot(bot.id)
            assert after
            assert after.status in (STATUS.SHUTDOWN, STATUS.STOPPED)

    @rule(index=bots)
    def remove(self, index: int) -> None:
        if bot := self.some(index):
            self.supervisor.remove(bot)
            assert self.store.bot(bot.id) is None
            assert bot.id not in self.machine.processes
            with pytest.raises(LookupError):
                self.supervisor.remove(bot)

    @rule(index=bots, code=st.sampled_from([0, 1, 137, 143, None]))
    def die(self, index: int, code: int | None) -> None:
        if bot := self.some(index):
            self.machine.end(bot.id, code)

    @rule(index=bots)
    def say_ready(self, index: int) -> None:
        bot = self.some(index)
        if bot and bot.id in self.machine.processes:
            self.machine.processes[bot.id].ready = True

    @rule(broken=st.booleans(), stubborn=st.booleans())
    def change_the_machine(self, broken: bool, stubborn: bool) -> None:
        self.machine.broken, self.machine.stubborn = broken, stubborn

    @rule()
    def look(self) -> None:
        self.supervisor.look()
        for bot in self.store.bots():
            process = self.machine.processes.get(bot.id)
            alive = process is not None and process.alive
            assert (bot.status in ALIVE) is alive or bot.status is STATUS.SHUTDOWN
            assert bot.status is not STATUS.STARTUP or not (process and process.ready)

    @precondition(lambda self: self.store.bots())
    @rule()
    def the_server_is_killed_and_comes_back(self) -> None:
        before = {bot.id: bot.status for bot in self.store.bots()}
        # A new life of the server may set what nobody saw: those states aren't steps of the machine.
        self.store.written.clear()
        self.supervise()
        self.supervisor.adopt()
        for bot in self.store.bots():
            self.store.written[bot.id] = [bot.status]
            process = self.machine.processes.get(bot.id)
            if process and process.alive and before[bot.id] in ALIVE:
                assert bot.status in ALIVE, "a bot outlives its server"
            if before[bot.id] is STATUS.STOPPED and bot.task.stop_code == "user":
                assert bot.status is STATUS.STOPPED, "what its user stopped stays stopped"

    @invariant()
    def states_follow_the_table(self) -> None:
        if hasattr(self, "store"):
            for states in self.store.written.values():
                assert all(after in TRANSITIONS[before] for before, after in pairwise(states))

    @invariant()
    def whoever_runs_has_a_record(self) -> None:
        if hasattr(self, "store"):
            known = {bot.id for bot in self.store.bots()}
            assert {bot for bot, process in self.machine.processes.items() if process.alive} <= known


TestLifeOfBots = LifeOfBots.TestCase
TestLifeOfBots.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_table_knows_every_state_and_nothing_leaves_the_last() -> None:
    assert set(TRANSITIONS) == set(STATUS)
    assert not TRANSITIONS[STATUS.REMOVED]
    assert all(STATUS.DEPROVISIONING in after or state >= 8 for state, after in TRANSITIONS.items())


# Real processes

BOT = """
import os, signal, sys, time
print("INFO:     Startup complete", flush=True)
what = sys.argv[1]
if what == "crash":
    print("ERROR:    ZeroDivisionError: division by zero", flush=True)
    sys.exit(3)
if what == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what == "polite":
    signal.signal(signal.SIGTERM, lambda *_: (print("INFO:     bye", flush=True), sys.exit(0)))
if what == "environment":
    print("INFO:     " + " ".join(sorted(os.environ)), flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bots").mkdir()
    for name in ("crash", "deaf", "polite", "environment"):
        (tmp_path / "bots" / f"{name}.py").touch()
    (tmp_path / "bot-process.py").write_text(BOT)
    return tmp_path


@pytest.fixture
def supervisor(folder: Path) -> Iterator[Supervisor]:
    runtime = ProcessRuntime(folder / "kept", command=(sys.executable, str(folder / "bot-process.py")))
    store = Store(folder / "kept")
    made = Supervisor(
        store, runtime, lambda _: {"GIVEN": "yes"}, poll=0.02, stop_grace=0.5, remove_grace=0.5, restart=NEVER
    )
    made.begin()
    yield made
    made.end()
    store.close()


def create(supervisor: Supervisor, folder: Path, module: str) -> BotRecord:
    return supervisor.create(module, CONFIGURATION.model_copy(update={"image": f"project:{folder}#{module}"}))


def status_is(supervisor: Supervisor, bot: BotRecord, status: ResourceStatus) -> Callable[[], bool]:
    return lambda: (now := supervisor.store.bot(bot.id)) is not None and now.status is status


def log_of(supervisor: Supervisor, bot: BotRecord) -> str:
    return read_log(supervisor.runtime.log_file(bot.id)).decode()


def pid_of(supervisor: Supervisor, bot: BotRecord, folder: Path) -> int:
    file = folder / "kept" / str(bot.id) / "run.json"
    wait_for(lambda: (read_json(file) or {}).get("bot"))
    pid: int = json.loads(file.read_text())["bot"]
    return pid


def test_a_bot_that_says_it_is_complete_runs_and_stops_when_asked(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "polite")
    wait_for(status_is(supervisor, bot, STATUS.RUNNING))
    supervisor.stop(bot)
    wait_for(status_is(supervisor, bot, STATUS.STOPPED))
    task = supervisor.store.bot(bot.id).task
    assert (task.exit_code, task.stop_code, task.stopped_reason) == (0, "user", "stopped by the user")
    assert "bye" in log_of(supervisor, bot)


def test_a_bot_that_crashes_is_stopped_with_code_and_error(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "crash")
    wait_for(status_is(supervisor, bot, STATUS.STOPPED))
    now = supervisor.store.bot(bot.id)
    assert now.task.exit_code == 3
    assert now.task.stopped_reason == "exited with code 3: ZeroDivisionError: division by zero"
    messages = [error.message for error in supervisor.errors(now)]
    assert messages == [now.task.stopped_reason, "ZeroDivisionError: division by zero"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 137), (signal.SIGSEGV, 139)])
def test_a_bot_that_is_killed_is_stopped_with_the_signal(
    supervisor: Supervisor, folder: Path, number: signal.Signals, code: int
) -> None:
    bot = create(supervisor, folder, "polite")
    wait_for(status_is(supervisor, bot, STATUS.RUNNING))
    os.kill(pid_of(supervisor, bot, folder), number)
    wait_for(status_is(supervisor, bot, STATUS.STOPPED), 5)
    now = supervisor.store.bot(bot.id)
    task = now.task
    assert (task.exit_code, task.stop_code) == (code, "signal")
    assert task.stopped_reason == f"killed by signal {number.value} ({number.name})"
    [error] = supervisor.errors(now)
    assert error.message.startswith(f"{task.stopped_reason}; before that:\n"), "its last lines are no errors"


def test_when_the_process_between_is_killed_the_bot_goes_with_it(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "deaf")
    wait_for(status_is(supervisor, bot, STATUS.RUNNING))
    pid = pid_of(supervisor, bot, folder)
    psutil.Process(pid).parent().kill()
    wait_for(status_is(supervisor, bot, STATUS.STOPPED), 5)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_bot_that_is_deaf_is_killed_after_its_grace(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "deaf")
    wait_for(status_is(supervisor, bot, STATUS.RUNNING))
    supervisor.stop(bot)
    assert supervisor.store.bot(bot.id).status is STATUS.SHUTDOWN
    wait_for(status_is(supervisor, bot, STATUS.STOPPED))
    assert supervisor.store.bot(bot.id).task.stop_code == "user"


def test_a_bot_sees_what_it_is_given_and_nothing_of_the_servers_secrets(
    supervisor: Supervisor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVERS_OWN_SECRET", "x")
    monkeypatch.setenv("SILVERBACK_CLUSTER_API_KEY", "x")
    bot = create(supervisor, folder, "environment")
    wait_for(lambda: "GIVEN" in log_of(supervisor, bot))
    seen = log_of(supervisor, bot)
    assert "HOME" in seen
    assert "PATH" in seen
    assert "SERVERS_OWN_SECRET" not in seen
    assert "SILVERBACK_CLUSTER_API_KEY" not in seen


def test_removing_a_bot_ends_it_and_takes_its_log_away(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "deaf")
    pid = pid_of(supervisor, bot, folder)
    supervisor.remove(bot)
    assert supervisor.store.bots() == []
    assert not supervisor.runtime.log_file(bot.id).parent.exists()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_many_at_once_never_make_two_processes_of_a_bot(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "polite")
    failures: list[BaseException] = []

    def hammer(act: Callable[[BotRecord], None]) -> None:
        for _ in range(15):
            try:
                act(bot)
            except BaseException as error:  # noqa: BLE001 - reported below
                failures.append(error)

    threads = [threading.Thread(target=hammer, args=(act,)) for act in (supervisor.start, supervisor.stop) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    supervisor.start(bot)
    wait_for(status_is(supervisor, bot, STATUS.RUNNING))
    script = str(folder / "bot-process.py")
    running = [
        process for process in psutil.process_iter(["cmdline"]) if script in (process.info["cmdline"] or ())[1:2]
    ]
    assert len(running) == 1


def test_bots_outlive_their_server_and_are_taken_up_again(folder: Path) -> None:
    runtime = ProcessRuntime(folder / "kept", command=(sys.executable, str(folder / "bot-process.py")))
    store = Store(folder / "kept")
    first = Supervisor(store, runtime, lambda _: {})
    bots = {module: create(first, folder, module) for module in ("polite", "deaf")}
    pids = {module: pid_of(first, bot, folder) for module, bot in bots.items()}
    store.close()  # and no more is heard of the first one

    os.kill(pids["deaf"], signal.SIGKILL)  # while nobody watches
    file = folder / "kept" / str(bots["deaf"].id) / "run.json"
    wait_for(lambda: "code" in (read_json(file) or {}))
    store = Store(folder / "kept")
    second = Supervisor(store, ProcessRuntime(folder / "kept"), lambda _: {}, poll=0.02, stop_grace=1.0, restart=NEVER)
    second.begin()
    try:
        wait_for(status_is(second, bots["polite"], STATUS.RUNNING))
        assert pid_of(second, bots["polite"], folder) == pids["polite"]
        deaf = store.bot(bots["deaf"].id)
        assert (deaf.status, deaf.task.exit_code) == (STATUS.STOPPED, 137)
    finally:
        second.end()
        store.close()
    assert not psutil.pid_exists(pids["polite"]) or psutil.Process(pids["polite"]).status() == psutil.STATUS_ZOMBIE


def test_a_line_of_any_length_and_no_text_at_all_get_into_the_log(folder: Path) -> None:
    (folder / "bot-process.py").write_text(
        "import sys\nsys.stdout.buffer.write(b'x' * 3_000_000 + b'\\n\\xff\\xfe\\nlast')\n"
    )
    runtime = ProcessRuntime(folder / "kept", command=(sys.executable, str(folder / "bot-process.py")))
    bot = uuid.uuid4()
    runtime.start(Run(bot, "long", f"project:{folder}#polite", {}), {})
    wait_for(lambda: not runtime.poll({bot: {}})[bot].alive)
    assert runtime.poll({bot: {}})[bot].exit_code == 0
    lines = read_log(runtime.log_file(bot)).splitlines()
    assert sum(line.count(b"x") for line in lines) == 3_000_000
    assert lines[-1].endswith(b" last")
    assert lines[-2].endswith(b"\xff\xfe")


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("ghcr.io/org/bot:1", "runs bots as processes"),
        ("project:relative#bot", "runs bots as processes"),
        ("project:/no/such/folder#bot", "no folder"),
        ("project:{folder}#missing", "has no bot 'missing'"),
        ("project:{folder}#../secret", "runs bots as processes"),
    ],
)
def test_an_image_that_is_no_bot_of_a_folder_is_refused(folder: Path, image: str, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        ProcessRuntime(folder / "kept").check(image.format(folder=folder))


def test_nothing_is_asked_of_the_database_for_bots_at_rest(tmp_path: Path) -> None:
    with serving_cluster(tmp_path) as cluster, httpx.Client(base_url=cluster.url, headers={"X-API-Key": KEY}) as client:
        body = {"image": "x", "ecosystem": "ethereum", "network": "local", "provider": "foundry"}
        for number in range(20):
            client.post("/bots", json={**body, "name": f"b-{number}"}).raise_for_status()
        wait_for(lambda: all(bot["task"]["last_status"] == "RUNNING" for bot in client.get("/bots").json()))
        asked: list[str] = []
        cluster.store._db.set_trace_callback(asked.append)
        listed = client.get("/bots").json()
        time.sleep(0.5)  # what has changed is read once
        asked.clear()
        assert client.get("/bots").json() == listed
        time.sleep(1.0)  # the watch looks every 20 ms here
        assert [query for query in asked if "credentials" not in query] == []
        client.patch(f"/bots/{listed[3]['id']}", json={"name": "another"}).raise_for_status()
        cluster.machine.end(cluster.bot("another").id, 3)
        wait_for(lambda: client.get("/bots").json()[3]["task"]["last_status"] == "STOPPED")
        assert client.get("/bots").json()[3]["name"] == "another"
        assert client.get("/bots").json()[3]["task"]["exit_code"] == 3
        assert [bot for bot in client.get("/bots").json() if bot["name"] != "another"] == listed[:3] + listed[4:]
