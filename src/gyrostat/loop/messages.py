"""Which entries somebody must hear of, and what they say: what happened, what users felt, what was done, what to type."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

from gyrostat.adapters.notify.message import Message
from gyrostat.ledger import times, words
from gyrostat.loop.reconcile import catch_up, life_of
from gyrostat.loop.stuck import Stuck
from gyrostat.ports import Ledger
from gyrostat.rollout import production
from gyrostat.rollout.states import IN_TRAFFIC, State
from gyrostat.terms import Entry

HOUR_S = 3600.0
CALLS = {
    ("production", "approval_asked"): "person_needed",
    ("production", "overdue"): "person_needed",
    ("production", "held"): "person_needed",
    ("run", "approval_asked"): "person_needed",
    ("production", "regressed"): "rolled_back",
    ("production", "champion_regressed"): "rolled_back",
    ("production", "rolled_back"): "rolled_back",
    ("production", "staging_failed"): "failed",
    ("production", "expired"): "failed",
    ("run", "gave_up"): "failed",
    ("run", "checks_failed"): "failed",
    ("batching", "batch_failed"): "failed",
}
"""A candidate that the gates refuse is an answer, and calls for nobody."""


def message(ledger: Ledger, entry: Entry, *, project: str, env: str) -> Message | None:
    """What a receiver is told of an entry; None where it calls for nothing. The same whenever it is asked."""
    life = entry.stream.partition("/")[0]
    kind = CALLS.get((life, entry.kind))
    if kind is None:
        return None
    model = entry.stream.split("/")[1]
    before, after = _around(ledger, entry) if life != "run" else (None, None)
    if life == "batching" and _is_old_news(entry, before):
        return None
    about, done, command = _said(entry, model, before, after)
    return Message(
        kind, entry.hash, entry.ref, about, model, project, env, times.iso(entry.at), words.words(entry).text,
        _harm(entry, before, after), done, command,
    )  # fmt: skip


def stuck_message(ledger: Ledger, found: Stuck, *, project: str, env: str) -> Message:
    """What a receiver is told of a stream that cannot go on."""
    entry = ledger.entry(found.position) if found.position else None
    cause = hashlib.sha256(f"{found.key} {entry.hash if entry else ''}".encode()).hexdigest()
    return Message(
        "stuck", cause, entry.ref if entry else "", found.stream, found.model, project, env,
        times.iso(entry.at if entry else ledger.now()), f"{found.stream} stands still: {found.why}",
        "none by itself: whoever answers goes on answering", "nothing: it needs a person", found.command,
    )  # fmt: skip


def _around(ledger: Ledger, entry: Entry) -> tuple[Any, Any]:
    """The facts before the entry and after it; None where they cannot be read, which stops no message."""
    with contextlib.suppress(Exception):  # whatever a planted entry does to a fold
        tail = [e for e in ledger.tail(entry.stream) if e.seq <= entry.seq]
        before = catch_up(life_of(entry.stream).Facts(entry.stream), tail[:-1])
        return before, catch_up(before, tail[-1:])
    return None, None


def _is_old_news(entry: Entry, before: Any) -> bool:
    """Whether the batch failed so within the hour before: one that comes due each minute tells it once an hour at most."""
    work = before and before.work
    known = (o for o in before.outcomes if o.batch == work.batch) if work else ()
    return any(o.failure == entry.body["cause"] and entry.at - o.at < HOUR_S for o in known)


def _who(f: production.Facts | None) -> str:
    if f is None:
        return "see gyrostat status"
    return f"version {f.champion.version} answers everything" if f.champion else "nobody answers"


def _harm(entry: Entry, before: Any, after: Any) -> str:
    if entry.stream.startswith("run/"):
        return "none: whoever answers goes on answering"
    if entry.stream.startswith("batching/"):
        return "whoever reads that output finds no new answers"
    if before is None:
        return "unknown: see gyrostat status"
    match entry.kind:
        case "regressed":
            if before.state is State.REPLAYING:
                return f"none: it answered nobody; {_reason(entry)}"
            part = production.share(before)
            felt = f"{100 * part:g} % of requests went to it" if part else "none: it was in shadow"
            return f"{felt}; {_reason(entry)}"
        case "champion_regressed":
            return f"all requests went to it since {_since(before)}; {_reason(entry)}"
        case "rolled_back":
            was = before.state in IN_TRAFFIC and entry.inputs[0] != getattr(
                before.champion, "bundle", ""
            )
            part = production.share(before) if was else 1.0
            return f"{100 * part:g} % of requests went to it"
    if before.state in IN_TRAFFIC and after.state in IN_TRAFFIC:
        return f"none shown: {100 * production.share(after):g} % of requests go to version {after.candidate.version}"
    return f"none: {_who(after)}" if after.champion else "nobody answers yet"


def _since(f: production.Facts) -> str:
    return times.iso(f.promoted_at) if f.promoted_at else "its release"


def _reason(entry: Entry) -> str:
    detail = entry.body.get("detail", {})
    verdict = detail.get("verdict", {})
    if verdict.get("reason"):
        return str(verdict["reason"])
    if "metric" in detail:
        limit = f" (limit {words.number(detail.get('limit'))})"
        return f"{detail['metric']} {words.number(detail.get('value'))}{limit}"
    return str(entry.body.get("cause", ""))


def _said(entry: Entry, model: str, before: Any, after: Any) -> tuple[str, str, str]:
    """`(about, what was done, what to type)`."""
    if entry.stream.startswith("run/"):
        return _said_of_run(entry)
    if entry.stream.startswith("batching/"):
        return model, "nothing; its next moment tries again", f"gyrostat why {entry.ref}"

    def version(of: Callable[[Any], Any], facts: Any) -> str:
        offer = of(facts) if facts is not None else None
        return f"version/{model}/{offer.version}" if offer is not None else model

    candidate = version(lambda f: f.candidate, before)
    match entry.kind:
        case "approval_asked" | "overdue":
            done = "it waits; nothing moves until you say"
            if entry.kind == "overdue" and before is not None and before.state is State.REPLAYING:
                done = "nothing; each batch is replayed until one decides, or you say"
            elif entry.kind == "overdue":
                done = "nothing; it keeps its share of requests until it has proven itself, does harm, or you say"
            return candidate, done, f"gyrostat approve {candidate}   (or: gyrostat reject {candidate})"  # fmt: skip
        case "held":
            return (
                model,
                "nothing is released until it is resumed",
                f"gyrostat resume {model}",
            )
        case "regressed":
            is_off = before is None or before.state in IN_TRAFFIC
            return (
                candidate,
                f"{'taken off' if is_off else 'not released'}; {_who(after)}",
                f"gyrostat why {entry.ref}",
            )
        case "champion_regressed":
            return (
                version(lambda f: f.champion, before),
                f"taken off; {_who(after)}",
                f"gyrostat changes {model} --since 24h",
            )
        case "rolled_back":
            return (
                version(lambda f: f.removed, after),
                f"taken off; {_who(after)}; held",
                f"gyrostat resume {model}",
            )
    return candidate, f"not released; {_who(after)}", f"gyrostat why {entry.ref}"


def _said_of_run(entry: Entry) -> tuple[str, str, str]:
    ref = entry.stream
    match entry.kind:
        case "approval_asked":
            return (
                ref,
                "it waits; no other run waits for it",
                f"gyrostat approve {ref}   (or: gyrostat reject {ref})",
            )
        case "checks_failed":
            snapshot = entry.outputs[0] if entry.outputs else ""
            return ref, "training did not start", f"gyrostat data report {snapshot}".rstrip()
    return ref, "the run ended; nothing is released", f"gyrostat why {ref}"
