"""How far two samples are from one another, from counts in the same bins, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, sqrt

import numpy as np


def ks_distance(reference: Sequence[float], current: Sequence[float]) -> float:
    """The largest difference of the two cumulative distributions, in [0, 1], at the edges of the shared bins.

    Binning can only hide distance, never invent it. An empty sample has distance 0.

    Example:
        >>> ks_distance([5, 5, 0], [0, 5, 5])
        0.5
    """
    first, second = _shares(reference), _shares(current)
    if first is None or second is None:
        return 0.0
    return float(np.max(np.abs(np.cumsum(first) - np.cumsum(second))))


def total_variation(reference: Sequence[float], current: Sequence[float]) -> float:
    """Half the summed difference of shares, in [0, 1]: the share of rows that would have to change category.

    Example:
        >>> total_variation([8, 2], [5, 5])
        0.3
    """
    first, second = _shares(reference), _shares(current)
    if first is None or second is None:
        return 0.0
    return round(float(np.sum(np.abs(first - second))) / 2, 15)


def ks_error(n_samples: float, alpha: float) -> float:
    """How far an empirical distribution may be from its own, except with probability `alpha`.

    Source:
        Dvoretzky-Kiefer-Wolfowitz (1956) with Massart's constant (1990).
    """
    return sqrt(log(2 / alpha) / (2 * n_samples)) if n_samples > 0 else inf


def total_variation_error(n_samples: float, n_categories: int, alpha: float) -> float:
    """The same for shares of categories: the largest mean error there can be, and McDiarmid's bound above it."""
    if n_samples <= 0:
        return inf
    mean = sqrt(max(0, n_categories - 1) / n_samples) / 2
    return mean + sqrt(log(1 / alpha) / (2 * n_samples))


def distance_with_bound(
    reference: Sequence[float], current: Sequence[float], *, alpha: float, is_ordered: bool
) -> tuple[float, float]:
    """A distance and its lower confidence bound: the true one is smaller with probability at most `alpha`.

    By the triangle inequality the sampling errors of both samples add up, so the bound holds for every pair of
    distributions and every pair of sizes, not only where nothing moved.

    Args:
        alpha: for one look; peeking adds up (see `monitoring.drift` for how looks are paid for).
        is_ordered: bins have an order (Kolmogorov-Smirnov), else they are categories (total variation).

    Returns:
        `(distance, lower)`, both in [0, 1].
    """
    n_reference, n_current = float(np.sum(reference)), float(np.sum(current))
    if is_ordered:
        distance = ks_distance(reference, current)
        error = ks_error(n_reference, alpha / 2) + ks_error(n_current, alpha / 2)
    else:
        distance = total_variation(reference, current)
        n_categories = len(reference)
        error = total_variation_error(n_reference, n_categories, alpha / 2)
        error += total_variation_error(n_current, n_categories, alpha / 2)
    return distance, max(0.0, distance - error)


def _shares(counts: Sequence[float]) -> np.ndarray | None:
    values = np.asarray(counts, dtype=float)
    total = values.sum()
    return values / total if total > 0 else None
