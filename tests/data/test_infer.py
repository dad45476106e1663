import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from gyrostat.data import frames, report, tables
from gyrostat.data.infer import Inference, infer
from gyrostat.data.settings import ColumnSettings
from gyrostat.errors import DataError, GyrostatError, NotYetError

CASES = Path(__file__).parent.parent / "cases" / "tables"
TARGETS = dict(
    re.findall(r"^\| `([^`]+)` \| `([^`]+)`", (CASES / "README.md").read_text("utf-8"), re.M)
)


def look(name: str) -> Inference:
    path = CASES / name
    return infer(tables.read(path, tables.sniff(path).settings), TARGETS[name])


def of(text: str, target: str, tmp_path: Path, **more: str) -> Inference:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return infer(tables.read(path, tables.sniff(path).settings), target, **more)


def refusal(name: str) -> str:
    with pytest.raises(GyrostatError) as caught:
        look(name)
    return str(caught.value)


def said(inference: Inference, column: str) -> str:
    return "\n".join(str(note) for note in inference.notes if note.column == column)


def column(values: list[str]) -> str:
    """A table of the column `x` beside another feature and a numeric target."""
    rows = "".join(f'"{v}",{n % 7}.5,{n * 37 % 101}.5\n' for n, v in enumerate(values))
    return f"x,z,y\n{rows}"


def test_all_tables_are_tried() -> None:
    assert len(TARGETS) == 30
    assert {p.name for p in CASES.iterdir()} == {*TARGETS, "README.md"}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_table_is_understood_or_refused_in_words(name: str) -> None:
    try:
        found = look(name)
    except GyrostatError as error:
        assert str(error).endswith("Nothing was done.")  # noqa: PT017
        json.dumps(error.as_json(), allow_nan=False)
        return
    assert found.features
    assert len({f.name for f in found.schema().features}) == len(found.schema().features)
    assert found.schema() == type(found.schema()).from_json(found.schema().as_json())
    json.dumps(found.rules(), allow_nan=False)
    for guess in found.inputs:
        assert not guess.excluded or any(guess.excluded in n.what for n in found.notes)


# ---- never: one test for each table of tests/cases/tables/README.md ------------------------------


def test_bom_target_has_no_mark_in_its_name() -> None:
    found = look("bom-target.csv")
    assert (found.target, found.task, found.n_rows) == ("sold", "regression", 300)
    assert "integer, 5 to 336" in said(found, "sold")


def test_korean_is_korean() -> None:
    found = look("korean-cp949.csv")
    assert found.classes == ("나쁨", "보통", "좋음")
    kinds = {n: g.kind for n, g in found.columns.items()}
    assert kinds == {"상품": "category", "지역": "category", "무게(g)": "number", "당도": "number", "보관일": "integer", "등급": "category"}  # fmt: skip
    assert tables.sniff(CASES / "korean-cp949.csv").settings.encoding == "cp949"


def test_decimal_commas_are_numbers() -> None:
    found = look("decimal-comma.csv")
    assert (found.task, found.columns["Preis"].low, found.columns["Preis"].high) == ("regression", 31.35, 9187.84)  # fmt: skip
    assert "skewed" in said(found, "Preis")
    path = CASES / "decimal-comma.csv"
    rows = frames.typed(tables.read(path, tables.sniff(path).settings), found)
    assert rows["Fläche"][0] == 2305.6


def test_quoted_newlines_are_one_record() -> None:
    found = look("quoted-newlines.csv")
    assert (found.n_rows, list(found.columns)) == (240, ["minutes", "note", "severity", "channel", "solved"])  # fmt: skip
    assert "free text" in found.columns["note"].excluded


def test_a_trailing_separator_shifts_nothing() -> None:
    found = look("trailing-separator.csv")
    assert (found.columns["load"].low, found.columns["load"].high) == (101.5, 788.2)
    assert not found.columns["reading"].excluded


def test_comments_are_no_column() -> None:
    assert list(look("comment-lines.csv").columns) == ["rain_mm", "soil_ph", "warmth", "yield_t"]


def test_values_are_not_taken_as_names() -> None:
    assert "5.2, 39.4, 5, 28.0, -0.442" in refusal("no-header.csv")


def test_duplicate_names_are_told_apart_aloud() -> None:
    path = CASES / "duplicate-names.csv"
    sniffed, df = tables.load(path)
    assert df.columns == ["temp", "temp (column 2)", "line", "column 4", "temp (column 5)", "temp.1", "humidity", "output"]  # fmt: skip
    notes = "\n".join(sniffed.notes)
    assert "'temp' stands 3 times (columns 1, 2, 5), now called 'temp', 'temp (column 2)', 'temp (column 5)'" in notes  # fmt: skip
    assert "names were trimmed: ' humidity ', ' output'" in notes
    assert "column 4 has no name" in notes
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [list(row) for row in df.rows()] == [[v or None for v in row] for row in rows]
    assert len(infer(df, " output").features) == 7


def test_odd_names_stay() -> None:
    assert list(look("odd-names.csv").columns) == ["a:b", "size[cm]", "<5km", "{x}", 'say "hi"', "one, two", "home.dest", "🌡️ avg/day", "판매량 (kg)"]  # fmt: skip


def test_reserved_names_are_features() -> None:
    found = look("reserved-names.csv")
    assert [g.name for g in found.features] == ["score", "prediction", "version", "timestamp", "model"]  # fmt: skip
    assert found.columns["timestamp"].kind == "date"


def test_words_in_a_number_column_are_named_by_row() -> None:
    found = look("late-mixed.csv")
    dose = found.columns["dose"]
    assert (dose.kind, dose.n_missing) == ("number", 3)
    assert "row 387: 'pending', row 392: 'n.d.', row 399: 'see note'" in said(found, "dose")
    assert dose.declare == ColumnSettings(missing=("pending", "n.d.", "see note"))


def test_codes_stay_exact() -> None:
    found = look("codes.csv")
    assert {"00412", "0412"} <= set(found.columns["branch"].categories)
    assert len(found.columns["branch"].categories) == 7
    assert found.columns["postcode"].kind == "category"
    account = found.columns["account"]
    assert (account.kind, account.n_distinct, account.n_missing) == ("category", 348, 12)
    assert "id" in account.excluded
    assert (found.task, found.classes, found.class_kind) == ("binary", ("0", "1"), "integer")


def test_booleans_keep_their_spelling() -> None:
    found = look("booleans.csv")
    assert (found.classes, found.positive) == (("No", "Yes"), "Yes")
    two = ("paperless", "app", "family", "promo", "알림")
    assert not any(found.columns[name].excluded for name in two)
    assert found.columns["family"].categories == ("False", "True")
    assert "247 of 340 rows are blank" in said(found, "promo")


def test_days_come_first_in_all_rows() -> None:
    found = look("dates.csv")
    assert found.columns["due"].format == "%d.%m.%Y"
    assert "day first in all rows, 2025-01-01 to 2025-11-27, 9 missing" in said(found, "due")
    assert {found.columns[n].kind for n in ("ordered", "due", "seen")} == {"date"}
    assert "month" in said(found, "period")


def test_money_is_no_class() -> None:
    found = look("money.csv")
    assert (found.task, found.columns["매출"].low, found.columns["매출"].high) == ("regression", 100000, 2466000)  # fmt: skip
    forms = {n: (g.format, g.n_missing) for n, g in found.columns.items() if g.format}
    assert forms == {"마진": ("1234.5%", 0), "수량": ("1,234.5", 0), "단가": ("₩1,234.5", 0), "손익": ("1,234.5", 0), "재고": ("1,234.5", 28), "매출": ("₩1,234.5", 0)}  # fmt: skip
    assert "'(2,056)' is -2056" in said(found, "손익")
    assert "per cent" in said(found, "마진")
    path = CASES / "money.csv"
    rows = frames.typed(tables.read(path, tables.sniff(path).settings), found)
    assert (rows["손익"][1], rows["마진"][0], rows["재고"].null_count()) == (-2056.0, 14.8, 28)


def test_missing_words_make_no_category_of_numbers() -> None:
    found = look("missing-words.csv")
    missing = {n: (g.kind, g.n_missing) for n, g in found.columns.items()}
    assert missing["depth"] == ("number", 30)
    assert missing["age"] == ("number", 29)
    assert missing["width"] == ("number", 19)
    assert missing["rooms"] == ("integer", 29)
    assert "None" in found.columns["basement"].categories
    assert "87 rows" in said(found, "country")
    assert found.columns["empty"].excluded
    assert found.columns["unit"].excluded


def test_infinity_never_passes() -> None:
    found = look("infinite.csv")
    assert "holds infinity in 4 rows: 36, 56, 99, 217" in said(found, "ratio")
    assert "holds infinity in 1 row: 67" in said(found, "scale")
    assert (found.columns["ratio"].n_missing, found.columns["scale"].n_missing) == (4, 1)
    path = CASES / "infinite.csv"
    rows = frames.typed(tables.read(path, tables.sniff(path).settings), found)
    assert rows["ratio"].is_finite().sum() == 256
    assert rows["scale"].max() < 1e30


def test_many_infinities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x holds infinity in 20 rows: 1, 3"):
        of(column(["inf", "1.5"] * 20), "y", tmp_path)


def test_one_value_is_nothing_to_learn() -> None:
    message = refusal("one-value.csv")
    assert all(word in message for word in ("'status'", "'active'", "150 rows"))


def test_spellings_of_a_class_are_listed_and_joined() -> None:
    found = look("spellings.csv")
    assert found.task == "binary"
    assert {c.casefold() for c in found.classes} == {"pass", "fail"}
    told = said(found, "Result")
    assert "7 spellings of 2 values" in told
    for spelling in ("Pass", "pass", " PASS", "pass ", "Fail", "fail", "FAIL "):
        assert f"'{spelling}'" in told
    path = CASES / "spellings.csv"
    df = tables.read(path, tables.sniff(path).settings)
    labels = frames.typed(df, found)["Result"].to_list()
    assert [v.casefold() for v in labels] == [v.strip().casefold() for v in df["Result"].to_list()]
    assert set(labels) == set(found.classes)


def test_a_class_of_one_row_is_said_and_left_out() -> None:
    found = look("rare-class.csv")
    assert (found.task, found.classes) == ("multiclass", ("ash", "elm", "oak"))
    assert "'spruce' has 1 row (row 202)" in said(found, "kind")


def test_blank_targets_are_left_out() -> None:
    found = look("target-missing.csv")
    assert (found.classes, found.n_labelled) == (("0", "1"), 283)
    assert "37 of 320 rows have no label" in said(found, "signed")


def test_a_leak_and_row_numbers_are_no_features() -> None:
    found = look("leak.csv")
    assert "gives outcome away" in found.columns["outcome_code"].excluded
    assert "row number" in found.columns["column 1"].excluded
    assert [g.name for g in found.features] == ["bid", "rival", "staff"]


def test_stars_say_how_to_have_the_other_task() -> None:
    found = look("stars.csv")
    assert found.task == "regression"
    assert "task: multiclass" in said(found, "stars")


def test_an_entity_groups_the_split() -> None:
    found = look("visits.csv")
    assert (found.entity, found.group) == ("animal_no", "animal_no")
    assert "animal_no" not in [g.name for g in found.features]


def test_a_daily_date_is_no_id() -> None:
    found = look("shuffled-days.csv")
    assert found.columns["day"].kind == "date"
    assert not found.columns["day"].excluded
    assert "data.split: {by: day" in said(found, "day")


def test_personal_columns_are_no_features_and_never_shown() -> None:
    found = look("members.csv")
    assert found.personal == ("mail", "phone", "rrn", "remark")
    assert "19 rows" in said(found, "remark")
    assert found.columns["code"].excluded
    assert not found.columns["code"].is_personal
    path = CASES / "members.csv"
    shown = "\n".join(map(str, found.notes)) + json.dumps([found.schema().as_json(), found.rules()])
    for name in found.personal:
        for value in tables.read(path, tables.sniff(path).settings)[name].to_list():
            assert value not in shown


def test_five_rows_say_how_many_are_needed() -> None:
    message = refusal("five-rows.csv")
    assert "5 rows" in message
    assert "20" in message


def test_a_header_alone_has_columns() -> None:
    assert "4 columns and no rows" in refusal("header-only.csv")


def test_the_last_row_without_a_line_end_counts() -> None:
    found = look("two-columns.csv")
    assert (found.n_rows, [g.name for g in found.features]) == (220, ["distance"])


def test_parquet_types_are_read_for_what_they_are() -> None:
    found = look("types.parquet")
    kinds = {n: (g.kind, g.n_missing) for n, g in found.columns.items()}
    assert kinds["visits"] == ("integer", 31)
    assert kinds["gift"] == ("boolean", 46)
    assert kinds["at"][0] == kinds["day"][0] == "date"
    assert kinds["price"][0] == kinds["total"][0] == "number"
    assert found.columns["grade"].categories == ("a", "b", "c")


# ---- the rest ------------------------------------------------------------------------------------


def test_an_absent_target_lists_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'Qualty'.* Did you mean 'quality'"):
        of("quality,x\n1,2\n", "Qualty", tmp_path)


@pytest.mark.parametrize(
    ("values", "kind", "format"),
    [
        (["1/13/2025", "2/3/2025"], "date", "%m/%d/%Y"),
        (["13/1/2025", "2/3/2025"], "date", "%d/%m/%Y"),
        (["2025-01-13", "2025-02-03T04:05:06Z"], "date", ""),
        (["true", "FALSE"], "boolean", ""),
        (["1", "0"], "integer", ""),
        (["1.5", "2"], "number", ""),
        (["1.0", "2.0"], "number", ""),
        (["1.0", ""], "integer", ""),
        (["01", "12"], "category", ""),
        (["1234567890123456", "1"], "category", ""),
        (["1e3", "2e-2"], "number", ""),
    ],
)
def test_kinds(tmp_path: Path, values: list[str], kind: str, format: str) -> None:
    guess = of(column(values * 15), "y", tmp_path).columns["x"]
    assert (guess.kind, guess.format) == (kind, format)


def test_a_date_that_could_be_read_both_ways_is_left_out(tmp_path: Path) -> None:
    dates = [f"{1 + n % 12}/{1 + n % 11}/2025" for n in range(40)]
    assert "swapped" in of(column(dates), "y", tmp_path).columns["x"].excluded


def test_dates_in_two_orders_are_left_out_with_the_row(tmp_path: Path) -> None:
    dates = ["13.01.2025"] * 30 + ["01.13.2025"]
    assert "row 31 has '01.13.2025'" in of(column(dates), "y", tmp_path).columns["x"].excluded


@pytest.mark.parametrize("task", ["ranking", "clustering"])
def test_another_task_is_not_yet(tmp_path: Path, task: str) -> None:
    with pytest.raises(NotYetError, match="regression, binary and multiclass"):
        of(column(["1.5", "2.5"] * 15), "y", tmp_path, task=task)


def test_a_text_target_of_many_values_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{n},word{n}\n" for n in range(60))
    with pytest.raises(DataError, match="60 different values"):
        of("x,t\n" + rows, "t", tmp_path)


def whole(counts: list[int], first: int = 0) -> str:
    """A table whose target has whole numbers from `first` on, each so often."""
    labels = [first + k for k, n in enumerate(counts) for _ in range(n)]
    return "x,t\n" + "".join(f"{n}.5,{label}\n" for n, label in enumerate(labels))


@pytest.mark.parametrize(
    ("counts", "first", "task"),
    [
        ([20, 30, 25], 0, "multiclass"),
        ([15] * 10, 0, "multiclass"),
        ([20, 30, 25], 1, "regression"),
        ([90, 40, 15, 6], 0, "regression"),
        ([20, 20, 0, 20], 0, "regression"),
        ([10] * 25, 0, "regression"),
    ],
)
def test_codes_from_zero_on_are_classes_and_counts_are_numbers(
    tmp_path: Path, counts: list[int], first: int, task: str
) -> None:
    found = of(whole(counts, first), "t", tmp_path)
    assert found.task == task
    other = "regression" if task == "multiclass" else "multiclass"
    assert f"task: {other}" in said(found, "t")
    again = of(whole(counts, first), "t", tmp_path, task=other)
    assert again.task == other
    assert again.class_kind == ("integer" if other == "multiclass" else "category")


@pytest.mark.parametrize(
    ("low", "high"),
    [(4.6, 15.9), (1000.1, 1000.9), (-3.0, -1.0), (0.0, 1e-7), (0.0, 1e12), (-0.001, 7e5)],
)
def test_a_range_holds_its_own_values_with_room(tmp_path: Path, low: float, high: float) -> None:
    found = of(column([repr(low), repr(high)] * 20), "y", tmp_path)
    bottom, top = found.rules()["columns"]["x"]["range"]
    assert bottom <= low
    assert high <= top
    assert top - bottom <= 2.3 * (high - low)
    # No sign that the data never had.
    assert (bottom < 0) == (low < 0)
    assert (top > 0) == (high > 0)


def test_the_declaration_reads_the_table_as_init_did() -> None:
    for name in ("dates.csv", "late-mixed.csv", "members.csv", "leak.csv", "visits.csv", "codes.csv", "missing-words.csv"):  # fmt: skip
        path = CASES / name
        source = tables.sniff(path).settings
        df = tables.read(path, source)
        first = infer(df, TARGETS[name])
        again = infer(df, TARGETS[name], settings=first.data_settings(source))
        assert again.schema() == first.schema(), name
        assert again.rules() == first.rules(), name


def test_many_words_among_numbers_are_no_numbers(tmp_path: Path) -> None:
    values = [str(n % 40) for n in range(800)] + [f"word {n}" for n in range(30)]
    assert of(column(values), "y", tmp_path).columns["x"].kind == "category"


def test_names_of_date_parts_are_nobody_elses(tmp_path: Path) -> None:
    rows = "".join(f"2025-01-{1 + n % 28:02},{n % 7},{n}.5\n" for n in range(40))
    names = [f.name for f in of("d,d_day,d_year\n" + rows, "d_year", tmp_path).schema().features]
    assert len(set(names)) == len(names)
    assert "d_year" not in names


def test_nines_far_from_all_else_are_said(tmp_path: Path) -> None:
    found = of(column([str(n % 40) for n in range(60)] + ["-999"] * 3), "y", tmp_path)
    assert "-999 stands in 3 rows" in said(found, "x")
    assert found.columns["x"].n_missing == 0
    assert "stands in" not in said(of(column([str(n) for n in range(1000)]), "y", tmp_path), "x")


def test_numbers_among_many_words_are_said(tmp_path: Path) -> None:
    values = ["late" if n % 8 == 0 else f"{n}.5" for n in range(80)]
    found = of(column(values), "y", tmp_path)
    assert found.columns["x"].kind == "category"
    assert "88 % of its values are numbers and 10 are not" in said(found, "x")
    assert "row 1: 'late'" in said(found, "x")


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        (("no", "Yes"), "boolean"), (("N", "Y"), "boolean"), (("아니오", "예"), "boolean"), (("nein", "ja"), "boolean"),
        (("m", "f"), "category"), (("yes", "maybe"), "category"), (("Yes", "ja"), "category"),
    ],
)  # fmt: skip
def test_a_pair_of_words_for_yes_and_no_is_a_boolean(
    tmp_path: Path, pair: tuple[str, str], kind: str
) -> None:
    guess = of(column([pair[n % 3 == 0] for n in range(60)]), "y", tmp_path).columns["x"]
    assert (guess.kind, guess.categories) == (kind, pair if kind == "boolean" else tuple(sorted(pair)))  # fmt: skip


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d %b %Y", "{d} Mar 2024"), ("%Y년 %m월 %d일", "2024년 3월 {d}일"), ("%Y. %m. %d.", "2024. 3. {d}."),
        ("%b %d, %Y", "Mar {d}, 2024"), ("%d.%m.%y", "{d}.03.24"), ("%m/%d/%Y %I:%M %p", "3/{d}/2024 1:0{t} PM"), ("%Y-%m", "2024-0{t}"),
    ],
)  # fmt: skip
def test_dates_are_read_as_people_write_them(tmp_path: Path, form: str, text: str) -> None:
    values = [text.format(d=13 + n % 15, t=1 + n % 9) for n in range(60)]
    guess = of("x|z|y\n" + "".join(f"{v}|{n % 7}.5|{n * 37 % 101}.5\n" for n, v in enumerate(values)), "y", tmp_path).columns["x"]  # fmt: skip
    assert (guess.kind, guess.format) == ("date", form)
    assert guess.has_time == ("%I" in form)


def test_a_word_among_dates_is_missing_and_named(tmp_path: Path) -> None:
    values = [f"{13 + n % 15}.03.2024" for n in range(60)] + ["soon"]
    found = of(column(values), "y", tmp_path)
    assert (found.columns["x"].kind, found.columns["x"].n_missing) == ("date", 1)
    assert "row 61: 'soon'" in said(found, "x")
    assert found.columns["x"].declare == ColumnSettings("date", "%d.%m.%Y", ("soon",))


def test_a_rare_class_is_counted_as_rare(tmp_path: Path) -> None:
    rows = "".join(f"{n}.5,{'yes' if n % 50 == 0 else 'no'}\n" for n in range(400))
    assert "only 2.0 % of the rows are 'yes' (8)" in said(of("x,t\n" + rows, "t", tmp_path), "t")


@pytest.mark.parametrize("name", ["count", "value", "len", "index", "literal", "row", "n", "a", "b", "at", "text", "c0", "low"])  # fmt: skip
@pytest.mark.parametrize("is_target", [True, False])
def test_no_name_is_one_that_only_we_may_use(project: Any, name: str, is_target: bool) -> None:
    """Each of these is what some step calls a column of its own."""
    dice = random.Random(3)
    rows = []
    for n in range(80):
        day = f"2025-{1 + n // 28:02}-{1 + n % 28:02}"
        rows.append(f"{day},{dice.choice(['x', 'y', 'z'])},{n % 11},{dice.uniform(0, 9):.2f}\n")
    header = f"day,kind,other,{name}" if is_target else f"day,kind,{name},target"
    table = project(header + "\n" + "".join(rows), name if is_target else "target")
    record = table.take()
    assert record["n_rows"] == table.rows(record).height == 80
    df = tables.read(table.path, table.settings.source)
    assert report.lines(report.facts(df, table.inference, table.settings))
