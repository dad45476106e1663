"""Intervals by resampling rows: for any metric that is a function of means over rows.

Source:
    Efron (1979), The Annals of Statistics 7(1), 1-26; percentile intervals. Paired: both models are asked on the same
    resample, so what is hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gyrostat.gates.metrics import Answers, Metric
from gyrostat.stats.intervals import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_RESAMPLES = 2000
_CELLS = 4_000_000
"""Row counts held at once: 32 MB."""


def metric_interval(
    metric: Metric, answers: Answers, *, confidence: float, seed: int
) -> tuple[float, float] | None:
    """Bound a metric, two-sided; None where most resamples do not define it, or there are fewer than two rows.

    Args:
        confidence: Such as 0.95: 2.5 % of resamples lie below, 2.5 % above.
    """
    rows = metric.rows(answers)
    bounds = percentiles(resampled(metric, [rows], seed=seed)[0], confidence)
    if bounds is None or metric.name != "accuracy":
        return bounds
    # Where every row is right, every resample is too, and the bootstrap would be sure of what 20 rows cannot show.
    lower, upper = wilson_interval(int(rows.sum()), len(rows), alpha=1 - confidence)
    return min(bounds[0], lower), max(bounds[1], upper)


def difference_interval(
    metric: Metric, one: Answers, other: Answers, *, confidence: float, seed: int
) -> tuple[float, float] | None:
    """Bound how much worse `one` is than `other` on the same rows, in the metric's units (above 0: worse)."""
    mine, theirs = resampled(metric, [metric.rows(one), metric.rows(other)], seed=seed)
    return percentiles(metric.harm(mine) - metric.harm(theirs), confidence)


def resampled(metric: Metric, rows: list[NDArray[Any]], *, seed: int) -> list[NDArray[Any]]:
    """The metric on `N_RESAMPLES` resamples, the same for each matrix of per-row values."""
    import numpy as np

    found: list[list[NDArray[Any]]] = [[] for _ in rows]
    for weights in _weights(len(rows[0]), seed):
        for values, matrix in zip(found, rows, strict=True):
            values.append(metric.reduce(weights @ matrix))
    return [np.concatenate(values) if values else np.empty(0) for values in found]


def percentiles(values: NDArray[Any], confidence: float) -> tuple[float, float] | None:
    """The middle `confidence` of the resamples."""
    import numpy as np

    finite = values[np.isfinite(values)]
    if len(finite) < 0.5 * N_RESAMPLES:
        return None
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(finite, [tail, 1 - tail])
    return float(lower), float(upper)


def _weights(n: int, seed: int) -> Iterator[NDArray[Any]]:
    """Blocks of (resamples, n) weights: how often each row was drawn, divided by n."""
    import numpy as np

    if n < 2:
        return
    rng = np.random.default_rng(seed)
    size, left = max(1, _CELLS // n), N_RESAMPLES
    while left:
        block = min(size, left)
        drawn = rng.integers(0, n, (block, n)) + n * np.arange(block)[:, None]
        yield np.bincount(drawn.ravel(), minlength=block * n).reshape(block, n) / n
        left -= block
