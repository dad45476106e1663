"""May this candidate be released? Pure functions from recorded evidence and the declaration to verdicts.

Bounds decide, never points: where an interval straddles the bound, the answer is undecided, with the number of
held-out rows that would settle it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gyrostat.gates.settings import GateSettings
from gyrostat.terms import Answer, Limit, Verdict

LATENCY = "latency_p99"
LIVE = frozenset({"error_rate"})
"""Limits that only requests can show: staging and the rollout hold them, no held-out row does."""
MANY_ROWS = 1_000_000
"""Beyond this many rows we say that rows will not settle it."""


def judge(evidence: Mapping[str, Any], settings: GateSettings) -> dict[str, Verdict]:
    """Every gate's verdict by its name: each limited metric, `trivial`, `champion`, `latency_p99`, `size`.

    Args:
        evidence: What `gates.evidence` measured; JSON values.
    """
    verdicts: dict[str, Verdict] = {}
    for limit in settings.limits:
        if limit.metric == LATENCY:
            verdicts[LATENCY] = judge_latency(evidence, limit)
        elif limit.metric not in LIVE:
            verdicts[limit.metric] = judge_limit(evidence, limit)
    verdicts["trivial"] = judge_trivial(evidence)
    verdicts["champion"] = judge_champion(evidence, settings)
    verdicts["size"] = judge_size(evidence, settings)
    return verdicts


def conclude(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One answer from all gates: a rejection outweighs what is undecided, and that outweighs the rest."""
    n_passed = sum(v.answer is Answer.ACCEPT for v in verdicts.values())
    for answer in (Answer.REJECT, Answer.UNDECIDED):
        open_ones = [v for v in verdicts.values() if v.answer is answer]
        if open_ones:
            reasons = "; ".join(v.reason for v in open_ones)
            needs = "; ".join(dict.fromkeys(v.needs for v in open_ones if v.needs))
            return Verdict(
                answer, "gates.all/1", f"{n_passed} of {len(verdicts)}; {reasons}", needs=needs
            )
    return Verdict(Answer.ACCEPT, "gates.all/1", f"{n_passed} of {len(verdicts)}")


def judge_limit(evidence: Mapping[str, Any], limit: Limit) -> Verdict:
    """An absolute bound on a model metric, held by the end of the interval that is nearer to harm."""
    rule = "gates.limit/1"
    found = evidence.get("metrics", {}).get(limit.metric)
    if found is None or _none_of(found, "value", "lower", "upper"):
        known = ", ".join(sorted(evidence.get("metrics", {}))) or "none"
        return _unmeasured(rule, limit.metric, f"measured were: {known}", limit.bound)
    sign = 1.0 if limit.max is not None else -1.0
    side = "at most" if limit.max is not None else "at least"
    return _decide(
        rule,
        found,
        bound=limit.bound,
        sign=sign,
        says=f"{limit.metric} {_interval(found)}, {side} {limit.bound:g}",
    )


def judge_trivial(evidence: Mapping[str, Any]) -> Verdict:
    """Better than always answering the mean, or the most frequent class, on the same rows."""
    rule = "gates.trivial/1"
    trivial = evidence.get("trivial")
    if not trivial or _none_of(trivial, "value"):
        return _unmeasured(rule, "the comparison with a trivial model", "it was not made", None)
    name = trivial["name"]
    if not _none_of(trivial, "difference", "lower", "upper"):
        found = {**trivial, "value": trivial["difference"]}
        how = "better" if found["value"] < 0 else "worse"
        says = (
            f"{name} {_number(abs(found['value']))} {how} than a model that looks at nothing "
            f"({_number(trivial['value'])})"
        )
        return _decide(rule, found, bound=0.0, sign=1.0, says=says, is_strict=True)
    found = evidence.get("metrics", {}).get(name)
    if found is None or _none_of(found, "value", "lower", "upper"):
        return _unmeasured(rule, name, "it was not measured", trivial["value"])
    from gyrostat.gates.metrics import METRICS

    sign = 1.0 if METRICS[name].is_less_better else -1.0
    says = (
        f"{name} {_interval(found)}; a model that looks at nothing has {_number(trivial['value'])}"
    )
    return _decide(rule, found, bound=trivial["value"], sign=sign, says=says, is_strict=True)


def judge_champion(evidence: Mapping[str, Any], settings: GateSettings) -> Verdict:
    """Not worse than the champion by more than the margin: proven, not merely not refuted."""
    rule, metric, margin = (
        "gates.champion/1",
        settings.champion.metric,
        float(settings.champion.margin),
    )
    found = evidence.get("champion")
    if not found:
        return Verdict(Answer.ACCEPT, rule, "there is no champion to compare with", limit=margin)
    if _none_of(found, "difference", "lower", "upper"):
        return _unmeasured(rule, f"{metric} against the champion", "too few rows", margin)
    difference, lower, upper = found["difference"], found["lower"], found["upper"]
    if difference > 0:
        says = f"{metric} {_number(difference)} worse than the champion ({_number(lower)} to {_number(upper)}; margin {_number(margin)})"
    else:
        says = f"{metric} {_number(0.0 - difference)} better than the champion ({_number(0.0 - upper)} to {_number(0.0 - lower)}; margin {_number(margin)})"
    if found.get("rows") == "newer":
        says += f", on {found['n']:,} held-out rows newer than its snapshot"
    return _decide(rule, {**found, "value": difference}, bound=margin, sign=1.0, says=says)


def judge_latency(evidence: Mapping[str, Any], limit: Limit) -> Verdict:
    """The 99th percentile of single predictions on this machine; the rollout judges it again on real requests."""
    rule, p99 = "gates.latency/1", evidence.get(LATENCY)
    if p99 is None:
        return _unmeasured(rule, LATENCY, "it was not measured", limit.bound)
    bound = limit.bound
    says = f"p99 of one prediction {1000 * p99:.3g} ms, at most {1000 * bound:.3g} ms"
    answer = Answer.ACCEPT if p99 <= bound else Answer.REJECT
    return Verdict(answer, rule, says, value=p99, limit=bound)


def judge_size(evidence: Mapping[str, Any], settings: GateSettings) -> Verdict:
    """The bundle as it lies on disk."""
    rule, size, most = "gates.size/1", evidence.get("size_bytes"), settings.size_bytes
    if size is None:
        return _unmeasured(rule, "the size of the bundle", "it was not measured", most)
    answer = Answer.ACCEPT if size <= most else Answer.REJECT
    says = f"bundle {_megabytes(size)}, at most {_megabytes(most)}"
    return Verdict(answer, rule, says, value=float(size), limit=float(most))


def _decide(
    rule: str,
    found: Mapping[str, Any],
    *,
    bound: float,
    sign: float,
    says: str,
    is_strict: bool = False,
) -> Verdict:
    """Accept where the whole interval is on the good side of `bound`; `sign` 1: less is better.

    `is_strict`: a value that equals the bound is not good enough.
    """
    value, lower, upper = float(found["value"]), float(found["lower"]), float(found["upper"])
    best, worst = (lower, upper) if sign > 0 else (upper, lower)
    is_good = sign * worst < sign * bound if is_strict else sign * worst <= sign * bound
    is_bad = sign * best >= sign * bound if is_strict else sign * best > sign * bound
    needs = ""
    answer = Answer.ACCEPT if is_good else Answer.REJECT if is_bad else Answer.UNDECIDED
    if answer is Answer.UNDECIDED:
        needs = _needs(int(found.get("n") or 0), value - bound, (upper - lower) / 2)
        says = f"{says}: undecided"
    return Verdict(answer, rule, says, value, lower, upper, bound, needs)


def _needs(n: int, distance: float, half_width: float) -> str:
    """How many rows more until the interval, shrinking with the root of n, leaves the bound on one side."""
    if n <= 0 or distance == 0:
        return "more held-out rows"
    more = n * ((half_width / distance) ** 2 - 1)
    if not math.isfinite(more) or more > MANY_ROWS:
        return "a clearer difference: it lies so close to the bound that no number of rows in reach decides"
    # An asymmetric interval can straddle the bound although its half width does not reach it.
    rough = max(more, 0.1 * n, 1.0)
    digits = max(0, math.floor(math.log10(rough)))
    return f"about {math.ceil(rough / 10**digits) * 10**digits:,} more held-out rows"


def _unmeasured(rule: str, what: str, why: str, limit: float | None) -> Verdict:
    return Verdict(
        Answer.UNDECIDED,
        rule,
        f"{what} cannot be judged: {why}",
        limit=limit,
        needs="held-out rows on which it can be measured",
    )


def _none_of(found: Mapping[str, Any], *names: str) -> bool:
    return any(found.get(name) is None for name in names)


def _interval(found: Mapping[str, Any]) -> str:
    return f"{_number(found['value'])} ({_number(found['lower'])} to {_number(found['upper'])})"


def _number(x: float) -> str:
    """Three decimals where the size of the number allows it, else three digits that count."""
    return (
        f"{x:.3f}"
        if x == 0 or 0.01 <= abs(x) < 100
        else f"{x:,.1f}"
        if abs(x) >= 100
        else f"{x:.2g}"
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
