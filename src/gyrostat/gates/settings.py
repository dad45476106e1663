"""`limits:` and `gates:` of the declaration: what "good" means before a model may be released."""

from __future__ import annotations

from dataclasses import dataclass

from gyrostat.terms import Limit


@dataclass(frozen=True, slots=True)
class ChampionGateSettings:
    """Not worse than the champion by more than the margin, on rows that neither has seen."""

    metric: str = "rmse"
    margin: float = 0.01


@dataclass(frozen=True, slots=True)
class UndecidedSettings:
    """What becomes of a candidate that the held-out rows cannot judge."""

    after_s: float = 7 * 86400.0
    then: str = "ask"
    """ask, reject or hold."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """`models.<name>.gates` together with `models.<name>.limits`."""

    limits: tuple[Limit, ...] = ()
    """Model metrics (rmse, mae, accuracy, ...) and service metrics (error_rate, latency_p99 in seconds)."""
    champion: ChampionGateSettings = ChampionGateSettings()
    undecided: UndecidedSettings = UndecidedSettings()
    size_bytes: int = 200_000_000
    confidence: float = 0.95
    min_newer_rows: int = 100
    """Held-out rows newer than the champion's snapshot from which on they alone compare the two."""
