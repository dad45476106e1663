"""Immutable versions of a model's training table, each with a fingerprint of its rows.

Rows live in one Lance table a model; a snapshot is one of its versions. The record is written last and atomically, so a
kill leaves either the whole snapshot or none, and taking it again gives the same one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.schema import Schema

from gyrostat.data import checks, frames, split, tables
from gyrostat.data.infer import Inference, infer
from gyrostat.data.names import quoted
from gyrostat.data.numerals import NumberFormat
from gyrostat.data.settings import DataSettings
from gyrostat.errors import DamagedError, DataError, UsageError

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
    """The source as texts, and what it means under the declaration: the kinds are those of its columns and its checks.

    Raises:
        DataError, UsageError: it cannot be read or learned from; says how it differs from what is declared.
        ConfigError: the checks cannot be read.
    """
    path = project / settings.source.path
    kinds = checks.kinds(checks.read(project / "config" / settings.checks))
    try:
        df = tables.read(path, settings.source)
        return df, infer(df, settings.target, settings=settings, kinds=kinds)
    except DataError as error:
        differing = tables.differences(path, settings.source)
        if not differing:
            raise
        listed = "; ".join(differing)
        raise DataError(
            f"{error}\n{path.name} looks otherwise than it is declared: {listed}. Write it as before, or change the declaration.",
            **error.facts,
        ) from error


def take(
    project: Path, state: Path, model: str, settings: DataSettings, *, barred: frozenset[str] = frozenset(),
    until: float | None = None, mature_after_s: float = 0.0,
) -> dict[str, Any] | None:  # fmt: skip
    """The snapshot of source and labelled traffic as they are now; None if all that there is is barred.

    The same rows give the same snapshot. If the newest content is barred, it is the newest earlier one that is not.
    The record's `passed` says whether the checks held; if they did not, its rows are not kept and cannot be read.

    Raises:
        DataError, UsageError, ConfigError: the source or its rules cannot be read, or there is nothing to learn from.
    """
    from gyrostat.data import traffic

    df, inference = source_of(project, settings)
    rules = checks.read(project / "config" / settings.checks)
    personal = frozenset(settings.personal)
    table = NumberFormat(settings.source.decimal, settings.source.thousands)
    report = checks.run(df, rules, personal, settings.columns, table)
    # What the declaration calls personal may not be in the table any more.
    schema = inference.schema(tuple(c for c in settings.personal if c in df.columns))
    moment = time.time() if until is None else until
    seen: list[dict[str, Any]] = []
    heard: dict[str, Any] = {"log": {}, "labels": {}, "at": moment}
    if settings.learn_from_traffic:
        seen, heard = traffic.labelled(
            state, model, schema, until=moment, mature_after_s=mature_after_s
        )
    rows = _together(
        frames.typed(df, inference), frames.from_traffic(seen, schema), settings, schema, moment
    )
    schema = _as_of(schema, rows)
    fingerprint, keys = _fingerprint(rows, schema)
    id = fingerprint[:ID_DIGITS]
    if _is_barred(id, barred):
        return newest(state, model, barred=barred)
    path = _folder(state, model) / f"{id}.json"
    known = json.loads(path.read_bytes()) if path.exists() else None
    passed = report["n_broken"] == 0
    has_rows = known is not None and (known["lance_version"] or not passed)
    if known is not None and has_rows and known["passed"] == passed and known["checks"] == report:
        return known
    origins, sides = rows["_origin"].to_list(), rows["_side"].to_list()
    n_train, n_heldout = sides.count(split.TRAIN), sides.count(split.HELDOUT)
    cut = split.cut_of(rows, settings, schema)
    if passed and min(n_train, n_heldout) < 2:
        raise DataError(
            f"The split leaves {n_train} rows to train and {n_heldout} to judge of {rows.height}; both need two at least. "
            + _by_time(rows, settings, schema, cut)
            + "Change data.split, or bring more rows. Nothing was done.",
            n_train=n_train,
            n_heldout=n_heldout,
        )
    version = known["lance_version"] if known else 0
    if passed and not version:
        version = _write(state, model, rows.insert_column(rows.width, _series("_key", keys)))
    made = {
        "id": id, "fingerprint": fingerprint, "model": model, "lance_version": version, "n_rows": rows.height,
        "n_source": origins.count("source"), "n_traffic": origins.count("traffic"), "n_read": df.height,
        "n_labelled_traffic": len(seen), "n_train": n_train, "n_heldout": n_heldout, "schema": schema.as_json(),
        "columns": df.columns, "cut": heard, "split": _rule(settings, schema, cut), "n_apart": sides.count(split.APART), "checks": report, "passed": passed, "source": settings.source.path,
        "made_at": known["made_at"] if known and version else moment,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(made, ensure_ascii=False, allow_nan=False, indent=1).encode())
    return made


def _by_time(
    rows: polars.DataFrame, settings: DataSettings, schema: Schema, cut: datetime | None
) -> str:
    """Where a split by time leaves too little: from when to when the rows are, and where they are cut."""
    if not settings.split.by:
        return ""
    at = split.times(rows, settings.split.by, schema)
    name = quoted(settings.split.by)
    if cut is None:
        return f"None of them has a date in {name}. "
    unknown = f"; {at.null_count():,} rows have no date" if at.null_count() else ""
    return f"{name} goes from {at.min():%Y-%m-%d} to {at.max():%Y-%m-%d}, cut at {cut:%Y-%m-%d}{unknown}. "


def _rule(settings: DataSettings, schema: Schema, cut: datetime | None) -> dict[str, Any]:
    """By what the sides were told apart: with another rule, a row may have changed its side."""
    of = settings.split
    kinds = {c.name: c.kind for c in schema.inputs}
    by_row = {} if of.by else {f.column: kinds[f.column] for f in schema.features}
    return {
        "holdout": str(of.holdout), "group": of.group, "entity": settings.keys.entity, "by": of.by,
        "gap": str(of.gap or ""), "features": by_row, "cut": cut.isoformat() if cut else "",
    }  # fmt: skip


def sides(made: dict[str, Any]) -> str:
    """How the rows of a snapshot are divided, in words."""
    rule = made.get("split", {})
    n_apart = made.get("n_apart", 0)
    how = (
        f"what {quoted(rule['by'])} has from {rule['cut'].replace('T', ' ').removesuffix(' 00:00:00')} on"
        if rule.get("cut")
        else f"by {quoted(rule['group'] or rule['entity'])}, each on one side"
        if rule.get("group") or rule.get("entity")
        else "by the row itself"
    )
    apart = f", {n_apart:,} on neither side (in the gap, or without a date)" if n_apart else ""
    return f"{made['n_train']:,} rows to train, {made['n_heldout']:,} held out: {how}{apart}"


def newest(
    state: Path, model: str, *, barred: frozenset[str] = frozenset()
) -> dict[str, Any] | None:
    """The newest snapshot whose checks held and that is not barred."""
    found = [
        r for r in records(state, model) if r["lance_version"] and not _is_barred(r["id"], barred)
    ]
    return found[-1] if found else None


def _is_barred(id: str, barred: frozenset[str]) -> bool:
    return any(id.startswith(b.rpartition("/")[2]) for b in barred if b)


def _together(
    source: polars.DataFrame,
    seen: polars.DataFrame,
    settings: DataSettings,
    schema: Schema,
    moment: float,
) -> polars.DataFrame:
    """Source and traffic, sided, windowed, without the rows that have no label."""
    import polars as pl

    names = [*(c.name for c in schema.inputs), schema.output.target]
    parts = [
        source.select(names).with_columns(
            pl.lit("source").alias("_origin"), pl.lit(moment).alias("_seen_at")
        )
    ]
    if seen.height:
        parts.append(
            seen.select(
                *names, pl.lit("traffic").alias("_origin"), pl.col("_seen_at").cast(pl.Float64)
            )
        )
    rows = pl.concat(parts).filter(pl.col(schema.output.target).is_not_null())
    rows = split.recent(rows, settings, schema)
    return rows.with_columns(
        pl.Series("_side", split.sides(rows, settings, schema), dtype=pl.String)
    )


def _as_of(schema: Schema, rows: polars.DataFrame) -> Schema:
    """The schema with what these rows had: categories of the training side, missing values of both."""
    used = {f.column for f in schema.features}
    train = rows.filter(rows["_side"] == split.TRAIN)
    inputs = []
    for column in schema.inputs:
        if column.name in used:
            has_missing = rows[column.name].null_count() > 0
            column = replace(column, nullable=column.nullable or has_missing)
            if column.kind == "category":
                levels = train[column.name].drop_nulls().unique().sort().to_list()
                column = replace(column, categories=tuple(levels))
        inputs.append(column)
    return replace(schema, inputs=tuple(inputs))


def _series(name: str, values: list[str]) -> polars.Series:
    import polars as pl

    return pl.Series(name, values, dtype=pl.String)


def _fingerprint(rows: polars.DataFrame, schema: Schema) -> tuple[str, list[str]]:
    """`(fingerprint, a key for each row)`.

    The fingerprint is of the schema and the sum of all rows' hashes modulo 2^256: any order gives the same, and rows
    that stand twice count twice (with XOR they would cancel).
    """
    names = [*(c.name for c in schema.inputs), schema.output.target, "_side"]
    hashes = [
        hashlib.sha256(row).digest() for row in split.canonical([rows[name] for name in names])
    ]
    total = sum(int.from_bytes(h, "big") for h in hashes) % MODULUS
    kinds = json.dumps(schema.as_json(), ensure_ascii=False, sort_keys=True)
    fingerprint = hashlib.sha256(kinds.encode() + total.to_bytes(32, "big")).hexdigest()
    twins: Counter[str] = Counter()
    keys = []
    for digest, origin in zip(hashes, rows["_origin"].to_list(), strict=True):
        key = f"{digest[:16].hex()}{origin[0]}"
        twins[key] += 1
        keys.append(f"{key}{twins[key]}")
    return fingerprint, keys


def drop_rows(state: Path, model: str, id: str) -> None:
    """Give up the rows of a snapshot. Its record stays; if the same content comes again, it is kept again."""
    import lance

    made = record(state, model, id)
    version = made["lance_version"]
    # The record first: rows that nobody names do no harm, and a name without its rows would.
    path = _folder(state, model) / f"{made['id']}.json"
    text = json.dumps(made | {"lance_version": 0}, ensure_ascii=False, allow_nan=False, indent=1)
    write_atomic(path, text.encode())
    dataset = lance.dataset(str(state / "tables" / f"{model}.lance"))
    if version and version != dataset.version:
        dataset.cleanup_old_versions(versions=[version], error_if_tagged_old_versions=False)


def _stored(name: str) -> str:
    # In Lance a dot in a name is a step into a struct.
    return name.replace("%", "%25").replace(".", "%2E")


def _write(state: Path, model: str, rows: polars.DataFrame) -> int:
    """A version of the Lance table with exactly these rows. A change costs about what changed.

    Killed in between, the newest version may hold some of the change; it is no snapshot, and the next one starts from it.
    """
    import lance
    import polars as pl

    rows = rows.rename(_stored)
    place = state / "tables" / f"{model}.lance"
    place.parent.mkdir(parents=True, exist_ok=True)
    uri = str(place)
    try:
        dataset = lance.dataset(uri)
    except (ValueError, OSError):
        return lance.write_dataset(rows.to_arrow(), uri, mode="create").version
    old = pl.DataFrame(pl.from_arrow(dataset.to_table(columns=["_key", "_seen_at"])))
    first = dict(zip(old["_key"].to_list(), old["_seen_at"].to_list(), strict=True))
    keys = rows["_key"].to_list()
    # A row counts as seen when it was seen first.
    seen = [first.get(k, at) for k, at in zip(keys, rows["_seen_at"].to_list(), strict=True)]
    rows = rows.with_columns(pl.Series("_seen_at", seen, dtype=pl.Float64))
    gone = list(first.keys() - set(keys))
    is_alike = dataset.schema.equals(rows.head(0).to_arrow().schema)
    if not is_alike or len(gone) > max(1000, 0.2 * len(first)):
        return lance.write_dataset(rows.to_arrow(), uri, mode="overwrite").version
    for n in range(0, len(gone), 500):
        listed = ", ".join(f"'{key}'" for key in gone[n : n + 500])
        dataset.delete(f"_key IN ({listed})")
    fresh = rows.filter(~pl.col("_key").is_in(list(first)))
    if fresh.height:
        return lance.write_dataset(fresh.to_arrow(), uri, mode="append").version
    return lance.dataset(uri).version


def read(state: Path, model: str, id: str) -> polars.DataFrame:
    """The rows of a snapshot with `_side` (train, heldout), `_origin` (source, traffic) and `_seen_at` (first, in seconds since 1970).

    Raises:
        UsageError: there is no such snapshot.
        DataError: it did not pass its checks.
        DamagedError: what is stored is not what was taken.
    """
    import lance
    import polars as pl

    made = record(state, model, id)
    if not made["lance_version"] and made["passed"]:
        raise DataError(
            f"The rows of snapshot/{model}/{made['id']} were collected (gyrostat gc), for nothing needed them; its record is "
            f"there: gyrostat why snapshot/{model}/{made['id']}"
        )
    if not made["lance_version"]:
        raise DataError(
            f"snapshot/{model}/{made['id']} did not pass its checks, so its rows were not kept. See: gyrostat data report {made['id']}"
        )
    try:
        dataset = lance.dataset(
            str(state / "tables" / f"{model}.lance"), version=made["lance_version"]
        )
        frame = pl.from_arrow(dataset.to_table())
        assert isinstance(frame, pl.DataFrame)
        # In an order that only the rows decide, so that a training on them can be repeated.
        frame = frame.sort("_key")
        rows = frame.drop("_key").rename(lambda name: unquote(name))
        found, keys = _fingerprint(rows, Schema.from_json(made["schema"]))
        is_kept = sorted(keys) == frame["_key"].to_list()
    except BaseException as error:  # a panic inside the reader is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise _damaged(made, f"its rows cannot be read: {_first(error)}") from error
    if found != made["fingerprint"] or not is_kept:
        raise _damaged(made, f"its rows have the fingerprint {found[:ID_DIGITS]}, or other keys")
    return rows


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _damaged(made: dict[str, Any], what: str) -> DamagedError:
    ref = f"snapshot/{made['model']}/{made['id']}"
    return DamagedError(
        f"{ref} is damaged: {what}. Nothing was learned from it. Bring it back from a backup (gyrostat restore FILE DIR), or "
        f"go on from the one before: gyrostat roll-back {made['model']} --with-data",
        snapshot=ref,
    )


def unseen(
    state: Path, model: str, id: str, later: dict[str, Any], heldout: polars.DataFrame
) -> list[bool] | None:
    """For each held-out row of a `later` snapshot, whether it was no training row of snapshot `id`; None: none of them was.

    Where both were split alike, and the cut has not gone back, no row needs to be looked at.

    Raises:
        UsageError, DataError: that snapshot, or its rows, are not there.
    """
    earlier = record(state, model, id)
    old, new = ({"cut": "", **made.get("split", {})} for made in (earlier, later))
    if old.pop("cut") <= new.pop("cut") and old == new:
        return None
    both = _kinds(earlier).items() & _kinds(later).items()
    names = sorted(name for name, _ in both)
    rows = read(state, model, id)
    trained = rows.filter(rows["_side"] == split.TRAIN)
    known = set(split.canonical([trained[name] for name in names]))
    return [row not in known for row in split.canonical([heldout[name] for name in names])]


def _kinds(made: dict[str, Any]) -> dict[str, str]:
    """Each column of a snapshot's rows, the target too, with what it holds."""
    schema = Schema.from_json(made["schema"])
    return {c.name: c.kind for c in schema.inputs} | {schema.output.target: schema.output.task}
