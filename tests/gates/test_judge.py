"""The gates' truth table: bounds decide, worse evidence never helps."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyrostat.gates.judge import conclude, judge
from gyrostat.gates.settings import ChampionGateSettings, GateSettings
from gyrostat.terms import Answer, Limit, Verdict

ACCEPT, REJECT, UNDECIDED = Answer.ACCEPT, Answer.REJECT, Answer.UNDECIDED
ORDER = {ACCEPT: 0, UNDECIDED: 1, REJECT: 2}
SETTINGS = GateSettings(
    limits=(Limit("rmse", max=0.7), Limit("error_rate", max=0.01), Limit("latency_p99", max=0.05)),
    champion=ChampionGateSettings("rmse", 0.01),
)
EVIDENCE = {
    "metrics": {"rmse": {"name": "rmse", "value": 0.628, "lower": 0.59, "upper": 0.67, "n": 318}},
    "trivial": {
        "name": "rmse",
        "value": 0.81,
        "difference": -0.18,
        "lower": -0.24,
        "upper": -0.12,
        "n": 318,
    },
    "champion": None,
    "latency_p99": 0.001,
    "size_bytes": 1000,
    "n_heldout": 318,
}


def with_champion(lower, upper, **more):
    middle = (lower + upper) / 2
    found = {
        "bundle": "b",
        "difference": middle,
        "lower": lower,
        "upper": upper,
        "n": 318,
        "rows": "all",
        "value": 0.6,
    }
    return {**EVIDENCE, "champion": {**found, **more}}


def with_rmse(lower, upper):
    found = {"name": "rmse", "value": (lower + upper) / 2, "lower": lower, "upper": upper, "n": 318}
    return {**EVIDENCE, "metrics": {"rmse": found}}


def test_a_good_candidate_passes_every_gate():
    verdicts = judge(EVIDENCE, SETTINGS)
    assert list(verdicts) == ["rmse", "latency_p99", "trivial", "champion", "size"]
    assert {v.answer for v in verdicts.values()} == {ACCEPT}
    assert conclude(verdicts).answer is ACCEPT
    assert conclude(verdicts).reason == "5 of 5"


@pytest.mark.parametrize(
    ("lower", "upper", "answer"),
    [
        (0.6, 0.7, ACCEPT),
        (0.6, 0.71, UNDECIDED),
        (0.69, 0.9, UNDECIDED),
        (0.71, 0.9, REJECT),
        (0.7, 0.8, UNDECIDED),
    ],
)
def test_a_limit_is_judged_by_the_interval_not_the_point(lower, upper, answer):
    assert judge(with_rmse(lower, upper), SETTINGS)["rmse"].answer is answer


@pytest.mark.parametrize(
    ("lower", "upper", "answer"), [(0.7, 0.8, ACCEPT), (0.65, 0.8, UNDECIDED), (0.5, 0.69, REJECT)]
)
def test_a_limit_from_below_is_judged_the_other_way_round(lower, upper, answer):
    settings = replace(SETTINGS, limits=(Limit("accuracy", min=0.7),))
    found = {
        "name": "accuracy",
        "value": (lower + upper) / 2,
        "lower": lower,
        "upper": upper,
        "n": 100,
    }
    assert (
        judge({**EVIDENCE, "metrics": {"accuracy": found}}, settings)["accuracy"].answer is answer
    )


@pytest.mark.parametrize(
    ("lower", "upper", "answer"),
    [
        (-0.04, -0.01, ACCEPT),
        (-0.01, 0.01, ACCEPT),
        (-0.006, 0.015, UNDECIDED),
        (0.012, 0.032, REJECT),
    ],
)
def test_a_candidate_may_be_worse_than_the_champion_by_the_margin(lower, upper, answer):
    assert judge(with_champion(lower, upper), SETTINGS)["champion"].answer is answer


def test_undecided_says_how_many_more_rows_would_settle_it():
    verdict = judge(with_champion(-0.006, 0.015, difference=0.004), SETTINGS)["champion"]
    # Half the width is 0.0105, the distance to the margin 0.006: 318 * (1.75 ** 2 - 1) = 656 more, rounded up.
    assert verdict.needs == "about 700 more held-out rows"
    assert "0.004 worse than the champion (-0.006 to 0.015; margin 0.010)" in verdict.reason


@pytest.mark.parametrize(
    ("upper", "answer"), [(-0.001, ACCEPT), (0.0, UNDECIDED), (0.05, UNDECIDED)]
)
def test_a_model_must_be_better_than_one_that_looks_at_nothing(upper, answer):
    trivial = {**EVIDENCE["trivial"], "difference": -0.1, "lower": -0.2, "upper": upper}
    assert judge({**EVIDENCE, "trivial": trivial}, SETTINGS)["trivial"].answer is answer


def test_a_model_that_is_no_better_than_nothing_is_rejected():
    trivial = {**EVIDENCE["trivial"], "difference": 0.0, "lower": 0.0, "upper": 0.0}
    assert judge({**EVIDENCE, "trivial": trivial}, SETTINGS)["trivial"].answer is REJECT


def test_without_a_paired_difference_the_interval_is_held_against_the_trivial_value():
    trivial = {"name": "rmse", "value": 0.66}
    assert judge({**EVIDENCE, "trivial": trivial}, SETTINGS)["trivial"].answer is UNDECIDED
    assert (
        judge({**EVIDENCE, "trivial": {**trivial, "value": 0.68}}, SETTINGS)["trivial"].answer
        is ACCEPT
    )


@pytest.mark.parametrize(
    ("change", "gate"),
    [({"latency_p99": 0.051}, "latency_p99"), ({"size_bytes": 200_000_001}, "size")],
)
def test_budgets_reject_what_exceeds_them(change, gate):
    verdicts = judge({**EVIDENCE, **change}, SETTINGS)
    assert [name for name, v in verdicts.items() if v.answer is REJECT] == [gate]


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"metrics": {}}, "rmse"),
        (
            {
                "metrics": {
                    "rmse": {"name": "rmse", "value": None, "lower": None, "upper": None, "n": 1}
                }
            },
            "rmse",
        ),
        ({"trivial": None}, "trivial"),
        ({"latency_p99": None}, "latency_p99"),
        ({"size_bytes": None}, "size"),
        (
            {"champion": {"bundle": "b", "difference": None, "lower": None, "upper": None, "n": 0}},
            "champion",
        ),
    ],
)
def test_what_was_not_measured_is_undecided_never_accepted(change, gate):
    verdicts = judge({**EVIDENCE, **change}, SETTINGS)
    assert verdicts[gate].answer is UNDECIDED
    assert conclude(verdicts).answer is UNDECIDED


answers = st.sampled_from(list(Answer))


@given(st.dictionaries(st.text("abc", min_size=1), answers, min_size=1))
def test_one_rejection_outweighs_all_and_one_doubt_the_rest(given_answers):
    verdicts = {
        name: Verdict(a, "gates.x/1", name, needs="rows" if a is UNDECIDED else "")
        for name, a in given_answers.items()
    }
    worst = max(given_answers.values(), key=ORDER.__getitem__)
    assert conclude(verdicts).answer is worst


number = st.floats(0, 2, allow_nan=False)


@given(number, number, number, number, number, st.sampled_from(["rmse", "champion", "trivial"]))
def test_worse_evidence_never_improves_an_answer(lower, width, worse_by, wider_by, bound, gate):
    settings = replace(
        SETTINGS, limits=(Limit("rmse", max=bound),), champion=ChampionGateSettings("rmse", bound)
    )

    def evidence(low, high):
        if gate == "rmse":
            return with_rmse(low, high)
        if gate == "champion":
            return with_champion(low, high)
        found = {
            **EVIDENCE["trivial"],
            "difference": (low + high) / 2 - 1,
            "lower": low - 1,
            "upper": high - 1,
        }
        return {**EVIDENCE, "trivial": found}

    before = judge(evidence(lower, lower + width), settings)[gate].answer
    moved = judge(evidence(lower + worse_by, lower + width + worse_by), settings)[gate].answer
    assert ORDER[moved] >= ORDER[before]
    # A wider interval is less knowledge: it may end in doubt, never turn one answer into the other.
    wider = judge(evidence(lower - wider_by, lower + width + wider_by), settings)[gate].answer
    assert wider in (before, UNDECIDED)


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_slower_or_larger_model_is_judged_no_better(one, more):
    limit = replace(SETTINGS, limits=(Limit("latency_p99", max=50.0),), size_bytes=50)
    for key, gate in (("latency_p99", "latency_p99"), ("size_bytes", "size")):
        before = judge({**EVIDENCE, key: one}, limit)[gate].answer
        after = judge({**EVIDENCE, key: one + more}, limit)[gate].answer
        assert ORDER[after] >= ORDER[before]


def test_verdicts_are_strict_json_with_their_rule():
    for verdict in judge(with_champion(-0.006, 0.015), SETTINGS).values():
        value = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
        assert value["rule"].startswith("gates.")
        assert value["rule"].endswith("/1")
