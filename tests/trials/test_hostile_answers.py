"""Answers that cost: real commands, whose cluster, platform or node never ends, unpacks to gigabytes, or drips.

Each trial prints the most memory, output and time that any command took: ``pytest -m trial -s``.
"""

from __future__ import annotations

import gzip
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ape_silverback.server.daemon import LocalCluster
from ape_silverback.server.platform.payments import Wanted
from tests.cli.hostile import Welcoming
from tests.cli.platform import MANAGER, Platform, serving_platform
from tests.cluster.server import BOT, CREDENTIAL, GROUP, Behaviour, Reply, Request, answer, serving
from tests.server.payer import Payer
from tests.server.test_clusters import FAULTS
from tests.server.test_platform import client_of, paid
from tests.stream.nodes import forward
from tests.trials.measured import Measured, measure
from tests.waiting import wait_for

pytestmark = pytest.mark.trial

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("info",),
    ("health",),
    ("status",),
    ("status", "-o", "wide"),
    ("status", "--sort", "uptime", "--format", "yaml"),
    ("bots", "list"),
    ("bots", "list", "-o", "wide"),
    ("bots", "info"),
    ("bots", "health", "--format", "json"),
    ("bots", "errors"),
    ("bots", "logs", "--all", "--tail", "5"),
    ("bots", "logs", "--all", "--removed"),
    ("bots", "metrics", "a"),
    ("bots", "metrics", "a", "--plot"),
    ("bots", "start", "nothing"),
    ("bots", "remove", "--all", "-y"),
    ("vars", "list"),
    ("vars", "info", "nothing"),
    ("vars", "new", "x", "-e", "A=1"),
    ("registry", "list"),
    ("keys", "list"),
    ("nodes",),
    ("plan",),
    ("deploy", "-y", "--timeout", "1"),
    ("history",),
)
DRIPPED = (*COMMANDS[:3], ("bots", "logs", "--all"), ("deploy", "-y"), ("bots", "remove", "a", "-y"))
"""Those that are kept waiting: each takes a minute."""

EXTENSIONS = ["keys", "nodes", "metrics", "task", "restarts", "health-details", "removed-logs", "deployments"]
OPENAPI = {"info": {"version": "1", "x-extensions": EXTENSIONS}}
SECTION = """
silverback:
  network: ethereum:mainnet:alchemy
  bots:
    first: {image: a/b:1}
    second: {image: a/b:2}
"""
MIB = 1 << 20
SPACES = b" " * MIB
BOMB = gzip.compress(SPACES * 64)
JSON = {"Content-Type": "application/json"}
KEY = {"SILVERBACK_CLUSTER_API_KEY": "k", "SILVERBACK_SETTLE": "0"}

MOST_MEMORY = 700.0
"""MiB that answers may cost a command beyond what it takes of an empty cluster: the objects of 8 MiB of JSON take 200
MiB at most, and `status` asks three questions at once."""

MOST_PRINTED = 128 * MIB
MOST_SECONDS = 110.0
"""One deadline of the client, on a machine that is busy."""


# Answers that are the same for each request


def throttled(piece: bytes, seconds: float = 0.05) -> Iterator[bytes]:
    while True:
        yield piece
        time.sleep(seconds)


def bomb(_: Request) -> Reply:
    return Reply(200, headers={**JSON, "Content-Encoding": "gzip"}, chunks=itertools.repeat(BOMB))


def gzip_of_nothing(_: Request) -> Reply:
    """Never end, and never unpack to a single byte."""
    begin = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    head = begin.compress(b"") + begin.flush(zlib.Z_FULL_FLUSH)
    chunks = itertools.chain([head], throttled(b"\0\0\0\xff\xff" * 10_000))
    return Reply(200, headers={**JSON, "Content-Encoding": "gzip"}, chunks=chunks)


def pages(request: Request) -> Reply:
    number = int(request.query.get("page", "0")) + 1
    return answer({"items": [], "next": f"{request.path}?page={number}"})


def redirects(request: Request) -> Reply:
    number = int(request.query.get("to", "0")) + 1
    return Reply(307, headers={"Location": f"{request.path}?to={number}"})


def text(size: int) -> Iterator[bytes]:
    return itertools.chain([b'{"detail": "'], itertools.repeat(b"x" * MIB, size), [b'"}'])


SAME: dict[str, Behaviour] = {
    "an endless answer": lambda _: Reply(200, headers=JSON, chunks=itertools.repeat(SPACES)),
    "an endless error": lambda _: Reply(500, headers=JSON, chunks=itertools.repeat(SPACES)),
    "a gzip bomb": bomb,
    "pages without end": pages,
    "redirects without end": redirects,
    "a detail of 100 MB": lambda _: Reply(409, headers=JSON, chunks=text(100)),
    "a detail of 7 MB": lambda _: Reply(409, headers=JSON, chunks=text(7)),
    "refused fields of 7 MB": lambda _: answer({"detail": [{"loc": [n], "msg": "m" * 40} for n in range(90_000)]}, 422),
    "JSON that is too deep": lambda _: Reply(200, b"[" * 4_000_000),
    "millions of values": lambda _: Reply(200, b"[" + b"{}," * 2_700_000 + b"{}]"),
    "millions of keys": lambda _: Reply(200, b"{" + b",".join(b'"%d":1' % n for n in range(700_000)) + b"}"),
    "headers without end": lambda _: Reply(
        raw=itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X-More: " + b"x" * 1000 + b"\r\n"))
    ),
    "an answer that isn't HTTP": lambda _: Reply(raw=itertools.repeat(SPACES)),
}
DRIPS: dict[str, Behaviour] = {
    "headers at a byte a second": lambda _: Reply(
        raw=itertools.chain([b"HTTP/1.1 200 OK\r\nX-S: "], throttled(b"x", 1))
    ),
    "a body at a byte a second": lambda _: Reply(200, b" " * 1000, JSON, drip=1.0),
    "answers before the answer": lambda _: Reply(raw=throttled(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.01)),
    "a gzip of nothing": gzip_of_nothing,
}


# Clusters whose answers are right in form


class Cluster:
    """A cluster of this package that tells what it is given: path → content, of which a function makes it anew."""

    def __init__(self, **told: Any) -> None:
        self.told = {"openapi": OPENAPI, "bots": [], "vars": [], "credentials": [], "health": {}, **told}

    def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        if request.method != "GET":
            return answer({"detail": "no"}, 409)
        parts = request.path.strip("/").removesuffix(".json").split("/")
        kind = parts[2] if len(parts) > 2 else parts[0]
        found = self.told.get(kind if kind != "logs" or parts[0] == "bots" else "removed-logs")
        if found is None:
            default: dict[str, Any] = {"errors": [], "status": 4, "deployments": {"last": 0, "lines": []}}
            found = default.get(kind, [])
        return found() if callable(found) else answer(found)


def bot(number: int = 1, **more: Any) -> dict[str, Any]:
    return {**BOT, "id": f"11111111-1111-4111-8111-{number:012}", "name": "a" if number == 1 else f"b{number}", **more}


def task(status: str, started: str | None, stopped: str | None) -> dict[str, Any]:
    times = {"started_at": started, "stopped_at": stopped}
    return {"last_status": status, "exit_code": 1, "reason": None, "stop_code": "x", "stopped_reason": "why", **times}


def worked(moment: str) -> dict[str, Any]:
    crash = {"time": moment, "reason": "crashed"}
    return {
        "restarts": {"count": 1, "crashes": [crash], "next_start": moment},
        "health": {"healthy": False, "reason": "x", "heartbeat": moment, "last_block": 1, "lag": 10**30},
    }


MOMENTS = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59",
    "1883-01-01T00:00:00+00:19",
    "2026-01-01T00:00:00",
]
NONSENSE = [5, "x", [], {"cpu": "9" * 9000}, {"cpu": 10**300, "memory": None}, {"bots": -1}, "0x" + "f" * 64, True, {}]


def lines_of_metrics() -> Iterator[dict[str, Any]]:
    for number, moment in enumerate(MOMENTS):
        value: Any = [1, 10**300, 10**400, -(10**400), 1.5, True, 2**256, 0][number]
        yield {"completed": moment, "task": f"t{number}", "execution_time": 1e300, "metrics": {"m": value}}


def metrics() -> Reply:
    return Reply(200, "\n".join(map(json.dumps, lines_of_metrics())).encode())


def logs() -> Reply:
    entries = [json.dumps({"level": "INFO", "timestamp": moment, "message": moment}) for moment in MOMENTS]
    return Reply(200, ("\n".join(entries) + "\n").encode())


def many_bots(count: int, long: int) -> list[dict[str, Any]]:
    return [bot(1, name="n" * long), *(bot(number, task=task("STOPPED", None, None)) for number in range(2, count))]


def record(moment: str) -> dict[str, Any]:
    return {"id": 1, "time": moment, "by": "x", "outcome": {"a": "failed: x"}}


def of_all_times() -> Cluster:
    return Cluster(
        bots=[
            bot(number, created=moment, unreachable_since=moment, task=task(status, moment, moment), **worked(moment))
            for number, (moment, status) in enumerate(itertools.product(MOMENTS, ("RUNNING", "STOPPED")), 1)
        ],
        vars=[{**GROUP, "name": moment[:4], "created": moment} for moment in MOMENTS],
        credentials=[{**CREDENTIAL, "created": moment, "updated": moment} for moment in MOMENTS],
        keys=[{"id": BOT["id"], "name": "k", "role": "read", "created": one, "last_use": one} for one in MOMENTS],
        logs=logs,
        metrics=metrics,
        errors=["x"],
        **{
            "removed-bots": [{"id": BOT["id"], "name": one, "removed": one, "errors": []} for one in MOMENTS],
            "removed-logs": logs,
            "deployments": {"last": 1, "lines": [{**record(one), "id": n} for n, one in enumerate(MOMENTS, 1)]},
        },
    )


RIGHT: dict[str, Callable[[], Cluster]] = {
    "two of one name": lambda: Cluster(
        bots=[bot(1), bot(2, name="a"), bot(3, name="a")],
        vars=[GROUP, {**GROUP, "id": BOT["id"]}],
        credentials=[CREDENTIAL, {**CREDENTIAL, "id": "c-2"}],
        errors=["x"],
        logs=logs,
    ),
    "1,000 bots, and one name of 5 MB": lambda: Cluster(bots=many_bots(1_000, 5_000_000), errors=[]),
    "texts of 2 MB": lambda: Cluster(
        openapi={"info": {"version": "v" * 2 * MIB, "x-extensions": EXTENSIONS, "x-runtime": "r" * MIB}},
        bots=[
            bot(
                1,
                image="i" * MIB,
                account="a" * MIB,
                task=task("STOPPED", None, None) | {"stopped_reason": "\u202e" * MIB},
            )
        ],
        vars=[{**GROUP, "variables": ["V" * 2 * MIB]}],
        credentials=[{**CREDENTIAL, "hostname": "h" * 2 * MIB}],
        errors=["e" * 2 * MIB, "\n" * 2 * MIB],
        health={"networks": {"n" * 2 * MIB: {"healthy": False}}, "bots": {"a": {"healthy": False}}},
    ),
    "a record that isn't one": lambda: Cluster(deployments={"last": "x", "lines": 5}),
    "a record of a million wrong bots": lambda: Cluster(
        deployments={"last": 1, "lines": [{"id": 1, "time": MOMENTS[0], "by": "x", "bots": [{}] * 500_000}]}
    ),
    "metrics without end": lambda: Cluster(
        bots=[bot(1)], metrics=lambda: Reply(200, chunks=itertools.repeat(f"{json.dumps(line)}\n".encode() * 1000))
    ),
    "metrics that unpack to gigabytes": lambda: Cluster(
        bots=[bot(1)],
        metrics=lambda: Reply(
            200,
            gzip.compress(f"{json.dumps(line)}\n".encode() * 2_000_000, 1),
            headers={"Content-Encoding": "gzip"},
        ),
    ),
}
line = {"completed": "2026-01-01T00:00:00Z", "task": "t", "execution_time": 0.1, "metrics": {"m": 1}}
for number, nonsense in enumerate(NONSENSE):
    RIGHT[f"an x-config of nonsense, {number}"] = lambda nonsense=nonsense: Cluster(  # type: ignore[misc]
        openapi={"info": {"version": nonsense, "x-config": nonsense, "x-runtime": nonsense, "x-extensions": nonsense}}
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home, project = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("project")
    (project / "ape-config.yaml").write_text(SECTION)
    return home, project


@pytest.fixture(scope="module")
def usual(folders: tuple[Path, Path]) -> dict[tuple[str, ...], float]:
    """What each command takes of memory where nothing is wrong."""
    commands = list(dict.fromkeys((*COMMANDS, *DRIPPED)))
    return {one.command: one.peak for one in run_all(Cluster(bots=[bot(1)]), folders, commands)}


def run_all(
    behave: Behaviour,
    folders: tuple[Path, Path],
    commands: Sequence[tuple[str, ...]] = COMMANDS,
    side_by_side: int = 2,
    **environment: str,
) -> list[Measured]:
    home, project = folders
    with serving(behave) as server, ThreadPoolExecutor(side_by_side) as pool:
        settings = {**KEY, "SILVERBACK_CLUSTER_URI": server.url, **environment}
        return list(pool.map(lambda command: measure(command, home, project, **settings), commands))


def look_at(what: str, runs: Sequence[Measured], usual: dict[tuple[str, ...], float], seconds: float) -> None:
    """Print what the worst one took, and fail for what no command may take."""
    grown = {one.command: one.peak - usual[one.command] for one in runs}
    worst = max(grown, key=lambda command: grown[command])
    print(
        f"\n{what}: {len(runs)} commands; at most {max(one.peak for one in runs):.0f} MiB, {grown[worst]:.0f} more "
        f"than usual (`{' '.join(worst)}`); {max(one.printed for one in runs) / 1e6:.1f} MB printed; "
        f"{max(one.seconds for one in runs):.1f} s"
    )
    wrong = []
    for one in runs:
        told = {
            "a traceback": "Traceback" in one.out + one.err,
            "no exit code of ours": one.code not in (0, 1),
            f"{grown[one.command]:.0f} MiB": grown[one.command] > MOST_MEMORY,
            f"{one.printed} bytes": one.printed > MOST_PRINTED,
            f"{one.seconds:.1f} s": one.seconds > seconds,
        }
        if any(told.values()):
            problems = ", ".join(text for text, is_so in told.items() if is_so)
            wrong.append(f"{' '.join(one.command)}: {problems}, exit code {one.code}: {one.err[-1500:]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("what", SAME)
def test_an_answer_to_everything_costs_no_command_more_than_it_may(
    what: str, folders: tuple[Path, Path], usual: dict[tuple[str, ...], float]
) -> None:
    runs = run_all(SAME[what], folders)
    look_at(what, runs, usual, MOST_SECONDS)
    passed = [one.command for one in runs if one.code != 1]
    assert passed in ([], [("health",)]), (
        "what isn't right in form is an error; to `health`, an object without names is"
    )
    assert all(one.printed < 100_000 for one in runs), "an error is short"


@pytest.mark.parametrize("what", DRIPS)
def test_an_answer_that_drips_ends_at_the_deadline(
    what: str, folders: tuple[Path, Path], usual: dict[tuple[str, ...], float]
) -> None:
    runs = run_all(DRIPS[what], folders, DRIPPED, side_by_side=len(DRIPPED))
    look_at(what, runs, usual, MOST_SECONDS)
    assert all(one.code == 1 for one in runs)


@pytest.mark.parametrize("what", RIGHT)
def test_what_is_right_in_form_costs_no_command_more_than_it_may(
    what: str, folders: tuple[Path, Path], usual: dict[tuple[str, ...], float]
) -> None:
    look_at(what, run_all(RIGHT[what](), folders), usual, MOST_SECONDS)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_times_in_the_years_1_and_9999_are_shown(
    zone: str, folders: tuple[Path, Path], usual: dict[tuple[str, ...], float]
) -> None:
    runs = run_all(of_all_times(), folders, TZ=zone)
    look_at(f"the years 1 and 9999 in {zone}", runs, usual, MOST_SECONDS)
    shown = {one.command: one for one in runs}
    for command in (
        ("status",),
        ("bots", "info"),
        ("vars", "list"),
        ("registry", "list"),
        ("keys", "list"),
        ("history",),
    ):
        assert shown[command].code == 0, shown[command].err
        shows_ages = command in (("status",), ("registry", "list"))
        assert shows_ages or "9999" in shown[command].out, shown[command].out


# Logs


ENDLESS_LOGS: dict[str, Callable[[], Reply]] = {
    "a line": lambda: Reply(200, chunks=itertools.repeat(b"x" * MIB)),
    "lines": lambda: Reply(200, chunks=itertools.repeat(b"2026-01-01T00:00:00Z INFO:     x\n" * 10_000)),
    "a gzip bomb": lambda: Reply(200, headers={"Content-Encoding": "gzip"}, chunks=itertools.repeat(BOMB)),
}


@pytest.mark.parametrize("options", [(), ("-f",), ("--tail", "5"), ("--format", "json")])
@pytest.mark.parametrize("what", ENDLESS_LOGS)
def test_a_log_without_end_is_shown_in_constant_memory(
    what: str, options: tuple[str, ...], folders: tuple[Path, Path], usual: dict[tuple[str, ...], float]
) -> None:
    behave = Cluster(bots=[bot(1)], logs=ENDLESS_LOGS[what])
    with serving(behave) as server:
        settings = {**KEY, "SILVERBACK_CLUSTER_URI": server.url}
        run = measure(("bots", "logs", "a", *options), *folders, interrupt_after=8.0, most_printed=1 << 33, **settings)
    print(
        f"\n{what} without end, {options}: {run.printed / 1e6:.0f} MB printed in {run.seconds:.0f} s, "
        f"{run.peak:.0f} MiB"
    )
    assert "Traceback" not in run.err
    assert run.code in (1, 130), run.err
    assert run.peak - usual[("bots", "list")] < 60


class Taking(Welcoming):
    """A cluster that takes bots, which stop at once, and whose logs never end."""

    def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        return ENDLESS_LOGS["lines"]() if request.path.endswith("/logs") else super().__call__(request)


def test_a_deployment_ends_though_the_log_of_a_bot_that_failed_doesnt(
    folders: tuple[Path, Path], usual: dict[tuple[str, ...], float]
) -> None:
    [run] = run_all(Taking(), folders, [("deploy", "-y", "--timeout", "5")])
    print(f"\na deployment whose bots fail and log without end: {run.seconds:.0f} s, {run.peak:.0f} MiB")
    assert run.code == 1, run.err
    assert "last log lines" in run.err
    assert run.seconds < 90
    assert run.peak - usual[("deploy", "-y", "--timeout", "1")] < 100


# Nodes of a chain


NODES: dict[str, Behaviour] = {
    **{
        name: SAME[name]
        for name in ("an endless answer", "a gzip bomb", "headers without end", "JSON that is too deep")
    },
    **{name: DRIPS[name] for name in ("headers at a byte a second", "a gzip of nothing")},
}


@pytest.mark.parametrize("what", NODES)
def test_a_node_costs_the_verification_no_more_than_it_may(
    what: str, tmp_path: Path, usual: dict[tuple[str, ...], float]
) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    platform = Platform()
    cluster = platform.add_cluster(platform.add_workspace("space", "Space"), "prod", "Prod", status=4)
    platform.streams[cluster] = {"chain_id": 1337, "manager": MANAGER, "stream_id": 0}
    platform.managers[1337] = MANAGER
    with serving_platform(platform, home), serving(NODES[what]) as node:
        (project / "ape-config.yaml").write_text(
            f"ethereum:\n  local:\n    default_provider: foundry\nfoundry:\n  host: {node.url}\n"
        )
        commands = [
            ("verify", "-c", "space/prod"),
            ("verify", "-c", "space/prod", "--network", f"ethereum:local:{node.url}"),
            ("pay", "info", "space/prod"),
        ]
        with ThreadPoolExecutor(3) as pool:
            runs = list(pool.map(lambda command: measure(command, home, project), commands))
    known = dict.fromkeys(commands, usual[("bots", "list")])
    look_at(f"a node with {what}", runs, known, 200)
    assert all(one.code == 1 for one in runs)


def test_a_node_costs_the_server_that_follows_it_no_more_than_it_may(tmp_path: Path, chain: str) -> None:
    behave: list[Behaviour] = [lambda request: forward(chain, request)]
    cluster = LocalCluster(tmp_path / "local")
    kinds = {**NODES, **FAULTS}
    with serving(lambda request: behave[0](request)) as between:
        try:
            started = cluster.up(wanted=Wanted(chain=between.url))
            status = Path(f"/proc/{started.running.pid}/status")
            before, worst = peak_of(status), 0.0
            for what, fault in kinds.items():
                behave[0] = fault
                seen = len(between.requests)
                wait_for(lambda seen=seen: len(between.requests) >= seen + 2, 90)  # type: ignore[misc]
                print(f"{what}: {peak_of(status):.0f} MiB at most so far")
            behave[0] = lambda request: forward(chain, request)
            with client_of(started) as client:
                payer = Payer.at(chain, client.get_stream_manager(1337), client.get_accepted_tokens(1337)["TEST"])
                begun = time.monotonic()
                paid(payer, client.create_workspace())
                noticed = time.monotonic() - begun
            worst = peak_of(status) - before
            begun = time.monotonic()
        finally:
            cluster.down()
    print(
        f"\na node with {len(kinds)} faults: the server took {worst:.0f} MiB more; a payment after them was noticed "
        f"within {noticed:.1f} s; down took {time.monotonic() - begun:.1f} s"
    )
    assert worst < 300


def peak_of(status: Path) -> float:
    """Return the most memory that a process had, in MiB."""
    [line] = [one for one in status.read_text().splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
