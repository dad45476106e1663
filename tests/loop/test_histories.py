"""Hostile histories of the real functions of the three lives, told from seeds. test_more_histories.py has the other half.

A failing seed is shrunk, and told again by: python -m tests.loop.simulation --seed K [--only NAME,NAME]
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.loop.simulation.explore import assert_nothing_is_wrong

QUICK, SLOW, N_PARTS = range(500), range(1000, 3000), 4


@pytest.mark.parametrize("part", range(N_PARTS))
def test_nothing_is_lost_done_twice_or_left_undone(part: int) -> None:
    assert_nothing_is_wrong(QUICK[part::N_PARTS])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(N_PARTS))
def test_nor_in_many_more_histories(part: int) -> None:
    assert_nothing_is_wrong(SLOW[part::N_PARTS])
