"""Tables on narrow terminals: what matters less gives way, what matters most stays whole."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.cli.shared.output import GAP, LAST_COLUMN, LONGEST_CELL, age, crop, fit, show_table, time_text
from ape_silverback.cli.shared.terminal import cut, style

HEADINGS = ["NAME", "STATE", "NETWORK", "IMAGE", "REASON"]
GIVING_WAY = {"IMAGE": 10, "NETWORK": 8}
words = st.text("abcdefgh:/.-", max_size=60)
rows = st.lists(st.tuples(words, words.map(lambda text: click.style(text, fg="red")), words, words, words), max_size=5)


def width_of(table: list[list[str]]) -> int:
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(*table, strict=True)]
    return sum([*widths[:-1], min(widths[-1], LAST_COLUMN)]) + GAP * (len(widths) - 1)


@given(rows, st.integers(20, 200))
def test_only_what_may_give_way_does_and_only_as_far_as_it_has_to(found: list[tuple[str, ...]], width: int) -> None:
    whole = [HEADINGS, *map(list, found)]
    fitted = fit(whole, width, GIVING_WAY)
    there = fitted[0]
    assert there == [heading for heading in HEADINGS if heading in there]
    for place, heading in enumerate(HEADINGS):
        cells = [row[place] for row in whole]
        empty = bool(found) and not any(cells[1:])
        if heading not in GIVING_WAY:
            assert (heading in there) != empty
        if heading in there:
            shown = [row[there.index(heading)] for row in fitted]
            assert shown == cells or (heading in GIVING_WAY and max(map(len, shown)) >= GIVING_WAY[heading])
    if width_of(fitted) > width:
        assert not set(GIVING_WAY) & set(there), "all that may has given way"
    if width_of(fit(whole, 1000, GIVING_WAY)) <= width:
        assert fitted == fit(whole, 1000, GIVING_WAY), "there is room for all of it"


@given(words, st.integers(2, 40))
def test_what_is_cropped_keeps_its_begin_and_its_end(text: str, width: int) -> None:
    cropped = crop(text, width)
    begin, mark, end = cropped.partition("…")
    assert len(cropped) == min(width, len(text))
    assert text.startswith(begin)
    assert text.endswith(end)
    assert bool(mark) == (cropped != text)


def test_one_long_cell_makes_no_other_row_long(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("NAME", "STATE"), [("n" * 5_000_000, style("s" * 5_000_000, fg="red")), *[("a", "b")] * 1000])
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].startswith("n" * LONGEST_CELL + "… (cut)")
    assert shown[1].endswith("s" * LONGEST_CELL + "… (cut)")
    assert max(map(len, shown)) < 3 * LONGEST_CELL


def test_what_is_cut_keeps_its_begin_and_no_style() -> None:
    assert cut("x" * 100, 100) == "x" * 100
    assert cut("x" * 101, 100) == f"{'x' * 100}… (cut)"
    end = style("", fg="red").rpartition("\x1b")[2]
    assert cut(style("x" * 1000, fg="red"), 100).endswith(f"{end}… (cut)")


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_a_time_at_an_end_of_the_calendar_is_shown(
    zone: str, moment: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        assert str(moment.year) in time_text(moment.replace(tzinfo=timezone.utc))
        assert age(moment.replace(tzinfo=timezone.utc))
    time.tzset()
