import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from hypothesis import given
from hypothesis import strategies as st

from gyrostat.data import frames, split
from gyrostat.data.settings import DataSettings, KeySettings, SourceSettings, SplitSettings
from gyrostat.errors import ConfigError

SCHEMA = Schema(
    (
        Column("id", "category"),
        Column("a", "number"),
        Column("n", "integer"),
        Column("t", "category"),
        Column("b", "boolean", categories=("no", "yes")),
        Column("when", "date", format="%d.%m.%Y"),
    ),
    tuple(Feature(name, name) for name in ("a", "n", "t", "b")),
    Output("regression", "y"),
)
SETTINGS = DataSettings(SourceSettings("t.csv"), "y", "regression")


def rows_of(values: list[dict[str, Any]]) -> pl.DataFrame:
    kinds = {"id": pl.String, "a": pl.Float64, "n": pl.Float64, "t": pl.String, "b": pl.Boolean, "when": pl.String}  # fmt: skip
    return pl.DataFrame(
        [pl.Series(n, [v.get(n) for v in values], dtype=k) for n, k in kinds.items()]
    )


def sides(values: list[dict[str, Any]], **split_settings: Any) -> list[str]:
    settings = replace(SETTINGS, split=SplitSettings(**split_settings))
    return split.sides(rows_of(values), settings, SCHEMA)


def test_about_the_declared_share_is_held_out() -> None:
    n = 4000
    found = sides([{"a": k / 7, "n": k} for k in range(n)], holdout=0.2).count("heldout")
    assert abs(found - 0.2 * n) < 4 * math.sqrt(n * 0.2 * 0.8)


def test_twins_are_together_though_their_ids_differ() -> None:
    rows = [{"id": f"{copy}", "a": k / 7, "t": "x"} for k in range(200) for copy in range(3)]
    found = sides(rows)
    assert all(len(set(found[3 * k : 3 * k + 3])) == 1 for k in range(200))
    assert set(found) == {"train", "heldout"}


def test_a_side_depends_on_the_row_alone() -> None:
    rows = [{"a": k / 7, "t": "x"} for k in range(300)]
    assert sides(rows)[100:200] == sides(rows[100:200])
    assert sides(rows)[::-1] == sides(rows[::-1])


def test_more_held_out_keeps_those_that_were() -> None:
    rows = [{"a": k / 7} for k in range(500)]
    few, many = sides(rows, holdout=0.2), sides(rows, holdout=0.4)
    assert all(m == "heldout" for f, m in zip(few, many, strict=True) if f == "heldout")


@pytest.mark.parametrize("key", ["group", "entity"])
def test_a_group_is_on_one_side(key: str) -> None:
    rows = rows_of([{"id": f"g{k % 40}", "a": k / 7} for k in range(400)])
    settings = (
        replace(SETTINGS, split=SplitSettings(group="id"))
        if key == "group"
        else replace(SETTINGS, keys=KeySettings(entity="id"))
    )
    found = split.sides(rows, settings, SCHEMA)
    assert all(len({found[k] for k in range(g, 400, 40)}) == 1 for g in range(40))
    assert set(found) == {"train", "heldout"}


def test_a_row_without_its_group_is_sided_by_itself() -> None:
    rows = [{"id": None, "a": k / 7} for k in range(200)]
    assert sides(rows, group="id") == sides(rows)


def test_time_is_cut_by_the_date_and_not_by_its_spelling() -> None:
    rows = [{"when": w} for w in ("31.12.2024", "01.04.2025", "02.03.2025", "2025-05-01", None)]
    assert sides(rows, by="when", cut="2025-04-01") == ["train", "heldout", "train", "heldout", "apart"]  # fmt: skip


def test_a_cut_that_is_no_date_is_told() -> None:
    with pytest.raises(ConfigError, match="spring"):
        sides([{"when": "01.04.2025"}], by="when", cut="spring")


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.integers(-(2**52), 2**52),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from([True, False, None]),
)
def test_a_row_through_json_has_the_side_and_the_bytes_it_had(
    a: float, n: int, t: str, b: bool | None
) -> None:
    rows = rows_of(
        [{"id": "k", "a": a + 0.0, "n": n, "t": t if t.strip() else None, "b": b, "when": None}]
    )
    sent = json.loads(json.dumps(frames.records(rows, SCHEMA), allow_nan=False))
    logged = [{"inputs": [record[c.name] for c in SCHEMA.inputs], "label": 1, "at": 0.0} for record in sent]  # fmt: skip
    back = frames.from_traffic(logged, SCHEMA)
    names = [c.name for c in SCHEMA.inputs]
    assert split.canonical([back[c] for c in names]) == split.canonical([rows[c] for c in names])
    assert split.sides(back, SETTINGS, SCHEMA) == split.sides(rows, SETTINGS, SCHEMA)


@given(st.lists(st.text(max_size=4), min_size=2, max_size=2), st.lists(st.text(max_size=4), min_size=2, max_size=2))  # fmt: skip
def test_different_rows_are_different_bytes(left: list[str], right: list[str]) -> None:
    one = split.canonical([pl.Series("a", [left[0], right[0]]), pl.Series("b", [left[1], right[1]])])  # fmt: skip
    assert (one[0] == one[1]) == (left == right)


def test_a_text_cannot_reach_into_its_neighbour() -> None:
    left, right = pl.Series("a", ["a\x1fb", "a"]), pl.Series("b", ["c", "b\x1fc"])
    one, other = split.canonical([left, right])
    assert one != other


def test_a_hashed_personal_column_moves_no_row() -> None:
    schema = replace(SCHEMA, features=(*SCHEMA.features, Feature("id", "id")), personal=("id",))
    rows = [{"a": k / 7} for k in range(200)]
    plain = rows_of([{**row, "id": "kim"} for row in rows])
    hashed = rows_of([{**row, "id": "9f2c"} for row in rows])
    assert split.sides(plain, SETTINGS, schema) == split.sides(hashed, SETTINGS, schema)


def test_no_animal_is_on_both_sides(project: Callable[..., Any]) -> None:
    from pathlib import Path

    table = project(Path(__file__).parent.parent / "cases" / "tables" / "visits.csv", "dose")
    rows = table.rows(table.take())
    by_side = {s: set(rows.filter(rows["_side"] == s)["animal_no"]) for s in ("train", "heldout")}
    assert by_side["train"]
    assert by_side["heldout"]
    assert not by_side["train"] & by_side["heldout"]
