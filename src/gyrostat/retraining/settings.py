"""`retraining:` of the declaration: what asks for a new model, and how often at most."""

from __future__ import annotations

from dataclasses import dataclass

from gyrostat.schedule import Schedule


@dataclass(frozen=True, slots=True)
class RetrainingSettings:
    """`models.<name>.retraining`."""

    triggers: tuple[str, ...] = ("decay", "new_data")
    """Of decay, drift, new_data. A person may always ask."""
    cooldown_s: float = 6 * 3600.0
    """From the end of one run to the start of the next, unless a person asks."""
    budget: int = 4
    """Runs within `budget_window_s`, rolling."""
    budget_window_s: float = 86400.0
    new_rows: float = 0.2
    """`new_data`: matured labelled rows since the champion's snapshot, as a share of its rows."""
    schedules: tuple[Schedule, ...] = ()
    """When a run is wanted whatever is seen; several are one schedule that comes due with each."""
