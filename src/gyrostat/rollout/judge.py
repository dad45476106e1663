"""May the rollout go on? One pure function from counted evidence to accept, reject or undecided."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any, NamedTuple

from gyrostat.rollout.settings import RolloutSettings
from gyrostat.terms import Answer, Verdict

RULE = "rollout.guardrail/1"


class Judged(NamedTuple):
    """A verdict, with what others than its readers do with it."""

    verdict: Verdict
    cause: str = ""
    """Where it rejects: errors, latency or quality. It decides how much is rolled back."""
    n_seen: int = 0
    n_wanted: int = 0
    """Where it is undecided: requests to the candidate that were seen, and about how many it takes."""


def judge(
    traffic: Mapping[str, Any] | None,
    settings: RolloutSettings,
    since: float,
    now: float,
    *,
    step: int,
    n_steps: int,
) -> Judged:
    """Judge one step of a rollout, at any time and as often as wanted: the tests behind it are anytime-valid.

    Rejects as soon as a guardrail shows harm or the candidate breaks an absolute limit. Accepts a step when its bake
    is over without that; the last step (the promotion) needs besides, over all steps together, the proof of "not worse
    by more than the margin" for each guardrail that asks for one. What has not been seen never passes.

    Args:
        traffic: `seen["traffic"]` of production: `rollout.evidence.Evidence.traffic` makes it; None: nothing seen yet.
        since: when this step's routes were applied, `now`: the ledger's time; seconds since 1970.
        step: index into `settings.steps`; `n_steps - 1` is the last one.
    """
    if not traffic:
        return Judged(
            _wait("no traffic seen yet", f"0 of {max(1, settings.bake.requests):,} requests", None),
            n_wanted=max(1, settings.bake.requests),
        )
    guardrails: Mapping[str, Any] = traffic["guardrails"]
    limits: Mapping[str, Any] = traffic["limits"]
    alpha = settings.wrong_decisions
    # Each of the tests may be the one that errs: they share the promise (Bonferroni).
    bar = log(max(1, len(guardrails) + len(limits)) / alpha)
    worst: tuple[float, str, str, Mapping[str, Any]] | None = None
    for what, found, side in (("harm", guardrails, "margin"), ("broken", limits, "limit")):
        for metric, test in found.items():
            if test[what] >= bar and (worst is None or test[what] > worst[0]):
                worst = (test[what], metric, side, test)
    if worst is not None:
        return _harmed(*worst, settings)

    seen = traffic["step"]
    wanted = max(1, settings.bake.requests)
    # The monitor's seconds count too: when it is silent, waiting proves nothing.
    waited_s = min(now - since, seen["seconds"])
    if seen["requests"] < wanted or waited_s < settings.bake.time_s:
        needs = f"{seen['requests']:,} of {wanted:,} requests, {max(0.0, waited_s):.0f} of {settings.bake.time_s:.0f} s"
        verdict = _wait("the step is not baked yet", needs, guardrails.get("error_rate"))
        return Judged(verdict, n_seen=seen["requests"], n_wanted=wanted)

    if step >= n_steps - 1:
        if "error_rate" in settings.guardrails and "error_rate" not in guardrails:
            return Judged(
                _wait("errors of the two arms were not counted", "counts of both arms", None)
            )
        proof_bar = log(1 / alpha)
        for metric, test in guardrails.items():
            if test["needs_proof"] and not test["proof"] >= proof_bar:
                n_seen = traffic["total"]["requests"]
                about = _about(n_seen, test, proof_bar)
                needs = f"{n_seen:,} of about {about:,} requests"
                reason = f"{metric} not yet proven within its margin of {settings.guardrails.get(metric, '0')}"
                return Judged(_wait(reason, needs, test), n_seen=n_seen, n_wanted=about)
        reason = f"no guardrail crossed and each proof given in {traffic['total']['requests']:,} requests"
    else:
        reason = f"no guardrail crossed in {seen['requests']:,} requests"
    return Judged(Verdict(Answer.ACCEPT, RULE, reason))


def _harmed(
    log_e: float, metric: str, side: str, test: Mapping[str, Any], settings: RolloutSettings
) -> Judged:
    value, limit = test.get("value"), test.get("limit")
    allowed = (
        f"limit {limit:g}"
        if limit is not None
        else f"margin {settings.guardrails.get(metric, '0')}"
    )
    found = "" if value is None else f" {value:+.4g}" if side == "margin" else f" {value:.4g}"
    bounds = ""
    if test.get("lower") is not None and test.get("upper") is not None:
        bounds = f" ({test['lower']:.4g} to {test['upper']:.4g}; {allowed})"
    against = " against the champion" if side == "margin" else ""
    odds = f"{2.718281828459045 ** min(log_e, 20.0):,.0f}"
    reason = f"{test['cause']}: {metric}{found}{against}{bounds or f' ({allowed})'} in {test['n']:,} requests, evidence {odds} to 1"
    return Judged(
        Verdict(Answer.REJECT, RULE, reason, value, test.get("lower"), test.get("upper"), limit),
        test["cause"],
    )


def _wait(reason: str, needs: str, test: Mapping[str, Any] | None) -> Verdict:
    if test is None:
        return Verdict(Answer.UNDECIDED, RULE, reason, needs=needs)
    return Verdict(
        Answer.UNDECIDED,
        RULE,
        reason,
        test.get("value"),
        test.get("lower"),
        test.get("upper"),
        needs=needs,
    )


def _about(n_seen: int, test: Mapping[str, Any], bar: float) -> int:
    """How many requests the proof takes, to two digits: a promise of more would be none."""
    # Evidence grows about linearly with requests, so what it has reached tells how far it still is.
    about = test.get("n_needed")
    if about is None and test["proof"] > 0.1 * bar:
        about = n_seen * bar / test["proof"]
    if about is None or about <= n_seen:
        about = 1.25 * n_seen
    digits = 10 ** max(0, len(str(int(about))) - 2)
    return int(-(-about // digits)) * digits
