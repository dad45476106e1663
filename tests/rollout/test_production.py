"""Production as pure functions: what is said, what is owed and who answers, from entries alone."""

from math import log
from typing import Any

import pytest

from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Say, Show, Start, Tell, Wait, freeze
from gyrostat.rollout import production
from gyrostat.rollout.production import Facts, Offer, State
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.rollout.states import IN_TRAFFIC, REPLACEABLE, TRANSITIONS
from gyrostat.terms import Draft, Margin

STREAM = "production/wine"
A, B, C = (
    Offer(x, f"run/wine/{n}", f"snap-{x}", f"{STREAM}#{n}", n) for n, x in enumerate("abc", 1)
)
TERMS = RolloutSettings(
    bake=BakeSettings(requests=100, time_s=60.0), steps=(0.0, 0.05, 0.5), guardrails={"error_rate": Margin.parse("+1pp")},
)  # fmt: skip
SURE = 99.0
CAUSES = ["errors", "latency", "quality"]


def then(
    facts: Facts, kind: str, body: dict[str, Any] | None = None, *, inputs=(), outputs=(), at=0.0
) -> Facts:
    """The facts after one more entry."""
    draft = Draft(kind, at, "test", tuple(inputs), tuple(outputs), body or {})
    entry = seal(
        draft, position=1, stream=facts.stream, seq=facts.seq + 1, fence=None, at=at, prev=""
    )
    return production.fold(facts, entry)


def said(facts: Facts, say: Any, *, at: float = 0.0) -> Facts:
    """The facts after the loop said it."""
    assert isinstance(say, Say), say
    body = {
        "seen": {},
        "now": at,
        "release": 1,
        "cause": say.cause,
        "declaration": "d",
        "detail": dict(say.detail or {}),
    }
    return then(facts, say.kind, body, inputs=say.inputs, outputs=say.outputs, at=at)


def decide(facts: Facts, seen: dict[str, Any] | None = None, *, terms=TERMS, now=0.0) -> Any:
    return production.decide(facts, seen or {}, terms, now)


def on(facts: Facts, seen: dict[str, Any] | None = None, *, terms=TERMS, now=0.0) -> Facts:
    """The facts after the next decision, which must be a step."""
    return said(facts, decide(facts, seen, terms=terms, now=now), at=now)


def facts(**known: Any) -> Facts:
    return Facts(STREAM, **{"seq": 9, "mark": 9, **known})


def a_canary(*, step: int = 1, **known: Any) -> Facts:
    state = State.SHADOW if step == 0 else State.CANARY
    plan = {"steps": TERMS.steps, "step": step, "routed_at": 9, "rollout_seq": 8, "version": 3}
    return facts(**{"state": state, "champion": B, "candidate": C, "previous": A, **plan, **known})


def traffic(
    *, harm=-1.0, proof=SURE, cause="errors", seq=9, requests=500, broken=-1.0
) -> dict[str, Any]:
    rail = {
        "harm": harm,
        "proof": proof,
        "needs_proof": True,
        "value": 0.0,
        "lower": -0.01,
        "upper": 0.01,
        "n": requests,
        "cause": cause,
    }
    limit = {
        "broken": broken,
        "value": 0.0,
        "lower": 0.0,
        "upper": 0.1,
        "limit": 0.01,
        "n": requests,
        "cause": cause,
    }
    return {
        "traffic": {
            "routes_seq": seq, "step": {"requests": requests, "seconds": 1e6}, "total": {"requests": requests},
            "guardrails": {"error_rate": rail}, "limits": {"error_rate": limit}, "evidence": "e",
        }
    }  # fmt: skip


def offered(f: Facts, offer: Offer) -> Facts:
    return then(
        f, "offered", {"bundle": offer.bundle, "run": offer.run, "snapshot": offer.snapshot}
    )


def answered(f: Facts, bundle: str, answer: str = "approved") -> Facts:
    return then(f, "answered", {"bundle": bundle, "answer": answer, "actor": "kim"})


def rollback_asked(f: Facts, bundle: str, *, to: str = "", with_data: bool = False) -> Facts:
    return then(
        f,
        "rollback_asked",
        {"bundle": bundle, "to": to, "with_data": with_data, "actor": "kim", "reason": "r"},
    )


def staged(f: Facts, *, terms=TERMS) -> Facts:
    """An offer taken up and through staging."""
    f = on(f, terms=terms)
    assert f.state is State.STAGING
    return on(f, {"status": "done", "made": "report:1", "is_answering": True}, terms=terms)


# ---- the door and approval


def test_the_first_release_asks_and_then_takes_everything():
    f = staged(offered(Facts(STREAM), A))
    f = on(f)
    assert f.state is State.WAITING_APPROVAL
    assert isinstance(decide(f), Wait)
    f = on(answered(f, "a"))
    f = on(f)
    assert (f.state, f.champion and f.champion.version, f.candidate) == (State.KEEPING, 1, None)
    assert [(arm["bundle"], arm["share"], arm["role"]) for arm in production.routes(f)] == [
        ("a", 1.0, "champion")
    ]
    assert decide(f, {"served": 0}) == Show("router", f.seq, production._shown(f))


def released(*, terms=TERMS, answer: bool) -> Facts:
    """A second release, from offer to champion."""
    f = staged(offered(facts(champion=A, needs_person=False, version=1), B), terms=terms)
    f = on(f, terms=terms)
    if answer:
        f = on(answered(f, "b"), terms=terms)
    return f


def test_later_releases_do_not_ask_until_the_limits_are_loosened():
    f = released(answer=False)
    assert f.state is State.APPROVED
    loosened = then(
        facts(champion=A, needs_person=False, version=1),
        "declared",
        {"digest": "d2", "loosened": ["rmse"], "actor": "kim"},
    )
    assert on(staged(offered(loosened, B))).state is State.WAITING_APPROVAL


def test_a_yes_to_one_that_was_taken_up_before_does_not_cover_limits_loosened_since():
    f = released(answer=False)
    f = then(f, "declared", {"digest": "d2", "loosened": ["rmse"], "actor": "kim"})
    while f.state is not State.KEEPING:
        f = on(f, traffic(seq=f.routed_at), now=f.since + 1e6)
    assert f.champion is not None
    assert f.champion.bundle == "b"
    assert f.needs_person


@pytest.mark.parametrize(
    ("approval", "state"), [("always", State.WAITING_APPROVAL), ("never", State.APPROVED)]
)
def test_always_and_never_mean_what_they_say(approval, state):
    terms = RolloutSettings(approval=approval)
    for needs_person in (True, False):
        f = staged(offered(facts(champion=A, needs_person=needs_person, version=1), B), terms=terms)
        say = decide(f, terms=terms)
        assert said(f, say).state is state
        if approval == "never":
            assert say.cause == "not asked for: rollout.approval is never"


def test_a_no_ends_the_offer():
    f = on(staged(offered(facts(champion=A, version=1), B)))
    f = on(answered(f, "b", "rejected"))
    assert (f.state, f.candidate, f.champion) == (State.KEEPING, None, A)


def test_an_answer_counts_for_the_bundle_it_names_and_only_when_asked():
    f = on(staged(offered(facts(champion=A, version=1), B)))
    assert isinstance(decide(answered(f, "a")), Wait)
    early = answered(facts(state=State.STAGING, candidate=B, champion=A), "b")
    assert early.answer == ""


def test_the_first_answer_counts():
    f = answered(
        answered(on(staged(offered(facts(champion=A, version=1), B))), "b", "rejected"), "b"
    )
    assert decide(f).kind == "refused"


@pytest.mark.parametrize(
    ("known", "cause"),
    [({"barred": ("snap-b",)}, "barred"), ({"champion": B}, "champion"), ({"regressed": (B,)}, "regressed")],
)  # fmt: skip
@pytest.mark.parametrize("state", [State.KEEPING, *REPLACEABLE, State.APPROVED])
def test_what_is_not_fit_is_refused_at_the_door_and_until_it_takes_traffic(state, known, cause):
    where = {"offers": (B,)} if state is State.KEEPING else {"state": state, "candidate": B}
    assert decide(facts(**{"champion": A, **where, **known})) == Say("refused", B.ref, cause=cause)


@pytest.mark.parametrize("state", REPLACEABLE)
def test_a_newer_offer_supersedes_one_that_takes_no_traffic(state):
    f = offered(facts(state=state, candidate=B, champion=A), C)
    f = on(f)
    assert (f.state, f.candidate) == (State.KEEPING, None)
    assert decide(f).inputs[0] == "c"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_what_takes_traffic_is_finished_first_and_of_those_that_wait_the_newest_stays(step):
    f = offered(offered(a_canary(step=step), A), A)
    oldest = f.offers[0]
    assert decide(f) == Say("superseded", oldest.ref)
    f = on(f)
    assert (len(f.offers), f.candidate) == (1, C)
    assert (
        isinstance(decide(f, traffic(proof=-1.0)), Wait)
        or decide(f, traffic(proof=-1.0)).kind == "advanced"
    )


def test_a_version_keeps_its_number_when_it_is_staged_again():
    f = staged(offered(facts(champion=A, version=1), B))
    f = on(then(f, "hold_asked", {"actor": "kim", "reason": "audit"}))
    f = then(f, "resume_asked", {"held": f.mark, "champion": ""})
    f = on(f)
    assert decide(f).outputs == ("version/wine/2",)
    assert on(f).version == 2


def test_staging_is_tried_again_when_lost_and_not_when_it_failed():
    f = facts(state=State.STAGING, candidate=B, attempt=1, declaration="d")
    start = decide(f)
    assert start == Start(
        "staging",
        f.key,
        B.ref,
        {"bundle": "b", "snapshot": "snap-b", "version": 2, "declaration": "d"},
    )
    keys = set()
    for _ in range(production.ATTEMPTS - 1):
        keys.add(f.key)
        f = on(f, {"status": "lost"})
        assert f.state is State.STAGING
    assert f.key not in keys  # asked for anew, not the lost one again
    assert on(f, {"status": "lost"}).state is State.KEEPING
    assert decide(f, {"status": "failed", "cause": "no answer"}) == Say(
        "staging_failed", B.ref, cause="no answer"
    )
    assert isinstance(decide(f, {"status": "running", "silent_s": 1.0}), Wait)
    assert decide(f, {"status": "running", "silent_s": 1e4}).kind == "staging_failed"


# ---- traffic


def test_a_release_goes_up_step_by_step_and_every_step_is_shown_before_it_counts():
    f, now, shares = (
        said(
            facts(state=State.APPROVED, candidate=C, champion=B, applied=9),
            decide(facts(state=State.APPROVED, candidate=C, champion=B)),
        ),
        0.0,
        [],
    )
    while f.state in IN_TRAFFIC:
        arms = {arm["role"]: arm for arm in production.routes(f)}
        shares.append((arms["candidate"]["share"], arms["candidate"]["shadow"]))
        assert arms["champion"]["share"] + arms["candidate"]["share"] == 1
        assert isinstance(decide(f, {"served": f.routed_at - 1, **traffic()}), Show)
        assert isinstance(
            decide(
                f, traffic(seq=f.routed_at - 1), now=1e9 - 1, terms=RolloutSettings(expires_s=1e12)
            ),
            Wait,
        )
        now += 1e4
        f = on(f, traffic(seq=f.routed_at), now=now)
    assert shares == [(0.0, True), (0.05, False), (0.5, False)]
    assert (f.champion, f.previous, f.promoted_seq, f.candidate) == (C, B, f.seq, None)


def test_the_last_step_needs_the_proof_and_the_ones_before_do_not():
    unproven = traffic(proof=-1.0)
    assert decide(a_canary(step=1), unproven, now=1e4).kind == "advanced"
    assert isinstance(decide(a_canary(step=2), unproven, now=1e4), Wait)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_harm_takes_it_off_and_only_quality_bars_its_data(step, cause):
    f = on(a_canary(step=step), traffic(harm=SURE, cause=cause))
    assert (f.state, f.candidate, f.champion, f.regressed) == (State.KEEPING, None, B, (C,))
    is_barred = cause == "quality"
    assert [t.kind for t in f.owes] == ["snapshot_barred"] * is_barred
    assert f.barred == ("snap-c",) * is_barred
    assert decide(offered(f, C), {"told": f.owes[0].key if f.owes else ""}).kind in (
        "told",
        "refused",
    )


def test_one_that_regressed_is_never_gone_back_to():
    f = on(a_canary(previous=C), traffic(harm=SURE))
    assert f.previous is None


@pytest.mark.parametrize(
    ("expired", "kind"), [("reject", "expired"), ("ask", "overdue"), ("hold", "overdue")]
)
def test_a_canary_that_proves_nothing_has_a_deadline(expired, kind):
    terms = RolloutSettings(then=expired, expires_s=1000.0)
    f = a_canary(rollout_at=0.0)
    assert decide(f, terms=terms, now=999.0).until <= 1000.0
    action = decide(f, terms=terms, now=1000.0)
    assert (action.kind, action.detail.get("then")) == (kind, "hold" if expired == "hold" else None)


@pytest.mark.parametrize("end", ["ask", "hold"])
def test_an_overdue_canary_is_told_once_and_takes_traffic_meanwhile(end):
    terms = RolloutSettings(then=end, expires_s=1000.0)
    f = on(a_canary(rollout_at=0.0), terms=terms, now=1000.0)
    assert f.state is State.CANARY
    assert len(production.routes(f)) == 2
    assert isinstance(decide(f, terms=terms, now=1001.0), Wait)
    yes, no = on(answered(f, "c")), on(answered(f, "c", "rejected"))
    assert (yes.champion, yes.state) == (C, State.KEEPING)
    assert (no.champion, no.candidate, no.state) == (B, None, State.KEEPING)


def test_an_answer_to_a_canary_that_is_not_overdue_changes_nothing():
    assert answered(a_canary(), "c").answer == ""


# ---- after promotion


def watched(broken: float, *, since_seq: int = 7) -> dict[str, Any]:
    test = {
        "broken": broken,
        "value": 0.9,
        "lower": 0.8,
        "upper": 1.0,
        "limit": 0.7,
        "n": 100,
        "cause": "quality",
    }
    return {"champion": {"limits": {"rmse": test}, "since_seq": since_seq}}


KEPT = {"champion": B, "previous": A, "promoted_at": 100.0, "promoted_seq": 7}


def test_a_champion_that_breaks_its_limit_soon_after_promotion_gives_way():
    bar = log(1 / TERMS.wrong_decisions)
    assert isinstance(decide(facts(**KEPT), watched(bar - 0.01), now=200.0), Wait)
    f = on(facts(**KEPT), watched(bar), now=200.0)
    assert (f.champion, f.previous, f.regressed, f.barred) == (A, None, (B,), ("snap-b",))


@pytest.mark.parametrize("state", [s for s in State if s not in IN_TRAFFIC])
def test_it_gives_way_whatever_else_is_under_way(state):
    f = facts(
        **KEPT, state=state, candidate=C if state not in (State.KEEPING, State.HELD) else None
    )
    f = on(f, watched(SURE), now=200.0)
    assert (f.champion, f.state) == (A, state)


@pytest.mark.parametrize(
    ("known", "seen", "now"),
    [
        (KEPT | {"previous": None}, watched(SURE), 200.0),
        (KEPT, watched(SURE), 101.0 + TERMS.watch_s),
        (KEPT, watched(SURE, since_seq=3), 200.0),
    ],
    ids=["nobody before", "the watch is over", "counted for the one before"],
)
def test_it_stays_when_there_is_nobody_to_go_back_to_or_the_numbers_are_not_its_own(
    known, seen, now
):
    assert isinstance(decide(facts(**known), seen, now=now), Wait)


# ---- people


def test_a_champion_can_be_rolled_back_while_a_canary_runs_and_the_canary_waits_again():
    f = on(rollback_asked(a_canary(), "b", with_data=True))
    assert (f.state, f.champion, f.previous, f.removed, f.offers) == (State.HELD, A, None, B, (C,))
    assert f.owes == (
        Tell("retraining/wine", "snapshot_barred", f"{STREAM}#{f.seq}", {"snapshot": "snap-b"}),
    )
    assert [arm["bundle"] for arm in production.routes(f)] == ["a"]


def test_a_person_is_heard_before_anything_else():
    f = rollback_asked(a_canary(), "c")
    seen = {"served": 0, "floor": 0, **traffic(), **watched(SURE)}
    assert decide(f, seen) == Say(
        "rolled_back",
        ("c",),
        cause="by hand",
        detail={"by": "kim", "reason": "r", "to": "", "with_data": False},
    )
    f = on(f, seen)
    assert (f.state, f.champion, f.removed, f.candidate) == (State.HELD, B, C, None)


def test_two_who_want_the_same_gone_take_off_one():
    f = on(rollback_asked(rollback_asked(a_canary(), "b"), "b"))
    assert (f.champion, f.unwanted) == (A, ())


@pytest.mark.parametrize(
    ("bundle", "to", "goes_to"),
    [("b", "", None), ("b", "a", A), ("b", "c", None), ("b", "b", None), ("a", "", None), ("z", "a", None)],
)  # fmt: skip
def test_a_rollback_goes_where_it_was_told_or_nowhere(bundle, to, goes_to):
    f = rollback_asked(facts(champion=B, released=(A,)), bundle, to=to)
    if goes_to is None:
        assert f.unwanted == ()
    else:
        assert on(f).champion == goes_to


def test_a_person_may_bring_back_one_that_regressed_and_its_data_counts_again():
    f = on(a_canary(), traffic(harm=SURE, cause="quality"))
    f = on(f, {"told": f.owes[0].key})
    f = on(rollback_asked(f, "b"))
    f = then(f, "resume_asked", {"held": f.mark, "champion": "c", "actor": "lee"})
    assert decide(f) == Say("resumed", outputs=("c",), cause="by lee")
    f = on(f)
    assert (f.champion, f.regressed, f.barred) == (C, (), ())
    assert f.owes[-1].kind == "snapshot_released"


def test_a_hold_is_ended_by_the_answer_to_it_and_by_no_other():
    f = on(then(facts(champion=A, offers=(B,)), "hold_asked", {"actor": "kim", "reason": "audit"}))
    assert (f.state, f.held_why, f.offers) == (State.HELD, "audit", (B,))
    assert isinstance(decide(then(f, "resume_asked", {"held": f.mark - 1, "champion": ""})), Wait)
    f = on(then(f, "resume_asked", {"held": f.mark, "champion": ""}))
    assert (f.state, f.held_why) == (State.KEEPING, "")


def test_a_hold_that_comes_while_a_resume_is_on_its_way_is_kept():
    f = facts(state=State.HELD, champion=A, offers=(B,))
    f = then(f, "resume_asked", {"held": 9, "champion": ""})
    f = then(f, "hold_asked", {"actor": "kim", "reason": "not yet"})
    f = on(f)
    assert decide(f).kind == "held"
    f = on(f)
    assert (f.state, f.held_why, f.is_resumed) == (State.HELD, "not yet", False)


@pytest.mark.parametrize("state", [s for s in State if s is not State.HELD])
def test_nothing_is_released_while_held_and_nothing_is_lost(state):
    has_candidate = state is not State.KEEPING
    f = (
        a_canary(state=state)
        if state in IN_TRAFFIC
        else facts(state=state, champion=B, candidate=C if has_candidate else None)
    )
    f = on(then(f, "hold_asked", {"actor": "kim", "reason": ""}))
    assert (f.state, f.offers) == (State.HELD, (C,) * has_candidate)
    assert isinstance(
        decide(offered(f, A), {"floor": f.mark})
        if not has_candidate
        else decide(f, {"floor": f.mark}),
        Wait,
    )
    assert [arm["bundle"] for arm in production.routes(f)] == ["b"]


def test_unbarring_frees_the_data_and_tells_retraining():
    f = then(facts(barred=("s1", "s2")), "unbar_asked", {"snapshot": "s1"})
    assert f.barred == ("s2",)
    assert [(t.kind, t.body) for t in f.owes] == [("snapshot_released", {"snapshot": "s1"})]
    assert then(f, "unbar_asked", {"snapshot": "s1"}).owes == f.owes


# ---- receivers and debts


def test_routes_are_shown_until_served_and_said_applied_once():
    f = facts(champion=A, routed_at=8, applied=5)
    assert isinstance(decide(f, {"served": 7, "shown": 8}), Show)
    assert isinstance(
        decide(f, {"shown": 7}), Show
    )  # no server lives: the next starts from what was shown
    assert isinstance(decide(f, {"shown": 8}), Wait)  # and nobody has applied anything
    tell = decide(f, {"served": 8, "shown": 8})
    assert tell == Tell(STREAM, "applied", "applied#8", {"seq": 8, "arms": production.routes(f)})
    assert isinstance(decide(then(f, "applied", tell.body), {"served": 8}), Wait)


def test_work_of_before_is_called_off():
    assert decide(facts(champion=A), {"floor": 8}) == Show("workers", 9, {})


def test_a_debt_is_told_until_it_is_there_then_said():
    f = then(facts(barred=("s1",)), "unbar_asked", {"snapshot": "s1"})
    tell = decide(f)
    assert tell == f.owes[0]
    assert decide(f, {"told": "another"}) == tell
    f = on(f, {"told": tell.key})
    assert f.owes == ()


@pytest.mark.parametrize("kind", sorted({kind for _, kind in TRANSITIONS}))
def test_what_the_table_does_not_have_stops_the_stream(kind):
    from gyrostat.errors import IllegalStepError

    states = [s for s in State if (s, kind) not in TRANSITIONS]
    for state in states:
        with pytest.raises(IllegalStepError, match=kind):
            then(
                facts(state=state, candidate=C, champion=B),
                kind,
                {"declaration": "", "cause": "", "detail": {"steps": [0.5]}},
            )


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_an_answer_to_having_seen_nothing(state):
    f = (
        a_canary(state=state)
        if state in IN_TRAFFIC
        else facts(
            state=state,
            candidate=B if state not in (State.KEEPING, State.HELD) else None,
            champion=A,
        )
    )
    assert decide(f) is not None
    assert production.thaw(_json(freeze(f))) == f


def _json(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value, allow_nan=False))
