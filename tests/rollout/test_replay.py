"""A candidate of a model that only scores batches: judged by what it answers to a table beside the champion."""

from typing import Any

import pytest

from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Say, Start, Wait
from gyrostat.rollout import production, replay
from gyrostat.rollout.production import Facts, Offer, State
from gyrostat.rollout.settings import RolloutSettings
from gyrostat.terms import Answer, Draft, Margin

STREAM, DAY = "production/wine", 86400.0
RAILS = {"error_rate": Margin.parse("+1pp"), "rmse": Margin.parse("x1.05")}
TERMS = RolloutSettings(steps=(), guardrails=RAILS, expires_s=7 * DAY)
OLD, NEW = (Offer(f"b{n}", f"run/wine/{n}", f"s{n}", f"{STREAM}#{n}", n) for n in (1, 2))


def measured(value: float, half: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "lower": value - half, "upper": value + half, "n": 1000, "base": 0.0, "cause": "errors", **more}  # fmt: skip


def evidence(rails: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    return {
        "input": "in.csv", "n": 1000, "n_labels": 0, "guardrails": {"error_rate": measured(0.0, 0.004)} | (rails or {}), "limits": limits or {},
        "changed": {"value": 0.25}, **more,
    }  # fmt: skip


def quality(value: float, half: float = 0.01) -> dict[str, Any]:
    return {"rmse": measured(value, half, base=0.6, cause="quality")}


@pytest.mark.parametrize(
    ("found", "answer", "cause"),
    [
        (evidence(), Answer.ACCEPT, ""),
        (evidence({"error_rate": measured(0.0, 0.02)}), Answer.UNDECIDED, ""),
        (evidence({"error_rate": measured(0.015, 0.01)}), Answer.UNDECIDED, ""),
        (evidence({"error_rate": measured(0.05, 0.02)}), Answer.REJECT, "errors"),
        (evidence({"error_rate": measured(0.0, 0.004)} | quality(0.0)), Answer.ACCEPT, ""),
        (evidence(quality(0.02)), Answer.ACCEPT, ""),  # to the hair: 0.03 of 0.6 x 0.05
        (evidence(quality(0.025)), Answer.UNDECIDED, ""),
        (evidence(quality(0.05)), Answer.REJECT, "quality"),
        (evidence(n=0), Answer.UNDECIDED, ""),
        (evidence(limits={"rmse": {**measured(0.9, 0.1), "limit": 0.7, "side": "max", "cause": "quality"}}), Answer.REJECT, "quality"),
        (evidence(limits={"rmse": {**measured(0.75, 0.1), "limit": 0.7, "side": "max", "cause": "quality"}}), Answer.ACCEPT, ""),
        (evidence(limits={"accuracy": {**measured(0.5, 0.1), "limit": 0.7, "side": "min", "cause": "quality"}}), Answer.REJECT, "quality"),
    ],
)  # fmt: skip
def test_bounds_decide_never_points(found, answer, cause):
    verdict, said, *_ = replay.judge(found, TERMS)
    assert (verdict.answer, said) == (answer, cause)
    assert verdict.needs == ("the next batch" if answer is Answer.UNDECIDED else "")


def test_a_guardrail_that_could_not_be_measured_never_passes():
    found = evidence()
    del found["guardrails"]["error_rate"]
    assert replay.judge(found, TERMS).verdict.answer is Answer.UNDECIDED


def test_an_acceptance_says_how_much_is_another_answer():
    moved = {"value": 0.031, "lower": 0.01, "upper": 0.05}
    reason = replay.judge(evidence(moved=moved), TERMS).verdict.reason
    assert "25 % of answers changed, by +0.031 in the mean (0.01 to 0.05)" in reason


def test_however_often_it_is_replayed_the_promise_is_kept():
    shares = [replay.alpha(TERMS, n) for n in range(1000)]
    assert shares[0] == TERMS.wrong_decisions / 2
    assert 0.99 * TERMS.wrong_decisions < sum(shares) < TERMS.wrong_decisions


# ---- the life


def place(seq: int, at: float = 0.0) -> dict[str, Any]:
    return {"position": 1, "stream": STREAM, "seq": seq, "fence": None, "at": at, "prev": ""}


def on(f: Facts, seen: dict[str, Any] | None = None, *, now: float = 0.0, terms=TERMS) -> Facts:
    say = production.decide(f, seen or {}, terms, now)
    assert isinstance(say, Say), say
    body = {"seen": seen or {}, "cause": say.cause, "declaration": "d", "detail": dict(say.detail or {})}  # fmt: skip
    draft = Draft(say.kind, now, "loop", say.inputs, say.outputs, body)
    return production.fold(f, seal(draft, **place(f.seq + 1, now)))


def hear(f: Facts, kind: str, **body: Any) -> Facts:
    return production.fold(f, seal(Draft(kind, 0.0, "x", body=body), **place(f.seq + 1)))


def answered(f: Facts) -> Facts:
    return hear(f, "batch_answered", batch="nightly", input="in/1.csv", input_digest="i")


@pytest.fixture
def approved() -> Facts:
    return Facts(STREAM, seq=9, state=State.APPROVED, champion=OLD, candidate=NEW, version=2)


def done(f: Facts, found: dict[str, Any], **more: Any) -> dict[str, Any]:
    of = f.answered_batch.seq if f.answered_batch else 0
    return {"status": "done", "made": "evidence:e", "evidence": found, "champion_bundle": "b1", "of": of, **more}  # fmt: skip


def test_without_steps_it_waits_for_a_batch_and_asks_beside_the_champion(approved):
    f = on(approved)
    assert (f.state, production.subject(f)[0]) == (State.REPLAYING, "replay")
    assert [arm["bundle"] for arm in production.routes(f)] == ["b1"]
    assert isinstance(production.decide(f, {}, TERMS, 1.0), Wait)
    f = answered(f)
    start = production.decide(f, {}, TERMS, 1.0)
    assert isinstance(start, Start)
    assert (start.what, start.key) == ("replay", f.key)
    assert (start.spec["bundle"], start.spec["champion_bundle"], start.spec["input"], start.spec["of"]) == ("b2", "b1", "in/1.csv", f.seq)  # fmt: skip


def test_the_batch_before_it_was_approved_will_do(approved):
    assert isinstance(production.decide(on(answered(approved)), {}, TERMS, 1.0), Start)


def test_a_first_model_is_champion_once_it_is_approved(approved):
    f = on(production.replace(approved, champion=None))
    assert (f.state, f.champion) == (State.KEEPING, NEW)


def test_accepted_it_is_champion_rejected_it_is_never_offered_again(approved):
    f = answered(on(approved))
    promoted = on(f, done(f, evidence()))
    assert (promoted.state, promoted.champion, promoted.previous) == (State.KEEPING, NEW, OLD)
    gone = on(f, done(f, evidence(quality(0.2))))
    assert (gone.state, gone.champion, gone.regressed) == (State.KEEPING, OLD, (NEW,))
    assert gone.barred == ("s2",)
    told = on(gone, {"told": gone.owes[0].key})
    again = hear(told, "offered", bundle="b2", run="run/wine/2", snapshot="s2")
    refused = production.decide(again, {}, TERMS, 0.0)
    assert isinstance(refused, Say)
    assert refused.kind == "refused"


def test_undecided_waits_for_another_table_and_asks_more_of_it(approved):
    f = answered(on(approved))
    open_ = {"error_rate": measured(0.0, 0.02)}
    f = on(f, done(f, evidence(open_)))
    assert (f.state, f.n_replays) == (State.REPLAYING, 1)
    assert isinstance(production.decide(f, {}, TERMS, 1.0), Wait)
    start = production.decide(answered(f), {}, TERMS, 1.0)
    assert isinstance(start, Start)
    assert start.spec["alpha"] == pytest.approx(0.05 / 6)


def test_what_fails_is_tried_again_then_with_the_next_table(approved):
    f = answered(on(approved))
    for attempt in (2, 3):
        f = on(f, {"status": "lost"})
        assert (f.state, f.attempt) == (State.REPLAYING, attempt)
    f = on(f, {"status": "lost"})
    assert (f.attempt, f.n_replays) == (1, 1)
    assert isinstance(production.decide(f, {}, TERMS, 1.0), Wait)


def test_a_comparison_with_a_champion_that_is_gone_counts_for_nothing(approved):
    f = answered(on(approved))
    f = on(f, done(f, evidence(), champion_bundle="b0"))
    assert (f.state, f.attempt, f.replayed) == (State.REPLAYING, 1, 0)
    assert isinstance(production.decide(f, {}, TERMS, 1.0), Start)


@pytest.mark.parametrize(("then", "kind"), [("ask", "overdue"), ("hold", "overdue"), ("reject", "expired")])  # fmt: skip
def test_without_a_table_it_ends_as_declared(approved, then, kind):
    terms = RolloutSettings(steps=(), guardrails=RAILS, expires_s=DAY, then=then)
    f = on(approved)
    assert production.decide(f, {}, terms, 0.5 * DAY) == Wait(0.5 * DAY + production.LOOK_S)
    say = production.decide(f, {}, terms, DAY)
    assert isinstance(say, Say)
    assert (say.kind, "the next batch" in say.cause) == (kind, True)


def test_a_person_may_decide_one_that_is_overdue(approved):
    f = on(on(approved), now=8 * DAY)
    yes = hear(f, "answered", bundle="b2", answer="approved", actor="kim")
    assert on(yes, now=8 * DAY).champion == NEW
    no = on(hear(f, "answered", bundle="b2", answer="rejected", actor="kim"), now=8 * DAY)
    assert (no.state, no.champion) == (State.KEEPING, OLD)


def test_a_hold_and_a_newer_offer_take_it_off_as_one_that_waits(approved):
    f = on(approved)
    held = on(hear(f, "hold_asked", actor="kim"))
    assert (held.state, held.offers) == (State.HELD, (NEW,))
    newer = on(hear(f, "offered", bundle="b3", run="run/wine/3", snapshot="s3"))
    assert (newer.state, newer.candidate) == (State.KEEPING, None)
    assert [o.bundle for o in newer.offers] == ["b3"]
