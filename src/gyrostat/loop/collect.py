"""What a project keeps on disk and why, and what nothing needs any more: `gyrostat gc`.

The ledger, its evidence and its records are never collected, so each decision can be explained and judged again. Nothing
that is younger than an hour is touched: it may be about to be said.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gyrostat.data import snapshots
from gyrostat.ledger import times
from gyrostat.loop import reconcile, run
from gyrostat.ports import Ledger
from gyrostat.registry import bundles, versions
from gyrostat.registry.versions import Status, Version
from gyrostat.rollout import production
from gyrostat.terms import Draft, Entry

YOUNG_S = 3600.0
LAST_CHAMPIONS = 3
"""Earlier champions that are kept whatever the budget: a rollback may want them."""
NEVER_SERVED = frozenset({Status.FAILED, Status.REFUSED, Status.EXPIRED, Status.SUPERSEDED})
PAST = frozenset({Status.RETIRED, Status.REGRESSED, Status.ROLLED_BACK})
FOLDERS = {"bundle": "bundles", "snapshot": "tables", "job": "jobs"}
"""Where each kind of thing lies."""
SCRATCH = ("code", "work", "tmp", "bundle", "served", "model.pkl", "model.pkl.part")
"""What a job leaves that its record does not need."""


@dataclass(frozen=True, slots=True)
class Thing:
    """Something on disk."""

    ref: str
    kind: str
    """bundle, snapshot or job."""
    size_bytes: int
    paths: tuple[Path, ...]
    reason: str
    """Why it is kept, or why nothing needs it."""
    is_needed: bool
    is_spare: bool = False
    """Kept as long as the budget allows: an earlier champion, or the rows that only such were trained on."""
    at: float = 0.0


@dataclass
class Survey:
    """What is there."""

    things: list[Thing] = field(default_factory=list)
    other: dict[str, int] = field(default_factory=dict)
    """Bytes by folder of what `gc` never takes: the ledger, logs (their age is `monitoring.keep`), MLflow's store, and
    what belongs to models that are not declared."""

    @property
    def size_bytes(self) -> int:
        """Of all of it."""
        return sum(t.size_bytes for t in self.things) + sum(self.other.values())


def survey(ledger: Ledger, state: Path, models: Iterable[str]) -> Survey:
    """Look at everything; nothing is changed."""
    found = Survey()
    named = _routed(state)
    for model in models:
        open_runs = _open_runs(ledger, model)
        reasons = _reasons(ledger, model, named.get(model, set()), open_runs)
        used = {facts.snapshot: ("of a run that is open", False) for facts in open_runs}
        for digest, manifest in _bundles_of(state, model):
            place = bundles.path(state, digest)
            reason, is_needed, is_spare = reasons.get(
                digest, ("no version of the record: its gates did not pass", False, False)
            )
            if not is_needed and _is_young(place):
                reason, is_needed = "made within the last hour", True
            found.things.append(
                Thing(
                    f"bundle/{model}/{digest[:12]}", "bundle", _size(place), (place,), reason, is_needed,
                    is_spare, place.stat().st_mtime,
                )
            )  # fmt: skip
            if is_needed:
                id = manifest.get("snapshot", "")
                before = used.get(id, ("", True))
                text = before[0] or f"bundle {digest[:12]} was trained on it"
                used[id] = (text, is_spare and before[1])
        found.things += _snapshots(state, model, used)
        found.things += _jobs(ledger, state, model)
    for name in sorted(p.name for p in state.iterdir()):
        there = sum(t.size_bytes for t in found.things if FOLDERS[t.kind] == name)
        found.other[name] = max(0, _size(state / name) - there)
    return found


def _reasons(
    ledger: Ledger, model: str, named: set[str], open_runs: list[run.Facts]
) -> dict[str, tuple[str, bool, bool]]:
    """What is to be said of each bundle that the record or a route names: `(reason, is needed, is spare)`."""
    known = versions.read(ledger, model).all
    found = {v.bundle: _why(v, known) for v in known}
    waiting: production.Facts = reconcile.facts_of(ledger, f"production/{model}")
    found |= {o.bundle: ("offered, and waits for its staging", True, False) for o in waiting.offers}
    found |= {f.bundle: ("of a run that is open", True, False) for f in open_runs if f.bundle}
    return found | dict.fromkeys(named, ("answers now", True, False))


def collect(
    ledger: Ledger,
    state: Path,
    found: Survey,
    *,
    budget_bytes: int,
    actor: str,
    is_dry: bool = False,
) -> tuple[list[Thing], list[Thing], Entry | None]:
    """Remove what nothing needs, and earlier champions too while the budget is exceeded: `(removed, kept, entry)`."""
    removed = [t for t in found.things if not t.is_needed]
    over = found.size_bytes - sum(t.size_bytes for t in removed) - budget_bytes
    spare = [t for t in found.things if t.is_needed and t.is_spare]
    # Rows before champions: a rollback needs the bundle, not what it was trained on.
    for thing in sorted(spare, key=lambda t: (t.kind == "bundle", t.at)):
        if over <= 0:
            break
        removed.append(thing)
        over -= thing.size_bytes
    kept = [t for t in found.things if t not in removed]
    if is_dry or not removed:
        return removed, kept, None
    # Said first: should this be killed, the record names things that are still there, and none is gone unsaid.
    body = {
        "actor": actor, "things": [t.ref for t in removed][:1000], "n": len(removed),
        "size_bytes": sum(t.size_bytes for t in removed),
    }  # fmt: skip
    entry = ledger.append(
        "project", Draft("collected", ledger.now(), actor, body=body, key=f"collected/{time.time_ns()}"),
        expect_seq=None, fence=None,
    )  # fmt: skip
    for thing in removed:
        _remove(state, thing)
    return removed, kept, entry


def _remove(state: Path, thing: Thing) -> None:
    if thing.kind == "snapshot":
        _, model, id = thing.ref.split("/")
        snapshots.drop_rows(state, model, id)
        return
    for path in thing.paths:
        if path.is_dir():
            # Out of its place in one step, so that a kill leaves no half of it there.
            aside = path.with_name(f".gone-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _why(version: Version, known: tuple[Version, ...]) -> tuple[str, bool, bool]:
    """`(reason, is needed, is spare)`."""
    if version.status in NEVER_SERVED:
        return f"version {version.number}: {version.status.value}, it never answered", False, False
    if version.status not in PAST:
        return f"version {version.number}: {version.status.value}", True, False
    champions = [v.number for v in known if v.champion_since is not None][-LAST_CHAMPIONS:]
    when = times.iso(version.champion_since) if version.champion_since else ""
    text = f"version {version.number}: {version.status.value}" + (
        f", champion since {when}" if when else ""
    )
    return text, True, version.number not in champions


def _routed(state: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in [*(state / "routes").glob("*.json"), *(state / "routes").glob("*.applied/*.json")]:
        with contextlib.suppress(OSError, ValueError):
            said: dict[str, Any] = json.loads(path.read_bytes())
            routes = said.get("routes", said)
            for arm in routes.get("arms", ()):
                found.setdefault(routes["model"], set()).add(arm["bundle"])
    return found


def _bundles_of(state: Path, model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for digest in bundles.known(state):
        with contextlib.suppress(OSError, ValueError):
            manifest = json.loads((bundles.path(state, digest) / "manifest.json").read_bytes())
            if manifest.get("model") == model:
                yield digest, manifest


def _open_runs(ledger: Ledger, model: str) -> list[run.Facts]:
    streams = [s for s in ledger.streams() if s.startswith(f"run/{model}/")]
    return [reconcile.facts_of(ledger, stream) for stream in streams]


def _snapshots(state: Path, model: str, used: dict[str, tuple[str, bool]]) -> Iterator[Thing]:
    records = [r for r in snapshots.records(state, model) if r["lance_version"]]
    whole = _size(state / "tables" / f"{model}.lance")
    n_rows = sum(r["n_rows"] for r in records) or 1
    for record in records:
        reason, is_spare = used.get(record["id"], ("", False))
        is_needed = True
        if record is records[-1]:
            reason, is_spare = reason or "the newest", False
        elif not reason and time.time() - record["made_at"] < YOUNG_S:
            reason = "taken within the last hour"
        elif not reason:
            reason, is_needed = "no bundle that is kept was trained on it", False
        # Versions share what is the same in them, so the size of one is an estimate.
        size = whole * record["n_rows"] // n_rows
        yield Thing(
            f"snapshot/{model}/{record['id']}", "snapshot", size, (), reason, is_needed, is_spare, record["made_at"]
        )  # fmt: skip


def _jobs(ledger: Ledger, state: Path, model: str) -> Iterator[Thing]:
    open_streams = set(ledger.streams())
    for folder in sorted((state / "jobs").glob(f"*.{model}*")):
        stream = folder.name.replace(".", "/")
        if stream.split("/")[1] != model:
            continue
        for job in sorted(p for p in folder.iterdir() if p.is_dir()):
            # Of answers that a schedule asked for, all there is to know stands in the record; there may be one each minute.
            is_batch = stream.startswith("batching/")
            scratch = [job] if is_batch else [job / name for name in SCRATCH]
            paths = tuple(path for path in scratch if path.exists())
            if not paths:
                continue
            is_over = (job / "result.json").exists() and not (
                stream.startswith("run/") and stream in open_streams
            )
            is_needed = not is_over or _is_young(job)
            reason = (
                "of work that is not over"
                if not is_over
                else "over; the answers are on record"
                if is_batch
                else "over; its record and its log stay"
            )
            if is_over and is_needed:
                reason = "made within the last hour"
            yield Thing(
                f"job/{stream}/{job.name}", "job", sum(map(_size, paths)), paths, reason, is_needed, at=job.stat().st_mtime
            )  # fmt: skip


def _is_young(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < YOUNG_S


def _size(path: Path) -> int:
    """Bytes of a file or of all below a folder; links are not followed."""
    total = 0
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            if not one.is_symlink() and one.is_file():
                total += one.stat().st_size
    return total
