"""Mistakes to plant, one for each rule. A check is believed after it was seen to fail."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from gyrostat.ledger import life
from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Facts, Say, Start, Tell, replace
from gyrostat.loop import reconcile, run
from gyrostat.retraining import life as retraining
from gyrostat.rollout import production
from gyrostat.rollout.states import IN_TRAFFIC, State
from gyrostat.terms import Draft

_act, _step, _due, _thaw = reconcile.act, reconcile.step, life.due, reconcile.thaw
_decide, _fold, _hear = production.decide, production.fold, production.hear
_run_fold, _want_fold = run.fold, retraining.fold


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
    "wall_clock": [(reconcile, "step", undated)],
}


def planted(mistake: str) -> AbstractContextManager[Any]:
    stack = ExitStack()
    for target in MISTAKES.get(mistake, []):
        stack.enter_context(patch.object(*target))
    return stack
