"""CSV in a request: the file's own spelling, types from the schema, and the line of every fault."""

from __future__ import annotations

import pytest
from gyrostat_runtime import rows
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from serving.bench import Server

from gyrostat.serving import csv_rows

COLUMNS = (
    Column("size", "number", nullable=True),
    Column("rooms", "integer"),
    Column("code", "category", nullable=True, categories=("007", "008")),
    Column("sold", "boolean", categories=("아니오", "예")),
)
SHOP = Schema(
    COLUMNS, tuple(Feature(c.name, c.name) for c in COLUMNS), Output("regression", "price")
)
NAMES = "size,rooms,code,sold\n"


def test_cells_become_what_json_would_have_said():
    text = NAMES + '1.5,3,007,예\n,4,,TRUE\n\n" 2e1 ",5.0,"a,\nb",false\n'
    found = csv_rows.read(text.encode(), SHOP)
    said = b"""[{"size": 1.5, "rooms": 3, "code": "007", "sold": "\xec\x98\x88"},
        {"size": null, "rooms": 4, "code": null, "sold": true},
        {"size": 20.0, "rooms": 5.0, "code": "a,\\nb", "sold": false}]"""
    wanted = rows.read_records(said, SHOP)
    assert found.inputs == wanted.inputs
    assert (found.new, found.missing) == (wanted.new, wanted.missing)
    assert found.num.tobytes() == wanted.num.tobytes()
    assert found.cat.tolist() == wanted.cat.tolist()


def test_line_ends_of_every_system_and_names_in_any_order():
    for end in ("\n", "\r\n", "\r"):
        body = end.join(["sold,code,rooms,size", "예,007,3,1.5", "예,008,4,2.5"]).encode()
        assert csv_rows.read(body, SHOP).inputs == [[1.5, 3, "007", "예"], [2.5, 4, "008", "예"]]


@pytest.mark.parametrize(
    ("body", "code", "at", "word"),
    [
        (NAMES + "1,2,007,예\n1,two,007,예\n", "wrong_type", "line 3, rooms", "two"),
        (NAMES + '1,2,"a\nb",예\n1,2.5,007,예\n', "wrong_type", "line 4, rooms", "fraction"),
        (NAMES + "1,,007,예\n", "missing_value", "line 2, rooms", "rooms"),
        (NAMES + "nan,2,007,예\n", "wrong_type", "line 2, size", "nan"),
        (NAMES + "1_0,2,007,예\n", "wrong_type", "line 2, size", "1_0"),
        (NAMES + "1e39,2,007,예\n", "out_of_range", "line 2, size", "size"),
        (NAMES + "1e999,2,007,예\n", "out_of_range", "line 2, size", "size"),
        (NAMES + f"1,{'9' * 5000},007,예\n", "out_of_range", "line 2, rooms", "rooms"),
        (NAMES + "1,2,007,maybe\n", "wrong_type", "line 2, sold", "maybe"),
        (NAMES + "1,2,007\n", "ragged", "line 2", "4 values"),
        (NAMES + '1,2,"007,예\n', "not_csv", "line 2", "CSV"),
        (NAMES, "no_rows", "line 1", "no row"),
        ("", "no_rows", "line 1", "empty"),
        ("size,rooms,code,sold,rooms\n1,2,007,예,2\n", "duplicate_column", "line 1", "rooms"),
        ("size,Rooms,code,sold\n1,2,007,예\n", "unknown_column", "line 1", "'rooms'"),
        ("size,code,sold\n1,007,예\n", "missing_column", "$", "rooms"),
        (b"size,rooms,code,sold\n1,2,\xff,x\n", "not_csv", "line 2", "UTF-8"),
    ],
)
def test_a_fault_is_named_by_line_and_column(body, code, at, word):
    with pytest.raises(InputFault) as found:
        csv_rows.read(body if isinstance(body, bytes) else body.encode(), SHOP)
    fault = found.value
    assert (fault.code, fault.at, fault.status) == ("serving." + code, at, 400)
    assert word in fault.message


def test_csv_and_json_get_the_same_numbers_and_other_types_are_415(steady):
    _, server = steady
    server: Server
    body = b"who,pH,alcohol\nkim,3.0,2.0\nlee,,1\n"
    status, answer = server.ask("POST", "/invocations", body, headers={"Content-Type": "text/csv"})
    assert (status, answer["predictions"]) == (200, [10.0, 6.0])
    for kind, path in (
        ("text/csv; charset=cp949", "/invocations"),
        ("text/csv", "/predict"),
        ("text/plain", "/invocations"),
    ):
        status, answer = server.ask("POST", path, body, headers={"Content-Type": kind})
        assert (status, answer["error"]["code"]) == (415, "serving.content_type")


def test_plain_records_are_one_object_or_a_list(steady):
    _, server = steady
    one = {"alcohol": 2.0, "pH": 3.0, "who": "kim"}
    assert server.ask("POST", "/predict/wine", one)[1]["predictions"] == [10.0]
    assert server.ask("POST", "/predict", [one, one])[1]["predictions"] == [10.0, 10.0]
    status, answer = server.ask("POST", "/predict/wine", [one, one | {"pH": "3"}])
    assert (status, answer["error"]["at"]) == (400, "$[1].pH")
    status, answer = server.ask("POST", "/predict/beer", one)
    assert (status, answer["error"]["code"]) == (404, "serving.no_such_model")
