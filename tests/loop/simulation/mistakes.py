"""Mistakes to plant, one for each rule. A check is believed after it was seen to fail."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from gyrostat.ledger import life
from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Facts, Say, Show, Start, Tell, replace
from gyrostat.loop import reconcile, run
from gyrostat.retraining import life as retraining
from gyrostat.rollout import production
from gyrostat.rollout.states import IN_TRAFFIC, State
from gyrostat.terms import Draft

_act, _step, _due, _thaw = reconcile.act, reconcile.step, life.due, reconcile.thaw
_decide, _fold, _hear = production.decide, production.fold, production.hear
_run_fold, _want_fold, _judge = run.fold, retraining.fold, run.judge
_take, _roll_back = production.take, production._roll_back


def show_before_say(facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:
    """Moves the router, then records that it did."""
    if isinstance(action, Say) and facts.stream.startswith("production/") and action.kind != "told":
        draft = _step(facts, action, seen, now, more["name"], more["declaration"])
        after = _fold(
            facts,
            seal(
                draft,
                position=1,
                stream=facts.stream,
                seq=facts.seq + 1,
                fence=None,
                at=now,
                prev="",
            ),
        )
        if production.routes(after) != production.routes(facts):
            more["world"].show(facts.stream, "router", after.seq, production._shown(after))
    _act(facts, action, seen, now, **more)


def say_before_make(facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:
    """Records the snapshot, then takes it."""
    if isinstance(action, Start) and action.what == "snapshot":
        say = Say("snapshotted", action.inputs, (f"snapshot-{action.key}",))
        draft = _step(
            facts,
            say,
            {"status": "done", "made": say.outputs[0]},
            now,
            more["name"],
            more["declaration"],
        )
        more["ledger"].append(facts.stream, draft, expect_seq=facts.seq, fence=more["fence"])
    _act(facts, action, seen, now, **more)


def say_before_tell(facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:
    """Records that the other life was told, then tells it."""
    if isinstance(action, Tell) and action.kind != "applied":
        said = Say("told", (action.stream, action.key))
        draft = _step(
            facts, said, {**seen, "told": action.key}, now, more["name"], more["declaration"]
        )
        more["ledger"].append(facts.stream, draft, expect_seq=facts.seq, fence=more["fence"])
    _act(facts, action, seen, now, **more)


def tell_without_key(facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:
    """Trusts the append: told if it came back, repeated if not."""
    if not isinstance(action, Tell):
        return _act(facts, action, seen, now, **more)
    more["ledger"].append(
        action.stream,
        Draft(action.kind, now, more["name"], body=action.body),
        expect_seq=None,
        fence=None,
    )
    said = Say("told", (action.stream, action.key))
    draft = _step(facts, said, {**seen, "told": action.key}, now, more["name"], more["declaration"])
    more["ledger"].append(facts.stream, draft, expect_seq=facts.seq, fence=more["fence"])


def tell_keyed_by_seq_alone(facts: Any, entry: Any, stream: str, kind: str, **body: Any) -> Any:
    """Forgets that two senders count from one."""
    return replace(facts, owes=(*facts.owes, Tell(stream, kind, f"#{entry.seq}", body)))


def run_closed_lost(facts: Any, entry: Any) -> Any:
    after = _run_fold(facts, entry)
    return replace(after, owes=tuple(t for t in after.owes if t.kind != "run_closed"))


def held_forgotten(stream: str, head: dict[str, Any]) -> Any:
    """The checkpoint holds everything, except that."""
    facts = _thaw(stream, head)
    return replace(facts, state=State.KEEPING) if facts.state is State.HELD else facts


def regressed_forgotten(facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Asks the bar of the data, not the bundle's own past."""
    return _decide(replace(facts, regressed=()), seen, terms, now)


def rollback_after_the_canary(facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Finishes what it is at before it does what it is told."""
    return _decide(
        replace(facts, unwanted=()) if facts.state in IN_TRAFFIC else facts, seen, terms, now
    )


def trigger_counted(facts: Any, entry: Any) -> Any:
    """A run for each trigger: one that came while the run was open, and one more for it."""
    after = _want_fold(facts, entry)
    return (
        replace(after, wanted=facts.wanted)
        if entry.kind == "run_opened" and facts.is_patient
        else after
    )


def unconfirmed_routes(facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Never asks the router what it serves: shows once, trusts that it arrived, counts at once."""
    action = _decide(facts, seen, terms, now)
    if isinstance(action, Show) and action.receiver == "router" and facts.state in IN_TRAFFIC:
        trusted = {**seen, "served": facts.routed_at, "shown": facts.routed_at}
        traffic = seen.get("traffic") and {**seen["traffic"], "routes_seq": facts.routed_at}
        return _decide(facts, {**trusted, "traffic": traffic}, terms, now)
    return action


def unbound_approval(f: Any, entry: Any) -> Any:
    """Takes an answer for whatever waits at the moment."""
    if entry.kind == "answered" and f.state is State.WAITING_APPROVAL and not f.answer:
        return replace(f, answer=entry.body["answer"], answered_by="kim")
    return _hear(f, entry)


def unbound_resume(f: Any, entry: Any) -> Any:
    """Ends whichever hold there is."""
    if entry.kind == "resume_asked" and f.state is State.HELD:
        return replace(f, is_resumed=True, resume_to=entry.body["champion"])
    return _hear(f, entry)


def candidate_lost(after: Any, f: Any, entry: Any) -> Any:
    """Going back a champion drops the candidate that was on its way."""
    return replace(_roll_back(after, f, entry), offers=f.offers)


def barred_forgotten(facts: Any, entry: Any) -> Any:
    after = _want_fold(facts, entry)
    return replace(after, barred=()) if entry.kind == "run_opened" else after


def open_run_not_told(facts: Any, entry: Any) -> Any:
    after = _want_fold(facts, entry)
    return replace(after, owes=facts.owes) if entry.kind == "snapshot_barred" else after


def oldest_first_decide(facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Works off the offers in the order of their arrival."""
    offers = facts.offers[:1] if facts.state is State.KEEPING else ()
    return _decide(replace(facts, offers=offers), seen, terms, now)


def oldest_first_take(facts: Any, entry: Any) -> Any:
    if entry.kind == "staging_started" or (entry.kind == "refused" and not facts.candidate):
        return replace(
            _take(replace(facts, offers=facts.offers[:1]), entry), offers=facts.offers[1:]
        )
    return _take(facts, entry)


_moods = itertools.cycle([0.0, 0.0, 0.15])


def unrecorded_evidence(evidence: Any, settings: Any) -> Any:
    """Judges by something that is not written down."""
    found, mood = evidence["metrics"]["rmse"], next(_moods)
    moody = {**found, **{k: found[k] + mood for k in ("value", "lower", "upper")}}
    return _judge({**evidence, "metrics": {"rmse": moody}}, settings)


def undated(facts: Any, say: Any, seen: Any, now: float, actor: str, declaration: str) -> Draft:
    """Judges by its own clock, and does not tell the ledger by which time."""
    return dataclasses.replace(_step(facts, say, seen, now, actor, declaration), at=0.0)


def everywhere(name: str, what: Any) -> list[tuple[Any, str, Any]]:
    return [
        (module, name, what)
        for module in (retraining, run, production, reconcile)
        if hasattr(module, name)
    ]


# []: a flag that the simulated world or ledger reads.
MISTAKES: dict[str, list[tuple[Any, str, Any]]] = {
    "append_repeated": [],
    "no_compare_and_set": [],
    "work_repeated": [],
    "nobody_reaps": [],
    "router_takes_any": [],
    "router_forgets": [],
    "late_start_accepted": [],
    "show_before_say": [(reconcile, "act", show_before_say)],
    "say_before_make": [(reconcile, "act", say_before_make)],
    "say_before_tell": [(reconcile, "act", say_before_tell)],
    "tell_without_key": [(reconcile, "act", tell_without_key)],
    "tell_keyed_by_seq_alone": everywhere("owe", tell_keyed_by_seq_alone),
    "key_from_last_seq": [(Facts, "key", property(lambda f: f"{f.stream}#{f.seq}"))],
    "run_closed_lost": [(run, "fold", run_closed_lost)],
    "held_forgotten": [(reconcile, "thaw", held_forgotten)],
    "regressed_forgotten": [(production, "decide", regressed_forgotten)],
    "rollback_after_the_canary": [(production, "decide", rollback_after_the_canary)],
    "trigger_counted": [(retraining, "fold", trigger_counted)],
    "not_pinned": [],
    "unconfirmed_routes": [(production, "decide", unconfirmed_routes)],
    "unbound_approval": [(production, "hear", unbound_approval)],
    "unbound_resume": [(production, "hear", unbound_resume)],
    "candidate_lost": [(production, "_roll_back", candidate_lost)],
    "barred_forgotten": [(retraining, "fold", barred_forgotten)],
    "open_run_not_told": [(retraining, "fold", open_run_not_told)],
    "oldest_first": [
        (production, "decide", oldest_first_decide),
        (production, "take", oldest_first_take),
    ],
    "supersedes_traffic": [
        (production, "REPLACEABLE", (*production.REPLACEABLE, *IN_TRAFFIC)),
        (
            production,
            "TRANSITIONS",
            production.TRANSITIONS | {(s, "superseded"): State.KEEPING for s in IN_TRAFFIC},
        ),
    ],
    "unrecorded_evidence": [(run, "judge", unrecorded_evidence)],
    "wall_clock": [(reconcile, "step", undated)],
}


def planted(mistake: str) -> AbstractContextManager[Any]:
    stack = ExitStack()
    for target in MISTAKES.get(mistake, []):
        stack.enter_context(patch.object(*target))
    return stack
