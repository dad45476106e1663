"""Two snapshots of a model's table held against each other: rows, columns, distributions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gyrostat_runtime.schema import Schema

from gyrostat.data import snapshots, split
from gyrostat.data.names import shown
from gyrostat.stats.distances import ks_distance, total_variation

if TYPE_CHECKING:
    import polars as pl

N_SHOWN = 5


def diff(state: Path, model: str, old_id: str, new_id: str) -> dict[str, Any]:
    """What the new snapshot has otherwise, as JSON values.

    Rows are compared by all values of the columns that both have, however often they stand. Values of personal columns
    are compared and never named.

    Raises:
        UsageError: there is no such snapshot.
        DataError: one did not pass its checks, so its rows were not kept.
    """
    old_record, new_record = (snapshots.record(state, model, id) for id in (old_id, new_id))
    old, new = (snapshots.read(state, model, r["id"]) for r in (old_record, new_record))
    schemas = [Schema.from_json(r["schema"]) for r in (old_record, new_record)]
    kinds = [{c.name: c.kind for c in s.inputs} | {s.output.target: s.output.task} for s in schemas]
    personal = {name for s in schemas for name in s.personal}
    shared = [name for name in kinds[0] if name in kinds[1] and old[name].dtype == new[name].dtype]
    counts = [Counter(split.canonical([df[name] for name in shared])) for df in (old, new)]
    n_same = (counts[0] & counts[1]).total()
    columns = []
    for name in shared:
        change = _change(old[name], new[name], is_named=name not in personal)
        if change:
            columns.append({"column": name, "kind": kinds[1][name], **change})
    columns.sort(key=lambda c: -c["shift"])
    return {
        "model": model, "old": old_record["id"], "new": new_record["id"],
        "rows": {"old": old.height, "new": new.height, "same": n_same, "gone": old.height - n_same, "added": new.height - n_same},
        "columns": {
            "added": [n for n in kinds[1] if n not in kinds[0]], "gone": [n for n in kinds[0] if n not in kinds[1]],
            "other_kind": [{"column": n, "old": kinds[0][n], "new": kinds[1][n]} for n in kinds[0] if n in kinds[1] and kinds[0][n] != kinds[1][n]],
        },
        "changed": columns,
    }  # fmt: skip


def _change(old: pl.Series, new: pl.Series, *, is_named: bool) -> dict[str, Any]:
    """How a column's distribution moved; empty if it did not."""
    missing = [float(s.null_count()) / max(1, len(s)) for s in (old, new)]
    a, b = old.drop_nulls(), new.drop_nulls()
    found: dict[str, Any] = {"missing": missing}
    if a.dtype.is_numeric():
        shift = _shift(a, b)
        found |= {"mean": [_mean(a), _mean(b)]}
    else:
        counts = [Counter(map(str, s.to_list())) for s in (a, b)]
        levels = sorted(counts[0].keys() | counts[1].keys())
        shift = total_variation([counts[0][v] for v in levels], [counts[1][v] for v in levels]) if len(a) and len(b) else 0.0  # fmt: skip
        added, gone = (sorted(x.keys() - y.keys()) for x, y in ((counts[1], counts[0]), counts))
        found |= {"n_added": len(added), "n_gone": len(gone)}
        if is_named:
            found |= {"added": added[:N_SHOWN], "gone": gone[:N_SHOWN]}
    found["shift"] = float(shift)
    return found if shift > 0 or missing[0] != missing[1] else {}


def _shift(old: pl.Series, new: pl.Series) -> float:
    import numpy as np

    edges = np.unique(np.concatenate((old.to_numpy(), new.to_numpy())))
    counts = [np.bincount(np.searchsorted(edges, s.to_numpy()), minlength=len(edges)) for s in (old, new)]  # fmt: skip
    return ks_distance(*(c.tolist() for c in counts))


def _mean(values: pl.Series) -> float | None:
    return None if not len(values) else float(cast("float", values.mean()))


def lines(found: dict[str, Any]) -> list[str]:
    """For a terminal: rows, then columns, then what moved most."""
    rows, columns, model = found["rows"], found["columns"], found["model"]
    told = [
        f"snapshot/{model}/{found['old']} -> snapshot/{model}/{found['new']}",
        f"  rows      {rows['old']:,} -> {rows['new']:,}: {rows['same']:,} the same, {rows['gone']:,} gone, {rows['added']:,} added",
    ]
    for what in ("added", "gone"):
        if columns[what]:
            told.append(f"  columns   {what}: {', '.join(map(shown, columns[what]))}")
    told += [f"  columns   {shown(c['column'])}: {c['old']} -> {c['new']}" for c in columns["other_kind"]]  # fmt: skip
    if not found["changed"]:
        told.append("  values    no distribution moved")
        return told
    wide = min(24, max(len(shown(c["column"])) for c in found["changed"]))
    for c in found["changed"]:
        parts = [f"shift {c['shift']:.3f}"]
        if "mean" in c:
            parts.append("mean " + " -> ".join("none" if m is None else f"{m:.6g}" for m in c["mean"]))  # fmt: skip
        for what in ("added", "gone"):
            if c.get(f"n_{what}"):
                some = f" ({', '.join(map(shown, c[what]))}{', ...' if c[f'n_{what}'] > N_SHOWN else ''})" if what in c else ""  # fmt: skip
                parts.append(f"{c[f'n_{what}']:,} values {what}{some}")
        if c["missing"][0] != c["missing"][1]:
            parts.append(f"missing {100 * c['missing'][0]:.1f} % -> {100 * c['missing'][1]:.1f} %")
        told.append(f"  {shown(c['column']):{wide}}  {', '.join(parts)}")
    return told
