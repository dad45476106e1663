"""What MLflow is to be shown, folded from entries: pure, and the same however often it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from gyrostat.terms import Entry

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_ENDS: dict[str, Status] = {
    "offered": "FINISHED",
    "gate_failed": "FINISHED",
    "checks_failed": "FINISHED",
    "rejected": "FINISHED",
    "gave_up": "FAILED",
    "cancelled": "KILLED",
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as MLflow should have it."""

    ref: str
    """`run/<model>/<n>`, the tag by which it is found again."""
    model: str
    opened_at: float = 0.0
    ended_at: float | None = None
    status: Status = "RUNNING"
    made_by_script: str = ""
    """Id of the MLflow run that the training script made itself; that one is used."""
    params: tuple[tuple[str, str], ...] = ()
    metrics: tuple[tuple[str, float], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()


def fold_run(entries: Iterable[Entry]) -> RunRecord | None:
    """The record of one run's stream; None before it was opened."""
    found: RunRecord | None = None
    for entry in entries:
        if entry.kind == "opened":
            _, model, _ = entry.stream.split("/")
            found = RunRecord(entry.stream, model, entry.at, tags=(("gyrostat.run", entry.stream),))
        elif found is not None:
            found = _take(found, entry)
    return found


def _take(record: RunRecord, entry: Entry) -> RunRecord:
    seen = entry.body.get("seen") or {}
    match entry.kind:
        case "snapshotted" | "checks_failed":
            record = _tagged(
                record, ("snapshot", seen.get("made")), ("snapshot.fingerprint", seen.get("fingerprint")),
                ("snapshot.rows", seen.get("n_rows")),
            )  # fmt: skip
        case "trained":
            code = seen.get("code") or {}
            record = replace(
                record,
                made_by_script=seen.get("mlflow_run") or "",
                params=tuple((name, str(v)) for name, v in (seen.get("params") or {}).items()),
                metrics=(*record.metrics, *_numbers("", seen.get("metrics"))),
            )
            record = _tagged(
                record, ("code.digest", code.get("digest")), ("code.commit", code.get("commit")),
                ("code.dirty", code.get("dirty") if code.get("commit") else None),
                ("environment.digest", seen.get("env_digest")), ("trained", entry.outputs[0]),
                ("training", seen.get("run")),
            )  # fmt: skip
        case "packed":
            record = _tagged(
                record, ("bundle", entry.outputs[0]), ("flavour", seen.get("flavour")),
                ("flavour.reason", seen.get("reason")),
            )  # fmt: skip
        case "gate_passed" | "gate_failed" | "gate_undecided":
            evidence = seen.get("evidence") or {}
            record = replace(record, metrics=(*record.metrics, *_judged(evidence)))
            record = _tagged(
                record, ("gates", entry.kind.removeprefix("gate_")), ("gates.reason", entry.body.get("cause")),
                ("gates.evidence", entry.outputs[0] if entry.outputs else None),
            )  # fmt: skip
    if entry.kind in _ENDS:
        record = replace(record, status=_ENDS[entry.kind], ended_at=entry.at)
        cause = entry.body.get("cause") if entry.kind != "offered" else None
        record = _tagged(record, ("outcome", entry.kind), ("cause", cause))
    return record


def _tagged(record: RunRecord, *tags: tuple[str, Any]) -> RunRecord:
    new = {f"gyrostat.{name}": str(value) for name, value in tags if value not in (None, "")}
    return replace(record, tags=tuple((dict(record.tags) | new).items()))


def _judged(evidence: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, found in (evidence.get("metrics") or {}).items():
        yield from _numbers(f"gate.{name}", {"": found.get("value"), ".lower": found.get("lower"),
                                             ".upper": found.get("upper")})  # fmt: skip
    champion = evidence.get("champion") or {}
    yield from _numbers(
        "gate.champion.", {k: champion.get(k) for k in ("difference", "lower", "upper")}
    )
    yield from _numbers(
        "gate.", {k: evidence.get(k) for k in ("latency_p99", "size_bytes", "n_heldout")}
    )


def _numbers(prefix: str, values: dict[str, Any] | None) -> Iterator[tuple[str, float]]:
    for name, value in (values or {}).items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield prefix + name, float(value)
