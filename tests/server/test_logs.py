"""Logs that last and end: bounded, followed across their files, found by time, and a disk without room."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ape_silverback.cli.shared.options import Size
from ape_silverback.server.logs import Filter, LogReader, errors_of_run, files_of_log, read_log, stream
from ape_silverback.server.runtimes.loading import choose_runtime, read_choice, runtime_of
from ape_silverback.server.runtimes.process import ProcessRuntime
from ape_silverback.server.runtimes.shim import LogWriter
from tests.conftest import Ape

ALL = Filter(0, None, None)
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def messages(content: bytes) -> list[str]:
    return [json.loads(line)["message"] for line in content.splitlines()]


def everything(base: Path, wanted: Filter) -> bytes:
    async def collect() -> bytes:
        return b"".join([part async for part in stream(base, wanted)])

    return asyncio.run(collect())


def write_old_log(base: Path, lines: int, files: int) -> None:
    """Write a log of a line a second."""
    each = lines // files
    for number in range(files):
        with base.with_name(f"{base.name}.{number + 1}").open("w") as file:
            for line in range(number * each, (number + 1) * each):
                moment = BEGIN + timedelta(seconds=line)
                file.write(f"{moment:%Y-%m-%dT%H:%M:%S.000000Z} INFO:     line {line}\n")


def test_a_log_keeps_to_its_bound_and_loses_the_oldest_lines(tmp_path: Path) -> None:
    base = tmp_path / "log"
    log = LogWriter(str(base), bound=50_000, files=5)
    for number in range(5000):
        log.write(f"INFO:     line {number}\n".encode())
    log.close()
    assert len(files_of_log(base)) == 5
    assert 40_000 < sum(file.stat().st_size for file in files_of_log(base)) <= 50_000
    kept = [int(message.split()[1]) for message in messages(everything(base, ALL))]
    assert kept == list(range(kept[0], 5000)), "no line in between is lost"
    LogWriter(str(base), bound=50_000, files=5).write(b"of the next run\n")
    assert read_log(base).endswith(b"of the next run\n")
    assert len(files_of_log(base)) <= 5


def test_a_followed_log_loses_and_doubles_no_line_where_a_file_ends(tmp_path: Path) -> None:
    base = tmp_path / "log"
    log = LogWriter(str(base), bound=20_000, files=5)
    reader, seen = LogReader(base, ALL), []
    assert reader.read() is None, "it isn't there yet"
    for number in range(3000):
        log.write(f"line {number}\n".encode())
        if number % 37 == 0:
            while (part := reader.read()) is not None:
                seen += messages(part)
    while (part := reader.read()) is not None:
        seen += messages(part)
    reader.close()
    assert seen == [f"line {number}" for number in range(3000)]


def test_a_followed_log_goes_on_after_its_file_was_cut_or_replaced(tmp_path: Path) -> None:
    base = tmp_path / "log"
    base.write_text("one\ntwo\n")
    reader = LogReader(base, ALL)

    def more() -> list[str]:
        found = []
        while (part := reader.read()) is not None:
            found += messages(part)
        return found

    assert more() == ["one", "two"]
    os.truncate(base, 0)
    base.write_text("new\n")
    assert more() == ["new"]
    other = tmp_path / "other"
    other.write_text("replaced, and longer than before\n")
    other.replace(base)
    assert more() == ["replaced, and longer than before"]


@pytest.mark.parametrize("since", [0, 1, 4_999, 5_000, 19_999, 30_000])
def test_a_time_is_found_wherever_it_lies(tmp_path: Path, since: int) -> None:
    base = tmp_path / "log"
    write_old_log(base, 20_000, files=4)
    wanted = Filter(0, BEGIN + timedelta(seconds=since), BEGIN + timedelta(seconds=since + 10))
    assert messages(everything(base, wanted)) == [f"line {number}" for number in range(since, min(since + 11, 20_000))]


def test_a_late_time_is_found_without_reading_what_is_before_it(tmp_path: Path) -> None:
    base = tmp_path / "log"
    write_old_log(base, 200_000, files=4)
    reader = LogReader(base, Filter(0, BEGIN + timedelta(seconds=199_990), None))
    found = reader.read()
    assert found is not None
    assert reader._file is not None
    assert reader._file.tell() > files_of_log(base)[-1].stat().st_size - 128 * 1024
    assert messages(found)[-1] == "line 199999"
    reader.close()


def test_errors_are_found_across_the_end_of_a_file(tmp_path: Path) -> None:
    base = tmp_path / "log"
    base.with_name("log.1").write_text(
        "2026-01-01T00:00:01.000000Z ERROR:    first\n2026-01-01T00:00:01.000000Z more\n"
    )
    base.with_name("log.2").write_text("2026-01-01T00:00:02.000000Z ERROR:    second\n")
    assert [one.message for one in errors_of_run(base, None)] == ["first\nmore", "second"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=256k tmpfs {folder}"):
        pytest.skip("only root can mount a small disk")
    yield folder
    os.system(f"umount -l {folder}")


def test_a_full_disk_drops_lines_and_tells_how_many_once_there_is_room(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 150_000)
    base = small_disk / "log"
    log = LogWriter(str(base), bound=10_000_000, files=5)
    for number in range(10_000):
        log.write(f"line {number}\n".encode())
    assert log.dropped
    dropped = log.dropped
    filler.unlink()
    log.write(b"after\n")
    log.close()
    lines = read_log(base).splitlines()
    assert lines[-1].endswith(b" after")
    assert f" WARNING:  {dropped} lines of this log were dropped".encode() in lines[-2]
    kept = [int(line.split()[-1]) for line in lines[:-2]]
    assert kept == list(range(10_000 - dropped)), "a line is there as a whole or not at all"


def test_a_flood_without_lines_keeps_its_bounds(tmp_path: Path) -> None:
    base = tmp_path / "log"
    log = LogWriter(str(base), bound=10_000_000, files=5)
    begun = time.process_time()
    for _ in range(40):
        log.write(b"\0\xff" * 32_000 + b"\n")
        log.write(b"x\n" * 32_000)
    log.close()
    assert sum(file.stat().st_size for file in files_of_log(base)) <= 10_000_000
    assert time.process_time() - begun < 20


def test_the_size_of_logs_is_kept_for_the_next_server(tmp_path: Path, ape: Ape) -> None:
    choose_runtime(tmp_path, None, None, log_size=Size(least=1).convert("2m", None, None))
    assert read_choice(tmp_path).log_size == 2 * 1024 * 1024
    choose_runtime(tmp_path, None, None)
    runtime = runtime_of(tmp_path)
    assert isinstance(runtime, ProcessRuntime)
    assert runtime.log_bound == 2 * 1024 * 1024
    for size, why in [("5x", "'5x' isn't a size; use '500k', '50m' or '1g'"), ("10k", "'10k' is less than 1024k")]:
        refused = ape("silverback", "cluster", "up", "--log-max-size", size)
        assert refused.returncode == 2
        assert why in refused.stderr
