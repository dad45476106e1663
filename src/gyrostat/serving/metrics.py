"""What one worker has counted, in Prometheus' text format. Counting is a few additions; all else happens when asked."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Upper bounds of the latency buckets; the last bucket has none."""
SHARED = (1, 2, 4, 8, 16, 32)
"""Upper bounds of the buckets of requests that share a call."""


class Series:
    """Answers of one route by one arm with one status."""

    __slots__ = ("buckets", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0


class Meter:
    """The counts of one model. On the event loop only."""

    __slots__ = ("answered", "calls", "errors", "refused")

    def __init__(self) -> None:
        self.answered: dict[tuple[str, str, int, int], Series] = {}
        """By route, role, version and status: what reached a model."""
        self.refused: Counter[tuple[str, int]] = Counter()
        """By route and status: what did not."""
        self.errors: Counter[tuple[str, str]] = Counter()
        """By route and the error's code."""
        self.calls: Counter[int] = Counter()
        """Calls of models that take their time, by how many requests each answered together."""

    def answer(self, route: str, role: str, version: int, status: int, seconds: float) -> None:
        """Count a request that an arm answered, well or not."""
        key = (route, role, version, status)
        series = self.answered.get(key)
        if series is None:
            series = self.answered[key] = Series()
        series.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        series.total_s += seconds

    def call(self, n_requests: int) -> None:
        """Count a call that so many requests share."""
        self.calls[n_requests] += 1

    def refuse(self, route: str, status: int, code: str) -> None:
        """Count a request that no arm saw."""
        self.refused[route, status] += 1
        self.errors[route, code] += 1


class Page:
    """The lines of one answer to `GET /metrics`, a family at a time."""

    def __init__(self, **labels: str) -> None:
        self._common, self._lines = labels, []

    def family(self, name: str, kind: str, help: str) -> None:
        """Begin a family; its samples follow."""
        self._lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]

    def sample(self, name: str, value: float, **labels: object) -> None:
        """One sample."""
        said = ",".join(f'{k}="{_escaped(str(v))}"' for k, v in (self._common | labels).items())
        self._lines.append(f"{name}{{{said}}} {value}")

    def body(self) -> bytes:
        """All of it."""
        return ("\n".join(self._lines) + "\n").encode("utf-8", "replace")


def write(
    models: Mapping[str, Any],
    http_errors: Mapping[tuple[str, int], int],
    *,
    worker: str,
    version: str,
) -> bytes:
    """The page of one worker.

    Args:
        models: The server's models by name.
        http_errors: By code and status: requests that were refused before a model was looked at.
    """
    page = Page(worker=worker)
    page.family("gyrostat_info", "gauge", "Always 1; the release in its label.")
    page.sample("gyrostat_info", 1, version=version)
    _requests(page, models)
    _errors(page, models, http_errors)
    _calls(page, models)
    _arms(page, models)
    for name, kind, help, read in _OF_MODEL:
        page.family(name, kind, help)
        for model in models.values():
            page.sample(name, read(model), model=model.name)
    return page.body()


def _requests(page: Page, models: Mapping[str, Any]) -> None:
    total = "gyrostat_requests_total"
    page.family(
        total, "counter", "Requests for predictions; arm and version are empty where none saw it."
    )
    for model in models.values():
        for (route, role, version, status), series in model.meter.answered.items():
            labels = _labels(model.name, route, role, version)
            page.sample(total, sum(series.buckets), **labels, status=status)
        for (route, status), n in model.meter.refused.items():
            page.sample(total, n, **_labels(model.name, route, "", ""), status=status)
    name = "gyrostat_request_seconds"
    page.family(name, "histogram", "Time from a whole request to its answer, by an arm.")
    for model in models.values():
        for (route, role, version), series in _by_arm(model.meter.answered.items()).items():
            labels = _labels(model.name, route, role, version)
            n = 0
            for bound, count in zip((*BOUNDS_S, "+Inf"), series.buckets, strict=True):
                n += count
                page.sample(f"{name}_bucket", n, **labels, le=bound)
            page.sample(f"{name}_sum", series.total_s, **labels)
            page.sample(f"{name}_count", n, **labels)


def _by_arm(
    answered: Iterable[tuple[tuple[str, str, int, int], Series]],
) -> dict[tuple[str, str, int], Series]:
    found: dict[tuple[str, str, int], Series] = {}
    for (route, role, version, _), series in answered:
        whole = found.setdefault((route, role, version), Series())
        whole.buckets = [a + b for a, b in zip(whole.buckets, series.buckets, strict=True)]
        whole.total_s += series.total_s
    return found


def _errors(
    page: Page, models: Mapping[str, Any], http_errors: Mapping[tuple[str, int], int]
) -> None:
    name = "gyrostat_errors_total"
    page.family(name, "counter", "Errors by the code that stands in the answer.")
    for model in models.values():
        for (route, code), n in model.meter.errors.items():
            page.sample(name, n, model=model.name, route=route, code=code)
    name = "gyrostat_http_errors_total"
    page.family(name, "counter", "Requests refused before a model was looked at.")
    for (code, status), n in http_errors.items():
        page.sample(name, n, code=code, status=status)


def _calls(page: Page, models: Mapping[str, Any]) -> None:
    name = "gyrostat_requests_per_call"
    page.family(name, "histogram", "Requests that one call of a slow model answered together.")
    for model in models.values():
        calls = model.meter.calls
        for bound in (*SHARED, "+Inf"):
            n = sum(c for size, c in calls.items() if bound == "+Inf" or size <= bound)
            page.sample(f"{name}_bucket", n, model=model.name, le=bound)
        page.sample(f"{name}_sum", sum(size * c for size, c in calls.items()), model=model.name)
        page.sample(f"{name}_count", sum(calls.values()), model=model.name)


def _arms(page: Page, models: Mapping[str, Any]) -> None:
    arms = [
        (model, arm)
        for model in models.values()
        if model.served is not None
        for arm in (*model.served.live, *model.served.shadows)
    ]
    page.family("gyrostat_bundle_info", "gauge", "Always 1; the bundles that answer, in labels.")
    for model, arm in arms:
        page.sample(
            "gyrostat_bundle_info",
            1,
            model=model.name,
            arm=arm.spec.role,
            shadow=str(arm.spec.shadow).lower(),
            version=arm.spec.version,
            bundle=arm.spec.bundle,
            flavour=arm.loaded.session.manifest.flavour,
        )
    page.family("gyrostat_arm_share", "gauge", "Share of the requests that goes to an arm.")
    for model, arm in arms:
        if not arm.spec.shadow:
            labels = {"model": model.name, "arm": arm.spec.role, "version": arm.spec.version}
            page.sample("gyrostat_arm_share", arm.spec.share, **labels)


_OF_MODEL = (
    (
        "gyrostat_requests_in_flight",
        "gauge",
        "Requests that other threads answer now, the waiting ones among them.",
        lambda model: model.n_in_flight,
    ),
    (
        "gyrostat_ready",
        "gauge",
        "1 where a champion is loaded.",
        lambda model: int(model.served is not None),
    ),
    (
        "gyrostat_routes_seq",
        "gauge",
        "Number of the routes in force; 0 before the first.",
        lambda model: 0 if model.served is None else model.served.routes.seq,
    ),
    (
        "gyrostat_shadow_queue",
        "gauge",
        "Copies that wait for shadow arms.",
        lambda model: model.n_shadow_waiting,
    ),
    (
        "gyrostat_shadow_dropped_total",
        "counter",
        "Copies that shadow arms never saw.",
        lambda model: model.n_shadow_dropped,
    ),
    (
        "gyrostat_log_dropped_total",
        "counter",
        "Predictions that did not reach the log.",
        lambda model: model.writer.dropped,
    ),
)


def _labels(model: str, route: str, role: str, version: object) -> dict[str, Any]:
    return {"model": model, "route": route, "arm": role, "version": version}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
