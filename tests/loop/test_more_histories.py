"""The other half of the hostile histories, in a file of its own so that two test processes share the work."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.loop.simulation.explore import assert_nothing_is_wrong

QUICK, SLOW, N_PARTS = range(500, 1000), range(3000, 5000), 4


@pytest.mark.parametrize("part", range(N_PARTS))
def test_nothing_is_lost_done_twice_or_left_undone(part: int) -> None:
    assert_nothing_is_wrong(QUICK[part::N_PARTS])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(N_PARTS))
def test_nor_in_many_more_histories(part: int) -> None:
    assert_nothing_is_wrong(SLOW[part::N_PARTS])
