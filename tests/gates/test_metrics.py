"""Metrics against scikit-learn's, on all rows and on resamples."""

import numpy as np
import pytest
from sklearn import metrics as sk

from gyrostat.gates.bootstrap import resampled
from gyrostat.gates.metrics import METRICS, Answers, applicable

RNG = np.random.default_rng(0)


def regression(n=200):
    y = RNG.normal(1e6, 3, n)
    return Answers(y, y + RNG.normal(0, 1, n), None)


def classes(n=200, c=3):
    y = RNG.integers(0, c, n)
    scores = RNG.dirichlet(np.ones(c), n)
    return Answers(y, scores.argmax(axis=1), scores, c, positive=1)


REGRESSION = {
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "r2": sk.r2_score,
}
CLASSES = {
    "accuracy": lambda a: sk.accuracy_score(a.y, a.predicted),
    "balanced_accuracy": lambda a: sk.balanced_accuracy_score(a.y, a.predicted),
    "log_loss": lambda a: sk.log_loss(a.y, a.scores, labels=range(a.n_classes)),
    "f1_macro": lambda a: sk.f1_score(a.y, a.predicted, average="macro"),
}
BINARY = {
    "f1": lambda a: sk.f1_score(a.y, a.predicted),
    "precision": lambda a: sk.precision_score(a.y, a.predicted),
    "recall": lambda a: sk.recall_score(a.y, a.predicted),
    "brier": lambda a: sk.brier_score_loss(a.y, a.scores[:, 1]),
}


@pytest.mark.parametrize("name", REGRESSION)
def test_regression_metrics_are_scikit_learns(name):
    a = regression()
    assert METRICS[name].value(a) == pytest.approx(REGRESSION[name](a.y, a.predicted), rel=1e-9)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_class_metrics_are_scikit_learns(name, n_classes):
    a = classes(c=n_classes)
    assert METRICS[name].value(a) == pytest.approx(CLASSES[name](a), rel=1e-12)


@pytest.mark.parametrize("name", BINARY)
def test_binary_metrics_are_scikit_learns(name):
    a = classes(c=2)
    assert METRICS[name].value(a) == pytest.approx(BINARY[name](a), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_resample_has_the_metric_that_its_rows_have(name):
    metric = METRICS[name]
    a = regression(50) if "regression" in metric.tasks else classes(50, 2)
    found = resampled(metric, [metric.rows(a)], seed=3)[0]
    drawn = np.random.default_rng(3).integers(0, 50, (2000, 50))[17]
    scores = None if a.scores is None else a.scores[drawn]
    again = Answers(a.y[drawn], a.predicted[drawn], scores, a.n_classes, a.positive)
    assert found[17] == pytest.approx(metric.value(again), rel=1e-9)


def test_a_class_that_training_never_saw_costs_what_a_sure_mistake_costs():
    a = Answers(np.array([-1, 0]), np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]), 2)
    assert METRICS["log_loss"].value(a) == pytest.approx(-np.log(1e-15) / 2)
    assert METRICS["accuracy"].value(a) == 0.5


def test_what_the_rows_do_not_define_is_no_number():
    never = Answers(np.array([0, 0]), np.array([0, 0]), np.array([[1.0, 0.0]] * 2), 2)
    assert np.isnan(METRICS["precision"].value(never))
    constant = Answers(np.array([2.0, 2.0]), np.array([2.0, 3.0]), None)
    assert np.isnan(METRICS["r2"].value(constant))


def test_each_task_has_its_metrics():
    assert [m.name for m in applicable("regression")] == ["rmse", "mae", "r2"]
    assert "f1" in [m.name for m in applicable("binary")]
    assert "f1" not in [m.name for m in applicable("multiclass")]
