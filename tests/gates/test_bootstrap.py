"""Intervals against SciPy's, and how often they hold."""

import numpy as np
import pytest
from scipy import stats

from gyrostat.gates.bootstrap import difference_interval, metric_interval
from gyrostat.gates.evidence import compare
from gyrostat.gates.judge import judge_champion
from gyrostat.gates.metrics import METRICS, Answers
from gyrostat.gates.settings import ChampionGateSettings, GateSettings
from gyrostat.terms import Answer

RMSE, ACCURACY = METRICS["rmse"], METRICS["accuracy"]


def test_the_interval_of_a_mean_is_scipys():
    rng = np.random.default_rng(1)
    errors = rng.exponential(1, 150)
    a = Answers(np.zeros(150), errors, None)
    lower, upper = metric_interval(METRICS["mae"], a, confidence=0.9, seed=0)
    theirs = stats.bootstrap(
        (errors,), np.mean, confidence_level=0.9, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    # 2,000 resamples know a tail of 5 % to about half a percent of tail, here 0.01.
    assert lower == pytest.approx(theirs.low, abs=0.015)
    assert upper == pytest.approx(theirs.high, abs=0.015)


def test_a_paired_difference_is_narrower_than_its_parts():
    rng = np.random.default_rng(2)
    y, noise = np.zeros(300), rng.normal(0, 1, 300)
    one, other = Answers(y, noise, None), Answers(y, 1.01 * noise, None)
    lower, upper = difference_interval(RMSE, one, other, confidence=0.95, seed=0)
    apart = metric_interval(RMSE, one, confidence=0.95, seed=0)
    assert lower < -0.01 * RMSE.value(one) < upper
    assert upper < 0
    assert upper - lower < 0.05 * (apart[1] - apart[0])


def test_a_difference_above_zero_is_worse_whichever_way_the_metric_runs():
    y = np.ones(100, dtype=int)
    good, bad = Answers(y, y, None, 2), Answers(y, np.repeat([0, 1], 50), None, 2)
    lower, _ = difference_interval(ACCURACY, bad, good, confidence=0.95, seed=0)
    assert lower > 0
    _, upper = difference_interval(
        RMSE, Answers(y, y * 1.1, None), Answers(y, y * 1.2, None), confidence=0.95, seed=0
    )
    assert upper < 0


def test_the_same_seed_gives_the_same_interval():
    a = Answers(np.zeros(50), np.random.default_rng(0).normal(size=50), None)
    once, twice = (metric_interval(RMSE, a, confidence=0.95, seed=7) for _ in range(2))
    assert once == twice


def test_one_row_has_no_interval():
    assert (
        metric_interval(RMSE, Answers(np.zeros(1), np.ones(1), None), confidence=0.95, seed=0)
        is None
    )


def test_many_rows_are_resampled_in_blocks():
    rng = np.random.default_rng(0)
    a = Answers(np.zeros(30_000), rng.normal(size=30_000), None)
    lower, upper = metric_interval(RMSE, a, confidence=0.95, seed=0)
    # The RMSE of n normal errors has the standard error 1 / sqrt(2 n).
    assert upper - lower == pytest.approx(2 * 1.96 / np.sqrt(60_000), rel=0.1)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_a_candidate_worse_by_exactly_the_margin_passes_at_most_one_time_in_twenty(kind):
    """400 pairs; 5 % are 20, and a rate of 5 % gives more than 29 once in 50 such tests."""
    margin, n, n_passed = 0.05, 200, 0
    settings = GateSettings(champion=ChampionGateSettings("rmse", margin))
    for seed in range(400):
        rng = np.random.default_rng(seed)
        y = np.zeros(n)
        base = rng.normal(size=n) if kind == "normal" else rng.standard_t(5, n) / np.sqrt(5 / 3)
        mine = 0.9 * base + np.sqrt(1 - 0.81) * rng.normal(size=n)
        champion, candidate = Answers(y, base, None), Answers(y, (1 + margin) * mine, None)
        found = compare(
            candidate, champion, settings=settings, bundle="b", is_newer=None, seed=seed
        )
        n_passed += judge_champion({"champion": found}, settings).answer is Answer.ACCEPT
    assert n_passed <= 20


def test_a_candidate_that_is_as_good_passes_where_the_rows_can_show_it():
    settings, n_passed = GateSettings(champion=ChampionGateSettings("rmse", 0.1)), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base = rng.normal(size=300)
        mine = 0.95 * base + np.sqrt(1 - 0.95**2) * rng.normal(size=300)
        y = np.zeros(300)
        found = compare(
            Answers(y, mine, None),
            Answers(y, base, None),
            settings=settings,
            bundle="b",
            is_newer=None,
            seed=seed,
        )
        n_passed += judge_champion({"champion": found}, settings).answer is Answer.ACCEPT
    assert n_passed >= 36


def test_twenty_right_answers_do_not_prove_that_all_are():
    y = np.ones(20, dtype=int)
    lower, upper = metric_interval(ACCURACY, Answers(y, y, None, 2), confidence=0.95, seed=0)
    # Wilson (1927) for 20 of 20: 20 / (20 + 1.96 ** 2).
    assert lower == pytest.approx(20 / (20 + stats.norm.ppf(0.975) ** 2))
    assert upper == 1.0
