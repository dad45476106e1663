"""Every row of a table gets its answer or the reason why there is none: read, asked and written in pieces, by all cores."""

from __future__ import annotations

import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime import keys
from gyrostat_runtime.errors import BundleFault, ModelFault
from gyrostat_runtime.files import sha256_file, sync_folder
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.schema import Schema
from gyrostat_runtime.session import Session

from gyrostat.batch import output, parts
from gyrostat.data.matrix import MatrixReader
from gyrostat.data.settings import DataSettings
from gyrostat.data.streams import FrameStream, RawPiece, Stream, open_stream
from gyrostat.errors import BundleError, DataError, JobError, UsageError
from gyrostat.registry import bundles

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

PARTS = 1
"""Raised when what stands in parts, or where a table is cut, changes: then nothing is taken up from before."""
CALL_ROWS = 8192
"""Of one call: what a tree has touched is still near when the next row comes, and a native model answers in time."""
CALL_TIMEOUT_S = 120.0
MOST_MODEL_FAULTS = 1000
"""Rows a model may fail at before the batch ends: each costs some calls to be found."""
SAY_EVERY_S = 5.0
OWN = ("row", "prediction", "version", "error")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be answered, by what, into which file."""

    state: Path
    model: str
    version: int
    bundle: str
    data: DataSettings
    input: Path | None
    """None: `frame` is the input."""
    output: Path
    frame: pl.DataFrame | None = None
    fingerprint: str = ""
    """Of `frame`."""
    keep: tuple[str, ...] = ()
    """Columns of the input that stand beside each answer, besides the declared keys."""
    missing: str = "as_trained"
    new_category: str = "answer"


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of it."""

    id: str
    n_rows: int
    n_failed: int
    n_taken_up: int
    """Rows that an earlier run had answered."""
    input_digest: str
    output_digest: str
    began_at: float
    seconds: float
    """Of this run."""


def score(batch: Batch, *, record: Callable[[Scored], None], say: Say) -> Scored:
    """Answer all rows; the output appears whole or not at all.

    Args:
        record: told before the output appears, by the same `id` however often a kill makes it told again.

    Raises:
        UsageError, DataError: the input or the output cannot be; nothing was done, unless the error says how far it came.
        BundleError: the version cannot be loaded.
        JobError: the model, or the disk, failed on the way; the same call goes on from there.
    """
    output.check_name(batch.output)
    if batch.input is not None and batch.output.exists() and batch.output.samefile(batch.input):
        raise UsageError("--output is --input itself. Nothing was done.")
    began = time.monotonic()
    with _Models(batch) as models:
        reader = MatrixReader(models.schema, batch.data, batch.missing, batch.new_category)
        stream, carried = _opened(batch, reader)
        before = _stamp(batch.input)
        digest = batch.fingerprint or sha256_file(_sure(batch.input))
        folder = parts.Parts(batch.output)
        plan = {
            "input": digest, "version": f"{batch.version} {batch.bundle}", "choice of columns": list(carried), "release": PARTS,
            "way of reading": repr((batch.data.source, batch.data.columns, batch.missing, batch.new_category)),
        }  # fmt: skip
        try:
            with folder.held(plan, time.time()) as changed:
                if changed:
                    say(f"Begins anew: what was answered in part before was of another {changed}.")
                work = _Work(folder, stream, reader, models, carried, batch.version, say)
                n_parts, n_rows, n_failed = work.run()
                if _stamp(batch.input) != before:
                    raise DataError(
                        f"{_sure(batch.input).name} changed while it was read. Wait until it is written, then try again; there is no output."
                    )
                finished = folder.folder / "output"
                output.write(
                    finished, _numbered(folder, n_parts), as_csv=batch.output.suffix.lower() == ".csv"
                )  # fmt: skip
                parts.sync(finished)
                scored = Scored(
                    folder.id, n_rows, n_failed, work.n_taken_up, digest, sha256_file(finished), folder.began_at,
                    time.monotonic() - began,
                )  # fmt: skip
                record(scored)
                finished.replace(batch.output)
                sync_folder(batch.output.parent)
                folder.remove()
                return scored
        except KeyboardInterrupt:
            say(f"Stopped. What was answered is kept in {folder.folder.name}/: the same command goes on from there.")  # fmt: skip
            raise
        except OSError as error:
            raise JobError(
                f"{batch.output.name} could not be written: {os.strerror(error.errno) if error.errno else error}. What was answered is kept beside it, in "
                f"{folder.folder.name}/. Make room, then run the same command: it goes on from there.",
                cause=f"errno {error.errno}",
            ) from error


def _sure(path: Path | None) -> Path:
    assert path is not None
    return path


def _stamp(path: Path | None) -> tuple[int, ...]:
    if path is None:
        return ()
    info = path.stat()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _opened(batch: Batch, reader: MatrixReader) -> tuple[Stream, tuple[str, ...]]:
    """The input, and which of its columns stand beside the answers."""
    declared = (batch.data.keys.entity, batch.data.keys.event_at)
    beside = tuple(dict.fromkeys([*(name for name in declared if name), *batch.keep]))
    wanted = frozenset((*reader.needed, *beside))
    stream = (
        FrameStream(batch.frame)
        if batch.frame is not None
        else open_stream(_sure(batch.input), wanted, batch.data.source)
    )
    has = frozenset(stream.columns)
    name = batch.input.name if batch.input is not None else "the snapshot"
    for lacking, what in (
        ([c for c in reader.needed if c not in has], "which the model needs"),
        ([c for c in batch.keep if c not in has], "which --keep names"),
    ):
        if lacking:
            listed = ", ".join(map(repr, lacking[:10])) + (", ..." if len(lacking) > 10 else "")
            there = ", ".join(map(repr, stream.columns[:10])) + (", ..." if len(stream.columns) > 10 else "")  # fmt: skip
            raise DataError(
                f"{name} lacks {len(lacking)} of its columns, {what}: {listed}. It has {there}. Is it written as data.source declares "
                "(separator, encoding, lines above the header)? Nothing was done.",
                columns=lacking,
            )
    return stream, tuple(c for c in beside if c in has)


# ---- the models ----------------------------------------------------------------------------------


class _Models:
    """One session for each core where a call holds its model, else one for all."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # fmt: skip
        self._free: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._stack = ExitStack()
        self.schema: Schema

    def __enter__(self) -> _Models:
        with ExitStack() as stack:
            first = self._open(stack)
            self.schema = first.schema
            is_shared = first.manifest.flavour == "onnx"
            for n in range(self.n):
                self._free.put(first if is_shared or not n else self._open(stack))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> Session:
        state, digest = self._batch.state, self._batch.bundle
        ring = keys.keyring(state / "keys")
        bundles.verify(state, digest, ring)
        try:
            session = Session.open(bundles.path(state, digest), ring, timeout_s=CALL_TIMEOUT_S)
        except BundleFault as fault:
            raise BundleError(
                f"Version {self._batch.version} of {self._batch.model}: {fault.message}. Nothing was done.", fault=fault.code
            ) from fault  # fmt: skip
        stack.callback(session.close)
        return session

    @contextmanager
    def one(self) -> Iterator[Session]:
        """A session that nobody else asks meanwhile, unless it bears that."""
        session = self._free.get()
        try:
            yield session
        finally:
            self._free.put(session)


# ---- the work ------------------------------------------------------------------------------------


class _Work:
    """All pieces of one table: some are read ahead, each core answers one."""

    def __init__(
        self, folder: parts.Parts, stream: Stream, reader: MatrixReader, models: _Models, carried: tuple[str, ...],
        version: int, say: Say,
    ) -> None:  # fmt: skip
        self._folder, self._stream, self._reader, self._models = folder, stream, reader, models
        self._carried, self._version = carried, version
        self._progress = _Progress(stream, say)
        self._n_model_faults = 0
        self.n_taken_up = 0

    def run(self) -> tuple[int, int, int]:
        """`(parts, rows, rows without an answer)`."""
        waiting: deque[Future[parts.Part]] = deque()
        n_parts = n_rows = n_failed = 0

        def settle(at_most: int) -> None:
            nonlocal n_rows, n_failed
            while len(waiting) > at_most:
                part = waiting.popleft().result()
                n_rows += part.n_rows
                n_failed += part.n_failed
                self._progress.add(part.n_rows)

        pool = ThreadPoolExecutor(self._models.n, thread_name_prefix="batch")
        try:
            for n_parts, piece in enumerate(self._stream.pieces(), 1):
                if (known := self._folder.known(n_parts - 1)) is not None:
                    n_rows += known.n_rows
                    n_failed += known.n_failed
                    self.n_taken_up += known.n_rows
                    self._progress.known(known.n_rows)
                    continue
                waiting.append(pool.submit(self._answer, n_parts - 1, piece))
                settle(self._models.n + 1)
            settle(0)
        finally:
            pool.shutdown(cancel_futures=True)
        if not n_rows:
            raise DataError("The input has no rows. There is no output.")
        return n_parts, n_rows, n_failed

    def _answer(self, n: int, raw: RawPiece) -> parts.Part:
        """In any thread."""
        import polars as pl
        import pyarrow as pa

        piece = raw.parse()
        frame = piece.frame
        lacking = [c for c in (*self._reader.needed, *self._carried) if c not in frame.columns]
        if lacking:  # of JSON lines, a piece may be without a key
            frame = frame.with_columns(pl.lit(None, pl.String).alias(c) for c in lacking)
        matrix = self._reader.read(frame, piece.faults)
        with self._models.one() as session:
            answers = self._asked(session, matrix.rows)
        faults = matrix.faults
        if answers.faults:
            places = range(frame.height) if matrix.places is None else matrix.places.tolist()
            faults = faults | {places[row]: why for row, why in answers.faults.items()}
        table = _table(session.schema, answers, matrix.places, frame.height)
        table |= {
            "version": pa.repeat(pa.scalar(self._version, pa.int32()), frame.height),
            "error": pa.array([faults.get(i) for i in range(frame.height)], pa.string())
            if faults
            else pa.nulls(frame.height, pa.string()),
        }
        carried = {beside(c): frame[c].to_arrow(compat_level=pl.CompatLevel.oldest()) for c in self._carried}  # fmt: skip
        return self._folder.write(n, pa.table(carried | table), len(faults))

    def _asked(self, session: Session, rows: Rows) -> _Answers:
        found = _Answers([], [], {})
        for start in range(0, rows.n, CALL_ROWS):
            self._ask(session, _slice(rows, start, start + CALL_ROWS), start, found)
        return found

    def _ask(self, session: Session, rows: Rows, start: int, found: _Answers) -> None:
        """Ask for all; of what the model fails at, for each half, down to the row."""
        try:
            made = session.predict(rows)
        except ModelFault as fault:
            if fault.code not in ("model.failed", "model.not_finite"):
                raise self._model_failed(fault) from fault
            if rows.n > 1:
                half = rows.n // 2
                self._ask(session, _slice(rows, 0, half), start, found)
                self._ask(session, _slice(rows, half, rows.n), start + half, found)
                return
            self._n_model_faults += 1
            if self._n_model_faults > MOST_MODEL_FAULTS:
                raise self._model_failed(fault) from fault
            found.faults[start] = fault.message
            found.values.append(None)
            found.scores.append(None)
        else:
            found.values += made.values
            found.scores.append(made.scores)

    def _model_failed(self, fault: ModelFault) -> JobError:
        return JobError(
            f"Version {self._version} could not go on: {fault.message}. What was answered is kept; the same command goes on from there.",
            cause=fault.code,
        )


@dataclass(slots=True)
class _Answers:
    values: list[Any]
    scores: list[Any]
    """Arrays of one call each; None for a row that the model failed at."""
    faults: dict[int, str]


def _slice(rows: Rows, start: int, end: int) -> Rows:
    num = None if rows.num is None else rows.num[start:end]
    cat = None if rows.cat is None else rows.cat[start:end]
    return Rows(min(end, rows.n) - start, [], num, cat, {}, {})


def _table(schema: Schema, answers: _Answers, places: Any, n: int) -> dict[str, pa.Array]:
    """Predictions and, of classes, the probability of each, at the places of their rows; null elsewhere."""
    import numpy as np
    import pyarrow as pa

    of = schema.output
    kinds = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    kind = pa.float64() if of.task == "regression" else kinds.get(of.class_kind, pa.string())
    values = answers.values
    if places is not None:
        spread: list[Any] = [None] * n
        for place, value in zip(places.tolist(), values, strict=True):
            spread[place] = value
        values = spread
    table = {"prediction": pa.array(values, kind)}
    if of.classes:
        width = len(of.classes)
        blocks = [np.full((1, width), np.nan) if s is None else s for s in answers.scores]
        scores = np.full((n, width), np.nan)
        at = slice(None) if places is None else places
        scores[at] = np.concatenate(blocks) if blocks else np.empty((0, width))
        for j, name in enumerate(of.classes):
            table[f"probability_{name}"] = pa.array(scores[:, j], from_pandas=True)
    return table


def beside(name: str) -> str:
    """A column of the input, under a name that is none of ours."""
    return f"{name} (input)" if name in OWN or name.startswith("probability_") else name


def _numbered(folder: parts.Parts, n_parts: int) -> Iterator[pa.Table]:
    """Each part with the numbers of its rows in the whole table, from 1."""
    import numpy as np
    import pyarrow as pa

    first = 1
    for n in range(n_parts):
        table = folder.read(n).replace_schema_metadata(None)
        numbers = pa.array(np.arange(first, first + table.num_rows))
        first += table.num_rows
        yield table.add_column(0, "row", numbers)


class _Progress:
    def __init__(self, stream: Stream, say: Say) -> None:
        self._stream, self._say = stream, say
        self._began = self._said = time.monotonic()
        self._n = self._n_before = 0

    def known(self, n: int) -> None:
        """Rows that were answered before."""
        self._n_before += n

    def add(self, n: int) -> None:
        self._n += n
        now = time.monotonic()
        if now - self._said < SAY_EVERY_S:
            return
        self._said = now
        a_second = self._n / (now - self._began)
        total = f" of {self._stream.n_rows:,}" if self._stream.n_rows else ""
        self._say(f"{self._n + self._n_before:,}{total} rows ({100 * self._stream.done:.0f} % read), {a_second:,.0f} rows a second")  # fmt: skip
