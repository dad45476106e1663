"""Mistakes to plant, one for each rule. A check is believed after it was seen to fail.

Each function takes what it stands in for as its first argument.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch

from gyrostat.batching import life as batching
from gyrostat.errors import UnknownKindError
from gyrostat.ledger.chain import seal
from gyrostat.ledger.life import Facts, Say, Show, Start, Tell, replace
from gyrostat.loop import reconcile, run
from gyrostat.retraining import life as retraining
from gyrostat.rollout import production
from gyrostat.rollout.states import IN_TRAFFIC, State
from gyrostat.terms import Draft

from . import releases

Original = Callable[..., Any]


class Wrapped(NamedTuple):
    """`wrapper` stands in for a function, and may call it."""

    module: Any
    name: str
    wrapper: Callable[..., Any]


class Replaced(NamedTuple):
    """`value` stands in for one that is no function."""

    module: Any
    name: str
    value: Any


# the order of make, say, show and tell


def show_before_say(act: Original, facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:  # fmt: skip
    """Moves the router, then records that it did."""
    if isinstance(action, Say) and facts.stream.startswith("production/") and action.kind != "told":
        draft = reconcile.step(facts, action, seen, now, more["name"], more["declaration"])
        place = {"position": 1, "stream": facts.stream, "seq": facts.seq + 1, "fence": None}
        after = production.fold(facts, seal(draft, **place, at=now, prev=""))
        if production.routes(after) != production.routes(facts):
            more["world"].show(facts.stream, "router", after.seq, production._shown(after))
    act(facts, action, seen, now, **more)


def say_before_make(act: Original, facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:  # fmt: skip
    """Records the snapshot, then takes it."""
    if isinstance(action, Start) and action.what == "snapshot":
        say = Say("snapshotted", action.inputs, (f"snapshot-{action.key}",))
        _say(facts, say, {"status": "done", "made": say.outputs[0]}, now, more)
    act(facts, action, seen, now, **more)


def say_before_tell(act: Original, facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:  # fmt: skip
    """Records that the other life was told, then tells it."""
    if isinstance(action, Tell) and action.kind != "applied":
        said = Say("told", (action.stream, action.key))
        _say(facts, said, {**seen, "told": action.key}, now, more)
    act(facts, action, seen, now, **more)


def tell_without_key(act: Original, facts: Any, action: Any, seen: Any, now: float, **more: Any) -> None:  # fmt: skip
    """Trusts the append: told if it came back, repeated if not."""
    if not isinstance(action, Tell):
        return act(facts, action, seen, now, **more)
    draft = Draft(action.kind, now, more["name"], body=action.body)
    more["ledger"].append(action.stream, draft, expect_seq=None, fence=None)
    said = Say("told", (action.stream, action.key))
    return _say(facts, said, {**seen, "told": action.key}, now, more)


def _say(facts: Any, say: Say, seen: Any, now: float, more: dict[str, Any]) -> None:
    draft = reconcile.step(facts, say, seen, now, more["name"], more["declaration"])
    more["ledger"].append(facts.stream, draft, expect_seq=facts.seq, fence=more["fence"])


def last_applied_answers(served_at: Original, ledger: Any, model: str, at: float) -> Any:
    """Takes the last entry for what is served, though a frozen loop may have said it."""
    said = [e for e in ledger.tail(f"production/{model}") if e.kind == "applied" and e.at <= at]
    return said[-1] if said else served_at(ledger, model, at)


def last_applied_folded(fold: Original, facts: Any, entry: Any) -> Any:
    after = fold(facts, entry)
    return replace(after, applied=entry.body["seq"]) if entry.kind == "applied" else after


# keys


def tell_keyed_by_last_seq(due: Original, facts: Any) -> Tell | None:
    """Keyed by the end of the stream at the moment, not by the entry that owes it."""
    tell = due(facts)
    return tell and tell._replace(key=f"{facts.stream}#{facts.seq}")


def move_any_told(move: Original, facts: Any, entry: Any, transitions: Any) -> Any:
    if entry.kind == "told":
        return replace(facts, owes=facts.owes[1:])
    return move(facts, entry, transitions)


def tell_keyed_by_seq_alone(owe: Original, facts: Any, entry: Any, stream: str, kind: str, **body: Any) -> Any:  # fmt: skip
    """Forgets that two senders count from one."""
    return replace(facts, owes=(*facts.owes, Tell(stream, kind, f"#{entry.seq}", body)))


def run_closed_lost(fold: Original, facts: Any, entry: Any) -> Any:
    after = fold(facts, entry)
    return replace(after, owes=tuple(t for t in after.owes if t.kind != "run_closed"))


# what is remembered


def held_forgotten(thaw: Original, stream: str, head: dict[str, Any]) -> Any:
    """The checkpoint holds everything, except that."""
    facts = thaw(stream, head)
    return replace(facts, state=State.KEEPING) if facts.state is State.HELD else facts


def foreign_checkpoint(thaw: Original, stream: str, head: dict[str, Any]) -> Any:
    """Takes another release's checkpoint for its own, as far as it has the same fields."""
    known = {field.name for field in dataclasses.fields(reconcile.life_of(stream).Facts)}
    kept = {k: v for k, v in head.get("facts", {}).items() if k in known}
    return reconcile.life_of(stream).thaw(kept) if kept else thaw(stream, head)


def skip_unknown(fold: Original, facts: Any, entry: Any) -> Any:
    """Passes over what a newer release wrote."""
    try:
        return fold(facts, entry)
    except UnknownKindError:
        return replace(facts, seq=entry.seq)


def read_unknown(current: Original, entry: Any) -> Any:
    try:
        return current(entry)
    except UnknownKindError:
        return entry


def regressed_forgotten(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Asks the bar of the data, not the bundle's own past."""
    return decide(replace(facts, regressed=()), seen, terms, now)


def no_bar_at_the_door(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Trusts that retraining knows which snapshots are barred."""
    return decide(replace(facts, barred=()), seen, terms, now)


def fit_at_the_door_only(unfit: Original, f: Any, offer: Any) -> str:
    """What was asked once is not asked again; but bars come while an offer waits."""
    return "" if offer is f.candidate else unfit(f, offer)


def previous_kept(take: Original, facts: Any, entry: Any) -> Any:
    """Goes back to the bundle before, whatever became of it since."""
    after = take(facts, entry)
    return replace(after, previous=facts.previous) if entry.kind == "regressed" else after


def barred_forgotten(fold: Original, facts: Any, entry: Any) -> Any:
    after = fold(facts, entry)
    return replace(after, barred=()) if entry.kind == "run_opened" else after


def open_run_not_told(fold: Original, facts: Any, entry: Any) -> Any:
    after = fold(facts, entry)
    return replace(after, owes=facts.owes) if entry.kind == "snapshot_barred" else after


# what people want


def rollback_ignored_in_canary(hear: Original, f: Any, entry: Any) -> Any:
    return f if entry.kind == "rollback_asked" and f.state in IN_TRAFFIC else hear(f, entry)


def rollback_after_the_canary(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:  # fmt: skip
    """Finishes what it is at before it does what it is told."""
    f = replace(facts, unwanted=()) if facts.state in IN_TRAFFIC else facts
    return decide(f, seen, terms, now)


def unbound_approval(hear: Original, f: Any, entry: Any) -> Any:
    """Takes an answer for whatever waits at the moment."""
    if entry.kind == "answered" and f.state is State.WAITING_APPROVAL and not f.answer:
        return replace(f, answer=entry.body["answer"], answered_by="kim")
    return hear(f, entry)


def unbound_resume(hear: Original, f: Any, entry: Any) -> Any:
    """Ends whichever hold there is."""
    if entry.kind == "resume_asked" and f.state is State.HELD:
        return replace(f, is_resumed=True, resume_to=entry.body["champion"])
    return hear(f, entry)


def candidate_lost(roll_back: Original, after: Any, f: Any, entry: Any) -> Any:
    """Going back a champion drops the candidate that was on its way."""
    return replace(roll_back(after, f, entry), offers=f.offers)


def hold_loses_candidate(take: Original, facts: Any, entry: Any) -> Any:
    """A hold drops the candidate that was on its way."""
    after = take(facts, entry)
    return replace(after, offers=facts.offers) if entry.kind == "held" else after


def never_asks(approve: Original, f: Any, terms: Any, now: float) -> Any:
    """Releases without asking."""
    return approve(f, dataclasses.replace(terms, approval="never"), now)


# whose turn it is


def trigger_counted(fold: Original, facts: Any, entry: Any) -> Any:
    """A run for each trigger: one that came while the run was open, and one more for it."""
    after = fold(facts, entry)
    is_more = entry.kind == "run_opened" and facts.is_patient
    return replace(after, wanted=facts.wanted) if is_more else after


def budget_forgotten(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:
    return decide(replace(facts, openings=()), seen, terms, now)


def scheduled_by_the_clock(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Remembers when it last looked, not which moment it has served: what came due in between is lost."""
    if facts.schedules and facts.state is retraining.State.RUNNING:
        facts = replace(facts, scheduled_at=max(facts.scheduled_at, now))
    return decide(facts, seen, terms, now)


def each_moment_made_up_for(last_due: Original, schedules: Any, after: float, until: float) -> Any:
    """After a day asleep, one run for each moment that was missed."""
    came = retraining.next_due(schedules, after)
    return came if came <= until else None


def moment_not_used_up(fold: Original, facts: Any, entry: Any) -> Any:
    """A moment that had its run comes due again."""
    after = fold(facts, entry)
    is_due = entry.kind == "scheduled"
    return replace(after, scheduled_at=entry.body["detail"]["due"] - 1.0) if is_due else after


def batch_moment_not_used_up(fold: Original, facts: Any, entry: Any) -> Any:
    """A table that was answered is due again for the same moment."""
    after = fold(facts, entry)
    if entry.kind != "batch_started":
        return after
    counted = (c._replace(until=c.until - 1.0) if c.batch == after.work.batch else c for c in after.counted)  # fmt: skip
    return replace(after, counted=tuple(counted))


def batch_moment_lost_to_another(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:  # fmt: skip
    """Whoever is not at work has no clock: what comes due while another table is answered is lost."""
    if facts.work:
        others = (c if c.batch == facts.work.batch else c._replace(until=now) for c in facts.counted)  # fmt: skip
        facts = replace(facts, counted=tuple(others))
    return decide(facts, seen, terms, now)


def batch_left_running(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Nobody ends the work that was given up."""
    return decide(facts, {k: v for k, v in seen.items() if k != "floor"}, terms, now)


def batch_each_moment_made_up_for(last_due: Original, schedules: Any, after: float, until: float) -> Any:  # fmt: skip
    """After a day asleep, the same table for each moment that was missed."""
    came = batching.next_due(schedules, after)
    return came if came <= until else None


def batch_record_lost(fold: Original, facts: Any, entry: Any) -> Any:
    """The answers are there, and no record of them."""
    after = fold(facts, entry)
    return replace(after, owes=()) if entry.kind == "batch_scored" else after


def replay_of_the_same_table(take: Original, facts: Any, entry: Any) -> Any:
    """Asks the same rows until they say yes."""
    after = take(facts, entry)
    return replace(after, replayed=0) if entry.kind == "replay_undecided" else after


def replay_undecided_is_enough(replay: Original, f: Any, seen: Any, terms: Any, now: float) -> Any:
    """Nothing was shown against it."""
    action = replay(f, seen, terms, now)
    is_open = isinstance(action, Say) and action.kind == "replay_undecided"
    return dataclasses.replace(action, kind="promoted") if is_open else action


def oldest_first_decide(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Works off the offers in the order of their arrival."""
    offers = facts.offers[:1] if facts.state is State.KEEPING else ()
    return decide(replace(facts, offers=offers), seen, terms, now)


def oldest_first_take(take: Original, facts: Any, entry: Any) -> Any:
    if entry.kind == "staging_started" or (entry.kind == "refused" and not facts.candidate):
        after = take(replace(facts, offers=facts.offers[:1]), entry)
        return replace(after, offers=facts.offers[1:])
    return take(facts, entry)


# evidence


def unconfirmed_routes(decide: Original, facts: Any, seen: Any, terms: Any, now: float) -> Any:
    """Never asks the router what it serves: shows once, trusts that it arrived, counts at once."""
    action = decide(facts, seen, terms, now)
    if isinstance(action, Show) and action.receiver == "router" and facts.state in IN_TRAFFIC:
        trusted = {**seen, "served": facts.routed_at, "shown": facts.routed_at}
        traffic = seen.get("traffic") and {**seen["traffic"], "routes_seq": facts.routed_at}
        return decide(facts, {**trusted, "traffic": traffic}, terms, now)
    return action


def late_counts_counted(judge: Original, f: Any, seen: Any, terms: Any, now: float) -> Any:
    """Takes what a monitor that lags still says for what these routes did."""
    traffic = seen.get("traffic")
    traffic = traffic and {**traffic, "routes_seq": f.routed_at}
    return judge(f, {**seen, "traffic": traffic}, terms, now)


def champion_judged_by_the_one_before(harm: Original, f: Any, seen: Any, terms: Any, now: float) -> Any:  # fmt: skip
    """Labels that come late are those of a champion that is gone."""
    found = seen.get("champion")
    found = found and {**found, "since_seq": f.promoted_seq}
    return harm(f, {**seen, "champion": found}, terms, now)


_moods = itertools.cycle([0.0, 0.0, 0.15])


def unrecorded_evidence(judge: Original, evidence: Any, settings: Any) -> Any:
    """Judges by something that is not written down."""
    found, mood = evidence["metrics"]["rmse"], next(_moods)
    moody = {**found, **{k: found[k] + mood for k in ("value", "lower", "upper")}}
    return judge({**evidence, "metrics": {"rmse": moody}}, settings)


def undated(step: Original, *args: Any) -> Draft:
    """Judges by its own clock, and does not tell the ledger by which time."""
    return dataclasses.replace(step(*args), at=0.0)


def everywhere(name: str, wrapper: Any) -> list[Wrapped]:
    lives = (retraining, run, production, batching, reconcile)
    return [Wrapped(module, name, wrapper) for module in lives if hasattr(module, name)]


MISTAKES: dict[str, Sequence[Wrapped | Replaced]] = {
    "append_repeated": [],
    "no_compare_and_set": [],
    "work_repeated": [],
    "bundle_not_keyed": [],
    "bundle_keyed_by_seq": [],
    "nobody_reaps": [],
    "reaper_kills_others": [],
    "router_takes_any": [],
    "router_checks_lease_only": [],
    "router_forgets": [],
    "late_start_accepted": [],
    "run_kept_by_its_parent": [],
    "not_pinned": [],
    "torn_append": [],
    "batch_not_pinned": [],
    "batch_moment_not_used_up": [Wrapped(batching, "fold", batch_moment_not_used_up)],
    "batch_moment_lost_to_another": [Wrapped(batching, "decide", batch_moment_lost_to_another)],
    "batch_each_moment_made_up_for": [Wrapped(batching, "last_due", batch_each_moment_made_up_for)],
    "batch_left_running": [Wrapped(batching, "decide", batch_left_running)],
    "replay_of_the_same_table": [Wrapped(production, "take", replay_of_the_same_table)],
    "replay_undecided_is_enough": [Wrapped(production, "_replay", replay_undecided_is_enough)],
    "batch_record_lost": [Wrapped(batching, "fold", batch_record_lost)],
    "show_before_say": [Wrapped(reconcile, "act", show_before_say)],
    "say_before_make": [Wrapped(reconcile, "act", say_before_make)],
    "say_before_tell": [Wrapped(reconcile, "act", say_before_tell)],
    "tell_without_key": [Wrapped(reconcile, "act", tell_without_key)],
    "tell_keyed_by_last_seq": [
        *everywhere("due", tell_keyed_by_last_seq),
        *everywhere("move", move_any_told),
    ],
    "tell_keyed_by_seq_alone": everywhere("owe", tell_keyed_by_seq_alone),
    "key_from_last_seq": [Replaced(Facts, "key", property(lambda f: f"{f.stream}#{f.seq}"))],
    "run_closed_lost": [Wrapped(run, "fold", run_closed_lost)],
    "held_forgotten": [Wrapped(reconcile, "thaw", held_forgotten)],
    "foreign_checkpoint": [Wrapped(reconcile, "thaw", foreign_checkpoint)],
    "skip_unknown": [
        Wrapped(reconcile, "current", read_unknown),
        Wrapped(production, "fold", skip_unknown),
        Wrapped(run, "fold", skip_unknown),
    ],
    "regressed_forgotten": [Wrapped(production, "decide", regressed_forgotten)],
    "no_bar_at_the_door": [Wrapped(production, "decide", no_bar_at_the_door)],
    "fit_at_the_door_only": [Wrapped(production, "unfit", fit_at_the_door_only)],
    "previous_kept": [Wrapped(production, "take", previous_kept)],
    "rollback_ignored_in_canary": [Wrapped(production, "hear", rollback_ignored_in_canary)],
    "rollback_after_the_canary": [Wrapped(production, "decide", rollback_after_the_canary)],
    "trigger_counted": [Wrapped(retraining, "fold", trigger_counted)],
    "budget_forgotten": [Wrapped(retraining, "decide", budget_forgotten)],
    "scheduled_by_the_clock": [Wrapped(retraining, "decide", scheduled_by_the_clock)],
    "each_moment_made_up_for": [Wrapped(retraining, "last_due", each_moment_made_up_for)],
    "moment_not_used_up": [Wrapped(retraining, "fold", moment_not_used_up)],
    "unconfirmed_routes": [Wrapped(production, "decide", unconfirmed_routes)],
    "late_counts_counted": [Wrapped(production, "_judge_traffic", late_counts_counted)],
    "champion_judged_by_the_one_before": [
        Wrapped(production, "_champions_harm", champion_judged_by_the_one_before)
    ],
    "unbound_approval": [Wrapped(production, "hear", unbound_approval)],
    "unbound_resume": [Wrapped(production, "hear", unbound_resume)],
    "never_asks": [Wrapped(production, "_approve", never_asks)],
    "candidate_lost": [Wrapped(production, "_roll_back", candidate_lost)],
    "hold_loses_candidate": [Wrapped(production, "take", hold_loses_candidate)],
    "barred_forgotten": [Wrapped(retraining, "fold", barred_forgotten)],
    "open_run_not_told": [Wrapped(retraining, "fold", open_run_not_told)],
    "oldest_first": [
        Wrapped(production, "decide", oldest_first_decide),
        Wrapped(production, "take", oldest_first_take),
    ],
    "supersedes_traffic": [
        Replaced(production, "REPLACEABLE", (*production.REPLACEABLE, *IN_TRAFFIC)),
        Replaced(
            production,
            "TRANSITIONS",
            production.TRANSITIONS | {(s, "superseded"): State.KEEPING for s in IN_TRAFFIC},
        ),
    ],
    "last_applied_answers": [Wrapped(reconcile, "served_at", last_applied_answers)],
    "last_applied_folded": [Wrapped(production, "fold", last_applied_folded)],
    "unrecorded_evidence": [Wrapped(run, "judge", unrecorded_evidence)],
    "wall_clock": [Wrapped(reconcile, "step", undated)],
}
"""[]: a flag that the simulated world, ledger or processes read."""


def planted(mistakes: frozenset[str], *, with_next_release: bool) -> AbstractContextManager[Any]:
    """Within, the lives make these mistakes. They also look less often for what is not there yet: most looks of a history
    would be such, and whoever is woken looks at once.
    """
    stack = ExitStack()
    added = [Wrapped(*what) for what in releases.ADDED] if with_next_release else []
    seldom = [Replaced(module, "LOOK_S", 3600.0) for module in (run, production, batching)]
    seldom += [Replaced(reconcile, "POLL_S", 43200.0)]
    for target in [
        *seldom,
        *added,
        *(t for mistake in sorted(mistakes) for t in MISTAKES[mistake]),
    ]:
        stack.enter_context(patch.object(target.module, target.name, _stand_in(target)))
    return stack


def _stand_in(target: Wrapped | Replaced) -> Any:
    if isinstance(target, Replaced):
        return target.value
    return functools.partial(target.wrapper, getattr(target.module, target.name))
