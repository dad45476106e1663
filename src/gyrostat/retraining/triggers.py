"""From what the monitor knows to what asks for a new model. Pure; repeats carry the same key, so the ledger keeps one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gyrostat.retraining.settings import RetrainingSettings

REMIND_S = 900.0
"""A reason that stays is told again after this long, or after the cooldown where that is longer."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """One reason for a new model: the body of a `triggered` event, and its key in the stream."""

    by: str
    """decay, drift or new_data."""
    key: str
    why: str
    """One line with the numbers."""

    def as_body(self) -> dict[str, Any]:
        """What stands in the entry."""
        return {"by": self.by, "actor": "monitor", "why": self.why}


def triggers(live: Mapping[str, Any], settings: RetrainingSettings) -> list[Trigger]:
    """The reasons that `live.json` gives, strongest first: of the declared kinds only.

    A reason is one for each champion, and again for each `REMIND_S` (or cooldown) that it lasts: a run may have been
    refused, and the next one has more rows.
    """
    champion = live.get("champion") or ""
    if not champion:
        return []

    def spell(since: float) -> int:
        return int(max(0.0, live["at"] - since) // max(settings.cooldown_s, REMIND_S))

    found: list[Trigger] = []
    if "decay" in settings.triggers:
        found += [
            Trigger(
                "decay",
                f"decay/{champion[:12]}/{metric}/{spell(quality['decayed_at'])}",
                _decay(metric, quality),
            )
            for metric, quality in live.get("quality", {}).items()
            if quality["is_decayed"]
        ]
    if "drift" in settings.triggers:
        moved = {name: look for name, look in live.get("drift", {}).items() if look["is_shown"]}
        if moved:
            why = ", ".join(
                f"{name} moved by {look['distance']:.2f} (at least {look['lower']:.2f}; limit {look['limit']:g})"
                for name, look in sorted(moved.items(), key=lambda item: -item[1]["lower"])
            )
            since = min(look["shown_at"] for look in moved.values())
            found.append(Trigger("drift", f"drift/{champion[:12]}/{since}/{spell(since)}", why))
    if "new_data" in settings.triggers and live.get("n_trained"):
        n_labels, wanted = live["labels"]["n"], settings.new_rows * live["n_trained"]
        times = int(n_labels // wanted) if wanted >= 1 else 0
        if times:
            why = f"{n_labels:,} labelled predictions since training on {live['n_trained']:,} rows ({settings.new_rows:.0%} ask for a new model)"
            found.append(Trigger("new_data", f"new_data/{champion[:12]}/{times}", why))
    return found


def _decay(metric: str, quality: Mapping[str, Any]) -> str:
    value, limit, n = quality["value"], quality["limit"], quality["n"]
    lower, upper = quality["lower"], quality["upper"]
    bounds = f" ({lower:.3g} to {upper:.3g})" if lower is not None and upper is not None else ""
    return f"{metric} {value:.3g}{bounds} on {n:,} labels; limit {limit:g}"
