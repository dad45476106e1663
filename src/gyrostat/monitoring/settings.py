"""`monitoring:` and `labels:` of the declaration: what is watched, and when labels count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """When a feature, or the prediction, has moved."""

    shift: float = 0.25
    """Smallest distance that matters, in [0, 1]: the largest difference of the two distributions (Kolmogorov-Smirnov;
    total variation for categories), judged by its lower confidence bound."""
    false_alarms_per_s: float = 1 / (30 * 86400.0)
    """Budget of false alarms over all features together."""


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """`models.<name>.monitoring` together with `models.<name>.labels`."""

    drift: DriftSettings = DriftSettings()
    keep_s: float = 90 * 86400.0
    """How long the prediction log is kept."""
    mature_after_s: float = 0.0
    """Rows younger than this count nowhere, least of all as negatives."""
