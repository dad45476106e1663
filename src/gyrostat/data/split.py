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
    import polars as pl

    if not columns:
        return []
    frame = pl.DataFrame([_texts(c).alias(f"c{n}") for n, c in enumerate(columns)])
    joined = frame.select(pl.concat_str(pl.all(), separator="\x1f")).to_series()
    return [row.encode() for row in joined.to_list()]


def _texts(column: pl.Series) -> pl.Series:
    """A text for each value that no other value has; `~` for none."""
    import polars as pl

    match column.dtype:
        case pl.Float64:
            texts = _floats(column)
        case pl.Boolean:
            texts = column.cast(pl.Int8).cast(pl.String).replace({"1": "t", "0": "f"})
        case _:
            # With its length, a text cannot reach into its neighbour.
            texts = pl.select(pl.concat_str(column.str.len_chars(), pl.lit("'"), column)).to_series()  # fmt: skip
    return texts.fill_null("~")


def _floats(column: pl.Series) -> pl.Series:
    """Each number as Python's shortest text that reads as it again."""
    import polars as pl

    # + 0.0: minus nothing is nothing.
    values = column + 0.0
    # Where neither writes an exponent, the compiled shortest text is Python's.
    is_usual = (values == 0) | values.abs().is_between(1e-4, 1e15)
    texts = values.cast(pl.String)
    if is_usual.fill_null(True).all():
        return texts
    own = pl.Series([None if v is None else repr(v) for v in values.to_list()], dtype=pl.String)
    return own


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
