"""Judges every recorded decision again from what was recorded with it: the same verdict, or the first difference is named.

Two things are judged again. Each step, by its life's own `decide`, from the facts before it and from what its body says was
seen, by the declaration it names and at the time it says. And what a rollout's step saw of traffic, counted again from the
observations that it names by digest; what gates saw, from the result of the job that measured it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gyrostat import config
from gyrostat.errors import DamagedError, GyrostatError
from gyrostat.ledger.entries import current
from gyrostat.ledger.life import NEWEST, Say
from gyrostat.loop import run
from gyrostat.loop.reconcile import LIVES, finite, life_of
from gyrostat.observations import Place, start_of
from gyrostat.observations import read as read_observations
from gyrostat.observations import verify as verify_observations
from gyrostat.ports import Ledger
from gyrostat.rollout import production
from gyrostat.rollout.evidence import Evidence
from gyrostat.terms import Entry


@dataclass
class Report:
    """What came of it."""

    n_decisions: int = 0
    """Judged again, with the same verdict."""
    n_evidence: int = 0
    """Of them such whose evidence was counted again as well, with the same numbers."""
    differ: list[tuple[str, str]] = field(default_factory=list)
    """`(entry, what differs)`."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Why others could not be judged again, and how many."""

    def miss(self, why: str) -> None:
        """One that cannot be judged again."""
        self.unknown[why] = self.unknown.get(why, 0) + 1


class _Declarations:
    """By digest, each checked against it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._kept: dict[str, config.Declaration | str] = {}

    def model(self, digest: str, name: str) -> config.ModelSettings | str:
        """The settings, or why not."""
        if digest not in self._kept:
            self._kept[digest] = self._read(digest)
        found = self._kept[digest]
        if isinstance(found, str):
            return found
        return found.models.get(name) or "its model is not in the declaration it names"

    def _read(self, digest: str) -> config.Declaration | str:
        try:
            values = config.stored_values(self.state, digest)
            if config.digest_of(values) != digest:
                return "the declaration it names was altered"
            return config.from_values(values)
        except OSError:
            return "the declaration it names is not there"
        except (GyrostatError, ValueError):
            return "the declaration it names cannot be read by this release"


def replay(ledger: Ledger, state: Path, *, model: str = "") -> Report:
    """Judge everything again, in the order in which it was written; memory grows with open streams alone.

    Args:
        model: Only this one's.
    """
    report, declarations, traffic = Report(), _Declarations(state), _Traffic(state)
    for folder in sorted((state / "observations").glob("*/")):
        if not model or folder.name == model:
            n, odd = verify_observations(folder)
            if odd is not None:
                what = f"line {odd.line} of segment {odd.segment} is not what was written; {n:,} before it hold"
                report.differ.append((f"observations/{folder.name}", what))
    facts: dict[str, Any] = {}
    broken: set[str] = set()
    for raw in ledger.entries():
        kind, _, rest = raw.stream.partition("/")
        if kind not in LIVES or raw.stream in broken or (model and rest.split("/")[0] != model):
            continue
        life = life_of(raw.stream)
        before = facts.get(raw.stream) or life.Facts(raw.stream)
        try:
            entry = current(raw)
            if entry.kind not in life.EVENTS:
                _judge(report, declarations, traffic, before, entry)
            after = life.fold(before, entry)
        except Exception as error:  # noqa: BLE001 - whatever a planted entry does: it is named, the others go on
            report.differ.append((raw.ref, f"cannot be read on: {error}"))
            broken.add(raw.stream)
            continue
        if after.state in life.LAST:
            facts.pop(raw.stream, None)
        else:
            facts[raw.stream] = after
    return report


def _judge(report: Report, declarations: _Declarations, traffic: _Traffic, before: Any, entry: Entry) -> None:  # fmt: skip
    body = entry.body
    if body["release"] != NEWEST:
        report.miss(f"judged by the rules of release {body['release']}")
        return
    settings = declarations.model(body["declaration"], before.model)
    if isinstance(settings, str):
        report.miss(settings)
        return
    kind = entry.stream.partition("/")[0]
    terms = {
        "retraining": settings.retraining, "run": run.RunTerms(settings.gates), "production": settings.rollout,
        "batching": settings.batches,
    }[kind]  # fmt: skip
    action = life_of(entry.stream).decide(before, body["seen"], terms, body["now"])
    if difference := _difference(action, entry):
        report.differ.append((entry.ref, difference))
        return
    report.n_decisions += 1
    if kind == "production" and body["seen"].get("traffic"):
        again = traffic.seen(before, settings, body["seen"]["traffic"])
        _compare(report, entry, "traffic", again, body["seen"]["traffic"])
    elif kind == "production" and "evidence" in body["seen"]:
        again = _measured(traffic.state, before, entry, "replay")
        _compare(report, entry, "replay evidence", again, body["seen"]["evidence"])
    elif kind == "run" and "evidence" in body["seen"]:
        again = _measured(traffic.state, before, entry, "evaluation")
        _compare(report, entry, "gate evidence", again, body["seen"]["evidence"])


def _difference(action: Any, entry: Entry) -> str:
    if not isinstance(action, Say):
        return f"recorded {entry.kind}; judged again: {type(action).__name__}, no step"
    found = {
        "kind": action.kind, "inputs": list(action.inputs), "outputs": list(action.outputs), "cause": action.cause,
        "detail": _json(dict(action.detail or {})),
    }  # fmt: skip
    recorded = {
        "kind": entry.kind, "inputs": list(entry.inputs), "outputs": list(entry.outputs), "cause": entry.body["cause"],
        "detail": entry.body.get("detail", {}),
    }  # fmt: skip
    for name, value in recorded.items():
        if found[name] != value:
            return f"{name}: recorded {value!r:.120}; judged again {found[name]!r:.120}"
    return ""


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _compare(report: Report, entry: Entry, what: str, again: Any, recorded: Any) -> None:
    if isinstance(again, str):
        report.miss(again)
    elif _json(finite(again)) != recorded:
        report.differ.append((entry.ref, f"{what}: counted again it is not what was seen"))
    else:
        report.n_evidence += 1


class _Traffic:
    """Counts a rollout's traffic again, from step to step: each line is read once."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._of: dict[str, tuple[list[Any], Evidence, Place]] = {}

    def seen(self, f: production.Facts, settings: config.ModelSettings, seen: dict[str, Any]) -> dict[str, Any] | str:  # fmt: skip
        """What the observations up to the place that was named say, or why not."""
        end = _end(seen.get("evidence", ""))
        if end is None:
            return "its evidence names no observations"
        folder = self.state / "observations" / f.model
        evidence = Evidence.of_rollout(
            settings.rollout, settings.gates, production.routes(f), f.rollout_seq
        )
        question, last = [*evidence.pair, f.declaration], start_of(folder, f.rollout_seq)
        known = self._of.get(f.model)
        if known and known[0] == question and _order(known[2]) <= _order(end):
            _, evidence, last = known

        def lines() -> Iterator[dict[str, Any]]:
            nonlocal last
            for line, place in read_observations(folder, last):
                if _order(place) > _order(end):
                    return
                last = place
                yield line

        try:
            evidence.fold(lines())
        except DamagedError:
            return {"observations": "damaged"}
        self._of[f.model] = question, evidence, last
        if _order(last) != _order(end):
            return "its observations are no longer kept"
        if last.chain != end.chain:
            return {"observations": "another digest"}
        share = production.share(f)
        return evidence.traffic(seen["routes_seq"], share=share or 0.5, evidence=seen["evidence"]) or {}  # fmt: skip


def _order(place: Place) -> tuple[int, int]:
    return place.segment, place.offset


def _end(text: str) -> Place | None:
    try:
        chain, span = text.split(":")
        segment, offset = span.split("-")[1].split(".")
        return Place(int(segment), int(offset), chain)
    except (ValueError, IndexError):
        return None


def _measured(state: Path, before: Any, entry: Entry, what: str) -> dict[str, Any] | str:
    """What the job that measured it left."""
    folder = state / "jobs" / entry.stream.replace("/", ".") / f"{before.mark}-{what}"
    try:
        result = json.loads((folder / "result.json").read_bytes())
        return result["evidence"]
    except (OSError, ValueError, KeyError):
        return "the job that measured it is no longer kept"
