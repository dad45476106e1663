"""What "good" can be measured by. Each metric reduces per-row values, so that a bootstrap over rows is one product.

A metric is a function of weighted column means of a matrix of per-row values: with all weights 1 it is the metric, with
the counts of a resample it is the metric of that resample, for thousands of resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SMALLEST_P = 1e-15
"""Probabilities are clipped here before their logarithm, so that one sure mistake is dear but finite."""


@dataclass(frozen=True)
class Answers:
    """What a model answered on held-out rows, beside the truth."""

    y: Array
    """Regression: float64. Classes: index of the true class in the schema's order; -1 where training never saw it."""
    predicted: Array
    """Regression: float64. Classes: index of the answered class."""
    scores: Array | None
    """Classes: (n_samples, n_classes) probabilities."""
    n_classes: int = 0
    positive: int = 1
    """Binary: index of the class that recall, precision and f1 are about."""


@dataclass(frozen=True)
class Metric:
    """One metric: `rows` gives (n_samples, k) values, `reduce` turns (..., k) means of them into the metric."""

    name: str
    is_less_better: bool
    tasks: tuple[str, ...]
    rows: Callable[[Answers], Array]
    reduce: Callable[[Array], Array]

    def value(self, answers: Answers) -> float:
        """The metric on all rows; NaN where these rows do not define it."""
        return float(self.reduce(self.rows(answers).mean(axis=0)))

    def harm(self, value: Any) -> Any:
        """The same in units where more is worse."""
        return value if self.is_less_better else -value


def applicable(task: str) -> list[Metric]:
    """The metrics that a model of this task has, in the order in which they are shown."""
    return [metric for metric in METRICS.values() if task in metric.tasks]


def _np() -> Any:
    import numpy

    return numpy


def _squared_error(a: Answers) -> Array:
    return (a.predicted - a.y)[:, None] ** 2


def _absolute_error(a: Answers) -> Array:
    return _np().abs(a.predicted - a.y)[:, None]


def _r2_rows(a: Answers) -> Array:
    # Centred first: the variance as a difference of means would lose its digits for years or prices.
    y = a.y - a.y.mean()
    return _np().stack([(a.predicted - a.y) ** 2, y, y**2], axis=1)


def _r2(m: Array) -> Array:
    variance = m[..., 2] - m[..., 1] ** 2
    return _ratio(variance - m[..., 0], variance)


def _hits(a: Answers) -> Array:
    return (a.predicted == a.y)[:, None].astype(float)


def _per_class(a: Answers) -> Array:
    """(n, 3c): hit of the class, true class, answered class."""
    np = _np()
    classes = np.arange(a.n_classes)
    true, said = a.y[:, None] == classes, a.predicted[:, None] == classes
    return np.concatenate([true & said, true, said], axis=1).astype(float)


def _recall_of_classes(m: Array) -> tuple[Array, Array]:
    np = _np()
    hits, true, _ = np.split(m, 3, axis=-1)
    return np.divide(hits, true, out=np.zeros_like(hits), where=true > 0), true > 0


def _balanced(m: Array) -> Array:
    # As in scikit-learn: classes that the rows do not hold do not count.
    recall, is_there = _recall_of_classes(m)
    return _ratio(recall.sum(axis=-1), is_there.sum(axis=-1).astype(float))


def _f1_macro(m: Array) -> Array:
    np = _np()
    hits, true, said = np.split(m, 3, axis=-1)
    both = true + said
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    return _ratio(f1.sum(axis=-1), (both > 0).sum(axis=-1).astype(float))


def _of_positive(a: Answers) -> Array:
    """(n, 3): hit, true, answered, of the positive class."""
    true, said = a.y == a.positive, a.predicted == a.positive
    return _np().stack([true & said, true, said], axis=1).astype(float)


def _surprise(a: Answers) -> Array:
    np = _np()
    if a.scores is None:
        raise ValueError("log_loss needs probabilities")
    is_known = a.y >= 0
    p = a.scores[np.arange(len(a.y)), np.where(is_known, a.y, 0)]
    # A class that training never saw has probability 0, so it costs what a sure mistake costs.
    return -np.log(np.clip(np.where(is_known, p, 0.0), SMALLEST_P, 1.0))[:, None]


def _brier_rows(a: Answers) -> Array:
    np = _np()
    if a.scores is None:
        raise ValueError("brier needs probabilities")
    truth = (a.y[:, None] == np.arange(a.n_classes)).astype(float)
    rows = ((a.scores - truth) ** 2).sum(axis=1)
    return (rows / 2 if a.n_classes == 2 else rows)[:, None]


def _first(m: Array) -> Array:
    return m[..., 0]


def _ratio(top: Array, bottom: Array) -> Array:
    np = _np()
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


_REGRESSION, _BINARY, _CLASSES = ("regression",), ("binary",), ("binary", "multiclass")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("rmse", True, _REGRESSION, _squared_error, lambda m: _np().sqrt(m[..., 0])),
        Metric("mae", True, _REGRESSION, _absolute_error, _first),
        Metric("r2", False, _REGRESSION, _r2_rows, _r2),
        Metric("accuracy", False, _CLASSES, _hits, _first),
        Metric("balanced_accuracy", False, _CLASSES, _per_class, _balanced),
        Metric("log_loss", True, _CLASSES, _surprise, _first),
        Metric("brier", True, _CLASSES, _brier_rows, _first),
        Metric("f1_macro", False, _CLASSES, _per_class, _f1_macro),
        Metric(
            "f1",
            False,
            _BINARY,
            _of_positive,
            lambda m: _ratio(2 * m[..., 0], m[..., 1] + m[..., 2]),
        ),
        Metric("precision", False, _BINARY, _of_positive, lambda m: _ratio(m[..., 0], m[..., 2])),
        Metric("recall", False, _BINARY, _of_positive, lambda m: _ratio(m[..., 0], m[..., 1])),
    )
}
"""By name. `f1`, `precision` and `recall` are about the positive class, the others about all."""
