"""Where a thing comes from, back to data, code, gates and approval; and what came of it, on to predictions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from gyrostat_runtime import bundle as bundles_of
from gyrostat_runtime import keys
from gyrostat_runtime.errors import RuntimeFault

from gyrostat import config, predictionlog
from gyrostat.errors import UsageError
from gyrostat.ledger import times, words
from gyrostat.loop import reconcile, run
from gyrostat.ports import Ledger
from gyrostat.registry import bundles, versions
from gyrostat.terms import Entry, Ref

Link = dict[str, Any]
CLOCKS_S = 300.0
"""That a server's clock may be behind the ledger's."""


def why(ledger: Ledger, state: Path, loaded: config.Loaded, ref: Ref) -> list[Link]:
    """The chain of a ref, the thing itself first; each link `{"what", "words", "ref", ...}`.

    Raises:
        UsageError: nothing of that name is known.
    """
    if ref.kind != "entry" and ref.model not in loaded.declaration.models:
        raise UsageError(f"There is no model {ref.model!r} in this project.")
    match ref.kind:
        case "prediction":
            return _prediction(ledger, state, ref)
        case "version":
            return _version(ledger, state, ref.model, _staged(ledger, ref))
        case "run":
            return _run(ledger, state, str(ref), is_first=True)
        case "snapshot":
            return _snapshot(ledger, state, ref.model, ref.id)
        case "batch":
            return _batch(ledger, state, ref)
        case "entry":
            return _entry(ledger, ref)
    raise UsageError(
        f"{ref} is no ref that has a why; ask of run/…, version/…, snapshot/…, prediction/…, batch/… or entry/…."
    )


def forward(ledger: Ledger, state: Path, loaded: config.Loaded, ref: Ref) -> list[Link]:
    """What came of a snapshot, run or version: the thing itself first, then runs, versions, and how many predictions.

    Raises:
        UsageError: nothing of that name is known, or nothing can come of such a thing.
    """
    if ref.kind not in ("snapshot", "run", "version"):
        raise UsageError(
            f"Nothing is made of {ref}; ask --forward of snapshot/…, run/… or version/…."
        )
    head = why(ledger, state, loaded, ref)[0]
    known = versions.read(ledger, ref.model).all
    links: list[Link] = []
    match ref.kind:
        case "snapshot":
            id = head["ref"].rpartition("/")[2]
            runs = dict.fromkeys(
                e.stream for e in ledger.mentions(id) if e.kind in ("snapshotted", "checks_failed")
            )
            for stream in runs:
                entries = ledger.tail(stream)
                text = f"{stream}: {reconcile.facts_of(ledger, stream).state}{_ending(entries)}"
                links.append({"what": "run", "ref": stream, "words": text})
            made = [v for v in known if v.snapshot == id]
        case "run":
            made = [v for v in known if v.run == str(ref)]
        case _:
            made = [v for v in known if v.ref == str(ref)]
    if not made:
        return [head, *links, {"what": "versions", "ref": "", "words": "none came of it"}]
    scored = [link for v in made for link in batches(ledger, ref.model, bundle=v.bundle)]
    return [head, *links, *_answered(state, ref.model, made), *scored]


def _answered(state: Path, model: str, made: list[versions.Version]) -> list[Link]:
    """Each version with its predictions in the log."""
    answered, shadow = Counter[str](), Counter[str]()
    bundles_made = {v.bundle for v in made}
    first = min(v.created_at for v in made) - CLOCKS_S
    for frame in predictionlog.read(state, model, since=first):
        if frame.bundle in bundles_made:
            (shadow if frame.arm == "shadow" else answered)[frame.bundle] += frame.n
    links: list[Link] = []
    for v in made:
        status = str(v.status).replace("_", " ")
        text = f"{v.ref}, {status}{': ' + v.cause if v.cause else ''}: {answered[v.bundle]:,} predictions"
        if shadow[v.bundle]:
            text += f", and {shadow[v.bundle]:,} in shadow, which answered nobody"
        links.append({
            "what": "version", "ref": v.ref, "words": text, "predictions": answered[v.bundle], "shadow": shadow[v.bundle],
        })  # fmt: skip
    total = sum(answered[bundle] for bundle in bundles_made)
    text = f"{total:,} in the log, which is kept for monitoring.keep"
    return [*links, {"what": "together", "ref": "", "words": text, "predictions": total}]


def _prediction(ledger: Ledger, state: Path, ref: Ref) -> list[Link]:
    frames = predictionlog.find(state, ref.model, ref.id.partition(".")[0])
    if not frames:
        raise UsageError(
            f"There is no prediction {ref.id} in the log of {ref.model} (kept for monitoring.keep)."
        )
    frame = next((f for f in frames if f.arm != "shadow"), frames[0])
    row = ref.id.partition(".")[2]
    outputs = (
        frame.outputs[int(row)]
        if row.isascii() and row.isdecimal() and int(row) < len(frame.outputs)
        else frame.outputs
    )
    value = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs
    answered = (
        f"{value}" if 200 <= frame.status < 300 else f"answered {frame.status}: {frame.error}"
    )
    if isinstance(value, float):
        answered = words.number(value, 4)
    head = {
        "what": "prediction", "ref": str(ref), "value": value, "at": times.iso(frame.at), "status": frame.status,
        "words": f"{answered} at {times.local(frame.at)}, answered in {1000 * frame.latency_s:.2g} ms as {frame.arm}"
        + (", which the client asked for" if frame.is_asked else ""),
    }  # fmt: skip
    unlogged: list[Link] = []
    if not frame.is_error and not frame.inputs:
        text = "not logged: serving.log_sample keeps those of a share, so nothing can be explained or learned by them"
        unlogged = [{"what": "inputs", "ref": "", "words": text}]
    staged = [e for e in ledger.mentions(frame.bundle) if e.kind == "staging_started"]
    if not staged:
        return [
            head,
            *unlogged,
            {
                "what": "model",
                "ref": "",
                "words": f"bundle {frame.bundle[:12]}, which this ledger does not know",
            },
        ]
    return [head, *unlogged, *_version(ledger, state, ref.model, staged[-1])]


def _batch(ledger: Ledger, state: Path, ref: Ref) -> list[Link]:
    stream, seq = f"batch/{ref.model}", int(ref.id) if ref.id.isdecimal() else 0
    entry = next(iter(ledger.tail(stream, after_seq=seq - 1)), None) if seq else None
    if entry is None:
        raise UsageError(f"There is no {ref}. A batch is made by: gyrostat predict --input FILE --output FILE")  # fmt: skip
    body = entry.body
    link: Link = {"what": "batch", "ref": str(ref), "entry": entry.ref} | body
    return [
        link
        | {
            "words": f"{words.batch(entry)}, {times.local(entry.at)}, {_asked(entry)} ({entry.ref})"
        },
        {"what": "input", "ref": "", "words": f"{body['input']}, {body['input_digest']}"},
        {"what": "output", "ref": "", "words": f"{body['output']}, {body['output_digest']}"},
        *_version(
            ledger,
            state,
            ref.model,
            _staged(ledger, Ref("version", ref.model, str(body["by_version"]))),
        ),
    ]


def _asked(entry: Entry) -> str:
    if name := entry.body.get("batch"):
        return f"batch {name}, due {times.local(entry.body['due'])}"
    return f"asked by {entry.actor}"


def batches(ledger: Ledger, model: str, *, at: float | None = None, bundle: str = "") -> list[Link]:
    """Tables that were answered: by a bundle, or that were being answered at a time."""
    links = []
    for e in ledger.tail(f"batch/{model}"):
        began = min(e.body["began_at"], e.at)
        if (at is None or began <= at <= e.at) and (not bundle or e.body["bundle"] == bundle):
            ref = f"batch/{model}/{e.seq}"
            text = f"{ref}, {words.batch(e)}, {times.local(began)} to {times.local(e.at)}"
            links.append({"what": "batch", "ref": ref, "words": text, "version": e.body["by_version"], "rows": e.body["n_rows"]})  # fmt: skip
    return links


def _staged(ledger: Ledger, ref: Ref) -> Entry:
    found = [e for e in ledger.mentions(str(ref)) if e.kind == "staging_started"]
    if not found:
        raise UsageError(f"There is no {ref}. See: gyrostat status")
    return found[-1]


def _version(ledger: Ledger, state: Path, model: str, staged: Entry) -> list[Link]:
    """From the entry that gave a version its number."""
    digest, offer = staged.inputs[0], staged.inputs[1]
    version = staged.outputs[0]
    tail = ledger.tail(staged.stream)
    about = [e for e in tail if offer in e.inputs]
    promoted = next((e for e in reversed(about) if e.kind == "promoted"), None)
    ended = next(
        (
            e
            for e in about
            if e.kind in ("regressed", "refused", "expired", "superseded", "staging_failed")
        ),
        None,
    )
    since = (
        f"champion since {times.local(promoted.at)}"
        if promoted
        else f"{ended.kind.replace('_', ' ')} {times.local(ended.at)}"
        if ended
        else "not released yet"
    )
    links = [
        {
            "what": "model",
            "ref": version,
            "bundle": digest,
            "words": f"{version}, {since}, {_signature(state, digest)}",
        }
    ]
    offered = next(
        (e for e in tail if e.kind == "offered" and f"{e.stream}#{e.seq}" == offer), None
    )
    if offered is not None:
        links += _run(ledger, state, offered.body["run"], is_first=False)
    links.append(_approval(about))
    links.append(_release(about))
    return links


def _signature(state: Path, digest: str) -> str:
    try:
        bundles_of.verify(bundles.path(state, digest), keys.keyring(state / "keys"))
    except RuntimeFault as fault:
        return f"signature NOT valid: {fault}"
    return "signature valid"


def _approval(about: list[Entry]) -> Link:
    approved = next((e for e in about if e.kind == "approved"), None)
    if approved is None:
        return {"what": "approval", "ref": "", "words": "none"}
    cause = approved.body.get("cause", "")
    return {
        "what": "approval",
        "ref": approved.ref,
        "words": f"{'approved ' if cause.startswith('by ') else ''}{cause} {times.local(approved.at)} ({approved.ref})",
    }


def _release(about: list[Entry]) -> Link:
    steps = []
    for e in about:
        match e.kind:
            case "staging_passed":
                steps.append("staging")
            case "replay_started":
                steps.append("replay")
            case "shadow_started" | "canary_started":
                plan = e.body["detail"]["steps"]
                steps += ["shadow" if s == 0 else f"{100 * s:g} %" for s in plan[:1]]
                rest = plan[1:]
            case "advanced":
                steps.append(f"{100 * rest[0]:g} %" if rest else "next step")  # type: ignore[possibly-undefined]
                rest = rest[1:]  # type: ignore[possibly-undefined]
            case "promoted":
                steps.append("champion")
            case "regressed" | "expired" | "refused" | "rolled_back" | "champion_regressed":
                steps.append(words.words(e).text)
    crossed = any(e.kind in ("regressed", "champion_regressed") for e in about)
    text = ", ".join(steps) or "not begun"
    return {
        "what": "release",
        "ref": about[0].ref if about else "",
        "words": text + ("" if crossed else "; no guardrail crossed"),
    }


def _run(ledger: Ledger, state: Path, stream: str, *, is_first: bool) -> list[Link]:
    entries = ledger.tail(stream)
    if not entries:
        raise UsageError(f"There is no {stream}. See: gyrostat status")
    by_kind = {e.kind: e for e in entries}
    links: list[Link] = []
    if is_first:
        f: run.Facts = reconcile.facts_of(ledger, stream)
        links.append(
            {
                "what": "run",
                "ref": stream,
                "words": f"{stream}, asked by {f.actor or f.by}: {f.state}{_ending(entries)}",
            }
        )
    trained = by_kind.get("trained")
    if trained:
        seen = trained.body["seen"]
        text = words.words(trained).text.removeprefix("trained: ")
        seed = seen.get("params", {}).get("random_state")
        link = {
            "what": "trained",
            "ref": stream,
            "words": f"{stream}, {text}" + (f", seed {seed}" if seed is not None else ""),
        }
        links.append(link | {"code": seen.get("code"), "params": seen.get("params")})
    snap = by_kind.get("snapshotted") or by_kind.get("checks_failed")
    if snap:
        seen, model = snap.body["seen"], stream.split("/")[1]
        checks = seen["checks"]
        held = checks["n_rules"] - checks["n_broken"]
        ref = f"snapshot/{model}/{seen['made']}"
        text = f"{ref}, {seen.get('source', '')}, {seen['n_rows']:,} rows ({seen['n_traffic']:,} labelled predictions), {held} of {checks['n_rules']} rules held"
        links.append(
            {"what": "data", "ref": ref, "words": text, "fingerprint": seen.get("fingerprint")}
        )
    gate = next((e for e in reversed(entries) if e.kind.startswith("gate_")), None)
    if gate:
        passed, n, headline = words.verdicts(gate)
        links.append(
            {
                "what": "gates",
                "ref": gate.ref,
                "words": f"{passed} of {n}" + (f"; {headline}" if headline else ""),
                "verdicts": gate.body.get("detail", {}).get("verdicts", {}),
            }
        )
    if is_first and (packed := by_kind.get("packed")):
        links.append({"what": "packed", "ref": packed.ref, "words": words.words(packed).text})
    return links


def _ending(entries: list[Entry]) -> str:
    for entry in reversed(entries):
        if entry.kind in ("gave_up", "gate_failed", "rejected", "checks_failed", "cancelled"):
            return f" ({words.words(entry).text})"
    return ""


def _snapshot(ledger: Ledger, state: Path, model: str, id: str) -> list[Link]:
    found = sorted((state / "snapshots" / model).glob(f"{id}*.json")) if id.isalnum() else []
    if len(found) != 1:
        raise UsageError(f"There is no snapshot {id} of {model}. See: gyrostat data report")
    record = json.loads(found[0].read_bytes())
    checks = record["checks"]
    links = [{
        "what": "snapshot", "ref": f"snapshot/{model}/{record['id']}", "fingerprint": record["fingerprint"],
        "words": f"{record['n_rows']:,} rows ({record['n_source']:,} of {record['source']}, {record['n_traffic']:,} labelled predictions), "
        f"taken {times.local(record['made_at'])}, {checks['n_rules'] - checks['n_broken']} of {checks['n_rules']} rules held",
    }]  # fmt: skip
    links += [
        {
            "what": "used by",
            "ref": e.stream,
            "words": f"{e.stream} ({e.kind.replace('_', ' ')}, {e.ref})",
        }
        for e in ledger.mentions(record["id"])
        if e.kind in ("snapshotted", "checks_failed")
    ]
    return links


def _entry(ledger: Ledger, ref: Ref) -> list[Link]:
    entry = ledger.entry(int(ref.id)) if ref.id.isdigit() else None
    if entry is None:
        raise UsageError(f"There is no {ref}; the last one is entry/{ledger.position()}.")
    links: list[Link] = [
        {"what": "entry", "ref": entry.ref, "words": f"{words.words(entry).text}"},
        {"what": "when", "ref": "", "words": f"{times.local(entry.at)}, by {entry.actor}"},
        {
            "what": "stream",
            "ref": entry.stream,
            "words": f"{entry.stream}, {entry.kind}, seq {entry.seq}",
        },
    ]
    links += [{"what": "from", "ref": r, "words": r} for r in entry.inputs]
    links += [{"what": "made", "ref": r, "words": r} for r in entry.outputs]
    if cause := entry.body.get("cause"):
        links.append({"what": "cause", "ref": "", "words": cause})
    links.append({"what": "hash", "ref": "", "words": entry.hash, "body": entry.body})
    return links
