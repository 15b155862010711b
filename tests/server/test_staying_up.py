"""Bots that stay up: restarts, what a bot leaves behind, and a watch that goes on, with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import generate_latest

from ape_silverback.cluster.types import (
    BotConfiguration,
    Crash,
    HealthPolicy,
    ResourceStatus,
    RestartPolicy,
    RestartStatus,
)
from ape_silverback.server.logs import read_log
from ape_silverback.server.measurements import Measurements
from ape_silverback.server.processes import ProcessIdentity, boot_id, read_json, with_variable
from ape_silverback.server.restarts import GiveUp, Restart, after_crash, after_end
from ape_silverback.server.runtimes import EngineError, Run
from ape_silverback.server.runtimes.cgroups import PREFIX, make_group, remove_group
from ape_silverback.server.runtimes.process import BOT_VARIABLE, ProcessRuntime
from ape_silverback.server.store import BotRecord, Store
from ape_silverback.server.supervisor import Supervisor
from tests.waiting import wait_for

STATUS = ResourceStatus
QUICK = RestartPolicy(backoff=0.05, max_backoff=0.2, max_restarts=3)

BOT = """
import os, signal, subprocess, sys, time
from pathlib import Path
kind, witness = sys.argv[1], Path(__file__).with_name("witness")
with witness.open("a") as file:
    file.write(f"{kind} {os.getpid()}\\n")
print("INFO:     Startup complete", flush=True)
if kind == "crash":
    sys.exit("ValueError: no price")
if kind == "escaper":
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
            Path(__file__).with_name("escaped").write_text(str(os.getpid()))
            os.execve(sys.executable, [sys.executable, "-c", ignoring], {})
        os._exit(0)
if kind == "breaker":
    print("ERROR:    task - 0.1s", flush=True)
    sys.exit(0)
if kind == "done":
    sys.exit(0)
if kind in ("parent", "leaver"):
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = [sys.executable, "-c", ignoring]
    subprocess.Popen(child)
    subprocess.Popen(child, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(child[0], child)
        os._exit(0)
    if kind == "leaver":
        time.sleep(0.5)
        sys.exit(3)
if kind in ("deaf", "parent"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bots").mkdir()
    for name in ("crash", "breaker", "done", "parent", "leaver", "deaf", "polite", "escaper"):
        (tmp_path / "bots" / f"{name}.py").touch()
    (tmp_path / "bot-process.py").write_text(BOT)
    return tmp_path


@contextmanager
def supervising(folder: Path, *, groups: bool = True, **settings: Any) -> Iterator[Supervisor]:
    command = (sys.executable, str(folder / "bot-process.py"))
    runtime = ProcessRuntime(folder / "kept" / "bots", command=command, groups=groups)
    store = Store(folder / "kept")
    made = Supervisor(
        store,
        runtime,
        lambda _: {},
        **{"poll": 0.02, "stop_grace": 0.5, "remove_grace": 0.5, "restart": QUICK} | settings,
    )
    made.begin()
    try:
        yield made
    finally:
        made.end()
        runtime.close()
        store.close()


@pytest.fixture
def supervisor(folder: Path) -> Iterator[Supervisor]:
    with supervising(folder) as made:
        yield made


def create(supervisor: Supervisor, folder: Path, module: str, **settings: Any) -> BotRecord:
    configuration = BotConfiguration(
        image=f"project:{folder}#{module}", ecosystem="ethereum", network="local", provider="foundry", **settings
    )
    return supervisor.create(module, configuration)


def now(supervisor: Supervisor, bot: BotRecord) -> BotRecord:
    found = supervisor.store.bot(bot.id)
    assert found
    return found


def kinds(supervisor: Supervisor, bot: BotRecord) -> list[str]:
    return [event.kind for event in supervisor.store.events(bot.id)]


def starts(folder: Path, kind: str) -> list[int]:
    witness = folder / "witness"
    lines = witness.read_text().splitlines() if witness.exists() else []
    return [int(line.split()[1]) for line in lines if line.split()[0] == kind]


def processes_of(bot: BotRecord) -> list[int]:
    return with_variable(f"{BOT_VARIABLE}={bot.id}")


# Restarts


def test_a_bot_that_crashes_is_started_again_until_it_has_crashed_too_often(
    supervisor: Supervisor, folder: Path
) -> None:
    bot = create(supervisor, folder, "crash")
    wait_for(lambda: "gave-up" in kinds(supervisor, bot))
    found = now(supervisor, bot)
    assert found.status is STATUS.STOPPED
    assert (found.task.stopped_reason or "").startswith("crashed 3 times in ")
    assert (found.task.stopped_reason or "").endswith(": exited with code 1: ValueError: no price")
    assert (found.restarts.count, len(found.restarts.crashes), found.restarts.next_start) == (2, 3, None)
    assert len(starts(folder, "crash")) == 3
    *earlier, last = [error.message for error in supervisor.errors(found)]
    assert earlier == ["exited with code 1: ValueError: no price"] * 2
    assert last == f"{found.task.stopped_reason}; before that:\nStartup complete\nValueError: no price"
    supervisor.store.acknowledge_errors(bot.id)
    assert supervisor.errors(found) == []
    supervisor.start(found)
    assert now(supervisor, bot).restarts.count == 0
    wait_for(lambda: len(starts(folder, "crash")) == 6)


def test_a_bot_that_its_circuit_breaker_stopped_isnt_started_again_unless_always(
    supervisor: Supervisor, folder: Path
) -> None:
    bot = create(supervisor, folder, "breaker")
    wait_for(lambda: now(supervisor, bot).status is STATUS.STOPPED)
    assert now(supervisor, bot).task.stopped_reason == "stopped by its circuit breaker: task - 0.1s"
    assert now(supervisor, bot).restarts.next_start is None
    assert kinds(supervisor, bot)[-1] == "circuit-breaker"
    always = QUICK.model_copy(update={"policy": "always", "max_restarts": 1000})
    done = create(supervisor, folder, "done", restart=always)
    wait_for(lambda: len(starts(folder, "done")) >= 3)
    assert "crashed" not in kinds(supervisor, done)
    assert any(event.reason == "ended by itself, without an error" for event in supervisor.store.events(done.id))
    supervisor.stop(now(supervisor, done))
    wait_for(lambda: now(supervisor, done).status is STATUS.STOPPED)
    count = len(starts(folder, "done"))
    time.sleep(0.5)
    assert len(starts(folder, "done")) == count, "what its user stopped stays stopped"
    assert len(starts(folder, "breaker")) == 1


def test_a_bot_that_always_ends_at_once_is_given_up_like_one_that_crashes(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "done", restart=QUICK.model_copy(update={"policy": "always"}))
    wait_for(lambda: "gave-up" in kinds(supervisor, bot))
    found = now(supervisor, bot)
    assert found.status is STATUS.STOPPED
    assert (found.task.stopped_reason or "").startswith("ended 3 times in ")
    assert (found.task.stopped_reason or "").endswith(": ended by itself, without an error")
    assert found.restarts.next_start is None
    assert len(starts(folder, "done")) == 3
    assert after_end(RestartPolicy(policy="on-failure"), crashes(0), 0.5) is None


def crashes(*seconds: float) -> list[Crash]:
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return [Crash(time=begin + timedelta(seconds=second), reason="ERR") for second in seconds]


def test_delays_double_up_to_the_most_and_begin_anew_after_a_healthy_window() -> None:
    policy = RestartPolicy(max_restarts=20, backoff=1, max_backoff=10, window=100)
    delays = []
    for number in range(1, 7):
        history = crashes(*range(number))
        match after_crash(policy, history, 0.5):
            case Restart(at=at):
                delays.append((at - history[-1].time).total_seconds())
    assert delays == [1, 2, 4, 8, 10, 10]
    after_long = crashes(0, 1, 2, 3, 500)
    assert after_crash(policy, after_long, 0.5) == Restart(after_long[-1].time + timedelta(seconds=1))
    low, high = after_crash(policy, crashes(0), 0.0), after_crash(policy, crashes(0), 1.0)
    assert isinstance(low, Restart)
    assert isinstance(high, Restart)
    assert timedelta(seconds=0.4) < high.at - low.at < timedelta(seconds=0.6), "bots that end together start apart"


def test_giving_up_tells_how_often_in_what_time_and_why() -> None:
    assert after_crash(RestartPolicy(), crashes(0, 60, 120, 180, 240), 0.5) == GiveUp("crashed 5 times in 4 min: ERR")
    assert after_crash(RestartPolicy(), crashes(0, 200, 400, 600, 800), 0.5) != GiveUp("crashed 5 times in 13 min: ERR")
    assert after_crash(RestartPolicy(policy="never"), crashes(0), 0.5) is None


def test_a_start_that_comes_while_a_bot_stops_waits_for_its_end(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "deaf")
    wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)
    supervisor.stop(bot)
    supervisor.start(bot)
    wait_for(lambda: len(starts(folder, "deaf")) == 2)
    wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)
    first, second = starts(folder, "deaf")
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE
    assert processes_of(bot) == [second]


def test_a_start_just_after_the_cluster_started_a_bot_again_counts_anew(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "polite")
    wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)
    os.kill(processes_of(bot)[0], signal.SIGKILL)
    wait_for(lambda: now(supervisor, bot).restarts.count == 1 and now(supervisor, bot).status is STATUS.RUNNING)
    again = processes_of(bot)
    supervisor.start(bot)
    assert (now(supervisor, bot).restarts, processes_of(bot)) == (RestartStatus(), again)


def test_a_restart_that_is_due_while_the_cluster_goes_down_waits_for_the_next_server(folder: Path) -> None:
    slow = RestartPolicy(backoff=0.4, max_backoff=0.4, max_restarts=100)
    with supervising(folder, restart=slow, stop_grace=1.0) as supervisor:
        killed, stopping, asked = (create(supervisor, folder, name) for name in ("parent", "deaf", "polite"))
        for bot in (killed, stopping, asked):
            wait_for(lambda bot=bot: now(supervisor, bot).status is STATUS.RUNNING)
        os.kill(processes_of(killed)[0], signal.SIGKILL)
        supervisor.stop(asked)
        supervisor.start(asked)
        wait_for(lambda: now(supervisor, killed).status is STATUS.STOPPED)
    assert [processes_of(bot) for bot in (killed, stopping, asked)] == [[], [], []]
    with supervising(folder) as supervisor:
        for bot in (killed, stopping, asked):
            wait_for(lambda bot=bot: now(supervisor, bot).status is STATUS.RUNNING)


# Nothing that a bot started outlives it


@pytest.mark.parametrize("end", ["stop", "remove", "crash", "shim killed", "both killed", "cluster down"])
def test_what_a_bot_started_ends_with_it(folder: Path, end: str) -> None:
    with supervising(folder, restart=RestartPolicy(policy="never")) as supervisor:
        bot = create(supervisor, folder, "leaver" if end == "crash" else "parent")
        wait_for(lambda: len(processes_of(bot)) == 4)
        pids = processes_of(bot)
        run = read_json(folder / "kept" / "bots" / str(bot.id) / "run.json")
        assert run
        match end:
            case "stop":
                supervisor.stop(bot)
            case "remove":
                supervisor.remove(bot)
            case "shim killed":
                os.kill(run["pid"], signal.SIGKILL)
            case "both killed":
                os.kill(run["pid"], signal.SIGSTOP)
                os.kill(run["bot"], signal.SIGKILL)
                os.kill(run["pid"], signal.SIGKILL)
        if end not in ("remove", "cluster down"):
            wait_for(lambda: now(supervisor, bot).status is STATUS.STOPPED)
            assert processes_of(bot) == [], "stopped means that nothing is left"
        if end == "crash":
            assert now(supervisor, bot).task.exit_code == 3
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


@pytest.mark.parametrize("groups", [True, False], ids=["control group", "without"])
def test_what_left_its_parent_session_and_environment_ends_with_the_bot(folder: Path, groups: bool) -> None:
    probe = make_group(uuid.uuid4())
    if probe:
        remove_group(probe)
    with supervising(folder, groups=groups, restart=RestartPolicy(policy="never")) as supervisor:
        bot = create(supervisor, folder, "escaper")
        # Without a group only the shim knows such a process, so it can't be killed here.
        for end in ["stop", "bot killed", *(["shim killed"] if groups and probe else [])]:
            wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)
            wait_for((folder / "escaped").exists)
            escaped = psutil.Process(int((folder / "escaped").read_text()))
            wait_for(lambda escaped=escaped: escaped.environ() == {})
            assert escaped.pid not in processes_of(bot)
            run = read_json(folder / "kept" / "bots" / str(bot.id) / "run.json")
            assert run
            match end:
                case "stop":
                    supervisor.stop(bot)
                case "bot killed":
                    os.kill(run["bot"], signal.SIGKILL)
                case "shim killed":
                    os.kill(run["pid"], signal.SIGKILL)
            wait_for(lambda: now(supervisor, bot).status is STATUS.STOPPED)
            assert not escaped.is_running() or escaped.status() == psutil.STATUS_ZOMBIE, end
            (folder / "escaped").unlink()
            supervisor.start(bot)
        wait_for((folder / "escaped").exists)
        supervisor.remove(bot)
    if probe:
        assert not (probe.parent / f"{PREFIX}{bot.id}").exists()


def test_variables_of_a_bot_apply_to_the_bot_and_not_to_what_watches_it(folder: Path) -> None:
    (folder / "planted").mkdir()
    loaded = folder / "loaded"
    (folder / "planted" / "sitecustomize.py").write_text(
        f"import os\nwith open({str(loaded)!r}, 'a') as file:\n    file.write(f'{{os.getpid()}}\\n')\n"
    )
    variables = {
        "PYTHONPATH": str(folder / "planted"),
        "PYTHONSTARTUP": str(folder / "planted" / "sitecustomize.py"),
        "LD_PRELOAD": str(folder / "planted" / "preload.so"),
        "PATH": str(folder / "planted"),
    }
    runtime = ProcessRuntime(folder / "bots", command=(sys.executable, str(folder / "bot-process.py")))
    run = Run(uuid.uuid4(), "one", f"project:{folder}#polite", variables)
    runtime.start(run, {})
    try:
        wait_for(lambda: starts(folder, "polite"))
        written = read_json(folder / "bots" / str(run.bot) / "run.json")
        assert written
        assert loaded.read_text().split() == [str(written["bot"])]
        shim, bot = (psutil.Process(written[key]).environ() for key in ("pid", "bot"))
        assert {name: bot.get(name) for name in variables} == variables
        assert not variables.items() & shim.items()
    finally:
        runtime.kill(run.bot, {})
        wait_for(lambda: not runtime.poll({run.bot: {}})[run.bot].alive)


def test_a_bot_isnt_started_while_anything_of_its_former_run_is_left(folder: Path) -> None:
    runtime = ProcessRuntime(folder / "bots", command=(sys.executable, str(folder / "bot-process.py")))
    run = Run(uuid.uuid4(), "one", f"project:{folder}#polite", {})
    runtime.start(run, {})
    try:
        with pytest.raises(EngineError, match="last run"):
            runtime.start(run, {})
        wait_for(lambda: starts(folder, "polite"))
        other = ProcessRuntime(folder / "bots", command=runtime.command)  # of the next server
        with pytest.raises(EngineError, match="last run"):
            other.start(run, {})
    finally:
        runtime.kill(run.bot, {})
        wait_for(lambda: not runtime.poll({run.bot: {}})[run.bot].alive)
    assert len(starts(folder, "polite")) == 1


def test_a_run_of_another_boot_is_interrupted_and_its_numbers_are_nobody(folder: Path) -> None:
    """After a reboot the pids of a run file belong to others."""
    runtime = ProcessRuntime(folder / "bots")
    bot = uuid.uuid4()
    bystander = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        (folder / "bots" / str(bot)).mkdir(parents=True)
        facts = {"pid": bystander.pid, "ticks": "1", "boot": "another", "started": "2026-01-01T00:00:00.000000Z"}
        (folder / "bots" / str(bot) / "run.json").write_text(json.dumps({**facts, "bot": bystander.pid, "ready": True}))
        (folder / "bots" / str(bot) / "lock").touch()
        seen = runtime.poll({bot: {}})[bot]
        assert (seen.alive, seen.interrupted) == (False, True)
        runtime.stop(bot, {})
        runtime.kill(bot, {})
        assert bystander.is_running()
        assert bystander.status() != psutil.STATUS_ZOMBIE
    finally:
        bystander.kill()
        bystander.wait()


def test_a_bot_whose_machine_went_down_runs_again_and_that_is_told_and_no_crash(folder: Path) -> None:
    with supervising(folder) as supervisor:
        bot = create(supervisor, folder, "polite")
        wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)
        supervisor.keep_running = True
    file = folder / "kept" / "bots" / str(bot.id) / "run.json"
    run = json.loads(file.read_text())
    os.kill(run["pid"], signal.SIGKILL)  # and with it what it runs
    wait_for(lambda: not psutil.pid_exists(run["bot"]))
    file.write_text(json.dumps({**run, "boot": "another"}))
    with supervising(folder) as supervisor:
        wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)
        events = [(event.kind, event.reason) for event in supervisor.store.events(bot.id)]
        assert events[-3:-1] == [("stopped", "its machine went down"), ("started", "the cluster is up again")]
        assert now(supervisor, bot).restarts.crashes == []


def test_a_process_is_told_by_its_start_and_the_boot_and_not_by_a_time_of_day() -> None:
    own = ProcessIdentity.of(os.getpid())
    assert own
    assert own.is_alive()
    assert ProcessIdentity.read(json.loads(json.dumps(own.dump()))) == own
    assert not ProcessIdentity(own.pid, str(int(own.ticks) + 1), own.boot).is_alive()
    assert not ProcessIdentity(own.pid, own.ticks, "another").is_alive()
    assert own.boot == boot_id()
    for nonsense in ({}, {"pid": "1"}, {"pid": -1, "ticks": "1", "boot": ""}):
        assert ProcessIdentity.read(nonsense) is None


# The watch


def test_a_run_file_of_nonsense_or_a_log_that_is_a_folder_touches_no_other_bot(
    supervisor: Supervisor, folder: Path
) -> None:
    first, second = create(supervisor, folder, "polite"), create(supervisor, folder, "deaf")
    for bot in (first, second):
        wait_for(lambda bot=bot: now(supervisor, bot).status is STATUS.RUNNING)
    place = folder / "kept" / "bots" / str(first.id)
    (place / "run.json").write_text("{}")
    log = next(place.glob("log.*"))
    log.unlink()
    log.mkdir()
    os.kill(starts(folder, "deaf")[0], signal.SIGKILL)
    wait_for(lambda: "crashed" in kinds(supervisor, second))
    wait_for(lambda: len(starts(folder, "deaf")) == 2)
    supervisor.stop(first)
    wait_for(lambda: now(supervisor, first).status is STATUS.STOPPED)
    assert processes_of(first) == []


def test_a_failure_while_looking_at_one_bot_is_told_and_tried_again(
    supervisor: Supervisor, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bot = create(supervisor, folder, "polite")
    wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)
    with supervisor.store.transaction() as db:
        db.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON bots BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
    os.kill(starts(folder, "polite")[0], signal.SIGKILL)
    wait_for(lambda: not supervisor.health(now(supervisor, bot)).healthy)
    assert "can't look after" in (supervisor.health(now(supervisor, bot)).reason or "")
    assert "can't look after bot 'polite'" in caplog.text
    wait_for(lambda: supervisor.failures(bot) > 1)
    counted = generate_latest(Measurements(supervisor).registry).decode()
    assert re.search(r'^silverback_bot_watch_failures_total{bot="polite"} [1-9]', counted, re.MULTILINE)
    with supervisor.store.transaction() as db:
        db.execute("DROP TRIGGER full")
    wait_for(lambda: len(starts(folder, "polite")) == 2)
    wait_for(lambda: supervisor.health(now(supervisor, bot)).healthy)
    wait_for(lambda: "bot 'polite' is looked after again; that failed" in caplog.text)


def test_a_bot_whose_variables_cant_be_read_doesnt_keep_the_others_from_starting(folder: Path) -> None:
    with supervising(folder) as supervisor:
        bad, good = create(supervisor, folder, "polite"), create(supervisor, folder, "deaf")
        wait_for(lambda: now(supervisor, good).status is STATUS.RUNNING)
        supervisor.stop(good)

    def variables_of(bot: BotRecord) -> dict[str, str]:
        return {"A": "x\0y"} if bot.id == bad.id else {}

    runtime = ProcessRuntime(folder / "kept" / "bots", command=(sys.executable, str(folder / "bot-process.py")))
    store = Store(folder / "kept")
    again = Supervisor(store, runtime, variables_of, poll=0.02, stop_grace=0.5)
    again.begin()
    try:
        assert "NUL" in (store.bot(bad.id).task.stopped_reason or "")  # type: ignore[union-attr]
        again.start(store.bot(good.id))  # type: ignore[arg-type]
        wait_for(lambda: store.bot(good.id).status is STATUS.RUNNING)  # type: ignore[union-attr]
    finally:
        again.end()
        runtime.close()
        store.close()


# Health


def test_a_bot_that_is_silent_or_behind_is_unhealthy_and_recovers(folder: Path) -> None:
    with supervising(folder, healthy=HealthPolicy(silent=30, lag=5)) as supervisor:
        supervisor.runtime.work_folder(uuid.uuid4())
        bot = create(supervisor, folder, "polite")
        wait_for(lambda: now(supervisor, bot).status is STATUS.RUNNING)

        def beat(**more: Any) -> None:
            moment = datetime.now(timezone.utc).isoformat()
            content = {"updated": moment, "blocks": True, "processed": 7, "processed_at": moment, "head": 7, "first": 1}
            (supervisor.runtime.work_folder(bot.id) / "heartbeat.json").write_text(json.dumps(content | more))
            supervisor.work._look_at = 0.0

        beat()
        wait_for(lambda: supervisor.health(now(supervisor, bot)).last_block == 7)
        assert supervisor.health(now(supervisor, bot)).healthy
        beat(head=100)
        wait_for(lambda: supervisor.health(now(supervisor, bot)).reason == "93 blocks behind")
        assert "unhealthy" in kinds(supervisor, bot)
        beat()
        wait_for(lambda: "recovered" in kinds(supervisor, bot))


# Logs of removed bots


def test_the_log_and_the_errors_of_a_removed_bot_are_kept(supervisor: Supervisor, folder: Path) -> None:
    bot = create(supervisor, folder, "crash", restart=RestartPolicy(policy="never"))
    wait_for(lambda: now(supervisor, bot).status is STATUS.STOPPED)
    supervisor.remove(now(supervisor, bot))
    [removed] = supervisor.store.removed_bots()
    assert (removed.id, removed.name) == (bot.id, "crash")
    assert any("no price" in error for error in removed.errors)
    assert b"ValueError: no price" in read_log(supervisor.removed.log(bot.id))
    with supervisor.store.transaction() as db:
        db.execute("UPDATE removed_bots SET removed = '2020-01-01T00:00:00+00:00'")
    supervisor.removed._purge_at = 0.0
    wait_for(lambda: not supervisor.store.removed_bots())
    assert not supervisor.removed.log(bot.id).parent.exists()
