"""Confidence intervals for a fixed sample."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson_interval(n_success: int, n_samples: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """Bound a success rate from counts; sound even at 0 and `n_samples` successes.

    Args:
        alpha: two-sided error rate in (0, 1). Fixed sample only: peeking voids it; see `stats.sequential`.

    Returns:
        `(lower, upper)`, both in [0, 1].

    Raises:
        ValueError: `n_samples` is not positive, or `n_success` is outside [0, `n_samples`].

    Example:
        >>> lower, upper = wilson_interval(8, 10)
        >>> f"{lower:.3f} {upper:.3f}"
        '0.490 0.943'

    Source:
        Wilson (1927), JASA 22(158), 209-212.
    """
    if n_samples <= 0 or not 0 <= n_success <= n_samples:
        raise ValueError(f"{n_success} of {n_samples} is no share of a sample")
    z = NormalDist().inv_cdf(1 - alpha / 2)
    rate = n_success / n_samples
    shrunk = 1 + z * z / n_samples
    centre = (rate + z * z / (2 * n_samples)) / shrunk
    half = z / shrunk * sqrt(rate * (1 - rate) / n_samples + z * z / (4 * n_samples**2))
    return max(0.0, centre - half), min(1.0, centre + half)
