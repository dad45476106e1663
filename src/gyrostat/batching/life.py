"""When tables are answered: each declared batch at its moments, one at a time, by the champion that answered when it began.

That a schedule counts from now on is a step (`batches_set`), that it came due is one (`batch_due`), and so is the start
(`batch_started`), with the last moment it stands for: so each moment is answered at most once, whoever looks and whatever
clocks do, and those that were slept through, or came while it waited, are answered once together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gyrostat.batching.settings import BatchSettings
from gyrostat.ledger import life
from gyrostat.ledger.life import (
    DAY_S,
    STAY,
    Action,
    Say,
    Show,
    Start,
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
from gyrostat.schedule import last_due, next_due
from gyrostat.terms import Entry


class State(StrEnum):
    """Whether a table is being answered."""

    IDLE = "idle"
    SCORING = "scoring"


S = State
TRANSITIONS: dict[tuple[State, str], State | None] = {
    **{(state, kind): STAY for state in S for kind in ("batches_set", "batch_due", "told")},
    (S.IDLE, "batch_started"): S.SCORING,
    (S.SCORING, "batch_lost"): S.SCORING,  # once more: the state's key is new, so the work is
    (S.SCORING, "batch_scored"): S.IDLE,
    (S.SCORING, "batch_failed"): S.IDLE,
}
EVENTS: frozenset[str] = frozenset()
"""Nobody asks for one: by hand it is `gyrostat predict`."""
KINDS = EVENTS | {kind for _, kind in TRANSITIONS}
LAST = last(S, TRANSITIONS)
SILENCE_S, LOOK_S, ATTEMPTS = 900.0, 1800.0, 3


class Counted(NamedTuple):
    """A batch whose schedule counts."""

    batch: str
    schedule: str
    """As the declaration has it."""
    until: float
    """The moment up to which it has had its answers, or waits for them."""


class Due(NamedTuple):
    """A batch that waits for its turn, or for a champion."""

    batch: str
    at: float


class Work(NamedTuple):
    """What is being answered, by what: pinned when it began."""

    batch: str
    due: float
    input: str
    output: str
    version: int
    bundle: str
    declaration: str


class Outcome(NamedTuple):
    """How the newest of a batch ended."""

    batch: str
    due: float
    at: float
    seq: int
    """Of the step that said so."""
    version: int
    n_rows: int
    n_failed: int
    failure: str
    """Empty: it was scored."""


@dataclass(frozen=True)
class Facts(life.Facts):
    """What is known of one model's batches."""

    state: State = S.IDLE
    counted: tuple[Counted, ...] = ()
    waiting: tuple[Due, ...] = ()
    """Oldest first; each batch at most once."""
    work: Work | None = None
    attempt: int = 0
    outcomes: tuple[Outcome, ...] = ()
    """Of each batch the newest."""


def fold(facts: Facts, entry: Entry) -> Facts:
    """The facts after one more entry."""
    facts = read(facts, entry, KINDS)
    after, detail = move(facts, entry, TRANSITIONS), entry.body.get("detail", {})
    match entry.kind:
        case "batches_set":
            return _counted(after, detail["schedules"], entry.at)
        case "batch_due":
            after = _until(after, detail["batch"], detail["due"])
            return replace(after, waiting=(*facts.waiting, Due(detail["batch"], detail["due"])))
        case "batch_started":
            work = Work(
                detail["batch"], detail["due"], detail["input"], detail["output"], detail["version"], entry.inputs[1],
                entry.body["declaration"],
            )  # fmt: skip
            after = _until(after, work.batch, work.due)
            waiting = tuple(w for w in facts.waiting if w.batch != work.batch)
            return replace(after, work=work, waiting=waiting, attempt=1)
        case "batch_lost":
            return replace(after, attempt=facts.attempt + 1)
        case "batch_scored" | "batch_failed" if facts.work:
            return _ended(after, facts.work, entry)
    return after


def _counted(f: Facts, declared: dict[str, str], now: float) -> Facts:
    """A batch whose schedule is the same as before loses no moment by what became of the others."""
    before = {(c.batch, c.schedule): c for c in f.counted}
    counted = tuple(before.get(one) or Counted(*one, now) for one in declared.items())
    return replace(f, counted=counted, waiting=tuple(w for w in f.waiting if w.batch in declared))


def _until(f: Facts, batch: str, at: float) -> Facts:
    # One that waited under another schedule is older than what this one counts from.
    counted = tuple(
        c._replace(until=max(c.until, at)) if c.batch == batch else c for c in f.counted
    )
    return replace(f, counted=counted)


def _ended(after: Facts, work: Work, entry: Entry) -> Facts:
    seen, is_failed = entry.body["seen"], entry.kind == "batch_failed"
    n_rows, n_failed = seen.get("n_rows", 0), seen.get("n_failed", 0)
    outcome = Outcome(
        work.batch, work.due, entry.at, entry.seq, work.version, n_rows, n_failed, entry.body["cause"] if is_failed else "",
    )  # fmt: skip
    others = tuple(o for o in after.outcomes if o.batch != work.batch)
    after = replace(after, work=None, attempt=0, outcomes=(*others, outcome))
    if seen.get("status") != "done":
        return after
    record = {
        "id": seen["id"], "by_version": work.version, "bundle": work.bundle, "input": work.input, "output": work.output,
        "input_digest": seen["input_digest"], "output_digest": seen["made"], "n_rows": n_rows, "n_failed": n_failed,
        "began_at": seen["began_at"], "batch": work.batch, "due": work.due,
    }  # fmt: skip
    after = owe(after, entry, f"batch/{after.model}", "scored", **record)
    if not entry.body.get("detail", {}).get("is_replayed"):
        return after
    answered = {"batch": work.batch, "input": work.input, "input_digest": seen["input_digest"]}
    return owe(after, entry, f"production/{after.model}", "batch_answered", **answered)


def subject(facts: Facts) -> tuple[str, str]:
    """What to look at before deciding."""
    if facts.state is S.SCORING:
        return "scoring", facts.key
    return "receivers" if facts.counted or facts.mark else "nothing", facts.key


def decide(facts: Facts, seen: dict[str, Any], terms: Sequence[BatchSettings], now: float) -> Action:  # fmt: skip
    """The next action: see what came due, and answer what waits, the oldest first, if there is a champion."""
    f = facts
    if tell := due(f):
        return hand_over(tell, seen)
    if seen.get("floor", f.mark) < f.mark:  # before the next begins, for two would write one file
        return Show("workers", f.mark, {})
    if came := _moment(f, terms, now):
        return came
    action = _work(f, f.work, seen, terms, now) if f.work else _begin(f, seen, terms, now)
    if isinstance(action, Wait):
        return Wait(min(action.until, *(_next(f, b) for b in terms), now + DAY_S))
    return action


def _next(f: Facts, batch: BatchSettings) -> float:
    """When it comes due next; never while it waits, for it stands for what comes meanwhile."""
    is_waiting = any(w.batch == batch.name for w in f.waiting)
    return float("inf") if is_waiting else next_due([batch.schedule], until(f, batch.name))


def until(f: Facts, batch: str) -> float:
    """The moment up to which a batch has had its answers, or waits for them."""
    return next((c.until for c in f.counted if c.batch == batch), 0.0)


def _moment(f: Facts, terms: Sequence[BatchSettings], now: float) -> Say | None:
    """What the schedules have to say now: that they count from here on, or that one came due."""
    declared = {batch.name: str(batch.schedule) for batch in terms}
    if {c.batch: c.schedule for c in f.counted} != declared:
        cause = ", ".join(f"{name} {at}" for name, at in declared.items()) or "no batch any more"
        return Say("batches_set", cause=cause, detail={"schedules": declared})
    waiting = {w.batch for w in f.waiting}
    for batch in terms:
        if batch.name in waiting:
            continue
        came_at = last_due([batch.schedule], until(f, batch.name), now)
        if came_at is not None:
            detail = {"batch": batch.name, "due": came_at}
            return Say("batch_due", cause=f"{batch.name} is due since {iso(came_at)}", detail=detail)  # fmt: skip
    return None


def _begin(f: Facts, seen: dict[str, Any], terms: Sequence[BatchSettings], now: float) -> Action:
    champion = seen.get("champion")
    if not f.waiting or not champion:
        return Wait(now + LOOK_S if f.waiting else now + DAY_S)
    waits = f.waiting[0]
    batch = next(batch for batch in terms if batch.name == waits.batch)
    at = last_due([batch.schedule], until(f, batch.name), now) or waits.at
    detail = {
        "batch": batch.name, "due": at, "version": champion["version"], "input": batch.dated(batch.input, at),
        "output": batch.dated(batch.output, at),
    }  # fmt: skip
    inputs = (f"version/{f.model}/{champion['version']}", champion["bundle"])
    return Say("batch_started", inputs, cause=f"{batch.name}, due {iso(at)}", detail=detail)


def _work(
    f: Facts, work: Work, seen: dict[str, Any], terms: Sequence[BatchSettings], now: float
) -> Action:
    inputs = (f"version/{f.model}/{work.version}", work.bundle)
    match seen.get("status"):
        case None:
            return Start("scoring", f.key, inputs, work._asdict())
        case "running" if seen["silent_s"] < SILENCE_S:
            return Wait(now + LOOK_S)
        case "running" | "lost":
            return _again(f, work, inputs, "the work was lost")
        case "failed":
            cause = str(seen.get("cause", "failed"))
            if seen.get("retryable"):
                return _again(f, work, inputs, cause)
            return Say("batch_failed", inputs, cause=f"{work.batch}: {cause}")
    made = (seen["made"],)
    inputs = (*inputs, seen["input_digest"])
    if seen["n_failed"] == seen["n_rows"]:
        cause = f"{work.batch}: none of {seen['n_rows']:,} rows has an answer; column error of {work.output} says why"
        return Say("batch_failed", inputs, made, cause=cause)
    is_replayed = any(batch.is_replayed for batch in terms if batch.name == work.batch)
    return Say("batch_scored", inputs, made, cause=work.batch, detail={"is_replayed": is_replayed})


def _again(f: Facts, work: Work, inputs: tuple[str, ...], cause: str) -> Action:
    kind = "batch_lost" if f.attempt < ATTEMPTS else "batch_failed"
    return Say(kind, inputs, cause=f"{work.batch}: {cause}")


def thaw(kept: dict[str, Any]) -> Facts:
    """Facts from a checkpoint."""
    kept = thaw_shared(kept)
    many = {
        name: tuple(kind(*one) for one in kept[name])
        for name, kind in (("counted", Counted), ("waiting", Due), ("outcomes", Outcome))
    }
    work = Work(*kept["work"]) if kept["work"] else None
    return Facts(**{**kept, **many, "work": work, "state": State(kept["state"])})
