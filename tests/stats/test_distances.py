"""Distances of binned samples, and that their lower bounds hold as often as promised."""

import doctest

import numpy as np
import pytest

from gyrostat.stats import distances, intervals, sequential
from gyrostat.stats.distances import distance_with_bound, ks_distance, total_variation
from gyrostat.stats.intervals import wilson_interval


def test_the_examples_in_the_docstrings_run():
    found = [doctest.testmod(module) for module in (distances, intervals, sequential)]
    assert [f.failed for f in found] == [0, 0, 0]
    assert sum(f.attempted for f in found) >= 6


def test_ks_from_bins_is_scipys_at_the_bin_edges():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 300), rng.integers(2, 12, 200)
    bins = np.arange(13)
    ours = ks_distance(
        np.histogram(first, bins)[0].tolist(), np.histogram(second, bins)[0].tolist()
    )
    assert ours == pytest.approx(ks_2samp(first, second, method="asymp").statistic)


def test_an_empty_sample_is_no_distance_and_bounds_nothing():
    assert ks_distance([1, 2], [0, 0]) == total_variation([0, 0], [1, 2]) == 0.0
    assert distance_with_bound([1, 2], [0, 0], alpha=0.05, is_ordered=True) == (0.0, 0.0)


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_the_lower_bound_is_above_the_true_distance_at_most_as_often_as_promised(is_ordered, shift):
    rng = np.random.default_rng(6)
    first = np.full(8, 1 / 8)
    second = first + shift * np.array([-0.125] * 4 + [0.125] * 4) * 2
    true = (
        ks_distance(first.tolist(), second.tolist())
        if is_ordered
        else total_variation(first.tolist(), second.tolist())
    )
    n_wrong = 0
    for _ in range(2000):
        reference, current = rng.multinomial(400, first), rng.multinomial(150, second)
        _, lower = distance_with_bound(
            reference.tolist(), current.tolist(), alpha=0.2, is_ordered=is_ordered
        )
        n_wrong += lower > true
    assert n_wrong / 2000 <= 0.2


def test_many_categories_without_drift_are_no_drift_and_a_large_shift_is_one():
    rng = np.random.default_rng(7)
    shares = np.full(100, 0.01)
    reference = rng.multinomial(10_000, shares).tolist()
    moved = np.concatenate([np.full(50, 0.018), np.full(50, 0.002)])
    same = distance_with_bound(
        reference, rng.multinomial(1000, shares).tolist(), alpha=1e-6, is_ordered=False
    )
    other = distance_with_bound(
        reference, rng.multinomial(5000, moved).tolist(), alpha=1e-6, is_ordered=False
    )
    assert same[0] > 0.1  # the bare distance would have cried drift
    assert same[1] == 0.0
    assert other[1] >= 0.15


def test_wilson_is_scipys():
    from scipy.stats import binomtest

    for k, n in ((0, 20), (3, 17), (40, 40)):
        wanted = binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert wilson_interval(k, n) == pytest.approx((wanted.low, wanted.high))
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(3, 2)
