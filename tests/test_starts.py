"""The claims of the table of starts in bistable_rl/cells/README.md, which `python tests/starts.py` writes."""

import json

import numpy as np
import pytest
from starts import COLUMNS, RESULT, STARTS, row


@pytest.mark.parametrize("cell", ["brc", "nbrc"])
def test_halves_show_the_present_and_keep_the_past_better(cell: str) -> None:
    paper, halves = row(cell), row(f"{cell} halves")
    assert (halves[:4] > paper[:4]).all()
    assert (halves[1:4] > paper[1:4] + 0.1).all()
    assert halves[6] > 2 * paper[6]


def test_halves_show_about_what_a_gru_shows_and_keep_what_it_does_not() -> None:
    halves, mixed, gru, lstm = row("nbrc halves"), row("mixed"), row("gru"), row("lstm")
    assert row("mixed paper")[4] > 2 * gru[4]
    for ours in (halves, mixed):
        assert (ours[:4] > gru[:4] - 0.15).all()
        assert (ours[:4] > lstm[:4]).all()
        assert (ours[4:] > 0.4).all()
        assert (gru[4:] < 0.25).all()


@pytest.mark.parametrize("start", STARTS)
def test_the_committed_numbers_are_those_measured(start: str) -> None:
    [committed] = [row for row in json.loads(RESULT.read_text("utf-8"))["measured"] if row["start"] == start]
    np.testing.assert_allclose(row(start), [committed[column] for column in COLUMNS], atol=0.05)
