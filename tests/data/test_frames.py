from typing import Any

import numpy as np
import polars as pl
import pytest
from gyrostat_runtime.schema import Column, Feature, Output, Schema

from gyrostat.data import frames


def schema(task: Any = "regression", classes: tuple[str, ...] = (), kind: Any = "category") -> Schema:  # fmt: skip
    inputs = (
        Column("n", "number", True),
        Column("i", "integer"),
        Column("b", "boolean", True, ("no", "yes")),
        Column("c", "category", True, ("x", "y")),
        Column("d", "date", True, format="%d.%m.%Y"),
        Column("k", "category"),
    )
    features = (Feature("c", "c"), Feature("n", "n"), Feature("b", "b"), Feature("d_month", "d", "month"), Feature("i", "i"))  # fmt: skip
    return Schema(inputs, features, Output(task, "t", classes, kind))


ROWS = pl.DataFrame({"n": [1.5, None], "i": [3.0, 4.0], "b": [True, None], "c": [" x", None], "d": ["05.02.2025", None], "k": ["a", "b"]})  # fmt: skip


def test_the_matrix_is_what_the_schema_says() -> None:
    found = frames.features(ROWS, schema())
    assert list(found.columns) == ["c", "n", "b", "d_month", "i"]
    assert found["c"].tolist() == [" x", ""]
    assert found.drop(columns="c").iloc[0].tolist() == [1.5, 1.0, 2.0, 3.0]
    assert found.drop(columns="c").iloc[1].isna().tolist() == [True, True, True, False]
    assert [str(t) for t in found.dtypes] == ["object", *["float64"] * 4]


def test_a_record_is_what_a_request_would_carry() -> None:
    first, second = frames.records(ROWS, schema())
    assert first == {"n": 1.5, "i": 3, "b": True, "c": " x", "d": "05.02.2025", "k": "a"}
    assert type(first["i"]) is int
    assert second["n"] is second["b"] is second["c"] is second["d"] is None


@pytest.mark.parametrize(
    ("task", "classes", "kind", "label", "expected"),
    [
        ("regression", (), "category", 3, 3.0),
        ("regression", (), "category", "3", None),
        ("regression", (), "category", True, None),
        ("regression", (), "category", 1e39, None),
        ("binary", ("No", "Yes"), "category", "Yes", "Yes"),
        ("binary", ("No", "Yes"), "category", " yes", "Yes"),
        ("binary", ("No", "Yes"), "category", True, None),
        ("binary", ("False", "True"), "boolean", True, "True"),
        ("binary", ("0", "1"), "integer", 1, "1"),
        ("binary", ("0", "1"), "integer", 1.0, "1"),
        ("binary", ("0", "1"), "integer", "1", "1"),
        ("binary", ("0", "1"), "integer", 2, None),
        ("multiclass", ("a", "b", "c"), "category", "d", None),
    ],
)
def test_a_label_is_known_in_any_spelling_or_not_at_all(
    task: str, classes: tuple[str, ...], kind: str, label: Any, expected: Any
) -> None:
    assert frames.spelled(label, schema(task, classes, kind)) == expected


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("category", ["a", "b"], np.array(["a", "b"], dtype=object)),
        ("integer", ["0", "1"], np.array([0, 1])),
        ("boolean", ["False", "True"], np.array([False, True])),
        ("number", ["0.5", "1.5"], np.array([0.5, 1.5])),
    ],
)
def test_classes_have_the_type_that_their_kind_says(
    kind: Any, values: list[str], expected: Any
) -> None:
    found = frames.target(pl.DataFrame({"t": values}), schema("binary", tuple(values), kind))
    assert found.dtype == expected.dtype
    assert (found == expected).all()


@pytest.mark.parametrize("beyond", ["high", 1e39, False, None])
def test_what_the_log_holds_of_another_schema_is_missing_rather_than_wrong(beyond: Any) -> None:
    inputs = [beyond, True, "yes", "", "05.02.2025", 7]
    row = frames.from_traffic([{"inputs": inputs, "label": 1.0, "at": 5.0}], schema()).to_dicts()[0]
    assert row == {"n": None, "i": None, "b": True, "c": None, "d": "05.02.2025", "k": "7", "t": 1.0, "_seen_at": 5.0}  # fmt: skip
