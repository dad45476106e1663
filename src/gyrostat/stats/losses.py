"""Metrics that can be followed label by label: each is a function of the mean of a non-negative loss."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

from gyrostat.stats.sequential import Moments
from gyrostat.terms import Limit

LOSS_OF = {
    "rmse": "squared",
    "mae": "absolute",
    "accuracy": "miss",
    "brier": "brier",
    "log_loss": "surprise",
}
"""Metric -> loss. Others (f1, recall, r2, ...) are judged by the gates, on held-out rows, not label by label."""


def mean_loss_limit(limit: Limit) -> tuple[str, float] | None:
    """The loss that a limit on a metric is about, and the largest mean it may have; None: it is not followed live.

    Example:
        >>> mean_loss_limit(Limit("accuracy", min=0.75))
        ('miss', 0.25)
    """
    loss = LOSS_OF.get(limit.metric)
    if loss is None or (limit.min is not None) != (limit.metric == "accuracy"):
        return None
    if limit.metric == "accuracy":
        return loss, 1.0 - limit.bound
    return loss, limit.bound**2 if limit.metric == "rmse" else limit.bound


def metric_of(metric: str, mean_loss: float) -> float:
    """The metric that belongs to a mean loss."""
    mean_loss = max(0.0, mean_loss)
    if metric == "rmse":
        return sqrt(mean_loss)
    return max(0.0, 1.0 - mean_loss) if metric == "accuracy" else mean_loss


def loss_of_line(line: Mapping[str, Any], loss: str) -> Moments | None:
    """Count, sum and sum of squares of a loss in an observation line about labels; None where it has none."""
    n = line["n_labels"]
    if loss == line.get("loss"):
        return Moments(n, line["loss_sum"], line["loss_sq"])
    sums = line.get("more", {}).get(loss)
    return Moments(n, *sums) if sums else None
