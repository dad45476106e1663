"""The fold from closed seconds to evidence: which lines count, that helpings do not matter, and what it takes to decide."""

import json
from math import log

import numpy as np
import pytest

from gyrostat.gates.settings import GateSettings
from gyrostat.rollout.evidence import Evidence
from gyrostat.rollout.judge import judge
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.stats.histograms import bucket
from gyrostat.stats.sequential import bet_logs
from gyrostat.terms import Answer, Limit, Margin

SETTINGS = RolloutSettings(
    bake=BakeSettings(requests=100, time_s=5.0),
    guardrails={
        "error_rate": Margin.parse("+1pp"),
        "latency_p99": Margin.parse("x1.2"),
        "rmse": Margin.parse("x1.05"),
    },
)
GATES = GateSettings(
    limits=(Limit("rmse", max=1.5), Limit("error_rate", max=0.05), Limit("latency_p99", max=0.05))
)

ARMS = (("old", "champion"), ("new", "candidate"))


def latencies(n, seconds):
    return {str(bucket(seconds)): n} if n else {}


def a_second(second, *, n, errors=(0, 0), seq=2, arm="candidate", latency=(0.002, 0.002)):
    return [
        {
            "second": second, "routes_seq": seq, "bundle": bundle, "arm": role, "n": size, "errors": bad, "slow": 0,
            "latency": latencies(size, took),
        }
        for bundle, role, size, bad, took in zip(
            ("old", "new"), ("champion", arm), n, errors, latency, strict=True
        )
        if size
    ]  # fmt: skip


def labels(second, losses, *, bundle, arm, seq=2, limit=1.5):
    squared = np.asarray(losses, dtype=float)
    return {
        "second": second, "labelled_second": second, "routes_seq": seq, "bundle": bundle, "arm": arm,
        "n_labels": len(squared), "loss": "squared", "loss_sum": float(squared.sum()),
        "loss_sq": float((squared**2).sum()), "hits": 0, "more": {},
        "bets": {"rmse": {"limit": limit, "logs": bet_logs(limit**2, squared).tolist()}},
    }  # fmt: skip


def an_evidence(**changes):
    return Evidence(
        SETTINGS, GATES, **{"champion": "old", "candidate": "new", "since_seq": 2, **changes}
    )


def verdict(traffic, *, step=0, n_steps=2):
    return judge(traffic, SETTINGS, 0.0, 1e6, step=step, n_steps=n_steps)


def test_nothing_is_said_before_the_candidate_was_asked():
    evidence = an_evidence()
    evidence.fold(a_second(1, n=(100, 0)))
    assert evidence.traffic(2) is None
    assert verdict(evidence.traffic(2)).verdict.answer is Answer.UNDECIDED


def test_lines_from_before_the_rollout_and_of_other_bundles_do_not_count():
    evidence = an_evidence()
    stranger = [{**line, "bundle": "other"} for line in a_second(3, n=(50, 50), errors=(0, 50))]
    evidence.fold([*a_second(1, n=(50, 50), errors=(0, 50), seq=1), *stranger])
    assert evidence.traffic(2) is None
    evidence.fold(a_second(4, n=(70, 30)))
    traffic = evidence.traffic(2)
    assert traffic["total"] == {"requests": 30}
    assert traffic["guardrails"]["error_rate"]["harm"] < 1


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_matter_in_which_helpings_the_seconds_come(seed):
    rng = np.random.default_rng(seed)
    seconds = []
    for second in range(60):
        n = (
            int(rng.poisson(9)),
            int(rng.poisson(1)),
        )  # often one arm is empty, so batches span seconds
        seconds.append(
            a_second(second, n=n, errors=(0, int(rng.binomial(n[1], 0.3))), seq=2 + second // 30)
        )
    seconds = [
        [
            *lines,
            *(
                labels(i, rng.normal(size=5) ** 2, bundle=b, arm=a, seq=2 + i // 30)
                for b, a in ARMS
            ),
        ]
        for i, lines in enumerate(seconds)
    ]
    whole, parts = an_evidence(), an_evidence()
    whole.fold([line for second in seconds for line in second])
    while seconds:
        helping = int(rng.integers(1, 6))
        parts.fold([line for second in seconds[:helping] for line in second])
        seconds = seconds[helping:]
        kept, parts = parts, an_evidence()
        assert parts.resume(json.loads(json.dumps(kept.as_json(), allow_nan=False)))
    assert whole.champion_limits() == parts.champion_limits()
    assert whole.traffic(3) == parts.traffic(3)
    assert json.loads(json.dumps(whole.traffic(3), allow_nan=False)) == whole.traffic(3)


def test_a_candidate_that_fails_everything_is_rejected_for_errors_within_seconds():
    evidence = an_evidence()
    for second in range(20):
        evidence.fold(a_second(second, n=(95, 5), errors=(0, 5)))
        judged = verdict(evidence.traffic(2))
        if judged.verdict.answer is Answer.REJECT:
            break
    assert judged.cause == "errors"
    assert second <= 2


def test_a_candidate_twice_as_slow_is_rejected_for_latency_and_one_alike_is_not():
    for took, wanted in ((0.04, Answer.REJECT), (0.021, Answer.ACCEPT)):
        evidence = an_evidence()
        for second in range(20):
            evidence.fold(a_second(second, n=(75, 25), latency=(0.02, took)))
        judged = verdict(evidence.traffic(2))
        assert judged.verdict.answer is wanted
        assert judged.cause == ("latency" if wanted is Answer.REJECT else "")


def test_a_shadow_is_judged_by_errors_but_not_by_how_long_it_takes():
    evidence = an_evidence()
    for second in range(20):
        evidence.fold(a_second(second, n=(50, 50), arm="shadow", latency=(0.002, 3.0)))
    traffic = evidence.traffic(2)
    assert verdict(traffic).verdict.answer is Answer.ACCEPT
    assert "latency_p99" not in traffic["limits"]
    evidence.fold(a_second(21, n=(50, 50), errors=(0, 25), arm="shadow"))
    assert verdict(evidence.traffic(2)).cause == "errors"


def test_promotion_is_proven_on_all_steps_together_and_the_wait_says_how_far():
    evidence = an_evidence()
    answers = []
    for second in range(60):
        seq = 2 if second < 10 else 3
        evidence.fold(a_second(second, n=(50, 50), seq=seq))
        judged = verdict(evidence.traffic(seq, share=0.5), step=1 if seq == 3 else 0)
        answers.append(judged.verdict)
    assert [a.answer for a in answers[:2]] == [Answer.UNDECIDED] * 2
    assert answers[-1].answer is Answer.ACCEPT
    first = next(i for i, a in enumerate(answers) if a.answer is Answer.ACCEPT and i >= 10)
    assert evidence.traffic(3)["step"] == {"requests": 50 * 50, "seconds": 50.0}
    assert first < 30


def test_quality_counts_from_twenty_labels_in_each_arm_and_needs_proof():
    rng = np.random.default_rng(0)
    evidence = an_evidence()
    evidence.fold(a_second(1, n=(70, 30)))
    evidence.fold([labels(1, rng.normal(size=70) ** 2, bundle="old", arm="champion")])
    evidence.fold([labels(1, rng.normal(size=19) ** 2, bundle="new", arm="candidate")])
    assert "rmse" not in evidence.traffic(2)["guardrails"]
    evidence.fold([labels(2, rng.normal(size=11) ** 2, bundle="new", arm="candidate")])
    assert evidence.traffic(2)["guardrails"]["rmse"]["needs_proof"]
    for second in range(3, 20):
        evidence.fold(a_second(second, n=(70, 30)))
        evidence.fold([labels(second, rng.normal(size=70) ** 2, bundle="old", arm="champion")])
        evidence.fold(
            [labels(second, (2 * rng.normal(size=30)) ** 2, bundle="new", arm="candidate")]
        )
    judged = verdict(evidence.traffic(2))
    assert judged.verdict.answer is Answer.REJECT
    assert judged.cause == "quality"
    found = evidence.traffic(2)["guardrails"]["rmse"]
    assert found["lower"] < found["value"] < found["upper"]
    assert found["value"] == pytest.approx(1.0, abs=0.25)


def test_a_shadow_s_quality_is_judged_on_the_same_rows_as_the_champion_s():
    rng = np.random.default_rng(2)
    verdicts = {}
    for worse in (1.0, 1.15):
        evidence = an_evidence()
        for second in range(12):
            evidence.fold(a_second(second, n=(50, 50), arm="shadow"))
            champion = rng.normal(size=50)
            mine = (worse * champion + 0.05 * rng.normal(size=50)) ** 2
            old, new = (
                labels(second, champion**2, bundle="old", arm="champion"),
                labels(second, mine, bundle="new", arm="shadow"),
            )
            new["pair"] = {
                "n": 50, "champion": [old["loss_sum"], old["loss_sq"]], "shadow": [new["loss_sum"], new["loss_sq"]],
                "cross": float((champion**2 * mine).sum()),
            }  # fmt: skip
            evidence.fold([old, new])
        verdicts[worse] = evidence.traffic(2)["guardrails"]["rmse"]
    bar = log(1 / 0.05)
    assert verdicts[1.0]["proof"] >= bar > verdicts[1.0]["harm"]
    assert verdicts[1.15]["harm"] >= bar > verdicts[1.15]["proof"]
    assert verdicts[1.15]["lower"] < 0.15 < verdicts[1.15]["upper"]


def test_a_champion_that_breaks_a_limit_after_a_good_hour_is_called_broken_within_seconds():
    evidence = Evidence(SETTINGS, GATES, champion="old", champion_since_seq=5)
    evidence.fold(line for second in range(3600) for line in a_second(second, n=(20, 0), seq=5))
    limits = evidence.champion_limits()["limits"]
    assert set(limits) == {"error_rate", "latency_p99"}
    assert all(test["broken"] < log(1 / 0.05) for test in limits.values())
    evidence.fold(
        line
        for second in range(3600, 3603)
        for line in a_second(second, n=(20, 0), errors=(10, 0), seq=5)
    )
    broken = evidence.champion_limits()["limits"]["error_rate"]
    assert broken["broken"] >= log(1 / 0.05)
    assert broken["cause"] == "errors"


def test_the_champion_s_quality_limit_is_judged_on_labels_since_its_promotion():
    rng = np.random.default_rng(1)
    evidence = Evidence(SETTINGS, GATES, champion="old", champion_since_seq=5)
    bad = (3 * rng.normal(size=60)) ** 2
    evidence.fold([labels(1, bad, bundle="old", arm="champion", seq=4)])
    assert "rmse" not in evidence.champion_limits()["limits"]
    evidence.fold([labels(2, bad, bundle="old", arm="champion", seq=5)])
    found = evidence.champion_limits()["limits"]["rmse"]
    assert found["broken"] >= log(1 / 0.05)
    assert found["cause"] == "quality"
    assert found["lower"] < found["value"] < found["upper"]


def test_what_was_kept_about_another_pair_is_not_taken_over():
    kept = an_evidence()
    kept.fold(a_second(1, n=(50, 50)))
    other = an_evidence(candidate="newer")
    assert not other.resume(kept.as_json())
    assert other.traffic(2) is None


def test_a_rollout_is_about_the_arms_of_its_routes():
    arms = [
        {"bundle": "old", "version": 1, "role": "champion", "share": 1.0, "shadow": False},
        {"bundle": "new", "version": 2, "role": "candidate", "share": 0.0, "shadow": True},
    ]
    evidence = Evidence.of_rollout(SETTINGS, GATES, arms, 2)
    assert evidence.pair == ["old", "new", 2, None]
    evidence.fold(a_second(1, n=(100, 100), errors=(30, 30)))
    assert evidence.champion_limits()["limits"] == {}
    assert evidence.traffic(2)["limits"]["error_rate"]["value"] == 0.3


def outcome(rng, *, champion_rate, candidate_rate):
    """How a rollout of two steps ends when it is judged each second."""
    settings = RolloutSettings(
        bake=BakeSettings(requests=100, time_s=5.0), guardrails={"error_rate": Margin.parse("+1pp")}
    )
    evidence = Evidence(settings, GateSettings(), champion="old", candidate="new")
    step, since = 0, 0
    for second in range(120):
        n = ((150, 50), (100, 100))[step]
        errors = (int(rng.binomial(n[0], champion_rate)), int(rng.binomial(n[1], candidate_rate)))
        evidence.fold(a_second(second, n=n, errors=errors, seq=2 + step))
        traffic = evidence.traffic(2 + step)
        verdict, *_ = judge(traffic, settings, float(since), second + 1.0, step=step, n_steps=2)
        if verdict.answer is Answer.REJECT:
            return "regressed"
        if verdict.answer is Answer.ACCEPT:
            if step == 1:
                return "promoted"
            step, since = 1, second + 1
    return "undecided"


def shares(n_runs, **rates):
    rng = np.random.default_rng(11)
    ends = [outcome(rng, **rates) for _ in range(n_runs)]
    return {end: ends.count(end) / n_runs for end in ("promoted", "regressed", "undecided")}


def test_good_releases_go_out_and_are_rolled_back_no_more_often_than_promised():
    found = shares(100, champion_rate=0.004, candidate_rate=0.004)
    assert found["regressed"] <= 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5
    assert found["promoted"] >= 0.8


def test_releases_worse_by_the_margin_are_promoted_no_more_often_than_promised():
    found = shares(50, champion_rate=0.004, candidate_rate=0.014)
    assert found["promoted"] <= 0.05 + 3 * (0.05 * 0.95 / 50) ** 0.5


def test_clearly_bad_releases_are_all_rolled_back():
    assert shares(40, champion_rate=0.004, candidate_rate=0.06) == {
        "promoted": 0,
        "regressed": 1,
        "undecided": 0,
    }
