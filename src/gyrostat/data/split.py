"""Which side of the split a row is on: by the row alone, so it is the same in every snapshot, and twins stay together."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gyrostat_runtime.schema import Schema

from gyrostat.data.dates import instants, moment
from gyrostat.data.settings import DataSettings
from gyrostat.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

HELDOUT, TRAIN = "heldout", "train"


def canonical(columns: list[pl.Series]) -> list[bytes]:
    """Each row's values as bytes, the same whether they came from a file or through JSON: numbers as floats, exactly."""
    if not columns:
        return []
    return ["\x1f".join(row).encode() for row in zip(*map(_texts, columns), strict=True)]


def _texts(column: pl.Series) -> list[str]:
    import polars as pl

    values = column.to_list()
    if column.dtype == pl.Float64:
        # + 0.0: minus nothing is nothing.
        return ["~" if v is None else repr(v + 0.0) for v in values]
    if column.dtype == pl.Boolean:
        return ["~" if v is None else "t" if v else "f" for v in values]
    # With its length, a text cannot reach into its neighbour.
    return ["~" if v is None else f"{len(v)}'{v}" for v in values]


def side_of(key: bytes, holdout: float) -> str:
    """`heldout` for a share `holdout` of all keys."""
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return HELDOUT if number < holdout * 2**64 else TRAIN


def sides(df: pl.DataFrame, settings: DataSettings, schema: Schema) -> list[str]:
    """One side a row: by the time cut, else by the hash of the group, else of the entity, else of the features.

    Ids and other columns that are no features do not count, so that rows which differ by them alone stay together.

    Args:
        df: typed rows, from the source or from traffic. A row without a group is sided by its features.
    """
    split = settings.split
    if split.by:
        return _by_time(df[split.by], split.cut, schema)
    names = dict.fromkeys(f.column for f in schema.features if f.column not in schema.personal)
    keys = canonical([df[name] for name in names or [c.name for c in schema.inputs]])
    key = split.group or settings.keys.entity
    if key and key in df.columns:
        own = df[key]
        groups = canonical([own])
        known = own.is_not_null().to_list()
        keys = [g if k else r for g, k, r in zip(groups, known, keys, strict=True)]
    return [side_of(k, split.holdout) for k in keys]


def _by_time(column: pl.Series, cut: str, schema: Schema) -> list[str]:
    form = next((c.format for c in schema.inputs if c.name == column.name), "")
    try:
        border = moment(cut)
    except ValueError as error:
        raise ConfigError(
            f"data.split.cut is {cut!r}; a date is needed, as in 2025-04-01. Nothing was changed."
        ) from error
    is_later = (instants(column, form) >= border.replace(tzinfo=None)).fill_null(False)
    return [HELDOUT if later else TRAIN for later in is_later.to_list()]
