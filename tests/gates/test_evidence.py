"""Evidence is measured through the sessions that serve, on rows as a file holds them."""

import json

import numpy as np
import pytest
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from gyrostat_runtime.session import Predictions

from gyrostat.errors import JobError
from gyrostat.gates.evidence import evaluate
from gyrostat.gates.settings import ChampionGateSettings, GateSettings

RNG = np.random.default_rng(0)
N = 240


class Line:
    """A session that answers `slope * x`."""

    def __init__(self, slope, *, nullable=False):
        self.slope = slope
        self.schema = Schema(
            (Column("x", "number", nullable), Column("note", "category", True, ("a",))),
            (Feature("x", "x"),),
            Output("regression", "y"),
        )

    def predict(self, rows: Rows) -> Predictions:
        scores = self.slope * np.nan_to_num(rows.num[:, 0])
        return Predictions(scores.tolist(), scores)


class Sure:
    """A session that answers one class with one probability."""

    def __init__(self, classes, answered, p=0.8, kind="category", positive=""):
        self.schema = Schema(
            (Column("x", "number"),),
            (Feature("x", "x"),),
            Output("multiclass", "y", classes, kind, positive),
        )
        self.answered, self.p = answered, p

    def predict(self, rows: Rows) -> Predictions:
        classes = self.schema.output.classes
        scores = np.full((rows.n, len(classes)), (1 - self.p) / (len(classes) - 1))
        scores[:, classes.index(self.answered)] = self.p
        value = int(self.answered) if self.schema.output.class_kind == "integer" else self.answered
        return Predictions([value] * rows.n, scores)


X = RNG.normal(size=N)
Y = 2 * X + RNG.normal(0, 0.5, N)
HELDOUT = {"x": X, "note": ["a"] * N, "y": Y}
SETTINGS = GateSettings(champion=ChampionGateSettings("rmse", 0.05), min_newer_rows=100)


def measured(candidate, champion=None, **more):
    arguments = {
        "heldout": HELDOUT,
        "truth": Y,
        "train_truth": np.array([1.0, 3.0]),
        "settings": SETTINGS,
    }
    return evaluate(
        candidate, champion, size_bytes=10, champion_bundle="old", **{**arguments, **more}
    )


def test_evidence_holds_every_metric_with_its_interval_and_is_strict_json():
    found = measured(Line(2.0))
    rmse = found["metrics"]["rmse"]
    assert rmse["value"] == pytest.approx(np.sqrt(np.mean((2 * X - Y) ** 2)))
    assert rmse["lower"] < rmse["value"] < rmse["upper"]
    assert rmse["n"] == found["n_heldout"] == N
    assert found["champion"] is None
    assert 0 < found["latency_p99"] < 1
    json.dumps(found, allow_nan=False)


def test_the_trivial_model_answers_the_mean_of_training():
    found = measured(Line(2.0))["trivial"]
    assert found["value"] == pytest.approx(np.sqrt(np.mean((2.0 - Y) ** 2)))
    assert found["upper"] < 0


def test_a_difference_above_zero_means_that_the_candidate_is_worse():
    found = measured(Line(1.0), Line(2.0))["champion"]
    assert found["difference"] > 0
    assert found["lower"] > 0
    assert (found["bundle"], found["rows"], found["n"]) == ("old", "all", N)


@pytest.mark.parametrize(("n_newer", "rows", "n"), [(120, "newer", 120), (99, "all", N)])
def test_newer_rows_alone_compare_where_there_are_enough(n_newer, rows, n):
    seen_at = np.where(np.arange(N) < n_newer, 20.0, 10.0)
    found = measured(Line(2.0), Line(1.0), seen_at=seen_at, champion_made_at=15.0)["champion"]
    assert (found["rows"], found["n"]) == (rows, n)


def test_the_champion_is_compared_on_no_row_that_it_was_trained_on():
    is_unseen = np.arange(N) < 150
    found = measured(Line(2.0), Line(1.0), is_unseen=is_unseen)
    assert found["champion"]["n"] == 150
    assert found["metrics"]["rmse"]["n"] == N


def test_a_row_that_the_schema_refuses_is_left_out_and_counted():
    heldout = {**HELDOUT, "x": [None, *X[1:]]}
    found = measured(Line(2.0), Line(2.0, nullable=True), heldout=heldout)
    assert found["n_refused"] == 1
    assert found["metrics"]["rmse"]["n"] == found["champion"]["n"] == N - 1
    assert found["champion"]["difference"] == 0


def test_no_row_that_can_be_answered_is_an_error_that_says_so():
    with pytest.raises(JobError, match="answers none of the 2 held-out rows"):
        measured(Line(2.0), heldout={"x": [None, None], "note": ["a", "a"]}, truth=np.zeros(2))


def test_a_metric_of_another_task_is_named_with_those_there_are():
    settings = GateSettings(champion=ChampionGateSettings("accuracy"))
    with pytest.raises(JobError, match="it has rmse, mae, r2"):
        measured(Line(2.0), settings=settings)


def classes(candidate, champion=None, truth=(), train_truth=()):
    return evaluate(
        candidate,
        champion,
        heldout={"x": np.zeros(len(truth))},
        truth=np.array(truth),
        train_truth=np.array(train_truth),
        settings=GateSettings(champion=ChampionGateSettings("accuracy", 0.05)),
        size_bytes=1,
    )


def test_models_with_other_classes_are_compared_by_name():
    truth = ["b"] * 60 + ["a"] * 40
    found = classes(Sure(("a", "b"), "b"), Sure(("b", "c", "a"), "a"), truth, ["a", "b", "b"])
    assert found["metrics"]["accuracy"]["value"] == 0.6
    assert found["champion"]["value"] == 0.4
    assert found["champion"]["difference"] == pytest.approx(-0.2)
    assert found["trivial"]["value"] == 0.6
    expected = -(0.6 * np.log(0.8) + 0.4 * np.log(0.2))
    assert found["metrics"]["log_loss"]["value"] == pytest.approx(expected)


def test_a_class_that_no_model_knows_counts_as_wrong():
    found = classes(Sure(("a", "b"), "b"), None, ["b", "b", "new"], ["a", "b", "b"])
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)


def test_integer_classes_are_the_same_in_file_python_and_json():
    found = classes(Sure(("3", "5", "10"), "5", kind="integer"), None, [5, 5, 10], [5, 10, 5])
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)


def test_categories_are_compared_as_they_are_written():
    found = classes(Sure(("01", "1"), "1"), None, ["1", "01"], ["1", "1", "01"])
    assert found["metrics"]["accuracy"]["value"] == 0.5
