"""What a spreadsheet would run is made a text; what is a number stays one."""

import csv

import pyarrow as pa
import pytest

from gyrostat.batch import output


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"), ("+cmd", "'+cmd"), ("-2+3", "'-2+3"), ("@SUM(A1)", "'@SUM(A1)"), ("\t=1", "'\t=1"), ("\r=1", "'\r=1"),
        ("-2", "-2"), ("+1.5e3", "+1.5e3"), ("a=b", "a=b"), ("", ""), ("=\"x\"\n", "'=\"x\"\n"),
    ],
)  # fmt: skip
def test_a_formula_gets_an_apostrophe_in_text_columns_alone(tmp_path, cell, written):
    table = pa.table({"=who": [cell], "prediction": [-2.5], "kind": pa.array([cell]).dictionary_encode()})  # fmt: skip
    output.write(tmp_path / "o.csv", [table, table], as_csv=True)
    with (tmp_path / "o.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    assert names == ["'=who", "prediction", "kind"]
    assert rows == [[written, "-2.5", written]] * 2


def test_parquet_holds_texts_as_they_are(tmp_path):
    import pyarrow.parquet as pq

    table = pa.table({"who": ["=1+1"]})
    output.write(tmp_path / "o.parquet", [table], as_csv=False)
    assert pq.read_table(tmp_path / "o.parquet").equals(table)
