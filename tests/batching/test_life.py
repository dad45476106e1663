"""When tables are answered: each moment once, by the champion of the moment, one table at a time; from entries alone."""

from typing import Any

import pytest

from gyrostat.batching import life
from gyrostat.batching.life import Due, Facts, State
from gyrostat.batching.settings import BatchSettings
from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Say, Show, Start, Tell, Wait, freeze
from gyrostat.schedule import Schedule
from gyrostat.terms import Draft

STREAM, HOUR = "batching/wine", 3600.0
HOURLY = BatchSettings("hourly", "in/{date}.csv", "out.csv", Schedule("0 * * * *"), ("id",))
QUARTERLY = BatchSettings("quarterly", "in.csv", "quarter.csv", Schedule("*/15 * * * *"))
TERMS = (HOURLY, QUARTERLY)
CHAMPION = {"champion": {"bundle": "b4", "version": 4}}
DONE = {
    "status": "done", "made": "out-digest", "id": "i", "n_rows": 10, "n_failed": 1, "input_digest": "in-digest", "began_at": 7.0,
}  # fmt: skip


def on(facts: Facts, seen: dict[str, Any] | None = None, *, now: float = 0.0, terms=TERMS) -> Facts:
    """The facts after the next decision, which must be a step."""
    say = life.decide(facts, seen or {}, terms, now)
    assert isinstance(say, Say), say
    body = {
        "seen": seen or {}, "now": now, "release": 1, "cause": say.cause, "declaration": "d1", "detail": dict(say.detail or {}),
    }  # fmt: skip
    draft = Draft(say.kind, now, "loop", say.inputs, say.outputs, body)
    place = {"position": 1, "stream": STREAM, "seq": facts.seq + 1, "fence": None, "at": now}
    return life.fold(facts, seal(draft, **place, prev=""))


def set_at(now: float, terms=TERMS) -> Facts:
    return on(Facts(STREAM), now=now, terms=terms)


def scoring(now: float = HOUR) -> Facts:
    """Hourly waits with its champion there, and has begun."""
    f = on(set_at(0.0, (HOURLY,)), now=now, terms=(HOURLY,))
    return on(f, CHAMPION, now=now, terms=(HOURLY,))


def test_nothing_declared_says_nothing():
    assert isinstance(life.decide(Facts(STREAM), {}, (), 0.0), Wait)
    assert life.subject(Facts(STREAM)) == ("nothing", f"{STREAM}#0")


def test_a_schedule_counts_from_when_it_was_declared():
    f = set_at(HOUR - 1.0)
    assert [c.until for c in f.counted] == [HOUR - 1.0, HOUR - 1.0]
    assert life.decide(f, CHAMPION, TERMS, HOUR - 0.5) == Wait(HOUR)
    assert on(f, now=HOUR).waiting == (Due("hourly", HOUR),)


def test_it_begins_with_the_champion_of_the_moment_and_the_files_of_the_day():
    say = life.decide(on(set_at(0.0, (HOURLY,)), now=HOUR, terms=(HOURLY,)), CHAMPION, (HOURLY,), HOUR)  # fmt: skip
    assert isinstance(say, Say)
    assert (say.kind, say.inputs) == ("batch_started", ("version/wine/4", "b4"))
    assert say.detail == {
        "batch": "hourly", "due": HOUR, "version": 4, "input": "in/1970-01-01.csv", "output": "out.csv",
    }  # fmt: skip


def test_without_a_champion_it_waits_and_stands_for_what_comes_meanwhile():
    f = on(set_at(0.0, (HOURLY,)), now=HOUR, terms=(HOURLY,))
    for now in (HOUR, 5 * HOUR):
        assert isinstance(life.decide(f, {}, (HOURLY,), now), Wait)
    f = on(f, CHAMPION, now=5.5 * HOUR, terms=(HOURLY,))
    assert f.work is not None
    assert f.work.due == 5 * HOUR
    assert not f.waiting
    assert life.until(f, "hourly") == 5 * HOUR


def test_what_comes_due_while_another_is_answered_waits_its_turn():
    f = on(set_at(0.0), now=900.0)
    f = on(f, CHAMPION, now=900.0)
    assert f.work is not None
    assert f.work.batch == "quarterly"
    f = on(on(f, now=HOUR), now=HOUR)
    assert [w.batch for w in f.waiting] == ["hourly", "quarterly"]
    f = on(f, DONE, now=HOUR)
    f = on(f, {"told": f.owes[0].key}, now=HOUR)
    f = on(f, CHAMPION, now=HOUR)
    assert f.work is not None
    assert (f.work.batch, f.work.due) == ("hourly", HOUR)
    assert f.waiting == (Due("quarterly", HOUR),)


def test_the_work_is_asked_for_by_the_key_of_its_start_with_what_was_pinned():
    f = scoring()
    start = life.decide(f, {}, (HOURLY,), HOUR)
    assert isinstance(start, Start)
    assert (start.what, start.key) == ("scoring", f.key)
    assert {**start.spec, "input": ""} == {
        "batch": "hourly", "due": HOUR, "input": "", "output": "out.csv", "version": 4, "bundle": "b4", "declaration": "d1",
    }  # fmt: skip


def test_answers_are_recorded_once_with_the_moment_they_stand_for():
    f = on(scoring(), DONE, now=HOUR + 9, terms=(HOURLY,))
    assert f.state is State.IDLE
    assert f.owes == (
        Tell("batch/wine", "scored", f"{STREAM}#{f.seq}", {
            "id": "i", "by_version": 4, "bundle": "b4", "input": "in/1970-01-01.csv", "output": "out.csv", "input_digest": "in-digest",
            "output_digest": "out-digest", "n_rows": 10, "n_failed": 1, "began_at": 7.0, "batch": "hourly", "due": HOUR,
        }),
    )  # fmt: skip
    (outcome,) = f.outcomes
    assert (outcome.n_rows, outcome.n_failed, outcome.failure) == (10, 1, "")


def test_not_one_answer_is_a_failure_and_on_record_all_the_same():
    f = on(scoring(), DONE | {"n_failed": 10}, now=HOUR, terms=(HOURLY,))
    assert "none of 10 rows has an answer" in f.outcomes[0].failure
    assert f.owes[0].body["n_failed"] == 10


@pytest.mark.parametrize("seen", [{"status": "lost"}, {"status": "running", "silent_s": 901.0}, {"status": "failed", "cause": "c", "retryable": True}])  # fmt: skip
def test_what_may_pass_is_tried_three_times(seen):
    f = scoring()
    for attempt in (2, 3):
        before, f = f.mark, on(f, seen, now=HOUR, terms=(HOURLY,))
        assert (f.state, f.attempt) == (State.SCORING, attempt)
        assert f.mark > before
    f = on(f, seen, now=HOUR, terms=(HOURLY,))
    assert f.state is State.IDLE
    assert f.outcomes[0].failure
    assert not f.owes


def test_what_would_fail_again_fails_and_the_next_moment_tries_again():
    f = on(scoring(), {"status": "failed", "cause": "there is no in.csv"}, now=HOUR, terms=(HOURLY,))  # fmt: skip
    assert f.outcomes[0].failure == "hourly: there is no in.csv"
    assert life.decide(f, CHAMPION, (HOURLY,), HOUR + 1) == Wait(2 * HOUR)
    assert on(f, CHAMPION, now=2 * HOUR, terms=(HOURLY,)).waiting == (Due("hourly", 2 * HOUR),)


def test_what_went_before_is_ended_before_anything_begins():
    f = on(scoring(), {"status": "lost"}, now=HOUR, terms=(HOURLY,))
    assert life.decide(f, {"floor": f.mark - 1}, (HOURLY,), HOUR) == Show("workers", f.mark, {})
    assert isinstance(life.decide(f, {"floor": f.mark}, (HOURLY,), HOUR), Start)


def test_one_that_changes_takes_no_moment_from_the_others_and_waits_on():
    f = on(on(set_at(0.0), now=HOUR), now=HOUR)
    later = BatchSettings("quarterly", "in.csv", "quarter.csv", Schedule("30 * * * *"))
    f = on(f, now=1.6 * HOUR, terms=(HOURLY, later))
    assert [c.until for c in f.counted] == [HOUR, 1.6 * HOUR]
    assert [w.batch for w in f.waiting] == ["hourly", "quarterly"]
    f = on(f, now=1.7 * HOUR, terms=(HOURLY,))
    assert [w.batch for w in f.waiting] == ["hourly"]


def test_an_old_moment_that_waited_under_another_schedule_is_not_counted_back_to():
    f = on(set_at(0.0, (HOURLY,)), now=HOUR, terms=(HOURLY,))
    moved = BatchSettings("hourly", "in.csv", "out.csv", Schedule("30 * * * *"))
    f = on(f, now=5 * HOUR, terms=(moved,))
    f = on(f, CHAMPION, now=5 * HOUR, terms=(moved,))
    assert f.work is not None
    assert f.work.due == HOUR
    assert life.until(f, "hourly") == 5 * HOUR


def test_a_checkpoint_gives_the_same_facts():
    import json

    for f in (set_at(0.0), scoring(), on(scoring(), DONE, now=HOUR, terms=(HOURLY,))):
        assert life.thaw(json.loads(json.dumps(freeze(f)))) == f
