"""One candidate, from a snapshot to an offer. Ends by telling production (if it has one to offer) and retraining."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gyrostat.gates.judge import conclude, judge
from gyrostat.gates.settings import GateSettings
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
from gyrostat.terms import Answer, Entry


class State(StrEnum):
    """How far the candidate has come."""

    ABSENT = "absent"
    OPENED = "opened"
    SNAPSHOTTED = "snapshotted"
    TRAINED = "trained"
    PACKED = "packed"
    UNDECIDED = "undecided"
    JUDGED = "judged"
    OFFERED = "offered"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CLOSED = "closed"


S = State
ENDED = frozenset({S.OFFERED, S.REJECTED, S.FAILED, S.CANCELLED})
AT_WORK = frozenset(S) - ENDED - {S.ABSENT, S.CLOSED}
WORK = {S.OPENED: "snapshot", S.SNAPSHOTTED: "training", S.TRAINED: "pack", S.PACKED: "evaluation"}

TRANSITIONS: dict[tuple[State, str], State | None] = {
    (S.ABSENT, "opened"): S.OPENED,
    (S.OPENED, "snapshotted"): S.SNAPSHOTTED,
    (S.OPENED, "checks_failed"): S.REJECTED,
    (S.SNAPSHOTTED, "trained"): S.TRAINED,
    (S.TRAINED, "packed"): S.PACKED,
    (S.PACKED, "gate_passed"): S.JUDGED,
    (S.PACKED, "gate_failed"): S.REJECTED,
    (S.PACKED, "gate_undecided"): S.UNDECIDED,
    (S.UNDECIDED, "approval_asked"): STAY,
    (S.UNDECIDED, "approved"): S.JUDGED,
    (S.UNDECIDED, "gate_failed"): S.REJECTED,
    (S.JUDGED, "offered"): S.OFFERED,
    **{
        (state, "work_lost"): state for state in WORK
    },  # once more: the state's key is new, so the work is
    **{(state, "gave_up"): S.FAILED for state in WORK},
    **{
        (state, "rejected"): S.REJECTED for state in AT_WORK
    },  # no data left, its snapshot was barred, a person said no
    **{(state, "cancelled"): S.CANCELLED for state in AT_WORK},
    **{(state, "told"): STAY for state in (*ENDED, S.UNDECIDED)},
    **{(state, "closed"): S.CLOSED for state in ENDED},
}
EVENTS = frozenset({"run_asked", "snapshot_barred", "stop_asked", "answered"})
KINDS = EVENTS | {kind for _, kind in TRANSITIONS}
LAST = last(S, TRANSITIONS)
SILENCE_S, LOOK_S, ATTEMPTS = 900.0, 1800.0, 3


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What the declaration says about one candidate."""

    gates: GateSettings
    silence_s: float = SILENCE_S


@dataclass(frozen=True)
class Facts(life.Facts):
    """What is known of one run."""

    state: State = S.ABSENT
    is_asked: bool = False
    by: str = ""
    why: str = ""
    actor: str = ""
    offered: str = ""
    """Digest of the model that stands in for a training; empty: train one."""
    is_stopped: bool = False
    stopped_by: str = ""
    attempt: int = 0
    snapshot: str = ""
    trained: str = ""
    training_seq: int = 0
    """Key of the training whose result counts: its job folder holds the fitted model."""
    bundle: str = ""
    flavour: str = ""
    barred: tuple[str, ...] = ()
    answer: str = ""
    answered_by: str = ""
    asked_at: float = 0.0
    """Undecided: since when a person is asked, or told that it is held; 0: not yet."""
    is_parent_told: bool = False
    opened_at: float = 0.0


def fold(facts: Facts, entry: Entry) -> Facts:
    """The facts after one more entry."""
    facts = read(facts, entry, KINDS)
    body = entry.body
    match entry.kind:
        case "run_asked":
            return replace(
                facts, is_asked=True, barred=(*facts.barred, *body["barred"]),
                by=body.get("by", ""), why=body.get("why", ""), actor=body.get("actor", ""),
                offered=body.get("offered", ""),
            )  # fmt: skip
        case "snapshot_barred":
            return replace(facts, barred=(*facts.barred, body["snapshot"]))
        case "stop_asked":
            return replace(facts, is_stopped=True, stopped_by=body.get("actor", ""))
        case "answered":
            if facts.state is S.UNDECIDED and not facts.answer:
                return replace(facts, answer=body["answer"], answered_by=body.get("actor", ""))
            return facts
    after = move(facts, entry, TRANSITIONS)
    made = entry.outputs[0] if entry.outputs else ""
    match entry.kind:
        case "opened":
            after = replace(after, attempt=1, declaration=body["declaration"], opened_at=entry.at)
        case "snapshotted":
            after = replace(after, snapshot=made, attempt=1)
        case "work_lost":
            after = replace(after, attempt=facts.attempt + 1)
        case "trained":
            after = replace(after, trained=made, training_seq=facts.mark, attempt=1)
        case "packed":
            after = replace(after, bundle=made, attempt=1, flavour=body["seen"].get("flavour", ""))
        case "approval_asked":
            after = replace(after, asked_at=entry.at)
        case "offered":
            after = owe(
                after, entry, f"production/{facts.model}", "offered",
                bundle=facts.bundle, run=facts.stream, snapshot=facts.snapshot,
            )  # fmt: skip
    is_over = after.state in ENDED or after.state is S.UNDECIDED
    if is_over and not facts.is_parent_told:
        outcome = {"run": facts.stream, "outcome": str(after.state)}
        after = replace(
            owe(after, entry, f"retraining/{facts.model}", "run_closed", **outcome),
            is_parent_told=True,
        )
    return after


def subject(facts: Facts) -> tuple[str, str]:
    """What to look at before deciding."""
    return "receivers" if facts.state in ENDED else WORK.get(facts.state, "nothing"), facts.key


def decide(facts: Facts, seen: dict[str, Any], terms: RunTerms, now: float) -> Action:
    """Asks which fact is missing, never which action came last."""
    f = facts
    if f.state is S.ABSENT:
        return Say("opened", cause=f.why or f.by) if f.is_asked else Wait(now + DAY_S)
    if f.state in ENDED:
        if seen.get("floor", f.mark) < f.mark:
            return Show("workers", f.mark, {})
        return hand_over(tell, seen) if (tell := due(f)) else Say("closed")
    if f.is_stopped:
        return Say("cancelled", cause=f"by {f.stopped_by}" if f.stopped_by else "")
    if f.snapshot in f.barred:
        return Say("rejected", (f.snapshot,), cause="its snapshot is barred")
    if f.state is S.UNDECIDED:
        return hand_over(tell, seen) if (tell := due(f)) else _undecided(f, terms, now)
    if f.state is S.JUDGED:
        return Say("offered", (f.bundle, f.snapshot))
    return _work(f, seen, terms, now)


def _undecided(f: Facts, terms: RunTerms, now: float) -> Action:
    if f.answer:
        by = f"by {f.answered_by}" if f.answered_by else ""
        return Say("approved" if f.answer == "approved" else "rejected", (f.bundle,), cause=by)
    end = f.since + terms.gates.undecided.after_s
    if now < end:
        return Wait(end)
    cause, then = "undecided until its deadline", terms.gates.undecided.then
    if then == "reject":
        return Say("gate_failed", (f.bundle,), cause=cause, detail={"verdicts": {}})
    if not f.asked_at:
        detail = {"then": "hold"} if then == "hold" else {}
        return Say("approval_asked", (f.bundle,), cause=cause, detail=detail)
    return Wait(now + DAY_S)


def _work(f: Facts, seen: dict[str, Any], terms: RunTerms, now: float) -> Action:
    what = WORK[f.state]
    inputs = {"snapshot": f.barred, "training": (f.snapshot,), "pack": (f.trained,)}.get(
        what, (f.bundle,)
    )
    match seen.get("status"):
        case None:
            spec = {
                "barred": list(f.barred),
                "snapshot": f.snapshot,
                "training_seq": f.training_seq,
                "bundle": f.bundle,
            }
            if f.offered:
                spec["offered"] = f.offered
            return Start(what, f.key, inputs, {**spec, "declaration": f.declaration, "by": f.by})
        case "running" if seen["silent_s"] < terms.silence_s:
            return Wait(now + LOOK_S)
        case "running" | "lost":
            return _again(f, inputs, f"the {what} was lost")
        case "failed":
            cause = f"{what}: {seen.get('cause', 'failed')}"
            return (
                _again(f, inputs, cause)
                if seen.get("retryable")
                else Say("gave_up", inputs, cause=cause)
            )
    made = (seen["made"],)
    match what:
        case "snapshot":
            if not seen["made"]:
                return Say("rejected", inputs, cause="no data left")
            return Say("snapshotted" if seen.get("passed", True) else "checks_failed", inputs, made)
        case "training":
            return Say("trained", inputs, made)
        case "pack":
            return Say("packed", inputs, made)
    verdicts = judge(seen["evidence"], terms.gates)
    concluded = conclude(verdicts)
    kind = {
        Answer.ACCEPT: "gate_passed",
        Answer.REJECT: "gate_failed",
        Answer.UNDECIDED: "gate_undecided",
    }[concluded.answer]
    detail = {
        "verdicts": {name: verdict.as_json() for name, verdict in verdicts.items()},
        "needs": concluded.needs,
    }
    return Say(kind, inputs, made, cause=concluded.reason, detail=detail)


def _again(f: Facts, inputs: tuple[str, ...], cause: str) -> Action:
    return Say("work_lost" if f.attempt < ATTEMPTS else "gave_up", inputs, cause=cause)


def thaw(kept: dict[str, Any]) -> Facts:
    """Facts from a checkpoint."""
    kept = thaw_shared(kept)
    return Facts(**{**kept, "state": State(kept["state"]), "barred": tuple(kept["barred"])})
