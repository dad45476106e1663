from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gyrostat.data import checks
from gyrostat.data.settings import ColumnSettings
from gyrostat.errors import ConfigError


def run(rule: dict[str, Any], values: list[str | None], **settings: Any) -> dict[str, Any]:
    df = pl.DataFrame({"x": pl.Series(values, dtype=pl.String)})
    columns = {"x": ColumnSettings(**settings)}
    return checks.run(df, {"columns": {"x": rule}}, columns=columns)


def rows_of(report: dict[str, Any]) -> list[int]:
    assert report["n_broken"] <= 1
    return [e["row"] for b in report["broken"] for e in b["examples"]]


@pytest.mark.parametrize(
    ("rule", "values", "broken"),
    [
        ({"kind": "number"}, ["1", "x", " 2.5 ", "1e3", None, "NA", "inf", "1e400"], [2, 7, 8]),
        ({"kind": "integer"}, ["1", "2.0", "2.5", "", "?"], [3]),
        ({"kind": "boolean"}, ["True", "false", "yes", None], [3]),
        ({"kind": "date"}, ["2025-02-28", "2025-02-30", "soon", None], [2, 3]),
        ({"kind": "category"}, ["NA", "x", None], []),
        ({"kind": "category", "missing": "none"}, ["NA", " ", None], [2, 3]),
        ({"kind": "number", "missing": "none"}, ["1", "NA", None], [2, 3]),
        ({"range": [0, 10]}, ["0", "10", "10.01", "-1", None, "x"], [3, 4]),
        ({"values": ["a", "b"]}, ["a", " b", "c", None], [3]),
        ({"values": ["0", "1"]}, ["0", "1.0", "2"], [3]),
        ({"unique": True}, ["a", "b", "a", None, None], [1, 3]),
    ],
)
def test_a_rule_names_the_rows_that_break_it(
    rule: dict[str, Any], values: list[str | None], broken: list[int]
) -> None:
    report = run(rule, values)
    assert rows_of(report) == broken
    assert report["n_rows_broken"] == len(broken)


def test_dates_are_judged_in_their_own_form() -> None:
    values = ["28.02.2025", "30.02.2025", "02/28/2025"]
    assert rows_of(run({"kind": "date"}, values, format="%d.%m.%Y")) == [2, 3]


def test_words_declared_missing_are_missing() -> None:
    values = ["1", "pending"]
    assert rows_of(run({"kind": "number"}, values, missing=("pending",))) == []
    assert rows_of(run({"missing": "none"}, values, missing=("pending",))) == [2]


def test_a_column_that_is_gone_breaks_all_rows() -> None:
    df = pl.DataFrame({"x": ["1", "2"]})
    report = checks.run(df, {"columns": {"y": {"kind": "number", "missing": "none"}}})
    assert (report["n_broken"], report["n_rows_broken"]) == (1, 2)
    assert report["broken"][0]["rule"] == "the column is there"


def test_rows_are_counted_once_and_examples_are_few() -> None:
    df = pl.DataFrame({"x": ["a"] * 9, "y": ["b"] * 8 + ["1"]})
    report = checks.run(df, {"columns": {"x": {"kind": "number"}, "y": {"kind": "number"}}})
    assert (report["n_rules"], report["n_broken"], report["n_rows_broken"]) == (2, 2, 9)
    assert [len(b["examples"]) for b in report["broken"]] == [3, 3]


def test_values_of_personal_columns_are_masked() -> None:
    df = pl.DataFrame({"mail": ["kim@example.invalid", None]})
    rule = {"columns": {"mail": {"missing": "none", "values": ["x"]}}}
    report = checks.run(df, rule, frozenset({"mail"}))
    assert report["n_broken"] == 2
    assert "kim" not in str(report)
    assert "kim" not in "\n".join(checks.lines(report))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("columns: {x: {rnge: [0, 1]}}", "columns.x.rnge: there is no such rule"),
        ("columns: {x: {range: [1, 0]}}", "[lowest, highest]"),
        ("columns: {x: {kind: int}}", "number, integer, boolean, category, date"),
        ("columns: {x: 3}", "columns.x: a mapping"),
        ("columns: [x]", "a mapping `columns:`"),
        ("columns: {x: [", "is no YAML"),
        ("- x", "a mapping `columns:`"),
    ],
)
def test_rules_that_cannot_be_meant_are_told(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "checks.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        checks.read(path)
    assert named in str(caught.value)
    assert str(caught.value).endswith("Nothing was changed.")


def test_no_file_is_no_rules(tmp_path: Path) -> None:
    assert checks.read(tmp_path / "checks.yaml") == {"columns": {}}
