"""When a run is wanted: triggers, schedules, cooldown, budget. Opens one run at a time and hears when it is over.

A schedule is judged by the ledger's time alone. That it counts from now on is a step (`schedule_set`), and that it came due is
one (`scheduled`), with the moment it stands for: so each moment wants a run at most once, whoever looks and whatever clocks do,
and those that were slept through want one run together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gyrostat.ledger import life
from gyrostat.ledger.life import (
    DAY_S,
    STAY,
    Action,
    Say,
    Wait,
    due,
    hand_over,
    last,
    move,
    owe,
    read,
    replace,
    thaw_shared,
)  # fmt: skip
from gyrostat.ledger.times import iso
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.schedule import last_due, next_due
from gyrostat.terms import Entry


class State(StrEnum):
    """Whether a run is open."""

    IDLE = "idle"
    RUNNING = "running"


S = State
TRANSITIONS: dict[tuple[State, str], State | None] = {
    (S.IDLE, "run_opened"): S.RUNNING,
    (S.IDLE, "skipped"): STAY,
    (S.RUNNING, "run_ended"): S.IDLE,
    **{(state, kind): STAY for state in S for kind in ("schedule_set", "scheduled", "told")},
}
EVENTS = frozenset({"triggered", "run_closed", "snapshot_barred", "snapshot_released"})
KINDS = EVENTS | {kind for _, kind in TRANSITIONS}
LAST = last(S, TRANSITIONS)
MAX_BUDGET = 64
"""Openings that facts remember; the declaration may not allow more within one window."""


@dataclass(frozen=True)
class Facts(life.Facts):
    """What is known of wanting runs."""

    state: State = S.IDLE
    run: int = 0
    wanted: int = 0
    """Seq of the last trigger not yet served: ten of them want one run."""
    by: str = ""
    why: str = ""
    actor: str = ""
    offered: str = ""
    """Digest of the model that a person offered last; the run takes it instead of training one."""
    is_patient: bool = False
    """A person asked: wait for the budget, do not skip."""
    is_urgent: bool = False
    """A person asked: no cooldown."""
    is_closed: bool = True
    ended_at: float = 0.0
    openings: tuple[float, ...] = ()
    """The ledger's stamps of the last runs."""
    barred: tuple[str, ...] = ()
    """Snapshots; grows with harm, not with time."""
    skipped_at: int = 0
    schedules: tuple[str, ...] = ()
    """That count, as the declaration has them."""
    scheduled_at: float = 0.0
    """The moment up to which they have had their runs."""


def run_stream(facts: Facts, n: int) -> str:
    """The stream of the n-th run."""
    return f"run/{facts.model}/{n}"


def fold(facts: Facts, entry: Entry) -> Facts:
    """The facts after one more entry."""
    facts = read(facts, entry, KINDS)
    body = entry.body
    match entry.kind:
        case "triggered":
            facts = replace(facts, offered=body.get("offered", "") or facts.offered)
            return _want(facts, entry, body["by"], body.get("why", ""), body.get("actor", ""))
        case "run_closed":
            return replace(
                facts, is_closed=facts.is_closed or body["run"] == run_stream(facts, facts.run)
            )
        case "snapshot_barred":
            snapshot = body["snapshot"]
            facts = replace(facts, barred=(*(s for s in facts.barred if s != snapshot), snapshot))
            if facts.state is S.RUNNING:
                return owe(
                    facts, entry, run_stream(facts, facts.run), "snapshot_barred", snapshot=snapshot
                )
            return facts
        case "snapshot_released":
            return replace(facts, barred=tuple(s for s in facts.barred if s != body["snapshot"]))
    after = move(facts, entry, TRANSITIONS)
    match entry.kind:
        case "run_opened":
            after = replace(
                after, run=facts.run + 1, wanted=0, by="", why="", actor="", offered="", is_patient=False, is_urgent=False,
                is_closed=False, openings=(*facts.openings, entry.at)[-MAX_BUDGET:],
            )  # fmt: skip
            stream = run_stream(after, after.run)
            asked = {"by": facts.by, "why": facts.why, "actor": facts.actor}
            asked |= {"offered": facts.offered} if facts.offered else {}
            return owe(after, entry, stream, "run_asked", barred=list(facts.barred), **asked)
        case "skipped":
            return replace(after, wanted=0, is_urgent=False, skipped_at=entry.seq)
        case "run_ended":
            return replace(after, ended_at=entry.at)
        case "schedule_set":
            schedules = tuple(body["detail"]["schedules"])
            return replace(after, schedules=schedules, scheduled_at=entry.at)
        case "scheduled":
            after = replace(after, scheduled_at=body["detail"]["due"])
            return _want(after, entry, "schedule", body["cause"], "")
    return after


def _want(facts: Facts, entry: Entry, by: str, why: str, actor: str) -> Facts:
    person = by in ("person", "first")
    facts = replace(facts, wanted=entry.seq)
    if facts.is_patient and not person:  # it stays the run that a person asked for
        return facts
    return replace(facts, by=by, why=why, actor=actor, is_patient=person, is_urgent=person)


def subject(facts: Facts) -> tuple[str, str]:
    """What to look at before deciding."""
    return "nothing", facts.key


def decide(facts: Facts, seen: dict[str, Any], terms: RetrainingSettings, now: float) -> Action:
    """The next action: open a run if one is wanted, the budget allows it and the last one has cooled."""
    f = facts
    if tell := due(f):
        return hand_over(tell, seen)
    if came := _schedule(f, terms, now):
        return came
    action = _run(f, terms, now)
    if isinstance(action, Wait):
        return Wait(min(action.until, next_due(terms.schedules, f.scheduled_at)))
    return action


def _schedule(f: Facts, terms: RetrainingSettings, now: float) -> Say | None:
    """What a schedule has to say now: that it counts from here on, or that it came due."""
    declared = tuple(str(schedule) for schedule in terms.schedules)
    if f.schedules != declared:
        cause = ", ".join(declared) or "no schedule any more"
        return Say("schedule_set", cause=cause, detail={"schedules": list(declared)})
    came_at = last_due(terms.schedules, f.scheduled_at, now)
    if came_at is None:
        return None
    return Say("scheduled", cause=f"scheduled for {iso(came_at)}", detail={"due": came_at})


def _run(f: Facts, terms: RetrainingSettings, now: float) -> Action:
    if f.state is S.RUNNING:
        return Say("run_ended", (run_stream(f, f.run),)) if f.is_closed else Wait(now + DAY_S)
    if not f.wanted:
        return Wait(now + DAY_S)
    if free_at := frees_at(f, terms, now):
        return Wait(free_at) if f.is_patient else Say("skipped", cause="budget")
    if f.run and now < f.ended_at + terms.cooldown_s and not f.is_urgent:
        return Wait(f.ended_at + terms.cooldown_s)
    return Say("run_opened", outputs=(run_stream(f, f.run + 1),), cause=f.why or f.by)


def frees_at(f: Facts, terms: RetrainingSettings, now: float) -> float | None:
    """When the budget, used up now, allows the next run; None while it allows one."""
    if not 0 < terms.budget <= len(f.openings):
        return None
    free_at = f.openings[-terms.budget] + terms.budget_window_s
    return free_at if now < free_at else None


def thaw(kept: dict[str, Any]) -> Facts:
    """Facts from a checkpoint."""
    kept = thaw_shared(kept)
    return Facts(
        **{
            **kept,
            "state": State(kept["state"]),
            "openings": tuple(kept["openings"]),
            "barred": tuple(kept["barred"]),
            "schedules": tuple(kept.get("schedules", ())),
        }
    )
