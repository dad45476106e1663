"""When a run is wanted: cooldown, budget, one at a time; from entries alone."""

from typing import Any

import pytest

from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Say, Tell, Wait, freeze
from gyrostat.retraining import life
from gyrostat.retraining.life import Facts, State
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.terms import Draft

STREAM = "retraining/wine"
TERMS = RetrainingSettings(cooldown_s=100.0, budget=2, budget_window_s=1000.0)
RUN = "run/wine/1"


def then(
    facts: Facts, kind: str, body: dict[str, Any] | None = None, *, inputs=(), outputs=(), at=0.0
) -> Facts:
    draft = Draft(kind, at, "test", tuple(inputs), tuple(outputs), body or {})
    return life.fold(
        facts, seal(draft, position=1, stream=STREAM, seq=facts.seq + 1, fence=None, at=at, prev="")
    )


def on(facts: Facts, seen: dict[str, Any] | None = None, *, now: float = 0.0, terms=TERMS) -> Facts:
    """The facts after the next decision, which must be a step."""
    say = life.decide(facts, seen or {}, terms, now)
    assert isinstance(say, Say), say
    return then(
        facts, say.kind, {"cause": say.cause}, inputs=say.inputs, outputs=say.outputs, at=now
    )


def triggered(facts: Facts, by: str = "decay", *, at: float = 0.0) -> Facts:
    return then(
        facts,
        "triggered",
        {"by": by, "why": f"because of {by}", "actor": "kim" if by == "person" else "monitor"},
        at=at,
    )


def a_run(facts: Facts, *, at: float) -> Facts:
    """Opened, told, over and closed at `at`."""
    f = on(facts, now=at)
    f = on(f, {"told": f.owes[0].key}, now=at)
    f = then(f, "run_closed", {"run": f"run/wine/{f.run}", "outcome": "offered"}, at=at)
    f = on(f, now=at)
    assert f.state is State.IDLE
    return f


def test_a_trigger_opens_a_run_which_hears_who_asked_and_what_is_barred():
    f = on(triggered(then(Facts(STREAM), "snapshot_barred", {"snapshot": "s1"})), now=5.0)
    assert (f.state, f.run, f.wanted) == (State.RUNNING, 1, 0)
    asked = {"barred": ["s1"], "by": "decay", "why": "because of decay", "actor": "monitor"}
    assert f.owes == (Tell(RUN, "run_asked", f"{STREAM}#{f.seq}", asked),)


def test_an_offered_model_goes_to_the_next_run_and_to_no_later_one():
    offered = {"by": "person", "why": "", "actor": "kim", "offered": "m2"}
    first = then(Facts(STREAM), "triggered", offered | {"offered": "m1"})
    # The last offer counts, and what else wants a run meanwhile does not push it out.
    f = on(triggered(then(first, "triggered", offered)))
    assert f.owes[0].body["offered"] == "m2"
    f = on(f, {"told": f.owes[0].key})
    f = on(then(f, "run_closed", {"run": RUN, "outcome": "offered"}))
    f = on(triggered(f, "person"), now=1e6)
    assert "offered" not in f.owes[0].body


def test_ten_triggers_want_one_run_and_those_that_come_meanwhile_one_more():
    f = Facts(STREAM)
    for _ in range(10):
        f = triggered(f)
    f = on(f)
    for _ in range(10):
        f = triggered(f)
    f = on(f, {"told": f.owes[0].key})
    assert isinstance(life.decide(f, {}, TERMS, 1e6), Wait)  # one at a time, however long it takes
    f = a_run(on(then(f, "run_closed", {"run": RUN, "outcome": "offered"})), at=1e6)
    assert (f.run, f.wanted) == (2, 0)


def test_a_run_that_is_not_ours_does_not_end_ours():
    f = on(triggered(Facts(STREAM)))
    f = on(f, {"told": f.owes[0].key})
    assert isinstance(
        life.decide(then(f, "run_closed", {"run": "run/wine/7", "outcome": "x"}), {}, TERMS, 0.0),
        Wait,
    )


def test_after_a_run_it_cools_unless_a_person_asks():
    f = a_run(triggered(Facts(STREAM)), at=10.0)
    assert life.decide(triggered(f), {}, TERMS, 11.0) == Wait(110.0)
    assert life.decide(triggered(f), {}, TERMS, 110.0).kind == "run_opened"
    assert life.decide(triggered(f, "person"), {}, TERMS, 11.0).kind == "run_opened"


def test_the_budget_is_a_rolling_window_that_skips_the_monitor_and_lets_a_person_wait():
    f = a_run(triggered(Facts(STREAM)), at=0.0)
    f = a_run(triggered(f), at=500.0)
    assert life.decide(triggered(f), {}, TERMS, 900.0) == Say("skipped", cause="budget")
    assert on(triggered(f), now=900.0).wanted == 0
    assert life.decide(triggered(f, "person"), {}, TERMS, 900.0) == Wait(1000.0)
    f = a_run(triggered(f, "person"), at=1000.0)
    assert life.decide(triggered(f, "person"), {}, TERMS, 1100.0) == Wait(1500.0)


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_no_storm_gets_more_than_the_budget_in_any_window(budget):
    terms = RetrainingSettings(cooldown_s=0.0, budget=budget, budget_window_s=1000.0)
    f, opened = Facts(STREAM), []
    for now in range(0, 5000, 7):
        f = triggered(f, "person" if now % 3 else "drift", at=now)
        while isinstance(
            action := life.decide(f, {"told": f.owes[0].key} if f.owes else {}, terms, now), Say
        ):
            opened += [now] * (action.kind == "run_opened")
            f = then(f, action.kind, {}, inputs=action.inputs, outputs=action.outputs, at=now)
            if action.kind == "told":
                f = then(
                    f, "run_closed", {"run": f"run/wine/{f.run}", "outcome": "rejected"}, at=now
                )
    assert len(opened) >= 4 * budget
    assert all(
        later - earlier >= 1000 for earlier, later in zip(opened, opened[budget:], strict=False)
    )


def test_a_run_that_a_person_asked_for_stays_theirs():
    f = triggered(triggered(Facts(STREAM), "person"), "decay")
    assert (f.by, f.actor, f.is_urgent) == ("person", "kim", True)


def test_the_open_run_hears_of_a_bar_and_no_other_does():
    f = on(triggered(Facts(STREAM)))
    f = then(f, "snapshot_barred", {"snapshot": "s1"})
    assert [(t.stream, t.kind) for t in f.owes] == [(RUN, "run_asked"), (RUN, "snapshot_barred")]
    idle = then(Facts(STREAM, run=3), "snapshot_barred", {"snapshot": "s1"})
    assert idle.owes == ()
    assert idle.barred == ("s1",)
    assert then(idle, "snapshot_released", {"snapshot": "s1"}).barred == ()


def test_a_checkpoint_holds_everything():
    import json

    f = triggered(
        a_run(triggered(then(Facts(STREAM), "snapshot_barred", {"snapshot": "s1"})), at=3.0),
        "person",
    )
    f = on(f, now=1e4)
    assert life.thaw(json.loads(json.dumps(freeze(f)))) == f
