"""Which side of the split a row is on: by the row alone, so it is the same in every snapshot, and twins stay together.

By time, it is the row's own time and the cut that decide. A cut that follows the newest row only moves on as rows come,
so what a version was judged by may teach a later one, and never the other way round.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gyrostat_runtime.schema import Schema

from gyrostat.data.dates import instants, moment
from gyrostat.data.settings import DataSettings, Span
from gyrostat.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

HELDOUT, TRAIN, APART = "heldout", "train", "apart"
"""`apart`: on neither side, as it lies in the gap before the cut, or its time is not known."""


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
        return _by_time(df, settings, schema)
    names = dict.fromkeys(f.column for f in schema.features if f.column not in schema.personal)
    keys = canonical([df[name] for name in names or [c.name for c in schema.inputs]])
    key = split.group or settings.keys.entity
    if key and key in df.columns:
        own = df[key]
        groups = canonical([own])
        known = own.is_not_null().to_list()
        keys = [g if k else r for g, k, r in zip(groups, known, keys, strict=True)]
    assert isinstance(split.holdout, float)  # a span goes with `by`
    return [side_of(k, split.holdout) for k in keys]


def times(df: pl.DataFrame, name: str, schema: Schema) -> pl.Series:
    """When each row happened, in UTC without a zone; null where that is not known.

    A labelled prediction whose request did not say when happened when it was asked.
    """
    import polars as pl

    form = next((c.format for c in schema.inputs if c.name == name), "")
    at = instants(df[name], form)
    if "_seen_at" not in df.columns:
        return at
    asked = pl.from_epoch((df["_seen_at"] * 1e6).cast(pl.Int64), time_unit="us")
    is_asked = at.is_null() & (df["_origin"] == "traffic")
    return at.zip_with(~is_asked, asked)


def before(moment: datetime, span: Span) -> datetime:
    """The moment a span earlier; of a day that a month does not have, its last one."""
    import polars as pl

    return pl.Series([moment]).dt.offset_by(f"-{span.n}{span.unit}").item()


def cut_of(df: pl.DataFrame, settings: DataSettings, schema: Schema) -> datetime | None:
    """Where these rows' held-out side begins, in UTC without a zone; None: they are not split by time, or have none.

    Raises:
        ConfigError: `cut` is no date.
    """
    split = settings.split
    if not split.by:
        return None
    if isinstance(split.holdout, Span):
        newest = times(df, split.by, schema).max()
        return before(newest, split.holdout) if isinstance(newest, datetime) else None
    try:
        return moment(split.cut).astimezone(UTC).replace(tzinfo=None)
    except ValueError as error:
        raise ConfigError(
            f"data.split.cut is {split.cut!r}; a date is needed, as in 2025-04-01. Nothing was changed."
        ) from error


def _by_time(df: pl.DataFrame, settings: DataSettings, schema: Schema) -> list[str]:
    """A standing cut belongs to the later side; of a span, the moment exactly that long ago does not."""
    import polars as pl

    split, cut = settings.split, cut_of(df, settings, schema)
    if cut is None:
        return [APART] * df.height
    at = times(df, split.by, schema)
    is_later = at > cut if isinstance(split.holdout, Span) else at >= cut
    is_before = ~is_later if split.gap is None else at < before(cut, split.gap)
    found = pl.select(
        pl.when(is_later).then(pl.lit(HELDOUT)).when(is_before).then(pl.lit(TRAIN)).otherwise(pl.lit(APART))
    )  # fmt: skip
    return found.to_series().to_list()


def recent(df: pl.DataFrame, settings: DataSettings, schema: Schema) -> pl.DataFrame:
    """The rows inside the declared window: the newest by number, or by time; what has no time is outside of one by time."""
    window, name = settings.window, settings.at
    if not window:
        return df
    if isinstance(window, Span):
        at = times(df, name, schema)
        newest = at.max()
        return (
            df.filter(at > before(newest, window)) if isinstance(newest, datetime) else df.clear()
        )
    if name:
        df = df[times(df, name, schema).arg_sort(nulls_last=False)]
    return df.tail(window)
