"""From the one picture to what the overview shows: stations of the ring, the needle, what waits, rows of tables. Pure."""

from __future__ import annotations

from typing import Any

from gyrostat.ledger import times
from gyrostat.ledger.words import number

Picture = dict[str, Any]


def overview(model: str, models: dict[str, Picture], recent: dict[str, Any]) -> dict[str, Any]:
    """The template's context."""
    m = models[model]
    rows = _limits(m)
    needle = _needle(rows)
    return {
        "model": model, "models": list(models), "asks": {name: len(p["needs_you"]) for name, p in models.items()},
        "stations": _stations(m), "needle": needle, "sentence": _sentence(m, rows), "waiting": _waiting(model, m),
        "events": [_event(e) for e in recent["events"]], "limits": rows, "runs": [_run(r) for r in m["runs"]],
    }  # fmt: skip


def _local(text: str | None) -> str:
    return times.local(times.parse(text)) if text else ""


def _stations(m: Picture) -> list[dict[str, str]]:
    run = next((r for r in m["runs"] if r["mark"] == "running"), None)
    last = m["runs"][0] if m["runs"] else None
    drifted = [d for d in m["inputs"]["drift"] if d.get("is_shown")]
    waiting = {a["what"] for a in m["needs_you"]}
    candidate, champion = m["candidate"], m["champion"]
    is_in_traffic = bool(candidate and candidate["state"] in ("shadow", "canary"))

    def station(key: str, title: str, note: str, mark: str, target: str) -> dict[str, str]:
        return {"key": key, "title": title, "note": note, "mark": mark, "target": target}

    step = run["step"] if run else ""
    snapshot = (
        f"snapshot {last['snapshot'][:7]}" if last and last["snapshot"] else "no snapshot yet"
    )
    release = "nothing to release"
    if is_in_traffic:
        part = "shadow" if candidate["state"] == "shadow" else f"{100 * candidate['share']:g} %"
        release = f"version {candidate['version']} at {part}"
    elif candidate:
        release = f"version {candidate['version'] or '?'}: {candidate['state'].replace('_', ' ')}"
    elif m["held"]:
        release = "held"
    return [
        station("data", "Data", snapshot, "now" if step == "snapshot" else "", "runs"),
        station(
            "train",
            "Train",
            f"{run['ref']}: {step}" if run and step in ("training", "packing") else "idle",
            "now" if step in ("training", "packing") else "",
            "runs",
        ),
        station(
            "gates",
            "Gates",
            last["step"] if last else "nothing judged yet",
            "now" if step == "gates" or "undecided" in waiting else "",
            "runs",
        ),
        station(
            "monitor",
            "Monitor",
            f"drift in {len(drifted)} of {len(m['inputs']['drift'])}" if drifted else "watching",
            "warn" if drifted else "",
            "limits",
        ),
        station(
            "serve",
            "Serve",
            f"version {champion['version']}" if champion else "no champion yet",
            "",
            "limits",
        ),
        station(
            "canary",
            "Release",
            release,
            "now" if is_in_traffic or "approval" in waiting else "",
            "decide",
        ),
    ]


def _limits(m: Picture) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    service = m["service"]
    guessed = " (guessed by init)" if m["limits_guessed"] else ""
    if service.get("n"):
        n = f"{service['n']:,} requests in {times.span(service['window_s'])}"
        rate, limit = service["error_rate"], service.get("error_limit")
        rows.append({
            "name": "requests that failed", "value": f"{100 * rate:.2f} %", "interval": "", "n": n, "ratio": rate / limit if limit else 0.0,
            "limit": f"{100 * limit:g} %{guessed}" if limit else "", "beyond": bool(limit and rate > limit),
        })  # fmt: skip
        if service.get("p99") is not None:
            p99, limit = service["p99"], service.get("p99_limit")
            rows.append({
                "name": "latency p99", "value": f"{1000 * p99:.1f} ms", "interval": "", "n": n, "ratio": p99 / limit if limit else 0.0,
                "limit": f"{1000 * limit:g} ms{guessed}" if limit else "", "beyond": bool(limit and p99 > limit),
            })  # fmt: skip
    for metric, q in m["quality"].items():
        if q.get("value") is None:
            continue
        limit = q.get("limit")
        has_bounds = q.get("lower") is not None and q.get("upper") is not None
        rows.append({
            "name": metric, "value": number(q["value"]), "interval": f"{number(q['lower'])} to {number(q['upper'])}" if has_bounds else "",
            "limit": f"{number(limit)}{guessed}" if limit is not None else "", "n": f"{q.get('n', 0):,} labels",
            "beyond": bool(q.get("is_decayed")), "ratio": _ratio(metric, q["value"], limit),
        })  # fmt: skip
    for d in [d for d in m["inputs"]["drift"] if d.get("distance") is not None][:6]:
        rows.append({
            "name": f"shift of {d['column']}", "value": f"{d['distance']:.2f}", "interval": f"at least {d['lower']:.2f}" if d.get("lower") is not None else "",
            "limit": f"{d['limit']:g}", "n": f"{d.get('n', 0):,} predictions", "beyond": bool(d.get("is_shown")),
            "ratio": max(0.0, d.get("lower") or 0.0) / d["limit"] if d["limit"] else 0.0,
        })  # fmt: skip
    return rows


LESS_IS_BETTER = ("rmse", "mae", "log_loss", "brier")


def _ratio(metric: str, value: float, limit: float | None) -> float:
    """1 at the limit, above 1 beyond it."""
    if limit is None or not limit or not value:
        return 0.0
    if metric in LESS_IS_BETTER:
        return value / limit
    return limit / value if value > 0 else 3.0


def _needle(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {"angle": -90, "label": "Nothing has been measured yet."}
    nearest = max(rows, key=lambda r: r["ratio"])
    ratio = nearest["ratio"]
    angle = round(min(ratio, 3.0) * 60 - 90, 1)
    if ratio > 1:
        return {"angle": angle, "label": f"{nearest['name']} is at {ratio:.1f} times its limit."}
    return {
        "angle": angle,
        "label": f"Nearest its limit: {nearest['name']}, at {100 * ratio:.0f} % of it.",
    }


def _sentence(m: Picture, rows: list[dict[str, Any]]) -> str:
    beyond = [r for r in rows if r["beyond"]]
    if m["stuck"]:
        return "A server refuses the routes"
    if not m["champion"]:
        return "No champion yet"
    if m["held"]:
        return "Held: nothing is released"
    if beyond:
        return (
            "One thing is out of balance"
            if len(beyond) == 1
            else f"{len(beyond)} things are out of balance"
        )
    return "Everything is inside its limits" if rows else "Waiting for traffic"


def _waiting(model: str, m: Picture) -> list[dict[str, Any]]:
    found = []
    for ask in m["needs_you"]:
        if ask["what"] == "held":
            continue
        champion, candidate = m["champion"], m["candidate"]
        on_yes = (
            " Yes gives it all traffic: there is no champion beside it."
            if not champion and candidate
            else ""
        )
        answers = [
            {"value": "approved", "label": "Approve"},
            {"value": "rejected", "label": "Reject"},
        ]
        found.append(
            {
                "ref": ask["ref"],
                "text": ask["why"] + "." + on_yes,
                "answers": answers,
                "command": ask["command"],
            }
        )
    return found


def _event(e: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": e["entry"].replace("/", "-"),
        "iso": e["at"],
        "at": _local(e["at"])[:8],
        "mark": e["mark"],
        "text": e["text"],
    }


def _run(r: dict[str, Any]) -> dict[str, Any]:
    by = {"person": r["actor"] or "a person", "first": "the first start"}.get(r["by"], r["by"])
    return {
        "id": r["ref"].replace("/", "-"), "ref": r["ref"], "by": by, "step": r["step"], "done": r["done"], "state": r["mark"],
        "word": r["state"].replace("_", " "), "started": _local(r["opened_at"] or r["since"]),
    }  # fmt: skip
