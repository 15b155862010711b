"""Lines of a log are counted by level, each once, across rotations."""

from __future__ import annotations

from pathlib import Path

from ape_silverback.server import log_counts
from ape_silverback.server.log_counts import LogCounts

STAMP = "2026-11-25T12:00:00Z"


def test_lines_are_counted_once_across_rotations_and_only_whole_ones(tmp_path: Path) -> None:
    first, second = tmp_path / "log.1", tmp_path / "log.2"
    first.write_text(f"{STAMP} INFO:     a\n{STAMP} ERROR:    b\n{STAMP} more of b\n{STAMP} INFO: ")
    counts = LogCounts(tmp_path / "log")
    counts.update()
    counts.update()
    assert dict(counts.lines) == {"info": 1, "error": 2}
    with first.open("a") as file:
        file.write("    c\n")
    second.write_text(f"{STAMP} WARNING:  d\n")
    counts.update()
    first.unlink()
    counts.update()
    assert dict(counts.lines) == {"info": 2, "error": 2, "warning": 1}


def test_of_a_long_log_only_the_end_is_read_the_first_time(tmp_path: Path) -> None:
    line = f"{STAMP} INFO:     {'x' * 100}\n"
    for number in (1, 2):
        (tmp_path / f"log.{number}").write_text(line * (2 * log_counts.FIRST // len(line)))
    counts = LogCounts(tmp_path / "log")
    counts.update()
    assert 0 < counts.lines["info"] <= log_counts.FIRST // len(line) + 1
