"""What must be true of every history: asked again after each entry, each call that arrived and each answer, and at the end.

`decide` and `fold` are taken from the lives, planted mistakes included: a mistake must be caught by the harm it does, not by
differing from the right code. Who owed what to whom is told again here, from the kinds alone. The invariants:

- I1 whoever answers was routed then · I2 one champion · I3 what is judged, staged and routed is what was packed
- I4 each change of the world has its entry, each entry its change · I5 what was offered, owed or wanted ends exactly once
- I6 each decision, judged again from its entry, is the same · I7 fences never go back · I8 all comes to rest without a person
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from gyrostat.errors import IllegalStepError
from gyrostat.ledger.chain import verify
from gyrostat.ledger.life import Say
from gyrostat.loop import reconcile
from gyrostat.rollout import production
from gyrostat.rollout.states import IN_TRAFFIC
from gyrostat.schedule import Schedule
from gyrostat.terms import GENESIS, Entry

from . import releases

if TYPE_CHECKING:
    from .history import History

WORK_BEHIND = {
    "snapshotted": "snapshot", "checks_failed": "snapshot", "trained": "training", "packed": "pack", "gate_passed": "evaluation",
    "gate_undecided": "evaluation", "staging_passed": "staging", "batch_scored": "scoring",
}  # fmt: skip
CALLED_FOR_BY = {
    "snapshot": "opened", "training": "snapshotted", "pack": "trained", "evaluation": "packed", "staging": "staging_started",
    "scoring": "batch_started", "replay": "replay_started",
}  # fmt: skip
LOST = ("work_lost", "staging_lost", "batch_lost", "replay_lost", "replay_undecided")
ENDS = ("promoted", "regressed", "refused", "expired", "superseded", "staging_failed")
BATCH_ENDS = ("batch_scored", "batch_failed")
RUN_ENDS = ("offered", "rejected", "checks_failed", "gate_failed", "gave_up", "cancelled")
RUN_OVER = (*RUN_ENDS, "gate_undecided")
TAKES_TRAFFIC = ("shadow_started", "canary_started", "promoted")
MOVES = ("staging_started", "shadow_started", "canary_started", "advanced", "promoted")
NOWHERE = {"arms": []}


@dataclass
class Told:
    """What the entries of one stream have said so far."""

    facts: Any
    declaration: str = ""
    fence: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    began: Counter[str] = field(default_factory=Counter)


@dataclass
class Run(Told):
    ends: int = 0
    barred_at: dict[str, int] = field(default_factory=dict)
    barred_before: frozenset[str] = frozenset()


@dataclass
class Retraining(Told):
    is_wanted: bool = False
    barred: set[str] = field(default_factory=set)
    openings: list[float] = field(default_factory=list)
    running: str = ""
    due_at: float = 0.0
    """The moment that last came due, or from which the schedule counts."""
    owes_bars: list[tuple[str, str]] = field(default_factory=list)
    """(run, snapshot) that the open run has to hear of."""


@dataclass
class Production(Told):
    ended: Counter[str] = field(default_factory=Counter)
    offered: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    """Bundle -> the snapshot it was offered with."""
    bad: set[str] = field(default_factory=set)
    barred: set[str] = field(default_factory=set)
    recalled: set[str] = field(default_factory=set)
    answers: set[tuple[str, str]] = field(default_factory=set)
    holds: set[int] = field(default_factory=set)
    unwanted: list[str] = field(default_factory=list)
    taken_off: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    replayed: set[tuple[str, int]] = field(default_factory=set)
    """(offer, event that told of the table)"""
    held: int = 0
    on_stage: str = ""
    n_promoted: int = 0
    last_run: int = 0
    applied: int = 0
    shown: int = 0
    routed: dict[int, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Batching(Told):
    due: dict[str, float] = field(default_factory=dict)
    """Of each batch, the moment that waits; one that is not there has none."""
    done: dict[str, float] = field(default_factory=dict)
    """Up to which moment each was answered, or its answers were begun; at first from when it counts."""
    schedules: dict[str, str] = field(default_factory=dict)
    open: tuple[str, float, str] | None = None
    """What is being answered, for which moment, by which bundle."""


KINDS_OF_LIVES: dict[str, type[Told]] = {
    "retraining": Retraining,
    "run": Run,
    "production": Production,
    "batching": Batching,
}


@dataclass
class Readable:
    """The ledger as it stands, which can always be read."""

    by_stream: dict[str, list[Entry]]

    def tail(self, stream: str) -> list[Entry]:
        return self.by_stream[stream]


class Watch:
    """Follows one history. `found` is empty as long as everything holds."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.found: list[str] = []
        self.told: dict[str, Any] = {}
        self.owed: Counter[Any] = Counter()
        self.got: Counter[Any] = Counter()
        self.bundles: dict[str, str] = {}
        self.done: set[tuple[str, str]] = set()
        self.open_run: dict[str, str] = {}
        self.hash, self.at, self.position = GENESIS, 0.0, 0

    def facts(self, stream: str) -> Any:
        """What the entries of this stream come to."""
        return self._told(stream).facts

    def _told(self, stream: str) -> Any:
        told = self.told.get(stream)
        if told is None:
            life = reconcile.life_of(stream)
            with releases.using(self.history.newest_release):
                told = KINDS_OF_LIVES[stream.partition("/")[0]](life.Facts(stream))
            self.told[stream] = told
        return told

    # after each step

    def entry(self, e: Entry) -> None:
        """An entry was written."""
        if (e.prev, e.position) != (self.hash, self.position + 1):
            self.found.append(f"chain broken at {e.position}")
        if e.at < self.at:
            self.found.append("the ledger's time went back")
        self.hash, self.at, self.position = e.hash, e.at, e.position
        life = e.stream.partition("/")[0]
        if life not in KINDS_OF_LIVES:
            self.found += self._record(e)
            return
        told = self._told(e.stream)
        with releases.using(self.history.newest_release):
            try:
                before = told.facts
                if is_step(e):
                    self.found += self._step(e, told)
                told.facts = reconcile.life_of(e.stream).fold(before, e)
                told.kinds[e.kind] += 1
                self.found += self._hand_over(e)
                follow = {"production": self._production, "run": self._run, "batching": self._batching}  # fmt: skip
                self.found += follow.get(life, self._retraining)(e, told, before)
            except IllegalStepError as error:
                self.found.append(f"illegal step: {error}")
            except (KeyError, AttributeError, ValueError, AssertionError) as error:
                # A life was led where it cannot be.
                self.found.append(f"a step cannot even be judged again: {type(error).__name__} {error}")  # fmt: skip

    def began(self, stream: str, what: str, key: str, *, is_late: bool) -> None:
        """Work was started (I4: once for each key, and as often as something called for it)."""
        if (what, key) in self.done:
            self.found.append(f"{what} {key} done twice")
        if is_late:
            self.found.append(f"{what} {key} was started after it was called off")
        self.done.add((what, key))
        told = self._told(stream)
        told.began[what] += 1
        cause = CALLED_FOR_BY[what]
        n_lost = sum(told.kinds[kind] for kind in LOST)
        if told.began[what] > told.kinds[cause] + n_lost:
            self.found.append(
                f"{stream}: {what} {told.began[what]} times, called for {told.kinds[cause]} times and lost {n_lost} times"
            )

    def scoring(self, stream: str, spec: dict[str, Any]) -> None:
        """A table is answered: by what it was begun with, and by no other after a try that was lost."""
        begun = self._told(stream).open
        if begun != (spec["batch"], spec["due"], spec["bundle"]):
            self.found.append(f"{stream}: {begun} was begun, {spec} is answered")

    def packed(self, trained: str, bundle: str) -> None:
        """A model became a bundle (I3)."""
        if self.bundles.setdefault(trained, bundle) != bundle:
            self.found.append(f"{trained} is in two bundles, {self.bundles[trained]} and {bundle}")

    def shown(self, stream: str, seq: int, value: dict[str, Any]) -> None:
        """Routes reached the servers (I4: they are what the ledger says, in its order)."""
        told = self._told(stream)
        if seq < told.shown:
            self.found.append(f"router of {stream} went back from {told.shown} to {seq}")
        told.shown = seq
        if told.routed.get(seq) != value["arms"]:
            self.found.append(
                f"router of {stream} showed {value['arms']} for {seq}, the ledger says {told.routed.get(seq)}"
            )

    def answered(self, stream: str, seq: int, bundle: str) -> None:
        """Somebody's request was answered (I1)."""
        arms = self._told(stream).routed.get(seq, [])
        if all(a["bundle"] != bundle or a["shadow"] for a in arms):
            self.found.append(f"{bundle} answered by the routes of {seq}: {arms}")

    # one entry

    def _step(self, e: Entry, told: Told) -> Iterator[str]:
        """Judge it again (I6), and compare its claim with the world at its key (I4)."""
        history, stream, facts = self.history, e.stream, told.facts
        world = history.world
        if facts.declaration not in ("", e.body["declaration"]):
            yield f"{stream} {e.seq} {e.kind} was judged by {e.body['declaration']}, not by the {facts.declaration} it began with"
        terms = history.settings(stream.partition("/")[0], e.body["declaration"])
        with releases.using(e.body["release"]):
            again = reconcile.life_of(stream).decide(facts, e.body["seen"], terms, e.body["now"])
        if not isinstance(again, Say) or (
            again.kind, again.inputs, again.outputs, again.cause,
        ) != (e.kind, e.inputs, e.outputs, e.body["cause"]):  # fmt: skip
            yield f"replay: {stream} {e.seq} said {e.kind}, judged again gives {again}"
        if e.body["now"] > e.at:
            yield f"{stream} {e.seq} {e.kind} was judged at {e.body['now']}, later than its stamp {e.at}"
        if (e.fence or 0) < told.fence:
            yield f"fence went back at {stream} {e.seq}"
        told.fence = max(told.fence, e.fence or 0)
        if e.kind in WORK_BEHIND:
            job = world.jobs.get((WORK_BEHIND[e.kind], facts.key))
            if job is None or job.fate != "done" or (e.outputs and e.outputs[0] != job.seen["made"]):  # fmt: skip
                yield f"{stream} {e.seq} {e.kind} names {e.outputs}, the world does not hold it for {facts.key}"
        if e.body["seen"].get("status") == "lost":
            for what in ("training", "staging", "scoring", "replay"):
                if (job := world.jobs.get((what, facts.key))) and job.fate == "killed":
                    yield f"{stream} {e.seq}: {what} {facts.key} was stopped while it was needed"

    def _hand_over(self, e: Entry) -> Iterator[str]:
        """Whatever one life owes another arrives exactly once (I5)."""
        life, _, rest = e.stream.partition("/")
        model = rest.split("/")[0]
        if is_step(e):
            if life == "retraining" and e.kind == "run_opened":
                self.owed[e.outputs[0], "run_asked", ""] += 1
            if life == "run" and e.kind == "offered":
                self.owed[f"production/{model}", "offered", e.stream] += 1
            if life == "batching" and e.kind in BATCH_ENDS and e.outputs:
                self.owed[f"batch/{model}", "scored", e.outputs[0]] += 1
            if life == "batching" and e.body.get("detail", {}).get("is_replayed"):
                self.owed[f"production/{model}", "batch_answered", f"{e.stream}#{e.seq}"] += 1
            is_first_end = (f"retraining/{model}", "run_closed", e.stream) not in self.owed
            if life == "run" and e.kind in RUN_OVER and is_first_end:
                self.owed[f"retraining/{model}", "run_closed", e.stream] += 1
            return
        if e.kind == "batch_answered":
            self.got[e.stream, e.kind, e.inputs[0]] += 1
        if e.kind in ("run_asked", "offered", "run_closed") and e.actor != "outside":
            what = e.stream, e.kind, e.body.get("run", "") if e.kind != "run_asked" else ""
            self.got[what] += 1
            if self.got[what] > self.owed[what]:
                yield f"{what} was owed {self.owed[what]} times and told {self.got[what]} times"

    def _retraining(self, e: Entry, told: Retraining, before: Any) -> Iterator[str]:
        """Runs: one for a want, none over the budget, none from barred data, each hears of bars (I5)."""
        settings = next(iter(self.history.retrainings.values()))
        match e.kind:
            case "triggered":
                told.is_wanted = True
            case "scheduled":
                told.is_wanted = True
                yield from self._came_due(e, told)
                told.due_at = e.body["detail"]["due"]
            case "schedule_set":
                if self.history.dice.is_calm and told.due_at:
                    yield from self._was_caught_up(e, told)
                told.due_at = e.at
            case "snapshot_barred":
                told.barred.add(e.body["snapshot"])
                if told.running:
                    told.owes_bars.append((told.running, e.body["snapshot"]))
            case "snapshot_released":
                told.barred.discard(e.body["snapshot"])
            case "run_ended":
                told.running = ""
            case "run_opened" | "skipped":
                if not told.is_wanted:
                    yield f"{e.stream} {e.seq} {e.kind} without a trigger"
                told.is_wanted = False
        if e.kind == "run_opened":
            told.running = e.outputs[0]
            told.openings.append(e.at)
            first = told.openings[-settings.budget - 1 :]
            if len(first) > settings.budget and e.at - first[0] < settings.budget_window_s:
                yield f"budget: {settings.budget + 1} runs within {(e.at - first[0]) / 86400:.2f} days at {e.stream} {e.seq}"
            self._told(e.outputs[0]).barred_before = frozenset(told.barred)

    def _came_due(self, e: Entry, told: Retraining) -> Iterator[str]:
        """Each moment wants a run at most once, and of several that were slept through only the last does."""
        due, now = e.body["detail"]["due"], e.body["now"]
        known = self._moments(e.body["declaration"])
        if due not in known:
            yield f"{e.stream} {e.seq} scheduled for {due}, when nothing comes due"
        if due <= told.due_at:
            yield f"{e.stream} {e.seq} scheduled for {due}, which had its run"
        if later := [at for at in known if due < at <= now]:
            yield f"{e.stream} {e.seq} scheduled for {due}, though {later[-1]} has come due as well"

    def _was_caught_up(self, e: Entry, told: Retraining) -> Iterator[str]:
        """Half a day after the faults have stopped, no moment waits."""
        known = self._moments(e.body["declaration"].partition(",")[0])
        until = self.history.unscheduled_at - 3600
        if lost := [at for at in known if told.due_at < at < until]:
            yield f"{e.stream}: {lost} came due and wanted no run"

    def _batching(self, e: Entry, told: Batching, before: Any) -> Iterator[str]:
        """Each moment is answered once, by itself or by a later one that came before its turn (I5)."""
        where, detail, now = f"{e.stream} {e.seq} {e.kind}", e.body.get("detail", {}), e.body["now"]
        if e.kind in ("batch_started", "batch_lost", *BATCH_ENDS):
            yield from self._none_is_passed_over(e, told, where)
        match e.kind:
            case "batches_set":
                if self.history.dice.is_calm and not detail["schedules"]:
                    yield from self._all_came(e, told)
                told.done = {
                    name: told.done[name] if told.schedules.get(name) == schedule else e.at
                    for name, schedule in detail["schedules"].items()
                }
                told.schedules = detail["schedules"]
                told.due = {name: at for name, at in told.due.items() if name in told.schedules}
            case "batch_due" | "batch_started":
                name, at = detail["batch"], detail["due"]
                known = self._batch_moments(e.body["declaration"], name)
                if at not in known and at != told.due.get(name):
                    yield f"{where} {name} for {at}, when nothing comes due"
                if at <= told.done[name] and at != told.due.get(name):
                    yield f"{where} {name} for {at}, which has its answers"
                if later := [m for m in known if at < m <= now and m > told.done[name]]:
                    yield f"{where} {name} for {at}, though {later[-1]} has come due as well"
                told.done[name] = max(at, told.done[name])
                if e.kind == "batch_due":
                    told.due[name] = at
                    return
                if told.due.pop(name, None) is None:
                    yield f"{where} {name}, which was not due"
                if told.open:
                    yield f"{where} {name}, while {told.open} is answered"
                told.open = name, at, e.inputs[1]
                if e.inputs[1] not in self.history.world.champions.get(before.model, set()):
                    yield f"{where} {name} by {e.inputs[1]}, which was never champion"
            case "batch_scored" | "batch_failed":
                if not told.open:
                    yield f"{where}, but nothing was begun"
                told.open = None

    def _none_is_passed_over(self, e: Entry, told: Batching, where: str) -> Iterator[str]:
        """Whatever else happens, what has come due is said first."""
        for name in told.done.keys() - told.due.keys():
            known = self._batch_moments(e.body["declaration"], name)
            if came := [at for at in known if told.done[name] < at <= e.body["now"]]:
                yield f"{where}, though {name} was due at {came[-1]}"

    def _all_came(self, e: Entry, told: Batching) -> Iterator[str]:
        """Half a day after the faults have stopped, no moment is behind that does not wait for a champion."""
        digest, until = e.body["declaration"].partition(",")[0], self.history.unscheduled_at - 3600
        for name, done in told.done.items():
            known = [at for at in self._batch_moments(digest, name) if done < at < until]
            if known and name not in told.due:
                yield f"{e.stream}: {known} of {name} came due, and nothing was answered"

    def _batch_moments(self, digest: str, name: str) -> tuple[float, ...]:
        history = self.history
        batch = next((b for b in history.batches[digest] if b.name == name), None)
        return moments((batch.schedule,), history.clock_change - 6 * 86400) if batch else ()

    def _record(self, e: Entry) -> Iterator[str]:
        """A table's record: once for each that was answered, of what really answered it."""
        what = e.stream, e.kind, e.body["output_digest"]
        self.got[what] += 1
        if self.got[what] > self.owed[what]:
            yield f"{what} was owed {self.owed[what]} times and told {self.got[what]} times"

    def _moments(self, digest: str) -> tuple[float, ...]:
        history = self.history
        return moments(history.retrainings[digest].schedules, history.clock_change - 6 * 86400)

    def _run(self, e: Entry, told: Run, before: Any) -> Iterator[str]:
        """One at a time, each to one end (I5), none from barred data."""
        model = before.model
        if e.kind == "opened":
            if other := self.open_run.get(model):
                yield f"{e.stream} was opened while {other} was open"
            self.open_run[model] = e.stream
        if e.kind in RUN_OVER and is_step(e):
            self.open_run.pop(model, None)
        told.ends += e.kind in RUN_ENDS and is_step(e)
        if told.ends > 1:
            yield f"{e.stream} {e.seq} came to two ends: {dict(told.kinds)}"
        match e.kind:
            case "snapshot_barred":
                told.barred_at.setdefault(e.body["snapshot"], e.seq)
            case "snapshotted" if e.outputs[0] in told.barred_before:
                yield f"{e.stream} takes {e.outputs[0]}, which was barred when it was opened"
            case "trained" | "offered" if told.facts.snapshot in told.barred_at:
                yield f"{e.stream} {e.seq} {e.kind} from {told.facts.snapshot}, which was barred"
            case "packed" if self.bundles.get(told.facts.trained) != e.outputs[0]:
                yield f"{e.stream} {e.seq} packed {e.outputs[0]}, not {told.facts.trained}"

    def _production(self, e: Entry, told: Production, before: Any) -> Iterator[str]:
        """One champion (I2), each offer ends once (I5), nothing barred or regressed takes traffic unless a person says so."""
        facts, where = told.facts, f"{e.stream} {e.seq} {e.kind}"
        arms = production.routes(facts)
        if production.routes(before) != arms:
            told.routed[e.seq] = arms
        yield from self._events(e, told, before)
        if is_step(e):
            yield from self._release(e, told, before, where)
        names = [arm["bundle"] for arm in arms]
        if back := told.bad & set(names):
            yield f"{where}: {back} regressed and answers again"
        if len([a for a in arms if a["role"] == "champion"]) > 1 or len(names) != len(set(names)):
            yield f"{where}: routes {names}"
        for offer, n in told.ended.items():
            if n > 1 and told.offered[offer] not in told.taken_off:
                yield f"{where}: {told.offered[offer]}, offered by {offer}, ended {n} times"

    def _events(self, e: Entry, told: Production, before: Any) -> Iterator[str]:
        body = e.body
        match e.kind:
            case "offered":
                told.offered[f"{e.stream}#{e.seq}"] = body["bundle"]
                told.made_by[body["bundle"]] = body["snapshot"]
                n = int(body["run"].rpartition("/")[2])
                is_own = (
                    e.actor != "outside" and not self._told(body["run"]).kinds["gate_undecided"]
                )
                if is_own and n < told.last_run:
                    yield f"offers of {e.stream} came out of order: run {n} after {told.last_run}"
                told.last_run = n if is_own else told.last_run
            case "rollback_asked" if production.can_go(before, body["bundle"], body["to"]):
                told.unwanted.append(body["bundle"])
            case "resume_asked":
                told.holds.add(body["held"])
            case "answered":
                told.answers.add((body["bundle"], body["answer"]))
            case "unbar_asked":
                told.barred.discard(body["snapshot"])
            case "recalled":
                told.recalled.add(body["bundle"])
            case "applied":
                if body["arms"] != told.routed.get(body["seq"]):
                    yield f"{e.stream} {e.seq} says applied what was not routed"
                # A loop that was frozen may say an older one late, and nobody may be misled by it.
                told.applied = max(told.applied, body["seq"])
                readable: Any = Readable(self.history.by_stream)
                served = reconcile.served_at(readable, e.stream.split("/")[1], e.at)
                if served is None or served.body["seq"] != told.applied:
                    yield f"{e.stream} {e.seq}: who-served went back from {told.applied} to {served and served.body['seq']}"
                if told.facts.applied != told.applied:
                    yield f"{e.stream} {e.seq}: what is applied went back from {told.applied} to {told.facts.applied}"

    def _release(self, e: Entry, told: Production, before: Any, where: str) -> Iterator[str]:
        facts, history = told.facts, self.history
        bundle, offer = (*e.inputs, "", "")[:2]
        still_waits = [o.entry for o in facts.offers]
        if told.unwanted and e.kind != "rolled_back":
            yield f"{where}, but a person wants {told.unwanted[0]} gone"
        served = e.body["seen"].get("served", before.routed_at)
        if e.kind not in ("rolled_back", "held") and served != before.routed_at:
            yield f"{where} was judged by the traffic of {served}, not of {before.routed_at}"
        if told.held and e.kind in MOVES:
            yield f"{where} while held since {told.held}"
        is_of_traffic = before.state in IN_TRAFFIC and e.kind in (
            "advanced",
            "promoted",
            "regressed",
        )
        if is_of_traffic and not e.body["cause"].startswith("approved by"):
            counted_by = (e.body["seen"].get("traffic") or {}).get("routes_seq")
            if counted_by != before.routed_at:
                yield f"{where} was judged by what the routes of {counted_by} did, not those of {before.routed_at}"
        if before.state == "replaying" and e.outputs:
            yield from self._replay(e, told, before, where)
        if e.kind in TAKES_TRAFFIC and before.state not in IN_TRAFFIC:
            if bundle in told.recalled:
                yield f"{where}: {bundle} takes traffic, it was recalled"
            if told.made_by[bundle] in told.barred:
                yield f"{where}: {bundle} takes traffic, its {told.made_by[bundle]} is barred"
        match e.kind:
            case "rolled_back":
                if bundle in [arm["bundle"] for arm in production.routes(facts)]:
                    yield f"{where} {bundle}, which still answers"
                is_meant = told.on_stage and told.offered[told.on_stage] == bundle
                if told.on_stage and not is_meant and told.on_stage not in still_waits:
                    yield f"{where} {bundle} and lost {told.offered[told.on_stage]}, which nobody meant"
                if is_meant:
                    told.taken.add(told.on_stage)
                told.taken_off.add(bundle)
                told.unwanted = [b for b in told.unwanted[1:] if production.can_go(facts, b)]
                told.held = e.seq
                if facts.champion:
                    told.bad.discard(facts.champion.bundle)  # a person named it
            case "held":
                if told.on_stage and told.on_stage not in still_waits:
                    yield f"{where} lost {told.offered[told.on_stage]} to a hold"
                told.held = e.seq
            case "resumed":
                if told.held not in told.holds:
                    yield f"{where}, but nobody answered the hold of {told.held}"
                told.held = 0
                told.bad -= set(e.outputs)
            case "approved":
                is_by_person = e.body["cause"].startswith("by ")
                if is_by_person and ((bundle, "approved") not in told.answers or not before.answer):
                    yield f"{where} {bundle}, to which nobody said yes"
            case "superseded" if before.state in IN_TRAFFIC and offer == told.on_stage:
                yield f"{where} {bundle}, which takes traffic"
            case "staging_started":
                waiting = [o for o in told.offered if not told.ended[o] and o not in told.taken]
                if offer != max(waiting, key=lambda o: int(o.rpartition("#")[2])):
                    yield f"{where} takes up {offer} of {waiting}, not the newest"
                told.on_stage = offer
            case "promoted":
                told.n_promoted += 1
                truth = history.world.truth[bundle]
                is_asked = e.body["cause"].startswith("approved by")
                is_unproven = truth["harm"] and told.n_promoted > 1 and not is_asked
                if is_unproven or not truth["is_answering"] or truth["gates"] == "reject":
                    yield f"{where} {bundle} in spite of {truth}"
                asks = history.settings("production", e.body["declaration"]).approval
                must_ask = asks == "always" or (asks == "first" and told.n_promoted == 1)
                if must_ask and (bundle, "approved") not in told.answers:
                    yield f"{where} {bundle} without asking"
            case "regressed" | "champion_regressed":
                told.bad.add(bundle)
                if not history.world.truth[bundle]["harm"]:
                    yield f"{where} {bundle}, which does no harm"
        if e.kind in ("regressed", "champion_regressed", "rolled_back") and e.body["cause"] in ("quality", "with data"):  # fmt: skip
            told.barred.add(told.made_by[bundle])
        if e.kind == "resumed" and e.outputs:
            told.barred.discard(told.made_by[e.outputs[0]])
        if facts.candidate is None:
            told.on_stage = ""
        if e.kind in ENDS and len(e.inputs) > 1:
            told.ended[e.inputs[1]] += 1

    def _replay(self, e: Entry, told: Production, before: Any, where: str) -> Iterator[str]:
        """Judged by what it and the champion of now answered to a table that it was not judged by before."""
        job = self.history.world.jobs.get(("replay", before.key))
        if job is None or job.fate != "done" or e.outputs[0] != job.seen["made"]:
            yield f"{where} names {e.outputs}, the world does not hold it for {before.key}"
        elif job.seen["champion_bundle"] != before.champion.bundle:
            yield f"{where} was compared with {job.seen['champion_bundle']}, champion is {before.champion.bundle}"
        elif (told.on_stage, job.seen["of"]) in told.replayed:
            yield f"{where} was judged by the table of {job.seen['of']} before"
        else:
            told.replayed.add((told.on_stage, job.seen["of"]))

    # at the end

    def rest(self) -> list[str]:
        """The faults have stopped, and time has passed: nothing is owed, wanted or under way (I8)."""
        history, found = self.history, self.found
        with releases.using(history.newest_release):
            # Its links were followed as it grew; that it is sealed by what is in it is asked of some.
            if history.seed % 8 == 0 and (bad := verify(history.entries())):
                found.append(f"chain broken at {bad}")
            for stream, told in sorted(self.told.items()):
                found += self._checkpoint(stream, told)
                if stream.startswith("run/"):
                    found += self._ended(stream, told)
                elif not history.is_resting(told.facts):
                    f = told.facts
                    found.append(f"{stream} did not come to rest: {f.state} since {f.since}, owes {f.owes}")  # fmt: skip
            for job in history.world.jobs.values():
                if job.alive(history.world.now) and job.seq != self.told[job.stream].facts.mark:
                    found.append(f"{job.what} {job.stream}#{job.seq} still runs, nobody needs it")
            for what in sorted(set(self.owed) | set(self.got)):
                if self.got[what] != self.owed[what]:
                    found.append(f"{what} was owed {self.owed[what]} times and told {self.got[what]} times")  # fmt: skip
            for model in history.models:
                found += self._agreed(model)
        return found

    def _checkpoint(self, stream: str, told: Told) -> Iterator[str]:
        """The newest one says what the entries up to it say (the release that wrote it reads it, and no other)."""
        ((_, seq, head),) = self.history.heads(stream) or [(stream, 0, {})]
        if head.get("release") == self.history.newest_release:
            facts = reconcile.life_of(stream).Facts(stream)
            for e in self.history.by_stream[stream][:seq]:
                facts = reconcile.life_of(stream).fold(facts, e)
            if (thawed := reconcile.thaw(stream, head)) != facts:
                yield f"checkpoint of {stream} at {seq} is not what the entries say: {thawed}"

    def _ended(self, stream: str, told: Run) -> Iterator[str]:
        if not told.kinds["opened"]:
            if told.kinds["run_asked"]:
                yield f"{stream} was asked for and never opened"
            return
        waits = told.kinds["gate_undecided"] == 1 and told.facts.state == "undecided"
        if not waits and (told.ends != 1 or not told.kinds["closed"]):
            yield f"{stream} did not come to its end: {dict(told.kinds)}"

    def _agreed(self, model: str) -> Iterator[str]:
        """The lives of one model, and the servers, know the same."""
        kept: Production = self._told(f"production/{model}")
        wanted: Retraining = self._told(f"retraining/{model}")
        if kept.barred != wanted.barred:
            yield f"production of {model} barred {kept.barred}, retraining heard of {wanted.barred}"
        for run, snapshot in wanted.owes_bars:
            if snapshot not in self._told(run).barred_at:
                yield f"{run} never heard that {snapshot} is barred"
        if wanted.is_wanted:
            yield f"a run of {model} is wanted, and nobody opens it"
        facts = kept.facts
        waiting = [o.entry for o in facts.offers]
        waiting += [facts.candidate.entry] if facts.candidate else []
        for offer, bundle in kept.offered.items():
            if not kept.ended[offer] and offer not in waiting and bundle not in kept.taken_off:
                yield f"production/{model}: {bundle}, offered by {offer}, was lost"
        shown = self.history.world.router.get(f"production/{model}", (0, NOWHERE))[1]["arms"]
        if shown != production.routes(facts):
            yield f"router of {model} ended at {shown}, the ledger says {production.routes(facts)}"


def is_step(e: Entry) -> bool:
    return "release" in e.body


@functools.lru_cache(maxsize=64)
def moments(schedules: tuple[Schedule, ...], first: float) -> tuple[float, ...]:
    """When they come due within three weeks, by watching the zone's clock, a quarter of an hour at a time."""
    found: set[float] = set()
    for schedule in schedules:
        there, wanted, seen = ZoneInfo(schedule.zone), SPELLED_OUT[schedule.cron], set()
        shown = datetime.fromtimestamp(first, there).replace(tzinfo=None)
        for at in range(int(first) + 900, int(first) + 21 * 86400, 900):
            before, shown = shown, datetime.fromtimestamp(at, there).replace(tzinfo=None)
            n_jumped = (
                shown - before
            ) // QUARTER  # 1; more where it skips, less where it goes back
            passed = {shown - n * QUARTER for n in range(max(1, n_jumped))}
            if any(wanted(time) for time in passed - seen):
                found.add(float(at))
            seen |= passed
    return tuple(sorted(found))


QUARTER = timedelta(minutes=15)
SPELLED_OUT: dict[str, Callable[[datetime], bool]] = {
    "30 2 * * *": lambda t: (t.hour, t.minute) == (2, 30),
    "15 */12 * * *": lambda t: t.hour in (0, 12) and t.minute == 15,
    "0 2 * * sun": lambda t: (t.isoweekday(), t.hour, t.minute) == (7, 2, 0),
}
