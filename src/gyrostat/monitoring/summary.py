"""What the monitor knows now, as one JSON file: `observations/<model>/live.json`, written about once a second.

Made by folding observation lines alone, so a monitor that was started again says the same:

```
{"model", "at", "closed": last closed second, "since": first second counted, "routes_seq", "champion": digest,
 "service": {"window_s", "n", "requests_per_s", "p50", "p99", "error_rate", "errors"},        the last 60 seconds
 "arms": [{"bundle", "arm", "n", "rows", "errors", "slow", "n_labels"}],                     totals since `since`
 "labels": {"n", "share", "delay_s", "parked", "late", "doubled", "unknown", "changed", "unusable", "overflow"},
 "quality": {metric: {"value", "lower", "upper", "limit", "n", "n_total", "log_e", "is_decayed", "decayed_at"}},    of the champion
 "drift": {feature or "prediction": {"distance", "lower", "limit", "n", "is_shown", "shown_at", ...}},            of the champion
 "rows": n, "n_trained": rows the champion was trained on, "new": {column: n}, "missing": {column: n},
 "dropped": {writer: frames that could not be written}, "place": where the segments end}
```
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gyrostat.monitoring.drift import Drift
from gyrostat.monitoring.quality import Quality
from gyrostat.monitoring.reference import PREDICTION, Reference
from gyrostat.monitoring.settings import MonitoringSettings
from gyrostat.stats.histograms import merge, quantile
from gyrostat.terms import Limit

WINDOW_S = 60
MOST_BUNDLES = 8


@dataclass
class _Bundle:
    """What is kept about one bundle as champion."""

    drift: Drift | None
    quality: Quality
    n_trained: int
    rows: int = 0
    n_labels: int = 0
    new: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)


class Live:
    """Folds observation lines into what is shown."""

    def __init__(
        self,
        model: str,
        settings: MonitoringSettings,
        *,
        reference: Callable[[str], Reference | None],
        limits: tuple[Limit, ...] = (),
    ) -> None:
        self.model, self.settings, self.limits = model, settings, limits
        self._reference = reference
        self._bundles: OrderedDict[str, _Bundle] = OrderedDict()
        self._arms: dict[tuple[str, str], dict[str, int]] = {}
        self._window: deque[Mapping[str, Any]] = deque()
        self._delays: deque[float] = deque(maxlen=200)
        self.champion = ""
        self.routes_seq = 0
        self.since = -1
        self.last = -1

    def fold(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take lines in the order of the segments, each once."""
        for line in lines:
            if "n_labels" in line:
                self._labels(line)
            else:
                self._traffic(line)

    def _of(self, bundle: str) -> _Bundle:
        found = self._bundles.get(bundle)
        if found is None:
            reference = self._reference(bundle)
            metrics = (
                ("rmse",)
                if reference and reference.schema.output.task == "regression"
                else ("accuracy",)
            )
            found = _Bundle(
                Drift(reference, self.settings.drift) if reference and reference.columns else None,
                Quality(self.limits, metrics),
                reference.n_rows if reference else 0,
            )
            self._bundles[bundle] = found
            while len(self._bundles) > MOST_BUNDLES:
                self._bundles.popitem(last=False)
        self._bundles.move_to_end(bundle)
        return found

    def _total(self, line: Mapping[str, Any]) -> dict[str, int]:
        names = ("n", "rows", "errors", "slow", "n_labels")
        return self._arms.setdefault((line["bundle"], line["arm"]), dict.fromkeys(names, 0))

    def _traffic(self, line: Mapping[str, Any]) -> None:
        second = line["second"]
        self.since = second if self.since < 0 else min(self.since, second)
        self.last = max(self.last, second)
        total = self._total(line)
        for name in ("n", "rows", "errors", "slow"):
            total[name] += line[name]
        if line["arm"] != "shadow":
            self._window.append(line)
            while self._window and self._window[0]["second"] <= self.last - WINDOW_S:
                self._window.popleft()
        self.routes_seq = max(self.routes_seq, line["routes_seq"])
        if line["arm"] != "champion":
            return
        if line["routes_seq"] >= self.routes_seq or not self.champion:
            self.champion = line["bundle"]
        of = self._of(line["bundle"])
        of.rows += line["rows"]
        merge(of.new, line["new"])
        merge(of.missing, line["missing"])
        if of.drift is not None:
            counts = dict(line["hist"])
            if line["outputs"]:
                counts[PREDICTION] = line["outputs"]
            of.drift.add(second, line["rows"], counts)

    def _labels(self, line: Mapping[str, Any]) -> None:
        self._total(line)["n_labels"] += line["n_labels"]
        self._delays.append(line["delay_s"])
        if line["arm"] == "champion":
            of = self._of(line["bundle"])
            of.n_labels += line["n_labels"]
            of.quality.add(line)

    def as_json(
        self,
        now: float,
        *,
        closed: int = -1,
        counts: Mapping[str, int] | None = None,
        parked: int = 0,
        dropped: Mapping[str, int] | None = None,
        place: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The picture of now.

        Args:
            closed: last closed second, also where nothing was asked in it: rates are of the time before it.
            counts, parked, dropped: of the `Monitor`.
            place: where the segments end.
        """
        closed = max(closed, self.last)
        of = self._bundles.get(self.champion)
        return {
            "model": self.model,
            "at": now,
            "closed": closed,
            "since": self.since,
            "routes_seq": self.routes_seq,
            "champion": self.champion,
            "service": self._service(closed),
            "arms": [
                {"bundle": bundle, "arm": arm, **total}
                for (bundle, arm), total in self._arms.items()
            ],
            "labels": {
                "n": of.n_labels if of else 0,
                "share": min(1.0, of.n_labels / of.rows) if of and of.rows else 0.0,
                "delay_s": median(self._delays) if self._delays else None,
                "parked": parked,
                **(counts or {}),
            },
            "quality": of.quality.as_json() if of else {},
            "drift": of.drift.as_json() if of and of.drift else {},
            "rows": of.rows if of else 0,
            "n_trained": of.n_trained if of else 0,
            "new": of.new if of else {},
            "missing": of.missing if of else {},
            "dropped": {w: n for w, n in (dropped or {}).items() if n},
            "place": dict(place or {}),
        }

    def _service(self, closed: int) -> dict[str, Any]:
        lines = [line for line in self._window if line["second"] > closed - WINDOW_S]
        n, errors = sum(line["n"] for line in lines), sum(line["errors"] for line in lines)
        latency: dict[str, int] = {}
        for line in lines:
            merge(latency, line["latency"])
        seconds = min(WINDOW_S, max(1, closed - self.since + 1)) if self.since >= 0 else WINDOW_S
        return {
            "window_s": seconds,
            "n": n,
            "requests_per_s": n / seconds,
            "p50": quantile(latency, 0.5),
            "p99": quantile(latency, 0.99),
            "error_rate": errors / n if n else 0.0,
            "errors": errors,
        }
