"""The rollout's judge: what rejects, what bakes, what is proof, and that silence never passes."""

from math import log

import pytest

from gyrostat.rollout.judge import RULE, judge
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.terms import Answer, Margin

SETTINGS = RolloutSettings(
    bake=BakeSettings(requests=200, time_s=120.0), guardrails={"error_rate": Margin.parse("+1pp")}
)


def a_test(**changes):
    return {
        "harm": -1.0, "proof": -1.0, "needs_proof": True, "value": 0.0, "lower": -0.01, "upper": 0.01, "n": 500,
        "cause": "errors", **changes,
    }  # fmt: skip


def seen(*, requests=500, seconds=300.0, limits=None, **guardrails):
    return {
        "routes_seq": 3,
        "step": {"requests": requests, "seconds": seconds},
        "total": {"requests": requests},
        "guardrails": guardrails,
        "limits": limits or {},
        "evidence": "e",
    }


def ask(traffic, *, step=0, n_steps=3, since=1000.0, now=2000.0, settings=SETTINGS):
    return judge(traffic, settings, since, now, step=step, n_steps=n_steps)


@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("traffic", [None, seen(requests=0, seconds=0.0, error_rate=a_test())])
def test_no_data_never_passes(traffic, step):
    verdict, cause, *_ = ask(traffic, step=step)
    assert verdict.answer is Answer.UNDECIDED
    assert verdict.needs.startswith("0 of 200 requests")
    assert cause == ""


def test_harm_rejects_at_once_and_names_its_cause_and_numbers():
    verdict, cause, *_ = ask(
        seen(requests=3, seconds=1.0, error_rate=a_test(harm=4.0, value=0.3, n=61)), now=1001.0
    )
    assert verdict.answer is Answer.REJECT
    assert cause == "errors"
    assert verdict.rule == RULE
    assert "error_rate +0.3" in verdict.reason
    assert "61 requests" in verdict.reason
    assert "+1pp" in verdict.reason


def test_each_further_metric_raises_the_bar():
    between = log(1.5 / 0.05)
    alone = ask(seen(error_rate=a_test(harm=between)))
    beside = ask(seen(error_rate=a_test(harm=between), latency_p99=a_test(cause="latency")))
    assert alone.verdict.answer is Answer.REJECT
    assert beside.verdict.answer is Answer.ACCEPT


def test_a_broken_limit_rejects_by_its_own_cause():
    limit = {
        "broken": 9.0,
        "value": 0.08,
        "lower": 0.05,
        "upper": 0.1,
        "limit": 0.05,
        "n": 300,
        "cause": "latency",
    }
    verdict, cause, *_ = ask(seen(error_rate=a_test(), limits={"latency_p99": limit}))
    assert (verdict.answer, cause, verdict.limit) == (Answer.REJECT, "latency", 0.05)


@pytest.mark.parametrize(
    ("requests", "seconds", "now"),
    [(199, 300.0, 2000.0), (500, 119.0, 2000.0), (500, 300.0, 1100.0)],
)
def test_a_step_bakes_by_requests_and_by_seconds_seen_and_by_the_clock(requests, seconds, now):
    assert (
        ask(seen(requests=requests, seconds=seconds, error_rate=a_test()), now=now).verdict.answer
        is Answer.UNDECIDED
    )


def test_a_step_passes_without_proof_but_promotion_does_not():
    traffic = seen(error_rate=a_test(proof=1.0))
    assert ask(traffic, step=1).verdict.answer is Answer.ACCEPT
    verdict, *_ = ask(traffic, step=2)
    assert verdict.answer is Answer.UNDECIDED
    assert verdict.needs == "500 of about 1,500 requests"  # 500 x ln 20


def test_promotion_passes_with_each_proof_that_is_asked_for():
    proven = a_test(proof=3.0)
    assert (
        ask(seen(error_rate=proven, latency_p99=a_test(needs_proof=False)), step=2).verdict.answer
        is Answer.ACCEPT
    )
    assert ask(seen(error_rate=proven, rmse=a_test()), step=2).verdict.answer is Answer.UNDECIDED


def test_promotion_waits_for_a_declared_error_guardrail_that_was_not_counted():
    assert ask(seen(), step=2).verdict.answer is Answer.UNDECIDED
