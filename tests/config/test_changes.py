"""What changed, what became easier to pass, what is kept, and the schema that editors check with."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from config.builders import DECLARATION, Read

from gyrostat import config
from gyrostat.config.document import parse

LOOSER = [
    ("rmse: {max: 0.70}", "rmse: {max: 0.75}", "limit rmse went from 0.7 to 0.75"),
    ("      rmse: {max: 0.70}", "      # rmse:", "limit rmse was removed"),
    ("rmse: x1.05", "rmse: x1.1", "guardrail rmse went from x1.05 to x1.1"),
    (", rmse: x1.05", "", "guardrail rmse was removed"),
    ("+1pp", "0.02", "guardrail error_rate went from +1pp to 0.02"),
    ("+1pp", "0.005", None),
    ("margin: 0.01", "margin: 0.02", "champion margin went from 0.01 to 0.02"),
    ("metric: rmse", "metric: mae", "the champion is compared by mae (margin 0.01) instead of rmse"),
    ("approval: first", "approval: never", "approval went from first to never"),
    ("approval: first", "approval: always", None),
    ("size: {max: 200MB}", "size: {max: 1GB}", "largest bundle went from 200MB to 1000MB"),
    ("wrong_decisions: 5%", "wrong_decisions: 10%", "wrong_decisions went from 0.05 to 0.1"),
    ("max_depth: 6", "max_depth: 60", None),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), LOOSER)
def test_what_became_easier_to_pass_is_said_and_nothing_else(
    read: Read, old: str, new: str, said: str | None
):
    before, after = (read(*change).declaration.models["wine"] for change in (("", ""), (old, new)))
    assert config.loosened(before, after) == ([said] if said else [])


def test_a_limit_below_which_nothing_may_fall_is_looser_when_lower(read: Read):
    text = "version: 1\nmodels: {{m: {{data: {{source: a.csv, target: y, task: binary}}, limits: {{accuracy: {{min: {}}}}}}}}}\n"
    high, low = (read(text=text.format(x)).declaration.models["m"] for x in ("80%", "70%"))
    assert config.loosened(high, low) == ["limit accuracy went from 0.8 to 0.7"]
    assert config.loosened(low, high) == []


def test_the_threshold_reaches_the_data_that_make_the_schema(read: Read):
    text = "version: 1\nmodels: {m: {data: {source: a.csv, target: y, task: binary}, output: {threshold: 0.31}}}\n"
    assert read(text=text).declaration.models["m"].data.threshold == 0.31


def test_the_difference_names_each_key_with_both_values(read: Read):
    old, new = read(), read("rmse: {max: 0.70}", "mae: {max: 0.5}")
    assert config.diff(old.values, new.values) == [
        {"key": "models.wine.limits.mae.max", "old": None, "new": 0.5},
        {"key": "models.wine.limits.rmse.max", "old": 0.7, "new": None},
    ]
    assert config.diff(old.values, old.values) == []


def test_a_kept_declaration_gets_the_defaults_of_keys_that_came_later(read: Read):
    loaded = read()
    config.store(loaded)
    path = loaded.state / "declarations" / f"{loaded.digest}.json"
    older = json.loads(path.read_bytes())
    del older["models"]["wine"]["retraining"]["new_rows"], older["server"]["workers"]
    older["models"]["wine"]["gates"]["size"] = "200MB"  # the short form, as it could be kept
    path.write_text(json.dumps(older))
    assert config.stored(loaded.state, loaded.digest) == loaded.declaration


def test_the_merged_declaration_is_shown_with_where_each_value_came_from(read: Read):
    loaded = read(files={"dev.yaml": "server: {port: 9000}\n"}, GYROSTAT_CONTROL_ROOM__PORT="7008")
    lines = [re.sub(r"  +", "  ", line) for line in config.render(loaded)]
    assert "server.port: 9000  # config/dev.yaml:1" in lines
    assert "control_room.port: 7008  # GYROSTAT_CONTROL_ROOM__PORT" in lines
    assert 'models.wine.retraining.new_rows: "20%"  # default' in lines


def faults(schema: dict[str, Any], value: Any, path: str = "$") -> list[str]:
    """The part of JSON Schema 2020-12 that ours uses; an unknown keyword is a fault of the schema."""
    known = {
        "$schema", "title", "description", "default", "type", "enum", "const", "anyOf", "properties", "additionalProperties",
        "propertyNames", "required", "items", "minItems", "maxItems", "uniqueItems", "pattern", "minLength", "maxLength",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    }  # fmt: skip
    assert schema.keys() <= known, schema.keys() - known
    found: list[str] = []

    def need(is_fine: bool, what: str) -> None:
        if not is_fine:
            found.append(f"{path}: {what}")

    types = {
        "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    }  # fmt: skip
    if "type" in schema:
        is_bool = isinstance(value, bool)
        kind = schema["type"]
        need(isinstance(value, types[kind]) and (not is_bool or kind == "boolean"), f"no {kind}")
        if found:
            return found
    need("enum" not in schema or value in schema["enum"], "not in enum")
    need("const" not in schema or value == schema["const"], "not the constant")
    if "anyOf" in schema:
        need(any(not faults(s, value, path) for s in schema["anyOf"]), "none of anyOf")
    if isinstance(value, str):
        need(re.search(schema.get("pattern", ""), value) is not None, "not the pattern")
        need(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9), "length")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        need(schema.get("minimum", value) <= value <= schema.get("maximum", value), "range")
        need(value > schema.get("exclusiveMinimum", value - 1), "range")
        need(value < schema.get("exclusiveMaximum", value + 1), "range")
    if isinstance(value, list):
        need(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9), "items")
        for n, item in enumerate(value):
            found += faults(schema.get("items", {}), item, f"{path}[{n}]")
    if isinstance(value, dict):
        for key in schema.get("required", ()):
            need(key in value, f"{key} is missing")
        for key, item in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            need(below is not False, f"unknown key {key}")
            found += faults(schema.get("propertyNames", {}), key, f"{path}.{key}")
            found += faults(below or {}, item, f"{path}.{key}")
    return found


def test_the_schema_accepts_the_declaration_as_it_is_written_and_as_it_is_kept(read: Read):
    schema = json.loads(json.dumps(config.json_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert faults(schema, parse(DECLARATION, "x").values) == []
    assert faults(schema, read().values) == []


@pytest.mark.parametrize(("old", "new"), [
    ("version: 1", "version: 2"), ("guardrails:", "guardrail:"), ("10min", "10 minutes"), ("2GB", "2"), ("port: 8080", "port: 80800"),
    ("task: regression", "task: regresion"), ("rmse: {max: 0.70}", "rmes: {max: 0.70}"), ("[shadow, 5%, 25%, 50%]", "5%"),
    ("[shadow, 5%, 25%, 50%]", "[shadow, 5]"), ("[decay, new_data]", "[decai]"), ("+1pp", "1pp%"), ("4 per day", "4 a day"),
    ("notify: []", "notify: [x]"), ("  wine:", "  wi ne:"), ("      target: quality\n", ""), ("holdout: 20%", "holdout: 2"),
    ("    gates:", "    batch: {nightly: {input: in.csv, output: out.xlsx, schedule: {cron: '0 6 * * *'}}}\n    gates:"),
    ("    gates:", "    batch: {nightly: {input: in.csv}}\n    gates:"),
])  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(old: str, new: str):
    assert old in DECLARATION
    assert faults(config.json_schema(), parse(DECLARATION.replace(old, new, 1), "x").values)


def test_every_key_is_explained_in_the_schema():
    def unexplained(schema: dict[str, Any], path: str) -> list[str]:
        below = {**schema.get("properties", {}), "*": schema.get("additionalProperties")}
        own = [] if schema.get("description") else [path]
        return own + [
            p
            for k, s in below.items()
            if isinstance(s, dict)
            for p in unexplained(s, f"{path}.{k}")
        ]

    assert [p for p in unexplained(config.json_schema(), "") if p] == []
