"""What is so, for people and programs: facts of the ledger and the last measurements, put together and not judged.

`status`, the control room and the demo read the same picture. It costs models and open runs, not the history.
"""

from __future__ import annotations

import contextlib
import json
import time
from math import inf
from pathlib import Path
from typing import Any

from gyrostat import config
from gyrostat.batching import life as batching
from gyrostat.ledger import times, words
from gyrostat.loop import reconcile, run
from gyrostat.observations import DAMAGED, ROLLOUT
from gyrostat.ports import Ledger
from gyrostat.retraining import life as retraining
from gyrostat.rollout import production
from gyrostat.rollout.states import COMPARED, IN_TRAFFIC, State
from gyrostat.schedule import next_due
from gyrostat.serving.receipts import refusal

STEPS = {
    run.State.ABSENT: ("waiting", 0), run.State.OPENED: ("snapshot", 5), run.State.SNAPSHOTTED: ("training", 20),
    run.State.TRAINED: ("packing", 50), run.State.PACKED: ("gates", 70), run.State.UNDECIDED: ("undecided", 80),
    run.State.JUDGED: ("offered", 95), run.State.OFFERED: ("offered", 100), run.State.REJECTED: ("not released", 100),
    run.State.FAILED: ("failed", 100), run.State.CANCELLED: ("cancelled", 100), run.State.CLOSED: ("over", 100),
}  # fmt: skip


def overview(
    ledger: Ledger, state: Path, loaded: config.Loaded, *, at: float | None = None
) -> dict[str, Any]:
    """`{"models": {name: picture}, "position", "at"}`, JSON values; `at`: as it was then, measurements left out."""
    moment = time.time() if at is None else at
    models = {
        name: _picture(ledger, state, settings, moment, is_past=at is not None)
        for name, settings in loaded.declaration.models.items()
    }
    declared = ledger.tail("declaration")
    last_change = next((e for e in reversed(declared) if e.at <= moment), None)
    return {
        "models": models, "position": ledger.position(), "at": times.iso(moment),
        "declared": None if last_change is None else {
            "by": last_change.actor, "at": times.iso(last_change.at), "loosened": last_change.body["loosened"],
            "digest": last_change.body["digest"][:12], "entry": last_change.ref,
        },
    }  # fmt: skip


def _picture(
    ledger: Ledger, state: Path, settings: config.ModelSettings, moment: float, *, is_past: bool
) -> dict[str, Any]:
    model = settings.name
    unread: list[str] = []

    def facts(stream: str) -> Any:
        found, why_no_further = reconcile.facts_readable(
            ledger, stream, moment if is_past else None
        )
        unread.extend([why_no_further] if why_no_further else [])
        return found

    f: production.Facts = facts(f"production/{model}")
    wanted: retraining.Facts = facts(f"retraining/{model}")
    runs = [facts(f"run/{model}/{n}") for n in range(max(1, wanted.run - 4), wanted.run + 1)]
    live = {} if is_past else _live(state, model)
    champion = _champion(ledger, f, settings)
    picture: dict[str, Any] = {
        "model": model,
        "state": str(f.state),
        "since": times.iso(f.since) if f.since else None,
        "version": f.champion.version if f.champion else None,
        "champion": champion,
        "candidate": _candidate(f),
        "arms": production.routes(f),
        "held": {"since": times.iso(f.since), "why": f.held_why} if f.state is State.HELD else None,
        "needs_you": _needs_you(f, runs, settings, model),
        "runs": [_run(r) for r in reversed(runs) if r.seq],
        "barred": list(f.barred),
        "limits_guessed": f.needs_person,
        "next": _next(wanted, settings, moment),
        "batches": _batches(ledger, facts(f"batching/{model}"), settings),
    }
    picture["service"] = _service(live, settings)
    picture["quality"] = _quality(live, settings)
    picture["inputs"] = _inputs(live, settings)
    picture["labels"] = live.get("labels", {})
    rollout = {} if is_past else rollout_of(f, settings, state, ledger.now())
    picture["rollout"] = rollout or None
    picture["waits"] = waits(f, rollout, live)
    picture["stuck"] = "; ".join(unread) or (_stuck(state, model, f) if not is_past else "")
    return picture


def _live(state: Path, model: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((state / "observations" / model / "live.json").read_bytes())
    return {}


def evidence_of(ledger: Ledger, run_stream: str) -> dict[str, Any]:
    """What the gates of a run were judged from; empty before."""
    for entry in reversed(ledger.tail(run_stream)):
        if entry.kind.startswith("gate_") and "evidence" in entry.body.get("seen", {}):
            return entry.body["seen"]["evidence"]
    return {}


def _champion(
    ledger: Ledger, f: production.Facts, settings: config.ModelSettings
) -> dict[str, Any] | None:
    if f.champion is None:
        return None
    evidence = evidence_of(ledger, f.champion.run)
    metric = settings.gates.champion.metric
    found = evidence.get("metrics", {}).get(metric)
    limit = next((limit for limit in settings.gates.limits if limit.metric == metric), None)
    text = ""
    if found:
        text = f"{metric} {words.number(found['value'])} ({words.number(found['lower'])} to {words.number(found['upper'])}"
        text += f"; limit {limit.bound:g})" if limit else ")"
    return {
        "version": f.champion.version, "bundle": f.champion.bundle, "run": f.champion.run, "snapshot": f.champion.snapshot,
        "since": times.iso(f.promoted_at) if f.promoted_at else None, "applied": f.applied >= f.routed_at > 0, "words": text,
    }  # fmt: skip


def _candidate(f: production.Facts) -> dict[str, Any] | None:
    offer = f.candidate or (f.offers[-1] if f.offers else None)
    if offer is None:
        return None
    return {
        "version": offer.version or None, "bundle": offer.bundle, "run": offer.run, "state": str(f.state) if f.candidate else "waiting",
        "share": production.share(f) if f.state in IN_TRAFFIC else 0.0, "step": f.step, "steps": list(f.steps),
    }  # fmt: skip


def _needs_you(
    f: production.Facts, runs: list[run.Facts], settings: config.ModelSettings, model: str
) -> list[dict[str, Any]]:
    asks = []
    if f.state is State.WAITING_APPROVAL and f.candidate and not f.answer:
        ref = f"version/{model}/{f.candidate.version}"
        why = (
            "every release asks"
            if settings.rollout.approval == "always"
            else "a model's first release, or the first after its limits were loosened, asks"
        )
        asks.append(
            {
                "what": "approval",
                "ref": ref,
                "why": f"version {f.candidate.version} of {f.candidate.run} waits: {why}",
            }
        )
    if f.state in COMPARED and f.is_overdue and f.candidate and not f.answer:
        asks.append(
            {
                "what": "expired",
                "ref": f"version/{model}/{f.candidate.version}",
                "why": f"version {f.candidate.version} has not proven itself in time",
            }
        )
    if f.state is State.HELD and not f.is_resumed:
        asks.append(
            {
                "what": "held",
                "ref": model,
                "why": f"production is held{': ' + f.held_why if f.held_why else ''}; nothing is released",
            }
        )
    asks.extend(
        {
            "what": "undecided",
            "ref": r.stream,
            "why": f"{r.stream}: the held-out rows cannot decide",
        }
        for r in runs
        if r.state is run.State.UNDECIDED and not r.answer
    )
    for ask in asks:
        verb = "resume" if ask["what"] == "held" else "approve"
        ask["command"] = f"gyrostat {verb} {ask['ref']}"
    return asks


def _run(r: run.Facts) -> dict[str, Any]:
    step, done = STEPS[r.state]
    ends = {
        run.State.REJECTED: "failed", run.State.FAILED: "failed", run.State.CANCELLED: "failed", run.State.UNDECIDED: "waiting",
        run.State.OFFERED: "passed", run.State.CLOSED: "passed",
    }  # fmt: skip
    mark = ends.get(r.state, "running")
    if r.state is run.State.CLOSED and not r.bundle:
        mark = "failed"
    return {
        "ref": r.stream, "state": str(r.state), "step": step, "done": done, "mark": mark, "by": r.by, "why": r.why,
        "actor": r.actor, "since": times.iso(r.since), "opened_at": times.iso(r.opened_at) if r.opened_at else None,
        "snapshot": r.snapshot, "bundle": r.bundle,
    }  # fmt: skip


def _next(f: retraining.Facts, settings: config.ModelSettings, now: float) -> dict[str, Any]:
    terms = settings.retraining
    recent = [at for at in f.openings if at > now - terms.budget_window_s]
    return {
        "triggers": [*terms.triggers, *(f"schedule {schedule}" for schedule in terms.schedules)],
        "scheduled_for": times.iso(due) if f.schedules and (due := next_due(terms.schedules, f.scheduled_at)) < inf else None, "left": max(0, terms.budget - len(recent)), "budget": terms.budget,
        "cools_until": times.iso(f.ended_at + terms.cooldown_s) if f.run and f.ended_at + terms.cooldown_s > now else None,
        "wanted": f.by if f.wanted else None,
        "frees_at": times.iso(free_at) if (free_at := retraining.frees_at(f, terms, now)) else None,
    }  # fmt: skip


def _batches(
    ledger: Ledger, f: batching.Facts, settings: config.ModelSettings
) -> list[dict[str, Any]]:
    """Each declared batch: when it comes due next, what it waits for, how its newest ended."""
    waiting, ended = dict(f.waiting), {o.batch: o for o in f.outcomes}
    found = []
    for batch in settings.batches:
        name = batch.name
        is_counted = any(c.batch == name for c in f.counted)
        next_at = next_due([batch.schedule], batching.until(f, name)) if is_counted else None
        work = f.work if f.work and f.work.batch == name else None
        found.append({
            "batch": name, "input": batch.input, "output": batch.output, "schedule": str(batch.schedule),
            "next": times.iso(next_at) if next_at else None,
            "waits_since": times.iso(waiting[name]) if name in waiting else None,
            "scoring": {"version": work.version, "due": times.iso(work.due)} if work else None,
            "last": _outcome(ledger, f, ended[name]) if name in ended else None,
        })  # fmt: skip
    return found


def _outcome(ledger: Ledger, f: batching.Facts, o: batching.Outcome) -> dict[str, Any]:
    said = ledger.mentions(f"{f.stream}#{o.seq}")
    record = next((e for e in said if e.kind == "scored"), None)
    return {
        "due": times.iso(o.due), "at": times.iso(o.at), "version": o.version, "rows": o.n_rows, "failed": o.n_failed,
        "failure": o.failure.removeprefix(f"{o.batch}: "), "ref": f"{record.stream}/{record.seq}" if record else None,
    }  # fmt: skip


def _service(live: dict[str, Any], settings: config.ModelSettings) -> dict[str, Any]:
    service = dict(live.get("service", {}))
    for limit in settings.gates.limits:
        if limit.metric == "error_rate":
            service["error_limit"] = limit.bound
        if limit.metric == "latency_p99":
            service["p99_limit"] = limit.bound
    return service


def _quality(live: dict[str, Any], settings: config.ModelSettings) -> dict[str, Any]:
    return {metric: dict(found) for metric, found in live.get("quality", {}).items()}


def _inputs(live: dict[str, Any], settings: config.ModelSettings) -> dict[str, Any]:
    drift = [{"column": name, **look} for name, look in live.get("drift", {}).items() if look]
    drift.sort(key=lambda d: -(d.get("lower") or 0))
    return {"drift": drift, "new": live.get("new", {}), "missing": live.get("missing", {})}


def stands(f: production.Facts, settings: config.ModelSettings, state: Path, now: float) -> str:
    """The line of `status` about a rollout, for those who follow one."""
    return waits(f, rollout_of(f, settings, state, now), _live(state, f.model))


def rollout_of(
    f: production.Facts, settings: config.ModelSettings, state: Path, now: float
) -> dict[str, Any]:
    """How the open step of a rollout stands, from the counts that the loop judged last; empty while nothing is in traffic.

    `{"needs", "reason", "n_seen", "n_wanted", "guardrails": {metric: {"value", "lower", "upper", "margin", "n"}}}`
    """
    if f.state not in IN_TRAFFIC or not f.candidate:
        return {}
    traffic: dict[str, Any] | None = None
    with contextlib.suppress(OSError, ValueError):
        traffic = json.loads((state / "observations" / f.model / ROLLOUT).read_bytes())
    if traffic is not None and traffic.get("routes_seq") != f.routed_at:
        traffic = None
    judged = production.verdict_on(f, traffic, settings.rollout, now)
    return {
        "needs": judged.verdict.needs,
        "reason": judged.verdict.reason,
        "n_seen": judged.n_seen,
        "n_wanted": judged.n_wanted,
        "guardrails": {
            metric: {k: found.get(k) for k in ("value", "lower", "upper", "n")}
            | {"margin": str(settings.rollout.guardrails.get(metric, ""))}
            for metric, found in (traffic["guardrails"] if traffic else {}).items()
        },
    }


def waits(f: production.Facts, rollout: dict[str, Any], live: dict[str, Any]) -> str:
    """Who stands where, what the step waits for, and in traffic about how long at this traffic."""
    if f.state is State.REPLAYING and f.candidate:
        return _replays(f, f.candidate)
    if f.state not in IN_TRAFFIC or not f.candidate:
        return ""
    where = "shadow" if f.state is State.SHADOW else f"{100 * production.share(f):g} %"
    text = f"version {f.candidate.version} at {where}, step {f.step + 1} of {len(f.steps)}"
    if not rollout.get("needs"):
        return text
    text += f": {rollout['needs']}"
    rate = (live.get("service") or {}).get("requests_per_s") or 0.0
    if not rate:
        text += ", no traffic now"
    elif left := max(0, rollout["n_wanted"] - rollout["n_seen"]):
        rate *= 1.0 if f.state is State.SHADOW else production.share(f)
        text += f", about {times.span(left / rate)} at this traffic"
    for metric, found in rollout["guardrails"].items():
        if metric == "error_rate" and found["value"] is not None:
            text += f"; errors {100 * found['value']:+.1f}pp (limit {found['margin']})"
    return text


def _replays(f: production.Facts, candidate: production.Offer) -> str:
    newest = f.answered_batch
    text = f"version {candidate.version} is compared by replay"
    if newest is not None and newest.seq > f.replayed:
        return f"{text}: answers {newest.input} beside the champion"
    before = f", {f.n_replays} before decided nothing" if f.n_replays else ""
    return f"{text}: waits for the next batch to be answered{before}"


def _stuck(state: Path, model: str, f: production.Facts) -> str:
    """Why routes are not applied, where a server refused them; or why nothing can be judged from what was observed."""
    if why := refusal(state, model, f.routed_at):
        return why
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((state / "observations" / model / DAMAGED).read_bytes())["why"]
    return ""
