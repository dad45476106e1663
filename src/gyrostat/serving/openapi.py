"""What this server answers, as OpenAPI 3.1 and as a page for people: made from the schemas of the models it has now."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from gyrostat_runtime.rows import LARGEST
from gyrostat_runtime.schema import Column, Schema

from gyrostat.serving.open_inference import DATATYPES
from gyrostat.serving.settings import ServingSettings

EXACT = 2**53
"""A whole number beyond it is not what it says once it is a float."""
_STYLE = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{overflow:auto;background:#8881;padding:.75rem}"
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_HEADERS = {"content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'"}
_ERROR = {"$ref": "#/components/schemas/error"}
_REFUSALS = {
    "400": "The request is wrong; `at` is the path of the fault.",
    "413": "The body is too large.",
    "415": "The body is in a form that is not read here.",
    "503": "No model can answer now; `Retry-After` says when to try again.",
}


def document(
    models: Mapping[str, tuple[Schema | None, ServingSettings]], *, needs_token: bool
) -> dict[str, Any]:
    """The OpenAPI document. A model without a champion has no schema yet, and its routes take any object."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"error": _error()}
    for n, (name, (schema, settings)) in enumerate(models.items(), 1):
        record, answer = f"record-{n}", f"answer-{n}"
        schemas[record] = {"title": f"A row for {name}", **_record(schema, settings)}
        schemas[answer] = {"title": f"An answer of {name}", **_answer(schema)}
        endings = [f"/{quote(name, safe='')}", *([""] if len(models) == 1 else [])]
        for ending in endings:
            paths |= _of_model(name, ending, f"#/components/schemas/{record}", f"#/components/schemas/{answer}", schema)  # fmt: skip
        tensors = f"/v2/models/{quote(name, safe='')}"
        paths[tensors] = {"get": {"summary": f"The tensors that {name} takes and gives", "responses": {"200": {"description": "They"}, "503": _refused("no champion yet")}}}  # fmt: skip
        paths[f"{tensors}/infer"] = {"post": _tensors(name)}
    paths |= {
        path: {"get": {"summary": what, "responses": {"200": {"description": "yes"}, **more}}}
        for path, what, more in (
            ("/health", "Whether the process lives", {}),
            ("/ready", "Whether every model has a champion", {"503": _refused("not yet")}),
            ("/ping", "The same, as SageMaker and MLflow ask it", {"503": _refused("not yet")}),
            ("/status", "What each model answers by, and its counts", {}),
            ("/v2", "The server, for the Open Inference Protocol", {}),
            ("/v2/health/live", "Whether the process lives", {}),
            (
                "/v2/health/ready",
                "Whether every model has a champion",
                {"503": _refused("not yet")},
            ),
            ("/version", "The release that runs here", {}),
            ("/metrics", "Counts for Prometheus", {}),
        )
    }
    components: dict[str, Any] = {"schemas": schemas}
    found = {
        "openapi": "3.1.0",
        "info": {"title": f"Predictions of {', '.join(models)}", "version": version("gyrostat")},
        "paths": paths,
        "components": components,
    }
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def page(found: dict[str, Any]) -> str:
    """The document for people: each route with what it takes, and a command that asks it. No script."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{html.escape(found['info']['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(found['info']['title'])}</h1>",
        "<p>For machines: <a href=openapi.json>openapi.json</a> (OpenAPI 3.1).</p>",
    ]
    for path, methods in found["paths"].items():
        for method, what in methods.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(what['summary'])}</p>")  # fmt: skip
            content = what.get("requestBody", {}).get("content", {})
            example = content.get("application/json", {}).get("example")
            if example is not None:
                body = json.dumps(example, ensure_ascii=False).replace("'", r"'\''")
                command = f"curl http://HOST{path} -H 'Content-Type: application/json' -d '{body}'"
                parts.append(f"<pre>{html.escape(command)}</pre>")
    for schema in found["components"]["schemas"].values():
        text = json.dumps(schema, ensure_ascii=False, indent=2)
        parts.append(f"<h2>{html.escape(schema['title'])}</h2><pre>{html.escape(text)}</pre>")
    return "\n".join(parts) + "</html>"


def _of_model(
    name: str, ending: str, record: str, answer: str, schema: Schema | None
) -> dict[str, Any]:
    row, rows = {"$ref": record}, {"type": "array", "items": {"$ref": record}, "minItems": 1}
    example = _example(schema)
    answered = {"200": {"description": "The predictions, in the order of the rows", "content": _json({"$ref": answer})}}  # fmt: skip
    forms = [
        {"type": "object", "required": [key], "properties": {key: rows}, "additionalProperties": False}
        for key in ("dataframe_records", "instances")
    ]  # fmt: skip
    split = {
        "type": "object", "required": ["dataframe_split"],
        "properties": {"dataframe_split": _split(schema)}, "additionalProperties": False,
    }  # fmt: skip
    columns = {
        "type": "object", "required": ["inputs"], "properties": {"inputs": _columns(schema)}, "additionalProperties": False,
    }  # fmt: skip
    label = {
        "type": "object", "required": ["id", "label"], "additionalProperties": False,
        "properties": {"id": {"type": "string", "minLength": 1, "maxLength": 100}, "label": _label(schema)},
    }  # fmt: skip
    labels = {
        "type": "object", "required": ["labels"], "additionalProperties": False,
        "properties": {"labels": {"type": "array", "items": label}},
    }  # fmt: skip
    predict = _json({"oneOf": [row, rows]}, example)
    invoke = {**_json({"oneOf": [*forms, split, columns]}, {"dataframe_records": [example]}), "text/csv": {}}  # fmt: skip
    label_example = {"labels": [{"id": "01M8K09DN7X4JY1M00ZJAY238H", "label": _some_label(schema)}]}
    return {
        f"/predict{ending}": {"post": _post(f"One record of {name}, or a list of them", predict, answered)},
        f"/invocations{ending}": {"post": _post("MLflow's four JSON forms, or CSV with a header", invoke, answered)},
        f"/labels{ending}": {
            "post": _post(
                "What turned out to be true, by the id of the prediction", _json(labels, label_example),
                {"202": {"description": "All of them are kept"}},
            )
        },
    }  # fmt: skip


def _split(schema: Schema | None) -> dict[str, Any]:
    name = {"enum": [c.name for c in schema.inputs]} if schema else {"type": "string"}
    return {
        "type": "object", "required": ["columns", "data"], "additionalProperties": False,
        "properties": {
            "columns": {"type": "array", "items": name, "uniqueItems": True},
            "data": {"type": "array", "items": {"type": "array"}, "minItems": 1, "description": "Rows, their values in the order of columns"},
            "index": {"description": "Not looked at"},
        },
    }  # fmt: skip


def _columns(schema: Schema | None) -> dict[str, Any]:
    if schema is None:
        return {"type": "object"}
    features = {feature.column for feature in schema.features}
    return {
        "type": "object", "required": [c.name for c in schema.inputs if c.name in features], "additionalProperties": False,
        "properties": {c.name: {"type": "array", "minItems": 1} for c in schema.inputs},
        "description": "Values by column, equally many of each",
    }  # fmt: skip


def _tensors(name: str) -> dict[str, Any]:
    tensor = {
        "type": "object", "required": ["name", "shape", "datatype"],
        "properties": {"name": {"type": "string"}, "shape": {"type": "array"}, "datatype": {"enum": list(DATATYPES)}},
    }  # fmt: skip
    body = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": tensor, "minItems": 1}}}  # fmt: skip
    content = {**_json(body), "application/octet-stream": {}}
    answered = {"200": {"description": "One tensor"}}
    return _post(f"Tensors of the Open Inference Protocol, for {name}", content, answered)


def _post(summary: str, content: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    refusals = {status: _refused(why) for status, why in _REFUSALS.items()}
    return {"summary": summary, "requestBody": {"required": True, "content": content}, "responses": answers | refusals}  # fmt: skip


def _refused(why: str) -> dict[str, Any]:
    return {"description": why, "content": _json(_ERROR)}


def _json(schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({"example": example} if example else {})}}


def _record(schema: Schema | None, settings: ServingSettings) -> dict[str, Any]:
    if schema is None:
        return {"type": "object"}
    features = {feature.column for feature in schema.features}
    return {
        "type": "object",
        "properties": {
            c.name: _value(
                c,
                may_lack=c.name not in features
                or (c.nullable and settings.missing == "as_trained"),
                is_closed=settings.new_category == "refuse" and c.name in features,
            )
            for c in schema.inputs
        },
        "required": [c.name for c in schema.inputs if c.name in features],
        "additionalProperties": False,
    }


def _value(column: Column, *, may_lack: bool, is_closed: bool) -> dict[str, Any]:
    null = ["null"] if may_lack else []
    match column.kind:
        case "number":
            return {"type": ["number", *null], "minimum": -LARGEST, "maximum": LARGEST}
        case "integer":
            return {"type": ["integer", *null], "minimum": -EXACT, "maximum": EXACT}
        case "boolean":
            return {"enum": [False, True, *column.categories, *([None] if may_lack else [])]}
        case "date":
            what = f"a date as {column.format}, or ISO 8601" if column.format else "a date in ISO 8601"  # fmt: skip
            return {"type": ["string", *null], "description": what}
        case "category":
            if is_closed:
                return {"enum": [*column.categories, *([None] if may_lack else [])]}
            return {"type": ["string", *null], "pattern": r"^[^\u0000]*$", "minLength": 0 if may_lack else 1}  # fmt: skip


def _example(schema: Schema | None) -> dict[str, Any]:
    if schema is None:
        return {}
    some = {"number": 0.5, "integer": 1, "boolean": True, "date": "2026-01-31"}
    return {
        c.name: some[c.kind]
        if c.kind != "category"
        else c.categories[0]
        if c.categories and c.name not in schema.personal
        else "text"
        for c in schema.inputs
    }


def _answer(schema: Schema | None) -> dict[str, Any]:
    label = _label(schema)
    return {
        "type": "object", "required": ["predictions", "id", "version"],
        "properties": {
            "predictions": {"type": "array", "items": label}, "id": {"type": "string", "description": "What labels name"},
            "version": {"type": "integer", "description": "Of the model that answered"},
        },
    }  # fmt: skip


def _label(schema: Schema | None) -> dict[str, Any]:
    if schema is None:
        return {}
    if schema.output.task == "regression":
        return {"type": "number"}
    kinds = {"category": "string", "integer": "integer", "boolean": "boolean", "number": "number"}
    return {"type": kinds[schema.output.class_kind]}


def _some_label(schema: Schema | None) -> Any:
    if schema is None or schema.output.task == "regression":
        return 1.5
    match schema.output.class_kind:
        case "category":
            return schema.output.classes[0]
        case "boolean":
            return True
        case _:
            return float(schema.output.classes[0])


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    fields = {"code": text, "at": text, "message": text, "request_id": text}
    inner = {"type": "object", "required": list(fields), "properties": fields}
    return {"title": "An error", "type": "object", "required": ["error"], "properties": {"error": inner}}  # fmt: skip
