"""May a candidate answer batches? One pure function from what champion and candidate answered to the same table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gyrostat.rollout.judge import Judged
from gyrostat.rollout.settings import RolloutSettings
from gyrostat.terms import Answer, Margin, Verdict

RULE = "rollout.replay/1"
MORE = "the next batch"


def alpha(settings: RolloutSettings, n_before: int) -> float:
    """What the next replay may err by: all of a candidate's together stay below the promise, however many there are."""
    return settings.wrong_decisions / ((n_before + 1) * (n_before + 2))


def judge(evidence: Mapping[str, Any], settings: RolloutSettings) -> Judged:
    """Reject where a difference is surely beyond its margin, or an absolute limit surely broken; accept where each is surely within.

    Args:
        evidence: what the job `replay` measured: `{"n", "guardrails": {metric: {"value", "lower", "upper", "base", "n", "cause"}},
            "limits": {metric: {"value", "lower", "upper", "limit", "side", "n", "cause"}}, "changed": {...}, ...}`. Differences
            are in the metric's own units, above 0 is worse; `base` is the champion's, in units where more is worse.
    """
    rails: Mapping[str, Any] = evidence["guardrails"]
    for metric, test in evidence["limits"].items():
        sign = 1.0 if test["side"] == "max" else -1.0
        nearest = test["lower"] if sign > 0 else test["upper"]
        if sign * nearest > sign * test["limit"]:
            return _rejected(metric, test, test["limit"], f"limit {test['limit']:g}")
    margins = {m: allowed(settings.guardrails[m], rails[m]["base"]) for m in rails}
    for metric, test in rails.items():
        if test["lower"] > margins[metric]:
            margin = f"margin {settings.guardrails[metric]}"
            return _rejected(metric, test, margins[metric], margin)
    if not evidence["n"]:
        return _undecided("no row was answered by the champion", None, 0.0)
    if "error_rate" in settings.guardrails and "error_rate" not in rails:
        return _undecided("rows without an answer were not compared", None, 0.0)
    for metric, test in rails.items():
        if test["upper"] > margins[metric]:
            reason = f"{metric} not yet proven within its margin of {settings.guardrails[metric]}"
            return _undecided(reason, test, margins[metric])
    on = (
        f"{evidence['n']:,} rows of {evidence['input']}, {evidence['n_labels']:,} with their labels"
    )
    reason = f"replayed {on}: no guardrail crossed and each proof given; {changes(evidence)}"
    return Judged(Verdict(Answer.ACCEPT, RULE, reason), n_seen=evidence["n"])


def allowed(margin: Margin, base: float) -> float:
    """How much worse than the champion's own `base` a candidate may be."""
    return margin.above(base) - base


def changes(evidence: Mapping[str, Any]) -> str:
    """How many answers are others than before, and by how much, in words."""
    changed, moved = evidence["changed"], evidence.get("moved")
    text = f"{100 * changed['value']:.3g} % of answers changed"
    if moved:
        text += (
            f", by {moved['value']:+.3g} in the mean ({moved['lower']:.3g} to {moved['upper']:.3g})"
        )
    return text


def _rejected(metric: str, test: Mapping[str, Any], limit: float, allowed: str) -> Judged:
    value, lower, upper = test["value"], test["lower"], test["upper"]
    reason = f"{test['cause']}: {metric} {value:.4g} ({lower:.4g} to {upper:.4g}; {allowed}) in {test['n']:,} rows, replayed"
    verdict = Verdict(Answer.REJECT, RULE, reason, value, lower, upper, limit)
    return Judged(verdict, test["cause"], n_seen=test["n"])


def _undecided(reason: str, test: Mapping[str, Any] | None, limit: float) -> Judged:
    found = (test["value"], test["lower"], test["upper"], limit) if test else ()
    return Judged(Verdict(Answer.UNDECIDED, RULE, reason, *found, needs=MORE))
