"""The document that the server writes of itself: what it allows is answered, what it forbids is refused."""

from __future__ import annotations

import http.client
import json
import re

import pytest
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.rows import read_records
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from hypothesis import given
from hypothesis import strategies as st

from gyrostat.serving import openapi
from gyrostat.serving.answers import encode
from gyrostat.serving.settings import ServingSettings

ALL = Schema(
    (
        Column("n", "number", nullable=True), Column("i", "integer"), Column("b", "boolean", categories=("no", "yes")),
        Column("c", "category", categories=("red", "blue")), Column("d", "date"), Column("note", "category"),
    ),
    (Feature("n", "n"), Feature("i", "i"), Feature("b", "b"), Feature("c", "c"), Feature("d", "d", "year")),
    Output("binary", "ripe", classes=("no", "yes"), positive="yes"),
    personal=("c",),
)  # fmt: skip
SETTINGS = [ServingSettings(), ServingSettings(missing="refuse", new_category="refuse")]


def record(settings):
    found = openapi.document({"fruit": (ALL, settings)}, needs_token=False)
    return found["components"]["schemas"]["record-1"]


def read(row, settings):
    return read_records(encode(row), ALL, missing=settings.missing, new_category=settings.new_category)  # fmt: skip


def values(schema):
    """What the document allows at one place."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "a date" in schema.get("description", ""):
        some = st.dates().map(str)
    else:
        bounds = {"min_value": schema.get("minimum"), "max_value": schema.get("maximum")}
        some = {
            "number": st.floats(**bounds), "integer": st.integers(**bounds), "string": st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=schema.get("minLength", 0), max_size=20),
        }[schema["type"][0]]  # fmt: skip
    return st.none() | some if "null" in schema["type"] else some


def allowed(schema):
    given = {name: values(of) for name, of in schema["properties"].items()}
    optional = {name: given.pop(name) for name in set(given) - set(schema["required"])}
    return st.fixed_dictionaries(given, optional=optional)


@pytest.mark.parametrize("settings", SETTINGS)
@given(data=st.data())
def test_every_row_that_the_document_allows_is_read(settings, data):
    row = data.draw(allowed(record(settings)))
    try:
        assert read(row, settings).n == 1
    except InputFault as fault:
        raise AssertionError((row, fault.message)) from fault


@pytest.mark.parametrize("settings", SETTINGS)
@given(data=st.data())
def test_a_row_that_the_document_forbids_is_refused_by_its_path(settings, data):
    schema = record(settings)
    row = data.draw(allowed(schema))
    broken = data.draw(st.sampled_from(["lacking", "unknown", "list", *schema["properties"]]))
    if broken == "lacking":
        del row[data.draw(st.sampled_from(schema["required"]))]
    elif broken == "unknown":
        row["no such column"] = 1
    else:
        row[broken if broken != "list" else "n"] = [1]
    with pytest.raises(InputFault) as found:
        read(row, settings)
    assert found.value.at.startswith("$")


def test_values_of_personal_columns_stand_nowhere_in_it():
    found = openapi.document({"fruit": (ALL, ServingSettings())}, needs_token=False)
    assert "blue" not in json.dumps(found)


def get(server, path):
    link = http.client.HTTPConnection(*server.address, timeout=10)
    link.request("GET", path)
    answer = link.getresponse()
    text = answer.read().decode()
    link.close()
    return answer, text


def test_each_example_of_the_document_is_answered_as_it_says(served):
    _, server = served  # its own: the label is kept
    status, found = server.ask("GET", "/openapi.json")
    assert (status, found["openapi"]) == (200, "3.1.0")
    asked = 0
    for path, methods in found["paths"].items():
        for method, what in methods.items():
            example = what.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")  # fmt: skip
            if method == "get":
                assert get(server, path)[0].status == 200, path
            elif example is not None:
                asked += 1
                assert str(server.ask("POST", path, example)[0]) in what["responses"], path
                assert server.ask("POST", path, example)[0] < 300, path
    assert asked == 6


def test_the_page_shows_each_route_and_runs_nothing(steady):
    _, server = steady
    answer, text = get(server, "/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    paths = server.ask("GET", "/openapi.json")[1]["paths"]
    assert len(re.findall("<h2>(?:GET|POST) ", text)) == len(paths)
    assert "<script" not in text


def test_markup_in_names_stays_text_and_a_model_without_champion_has_its_routes():
    odd = "<b>&'"
    schema = Schema((Column(odd, "number"),), (Feature(odd, odd),), Output("regression", "y"))
    models = {"one": (schema, ServingSettings()), "two": (None, ServingSettings())}
    found = openapi.document(models, needs_token=True)
    assert found["security"] == [{"token": []}]
    assert {"/predict/one", "/predict/two"} <= found["paths"].keys()
    assert "/predict" not in found["paths"]
    assert "<b>" not in openapi.page(found)
