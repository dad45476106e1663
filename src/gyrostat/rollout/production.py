"""What answers requests: releases the newest offer step by step, keeps the champion, goes back by itself or when told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

from gyrostat.ledger import life
from gyrostat.ledger.life import (
    DAY_S,
    Action,
    Say,
    Show,
    Start,
    Tell,
    Wait,
    due,
    hand_over,
    move,
    owe,
    read,
    replace,
    thaw_shared,
)  # fmt: skip
from gyrostat.rollout import judge as judging
from gyrostat.rollout import replay as replaying
from gyrostat.rollout.settings import RolloutSettings
from gyrostat.rollout.states import COMPARED, IN_TRAFFIC, LAST, REPLACEABLE, TRANSITIONS, State
from gyrostat.terms import Answer, Entry

__all__ = [
    "EVENTS",
    "KINDS",
    "LAST",
    "TRANSITIONS",
    "Facts",
    "Offer",
    "State",
    "decide",
    "fold",
    "routes",
    "subject",
    "thaw",
]
S = State
EVENTS = frozenset(
    {
        "offered",
        "answered",
        "rollback_asked",
        "hold_asked",
        "resume_asked",
        "unbar_asked",
        "declared",
        "applied",
        "batch_answered",
    }
)
KINDS = EVENTS | {kind for _, kind in TRANSITIONS}
WORK = {
    S.STAGING: "staging",
    S.REPLAYING: "replay",
    **dict.fromkeys(IN_TRAFFIC, "traffic"),
    S.KEEPING: "receivers",
    S.HELD: "receivers",
}
SILENCE_S, LOOK_S, ATTEMPTS = 900.0, 600.0, 3
REMEMBERED = 20
"""Earlier champions that a person can go back to."""


class Offer(NamedTuple):
    """`entry`: the event that made it. The same bundle may be offered twice, so an end names the offer, not only the bundle."""

    bundle: str
    run: str
    snapshot: str
    entry: str
    version: int = 0

    @property
    def ref(self) -> tuple[str, str]:
        """What an entry about it has among its inputs."""
        return self.bundle, self.entry


class Answered(NamedTuple):
    """The newest table that was answered on a schedule, where candidates are compared by such."""

    seq: int
    """Of the event that told of it."""
    batch: str
    input: str
    input_digest: str


class Unwanted(NamedTuple):
    """A bundle that a person wants gone."""

    bundle: str
    to: str
    with_data: bool
    by: str
    reason: str


@dataclass(frozen=True)
class Facts(life.Facts):
    """What is known of production."""

    state: State = S.KEEPING
    offers: tuple[Offer, ...] = ()
    """Waiting, oldest first; all but the newest are superseded at once."""
    candidate: Offer | None = None
    champion: Offer | None = None
    previous: Offer | None = None
    removed: Offer | None = None
    """What was rolled back by hand."""
    released: tuple[Offer, ...] = ()
    """Earlier champions, newest last."""
    version: int = 0
    attempt: int = 0
    answer: str = ""
    """To this candidate, and to no other."""
    answered_by: str = ""
    needs_person: bool = True
    """No release since the first, or since the limits were loosened, was approved by a person."""
    loosened_seq: int = 0
    """Of the last declaration that loosened something."""
    taken_seq: int = 0
    """Of the entry that took up the candidate."""
    steps: tuple[float, ...] = ()
    step: int = 0
    rollout_seq: int = 0
    """Routes seq of the first step: evidence counts from there."""
    rollout_at: float = 0.0
    is_overdue: bool = False
    promoted_at: float = 0.0
    promoted_seq: int = 0
    unwanted: tuple[Unwanted, ...] = ()
    hold: str = ""
    """By whom a hold is wanted."""
    held_why: str = ""
    is_resumed: bool = False
    """This hold, and no other."""
    resume_to: str = ""
    resumed_by: str = ""
    regressed: tuple[Offer, ...] = ()
    """Grows with harm, not with time."""
    barred: tuple[str, ...] = ()
    routed_at: int = 0
    """Seq of the entry that last changed `routes`."""
    answered_batch: Answered | None = None
    replayed: int = 0
    """Seq of the newest that this candidate was judged by."""
    n_replays: int = 0
    """Of this candidate, those that decided nothing."""
    applied: int = 0
    """Routes seq that every server has said to answer by."""


def share(facts: Facts) -> float:
    """Of the candidate in traffic; 0 in shadow."""
    return facts.steps[facts.step] if facts.state is S.CANARY else 0.0


def routes(facts: Facts) -> list[dict[str, Any]]:
    """Who answers, as the routes file has it. A projection of the ledger, nobody's own state."""
    if facts.champion is None:
        return []
    part = share(facts) if facts.state in IN_TRAFFIC else 0.0
    arms = [_arm(facts.champion, "champion", 1.0 - part, is_shadow=False)]
    if facts.state in IN_TRAFFIC and facts.candidate is not None:
        arms.append(_arm(facts.candidate, "candidate", part, is_shadow=facts.state is S.SHADOW))
    return arms


def _arm(offer: Offer, role: str, part: float, *, is_shadow: bool) -> dict[str, Any]:
    return {
        "bundle": offer.bundle,
        "version": offer.version,
        "role": role,
        "share": part,
        "shadow": is_shadow,
    }


def can_go(facts: Facts, bundle: str, to: str = "") -> bool:
    """May a person take this one off? A champion only if there is one to go back to."""
    if facts.state in IN_TRAFFIC and facts.candidate and bundle == facts.candidate.bundle:
        return True
    return bool(facts.champion and bundle == facts.champion.bundle and target(facts, to))


def target(facts: Facts, to: str) -> Offer | None:
    """Where a rollback by hand would go: the one named, else the champion before."""
    if not to:
        return facts.previous
    known = (*facts.released, *((facts.removed,) if facts.removed else ()), *facts.regressed)
    return next(
        (
            o
            for o in reversed(known)
            if o.bundle == to and (not facts.champion or o.bundle != facts.champion.bundle)
        ),
        None,
    )


def fold(facts: Facts, entry: Entry) -> Facts:
    """The facts after one more entry."""
    facts = read(facts, entry, KINDS)
    after = hear(facts, entry) if entry.kind in EVENTS else take(facts, entry)
    if after is not facts and routes(after) != routes(facts):
        after = replace(after, routed_at=entry.seq)
    return after


def hear(f: Facts, entry: Entry) -> Facts:
    """An answer counts for what it names: a bundle, a hold. Anything else came too late."""
    body = entry.body
    match entry.kind:
        case "offered":
            offer = Offer(body["bundle"], body["run"], body["snapshot"], f"{f.stream}#{entry.seq}")
            return replace(f, offers=(*f.offers, offer))
        case "answered":
            is_asked = f.state is S.WAITING_APPROVAL or (f.state in COMPARED and f.is_overdue)
            if is_asked and not f.answer and f.candidate and body["bundle"] == f.candidate.bundle:
                by = body.get("actor") or "somebody"
                return replace(f, answer=body["answer"], answered_by=by)
        case "rollback_asked" if can_go(f, body["bundle"], body.get("to", "")):
            wish = Unwanted(
                body["bundle"],
                body.get("to", ""),
                body["with_data"],
                body.get("actor", ""),
                body.get("reason", ""),
            )
            return replace(f, unwanted=(*f.unwanted, wish))
        case "hold_asked" if (
            f.state is not S.HELD or f.is_resumed
        ):  # a resume on its way does not outrun it
            return replace(
                f, hold=body.get("actor", "") or "somebody", held_why=body.get("reason", "")
            )
        case "resume_asked" if f.state is S.HELD and body["held"] == f.mark and not f.is_resumed:
            by = body.get("actor", "")
            return replace(f, is_resumed=True, resume_to=body["champion"], resumed_by=by)
        case "unbar_asked" if body["snapshot"] in f.barred:
            freed = replace(f, barred=tuple(s for s in f.barred if s != body["snapshot"]))
            return owe(
                freed,
                entry,
                f"retraining/{f.model}",
                "snapshot_released",
                snapshot=body["snapshot"],
            )
        case "declared" if body["loosened"]:
            return replace(f, needs_person=True, loosened_seq=entry.seq)
        case "batch_answered":
            said = Answered(entry.seq, body["batch"], body["input"], body["input_digest"])
            return replace(f, answered_batch=said)
        case "applied":
            return replace(f, applied=max(f.applied, body["seq"]))
    return f


def take(facts: Facts, entry: Entry) -> Facts:
    """A step of our own."""
    f, after = facts, move(facts, entry, TRANSITIONS)
    idle = replace(
        after,
        candidate=None,
        answer="",
        answered_by="",
        is_overdue=False,
        steps=(),
        step=0,
        declaration="",
    )
    match entry.kind:
        case "staging_started":
            version = newest(f.offers).version or f.version + 1
            return replace(
                after, candidate=newest(f.offers)._replace(version=version), offers=(),
                version=max(f.version, version), attempt=1, answer="", answered_by="",
                declaration=entry.body["declaration"], taken_seq=entry.seq,
            )  # fmt: skip
        case "staging_lost":
            return replace(after, attempt=f.attempt + 1)
        case "staging_failed" | "expired":
            return idle
        case "approved":
            return replace(after, answer="")
        case "shadow_started" | "canary_started":
            steps = tuple(entry.body["detail"]["steps"])
            return replace(
                after,
                steps=steps,
                step=0,
                rollout_seq=entry.seq,
                rollout_at=entry.at,
                answer="",
            )
        case "replay_started":
            return replace(
                after, rollout_at=entry.at, answer="", attempt=1, replayed=0, n_replays=0
            )
        case "replay_lost":
            is_fault = entry.body["seen"].get("status") != "done"
            return replace(after, attempt=f.attempt + is_fault)
        case "replay_undecided":
            of = entry.body["detail"]["of"]
            return replace(
                after, attempt=1, replayed=max(of, f.replayed), n_replays=f.n_replays + 1
            )
        case "advanced":
            return replace(after, step=f.step + 1)
        case "overdue":
            return replace(after, is_overdue=True, answer="")
        case "refused":
            return idle if f.candidate else replace(after, offers=())
        case "superseded":
            return idle if f.state in REPLACEABLE else replace(after, offers=f.offers[1:])
        case "promoted":
            # Whoever said yes to one that was taken up before the limits were loosened did not say yes to those.
            is_approved = bool(f.answered_by) and f.taken_seq > f.loosened_seq
            return _crown(idle, f.candidate, entry, is_approved=is_approved)
        case "regressed" if f.candidate:
            previous = (
                None if f.previous and f.previous.bundle == f.candidate.bundle else f.previous
            )
            gone = replace(idle, regressed=(*f.regressed, f.candidate), previous=previous)
            return _bar(gone, entry, f.candidate, is_barred=entry.body["cause"] == "quality")
        case "champion_regressed":
            gone = replace(
                after,
                champion=f.previous,
                previous=None,
                regressed=(*f.regressed, f.champion),
                promoted_at=0.0,
            )
            return _bar(gone, entry, f.champion, is_barred=entry.body["cause"] == "quality")
        case "held":
            back = (f.candidate,) if f.candidate else ()
            return replace(idle, offers=(*back, *f.offers), hold="", removed=None)
        case "rolled_back":
            return _roll_back(idle, f, entry)
        case "resumed":
            return _resume(replace(after, is_resumed=False, resume_to="", resumed_by=""), entry)
    return after


def _crown(after: Facts, offer: Offer | None, entry: Entry, *, is_approved: bool) -> Facts:
    old = after.champion
    released = (
        *(o for o in after.released if not old or o.bundle != old.bundle),
        *((old,) if old else ()),
    )
    return replace(
        after, champion=offer, previous=old, released=released[-REMEMBERED:],
        promoted_at=entry.at, promoted_seq=entry.seq, needs_person=after.needs_person and not is_approved,
    )  # fmt: skip


def newest(offers: tuple[Offer, ...]) -> Offer:
    """The one that counts."""
    return offers[-1]


def _roll_back(after: Facts, f: Facts, entry: Entry) -> Facts:
    """Take off what the person named. A candidate that was not meant waits again; nothing is lost."""
    wish, *rest = f.unwanted
    if f.state in IN_TRAFFIC and f.candidate and wish.bundle == f.candidate.bundle:
        after = replace(after, removed=f.candidate)
    else:
        back = (f.candidate,) if f.candidate else ()
        goes_to = target(f, wish.to)
        regressed = tuple(o for o in f.regressed if not goes_to or o.bundle != goes_to.bundle)
        after = replace(
            after, removed=f.champion, champion=goes_to, previous=None, offers=(*back, *f.offers),
            regressed=regressed, promoted_at=0.0,
        )  # fmt: skip
    still = tuple(u for u in rest if can_go(after, u.bundle, u.to))
    after = replace(
        after,
        is_resumed=False,
        resume_to="",
        resumed_by="",
        unwanted=still,
        hold="",
        held_why=wish.reason,
    )
    return _bar(after, entry, after.removed, is_barred=wish.with_data)


def _resume(after: Facts, entry: Entry) -> Facts:
    """A person may bring one back, also one that regressed; then its data counts again as well."""
    back = named(after, entry.outputs[0]) if entry.outputs else None
    after = replace(after, held_why=after.held_why if after.hold else "")
    if back is None:
        return after
    after = _crown(replace(after, removed=None), back, entry, is_approved=False)
    after = replace(after, regressed=tuple(o for o in after.regressed if o.bundle != back.bundle))
    if back.snapshot not in after.barred:
        return after
    after = replace(after, barred=tuple(s for s in after.barred if s != back.snapshot))
    return owe(
        after, entry, f"retraining/{after.model}", "snapshot_released", snapshot=back.snapshot
    )


def named(f: Facts, bundle: str) -> Offer | None:
    """One that was taken off."""
    return next((o for o in (f.removed, *f.regressed) if o and o.bundle == bundle), None)


def _bar(after: Facts, entry: Entry, offer: Offer | None, *, is_barred: bool) -> Facts:
    if not is_barred or offer is None or offer.snapshot in after.barred:
        return after
    after = replace(after, barred=(*after.barred, offer.snapshot))
    return owe(
        after, entry, f"retraining/{after.model}", "snapshot_barred", snapshot=offer.snapshot
    )


def subject(facts: Facts) -> tuple[str, str]:
    """What to look at before deciding."""
    return WORK.get(facts.state, "nothing"), facts.key


def decide(facts: Facts, seen: dict[str, Any], terms: RolloutSettings, now: float) -> Action:
    """Asks which fact is missing, never which action came last. What a person wants gone goes first."""
    f = facts
    if f.unwanted:
        wish = f.unwanted[0]
        detail = {"by": wish.by, "reason": wish.reason, "to": wish.to, "with_data": wish.with_data}
        return Say(
            "rolled_back",
            (wish.bundle,),
            cause="with data" if wish.with_data else "by hand",
            detail=detail,
        )
    if f.hold and f.state is not S.HELD:
        return Say(
            "held",
            f.candidate.ref if f.candidate else (),
            cause=f"by {f.hold}",
            detail={"reason": f.held_why},
        )
    # Also while no server lives: the next one starts from what was shown.
    if min(seen.get(what, f.routed_at) for what in ("served", "shown")) < f.routed_at:
        return Show("router", f.routed_at, _shown(f))
    if "served" in seen and f.applied < f.routed_at:
        return Tell(
            f.stream, "applied", f"applied#{f.routed_at}", {"seq": f.routed_at, "arms": routes(f)}
        )
    if tell := due(f):
        return hand_over(tell, seen)
    if seen.get("floor", f.mark) < f.mark:
        return Show("workers", f.mark, {})
    if f.state not in IN_TRAFFIC and f.previous and (harm := _champions_harm(f, seen, terms, now)):
        cause, detail = harm
        return Say(
            "champion_regressed", f.champion.ref if f.champion else (), cause=cause, detail=detail
        )
    if f.candidate and f.state not in IN_TRAFFIC and (cause := unfit(f, f.candidate)):
        return Say("refused", f.candidate.ref, cause=cause)
    if f.offers and f.state in REPLACEABLE and f.candidate:
        return Say("superseded", f.candidate.ref)
    if len(f.offers) > 1:
        return Say("superseded", f.offers[0].ref)
    match f.state:
        case S.HELD if f.is_resumed:
            outputs = (f.resume_to,) if named(f, f.resume_to) else ()
            return Say(
                "resumed", outputs=outputs, cause=f"by {f.resumed_by}" if f.resumed_by else ""
            )
        case S.KEEPING if f.offers:
            return _at_the_door(f)
        case S.KEEPING | S.HELD:
            return Wait(now + DAY_S)
        case S.STAGING:
            return _stage(f, seen, now)
        case S.STAGED | S.WAITING_APPROVAL | S.APPROVED:
            return _approve(f, terms, now)
        case S.REPLAYING:
            return _replay(f, seen, terms, now)
    return _judge_traffic(f, seen, terms, now)


def _shown(f: Facts) -> dict[str, Any]:
    return {
        "arms": routes(f),
        "rollout_seq": f.rollout_seq if f.state in IN_TRAFFIC else 0,
        "promoted_seq": f.promoted_seq,
        "declaration": f.declaration,
    }


def unfit(f: Facts, offer: Offer) -> str:
    """Why not to release it.

    Asked at the door and until it takes traffic, for bars come while it waits. The one place where offer and bar are
    facts of the same stream, so the one that cannot be outrun.
    """
    if offer.snapshot in f.barred:
        return "barred"
    if f.champion and offer.bundle == f.champion.bundle:
        return "champion"
    return "regressed" if any(offer.bundle == o.bundle for o in f.regressed) else ""


def _at_the_door(f: Facts) -> Action:
    offer = newest(f.offers)
    if cause := unfit(f, offer):
        return Say("refused", offer.ref, cause=cause)
    return Say(
        "staging_started", offer.ref, (f"version/{f.model}/{offer.version or f.version + 1}",)
    )


def _stage(f: Facts, seen: dict[str, Any], now: float) -> Action:
    assert f.candidate is not None
    inputs = f.candidate.ref
    match seen.get("status"):
        case None:
            spec = {
                "bundle": f.candidate.bundle,
                "snapshot": f.candidate.snapshot,
                "version": f.candidate.version,
            }
            return Start("staging", f.key, inputs, {**spec, "declaration": f.declaration})
        case "running" if seen["silent_s"] < SILENCE_S:
            return Wait(now + LOOK_S)
        case "running" | "lost":
            return (
                Say("staging_lost", inputs)
                if f.attempt < ATTEMPTS
                else Say("staging_failed", inputs, cause="lost")
            )
        case "failed":
            return Say("staging_failed", inputs, cause=str(seen.get("cause", "failed")))
    if seen["is_answering"]:
        return Say("staging_passed", inputs, (seen["made"],))
    return Say("staging_failed", inputs, (seen["made"],), cause=str(seen.get("cause", "")))


def _approve(f: Facts, terms: RolloutSettings, now: float) -> Action:
    assert f.candidate is not None
    if f.state is S.STAGED:
        if terms.approval == "always" or (terms.approval == "first" and f.needs_person):
            why = (
                "every release asks"
                if terms.approval == "always"
                else "a first release, or the first after its limits were loosened, asks"
            )
            return Say("approval_asked", f.candidate.ref, cause=why)
        return Say(
            "approved",
            f.candidate.ref,
            cause=f"not asked for: rollout.approval is {terms.approval}",
        )
    if f.state is S.WAITING_APPROVAL:
        if not f.answer:
            return Wait(now + DAY_S)
        kind = "approved" if f.answer == "approved" else "refused"
        return Say(kind, f.candidate.ref, cause=f"by {f.answered_by}", detail={"by": f.answered_by})
    if not f.champion:
        return Say(
            "promoted", f.candidate.ref, cause="the first of its name: nobody to compare with"
        )
    if not terms.steps:
        return Say("replay_started", f.candidate.ref)
    kind = "shadow_started" if terms.steps[0] == 0 else "canary_started"
    return Say(kind, f.candidate.ref, detail={"steps": list(terms.steps)})


def _champions_harm(
    f: Facts, seen: dict[str, Any], terms: RolloutSettings, now: float
) -> tuple[str, dict[str, Any]] | None:
    """Why to go back to the champion before, if there is a reason: an absolute limit is broken, soon after promotion."""
    found = seen.get("champion") or {}
    limits = found.get("limits", {})
    if (
        not limits
        or not f.promoted_at
        or now > f.promoted_at + terms.watch_s
        or found.get("since_seq", 0) != f.promoted_seq
    ):
        return None
    bar = log(len(limits) / terms.wrong_decisions)
    broken = {metric: test for metric, test in limits.items() if test["broken"] >= bar}
    if not broken:
        return None
    metric, test = max(broken.items(), key=lambda item: item[1]["broken"])
    numbers = {
        k: test[k] for k in ("value", "lower", "upper", "limit", "n") if test.get(k) is not None
    }
    return test["cause"], {"metric": metric, "rule": "rollout.watch/1", **numbers}


def verdict_on(
    f: Facts, traffic: Mapping[str, Any] | None, terms: RolloutSettings, now: float
) -> judging.Judged:
    """What the counts say about the step that is open; also for those who only look."""
    if traffic is not None and traffic["routes_seq"] != f.routed_at:
        traffic = None
    return judging.judge(traffic, terms, f.since, now, step=f.step, n_steps=len(f.steps))


def _judge_traffic(f: Facts, seen: dict[str, Any], terms: RolloutSettings, now: float) -> Action:
    """Counts belong to the routes of `f.routed_at`: those of an earlier share say nothing about this one."""
    assert f.candidate is not None
    if answered := _answered(f, f.candidate):
        return answered
    verdict, cause, *_ = verdict_on(f, seen.get("traffic"), terms, now)
    detail = {"verdict": verdict.as_json()}
    if verdict.answer is Answer.REJECT:
        return Say("regressed", f.candidate.ref, cause=cause, detail=detail)
    if verdict.answer is Answer.ACCEPT:
        is_last = f.step + 1 >= len(f.steps)
        return Say(
            "promoted" if is_last else "advanced",
            f.candidate.ref,
            cause=verdict.reason,
            detail=detail,
        )
    return _expire(f, f.candidate, terms, now, verdict.needs, detail)


def _answered(f: Facts, candidate: Offer) -> Say | None:
    """What a person said to one that is overdue."""
    if not (f.is_overdue and f.answer):
        return None
    by = {"by": f.answered_by}
    if f.answer == "approved":
        return Say(
            "promoted",
            candidate.ref,
            cause=f"approved by {f.answered_by}, without the proof",
            detail=by,
        )
    return Say("refused", candidate.ref, cause=f"by {f.answered_by}", detail=by)


def _expire(
    f: Facts, candidate: Offer, terms: RolloutSettings, now: float, needs: str, detail: dict[str, Any]
) -> Action:  # fmt: skip
    """Undecided has a deadline, and a declared end."""
    if now < f.rollout_at + terms.expires_s:
        return Wait(min(now + LOOK_S, f.rollout_at + terms.expires_s))
    if terms.then == "reject":
        cause = f"undecided until its deadline: {needs}"
        return Say("expired", candidate.ref, cause=cause, detail=detail)
    if not f.is_overdue:
        held = {"then": "hold"} if terms.then == "hold" else {}
        return Say("overdue", candidate.ref, cause=needs, detail=detail | held)
    return Wait(now + LOOK_S)


def _replay(f: Facts, seen: dict[str, Any], terms: RolloutSettings, now: float) -> Action:
    """Each table that was answered is answered by the candidate too, until one decides."""
    assert f.candidate is not None
    assert f.champion is not None
    if answered := _answered(f, f.candidate):
        return answered
    inputs, newest_one = f.candidate.ref, f.answered_batch
    match seen.get("status"):
        case None:
            if newest_one is None or newest_one.seq <= f.replayed:
                return _expire(f, f.candidate, terms, now, f"{replaying.MORE} to be answered", {})
            spec = {
                "bundle": f.candidate.bundle, "version": f.candidate.version, "champion_bundle": f.champion.bundle,
                "champion_version": f.champion.version, "of": newest_one.seq, "batch": newest_one.batch, "input": newest_one.input,
                "alpha": replaying.alpha(terms, f.n_replays), "declaration": f.declaration,
            }  # fmt: skip
            return Start("replay", f.key, inputs, spec)
        case "running" if seen["silent_s"] < SILENCE_S:
            return Wait(now + LOOK_S)
        case "running" | "lost":
            return _replay_again(f, inputs, "the replay was lost")
        case "failed":
            cause = str(seen.get("cause", "failed"))
            if seen.get("retryable"):
                return _replay_again(f, inputs, cause)
            return _undecided(f, inputs, (), cause, {})
    if seen["champion_bundle"] != f.champion.bundle:
        return Say("replay_lost", inputs, cause="there is another champion to compare with")
    verdict, cause, *_ = replaying.judge(seen["evidence"], terms)
    detail, made = {"verdict": verdict.as_json()}, (seen["made"],)
    match verdict.answer:
        case Answer.ACCEPT:
            return Say("promoted", inputs, made, cause=verdict.reason, detail=detail)
        case Answer.REJECT:
            return Say("regressed", inputs, made, cause=cause, detail=detail)
    return _undecided(f, inputs, made, verdict.reason, detail | {"of": seen["of"]})


def _replay_again(f: Facts, inputs: tuple[str, ...], cause: str) -> Say:
    if f.attempt < ATTEMPTS:
        return Say("replay_lost", inputs, cause=cause)
    return _undecided(f, inputs, (), cause, {})


def _undecided(
    f: Facts, inputs: tuple[str, ...], made: tuple[str, ...], cause: str, detail: dict[str, Any]
) -> Say:
    of = f.answered_batch.seq if f.answered_batch else 0
    return Say("replay_undecided", inputs, made, cause=cause, detail={"of": of} | detail)


def thaw(kept: dict[str, Any]) -> Facts:
    """Facts from a checkpoint."""
    kept = thaw_shared(kept)
    one = {
        name: Offer(*kept[name]) if kept[name] else None
        for name in ("candidate", "champion", "previous", "removed")
    }
    many = {
        name: tuple(Offer(*o) for o in kept[name]) for name in ("offers", "regressed", "released")
    }
    answered = Answered(*kept["answered_batch"]) if kept.get("answered_batch") else None
    unwanted = tuple(Unwanted(*u) for u in kept["unwanted"])
    plain = {
        "state": State(kept["state"]),
        "barred": tuple(kept["barred"]),
        "steps": tuple(kept["steps"]),
        "answered_batch": answered,
    }
    return Facts(**{**kept, **one, **many, **plain, "unwanted": unwanted})
