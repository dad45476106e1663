"""Tables whose values have types: Parquet and JSON lines, as the texts that the rest of the house reads."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from gyrostat.data.names import MAX_COLUMNS, check_count
from gyrostat.errors import DataError

if TYPE_CHECKING:
    import polars as pl


def parquet(data: bytes, name: str) -> pl.DataFrame:
    """All columns as text: numbers with a point, dates in ISO 8601, booleans `True` and `False`.

    Raises:
        DataError: it is broken, or a column holds no plain values.
    """
    import polars as pl

    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except BaseException as error:  # a panic inside the reader is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{name} cannot be read as Parquet: {first}. Is it whole? Nothing was done."
        ) from error
    check_count(frame.columns, name)
    return frame.select([as_text(frame[column]) for column in frame.columns])


def as_text(column: pl.Series) -> pl.Series:
    """A column of plain values as texts, null for missing.

    Raises:
        DataError: it holds no plain values.
    """
    import polars as pl

    kind = column.dtype
    texts: list[Any]
    if kind == pl.Boolean or kind.is_decimal():
        # A decimal is exact, and reads as the number it is.
        texts = [None if v is None else f"{v:f}" if kind.is_decimal() else str(v) for v in column.to_list()]  # fmt: skip
    elif kind.is_float():
        # A float32 stands for the same number that its JSON form names.
        texts = [None if v is None or v != v else repr(float(v)) for v in column.cast(pl.Float64).to_list()]  # fmt: skip
    elif kind.is_temporal() and kind not in (pl.Duration, pl.Time):
        texts = _dates(column)
    elif kind == pl.Duration:
        seconds = column.dt.total_microseconds() / 1e6
        texts = [None if v is None else repr(v) for v in seconds.to_list()]
    elif kind == pl.Time:
        texts = [None if v is None else v.isoformat() for v in column.to_list()]
    elif kind == pl.Binary:
        texts = _binary(column)
    elif kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        texts = [v or None for v in column.cast(pl.String).to_list()]
    else:
        raise DataError(
            f"Column {column.name!r} is {kind}; a table of plain values is needed. Nothing was done.",
            column=column.name,
        )
    return pl.Series(column.name, texts, dtype=pl.String)


def _binary(column: pl.Series) -> list[str | None]:
    # Some writers store text without saying that it is text.
    try:
        return [None if not v else v.decode() for v in column.to_list()]
    except UnicodeDecodeError:
        raise DataError(
            f"Column {column.name!r} holds bytes that are no text; leave it out. Nothing was done.",
            column=column.name,
        ) from None


def _dates(column: pl.Series) -> list[str | None]:
    import polars as pl

    if isinstance(column.dtype, pl.Datetime):
        # Python knows no nanoseconds; dates have whole seconds as parts.
        column = column.cast(pl.Datetime("us", column.dtype.time_zone))
    return [None if v is None else v.isoformat() for v in column.to_list()]


def is_json_lines(body: bytes) -> bool:
    """Whether the first line that is not blank is a JSON object by itself."""
    line = body[: 2**20].lstrip().partition(b"\n")[0].strip()
    if not line.startswith(b"{") or not line.endswith(b"}"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def json_lines(body: bytes, name: str) -> pl.DataFrame:
    """All keys as columns in the order in which they first appear; a key that a line lacks is missing there.

    Raises:
        DataError: a line is no object of plain values; names it.
    """
    import polars as pl

    columns: dict[str, list[str | None]] = {}
    n = 0
    for line, text in enumerate(body.split(b"\n"), 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{name}: line {line} is no JSON: {str(error).partition(': line')[0]}. Nothing was done.",
                line=line,
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{name}: line {line} is no object with a value for each column. Nothing was done.",
                line=line,
            )
        for key, value in record.items():
            if key not in columns:
                if len(columns) >= MAX_COLUMNS:
                    raise DataError(
                        f"{name} has more than {MAX_COLUMNS:,} keys by line {line}; they must be the same in all lines. Nothing was done."
                    )
                columns[key] = [None] * n
            columns[key].append(_plain(value, key, name, line))
        n += 1
        for values in columns.values():
            if len(values) < n:
                values.append(None)
    return pl.DataFrame([pl.Series(k, v, dtype=pl.String) for k, v in columns.items()])


def _plain(value: Any, key: str, name: str, line: int) -> str | None:
    match value:
        case None | "":
            return None
        case bool():
            return str(value)
        case str():
            return value
    raise DataError(
        f"{name}: line {line} has {'a list' if isinstance(value, list) else 'an object'} under {key[:60]!r}; a plain value is needed. "
        "Nothing was done.",
        line=line,
    )
