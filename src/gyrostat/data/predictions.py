"""The prediction log as a table: what was asked, what was answered by whom, and what turned out to be true."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gyrostat_runtime import log
from gyrostat_runtime.schema import Schema

from gyrostat import predictionlog
from gyrostat.data import frames, traffic

if TYPE_CHECKING:
    import polars


class Predictions(NamedTuple):
    """The newest predictions of a span of time, and how many there were."""

    frame: polars.DataFrame
    n_all: int


def read(
    state: Path,
    model: str,
    *,
    since: float,
    until: float | None = None,
    limit: int,
    versions: Mapping[str, int],
) -> Predictions:
    """Rows of the prediction log, oldest first, each with its latest label.

    Both logs are read as a stream: what is held in memory grows with `limit`, not with the log.

    Args:
        limit: of more rows than this the newest are kept.
        versions: the number of each bundle; null where a bundle has none.

    Returns:
        Columns `id, time, version, arm, asked, key, status, inputs, prediction, label`. `inputs` is a struct, because a column
        of a table may be called `id`; `frame.unnest("inputs")` spreads it. Personal columns and keys are the hashes that were
        logged. `asked`: the client chose the arm.
        `prediction` is null where the arm answered an error, `label` where none has come.
    """
    kept: deque[tuple[log.Frame, int]] = deque(maxlen=limit)
    n_all = 0
    for frame in predictionlog.read(state, model, since=since, until=until):
        n_all += frame.n
        kept.extend((frame, n) for n in range(frame.n))
    rows = list(kept)
    names = {_row(frame, n) for frame, n in rows}
    labels, _ = traffic.latest_labels(state, model, only=names)
    return Predictions(_table(rows, labels, _schemas(state, rows), versions), n_all)


def _row(frame: log.Frame, n: int) -> str:
    return f"{frame.id}.{n}"


def _schemas(state: Path, rows: list[tuple[log.Frame, int]]) -> dict[str, Schema]:
    """By bundle, the newest to answer first; without the bundles that are gone."""
    bundles = dict.fromkeys(frame.bundle for frame, _ in reversed(rows))
    found = {bundle: traffic.logged_schema(state, bundle) for bundle in bundles}
    return {bundle: schema for bundle, schema in found.items() if schema is not None}


def _table(
    rows: list[tuple[log.Frame, int]],
    labels: dict[str, log.Label],
    schemas: dict[str, Schema],
    versions: Mapping[str, int],
) -> polars.DataFrame:
    import polars as pl

    is_number = all(s.output.task == "regression" for s in schemas.values())
    answer = pl.Float64 if is_number and schemas else pl.String
    times = pl.Series([round(f.at * 1e6) for f, _ in rows], dtype=pl.Int64)
    return pl.DataFrame(
        [
            pl.Series("id", [f.id if f.n == 1 else _row(f, n) for f, n in rows], dtype=pl.String),
            times.cast(pl.Datetime("us", "UTC")).alias("time"),
            pl.Series("version", [versions.get(f.bundle) for f, _ in rows], dtype=pl.Int64),
            pl.Series("arm", [f.arm for f, _ in rows], dtype=pl.String),
            pl.Series("asked", [f.is_asked for f, _ in rows], dtype=pl.Boolean),
            pl.Series("key", [f.key or None for f, _ in rows], dtype=pl.String),
            pl.Series("status", [f.status for f, _ in rows], dtype=pl.Int64),
            _inputs(rows, schemas),
            _spelled("prediction", [_answer(f, n) for f, n in rows], rows, schemas, answer),
            _spelled("label", [_label(f, n, labels) for f, n in rows], rows, schemas, answer),
        ]
    )


def _answer(frame: log.Frame, n: int) -> Any:
    return frame.outputs[n] if not frame.is_error and n < len(frame.outputs) else None


def _label(frame: log.Frame, n: int, labels: dict[str, log.Label]) -> Any:
    found = labels.get(_row(frame, n))
    return found.label if found and traffic.is_of(found, frame) else None


def _spelled(
    name: str,
    values: list[Any],
    rows: list[tuple[log.Frame, int]],
    schemas: dict[str, Schema],
    dtype: Any,
) -> polars.Series:
    """Numbers, or classes in the file's own spelling, whichever way they came."""
    import polars as pl

    found: list[Any] = []
    for value, (frame, _) in zip(values, rows, strict=True):
        schema = schemas.get(frame.bundle)
        spelled = value if schema is None or value is None else frames.spelled(value, schema)
        found.append(spelled if spelled is None or dtype == pl.Float64 else str(spelled))
    return pl.Series(name, found, dtype=dtype, strict=False)


def _inputs(rows: list[tuple[log.Frame, int]], schemas: dict[str, Schema]) -> polars.Series:
    """Every column that any of these versions was asked for; null where a row's version did not know it."""
    import polars as pl

    places = {b: {c.name: i for i, c in enumerate(s.inputs)} for b, s in schemas.items()}
    columns = []
    for name in dict.fromkeys(c.name for s in schemas.values() for c in s.inputs):
        known = [(s, c) for s in schemas.values() for c in s.inputs if c.name == name]
        is_hashed = any(name in schema.personal for schema, _ in known)
        kinds = {column.kind for _, column in known}
        column = known[0][1]
        raw = [_raw(f, n, places.get(f.bundle, {}).get(name)) for f, n in rows]
        if is_hashed or len(kinds) > 1:
            values = [None if v is None else str(v) for v in raw]
            columns.append(pl.Series(name, values, dtype=pl.String))
        else:
            values = [frames.from_json(v, column) for v in raw]
            columns.append(pl.Series(name, values, dtype=frames.dtype(column)))
    if not columns:
        return pl.Series("inputs", [{}] * len(rows), dtype=pl.Struct([]))
    return pl.DataFrame(columns).to_struct("inputs")


def _raw(frame: log.Frame, n: int, place: int | None) -> Any:
    if place is None or n >= len(frame.inputs) or place >= len(frame.inputs[n]):
        return None
    return frame.inputs[n][place]
