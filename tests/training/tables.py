"""Tables and schemas that packing is tested on: cents, counts, gaps, Korean and empty text, names that collide."""

from __future__ import annotations

import io

import cloudpickle
import numpy as np
import pandas as pd
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def a_table(n=400, *, seed=0, has_text=False):
    """Features and a numeric target that depends on all of them."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "fixed acidity": np.round(rng.normal(5, 2, n), 2),
            "num": rng.integers(0, 50, n).astype(float),
            "a b": np.round(np.exp(rng.normal(3, 1, n)), 1),
        }
    )
    if has_text:
        table.loc[rng.random(n) < 0.1, "a b"] = np.nan
        table["city"] = rng.choice(["서울", "Berlin", "", "São Paulo"], n).astype(object)
        table["a_b"] = rng.choice(["x", "y"], n).astype(object)
    z = table["fixed acidity"] + 0.1 * table["num"] + np.log1p(table["a b"].fillna(10))
    if has_text:
        z = z + 2 * (table["city"] == "서울")
    return table, (z + rng.normal(0, 1, n)).to_numpy()


def targets(z):
    """The same target for each task: numbers, yes and no, three classes."""
    middle, thirds = np.median(z), np.quantile(z, [0.3, 0.7])
    three = np.array(["low", "mid", "high"], dtype=object)[np.digitize(z, thirds)]
    return {
        "regression": z,
        "binary": np.where(z > middle, "yes", "no").astype(object),
        "multiclass": three,
    }


def a_schema(table, task):
    """What `table` looks like as a request."""
    columns = []
    for name in table:
        values = table[name]
        if values.dtype.kind == "f":
            columns.append(Column(name, "number", bool(values.isna().any())))
        else:
            seen = tuple(sorted(set(values) - {""}))
            columns.append(Column(name, "category", bool((values == "").any()), seen))
    outputs = {
        "regression": Output("regression", "quality"),
        "binary": Output("binary", "quality", ("no", "yes"), positive="yes"),
        "multiclass": Output("multiclass", "quality", ("high", "low", "mid")),
    }
    return Schema(tuple(columns), tuple(Feature(n, n) for n in table), outputs[task])


def as_columns(table):
    """The columns as a file holds them: None where a value is missing."""
    return {
        name: [None if v == "" or v != v else v for v in table[name].tolist()] for name in table
    }


def prepared(table):
    """The preprocessing that `init` writes, by names of columns."""
    numbers = [c for c in table if table[c].dtype.kind == "f"]
    texts = [c for c in table if c not in numbers]
    steps = [
        (
            "numbers",
            make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
            numbers,
        )
    ]
    if texts:
        steps.append(("texts", OneHotEncoder(handle_unknown="ignore"), texts))
    return ColumnTransformer(steps)


def pickled(model, path):
    """The model in a file, as training leaves it."""
    buffer = io.BytesIO()
    cloudpickle.dump(model, buffer)
    path.write_bytes(buffer.getvalue())
    return path
