"""Two files of answers to one table: what is another answer, what is a worse one, and how sure that is."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from gyrostat_runtime.schema import Output

from gyrostat.loop.paired import MIN_LABELS, measure
from gyrostat.rollout import replay
from gyrostat.rollout.settings import RolloutSettings
from gyrostat.terms import Answer, Limit, Margin

PRICE = Output("regression", "price")
COLOUR = Output("multiclass", "colour", classes=("red", "white"))
RAILS = {"error_rate": Margin.parse("+1pp"), "rmse": Margin.parse("x1.05"), "accuracy": Margin.parse("+1pp")}  # fmt: skip


@pytest.fixture
def compare(tmp_path: Path):
    """The evidence of two columns of answers; None is a row without one."""

    def found(one, other, truth=None, *, output=PRICE, alpha=0.05, limits=()):
        for name, answers in (("one", one), ("other", other)):
            frame = pl.DataFrame({
                "row": range(1, len(answers) + 1), "prediction": answers,
                "error": [None if a is not None else "why" for a in answers],
                **({"truth": truth} if truth is not None else {}),
            }, strict=False)  # fmt: skip
            frame.with_columns(pl.col("error").cast(pl.String)).write_parquet(tmp_path / name)
        return measure(
            tmp_path / "one", tmp_path / "other", target="truth" if truth is not None else "", output=output,
            input="in.csv", guardrails=RAILS, limits=limits, alpha=alpha,
        )  # fmt: skip

    return found


def test_the_same_answers_are_no_change(compare):
    found = compare([1.0, 2.0] * 100, [1.0, 2.0] * 100)
    assert (found["n"], found["n_labels"], found["changed"]["value"]) == (200, 0, 0.0)
    assert found["moved"]["value"] == 0.0
    assert set(found["guardrails"]) == {"error_rate"}


def test_a_row_that_only_the_champion_answers_is_an_error_and_the_opposite_makes_up_for_it(compare):
    one, other = [1.0] * 90 + [None] * 10, [1.0] * 75 + [None] * 15 + [1.0] * 5 + [None] * 5
    errors = compare(one, other)["guardrails"]["error_rate"]
    assert errors["value"] == pytest.approx(0.15 - 0.05)
    assert errors["lower"] < errors["value"] < errors["upper"]
    assert errors["base"] == pytest.approx(0.1)


def test_labels_make_quality_count_and_too_few_do_not(compare):
    truth = list(np.linspace(0, 1, 100))
    one, other = [t + 0.1 for t in truth], [t + 0.3 for t in truth]
    rmse = compare(one, other, truth)["guardrails"]["rmse"]
    assert rmse["value"] == pytest.approx(0.2)
    assert rmse["base"] == pytest.approx(0.1)
    few = [t if i < MIN_LABELS - 1 else None for i, t in enumerate(truth)]
    found = compare(one, other, few)
    assert (found["n_labels"], "rmse" in found["guardrails"]) == (MIN_LABELS - 1, False)


def test_labels_as_text_are_numbers_where_they_are_and_none_elsewhere(compare):
    found = compare([1.0] * 60, [1.0] * 60, [*["1.5"] * 30, *["later"] * 20, *["nan"] * 10])
    assert found["n_labels"] == 30


def test_classes_are_told_by_their_spelling_also_one_that_training_never_saw(compare):
    truth = ["red"] * 40 + ["white"] * 40 + ["rose"] * 20
    one, other = ["red"] * 50 + ["white"] * 50, ["white"] * 100
    found = compare(one, other, truth, output=COLOUR)
    accuracy = found["guardrails"]["accuracy"]
    assert accuracy["value"] == pytest.approx(0.3)
    assert accuracy["base"] == pytest.approx(0.3)  # what the champion gets wrong
    assert found["changed"]["value"] == 0.5
    assert "moved" not in found


def test_an_absolute_limit_is_held_on_the_candidate_s_own_answers(compare):
    truth = [0.0] * 50
    found = compare([0.0] * 50, [1.0] * 50, truth, limits=(Limit("rmse", max=0.5), Limit("latency_p99", max=1)))  # fmt: skip
    assert found["limits"]["rmse"]["value"] == 1.0
    assert set(found["limits"]) == {"rmse"}
    assert replay.judge(found, RolloutSettings(guardrails=RAILS)).verdict.answer is Answer.REJECT


def test_a_candidate_that_is_worse_by_the_margin_passes_at_most_as_often_as_stated(compare):
    """As a rate: truly at the margin a fifth of the tables may accept it; intervals have two sides, so about half as many do."""
    dice, passed, n_tables = np.random.default_rng(5), 0, 80
    terms = RolloutSettings(guardrails={"rmse": Margin.parse("x1.05")})
    for _ in range(n_tables):
        truth = dice.normal(size=300)
        one, other = truth + dice.normal(size=300), truth + 1.05 * dice.normal(size=300)
        found = compare(list(one), list(other), list(truth), alpha=0.2)
        found["guardrails"].pop("error_rate")
        passed += replay.judge(found, terms).verdict.answer is Answer.ACCEPT
    assert 0 < passed < 0.2 * n_tables
