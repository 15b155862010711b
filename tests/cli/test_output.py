"""Tables on narrow terminals: what matters less gives way, what matters most stays whole."""

from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.cli.shared.output import GAP, LAST_COLUMN, crop, fit

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
