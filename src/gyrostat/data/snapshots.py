"""Immutable versions of a model's training table, each with a fingerprint of its rows.

Rows live in one Lance table a model; a snapshot is one of its versions. The record is written last and atomically, so a
kill leaves either the whole snapshot or none, and taking it again gives the same one.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.schema import Schema

from gyrostat.data import checks, frames, split, tables
from gyrostat.data.infer import Inference, infer
from gyrostat.data.settings import DataSettings
from gyrostat.errors import DataError, UsageError

if TYPE_CHECKING:
    import polars

MODULUS = 2**256
ID_DIGITS = 12


def _folder(state: Path, model: str) -> Path:
    return state / "snapshots" / model


def record(state: Path, model: str, id: str) -> dict[str, Any]:
    """The record of a snapshot; an unambiguous beginning of its id is enough.

    Raises:
        UsageError: there is none, or there are several.
    """
    found = sorted(_folder(state, model).glob(f"{id}*.json")) if id.isalnum() else []
    if len(found) != 1:
        known = (
            ", ".join(p.stem for p in sorted(_folder(state, model).glob("*.json"))[-5:])
            or "none yet"
        )
        raise UsageError(
            f"There {'are several snapshots' if found else 'is no snapshot'} {id!r} of {model}. Known: {known}."
        )
    return json.loads(found[0].read_bytes())


def records(state: Path, model: str) -> list[dict[str, Any]]:
    """All records, oldest first."""
    found = [json.loads(p.read_bytes()) for p in _folder(state, model).glob("*.json")]
    return sorted(found, key=lambda r: r["made_at"])


def source_of(project: Path, settings: DataSettings) -> tuple[polars.DataFrame, Inference]:
    """The source as texts, and what it means under the declaration.

    Raises:
        DataError, UsageError: it cannot be read or learned from.
    """
    df = tables.read(project / settings.source.path, settings.source)
    return df, infer(df, settings.target, settings=settings)


def take(
    project: Path, state: Path, model: str, settings: DataSettings, *, barred: frozenset[str] = frozenset(),
    until: float | None = None, mature_after_s: float = 0.0,
) -> dict[str, Any] | None:  # fmt: skip
    """The snapshot of source and labelled traffic as they are now; None if all that there is is barred.

    The same rows give the same snapshot. If the newest content is barred, it is the newest earlier one that is not.
    The record's `passed` says whether the checks held.
    """
    from gyrostat.data import traffic as traffic_of

    df, inference = source_of(project, settings)
    report = checks.run(
        df, checks.read(project / "config" / settings.checks), frozenset(settings.personal)
    )
    schema = inference.schema(settings.personal)
    source = frames.typed(df, inference)
    keys = _keys(df, settings)
    moment = time.time() if until is None else until
    seen, cut = ([], {})
    if settings.learn_from_traffic:
        seen, cut = traffic_of.labelled(
            state, model, schema, until=moment, mature_after_s=mature_after_s
        )
    rows = _together(source, frames.from_traffic(seen, schema), keys, settings, schema)
    fingerprint, _ = _fingerprint(rows, schema)
    id = fingerprint[:ID_DIGITS]
    if id in barred:
        earlier = [r for r in records(state, model) if r["id"] not in barred and r["passed"]]
        return earlier[-1] if earlier else None
    path = _folder(state, model) / f"{id}.json"
    if path.exists():
        known = json.loads(path.read_bytes())
        if known["passed"] == (report["n_broken"] == 0):
            return known
    sides = rows["_side"].to_list()
    made = {
        "id": id, "fingerprint": fingerprint, "model": model, "lance_version": _write(state, model, rows),
        "n_rows": rows.height, "n_source": source.height, "n_traffic": rows.filter(rows["_origin"] == "traffic").height,
        "n_train": sides.count(split.TRAIN), "n_heldout": sides.count(split.HELDOUT),
        "schema": schema.as_json(), "columns": df.columns, "cut": cut, "checks": report,
        "passed": report["n_broken"] == 0, "source": settings.source.path, "made_at": moment,
    }  # fmt: skip
    for side in ("n_train", "n_heldout"):
        if made[side] < 2:
            raise DataError(
                f"The split leaves {made['n_train']} rows to train and {made['n_heldout']} to judge of {rows.height}; "
                "both need two at least. Change data.split."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(made, ensure_ascii=False, allow_nan=False, indent=1).encode())
    return made


def _keys(df: polars.DataFrame, settings: DataSettings) -> list[Any] | None:
    column = settings.split.group or settings.keys.entity
    return df[column].to_list() if column and column in df.columns else None


def _together(
    source: polars.DataFrame,
    seen: polars.DataFrame,
    keys: list[Any] | None,
    settings: DataSettings,
    schema: Schema,
) -> polars.DataFrame:
    """Source and traffic, sided, windowed, without the rows that have no label."""
    import polars as pl

    inputs = [c.name for c in schema.inputs]
    source = source.select([*inputs, schema.output.target])
    parts = [
        source.with_columns(
            pl.Series("_side", split.sides(source, settings, inputs, keys)),
            pl.lit("source").alias("_origin"),
            pl.lit(0.0).alias("_seen_at"),
        )
    ]
    if seen.height:
        parts.append(
            seen.select([*inputs, schema.output.target, "_seen_at"]).with_columns(
                pl.Series("_side", split.sides(seen, settings, inputs)), pl.lit("traffic").alias("_origin")
            ).select(parts[0].columns)
        )  # fmt: skip
    rows = pl.concat(parts).filter(pl.col(schema.output.target).is_not_null())
    return rows.tail(settings.window) if settings.window else rows


def _fingerprint(rows: polars.DataFrame, schema: Schema) -> tuple[str, list[int]]:
    """Schema and the sum of all rows' hashes modulo 2^256: any order, and with XOR rows that stand twice would cancel."""
    names = sorted(n for n in rows.columns if not n.startswith("_"))
    hashes = [
        int.from_bytes(hashlib.sha256(split.canonical(row)).digest(), "big")
        for row in zip(*(rows[n].to_list() for n in names), strict=True)
    ]
    kinds = json.dumps(
        [[c.name, c.kind] for c in schema.inputs] + [[schema.output.target, schema.output.task]],
        ensure_ascii=False,
    )
    return hashlib.sha256(f"{kinds}{sum(hashes) % MODULUS:064x}".encode()).hexdigest(), hashes


def _write(state: Path, model: str, rows: polars.DataFrame) -> int:
    """A version of the Lance table with exactly these rows; what is there already is not written again."""
    import lance

    uri = str(state / "tables" / f"{model}.lance")
    table = rows.to_arrow()
    if not Path(uri).exists():
        return lance.write_dataset(table, uri).version
    dataset = lance.dataset(uri)
    old = dataset.to_table()
    if old.schema.equals(table.schema):
        if table.num_rows == old.num_rows and table.equals(old):
            return dataset.version
        if table.num_rows > old.num_rows and table.slice(0, old.num_rows).equals(old):
            return lance.write_dataset(table.slice(old.num_rows), uri, mode="append").version
    return lance.write_dataset(table, uri, mode="overwrite").version


def read(state: Path, model: str, id: str) -> polars.DataFrame:
    """The rows of a snapshot with `_side` (train, heldout), `_origin` (source, traffic) and `_seen_at` (seconds; 0: source)."""
    import lance
    import polars as pl

    made = record(state, model, id)
    dataset = lance.dataset(str(state / "tables" / f"{model}.lance"), version=made["lance_version"])
    frame = pl.from_arrow(dataset.to_table())
    assert isinstance(frame, pl.DataFrame)
    return frame
