"""How the answers of the door read in a terminal: one line says what happened, a number stands beside its limit."""

from __future__ import annotations

from typing import Any

from gyrostat import notebook
from gyrostat.ledger import times
from gyrostat.ledger.words import number
from gyrostat.terms import Told


def _local(text: str | None) -> str:
    return times.local(times.parse(text)) if text else ""


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.2f} %"


def status(facts: dict[str, Any], *, is_up: bool, is_past: bool) -> list[str]:
    """In this order: does it hurt users, must you act, what is the loop doing, what changed, what to type."""
    lines: list[str] = []
    for name, m in facts["models"].items():
        lines += _model(name, m, is_past=is_past)
    if declared := facts.get("declared"):
        by = f"by {declared['by']} {_local(declared['at'])} ({declared['entry']})"
        lines += [
            f"       loosened   {model}: {'; '.join(what)}, {by}"
            for model, what in declared["loosened"].items()
        ]
    lines += [f"       trouble    {trouble}" for trouble in facts.get("troubles", ())]
    if facts.get("mistake"):
        lines.append(f"       declaration  not in force: {facts['mistake'].splitlines()[0]}")
    if not is_past and not is_up:
        lines.append("The loop does not run: nothing is decided until `gyrostat up`.")
    return lines


LOSSES = {"squared": "squared error", "miss": "share of wrong answers"}


def arms(facts: dict[str, Any]) -> list[str]:
    """Champion and challenger beside each other, and the difference with its bounds."""
    steps = f"{facts['steps']} step{'s' if facts['steps'] > 1 else ''}"
    lines = [f"{facts['model']}  {_local(facts['since'])} to {_local(facts['until'])}, {steps}"]
    for role, arm in facts["arms"].items():
        metric = next((m for m in ("rmse", "accuracy") if m in arm), None)
        parts = [f"{arm['requests']:,} requests", f"{arm['errors']:,} errors", f"{arm['labels']:,} labels"]  # fmt: skip
        parts += [f"{arm['keys']:,} keys"] if "keys" in arm else []
        parts += [f"{metric} {number(arm[metric])}"] if metric else []
        lines.append(f"       {role:11}version {arm['version']}: {', '.join(parts)}")
    d = facts["difference"]
    if d["value"] is None:
        return [
            *lines,
            "       difference  not known yet: each arm needs more labels in the same step",
        ]
    side = "better" if d["upper"] < 0 else "worse" if d["lower"] > 0 else "undecided"
    text = f"{LOSSES.get(d['loss'], d['loss'])} {d['value']:+.3g} ({d['lower']:.3g} to {d['upper']:.3g}, whenever one looks)"
    return [*lines, f"       difference  {text}: challenger {side}"]


def assigned(key: str, assignments: list[dict[str, Any]]) -> list[str]:
    """What one client was given."""
    return [
        f"       {key}: {one['arm']}, version {one['version']}, since {_local(one['first_seen'])}, {one['predictions']:,} predictions"
        for one in assignments
    ] or [f"       {key}: no prediction with this key"]


def status_drawn(facts: dict[str, Any]) -> str:
    """For a notebook: what is measured of each model, as bars beside their limits."""
    rows = []
    for name, m in facts["models"].items():
        rows += [
            notebook.measure(
                f"{name} {metric}", q.get("value"), q.get("lower"), q.get("upper"), q.get("limit")
            )
            for metric, q in m["quality"].items()
        ]
        service = m["service"]
        if service.get("n"):
            error, p99 = service["error_rate"], service.get("p99")
            rows.append(notebook.measure(f"{name} error rate", error, None, None, service.get("error_limit")))  # fmt: skip
            rows.append(notebook.measure(f"{name} p99, s", p99, None, None, service.get("p99_limit")))  # fmt: skip
        rows += [
            notebook.measure(
                f"{name} shift of {d['column']}", d.get("distance"), None, None, d.get("limit")
            )
            for d in m["inputs"]["drift"]
            if d.get("is_shown")
        ]
    return notebook.table(notebook.MEASURES, rows) if rows else ""


def verdicts_drawn(facts: dict[str, Any]) -> str:
    """For a notebook: each gate of a run with its bounds and its limit."""
    rows = [
        [*notebook.measure(name, v.get("value"), v.get("lower"), v.get("upper"), v.get("limit")), notebook.cell(v["answer"])]
        for name, v in facts.get("gates", {}).items()
    ]  # fmt: skip
    return notebook.table((*notebook.MEASURES, "answer"), rows) if rows else ""


def _model(name: str, m: dict[str, Any], *, is_past: bool) -> list[str]:
    champion, asks = m["champion"], m["needs_you"]
    who = f"version {champion['version']}, champion" if champion else "no champion yet"
    if champion and champion["since"]:
        who += f" since {_local(champion['since'])}"
    need = "nothing needs you" if not asks else "decision needed"
    lines = [f"{name:6} {who:66} {need}"]
    service = m["service"]
    if service.get("n"):
        p99, limit = service.get("p99"), service.get("p99_limit")
        latency = (
            f"p99 {1000 * p99:.1f} ms" + (f" (limit {1000 * limit:g})" if limit else "")
            if p99 is not None
            else ""
        )
        errors = f"errors {_percent(service['error_rate'])}" + (
            f" (limit {100 * service['error_limit']:g} %)" if "error_limit" in service else ""
        )
        lines.append(
            f"       service    {service['requests_per_s']:,.0f} requests/s, {latency}, {errors}"
        )
    guessed = ", guessed by init" if m["limits_guessed"] else ""
    for metric, q in m["quality"].items():
        if q.get("value") is None:
            continue
        bounds = (
            f" ({number(q['lower'])} to {number(q['upper'])})"
            if q.get("lower") is not None and q.get("upper") is not None
            else ""
        )
        limit = f", limit {number(q['limit'])}{guessed}" if q.get("limit") is not None else ""
        decayed = "   decay is shown" if q.get("is_decayed") else ""
        lines.append(
            f"       quality    {metric} {number(q['value'])}{bounds}{limit}{_labels(m['labels'])}{decayed}"
        )
    if champion and not m["quality"] and champion["words"]:
        lines.append(
            f"       quality    {champion['words']} on held-out rows; no labels from traffic yet"
        )
    lines += _inputs(m["inputs"])
    if m["held"]:
        lines.append(
            f"       held       since {_local(m['held']['since'])}"
            + (f": {m['held']['why']}" if m["held"]["why"] else "")
        )
    if m["waits"]:
        lines.append(f"       release    {m['waits']}")
    elif m["candidate"]:
        c = m["candidate"]
        lines.append(
            f"       release    version {c['version'] or '?'} ({c['run']}): {c['state'].replace('_', ' ')}"
        )
    running = next((r for r in m["runs"] if r["mark"] in ("running", "waiting")), None)
    if running:
        lines.append(
            f"       run        {running['ref']}: {running['step']}, {running['why'] or running['by']}"
        )
    lines += [f"       batch      {_batch(b, has_champion=bool(champion))}" for b in m["batches"]]
    if m["stuck"]:
        lines.append(f"       stuck      {m['stuck']}")
    n = m["next"]
    if not is_past:
        wanted = f"a run is wanted ({n['wanted']}); " if n["wanted"] and not running else ""
        if wanted and n["frees_at"]:
            wanted = f"a run is wanted ({n['wanted']}) and waits for the budget until {_local(n['frees_at'])}, or until retraining.budget is raised; "
        lines.append(
            f"       next       {wanted}retrains on {', '.join(n['triggers']) or 'nothing by itself'}; {n['left']} of {n['budget']} runs left"
        )
    lines += [f"       you        {a['why']}:   {a['command']}" for a in asks]
    return lines


def _batch(b: dict[str, Any], *, has_champion: bool) -> str:
    """How its newest ended, and what comes next."""
    last, parts = b["last"], []
    if last:
        what = last["failure"] or f"{last['rows']:,} rows by version {last['version']}"
        if last["failed"] and not last["failure"]:
            what += f", {last['failed']:,} without an answer"
        parts.append(f"{_local(last['due'])} {'not answered: ' if last['failure'] else ''}{what}" + (f" ({last['ref']})" if last["ref"] else ""))  # fmt: skip
    if b["scoring"]:
        parts.append(f"version {b['scoring']['version']} answers now")
    if b["waits_since"]:
        why = "waits its turn" if has_champion else "waits for a champion"
        parts.append(f"{why} since {_local(b['waits_since'])}")
    elif b["next"]:
        parts.append(f"next {_local(b['next'])}")
    return f"{b['batch']}: {'; '.join(parts) or 'counts from when the loop has read it'}"


def _labels(labels: dict[str, Any]) -> str:
    if not labels.get("n"):
        return ""
    delay = (
        f", {times.span(labels['delay_s'])} late (median)"
        if labels.get("delay_s") is not None
        else ""
    )
    return f"   labels for {100 * labels['share']:.0f} % of predictions{delay}"


def _inputs(inputs: dict[str, Any]) -> list[str]:
    lines = []
    shown = [d for d in inputs["drift"] if d.get("is_shown")]
    if shown:
        first = "; ".join(
            f"{d['column']} drifted: shift {d['distance']:.2f} (at least {d['lower']:.2f}; limit {d['limit']:g})"
            for d in shown[:3]
        )
        lines.append(
            f"       inputs     {first}" + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
        )
    for what, word in (("new", "new values"), ("missing", "missing values")):
        counted = {k: n for k, n in inputs[what].items() if n}
        if counted:
            lines.append(
                f"       inputs     {word}: "
                + ", ".join(f"{k} {n:,}" for k, n in list(counted.items())[:4])
            )
    return lines


def verified(r: Any, odd: list[str], *, has_anchor: bool) -> Told:
    """`audit verify`."""
    facts = {
        "is_whole": r.is_whole and not odd, "entries": r.n_entries, "head": r.head, "anchored_to": r.anchored_to,
        "anchors": r.n_anchored, "odd": odd,
        "restores": [{"entry": f"entry/{s.position}", "after": s.after, "at": times.iso(s.at), "actor": s.actor, "made_at": times.iso(s.made_at), "file": s.file} for s in r.restores],
        "lost_heads": len(r.lost),
    }  # fmt: skip
    if r.is_whole:
        lines = [f"{'no' if odd else 'ok':5} {r.n_entries:,} entries, chain whole; last hash {r.head[:16]}"]  # fmt: skip
        if r.anchored_to:
            beyond = r.n_entries - r.anchored_to
            lines.append(
                f"{'ok':5} {r.n_anchored:,} heads kept elsewhere agree, the last at entry/{r.anchored_to}"
                + (f"; {beyond:,} entries since stand on the chain alone" if beyond else "")
            )
        elif not has_anchor:
            lines.append(
                "      A cut end, or all of it written anew, no chain can show: audit: {anchor: [{file: ...}]} keeps heads elsewhere"
            )
    else:
        held = f"{r.n_entries:,} entries before it hold" if r.what != "rewritten" else ""
        facts |= {"first_bad": f"entry/{r.first_bad}", "what": r.what, "why": r.why}
        lines = [f"no    entry/{r.first_bad} {_DONE[r.what]}: {r.why}.{' ' if held else ''}{held}"]
        lines.append("      Nothing of it is repaired. Go back to what is known: gyrostat restore FILE DIR")  # fmt: skip
    for s in r.restores:
        n_lost = sum(s.explains(anchor) for anchor in r.lost)
        lines += [
            f"wait  entry/{s.position}: {s.actor or 'somebody'} restored this {times.local(s.at)} from {s.file}, the backup of {times.local(s.made_at)}",
            f"      What followed entry/{s.after} belongs to the time that was lost, and so do {n_lost} heads that were kept of it.",
            "      Nobody restored anything? Then the record was cut there.",
        ]
    lines += [f"no    {text}" for text in odd]
    return Told(tuple(lines), facts, exit_code=0 if facts["is_whole"] else 1)


_DONE = {
    "changed": "was changed", "dropped": "was dropped", "inserted": "was inserted", "moved": "was moved",
    "rewritten": "or one after it was written anew", "cut": "is missing",
}  # fmt: skip


def anchored(position: int, failed: dict[str, str]) -> Told:
    """`audit anchor`."""
    lines = [f"no    {label}: {why}" for label, why in failed.items()]
    if not failed:
        lines = [f"ok    entry/{position} is kept" if position else "nothing is there to keep yet"]
    return Told(tuple(lines), {"position": position, "failed": failed}, exit_code=3 if failed else 0)  # fmt: skip


def replayed(r: Any) -> Told:
    """`audit replay`."""
    mark = "no" if r.differ else "ok"
    lines = [
        f"{mark:5} {r.n_decisions:,} decisions judged again: the same; of {r.n_evidence:,} the evidence was counted again too"
    ]
    lines += [f"no    {ref}: {what}" for ref, what in r.differ[:20]]
    if len(r.differ) > 20:
        lines.append(f"      and {len(r.differ) - 20:,} more")
    lines += [f"wait  {n:,} not wholly: {why}" for why, n in r.unknown.items()]
    facts = {
        "decisions": r.n_decisions, "evidence": r.n_evidence, "unknown": r.unknown,
        "differ": [{"entry": ref, "what": what} for ref, what in r.differ],
    }  # fmt: skip
    return Told(tuple(lines), facts, exit_code=1 if r.differ else 0)


def collected(
    found: Any, removed: list[Any], kept: list[Any], entry: Any, budget: int, *, is_dry: bool
) -> Told:
    """`gc`: what goes and why, what stays and why, and whether the budget is met."""

    def mb(things: list[Any]) -> str:
        return f"{sum(t.size_bytes for t in things) / 1e6:,.1f} MB"

    def by_reason(things: list[Any]) -> list[tuple[str, str, list[Any]]]:
        grouped: dict[tuple[str, str], list[Any]] = {}
        for t in things:
            grouped.setdefault((t.kind, t.reason), []).append(t)
        return [(kind, reason, those) for (kind, reason), those in grouped.items()]

    verb = "would go" if is_dry else "gone"
    lines = [
        f"{verb:9} {mb(removed)} in {len(removed):,} things" + (f" ({entry.ref})" if entry else "")
    ]
    lines += [
        f"  {k:9} {len(those):>5,}  {mb(those):>12}  {why}" for k, why, those in by_reason(removed)
    ]
    lines.append(f"kept      {mb(kept)} in {len(kept):,} things")
    lines += [
        f"  {k:9} {len(those):>5,}  {mb(those):>12}  {why}" for k, why, those in by_reason(kept)
    ]
    lines.append(
        f"never taken: {', '.join(f'{n} {size / 1e6:,.1f} MB' for n, size in found.other.items() if size >= 50_000)}"
    )
    left = found.size_bytes - sum(t.size_bytes for t in removed)
    is_met = left <= budget
    if not is_met:
        lines.append(
            f"no        {(left - budget) / 1e6:,.1f} MB above storage.budget ({budget / 1e9:g} GB), and `gc` may take no more: "
            "raise it, or shorten monitoring.keep"
        )
    facts = {
        "removed": [{"ref": t.ref, "size_bytes": t.size_bytes, "reason": t.reason} for t in removed],
        "kept": [{"ref": t.ref, "size_bytes": t.size_bytes, "reason": t.reason} for t in kept],
        "other": found.other, "size_bytes": left, "budget_bytes": budget, "is_met": is_met, "is_dry": is_dry,
        "entry": entry.ref if entry else None,
    }  # fmt: skip
    return Told(tuple(lines), facts, 0 if is_met else 1)


def scored(s: Any, entry: Any, output: Any, *, is_strict: bool) -> Told:
    """`predict`: how many rows, by what, how fast, and how many have no answer."""
    body = entry.body
    ref = f"{entry.stream}/{entry.seq}"
    n_new = s.n_rows - s.n_taken_up
    speed = f", {n_new / max(s.seconds, 1e-3):,.0f} rows a second" if n_new else ""
    before = f", {s.n_taken_up:,} of them before" if s.n_taken_up else ""
    lines = [
        f"{output.name}: {s.n_rows:,} rows of {body['input']} answered by version {body['by_version']}{before}, "
        f"{times.span(s.seconds)}{speed} ({ref})"
    ]
    if s.n_failed:
        share = 100 * s.n_failed / s.n_rows
        lines.append(f"no        {s.n_failed:,} rows ({share:.2g} %) have no answer: column error says why")  # fmt: skip
    facts = {
        "ref": ref, "entry": entry.ref, "output": str(output), "rows": s.n_rows, "failed": s.n_failed, "taken_up": s.n_taken_up,
        "version": body["by_version"], "bundle": body["bundle"], "input_digest": s.input_digest, "output_digest": s.output_digest,
        "seconds": s.seconds,
    }  # fmt: skip
    is_refused = s.n_failed == s.n_rows or (is_strict and s.n_failed > 0)
    return Told(tuple(lines), facts, exit_code=1 if is_refused else 0)


def saved(s: Any) -> Told:
    """`backup`."""
    keys = "secret keys encrypted" if s.has_keys else "secret keys left out"
    lines = [
        f"{s.file.name}: {s.size_bytes / 1e6:,.1f} MB, {s.n_files:,} files, {s.n_entries:,} entries up to {s.head[:16]}",
        f"  keys       {keys}; signed by {s.key}: keep that name elsewhere",
    ]
    if s.links:
        lines.append(f"  left out   {len(s.links)} symbolic links: {', '.join(s.links[:3])}")
    lines.append(f"again with: gyrostat restore {s.file.name} DIR --signed-by {s.key}")
    facts = {
        "file": str(s.file), "size_bytes": s.size_bytes, "files": s.n_files, "entries": s.n_entries, "head": s.head,
        "key": s.key, "has_keys": s.has_keys, "links": list(s.links), "held_s": s.held_s,
    }  # fmt: skip
    return Told(tuple(lines), facts)


def restored(r: Any, folder: Any) -> Told:
    """`restore`."""
    lines = [
        f"{r.folder.name}: {r.n_files:,} files and {r.n_entries:,} entries as of {times.local(r.made_at)}, verified; signed by {r.key}",
    ]
    if not r.has_keys:
        lines.append(
            "  keys       new ones were made: personal columns are hashed otherwise from here on"
        )
    lines.append(f"cd {folder} && gyrostat doctor && gyrostat up")
    facts = {
        "folder": str(r.folder), "files": r.n_files, "entries": r.n_entries, "key": r.key, "has_keys": r.has_keys,
        "made_at": times.iso(r.made_at), "epochs": r.epochs,
    }  # fmt: skip
    return Told(tuple(lines), facts)


def doctor(found: list[Any]) -> Told:
    """`doctor`: one line a finding, what to type below what is not ok."""
    marks = {"ok": "ok", "warning": "wait", "fault": "no"}
    lines: list[str] = []
    for f in found:
        lines.append(f"{marks[f.answer]:5} {f.check:12} {f.what}")
        if f.command and f.answer != "ok":
            lines.append(f"{'':18} {f.command}")
    n_faults = sum(f.answer == "fault" for f in found)
    n_warnings = sum(f.answer == "warning" for f in found)
    lines.append(
        f"{n_faults} faults, {n_warnings} warnings." if n_faults or n_warnings else "All is well."
    )
    facts = {
        "findings": [f.as_json() for f in found], "faults": n_faults, "warnings": n_warnings, "is_well": not n_faults,
    }  # fmt: skip
    return Told(tuple(lines), facts, exit_code=1 if n_faults else 0)


def notified(found: list[tuple[Any, str]]) -> Told:
    """`notify test`: one line a receiver."""
    if not found:
        return Told(
            ("Nobody is told. Declare somebody in config/config.yaml: notify: [{url: env:CHAT_WEBHOOK}]",),
            {"receivers": []}, exit_code=1,
        )  # fmt: skip
    lines = [
        f"ok    {r.kind:8} {r.label}" if not why else f"no    {r.kind:8} {r.label}: {why}"
        for r, why in found
    ]
    facts = [{"kind": r.kind, "receiver": r.label, "is_told": not why, "cause": why} for r, why in found]  # fmt: skip
    return Told(
        tuple(lines), {"receivers": facts}, exit_code=3 if any(why for _, why in found) else 0
    )


def chain(links: list[dict[str, Any]]) -> list[str]:
    """`why`: one line a link, the thing itself first."""
    if not links:
        return []
    first, *rest = links
    return [
        f"{first['what']:11} {first['words']}",
        *(f"  {link['what']:9} {link['words']}" for link in rest),
    ]


def harmed(facts: dict[str, Any]) -> list[str]:
    """`changes`: what hurt, and what lies closest before it."""
    seen = facts["harm"]
    if not seen:
        return []
    lines = [f"harm   seen {_local(seen['at'])}: {seen['text']} ({seen['entry']}); it began before"]
    lines += [
        f"  {times.span(c['before_s']):>8} before  {c['area']:11} {c['text']} ({c['entry']})"
        for c in facts["closest"]
    ]
    return lines if facts["closest"] else [*lines, "  nothing changed before it"]
