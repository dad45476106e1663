"""The Open Inference Protocol: the same numbers as every other form, and the path of every fault."""

from __future__ import annotations

import copy
import json
import struct

import pytest
from gyrostat_runtime import rows
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from serving.bench import KINDS, arm

from gyrostat.serving import open_inference, tensors
from gyrostat.serving.answers import encode

NUMBERS = (Column("a", "number", nullable=True), Column("b", "integer"))
PAIR = Schema(NUMBERS, (Feature("a", "a"), Feature("b", "b")), Output("regression", "y"))
COLUMNS = {
    "inputs": [
        {"name": "b", "shape": [2], "datatype": "INT32", "data": [3, 4]},
        {"name": "a", "shape": [2, 1], "datatype": "FP32", "data": [[1.5], [None]]},
    ]
}


def read(value, schema=PAIR):
    body = value if isinstance(value, bytes) else encode(value)
    return open_inference.Exchange("m").form.read(body, schema)


def matrix(data, shape, **more):
    one = {"name": "input-0", "shape": shape, "datatype": "FP64", "data": data}
    return {"inputs": [one | more]}


@pytest.mark.parametrize(
    "value",
    [
        COLUMNS,
        matrix([1.5, 3, None, 4], [2, 2]),
        matrix([[1.5, 3], [None, 4]], [2, 2], datatype="FP32"),
    ],
)
def test_columns_and_a_matrix_flat_or_nested_are_the_same_rows(value):
    wanted = rows.read_json(b'{"instances": [[1.5, 3], [null, 4]]}', PAIR)
    found = read(value)
    assert found.num.tobytes() == wanted.num.tobytes()
    assert (found.inputs, found.missing) == (wanted.inputs, wanted.missing)


def changed(*path, to):
    value = copy.deepcopy(COLUMNS)
    spot = value
    for step in path[:-1]:
        spot = spot[step]
    spot[path[-1]] = to
    return value


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ([], "$"),
        ({"inputs": []}, "$.inputs"),
        ({"instances": []}, "$"),
        (changed("id", to=7), "$.id"),
        (changed("outputs", to=[{"name": "z"}]), "$.outputs[0].name"),
        (changed("parameters", to=[]), "$.parameters"),
        (changed("inputs", 0, to=3), "$.inputs[0]"),
        (changed("inputs", 0, "name", to=3), "$.inputs[0].name"),
        (changed("inputs", 0, "name", to="c"), "$.inputs[0]"),
        (changed("inputs", 0, "name", to="a"), "$.inputs[1]"),
        (changed("inputs", 0, "shape", to=[True]), "$.inputs[0].shape[0]"),
        (changed("inputs", 0, "shape", to=[]), "$.inputs[0].shape"),
        (changed("inputs", 0, "shape", to=[1, 2]), "$.inputs[0].shape"),
        (changed("inputs", 0, "shape", to=[2**31]), "$.inputs[0].shape[0]"),
        (changed("inputs", 0, "shape", to=[10**9]), "$.inputs[0].data"),
        (changed("inputs", 0, "datatype", to="INT7"), "$.inputs[0].datatype"),
        (changed("inputs", 0, "datatype", to="INT8"), None),
        (changed("inputs", 0, "data", to=[3, "4"]), "$.inputs[0].data[1]"),
        (changed("inputs", 0, "data", to=[3, True]), "$.inputs[0].data[1]"),
        (changed("inputs", 0, "data", to=[3, 2.0]), "$.inputs[0].data[1]"),
        (changed("inputs", 0, "data", to=[3, 2**31]), "$.inputs[0].data[1]"),
        (changed("inputs", 0, "data", to=[3, None]), "$.inputs[0].data[1]"),
        (changed("inputs", 0, "data", to={}), "$.inputs[0].data"),
        (changed("inputs", 1, "data", to=[[1.5], [1e39]]), "$.inputs[1].data[1][0]"),
        (changed("inputs", 1, "data", to=[[1.5], [1, 2]]), "$.inputs[1].data[1]"),
        (changed("inputs", 1, "parameters", to={"binary_data_size": 8}), "$.inputs[1].parameters.binary_data_size"),
        (encode(COLUMNS).replace(b"1.5", b"NaN"), "$.inputs[1].data[0][0]"),
        (encode(COLUMNS).replace(b"1.5", b"1e400"), "$.inputs[1].data[0][0]"),
        (encode(COLUMNS).replace(b'"shape":[2],', b'"shape":[2],"shape":[2],'), "$.inputs[0]"),
        (matrix([1, 2, 3], [1, 3]), "$.inputs[0].shape"),
        (matrix([1, 2.5], [1, 2]), "$.inputs[0].data[1]"),
        (matrix([[1, 2], [3, 2.5]], [2, 2]), "$.inputs[0].data[1][1]"),
        (matrix([], [0, 2]), "$"),
        ({"inputs": COLUMNS["inputs"][1:]}, "$"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_path(value, at):
    if at is None:
        assert read(value).n == 2
        return
    with pytest.raises(InputFault) as found:
        read(value)
    assert (found.value.at, found.value.status) == (at, 400)


def test_a_matrix_is_not_offered_where_a_column_is_no_number():
    schema = Schema((Column("city", "category"),), (Feature("city", "city"),), PAIR.output)
    assert "parameters" not in open_inference.metadata("m", schema, ["1"])
    with pytest.raises(InputFault, match="no column 'input-0'"):
        read(matrix([1.0], [1, 1]), schema)


def test_a_client_finds_its_way_from_the_servers_metadata_to_a_number(steady):
    _, server = steady
    assert server.ask("GET", "/v2")[1]["name"] == "gyrostat"
    assert server.ask("GET", "/v2/health/live") == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready") == (200, {"ready": True})
    assert server.ask("GET", "/v2/models/wine/ready")[1] == {"name": "wine", "ready": True}
    told = server.ask("GET", "/v2/models/wine")[1]
    assert told["versions"] == ["1"]
    row = {"alcohol": 2.0, "pH": 3.0, "who": "kim"}
    inputs = [
        {"name": t["name"], "datatype": t["datatype"], "shape": [1], "data": [row[t["name"]]]}
        for t in told["inputs"]
    ]
    status, answer = server.ask("POST", "/v2/models/wine/infer", {"id": "r7", "inputs": inputs})
    assert (status, answer["id"], answer["model_version"]) == (200, "r7", "1")
    assert len(answer["parameters"]["prediction_id"]) == 26
    assert answer["outputs"] == [
        {"name": "quality", "datatype": "FP64", "shape": [1], "data": [10.0]}
    ]


def test_classes_are_answered_in_their_own_type(bench):
    seq = bench.route(arm(bench.bundle(0.5, schema=KINDS, model="fruit")), model="fruit")
    server = bench.serve("fruit")
    bench.wait_for(seq, model="fruit")
    status, answer = server.ask("POST", "/v2/models/fruit/infer", matrix([3.0, -3.0], [2, 1]))
    (output,) = answer["outputs"]
    assert (status, output["datatype"], output["data"]) == (200, "INT64", [1, 0])


def test_without_a_champion_or_a_model_the_protocol_says_so(bench):
    server = bench.serve()
    for path in ("/v2/health/ready", "/v2/models/wine", "/v2/models/wine/ready"):
        assert server.ask("GET", path)[0] == 503
    assert server.ask("GET", "/v2/health/live")[0] == 200
    for method, path in (("GET", "/v2/models/beer"), ("POST", "/v2/models/beer/infer")):
        assert server.ask(method, path, COLUMNS if method == "POST" else None)[0] == 404


# ---- tensors as bytes ----------------------------------------------------------------------------


def as_bytes(*tensors_, **more):
    """`(body, length of its JSON)` of tensors given as (name, datatype, bytes, shape)."""
    inputs = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
        for name, kind, raw, shape in tensors_
    ]  # fmt: skip
    text = encode({"inputs": inputs, **more})
    return text + b"".join(raw for _, _, raw, _ in tensors_), len(text)


def text_bytes(*texts):
    return b"".join(struct.pack("<I", len(t)) + t for t in texts)


B = ("b", "INT32", struct.pack("<2i", 3, 4), [2])
A = ("a", "FP32", struct.pack("<2f", 1.5, float("nan")), [2, 1])


def test_tensors_as_bytes_are_the_rows_that_json_would_be_and_nan_is_missing():
    body, size = as_bytes(B, A)
    found = open_inference.Exchange("m", size).form.read(body, PAIR)
    wanted = read(COLUMNS)
    assert found.num.tobytes() == wanted.num.tobytes()
    assert (found.inputs, found.missing) == (wanted.inputs, wanted.missing)


@pytest.mark.parametrize("kind", sorted(tensors.DTYPES))
def test_each_datatype_comes_back_from_its_bytes(kind):
    values = [True, False] if kind == "BOOL" else [1, 2] if "INT" in kind else [0.5, 2.0]
    body = [{"name": "x", "datatype": kind, "parameters": {"binary_data_size": len(tensors.pack(values, kind))}}]  # fmt: skip
    tensors.fill(body, tensors.pack(values, kind))
    assert (body[0]["data"], body[0]["parameters"]) == (values, {})


@pytest.mark.parametrize(
    ("tensor", "more", "at"),
    [
        (("a", "FP32", b"123", [1]), b"", "$.inputs[0].parameters.binary_data_size"),
        (A, b"x", "$"),
        (
            ("input-0", "FP32", struct.pack("<2f", 1.0, float("inf")), [1, 2]),
            b"",
            "$.inputs[0].data[1]",
        ),
        (("a", "FP32", struct.pack("<f", 1.0), [2]), b"", "$.inputs[0].data"),
        (("a", "BYTES", text_bytes(b"ok", b"\xff"), [2]), b"", "$.inputs[0].data[1]"),
        (("a", "BYTES", b"\xff\0\0\0x", [1]), b"", "$.inputs[0].data[0]"),
        (("a", "FP128", b"1", [1]), b"", "$.inputs[0].datatype"),
    ],
)
def test_bytes_that_are_no_such_tensor_are_named_by_their_path(tensor, more, at):
    body, size = as_bytes(tensor)
    with pytest.raises(InputFault) as found:
        open_inference.Exchange("m", size).form.read(body + more, PAIR)
    assert found.value.at == at


def test_a_client_sends_bytes_and_is_answered_in_bytes(steady):
    _, server = steady
    body, size = as_bytes(
        ("alcohol", "FP64", struct.pack("<2d", 2.0, 3.0), [2]), ("pH", "FP32", struct.pack("<2f", 3.0, 3.0), [2]),
        ("who", "BYTES", text_bytes(b"kim", "이".encode()), [2]), parameters={"binary_data_output": True},
    )  # fmt: skip
    link = server.connect()
    link.request("POST", "/v2/models/wine/infer", body, {"Inference-Header-Content-Length": str(size), "Content-Type": "application/octet-stream"})  # fmt: skip
    answer = link.getresponse()
    text, end = answer.read(), int(answer.headers["Inference-Header-Content-Length"])
    link.close()
    (output,) = json.loads(text[:end])["outputs"]
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert (output["shape"], output["parameters"]) == ([2], {"binary_data_size": 16})
    assert struct.unpack("<2d", text[end:]) == (10.0, 11.0)


@pytest.mark.parametrize("said", ["x", "-1", "999999", "²"])
def test_a_length_of_json_that_cannot_be_is_refused(steady, said):
    _, server = steady
    headers = {"Inference-Header-Content-Length": said.encode("utf-8")}
    assert server.ask("POST", "/v2/models/wine/infer", COLUMNS, headers=headers)[0] == 400
