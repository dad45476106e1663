"""From texts to typed values, and from typed rows to the matrix that a model sees, in training as in serving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gyrostat_runtime.rows import from_columns
from gyrostat_runtime.schema import Column, Schema

from gyrostat.data.infer import NUMBER, Inference

if TYPE_CHECKING:
    import numpy
    import pandas
    import polars


def typed(df: polars.DataFrame, inference: Inference) -> polars.DataFrame:
    """The inputs and the target of a table of texts: numbers as Float64, booleans, categories and dates as text.

    What is no value of its column's kind becomes null; the checks say so.
    """
    import polars as pl

    wanted = [*inference.features, inference.columns[inference.target]]
    columns = []
    for guess in wanted:
        values = df[guess.name].to_list()
        missing = frozenset(guess.missing_words)
        plain = [
            v.strip() if v is not None and v.strip() and v.strip() not in missing else None
            for v in values
        ]
        if guess.name == inference.target:
            columns.append(_target(guess.name, plain, inference))
        elif guess.kind in ("number", "integer"):
            numbers = [_number(v) for v in plain]
            columns.append(pl.Series(guess.name, numbers, dtype=pl.Float64))
        elif guess.kind == "boolean":
            booleans = [{"true": True, "false": False}.get(v.lower()) if v else None for v in plain]
            columns.append(pl.Series(guess.name, booleans, dtype=pl.Boolean))
        else:
            columns.append(pl.Series(guess.name, plain, dtype=pl.String))
    return pl.DataFrame(columns)


def _number(text: str | None) -> float | None:
    if text is None or not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) != float("inf") else None


def _target(name: str, plain: list[str | None], inference: Inference) -> Any:
    import polars as pl

    if not inference.classes:
        return pl.Series(name, [_number(v) for v in plain], dtype=pl.Float64)
    known = frozenset(inference.classes)
    if inference.class_kind == "integer":
        plain = [str(int(float(v))) if v and NUMBER.fullmatch(v) else None for v in plain]
    return pl.Series(name, [v if v in known else None for v in plain], dtype=pl.String)


def spelled(label: Any, schema: Schema) -> Any:
    """A label as the table has it: a float, or a class in the file's own spelling; None if it is neither."""
    output = schema.output
    if output.task == "regression":
        return (
            float(label)
            if isinstance(label, (int, float)) and not isinstance(label, bool)
            else None
        )
    text = (
        str(label)
        if not isinstance(label, bool)
        else next((c for c in output.classes if c.lower() == str(label).lower()), str(label))
    )
    if isinstance(label, float) and label.is_integer() and text not in output.classes:
        text = str(int(label))
    return text if text in output.classes else None


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

    def value(column: Column, raw: Any) -> Any:
        if raw is None:
            return None
        if column.kind in ("number", "integer"):
            return float(raw)
        if column.kind == "boolean":
            return raw if isinstance(raw, bool) else str(raw).lower() == "true"
        return str(raw)

    kinds = {"number": pl.Float64, "integer": pl.Float64, "boolean": pl.Boolean}
    data: dict[str, Any] = {}
    for n, column in enumerate(schema.inputs):
        values = [value(column, row["inputs"][n]) for row in rows]
        data[column.name] = pl.Series(column.name, values, dtype=kinds.get(column.kind, pl.String))
    labels = [spelled(row["label"], schema) for row in rows]
    is_number = schema.output.task == "regression"
    data[schema.output.target] = pl.Series(
        schema.output.target, labels, dtype=pl.Float64 if is_number else pl.String
    )
    data["_seen_at"] = pl.Series("_seen_at", [float(row["at"]) for row in rows], dtype=pl.Float64)
    return pl.DataFrame(data)


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
