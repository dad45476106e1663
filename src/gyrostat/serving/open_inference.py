"""The Open Inference Protocol (v2) over REST: tensors, one for each column, or one matrix of numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn

from gyrostat_runtime import rows
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.schema import Schema
from gyrostat_runtime.session import Predictions

from gyrostat.serving import tensors
from gyrostat.serving.answers import encode
from gyrostat.serving.forms import Form

MATRIX = "input-0"
"""The name of the one input that holds all columns, where all of them are numbers."""
_OF_KIND = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "category": "BYTES",
    "date": "BYTES",
}
_WHOLE = {f"INT{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 16, 32, 64)} | {
    f"UINT{n}": (0, 2**n - 1) for n in (8, 16, 32, 64)
}
DATATYPES: dict[str, tuple[type, ...]] = {
    **{f"FP{n}": (float, int) for n in (16, 32, 64)},
    **{name: (int,) for name in _WHOLE},
    "BOOL": (bool,),
    "BYTES": (str,),
}
_At = Callable[[int], str]


def metadata(name: str, schema: Schema, versions: list[str]) -> dict[str, Any]:
    """What `GET /v2/models/{name}` says of a model."""
    found: dict[str, Any] = {
        "name": name,
        "versions": versions,
        "platform": "gyrostat",
        "inputs": [
            {"name": c.name, "datatype": _OF_KIND[c.kind], "shape": [-1]} for c in schema.inputs
        ],
        "outputs": [
            {"name": schema.output.target, "datatype": _answer_type(schema), "shape": [-1]}
        ],
    }
    if _takes_matrix(schema):
        found["parameters"] = {
            "matrix": {"name": MATRIX, "datatype": "FP64", "shape": [-1, len(schema.inputs)]}
        }
    return found


class Exchange:
    """One request and its answer. The request's own id is said again; either may carry tensors as bytes."""

    def __init__(self, model: str, json_bytes: int | None = None) -> None:
        """`json_bytes`: length of the JSON that stands before the bytes; None: the body is JSON."""
        self.form = Form("v2", self._read, self._write)
        self.answered_json_bytes: int | None = None
        """Of an answer that is bytes behind JSON."""
        self._model, self._json_bytes = model, json_bytes
        self._id, self._wants_bytes = "", False

    def _read(
        self, body: bytes, schema: Schema, *, missing: str = "as_trained", new_category: str = "answer"
    ) -> Rows:  # fmt: skip
        value, settle = rows.parse_json(body[: self._json_bytes])
        if (
            self._json_bytes is not None
            and type(value) is dict
            and type(value.get("inputs")) is list
        ):
            tensors.fill(value["inputs"], body[self._json_bytes :])
        _check_top(value, schema)
        self._id, self._wants_bytes = value.get("id") or "", _wants_bytes(value)
        inputs: list[Any] = value["inputs"]
        columns: dict[str, Any] = {}
        places: dict[str, int] = {}
        paths: dict[str, _At] = {}
        if len(inputs) == 1 and _is_matrix(inputs[0], schema):
            columns, at = _matrix(inputs[0], schema)
        else:
            for i, tensor in enumerate(inputs):
                name = _name(tensor, f"$.inputs[{i}]")
                if name in columns:
                    _refuse(
                        "duplicate_column", f"input {name[:80]!r} stands twice", f"$.inputs[{i}]"
                    )
                columns[name], paths[name] = _column(tensor, name, f"$.inputs[{i}]")
                places[name] = i

            def at(row: int, name: str) -> str:
                return paths[name](row)

        found = rows.read_columns(
            columns,
            schema,
            at=at,
            at_name=lambda name: f"$.inputs[{places[name]}]",
            missing=missing,
            new_category=new_category,
        )
        settle()
        return found

    def _write(self, predictions: Predictions, id: str, version: int, schema: Schema) -> bytes:
        kind, values = _answer_type(schema), predictions.values
        output = {"name": schema.output.target, "datatype": kind, "shape": [len(values)]}
        raw = tensors.pack(values, kind) if self._wants_bytes else b""
        value: dict[str, Any] = {
            "model_name": self._model,
            "model_version": str(version),
            "id": self._id or id,
            # Labels are handed in under this one.
            "parameters": {"prediction_id": id},
            "outputs": [
                output | ({"parameters": {tensors.SIZE: len(raw)}} if self._wants_bytes else {"data": values})
            ],
        }  # fmt: skip
        text = encode(value)
        self.answered_json_bytes = len(text) if self._wants_bytes else None
        return text + raw


def _wants_bytes(value: dict[str, Any]) -> bool:
    """Whether the one output shall be bytes: as it says itself, else as the request says of all."""
    of_all = (value.get("parameters") or {}).get(tensors.ALL_WANTED, False)
    own = [(output.get("parameters") or {}).get(tensors.WANTED) for output in value.get("outputs") or []]  # fmt: skip
    return bool(next((said for said in own if said is not None), of_all))


def _check_top(value: Any, schema: Schema) -> None:
    if type(value) is not dict:
        _refuse("form", "the body must be an object with a list 'inputs'", "$")
    for key in value:
        if key not in ("id", "inputs", "outputs", "parameters"):
            _refuse(
                "form",
                f"a request has no {key[:80]!r}; it has id, inputs, outputs, parameters",
                "$",
            )
    if type(value.get("inputs")) is not list or not value["inputs"]:
        _refuse("form", "'inputs' must be a list of tensors", "$.inputs")
    if value.get("id") is not None and type(value["id"]) is not str:
        _refuse("wrong_type", "an id is text", "$.id")
    if len(value.get("id") or "") > 200:
        _refuse("out_of_range", "an id has at most 200 characters", "$.id")
    _check_parameters(value, "$")
    outputs = value.get("outputs")
    if outputs is not None and type(outputs) is not list:
        _refuse("wrong_type", "'outputs' must be a list", "$.outputs")
    for i, output in enumerate(outputs or []):
        name = _name(output, f"$.outputs[{i}]")
        _check_parameters(output, f"$.outputs[{i}]")
        if name != schema.output.target:
            _refuse(
                "form",
                f"the model has no output {name[:80]!r}; it has {schema.output.target!r}",
                f"$.outputs[{i}].name",
            )


def _check_parameters(value: dict[str, Any], at: str) -> None:
    parameters = value.get("parameters")
    if parameters is None:
        return
    if type(parameters) is not dict:
        _refuse("wrong_type", "'parameters' must be an object", f"{at}.parameters")
    if tensors.SIZE in parameters:
        _refuse(
            "form",
            f"tensors as bytes need the header {tensors.HEADER.title()}, which says where the JSON ends",
            f"{at}.parameters.{tensors.SIZE}",
        )
    for key in (tensors.WANTED, tensors.ALL_WANTED):
        if type(parameters.get(key, False)) is not bool:
            _refuse("wrong_type", f"{key} is true or false", f"{at}.parameters.{key}")


def _name(tensor: Any, at: str) -> str:
    if type(tensor) is not dict:
        _refuse("wrong_type", "a tensor is an object", at)
    name = tensor.get("name")
    if type(name) is not str:
        _refuse("form", "a tensor needs a name", f"{at}.name")
    return name


def _column(tensor: dict[str, Any], name: str, at: str) -> tuple[list[Any], _At]:
    shape, kind, data = _parts(tensor, name, at)
    if len(shape) != 1 and shape[1:] != [1]:
        _refuse(
            "form",
            f"{name[:80]!r}: the shape of a column is [n] or [n, 1], this is {_brief(shape)}",
            f"{at}.shape",
        )
    values, path = _flat(data, shape, name, at)
    _check_values(values, kind, name, path)
    return values, path


def _takes_matrix(schema: Schema) -> bool:
    return all(c.kind in ("number", "integer") for c in schema.inputs) and all(
        c.name != MATRIX for c in schema.inputs
    )


def _is_matrix(tensor: Any, schema: Schema) -> bool:
    return type(tensor) is dict and tensor.get("name") == MATRIX and _takes_matrix(schema)


def _matrix(tensor: dict[str, Any], schema: Schema) -> tuple[dict[str, Any], Any]:
    at, width = "$.inputs[0]", len(schema.inputs)
    shape, kind, data = _parts(tensor, MATRIX, at)
    if kind in ("BOOL", "BYTES"):
        _refuse("wrong_type", "the matrix is one of numbers, such as FP64", f"{at}.datatype")
    if len(shape) != 2 or shape[1] != width:
        _refuse(
            "form",
            f"the shape of the matrix is [n, {width}], this is {_brief(shape)}",
            f"{at}.shape",
        )
    values, path = _flat(data, shape, MATRIX, at)
    _check_values(values, kind, MATRIX, path)
    columns = {c.name: values[j::width] for j, c in enumerate(schema.inputs)}
    place = {c.name: j for j, c in enumerate(schema.inputs)}
    return columns, lambda row, name: path(row * width + place[name])


def _parts(tensor: dict[str, Any], name: str, at: str) -> tuple[list[int], str, list[Any]]:
    for key in tensor:
        if key not in ("name", "shape", "datatype", "parameters", "data"):
            _refuse("form", f"a tensor has no {key[:80]!r}", at)
    _check_parameters(tensor, at)
    kind, shape, data = tensor.get("datatype"), tensor.get("shape"), tensor.get("data")
    if type(kind) is not str or kind not in DATATYPES:
        _refuse(
            "form",
            f"{name[:80]!r}: the datatype is one of {', '.join(DATATYPES)}",
            f"{at}.datatype",
        )
    if type(shape) is not list or not 1 <= len(shape) <= 2:
        _refuse("form", f"{name[:80]!r}: the shape is a list of one or two numbers", f"{at}.shape")
    for j, size in enumerate(shape):
        if type(size) is not int or not 0 <= size < 2**31:
            _refuse("form", f"{name[:80]!r}: a shape has whole numbers from 0", f"{at}.shape[{j}]")
    if type(data) is not list:
        _refuse("form", f"{name[:80]!r}: 'data' must be a list", f"{at}.data")
    return shape, kind, data


def _flat(data: list[Any], shape: list[int], name: str, at: str) -> tuple[list[Any], _At]:
    """The values row by row, and the path of each: data may be flat or nested as the shape says."""
    n = 1
    for size in shape:
        n *= size
    if len(shape) == 2 and data and type(data[0]) is list:
        width = shape[1]
        for i, row in enumerate(data):
            if type(row) is not list or len(row) != width:
                _refuse(
                    "ragged",
                    f"{name[:80]!r}: a row is a list of {width} by its shape",
                    f"{at}.data[{i}]",
                )
        values = list(chain.from_iterable(data))
        if len(data) == shape[0]:
            return values, lambda i: f"{at}.data[{i // width}][{i % width}]"
    else:
        values = data
    if len(values) != n:
        _refuse(
            "ragged",
            f"{name[:80]!r}: the shape {_brief(shape)} means {n} values, there are {len(values)}",
            f"{at}.data",
        )
    return values, lambda i: f"{at}.data[{i}]"


def _check_values(values: list[Any], kind: str, name: str, path: _At) -> None:
    """Refuse what is not of the tensor's own datatype; null is a missing value in any."""
    allowed = DATATYPES[kind]
    wrong = {*map(type, values)} - {*allowed, type(None)}
    # NaN is refused further on, with the word for it.
    wrong -= {kind for kind in wrong if kind not in (int, float, bool, str, list, dict)}
    if wrong:
        i = next(i for i, v in enumerate(values) if type(v) in wrong)
        _refuse("wrong_type", f"{name[:80]!r}: this is no {kind}", path(i))
    if kind in _WHOLE:
        low, high = _WHOLE[kind]
        for i, v in enumerate(values):
            if type(v) is int and not low <= v <= high:
                _refuse("out_of_range", f"{name[:80]!r}: beyond {kind}", path(i))


def _answer_type(schema: Schema) -> str:
    output = schema.output
    return "FP64" if output.task == "regression" else _OF_KIND[output.class_kind]


def _brief(shape: list[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _refuse(code: str, message: str, at: str) -> NoReturn:
    raise InputFault(message, code=f"serving.{code}", at=at)
