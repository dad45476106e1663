import json
import math

import numpy as np
import pytest
from gyrostat_runtime import rows as rows_module
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.rows import date_parts, from_columns, read_json, read_records
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOOD = {"temperature": 21.5, "humidity": 0.4, "rooms": 3, "city": "seoul", "is_new": True}
OUT = Output("regression", "y")


@pytest.fixture(params=["msgspec", "json"], autouse=True)
def reader(request, monkeypatch):
    """Both readers must say the same: msgspec where it is installed, the standard library where it is not."""
    if request.param == "json":
        monkeypatch.setattr(rows_module, "_decode", None)
    return request.param


def body(value) -> bytes:
    return json.dumps(value).encode()


def refused(raw, schema, **settings) -> InputFault:
    with pytest.raises(InputFault) as caught:
        read_json(raw if isinstance(raw, bytes) else body(raw), schema, **settings)
    return caught.value


def one(name: str, value, schema: Schema):
    return {"dataframe_records": [GOOD, GOOD | {name: value}]}, schema


def a_schema(*columns: Column, personal=(), features=None) -> Schema:
    if features is None:
        features = tuple(Feature(c.name, c.name) for c in columns if c.kind != "date")
    return Schema(columns, features, OUT, personal)


@pytest.mark.parametrize(
    "form",
    [
        {"dataframe_split": {"columns": list(GOOD), "data": [list(GOOD.values())] * 2}},
        {"dataframe_records": [GOOD, dict(reversed(GOOD.items()))]},
        {"instances": [GOOD, GOOD]},
        {"instances": [list(GOOD.values())] * 2},
        {"inputs": [GOOD, GOOD]},
        {"inputs": [list(GOOD.values())] * 2},
        {"inputs": {name: [value] * 2 for name, value in reversed(GOOD.items())}},
    ],
)
def test_all_forms_mean_the_same_rows(form, homes):
    read = read_json(body(form), homes)

    np.testing.assert_array_equal(read.num, [[21.5, 0.4, 3.0, 1.0]] * 2)
    assert read.cat.tolist() == [["seoul"], ["seoul"]]
    assert read.inputs == [list(GOOD.values())] * 2
    assert (read.new, read.missing) == ({}, {})


@pytest.mark.parametrize("n", [1, 5, 400])
def test_few_rows_and_many_take_different_ways_to_the_same_matrix(n, homes):
    records = [
        GOOD | {"temperature": None if i % 3 == 0 else i / 7, "rooms": i, "city": f"c{i % 2}"}
        for i in range(n)
    ]
    read = read_json(body({"dataframe_records": records}), homes)

    expected = [[math.nan if i % 3 == 0 else i / 7, 0.4, float(i), 1.0] for i in range(n)]
    np.testing.assert_array_equal(read.num, expected)
    assert read.num.dtype == np.float64
    assert read.num.flags.c_contiguous
    assert read.missing == {"temperature": (n + 2) // 3}
    assert read.new == {"city": n}


@pytest.mark.parametrize("n", [3, 300])
@pytest.mark.parametrize("bad", ["7", True, [1], {}, 1e39, -1e39, 10**400, None])
def test_a_bad_number_is_found_in_few_rows_and_in_many(n, bad):
    schema = a_schema(Column("a", "number"), Column("b", "number"))
    data = [[float(i), 1] for i in range(n)]
    data[n - 1][1] = bad

    for form, at in [
        (
            {"dataframe_split": {"columns": ["a", "b"], "data": data}},
            f"$.dataframe_split.data[{n - 1}][1]",
        ),
        ({"instances": data}, f"$.instances[{n - 1}][1]"),
        (
            {"dataframe_records": [{"a": a, "b": b} for a, b in data]},
            f"$.dataframe_records[{n - 1}].b",
        ),
        (
            {"inputs": {"b": [b for _, b in data], "a": [a for a, _ in data]}},
            f"$.inputs.b[{n - 1}]",
        ),
    ]:
        fault = refused(form, schema)
        assert (fault.status, fault.at) == (400, at)


def test_the_largest_float32_is_answered_and_the_next_is_not(homes):
    largest = float(np.finfo(np.float32).max)
    read = read_json(body(one("temperature", largest, homes)[0]), homes)

    assert np.isfinite(read.num.astype(np.float32)).all()
    assert refused(*one("temperature", 3.40282366e38, homes)).code == "serving.out_of_range"


@pytest.mark.parametrize(
    ("value", "is_fine"), [(3, 1), (3.0, 1), (-2, 1), (2.5, 0), (2**63, 0), (1e300, 0)]
)
def test_a_whole_number_may_be_written_as_float_but_not_broken(value, is_fine, homes):
    form = one("rooms", value, homes)[0]
    if is_fine:
        assert read_json(body(form), homes).num[1, 2] == value
    else:
        assert refused(form, homes).at == "$.dataframe_records[1].rooms"


@pytest.mark.parametrize("value", [0, 1, "true", "True", "yes", 1.0])
def test_only_true_and_false_are_booleans(value, homes):
    assert refused(*one("is_new", value, homes)).code == "serving.wrong_type"


def test_a_boolean_in_the_files_spelling_is_read_where_the_schema_knows_it():
    schema = a_schema(Column("member", "boolean", True, ("no", "yes")))
    read = read_json(body({"instances": [["yes"], ["no"], [True], [None]]}), schema)

    np.testing.assert_array_equal(read.num[:, 0], [1, 0, 1, math.nan])
    assert "'no' or 'yes'" in refused({"instances": [["Yes"]]}, schema).message


@pytest.mark.parametrize("value", [None, ""])
def test_missing_text_is_empty_text_and_counted(value, homes):
    read = read_json(body(one("city", value, homes)[0]), homes)

    assert read.cat[1, 0] == ""
    assert (read.missing, read.new) == ({"city": 1}, {})


def test_missing_values_can_be_refused_altogether(homes):
    fault = refused(*one("temperature", None, homes), missing="refuse")

    assert (fault.code, fault.at) == ("serving.missing_value", "$.dataframe_records[1].temperature")


def test_new_categories_are_counted_or_refused(homes):
    form = {
        "inputs": {n: [v, v, v] for n, v in GOOD.items()} | {"city": ["jeju", "seoul", "ulsan"]}
    }

    assert read_json(body(form), homes).new == {"city": 2}
    fault = refused(form, homes, new_category="refuse")
    assert (fault.code, fault.at) == ("serving.new_category", "$.inputs.city[0]")


def test_a_column_without_a_feature_may_be_left_out_and_is_logged_as_null():
    schema = a_schema(
        Column("name", "category"), Column("a", "number"), features=(Feature("a", "a"),)
    )
    read = read_json(body({"dataframe_records": [{"a": 1}, {"a": 2, "name": "kim"}]}), schema)

    assert read.inputs == [[None, 1], ["kim", 2]]
    assert read.cat is None
    assert read.num.tolist() == [[1.0], [2.0]]


def test_a_personal_value_never_stands_in_a_message():
    schema = a_schema(
        Column("id", "integer"), Column("phone", "category"), personal=("id", "phone")
    )
    for row in (["010-1234", "x"], [1, 1234], [12.34, "x"], [[1234], "x"]):
        fault = refused({"instances": [row]}, schema)
        assert "1234" not in fault.message
        assert "12.34" not in fault.message


def test_a_date_becomes_the_parts_that_the_model_was_trained_with():
    schema = a_schema(
        Column("at", "date"),
        Column("n", "number"),
        features=(
            Feature("n", "n"),
            Feature("at_weekday", "at", "weekday"),
            Feature("at_seconds", "at", "seconds"),
            Feature("at_year", "at", "year"),
        ),
    )
    read = read_json(body({"instances": [["2026-11-25T10:00:01", 7], ["2024-02-29", 8]]}), schema)

    assert read.num.tolist() == [[7.0, 2.0, 36001.0, 2026.0], [8.0, 3.0, 0.0, 2024.0]]
    assert refused({"instances": [["2023-02-29", 7]]}, schema).at == "$.instances[0][0]"
    assert refused({"instances": [[20260101, 7]]}, schema).code == "serving.wrong_type"


@pytest.mark.parametrize(
    ("text", "format", "parts"),
    [
        ("2026-11-25", "", (2026, 11, 25, 2, 0)),
        ("25/11/2026 01:00", "%d/%m/%Y %H:%M", (2026, 11, 25, 2, 3600)),
        ("2026-11-25", "%d/%m/%Y", (2026, 11, 25, 2, 0)),
        ("2026-11-25T23:30:00-01:00", "", (2026, 11, 26, 3, 1800)),
        ("2026-11-25T00:00:00Z", "", (2026, 11, 25, 2, 0)),
    ],
)
def test_dates_are_read_in_the_columns_form_or_iso_8601_and_in_utc(text, format, parts):
    assert date_parts(text, format) == parts


@pytest.mark.parametrize("n", [1, 30])
@pytest.mark.parametrize("text", ["plain", "a:b", 'q"uo:te', "한국:어"])
def test_a_colon_in_a_text_is_no_second_key_and_does_not_hide_one(n, text, homes):
    good = json.dumps(GOOD | {"city": text}, ensure_ascii=False)
    rows = ",".join([good] * n)

    assert read_json(f'{{"dataframe_records":[{rows}]}}'.encode(), homes).n == n
    twice = good[:-1] + ',"humidity":0.9}'
    fault = refused(f'{{"dataframe_records":[{rows},{twice}]}}'.encode(), homes)
    assert (fault.code, fault.at) == ("serving.duplicate_column", f"$.dataframe_records[{n}]")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff", "not_json"),
        (b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (b'{"dataframe_split":{"columns":["a","b"],"index":[NaN],"data":[[1,2]]}}', "not_json"),
        (b'{"instances":[[1,2]],"instances":[[3,4]]}', "duplicate_column"),
        (b"[]", "form"),
        (b"{}", "form"),
        (b'{"rows":[[1,2]]}', "form"),
        (b'{"instances":[[1,2]],"params":{}}', "form"),
        (b'{"instances":null}', "form"),
        (b'{"instances":[]}', "no_rows"),
        (b'{"inputs":{}}', "missing_column"),
        (b'{"inputs":{"a":[],"b":[]}}', "no_rows"),
        (b'{"inputs":{"a":[1],"b":[1,2]}}', "ragged"),
        (b'{"inputs":{"a":1,"b":2}}', "wrong_type"),
        (b'{"instances":[[1,2],[1,2,3]]}', "ragged"),
        (b'{"instances":[[1,2],{"a":1,"b":2}]}', "wrong_type"),
        (b'{"instances":[{"a":1,"b":2},[1,2]]}', "wrong_type"),
        (b'{"instances":[{"a":1,"b":2},"ab"]}', "wrong_type"),
        (b'{"instances":[1,2]}', "wrong_type"),
        (b'{"dataframe_split":[[1,2]]}', "form"),
        (b'{"dataframe_split":{"data":[[1,2]]}}', "form"),
        (b'{"dataframe_split":{"columns":["a","b"],"data":[[1,2]],"dtype":1}}', "form"),
        (b'{"dataframe_split":{"columns":["a",1],"data":[[1,2]]}}', "wrong_type"),
        (b'{"dataframe_split":{"columns":["a",null],"data":[]}}', "wrong_type"),
        (b'{"dataframe_split":{"columns":[["a"],"b"],"data":[[1,2]]}}', "wrong_type"),
        (b'{"dataframe_split":{"columns":["a"],"data":[[1]]}}', "missing_column"),
        (b'{"dataframe_split":{"columns":["a","b","\\ud800"],"data":[[1,2,3]]}}', "unknown_column"),
    ],
)
def test_what_is_no_request_is_refused_with_its_code(raw, code, pair):
    fault = refused(raw, pair)

    assert fault.code == f"serving.{code}"
    (fault.message + fault.at).encode()  # can be sent


def test_the_plain_form_is_one_record_or_several(homes):
    assert read_records(body(GOOD), homes).n == 1
    assert read_records(body([GOOD, GOOD]), homes).n == 2
    for value, at in [
        (GOOD | {"rooms": "3"}, "$.rooms"),
        ([GOOD, GOOD | {"rooms": "3"}], "$[1].rooms"),
    ]:
        with pytest.raises(InputFault) as caught:
            read_records(body(value), homes)
        assert caught.value.at == at


def test_columns_of_a_table_give_the_same_rows_as_json(homes):
    table = {
        "price": [1.0, 2.0],
        "city": ["seoul", None],
        "is_new": [np.bool_(True), "False"],
        "rooms": np.array([3, 4]),
        "humidity": [0.4, 0.5],
        "temperature": [math.nan, 21.5],
    }
    read = from_columns(table, homes)

    np.testing.assert_array_equal(read.num, [[math.nan, 0.4, 3, 1], [21.5, 0.5, 4, 0]])
    assert read.cat.tolist() == [["seoul"], [""]]
    assert read.inputs == [[None, 0.4, 3, "seoul", True], [21.5, 0.5, 4, None, False]]
    assert read.missing == {"temperature": 1, "city": 1}
    json.dumps(read.inputs, allow_nan=False)


def test_a_column_of_a_table_that_is_lacking_is_named(homes):
    with pytest.raises(InputFault, match="humidity"):
        from_columns({n: [v] for n, v in GOOD.items() if n != "humidity"}, homes)


def test_no_rows_of_a_table_are_no_rows(homes):
    read = from_columns({name: [] for name in GOOD}, homes)

    assert (read.n, read.num.shape, read.cat.shape) == (0, (0, 4), (0, 1))


# ---- whatever comes ------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["seoul", 0.5, 3, True])
)
names = st.sampled_from([*GOOD, "price", "columns", "data", "index", ""]) | st.text(max_size=3)
records = st.fixed_dictionaries({}, optional={n: scalars for n in GOOD}) | st.dictionaries(
    names, scalars, max_size=6
)
good_records = st.fixed_dictionaries({n: scalars | st.just(v) for n, v in GOOD.items()})
tables = st.lists(st.lists(scalars, min_size=4, max_size=6), max_size=4)
parts = st.recursive(
    scalars | records | good_records | tables,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(
    st.sampled_from(rows_module.FORMS),
    parts
    | st.lists(good_records, max_size=3)
    | st.fixed_dictionaries(
        {"columns": st.permutations(list(GOOD)) | st.lists(names), "data": tables}
    ),
    min_size=1,
    max_size=2,
)
fuzz = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def answer(raw: bytes, homes):
    try:
        return read_json(raw, homes)
    except InputFault as fault:
        return fault


def check(raw: bytes, homes) -> None:
    read = answer(raw, homes)
    if isinstance(read, InputFault):
        assert read.status == 400
        assert read.at.startswith("$")
        (read.message + read.at).encode()
        return
    assert read.num.shape == (read.n, 4)
    assert read.cat.shape == (read.n, 1)
    assert len(read.inputs) == read.n
    assert not np.isinf(read.num.astype(np.float32)).any()
    json.dumps(read.inputs, allow_nan=False).encode()
    "".join(read.cat.ravel()).encode()


@fuzz
@given(bodies)
def test_a_body_is_answered_or_refused_and_nothing_else(homes, value):
    check(json.dumps(value).encode(), homes)


@fuzz
@given(st.data())
def test_a_broken_body_is_answered_or_refused_and_nothing_else(homes, data):
    raw = bytearray(body({"dataframe_records": [GOOD, GOOD]}))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b"1e999", b"NaN", b'"', b":", b'\\ud800"', b"-", b"null"])
        )
    check(bytes(raw), homes)
