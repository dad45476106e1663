"""Rows in time: the newest are held out, the cut moves on with them, and no model is compared on what it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from gyrostat_runtime.log import Frame, Label, LabelWriter, Writer
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from hypothesis import given
from hypothesis import strategies as st

from gyrostat.data import snapshots, split
from gyrostat.data.settings import DataSettings, KeySettings, SourceSettings, Span, SplitSettings
from gyrostat.errors import DataError

FIRST = date(2025, 1, 1)


def days(first: int, n: int) -> str:
    """A row a day, from the `first` day of 2025 on."""
    rows = []
    for k in range(first, first + n):
        at = FIRST + timedelta(days=k)
        rows.append(f"{at},{(37 * k) % 101},{k % 7}.5\n")
    return "".join(rows)


@pytest.fixture
def diary(project: Callable[..., Any]) -> Any:
    return project("day,x,y\n" + days(0, 200), "y")


def by_time(table: Any, holdout: str = "60d", gap: str = "", **more: Any) -> Any:
    rule = SplitSettings(Span.parse(holdout), by="day", gap=Span.parse(gap) if gap else None)
    return replace(table.settings, split=rule, **more)


def sides(table: Any, record: dict[str, Any]) -> dict[str, str]:
    rows = table.rows(record)
    return dict(zip(rows["day"].to_list(), rows["_side"].to_list(), strict=True))


def test_the_newest_span_is_held_out_and_the_gap_before_it_is_on_neither_side(diary: Any) -> None:
    record = diary.take(settings=by_time(diary, "60d", "10d"))
    found = sides(diary, record)
    last = FIRST + timedelta(days=199)
    for day, side in found.items():
        ago = (last - date.fromisoformat(day)).days
        assert side == ("heldout" if ago < 60 else "apart" if ago <= 70 else "train"), day
    assert (record["n_heldout"], record["n_apart"], record["n_train"]) == (60, 11, 129)
    assert snapshots.sides(record) == (
        "129 rows to train, 60 held out: what 'day' has from 2025-05-20 on, 11 on neither side (in the gap, or without a date)"
    )


def test_a_month_is_as_long_as_the_calendar_makes_it() -> None:
    at = datetime.fromisoformat
    assert split.before(at("2025-05-31"), Span(3, "mo")) == at("2025-02-28")
    assert split.before(at("2024-02-29T12:00:00"), Span(1, "y")) == at("2023-02-28T12:00:00")


def test_the_cut_moves_on_with_the_rows_and_the_same_rows_are_the_same_snapshot(diary: Any) -> None:
    settings = by_time(diary)
    first = diary.take(settings=settings)
    assert diary.take(settings=settings) == first
    diary.path.write_text("day,x,y\n" + days(0, 230))
    second = diary.take(settings=settings)
    then, now = sides(diary, first), sides(diary, second)
    moved = {day for day in then if then[day] != now[day]}
    assert {then[day] for day in moved} == {"heldout"}
    assert {now[day] for day in moved} == {"train"}
    assert len(moved) == 30


def test_a_row_without_a_date_teaches_nothing_and_judges_nothing(diary: Any) -> None:
    diary.path.write_text("day,x,y\n" + days(0, 200) + ",5,1.5\n,6,2.5\n")
    rules = diary.inference.rules()
    rules["columns"]["day"]["missing"] = "allowed"
    diary.declare(rules)
    assert diary.take(settings=by_time(diary))["n_apart"] == 2


def test_where_a_cut_leaves_nothing_it_is_said_from_when_to_when_the_rows_are(diary: Any) -> None:
    diary.path.write_text("day,x,y\n" + days(0, 200) + "2099-01-01,5,1.5\n")
    with pytest.raises(DataError, match=r"200 rows to train and 1 to judge.*'day' goes from 2025-01-01 to 2099-01-01, cut at 2098-11-02"):  # fmt: skip
        diary.take(settings=by_time(diary))


def test_a_column_that_holds_no_dates_cannot_say_when(diary: Any) -> None:
    with pytest.raises(DataError, match=r"data.split.by is 'x', which holds no dates but is read as"):  # fmt: skip
        diary.take(settings=replace(diary.settings, split=SplitSettings(Span(60, "d"), by="x")))
    with pytest.raises(DataError, match=r"data.keys.event_at is 'when', which is no column"):
        diary.take(settings=replace(diary.settings, keys=KeySettings(event_at="when")))


def test_a_window_of_time_keeps_what_is_inside_it(diary: Any) -> None:
    settings = replace(diary.settings, keys=KeySettings(event_at="day"), window=Span(50, "d"))
    rows = diary.rows(diary.take(settings=settings))
    assert sorted(rows["day"].to_list()) == sorted(str(FIRST + timedelta(days=k)) for k in range(150, 200))  # fmt: skip


def test_a_window_by_number_is_of_the_newest_in_time(project: Callable[..., Any]) -> None:
    newest_first = "".join(reversed(days(0, 200).splitlines(keepends=True)))
    table = project("day,x,y\n" + newest_first, "y")
    settings = replace(table.settings, keys=KeySettings(event_at="day"), window=50)
    rows = table.rows(table.take(settings=settings))
    assert min(rows["day"].to_list()) == str(FIRST + timedelta(days=150))


def test_a_labelled_prediction_that_does_not_say_when_happened_when_it_was_asked(
    diary: Any,
) -> None:
    asked = datetime.fromisoformat("2025-08-01T00:00:00+00:00").timestamp()
    writer, labels = Writer(diary.state / "log" / "m", "w"), LabelWriter(diary.state / "labels" / "m", "l")  # fmt: skip
    id = writer.next_id(asked)
    writer.append(Frame(id, asked, 1, "b", "champion", 200, 0.001, inputs=[[None, 5.0]], outputs=[1.0], scores=[1.0]))  # fmt: skip
    labels.append(Label(id, 9.5, asked + 1))
    writer.close()
    labels.close()
    record = diary.take(settings=by_time(diary, "30d"))
    assert record["split"]["cut"] == "2025-07-02T00:00:00"
    rows = diary.rows(record)
    assert rows.filter(rows["_origin"] == "traffic")["_side"].to_list() == ["heldout"]


# ---- rows that neither has seen ------------------------------------------------------------------


def unseen(table: Any, old: dict[str, Any], new: dict[str, Any]) -> tuple[list[bool] | None, Any]:
    rows = table.rows(new)
    heldout = rows.filter(rows["_side"] == "heldout")
    return snapshots.unseen(table.state, "m", old["id"], new, heldout), heldout


def check(table: Any, old: dict[str, Any], new: dict[str, Any]) -> list[bool] | None:
    """What is called unseen is exactly what the older snapshot did not train on."""
    found, heldout = unseen(table, old, new)
    then = table.rows(old)
    trained = set(then.filter(then["_side"] == "train").select("day", "x").rows())
    truth = [row not in trained for row in heldout.select("day", "x").rows()]
    assert (found or [True] * len(truth)) == truth
    return found


SCHEMA = Schema((Column("day", "date"),), (Feature("day_year", "day", "year"),), Output("regression", "y"))  # fmt: skip


@given(
    st.lists(st.integers(0, 800), min_size=1, max_size=40),
    st.lists(st.integers(0, 800), max_size=40),
    st.integers(1, 13),
    st.sampled_from(["d", "w", "mo"]),
    st.sampled_from([None, Span(3, "d"), Span(1, "mo")]),
)
def test_whatever_rows_come_none_that_was_trained_on_is_held_out(
    first: list[int], more: list[int], n: int, unit: str, gap: Span | None
) -> None:
    """The property that lets an evaluation skip looking."""
    settings = DataSettings(SourceSettings("t.csv"), "y", "regression", split=SplitSettings(Span(n, unit), by="day", gap=gap))  # fmt: skip

    def sided(days: list[int]) -> dict[int, str]:
        df = pl.DataFrame({"day": [str(FIRST + timedelta(days=k)) for k in days]})
        return dict(zip(days, split.sides(df, settings, SCHEMA), strict=True))

    then, now = sided(first), sided(first + more)
    assert not [k for k in then if then[k] == "train" and now[k] == "heldout"]


def test_nothing_is_looked_at_while_the_cut_moves_on(diary: Any) -> None:
    first = diary.take(settings=by_time(diary))
    diary.path.write_text("day,x,y\n" + days(0, 230))
    assert check(diary, first, diary.take(settings=by_time(diary))) is None


def test_after_a_cut_that_went_back_what_the_champion_saw_is_left_out(diary: Any) -> None:
    first = diary.take(settings=by_time(diary, "60d"))
    found = check(diary, first, diary.take(settings=by_time(diary, "90d")))
    assert found is not None
    assert found.count(False) == 30


@pytest.mark.parametrize("holdout", [0.2, 0.35])
def test_where_rows_changed_sides_what_the_champion_saw_is_left_out(
    diary: Any, holdout: float
) -> None:
    """A larger share; and a new column, which draws the sides of all rows anew."""
    first = diary.take()
    if holdout == 0.2:
        text = diary.path.read_text().splitlines()
        wider = ["day,x,y,z", *(f"{line},{n % 5}" for n, line in enumerate(text[1:]))]
        diary.path.write_text("\n".join(wider))
    second = diary.take(settings=replace(diary.settings, split=SplitSettings(holdout)))
    found = check(diary, first, second)
    assert found is not None
    assert 0 < found.count(True) < len(found)


def test_a_record_of_a_release_that_did_not_keep_its_rule_is_looked_at(diary: Any) -> None:
    first = diary.take()
    path = diary.state / "snapshots" / "m" / f"{first['id']}.json"
    path.write_text(path.read_text().replace('"split"', '"was"'))
    diary.path.write_text("day,x,y\n" + days(0, 230))
    assert check(diary, first, diary.take()) is not None
