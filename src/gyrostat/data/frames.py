"""From texts to typed values, and from typed rows to the matrix that a model sees, in training as in serving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gyrostat_runtime.rows import from_columns
from gyrostat_runtime.schema import Column, Schema

from gyrostat.data import dates, numerals
from gyrostat.data.inference import Inference
from gyrostat.data.readings import LARGEST, NUMBER, Guess, format_of, truth, word

if TYPE_CHECKING:
    import numpy
    import pandas
    import polars


def typed(df: polars.DataFrame, inference: Inference) -> polars.DataFrame:
    """All inputs and the target of a table of texts: numbers as Float64, booleans, categories and dates as text.

    Categories keep the file's spelling. What is no value of its column's kind becomes null; the checks say so.
    """
    import polars as pl

    columns = [typed_column(df[g.name], g) for g in inference.inputs]
    return pl.DataFrame([*columns, _target(df[inference.target], inference)])


def typed_column(column: polars.Series, guess: Guess) -> polars.Series:
    """One column of texts as `typed` reads it."""
    import polars as pl

    if guess.kind in ("number", "integer"):
        return _numbers(column, guess)
    plain = _plain(column, guess)
    if guess.kind == "boolean":
        # The words of this column only: of another pair, a request could not say them.
        own = dict(zip((c.casefold() for c in guess.categories), (False, True), strict=False))
        words = {
            v: own.get(v.casefold()) if own else truth(v)
            for v in plain.drop_nulls().unique().to_list()
        }
        return plain.replace_strict(words, default=None, return_dtype=pl.Boolean)
    if guess.kind == "date":
        return plain.set(dates.instants(plain, guess.format).is_null(), None)
    # A blank is missing, padding is the file's own.
    return column.set(plain.is_null(), None)


def _plain(column: polars.Series, guess: Guess) -> polars.Series:
    """Without padding, and null where a value is missing."""
    return column.str.strip_chars().set(is_missing(column, guess), None)


def is_missing(column: polars.Series, guess: Guess) -> polars.Series:
    """Where a column of texts says that there is no value."""
    plain = column.str.strip_chars()
    gone = plain == ""
    if guess.missing_words:
        gone = gone | plain.is_in(list(guess.missing_words))
    return gone.fill_null(True)


def _numbers(column: polars.Series, guess: Guess) -> polars.Series:
    import polars as pl

    if not guess.format and not any(map(NUMBER.fullmatch, guess.missing_words)):
        # The usual column, where every text is a number or nothing, in one step.
        numbers = column.cast(pl.Float64, strict=False)
        if numbers.null_count() == column.null_count() and (numbers.abs() <= LARGEST).all():
            return numbers + 0.0
    plain = numerals.plain(_plain(column, guess), format_of(guess.format))
    numbers = plain.set(~plain.str.contains(numerals.IS_NUMBER).fill_null(False), None)
    values = numbers.cast(pl.Float64, strict=False)
    # Neither infinity nor what a 32-bit number cannot hold ever reaches a model.
    return values.set((values.abs() > LARGEST).fill_null(False), None) + 0.0


def _target(column: polars.Series, inference: Inference) -> polars.Series:
    import polars as pl

    guess = inference.columns[inference.target]
    if not inference.classes:
        return _numbers(column, guess)
    if inference.class_kind in ("integer", "number"):
        by_value = {float(c): c for c in inference.classes}
        return _numbers(column, guess).replace_strict(by_value, default=None, return_dtype=pl.String)  # fmt: skip
    plain = _plain(column, guess)
    # Spellings that differ by case or padding alone are one class.
    by_word = {word(c): c for c in inference.classes}
    found = {v: by_word.get(word(v)) for v in plain.drop_nulls().unique().to_list()}
    return plain.replace_strict(found, default=None, return_dtype=pl.String)


def spelled(label: Any, schema: Schema) -> Any:
    """A label as the table has it: a float, or a class in the file's own spelling; None if it is neither.

    Classes are known without regard to case, padding, or whether a number came as text.
    """
    output = schema.output
    if output.task == "regression":
        if isinstance(label, bool) or not isinstance(label, (int, float)):
            return None
        return float(label) + 0.0 if abs(label) <= LARGEST else None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    text = str(label)
    if text in output.classes:
        return text
    if output.class_kind in ("integer", "number"):
        if not NUMBER.fullmatch(text.strip()):
            return None
        return next((c for c in output.classes if float(c) == float(text)), None)
    return next((c for c in output.classes if word(c) == word(text)), None)


def as_json(value: Any, schema: Schema) -> Any:
    """A label or class as it travels in JSON."""
    if schema.output.task == "regression" or value is None:
        return value
    match schema.output.class_kind:
        case "integer":
            return int(value)
        case "number":
            return float(value)
        case "boolean":
            return value.lower() == "true"
    return value


def from_traffic(rows: list[dict[str, Any]], schema: Schema) -> polars.DataFrame:
    """Labelled predictions (`inputs` in schema order, `label`, `at`) as rows of the table, with `_seen_at`."""
    import polars as pl

    data: dict[str, Any] = {}
    for n, column in enumerate(schema.inputs):
        values = [from_json(row["inputs"][n], column) for row in rows]
        data[column.name] = pl.Series(column.name, values, dtype=dtype(column))
    labels = [spelled(row["label"], schema) for row in rows]
    is_number = schema.output.task == "regression"
    data[schema.output.target] = pl.Series(
        schema.output.target, labels, dtype=pl.Float64 if is_number else pl.String
    )
    data["_seen_at"] = pl.Series("_seen_at", [float(row["at"]) for row in rows], dtype=pl.Float64)
    return pl.DataFrame(data)


def dtype(column: Column) -> Any:
    """The Polars type of a column of the table."""
    import polars as pl

    kinds = {"number": pl.Float64, "integer": pl.Float64, "boolean": pl.Boolean}
    return kinds.get(column.kind, pl.String)


def from_json(raw: Any, column: Column) -> Any:
    """A logged input as the table has it. The server let it pass, but perhaps under another schema."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return None
    if column.kind in ("number", "integer"):
        if isinstance(raw, bool) or not isinstance(raw, (int, float)):
            return None
        return float(raw) + 0.0 if abs(raw) <= LARGEST else None
    if column.kind == "boolean":
        if isinstance(raw, bool):
            return raw
        words = dict(zip(column.categories, (False, True), strict=False))
        return words.get(raw, {"true": True, "false": False}.get(str(raw).lower()))
    if column.kind == "date":
        return str(raw).strip()
    return str(raw)


def columns_of(df: polars.DataFrame, schema: Schema) -> dict[str, list[Any]]:
    """The inputs as JSON values by column, as a request would carry them."""
    found: dict[str, list[Any]] = {}
    for column in schema.inputs:
        values = df[column.name].to_list()
        if column.kind == "integer":
            values = [int(v) if v is not None and float(v).is_integer() else v for v in values]
        found[column.name] = values
    return found


def records(df: polars.DataFrame, schema: Schema) -> list[dict[str, Any]]:
    """Rows as a request would carry them, JSON values under the file's own names."""
    columns = columns_of(df, schema)
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def features(df: polars.DataFrame, schema: Schema) -> pandas.DataFrame:
    """The matrix that the model sees: shape (n rows, n features), float64 with NaN, or text with "" for missing."""
    import pandas as pd

    lenient = Schema(
        tuple(Column(c.name, c.kind, True, c.categories, c.format) for c in schema.inputs),
        schema.features,
        schema.output,
    )
    rows = from_columns(columns_of(df, schema), lenient)
    kinds = {c.name: c.kind for c in schema.inputs}
    data: dict[str, Any] = {}
    n_numbers = n_texts = 0
    for feature in schema.features:
        if kinds[feature.column] == "category":
            assert rows.cat is not None
            data[feature.name] = pd.Series(rows.cat[:, n_texts].astype(object), dtype=object)
            n_texts += 1
        else:
            assert rows.num is not None
            data[feature.name] = rows.num[:, n_numbers].astype("float64")
            n_numbers += 1
    return pd.DataFrame(data)


def target(df: polars.DataFrame, schema: Schema) -> numpy.ndarray:
    """The labels: float64, or classes in the file's own spelling as text, integers or booleans as their kind says."""
    import numpy as np

    values = df[schema.output.target].to_list()
    if schema.output.task == "regression":
        return np.asarray(values, dtype=np.float64)
    match schema.output.class_kind:
        case "integer":
            return np.asarray([int(v) for v in values], dtype=np.int64)
        case "number":
            return np.asarray([float(v) for v in values], dtype=np.float64)
        case "boolean":
            return np.asarray([v.lower() == "true" for v in values], dtype=bool)
    return np.asarray(values, dtype=object)
