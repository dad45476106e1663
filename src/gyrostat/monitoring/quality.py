"""The champion's quality from labels: a live value with an interval, and whether a limit is broken (decay)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import log
from typing import Any

from gyrostat.stats.losses import LOSS_OF, loss_of_line, mean_loss_limit, metric_of
from gyrostat.stats.sequential import LimitTest, Moments, cs_margin, rate_sequence
from gyrostat.terms import Limit

ALPHA = 0.05
"""A champion that keeps its limits is called decayed, ever, with at most this probability for each limit."""
RECENT = 2000
"""Newest labels that the shown value is made of; the test behind `is_decayed` looks back as far as it must."""


class Quality:
    """Follows one bundle's labels; give it each label line of the champion's arm once."""

    def __init__(self, limits: tuple[Limit, ...], metrics: tuple[str, ...] = ()) -> None:
        self.limits = {x.metric: x for x in limits if mean_loss_limit(x) is not None}
        self._metrics = tuple(dict.fromkeys([*self.limits, *(m for m in metrics if m in LOSS_OF)]))
        self._tests: dict[str, LimitTest] = {}
        self._recent: dict[str, deque[Moments]] = {metric: deque() for metric in self._metrics}
        self._totals: dict[str, Moments] = {metric: Moments() for metric in self._metrics}
        self._decayed_at: dict[str, int] = {}
        self.n_labels = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """One line about labels."""
        self.n_labels += line["n_labels"]
        for metric in self._metrics:
            found = loss_of_line(line, LOSS_OF[metric])
            if found is None:
                continue
            self._totals[metric] = self._totals[metric].add(found.n, found.total, found.squares)
            recent = self._recent[metric]
            recent.append(found)
            while len(recent) > 1 and sum(m.n for m in recent) - recent[0].n >= RECENT:
                recent.popleft()
            limit, bets = self.limits.get(metric), line.get("bets", {}).get(metric)
            known = mean_loss_limit(limit) if limit else None
            if limit and known and bets and bets["limit"] == limit.bound:
                test = self._tests.get(metric, LimitTest(known[1]))
                self._tests[metric] = test = test.add_bets(bets["logs"])
                if test.log_e < log(1 / ALPHA):
                    self._decayed_at.pop(metric, None)
                else:
                    self._decayed_at.setdefault(metric, line["second"])

    def as_json(self) -> dict[str, Any]:
        """By metric: value with anytime-valid bounds over the newest labels, limit, evidence of decay."""
        found: dict[str, Any] = {}
        for metric in self._metrics:
            window = Moments()
            for m in self._recent[metric]:
                window = window.add(m.n, m.total, m.squares)
            if not window.n:
                continue
            limit, test = self.limits.get(metric), self._tests.get(metric)
            lower, upper = _bounds(metric, window)
            found[metric] = {
                "value": metric_of(metric, window.mean),
                "lower": lower,
                "upper": upper,
                "limit": limit.bound if limit else None,
                "n": window.n,
                "n_total": self._totals[metric].n,
                "log_e": test.log_e if test else None,
                "is_decayed": metric in self._decayed_at,
                "decayed_at": self._decayed_at.get(metric),
            }
        return found


def _bounds(metric: str, window: Moments) -> tuple[float, float | None]:
    if metric == "accuracy":
        misses = rate_sequence(round(window.total), window.n, alpha=ALPHA)
        return 1 - misses[1], 1 - misses[0]
    if window.n < 2:
        return 0.0, None
    half = cs_margin(window.n, window.variance, alpha=ALPHA)
    return metric_of(metric, window.mean - half), metric_of(metric, window.mean + half)
