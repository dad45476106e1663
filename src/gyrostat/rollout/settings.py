"""`rollout:` of the declaration: how a candidate takes over, and what stops it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gyrostat.terms import Margin


@dataclass(frozen=True, slots=True)
class BakeSettings:
    """What each step must have seen at least before the next."""

    requests: int = 200
    time_s: float = 120.0


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """`models.<name>.rollout`."""

    approval: str = "first"
    """first, always, never."""
    bake: BakeSettings = BakeSettings()
    steps: tuple[float, ...] = (0.0, 0.05, 0.25, 0.5)
    """Shares of traffic in order; 0.0 is shadow: asked beside the champion, never answering."""
    guardrails: dict[str, Margin] = field(default_factory=dict)
    """Metric -> how much worse than the champion beside it is still the same."""
    expires_s: float = 7 * 86400.0
    then: str = "ask"
    """What happens to a canary without enough traffic at `expires_s`: ask, reject, hold."""
    watch_s: float = 24 * 3600.0
    """After promotion, a broken absolute limit rolls back by itself for this long."""
    wrong_decisions: float = 0.05
    """At most this share of good releases rolled back, or of bad ones promoted."""
