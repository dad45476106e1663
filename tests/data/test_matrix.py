"""A row of a batch is read as training reads it, and answered or refused as the model server does."""

import datetime

import numpy as np
import polars as pl
import pytest
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from hypothesis import given
from hypothesis import strategies as st

from gyrostat.data.matrix import MatrixReader
from gyrostat.data.settings import ColumnSettings, DataSettings, SourceSettings
from gyrostat.serving import csv_rows

PARTS = ("year", "month", "day", "weekday", "seconds")


def a_schema(*, nullable=False):
    columns = (
        Column("size", "number", nullable),
        Column("rooms", "integer", nullable),
        Column("city", "category", nullable, ("seoul", "busan")),
        Column("new", "boolean", nullable, ("no", "yes")),
        Column("sold", "date", nullable, format="%d.%m.%Y"),
    )
    plain = tuple(Feature(c.name, c.name) for c in columns[:4])
    dates = tuple(Feature(f"sold_{part}", "sold", part) for part in PARTS)
    return Schema((*columns, Column("note", "category")), (*plain, *dates), Output("regression", "price"))  # fmt: skip


def settings(columns=None, **source):
    return DataSettings(SourceSettings("t.csv", **source), "price", "regression", columns=columns or {})  # fmt: skip


def texts(**columns):
    return pl.DataFrame([pl.Series(n, v, dtype=pl.String) for n, v in columns.items()])


def same(a, b):
    return (a is None and b is None) or np.array_equal(a, b, equal_nan=a.dtype != object)


ROW = st.fixed_dictionaries({
    "size": st.sampled_from(["", "1", "-2.5", " 3 ", "1e3", ".5", "x", "1,5", "0x1", "1e39", "--1", "１", "1_0", "inf"]),
    "rooms": st.sampled_from(["", "3", "3.0", "2.5", "-1", "9" * 18, "9" * 25, "three"]),
    "city": st.sampled_from(["", "seoul", "Seoul", " busan", "daegu", "=1"]),
    "new": st.sampled_from(["", "yes", "no", "true", "False", "1", "maybe"]),
    "sold": st.sampled_from(["", "01.03.2024", "2024-03-01", "2024-03-01T10:20:30+09:00", "31.02.2024", "soon", "03/01/24"]),
})  # fmt: skip


@given(st.lists(ROW, min_size=1, max_size=8), st.booleans(), st.sampled_from(["as_trained", "refuse"]), st.sampled_from(["answer", "refuse"]))  # fmt: skip
def test_each_row_is_answered_and_refused_as_the_server_does(rows, nullable, missing, new_category):
    schema = a_schema(nullable=nullable)
    frame = texts(**{name: [row[name] or None for row in rows] for name in rows[0]})
    matrix = MatrixReader(schema, settings(), missing, new_category).read(frame, {})
    places = range(len(rows)) if matrix.places is None else matrix.places.tolist()
    assert sorted([*places, *matrix.faults]) == list(range(len(rows)))
    for n, row in enumerate(rows):
        body = ",".join(row) + "\n" + ",".join(f'"{v}"' for v in row.values()) + "\n"
        try:
            wanted = csv_rows.read(body.encode(), schema, missing=missing, new_category=new_category)  # fmt: skip
        except InputFault:
            wanted = None
        assert (wanted is None) == (n in matrix.faults), (row, matrix.faults)
        if wanted is None:
            continue
        place = [*places].index(n)
        assert same(wanted.num[0], matrix.rows.num[place]), row
        assert same(wanted.cat[0], matrix.rows.cat[place]), row


def test_a_refusal_is_in_the_servers_own_words_and_names_the_first_column():
    frame = texts(size=["x", "1"], rooms=["y", "2.5"], city=["seoul"] * 2, new=["no"] * 2, sold=["2024-01-01"] * 2)  # fmt: skip
    faults = MatrixReader(a_schema(), settings()).read(frame, {}).faults
    assert faults == {
        0: "'size': a number is needed, got the text \"x\"",
        1: "'rooms': a whole number is needed, this has a fraction",
    }


def test_numbers_and_words_for_nothing_are_read_as_training_reads_them():
    schema = a_schema(nullable=True)
    columns = {"rooms": ColumnSettings("integer", missing=("99",)), "size": ColumnSettings("number", "1.234,5")}  # fmt: skip
    frame = texts(size=["1.234,5", "NA", "nan", "7"], rooms=["99", "N/A", "3", "4"], city=["NA", None, "x", "y"],
                  new=["YES", "?", "no", "true"], sold=["-", "01.03.2024", "n/a", "2024-03-01"])  # fmt: skip
    matrix = MatrixReader(schema, settings(columns)).read(frame, {})
    assert not matrix.faults
    num, nan = matrix.rows.num, float("nan")
    assert same(num[:, 0], np.array([1234.5, nan, nan, 7]))
    assert same(num[:, 1], np.array([nan, nan, 3, 4]))
    assert same(num[:, 2], np.array([1, nan, 0, 1]))
    assert same(num[:, 3], np.array([nan, 2024, nan, 2024]))
    assert matrix.rows.cat[:, 0].tolist() == ["NA", "", "x", "y"]


def test_what_has_a_type_in_the_file_is_that_whatever_the_texts_of_the_source_look_like():
    columns = {"size": ColumnSettings("number", "1.234,5")}
    frame = pl.DataFrame({
        "size": pl.Series([1234.5, float("nan"), 1e39, None]), "rooms": pl.Series([1, 2, 3, 4], dtype=pl.Int8), "city": [1, 2, 3, 4],
        "new": [True, False, True, None], "sold": [datetime.date(2024, 3, 1)] * 4,
    })  # fmt: skip
    matrix = MatrixReader(a_schema(nullable=True), settings(columns, decimal=",", thousands=".")).read(frame, {})  # fmt: skip
    assert list(matrix.faults) == [2]
    assert matrix.faults[2].startswith("'size': beyond")
    assert same(matrix.rows.num[:, :3], np.array([[1234.5, 1, 1], [np.nan, 2, 0], [np.nan, 4, np.nan]]))  # fmt: skip
    assert matrix.rows.num[0, 3:].tolist() == [2024, 3, 1, 4, 0]
    assert matrix.rows.cat[:, 0].tolist() == ["1", "2", "4"]


def test_what_a_model_does_not_see_is_not_needed_and_a_known_fault_stays():
    reader = MatrixReader(a_schema(), settings())
    assert reader.needed == ["size", "rooms", "city", "new", "sold"]
    frame = texts(size=[None, "1"], rooms=[None, "1"], city=[None, "x"], new=[None, "no"], sold=[None, "2024-01-01"])  # fmt: skip
    matrix = reader.read(frame, {0: "no row"})
    assert matrix.faults == {0: "no row"}
    assert matrix.rows.n == 1


def test_a_personal_value_is_not_repeated():
    schema = a_schema()
    private = Schema(schema.inputs, schema.features, schema.output, ("size",))
    frame = texts(size=["010-1234"], rooms=["1"], city=["x"], new=["no"], sold=["2024-01-01"])
    assert "010" not in MatrixReader(private, settings()).read(frame, {}).faults[0]


def test_lists_are_no_values():
    from gyrostat.errors import DataError

    frame = pl.DataFrame({"size": [[1.0]], "rooms": [1], "city": ["x"], "new": [True], "sold": ["2024-01-01"]})  # fmt: skip
    with pytest.raises(DataError, match="plain values"):
        MatrixReader(a_schema(), settings()).read(frame, {})
