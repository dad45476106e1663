"""Closed segments as a Lance table, one for each model: `log/<model>/table.lance`, and `table.json` which says what of it counts.

`table.json` names a version of the table and, by writer, the last segment that is in it; renamed into place, it moves both at
once. So rows without it are none, a segment at or below its number is not read any more, and whoever is killed in between
leaves what was: the next one begins from the version that is named. Segments are deleted an hour later, for who still reads.

A *run* is what one compaction wrote: its rows are in the order of time, and `first` and `last` say from when to when.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import chain, islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime import log
from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.log import Frame, Segments

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "table.lance"
AGE_S = 300.0
"""A segment that was written to more recently stays what it is."""
ENOUGH_BYTES, ENOUGH_S = 64_000_000, 3600.0
"""Segments become rows when they are so many together, or when the oldest has waited for so long."""
GRACE_S = 3600.0
"""Who began to read before may read on for so long: segments, and versions that are not named any more, stay."""
_BATCH = 4096
_JSON = ("inputs", "outputs", "scores", "new", "missing")


@dataclass
class Run:
    """The rows of one compaction."""

    fragments: list[int]
    first: float
    last: float
    rows: int


@dataclass
class State:
    """What counts of the table."""

    version: int = 0
    segments: dict[str, int] = field(default_factory=dict)
    """By writer, the last segment whose predictions are in the table."""
    runs: list[Run] = field(default_factory=list)
    taken: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """What `segments` was from when on; as far back as segments are there still."""

    @classmethod
    def read(cls, folder: Path) -> State:
        """What `table.json` says; nothing where there is none yet."""
        try:
            said = json.loads((folder / "table.json").read_bytes())
        except FileNotFoundError:
            return cls()
        return cls(said["version"], said["segments"], [Run(**run) for run in said["runs"]], [(at, upto) for at, upto in said["taken"]])  # fmt: skip

    def write(self, folder: Path) -> None:
        """Make it count."""
        write_atomic(folder / "table.json", json.dumps(asdict(self)).encode())

    def frames(self, folder: Path, since: float | None, until: float | None) -> Iterator[Frame]:
        """Rows as predictions, in the order of time. A run is opened when its time has come."""
        waiting = sorted(
            (r for r in self.runs if (since is None or r.last >= since) and (until is None or r.first < until)),
            key=lambda r: -r.first,
        )  # fmt: skip
        if not waiting:
            return
        table = _table(folder, self.version)
        wanted = [f"at >= {since!r}"] if since is not None else []
        wanted += [f"at < {until!r}"] if until is not None else []
        open_: list[tuple[float, int, Frame, Iterator[Frame]]] = []
        n = 0
        while waiting or open_:
            if waiting and (not open_ or waiting[-1].first <= open_[0][0]):
                n += 1
                _push(open_, n, _scan(table, waiting.pop(), " AND ".join(wanted)))
                continue
            _, place, frame, rest = heapq.heappop(open_)
            yield frame
            _push(open_, place, rest)

    def find(self, folder: Path, id: str) -> list[Frame]:
        """All frames of one prediction.

        Raises:
            ValueError: `id` is no prediction id.
        """
        bare, given_at = id.partition(".")[0], log.time_of(id)
        later = [run for run in self.runs if run.last >= given_at - 1]
        if not later:
            return []
        table, name = _table(folder, self.version), bare.replace("'", "''")
        return [frame for run in later for frame in _scan(table, run, f"id = '{name}'")]


def _push(
    open_: list[tuple[float, int, Frame, Iterator[Frame]]], place: int, rest: Iterator[Frame]
) -> None:
    if (frame := next(rest, None)) is not None:
        heapq.heappush(open_, (frame.at, place, frame, rest))


def _table(folder: Path, version: int) -> Any:
    import lance

    return lance.dataset(str(folder / TABLE), version=version)


def _scan(table: Any, run: Run, wanted: str) -> Iterator[Frame]:
    known = {fragment.fragment_id: fragment for fragment in table.get_fragments()}
    fragments = [known[n] for n in run.fragments if n in known]
    if not fragments:  # which Lance would take for all there are
        return
    scanner = table.scanner(
        fragments=fragments, filter=wanted or None, scan_in_order=True, batch_size=_BATCH
    )
    for batch in scanner.to_batches():
        yield from map(_frame, batch.to_pylist())


def _frame(row: dict[str, Any]) -> Frame:
    return Frame(**row | {name: json.loads(row[name]) for name in _JSON})


def _row(frame: Frame) -> dict[str, Any]:
    values = {name: getattr(frame, name) for name in Frame.__slots__}
    return values | {name: json.dumps(values[name]) for name in _JSON}


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = {name: pa.string() for name in ("id", "bundle", "arm", "key", "error", *_JSON)}
    numbers = {name: pa.int64() for name in ("routes_seq", "status", "n")}
    kinds = {"at": pa.float64(), "latency_s": pa.float64(), "is_asked": pa.bool_(), **texts, **numbers}  # fmt: skip
    return pa.schema([(name, kinds[name]) for name in Frame.__slots__])


def _chosen(
    folder: Path, kept: State, passed: Mapping[str, int], now: float
) -> tuple[Segments, int, float]:
    """Segments to take, each writer's in order without a gap; their bytes, and when the oldest was written last."""
    found: Segments = {}
    n_bytes, oldest = 0, now
    for writer, mine in log.segments(folder).items():
        for n, path in mine[:-1]:  # the newest tells its writer how to go on
            if n <= kept.segments.get(writer, 0):
                continue
            info = path.stat()
            if n > passed.get(writer, 0) or info.st_mtime > now - AGE_S:
                break
            found.setdefault(writer, []).append((n, path))
            n_bytes, oldest = n_bytes + info.st_size, min(oldest, info.st_mtime)
    return found, n_bytes, oldest


def is_due(
    state: Path, model: str, passed: Mapping[str, int], now: float, *, before: float = 0.0
) -> bool:
    """Whether there is something for `compact`, or for `prune`: cheap, without the table."""
    folder = state / "log" / model
    kept = State.read(folder)
    found, n_bytes, oldest = _chosen(folder, kept, passed, now)
    is_enough = n_bytes >= ENOUGH_BYTES or now - oldest >= ENOUGH_S
    is_old = any(run.last < before for run in kept.runs)
    return is_old or (bool(found) and is_enough) or bool(_done(folder, kept, now))


def compact(state: Path, model: str, passed: Mapping[str, int], now: float) -> int:
    """Turn closed segments into rows of the table, and delete those that were turned an hour ago; how many were turned.

    Ended at any moment it is called again: nothing is lost, nothing is there twice.

    Args:
        passed: By writer, the last segment that the monitor has read to its end, and never reads again.

    Raises:
        BlockingIOError: another process does it now.
        OSError: the disk does not take it.
    """
    folder = state / "log" / model
    with _alone(folder):
        kept = State.read(folder)
        for path in _done(folder, kept, now):
            path.unlink(missing_ok=True)
        found, _, _ = _chosen(folder, kept, passed, now)
        if not found:
            return 0
        run, version = _append(folder, kept, log.read_segments(found))
        last = {writer: mine[-1][0] for writer, mine in found.items()}
        runs = [*kept.runs, run] if run.rows else kept.runs
        segments = kept.segments | last
        taken = [(at, upto) for at, upto in kept.taken if at > now - GRACE_S]
        State(version, segments, runs, [*taken, (now, segments)]).write(folder)
        return sum(map(len, found.values()))


def prune(state: Path, model: str, before: float) -> int:
    """Drop rows from before a time once a whole run is that old; how many runs. Errors as of `compact`."""
    folder = state / "log" / model
    if not any(run.last < before for run in State.read(folder).runs):
        return 0
    with _alone(folder):
        kept = State.read(folder)
        n_old = sum(run.last < before for run in kept.runs)
        table = _at(folder, kept.version)
        table.delete(f"at < {before!r}")
        runs = [run for run in kept.runs if run.last >= before]
        State(table.version, kept.segments, runs, kept.taken).write(folder)
        table.cleanup_old_versions(older_than=timedelta(seconds=GRACE_S))
        return n_old


def _done(folder: Path, kept: State, now: float) -> list[Path]:
    """Segments that have stood in the table for so long that nobody reads them any more."""
    past = [upto for at, upto in kept.taken if at <= now - GRACE_S]
    if not past:
        return []
    return [path for writer, mine in log.segments(folder).items() for n, path in mine[:-1] if n <= past[-1].get(writer, 0)]  # fmt: skip


def _append(folder: Path, kept: State, frames: Iterator[Frame]) -> tuple[Run, int]:
    """Write rows in the order of time; the run that they are, and the version that has them."""
    import lance
    import pyarrow as pa

    run, schema = Run([], inf, -inf, 0), _schema()

    def batch(chunk: list[Frame]) -> pa.RecordBatch:
        # Not the first and the last: a new process of a writer's name may have begun with a clock that was set back.
        times = [frame.at for frame in chunk]
        run.first, run.last = min(run.first, *times), max(run.last, *times)
        run.rows += len(chunk)
        return pa.RecordBatch.from_pylist([_row(frame) for frame in chunk], schema=schema)

    head = list(islice(frames, _BATCH))
    if not head:
        return run, kept.version
    chunks = chain([head], iter(lambda: list(islice(frames, _BATCH)), []))
    rows = pa.RecordBatchReader.from_batches(schema, map(batch, chunks))
    before = {f.fragment_id for f in _at(folder, kept.version).get_fragments()} if kept.version else set[int]()  # fmt: skip
    # Without a version that counts, whatever stands there was left by somebody who was killed.
    mode = "append" if kept.version else "overwrite" if (folder / TABLE).exists() else "create"
    table = lance.write_dataset(rows, str(folder / TABLE), mode=mode)
    run.fragments = [f.fragment_id for f in table.get_fragments() if f.fragment_id not in before]
    return run, table.version


def _at(folder: Path, version: int) -> Any:
    """The table as of the version that counts, to be written on: what somebody who was killed left behind it is undone."""
    import lance

    table = lance.dataset(str(folder / TABLE))
    if table.version != version:
        _table(folder, version).restore()
        table = lance.dataset(str(folder / TABLE))
    return table


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process writes the table meanwhile."""
    file = os.open(folder / "table.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)
