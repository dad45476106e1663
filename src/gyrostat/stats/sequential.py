"""Tests that may be looked at as often as one likes: a decision at `log_e >= ln(1/alpha)` errs with at most `alpha`.

An *e-value* is a non-negative number whose mean is at most 1 if the hypothesis is true; an e-process is one at every
time at once. Natural logarithms throughout. States are small and JSON-able: `as_json` and `from_json` resume them.

Source:
    Turner, Ly, Grünwald (2024), "Generic E-variables for exact sequential k-sample tests"; Waudby-Smith, Arbour,
    Sinha, Kennedy, Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence sequences";
    Shin, Ramdas, Rinaldo (2024), "E-detectors".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from math import exp, expm1, inf, log, log1p, sqrt
from typing import Any, Literal

import numpy as np

FACTORS = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0)
"""By how much a rate may have grown: the alternatives that are averaged over."""
ADDED = (0.005, 0.02, 0.1, 0.3, 0.6)
"""By how much besides, so that a rate of nothing works too."""
LOWEST = 1e-6
FLOOR = -50.0
"""Evidence is not reported below this: JSON has no minus infinity."""
PAIRS_BURN_IN = 50
BURN_IN = 20
"""Samples in each arm before a mean is judged: asymptotics need them."""


# ---------------------------------------------------------------- rates of two arms


@lru_cache(maxsize=4096)
def _weights(
    n0: int, n1: int, base: float, slope: float, offset: float, direction: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What each failure and each success of either arm adds to the log e-value, for each alternative."""
    p0, p1 = _alternatives(base, slope, offset, direction)
    q0 = _projection(n0, n1, p0, p1, slope, offset)
    q1 = offset + slope * q0
    return (
        np.log(p0 / q0),
        np.log1p(-p0) - np.log1p(-q0),
        np.log(p1 / q1),
        np.log1p(-p1) - np.log1p(-q1),
    )


def _alternatives(
    base: float, slope: float, offset: float, direction: str
) -> tuple[np.ndarray, np.ndarray]:
    if direction == "harm":
        on_line = min(offset + slope * base, 1 - 2 * LOWEST)
        further = np.array([base * (f - 1) for f in FACTORS] + list(ADDED))
        p1 = np.minimum(on_line + further, on_line + 0.98 * (1 - on_line))
        return np.full_like(p1, base), p1
    pairs = [(base * a, base * a * b) for a in (0.3, 1.0, 1.5) for b in (0.6, 1.0)]
    p0, p1 = (np.minimum(np.array(side), 0.98) for side in zip(*pairs, strict=True))
    # An alternative must be on the better side of the line, else it would argue for the hypothesis.
    return p0, np.minimum(p1, 0.999 * np.minimum(1.0, offset + slope * p0))


def _projection(
    n0: int, n1: int, p0: np.ndarray, p1: np.ndarray, slope: float, offset: float
) -> np.ndarray:
    """The point of the line q1 = offset + slope q0 that is nearest to (p0, p1) in n-weighted KL divergence.

    The divergence is convex along the line and infinite at its ends, so its slope has one root: bisection.
    """
    low = np.zeros_like(p0)
    high = np.full_like(p0, min(1.0, (1.0 - offset) / slope))
    for _ in range(44):
        q0 = (low + high) / 2
        q1 = offset + slope * q0
        gradient = n0 * (q0 - p0) / (q0 * (1 - q0)) + slope * n1 * (q1 - p1) / (q1 * (1 - q1))
        low, high = np.where(gradient < 0, q0, low), np.where(gradient < 0, high, q0)
    return (low + high) / 2


def batch_log_e(
    n0: int,
    k0: int,
    n1: int,
    k1: int,
    *,
    base: float,
    slope: float = 1.0,
    offset: float = 0.0,
    direction: str = "harm",
) -> np.ndarray:
    """Exact log e-values of one batch of two arms, one for each alternative.

    For `direction="harm"` the hypothesis is p1 <= offset + slope p0 (arm 1 is not worse by more than the margin), for
    "proof" it is p1 >= offset + slope p0 (worse by the margin or more). The mean of each e-value is at most 1 for
    *every* pair of rates in the hypothesis: log E = sum n_j log(1 + s_j) <= N log(1 + sum n_j s_j / N), and sum n_j s_j
    <= 0 because (q0, q1) is the projection of the alternative on a half-plane. So rates and shares may move freely
    between batches.

    Args:
        n0, k0: size and failures of arm 0 (the champion); `n1`, `k1` of arm 1.
        base: a guess of p0 made *before* the batch was seen; a bad one costs power, never validity.
    """
    if n0 == 0 or n1 == 0:
        return np.zeros(len(FACTORS) + len(ADDED) if direction == "harm" else 6)
    fail0, good0, fail1, good1 = _weights(n0, n1, base, slope, offset, direction)
    return k0 * fail0 + (n0 - k0) * good0 + k1 * fail1 + (n1 - k1) * good1


@dataclass(frozen=True, slots=True)
class RatesTest:
    """The exact 2x2 batch e-process: is arm 1 worse (harm), or proven not to be worse by the margin (proof)?

    For harm the process also averages over the time at which the harm began (weight 1/(j(j+1)) for batch j), so that a
    long good past cannot hide it. A proof counts all batches from the first.
    """

    direction: Literal["harm", "proof"]
    slope: float = 1.0
    offset: float = 0.0
    n_batches: int = 0
    logs: tuple[float, ...] = ()
    base_n: float = 0.0
    base_k: float = 0.0

    def add(self, n0: int, k0: int, n1: int, k1: int) -> RatesTest:
        """The state after one more batch of counts; a batch in which one arm is empty says nothing."""
        if n0 <= 0 or n1 <= 0 or self.offset >= 1:
            return self
        found = batch_log_e(
            n0,
            k0,
            n1,
            k1,
            base=self.base,
            slope=self.slope,
            offset=self.offset,
            direction=self.direction,
        )
        n_batches = self.n_batches + 1
        logs = _onward(self.logs, found, n_batches, is_restarting=self.direction == "harm")
        # A base rate that moves is followed: of what is older than some thousand requests, half is forgotten.
        keep = 0.5 if self.base_n > 5000 else 1.0
        return replace(
            self,
            n_batches=n_batches,
            logs=logs,
            base_n=keep * self.base_n + n0,
            base_k=keep * self.base_k + k0,
        )

    @property
    def base(self) -> float:
        """The guess of p0 for the next batch, to two digits."""
        guess = (self.base_k + 0.1) / (self.base_n + 10.0)
        return min(0.98, max(LOWEST, float(f"{guess:.1e}")))

    @property
    def log_e(self) -> float:
        """Evidence against the hypothesis so far."""
        return _total(self.logs, self.n_batches, is_restarting=self.direction == "harm")

    def as_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RatesTest:
        """Read what `as_json` wrote."""
        return cls(**{**value, "logs": tuple(value["logs"])})


def requests_for_proof(
    share: float, base: float, *, slope: float, offset: float, alpha: float
) -> float:
    """About how many requests of both arms together a proof takes when the arms are alike, at this share of arm 1.

    Returns:
        Infinity where the margin leaves nothing to prove.
    """
    n1 = max(1, round(1000 * share))
    weights = _weights(
        max(1, 1000 - n1), n1, float(f"{max(base, LOWEST):.1e}"), slope, offset, "proof"
    )
    fail0, good0, fail1, good1 = weights
    per_thousand = (1000 - n1) * (base * fail0 + (1 - base) * good0) + n1 * (
        base * fail1 + (1 - base) * good1
    )
    best = float(per_thousand.max())
    return inf if best <= 0 else 1000 * log(len(per_thousand) / alpha) / best


# ---------------------------------------------------------------- a mean against a fixed limit


@dataclass(frozen=True, slots=True)
class LimitTest:
    """Is the mean of non-negative numbers (a rate, a loss) above a fixed limit? Exact, without other assumptions.

    Bets 1 - b + b x / limit for a grid of b: of mean at most 1 whenever the mean of x is at most the limit. Averages
    over b and over the time at which it was broken (as `RatesTest` does), so a long good past does not delay an alarm.
    """

    limit: float
    n_batches: int = 0
    logs: tuple[float, ...] = ()

    def add_counts(self, n: int, k: int) -> LimitTest:
        """`k` of `n` were 1, the others 0."""
        if n <= 0:
            return self
        bets = limit_bets(self.limit)
        found = k * np.log1p(bets * (1 / self._limit - 1)) + (n - k) * np.log1p(-bets)
        return self.add_bets(found)

    def add(self, values: np.ndarray) -> LimitTest:
        """Non-negative values, each once."""
        return self if len(values) == 0 else self.add_bets(bet_logs(self.limit, values))

    def add_bets(self, found: Any) -> LimitTest:
        """What `bet_logs` gave for a batch."""
        n_batches = self.n_batches + 1
        logs = _onward(self.logs, np.asarray(found, dtype=float), n_batches, is_restarting=True)
        return replace(self, n_batches=n_batches, logs=logs)

    @property
    def _limit(self) -> float:
        return max(self.limit, LOWEST)

    @property
    def log_e(self) -> float:
        """Evidence that the limit is broken."""
        return _total(self.logs, self.n_batches, is_restarting=True)

    def as_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LimitTest:
        """Read what `as_json` wrote."""
        return cls(**{**value, "logs": tuple(value["logs"])})


@lru_cache(maxsize=64)
def limit_bets(limit: float) -> np.ndarray:
    """The shares that are bet: those that are best when the mean is 1.1 to 6 times the limit, and fixed ones."""
    limit = max(limit, LOWEST)
    scaled = [(f - 1) * limit / (1 - limit) for f in FACTORS] if limit < 0.15 else []
    return np.array([*scaled, 0.01, 0.03, 0.1, 0.3, 0.6])


def bet_logs(limit: float, values: np.ndarray) -> np.ndarray:
    """The sum of log(1 - b + b x / limit) over non-negative `values`, for each bet b."""
    bets = limit_bets(limit)
    return np.log1p(bets[:, None] * (np.asarray(values, dtype=float) / max(limit, LOWEST) - 1)).sum(
        axis=1
    )


@dataclass(frozen=True, slots=True)
class ShiryaevRoberts:
    """An e-detector: `M = (M + 1) LR`, averaged over alternatives; alarm at `value >= arl`.

    Promise: as long as the rate is at most `rate`, the mean number of samples to a false alarm is at least `arl`.
    """

    rate: float
    arl: float
    logs: tuple[float, ...] = ()
    n: int = 0

    def add(self, failed: bool) -> ShiryaevRoberts:
        """The state after one more sample."""
        ratios = _bernoulli_logs(self.rate, failed)
        before = np.array(self.logs) if self.logs else np.full(len(ratios), -inf)
        return replace(
            self, logs=tuple((np.logaddexp(before, 0.0) + ratios).tolist()), n=self.n + 1
        )

    @property
    def value(self) -> float:
        """The detector's statistic, of mean at most `n`."""
        return float(np.mean(np.exp(np.array(self.logs)))) if self.logs else 0.0

    @property
    def is_alarm(self) -> bool:
        """Whether the budget of false alarms allows to speak now."""
        return self.value >= self.arl


@lru_cache(maxsize=64)
def _bernoulli_logs(rate: float, failed: bool) -> np.ndarray:
    rate = max(rate, LOWEST)
    p = np.minimum(np.array([1.1, 1.2, 1.35, 1.5, 1.75, 2.0]) * rate, (1 + rate) / 2)
    return np.log(p / rate) if failed else np.log1p(-p) - log1p(-rate)


# ---------------------------------------------------------------- means, asymptotically


def best_rho2(t_best: float, alpha: float) -> float:
    """The mixing variance that makes a confidence sequence tightest at `t_best` samples (two-sided `alpha`)."""
    return (-(alpha**2) - 2 * log(alpha) + log(-2 * log(alpha) + 1 - alpha**2)) / t_best


def cs_margin(
    t: float,
    variance: float,
    *,
    alpha: float = 0.05,
    t_best: float = 100.0,
    is_two_sided: bool = True,
) -> float:
    """Half the width of the asymptotic confidence sequence of a mean after `t` samples; infinite at 0.

    Example:
        >>> f"{cs_margin(1000, 1.0, t_best=1000):.7f}"
        '0.0959818'
    """
    if t <= 0:
        return inf
    rho2 = best_rho2(t_best, alpha if is_two_sided else 2 * alpha)
    grown = t * rho2 + 1
    inner = log(sqrt(grown) / alpha) if is_two_sided else log1p(sqrt(grown) / (2 * alpha))
    return sqrt(variance * 2 * grown / (t * t * rho2) * inner)


def mean_log_e(
    t: float, excess: float, variance: float, *, t_best: float = 100.0, alpha: float = 0.05
) -> float:
    """Evidence that a mean is above a bound: the largest ln(1/a) at which the one-sided sequence excludes the bound.

    Args:
        t: number of samples (or the effective number, for a difference).
        excess: estimated mean minus bound.
        variance: of one sample.
    """
    if t <= 0 or excess <= 0:
        return FLOOR
    if variance <= 0:
        variance = 1e-12 * excess**2
    rho2 = best_rho2(t_best, 2 * alpha)
    grown = t * rho2 + 1
    exponent = excess**2 * t * t * rho2 / (2 * variance * grown)
    # ln(expm1(x)) without overflow for large x, without loss for small ones.
    inner = (
        exponent + log1p(-exp(-exponent))
        if exponent > 1
        else log(expm1(exponent))
        if exponent > 0
        else FLOOR
    )
    return max(FLOOR, log(2) + inner - 0.5 * log(grown))


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum and sum of squares."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, n: int, total: float, squares: float) -> Moments:
        """With more samples."""
        return Moments(self.n + n, self.total + total, self.squares + squares)

    @property
    def mean(self) -> float:
        """0 when empty."""
        return self.total / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        """Unbiased; 0 below two samples."""
        return (
            max(0.0, (self.squares - self.n * self.mean**2) / (self.n - 1)) if self.n > 1 else 0.0
        )


@dataclass(frozen=True, slots=True)
class MeansTest:
    """Is the mean loss of arm 1 above offset + slope times that of arm 0? In strata, as shares move with the steps.

    Asymptotic, with a burn-in in each arm of each stratum; strata are weighted by their effective size n0 n1/(n0 + n1).
    Within a stratum the share must not move, or a moving base is taken for a difference.
    """

    slope: float = 1.0
    offset: float = 0.0
    strata: dict[str, tuple[Moments, Moments]] = field(default_factory=dict)
    pairs: dict[str, tuple[Moments, Moments, float]] = field(default_factory=dict)
    """Losses of both arms on the same requests (shadow), and the sum of their products: far sharper than two samples."""

    def add_pairs(self, stratum: str, arm0: Moments, arm1: Moments, cross: float) -> MeansTest:
        """More losses of both arms on the same requests; they are not given to `add` besides."""
        before = self.pairs.get(stratum, (Moments(), Moments(), 0.0))
        both = (
            before[0].add(arm0.n, arm0.total, arm0.squares),
            before[1].add(arm1.n, arm1.total, arm1.squares),
            before[2] + cross,
        )
        return replace(self, pairs={**self.pairs, stratum: both})

    def add(self, stratum: str, arm: int, n: int, total: float, squares: float) -> MeansTest:
        """More losses of one arm."""
        pair = list(self.strata.get(stratum, (Moments(), Moments())))
        pair[arm] = pair[arm].add(n, total, squares)
        return replace(self, strata={**self.strata, stratum: (pair[0], pair[1])})

    def difference(self) -> tuple[float, float, float]:
        """`(effective size, mean excess over the margin, variance of one effective sample)`."""
        size = excess = variance = 0.0
        for arm0, arm1 in self.strata.values():
            if min(arm0.n, arm1.n) < BURN_IN:
                continue
            weight = arm0.n * arm1.n / (arm0.n + arm1.n)
            size += weight
            excess += weight * (arm1.mean - self.slope * arm0.mean - self.offset)
            # Losses are skewed: an arm whose mean is too low by chance has a variance that is too low as well, so a
            # small arm would prove itself good. The larger of the two, on one scale, stands for both.
            spread = max(arm1.variance, self.slope**2 * arm0.variance)
            variance += weight**2 * spread * (1 / arm1.n + 1 / arm0.n)
        for arm0, arm1, cross in self.pairs.values():
            if arm1.n < PAIRS_BURN_IN:
                continue
            d = self._differences(arm0, arm1, cross)
            # As skewed as losses are, a few hundredths of their own variance is the least that is believed.
            least = 0.02 * max(arm1.variance, self.slope**2 * arm0.variance)
            size += d.n
            excess += d.total
            variance += d.n * max(d.variance, least)
        return (size, excess / size, variance / size) if size else (0.0, 0.0, 0.0)

    def _differences(self, arm0: Moments, arm1: Moments, cross: float) -> Moments:
        """Of arm1 - slope arm0 - offset, from the moments of both and their products."""
        a, b, n = self.slope, self.offset, arm1.n
        total = arm1.total - a * arm0.total - n * b
        squares = arm1.squares + a * a * arm0.squares + n * b * b
        squares += -2 * a * cross - 2 * b * arm1.total + 2 * a * b * arm0.total
        return Moments(n, total, squares)

    @property
    def harm(self) -> float:
        """Evidence that arm 1 is worse than the margin allows."""
        return mean_log_e(*self.difference())

    @property
    def proof(self) -> float:
        """Evidence that it is not."""
        size, excess, variance = self.difference()
        return mean_log_e(size, -excess, variance)

    def as_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MeansTest:
        """Read what `as_json` wrote."""
        strata = {k: (Moments(**a), Moments(**b)) for k, (a, b) in value["strata"].items()}
        pairs = {k: (Moments(**a), Moments(**b), c) for k, (a, b, c) in value["pairs"].items()}
        return cls(value["slope"], value["offset"], strata, pairs)


# ---------------------------------------------------------------- rates, exactly


def rate_sequence(k: int, n: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """The confidence sequence of a rate after `n` samples, valid at all times at once: a uniform (Beta(1,1)) mixture.

    Example:
        >>> "{:.7f} {:.7f}".format(*rate_sequence(10, 1000))
        '0.0020755 0.0279417'

    Source:
        Robbins (1970), "Statistical methods related to the law of the iterated logarithm".
    """
    from math import lgamma

    if n <= 0:
        return 0.0, 1.0
    mixture = lgamma(k + 1) + lgamma(n - k + 1) - lgamma(n + 2)

    def excluded(p: float) -> bool:
        likelihood = (k * log(p) if k else 0.0) + ((n - k) * log1p(-p) if n > k else 0.0)
        return mixture - likelihood >= log(1 / alpha)

    rate = k / n
    lower, upper = 0.0, 1.0
    if k:
        low, high = 0.0, rate
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if excluded(middle) else (low, middle)
        lower = low
    if k < n:
        low, high = rate, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if excluded(middle) else (middle, high)
        upper = high
    return lower, upper


# ---------------------------------------------------------------- averaging over alternatives and beginnings


def _onward(
    logs: tuple[float, ...], found: np.ndarray, n_batches: int, *, is_restarting: bool
) -> tuple[float, ...]:
    if not is_restarting:
        return tuple((np.asarray(logs) + found if logs else found).tolist())
    starting = -log(n_batches * (n_batches + 1.0))
    before = np.logaddexp(np.asarray(logs), starting) if logs else np.full(len(found), starting)
    # Not below e^-700: a process that far down is nothing beside those which have yet to start.
    return tuple(np.maximum(before + found, -700.0).tolist())


def _total(logs: tuple[float, ...], n_batches: int, *, is_restarting: bool) -> float:
    if not logs:
        return 0.0
    peak = max(logs)
    mean = peak + log(sum(exp(x - peak) for x in logs) / len(logs))
    if is_restarting:  # what has not started yet is worth its weight
        return float(np.logaddexp(mean, -log(n_batches + 1.0)))
    return max(FLOOR, mean)
