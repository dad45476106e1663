"""One candidate from snapshot to offer, from entries alone."""

import json
from typing import Any

import pytest

from gyrostat.gates.settings import GateSettings, UndecidedSettings
from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Say, Show, Start, Tell, Wait, freeze
from gyrostat.loop import run
from gyrostat.loop.run import AT_WORK, ATTEMPTS, ENDED, WORK, Facts, RunTerms, State
from gyrostat.terms import Draft, Limit

STREAM = "run/wine/7"
TERMS = RunTerms(
    GateSettings(limits=(Limit("rmse", max=0.7),), undecided=UndecidedSettings(100.0, "ask"))
)
MADE = {"snapshot": "s1", "training": "trained:t", "pack": "bundle", "evaluation": "evidence:e"}


def then(
    facts: Facts, kind: str, body: dict[str, Any] | None = None, *, inputs=(), outputs=(), at=0.0
) -> Facts:
    draft = Draft(kind, at, "test", tuple(inputs), tuple(outputs), body or {})
    return run.fold(
        facts, seal(draft, position=1, stream=STREAM, seq=facts.seq + 1, fence=None, at=at, prev="")
    )


def decide(facts: Facts, seen: dict[str, Any] | None = None, *, terms=TERMS, now=0.0) -> Any:
    return run.decide(facts, seen or {}, terms, now)


def on(facts: Facts, seen: dict[str, Any] | None = None, *, terms=TERMS, now=0.0) -> Facts:
    """The facts after the next decision, which must be a step."""
    say = decide(facts, seen, terms=terms, now=now)
    assert isinstance(say, Say), say
    body = {"seen": seen or {}, "declaration": "d1", "cause": say.cause}
    return then(facts, say.kind, body, inputs=say.inputs, outputs=say.outputs, at=now)


def asked(**body: Any) -> Facts:
    return then(
        Facts(STREAM), "run_asked", {"barred": [], "by": "person", "why": "", "actor": "kim"} | body
    )


def done(what: str, **more: Any) -> dict[str, Any]:
    return {"status": "done", "made": MADE[what], **more}


def measured(value: float) -> dict[str, Any]:
    metric = {
        "name": "rmse",
        "value": value,
        "lower": value - 0.05,
        "upper": value + 0.05,
        "n": 300,
    }
    evidence = {
        "metrics": {"rmse": metric},
        "trivial": {"name": "rmse", "value": 2.0},
        "champion": None,
        "size_bytes": 1,
        "n_heldout": 300,
    }
    return done("evaluation", evidence=evidence)


GOOD, BAD, UNCLEAR = measured(0.5), measured(0.9), measured(0.7)


def at(state: State, **known: Any) -> Facts:
    """A run that has come to `state` by itself."""
    f = on(asked(**known))
    for what, reached in (
        ("snapshot", State.SNAPSHOTTED),
        ("training", State.TRAINED),
        ("pack", State.PACKED),
    ):
        if f.state is state:
            return f
        f = on(f, done(what))
        assert f.state is reached
    if state is State.PACKED:
        return f
    return on(f, UNCLEAR if state is State.UNDECIDED else GOOD)


def test_from_asked_to_closed_production_is_told_before_retraining():
    f = at(State.JUDGED)
    f = on(f)
    assert f.state is State.OFFERED
    assert decide(f, {"floor": f.mark - 1}) == Show("workers", f.mark, {})
    offer = {"bundle": "bundle", "run": STREAM, "snapshot": "s1"}
    assert f.owes == (
        Tell("production/wine", "offered", f"{STREAM}#{f.seq}", offer),
        Tell(
            "retraining/wine",
            "run_closed",
            f"{STREAM}#{f.seq}",
            {"run": STREAM, "outcome": "offered"},
        ),
    )
    while f.owes:
        f = on(f, {"floor": f.mark, "told": f.owes[0].key})
    assert on(f, {"floor": f.mark}).state is State.CLOSED


@pytest.mark.parametrize("state", WORK)
def test_each_piece_of_work_is_keyed_by_the_entry_that_called_for_it(state):
    f = at(state, barred=["s0"])
    start = decide(f)
    assert isinstance(start, Start)
    assert (start.what, start.key) == (WORK[state], f"{STREAM}#{f.mark}")
    assert start.spec["declaration"] == "d1"
    assert start.spec["barred"] == ["s0"]
    later = then(f, "snapshot_barred", {"snapshot": "another"})
    assert decide(later).key == start.key
    assert isinstance(decide(f, {"status": "running", "silent_s": 1.0}), Wait)


@pytest.mark.parametrize(
    "seen",
    [
        {"status": "lost"},
        {"status": "running", "silent_s": 1e6},
        {"status": "failed", "cause": "x", "retryable": True},
    ],
)
@pytest.mark.parametrize("state", WORK)
def test_work_that_was_lost_is_asked_for_anew_and_not_for_ever(state, seen):
    f, keys = at(state), []
    for _ in range(ATTEMPTS - 1):
        keys.append(decide(f).key)
        f = on(f, seen)
        assert f.state is state
    keys.append(decide(f).key)
    assert len(set(keys)) == ATTEMPTS
    f = on(f, seen)
    assert f.state is State.FAILED
    assert [t.body["outcome"] for t in f.owes] == ["failed"]


@pytest.mark.parametrize("state", WORK)
def test_work_that_would_fail_again_is_not_repeated_and_says_why(state):
    say = decide(
        at(state), {"status": "failed", "cause": "train.py:3: no such column", "retryable": False}
    )
    assert say.kind == "gave_up"
    assert say.cause == f"{WORK[state]}: train.py:3: no such column"


def test_attempts_count_for_one_piece_of_work():
    f = on(on(at(State.OPENED), {"status": "lost"}), done("snapshot"))
    assert f.attempt == 1


def test_broken_checks_end_it_before_training():
    seen = done("snapshot", passed=False, checks={"n_rules": 3, "n_broken": 1})
    f = on(at(State.OPENED), seen)
    assert f.state is State.REJECTED
    assert [t.body["outcome"] for t in f.owes] == ["rejected"]


def test_no_data_left_ends_it():
    assert decide(at(State.OPENED), {"status": "done", "made": ""}) == Say(
        "rejected", (), cause="no data left"
    )


@pytest.mark.parametrize(
    ("seen", "kind"), [(GOOD, "gate_passed"), (BAD, "gate_failed"), (UNCLEAR, "gate_undecided")]
)
def test_the_gates_decide_and_every_verdict_is_on_record(seen, kind):
    say = decide(at(State.PACKED), seen)
    assert (say.kind, say.outputs) == (kind, ("evidence:e",))
    assert say.detail["verdicts"]["rmse"]["rule"] == "gates.limit/1"
    json.dumps(say.detail, allow_nan=False)


def test_undecided_frees_the_way_for_the_next_run_and_says_so_once():
    f = at(State.UNDECIDED)
    assert f.owes == (
        Tell(
            "retraining/wine",
            "run_closed",
            f"{STREAM}#{f.seq}",
            {"run": STREAM, "outcome": "undecided"},
        ),
    )
    f = on(f, {"told": f.owes[0].key})
    f = on(then(f, "answered", {"answer": "approved", "actor": "kim"}))
    assert f.state is State.JUDGED
    assert [t.kind for t in on(f).owes] == ["offered"]


def test_a_person_decides_what_the_rows_could_not():
    f = at(State.UNDECIDED)
    f = on(f, {"told": f.owes[0].key})
    no = then(f, "answered", {"answer": "rejected", "actor": "kim"})
    assert decide(no) == Say("rejected", ("bundle",), cause="by kim")
    assert (
        decide(then(no, "answered", {"answer": "approved", "actor": "lee"})).kind == "rejected"
    )  # the first counts
    assert then(at(State.PACKED), "answered", {"answer": "approved"}).answer == ""


@pytest.mark.parametrize(
    ("end", "kind"),
    [("ask", "approval_asked"), ("reject", "gate_failed"), ("hold", "approval_asked")],
)
def test_undecided_has_a_deadline_and_a_declared_end(end, kind):
    terms = RunTerms(GateSettings(undecided=UndecidedSettings(100.0, end)))
    f = at(State.UNDECIDED)
    f = on(f, {"told": f.owes[0].key})
    assert decide(f, terms=terms, now=99.0) == Wait(100.0)
    action = decide(f, terms=terms, now=100.0)
    assert (action.kind, action.detail.get("then")) == (kind, "hold" if end == "hold" else None)
    if kind == "approval_asked":  # a person is told once, and it waits on
        f = on(f, terms=terms, now=100.0)
        assert isinstance(decide(f, terms=terms, now=101.0), Wait)
        no = then(f, "answered", {"answer": "rejected", "actor": "kim"})
        assert decide(no, terms=terms, now=102.0).kind == "rejected"


@pytest.mark.parametrize("state", sorted(AT_WORK))
def test_a_person_may_stop_it_at_any_time(state):
    f = then(at(state), "stop_asked", {"actor": "kim"})
    assert decide(f) == Say("cancelled", cause="by kim")
    assert on(f).state is State.CANCELLED


def test_one_that_was_stopped_before_it_was_asked_for_is_cancelled():
    f = then(Facts(STREAM), "stop_asked", {"actor": "kim"})
    assert isinstance(decide(f), Wait)
    f = on(then(f, "run_asked", {"barred": []}))
    assert decide(f).kind == "cancelled"


@pytest.mark.parametrize("state", sorted(AT_WORK - {State.OPENED}))
def test_a_bar_ends_what_was_made_from_it(state):
    f = then(at(state), "snapshot_barred", {"snapshot": "s1"})
    assert decide(f) == Say("rejected", ("s1",), cause="its snapshot is barred")


@pytest.mark.parametrize("state", sorted(set(State) - {State.CLOSED}))
def test_every_state_has_an_answer_to_having_seen_nothing_and_survives_a_checkpoint(state):
    f = Facts(STREAM, state=state, mark=3, declaration="d1", snapshot="s1", bundle="b")
    assert decide(f) is not None
    assert (state in ENDED) == any(key == (state, "closed") for key in run.TRANSITIONS)
    full = at(State.UNDECIDED)
    assert run.thaw(json.loads(json.dumps(freeze(full)))) == full


def test_an_offered_model_is_named_to_the_training_and_a_run_without_one_says_nothing_of_it():
    assert decide(on(asked(offered="m1"))).spec["offered"] == "m1"
    assert "offered" not in decide(on(asked())).spec
