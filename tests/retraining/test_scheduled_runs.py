"""A schedule under the real loop, whatever the clock does: no moment wants two runs, none is lost, one catch-up at most."""

from dataclasses import dataclass
from datetime import datetime

import pytest

from gyrostat.ledger.life import Say, Wait
from gyrostat.loop import reconcile
from gyrostat.retraining import life
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.schedule import Schedule, next_due
from gyrostat.testing.memory import MemoryLedger

HOUR, DAY = 3600.0, 86400.0
STREAM = "retraining/wine"
SPRING = datetime.fromisoformat("2026-03-29T01:00Z").timestamp()
AUTUMN = datetime.fromisoformat("2026-10-25T01:00Z").timestamp()
DAILY = Schedule("30 2 * * *", "Europe/Berlin")
HOURLY = Schedule("0 * * * *", "Europe/Berlin")


@dataclass
class Machine:
    """One loop that keeps retraining, its clock, and a ledger that outlives both."""

    now: float
    schedules: tuple[Schedule, ...]
    wrong_s: float = 0.0

    def __post_init__(self):
        self.ledger = MemoryLedger(clock=lambda: self.now + self.wrong_s)
        self.started_at = self.now
        self.start()

    def start(self):
        self.loop = reconcile.keep(
            STREAM, name="loop", ledger=self.ledger, world=Nowhere(), terms=lambda *_: (self.terms(), "d")
        )  # fmt: skip

    def terms(self):
        return RetrainingSettings(schedules=self.schedules, budget=0, cooldown_s=0.0)

    def run(self, span_s: float, *, every_s: float = 60.0):
        until = self.now + span_s
        while self.now < until:
            for _ in range(20):
                if next(self.loop) > 0:
                    break
            self.now += every_s

    def dues(self) -> list[float]:
        return [e.body["detail"]["due"] for e in self.ledger.tail(STREAM) if e.kind == "scheduled"]

    def moments(self, until: float) -> list[float]:
        found, at = [], self.started_at
        while (at := next_due(self.schedules, at)) <= until:
            found.append(at)
        return found


class Nowhere:
    """A world that retraining has nothing to ask of."""

    def look(self, stream, what, key):
        return {}

    def start(self, stream, what, key, inputs, spec): ...

    def show(self, stream, receiver, seq, value): ...


@pytest.mark.parametrize("schedule", [DAILY, HOURLY])
@pytest.mark.parametrize("middle", [SPRING, AUTUMN])
def test_each_moment_wants_one_run_also_when_the_zone_changes_its_clock(middle, schedule):
    machine = Machine(middle - 1.5 * DAY, (schedule,))
    machine.run(3 * DAY, every_s=300.0)
    assert machine.dues() == machine.moments(machine.now - 600)
    # Of 71 hours, in autumn one comes twice and counts once.
    assert len(machine.dues()) == (3 if schedule is DAILY else 71 if middle == SPRING else 70)


@pytest.mark.parametrize("step_s", [HOUR, -HOUR, DAY, -DAY])
def test_a_step_of_the_clock_and_back_neither_doubles_nor_loses_one(step_s):
    machine = Machine(AUTUMN - 3 * DAY, (DAILY,))
    machine.run(DAY)
    machine.wrong_s = step_s
    machine.run(3 * HOUR)
    machine.wrong_s = 0.0
    machine.run(3 * DAY)
    dues = machine.dues()
    assert dues == sorted(set(dues))
    assert set(dues) <= set(machine.moments(machine.now + abs(step_s)))
    # None is left behind: what is not said itself is in a later one, or still to come by the ledger's time.
    assert dues[-1] == machine.moments(machine.ledger.now() - 120)[-1]
    n_jumped_over = 1 if abs(step_s) == DAY else 0
    assert len(dues) >= len(machine.moments(machine.now - 120)) - n_jumped_over


def test_a_day_asleep_is_made_up_for_once():
    machine = Machine(AUTUMN - 5 * DAY, (HOURLY,))
    machine.run(4.5 * HOUR)
    before = len(machine.dues())
    machine.now += DAY
    machine.run(20 * 60)
    assert len(machine.dues()) == before + 1
    assert machine.dues()[-1] == machine.moments(machine.now - 60)[-1]


def test_a_schedule_counts_from_when_it_was_declared():
    machine = Machine(AUTUMN - 5 * DAY, ())
    machine.run(DAY, every_s=600.0)
    assert not machine.ledger.tail(STREAM)
    machine.schedules = (HOURLY,)
    machine.run(90 * 60)
    assert 1 <= len(machine.dues()) <= 2
    assert machine.dues()[0] > machine.started_at + DAY
    machine.schedules = ()
    machine.run(5 * HOUR)
    n = len(machine.dues())
    machine.schedules = (HOURLY,)
    machine.run(10 * 60)
    assert (
        len(machine.dues()) <= n + 1
    )  # what it slept through while nobody declared it is not made up for


def test_a_loop_that_is_killed_after_it_said_so_does_not_say_it_again():
    machine = Machine(AUTUMN - 5 * DAY, (HOURLY,))
    for _ in range(40):
        for _ in range(9):
            next(machine.loop)
        machine.start()
        machine.now += 300.0
    dues = machine.dues()
    assert dues == sorted(set(dues))
    assert len(dues) >= 2


def test_two_loops_that_see_the_same_moment_want_one_run():
    facts = life.Facts(STREAM, schedules=(str(DAILY),), scheduled_at=AUTUMN - DAY)
    terms = RetrainingSettings(schedules=(DAILY,))
    due = next_due([DAILY], AUTUMN - DAY)
    assert life.decide(facts, {}, terms, due - 1) == Wait(due)
    early, late = (life.decide(facts, {}, terms, due + s) for s in (0.0, 5 * HOUR))
    assert isinstance(early, Say)
    assert early == late


def test_while_a_run_is_open_a_moment_wants_the_next_one():
    machine = Machine(AUTUMN - 5 * DAY, (HOURLY,))
    machine.run(3.5 * HOUR)
    facts = reconcile.facts_of(machine.ledger, STREAM)
    assert (facts.state, facts.run, facts.by) == ("running", 1, "schedule")
    assert facts.wanted
