"""Which inputs, and whether the predictions, have moved: distances to training with a lower confidence bound.

Rows are looked at in tumbling windows of about 128, 256, 512, ... rows at once (a window is made of two of the scale
below), so that a shift is seen soon when it is large and late when it is small, whenever it begins.

The budget of false alarms is paid by the time that a look covers: a look at a window of T seconds has
`alpha = false_alarms_per_s * T / (scales * columns)`. The windows of one scale cover each second once, so all looks at
all columns together raise at most `false_alarms_per_s` false alarms a second, at any rate of traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gyrostat.monitoring.reference import Reference
from gyrostat.monitoring.settings import DriftSettings
from gyrostat.stats.distances import distance_with_bound

FIRST_ROWS = 128
N_SCALES = 12
STALE = 2.5
"""A look counts until this many times the time that it covers has passed without a newer one of its scale."""
LARGEST_ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at one column found."""

    distance: float
    lower: float
    n: int
    alpha: float
    began: int
    ended: int


@dataclass
class _Window:
    n: int = 0
    began: int = -1
    ended: int = -1
    halves: int = 0
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, n: int, began: int, ended: int, counts: Mapping[str, Any]) -> None:
        self.n += n
        self.began = began if self.began < 0 else min(self.began, began)
        self.ended = max(self.ended, ended)
        self.halves += 1
        for name, found in counts.items():
            before = self.counts.get(name)
            new = np.asarray(found, dtype=float)
            self.counts[name] = new if before is None or len(before) != len(new) else before + new


class Drift:
    """Follows one bundle's rows; give it each closed second once."""

    def __init__(self, reference: Reference, settings: DriftSettings) -> None:
        self.reference, self.settings = reference, settings
        self._columns = {column.name: column for column in reference.columns}
        self._windows = [_Window() for _ in range(N_SCALES)]
        self._looks: dict[str, dict[int, Look]] = {name: {} for name in self._columns}
        self._shown_at: dict[str, int] = {}
        self._last = -1
        self.n_rows = 0

    def add(self, second: int, n_rows: int, counts: Mapping[str, Any]) -> None:
        """One closed second's histograms by column."""
        if n_rows <= 0:
            return
        self.n_rows += n_rows
        self._last = max(self._last, second)
        self._windows[0].add(n_rows, second, second, counts)
        for scale in range(N_SCALES):
            window = self._windows[scale]
            is_full = window.n >= FIRST_ROWS if scale == 0 else window.halves >= 2
            if not is_full:
                break
            self._look(scale, window)
            self._windows[scale] = _Window()
            if scale + 1 < N_SCALES:
                self._windows[scale + 1].add(window.n, window.began, window.ended, window.counts)
        for name in self._columns:
            look = self.current(name)
            if look is None or look.lower <= self.settings.shift:
                self._shown_at.pop(name, None)
            else:
                self._shown_at.setdefault(name, second)

    def _look(self, scale: int, window: _Window) -> None:
        seconds = window.ended - window.began + 1
        per_look = (
            self.settings.false_alarms_per_s * seconds / (N_SCALES * max(1, len(self._columns)))
        )
        alpha = min(LARGEST_ALPHA, max(1e-300, per_look))
        for name, column in self._columns.items():
            counts = window.counts.get(name)
            if counts is None or len(counts) != len(column.counts) or not counts.sum():
                continue
            distance, lower = distance_with_bound(
                column.counts,
                counts.tolist(),
                alpha=alpha,
                is_ordered=column.is_ordered,
            )
            self._looks[name][scale] = Look(
                distance, lower, int(counts.sum()), alpha, window.began, window.ended
            )

    def current(self, name: str) -> Look | None:
        """The look that says most about now: of those not stale, the one with the highest lower bound."""
        looks = self._looks[name].values()
        fresh = [k for k in looks if self._last - k.ended <= STALE * (k.ended - k.began + 1)]
        fresh = fresh or sorted(looks, key=lambda k: k.ended)[-1:]
        return max(fresh, key=lambda k: (k.lower, k.n), default=None)

    def as_json(self) -> dict[str, Any]:
        """By column: distance, lower bound, limit, rows of the look, and whether the shift is shown."""
        found: dict[str, Any] = {}
        for name in self._columns:
            look = self.current(name)
            if look is None:
                found[name] = {
                    "distance": None, "lower": None, "limit": self.settings.shift, "n": self.n_rows,
                    "is_shown": False, "needs": f"{self.n_rows} of {FIRST_ROWS} rows",
                }  # fmt: skip
                continue
            found[name] = {
                "distance": look.distance, "lower": look.lower, "limit": self.settings.shift, "n": look.n,
                "alpha": look.alpha, "is_shown": name in self._shown_at, "shown_at": self._shown_at.get(name),
                "began": look.began, "ended": look.ended,
            }  # fmt: skip
        return found
