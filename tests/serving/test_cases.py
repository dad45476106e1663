"""Every request case for `/invocations`, `/predict`, `/labels` and the bytes below them, against a real server.

The model is the one that tests/cases/requests/README.md describes: as a pipeline in a native host, and in ONNX.
"""

from __future__ import annotations

import contextlib
from functools import cache
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from serving.bench import Bench, arm

FOLDER = Path(__file__).parents[1] / "cases"
_spec = util.spec_from_file_location("cases_play_serving", FOLDER / "play.py")
play = util.module_from_spec(_spec)
_spec.loader.exec_module(play)

CASES = play.read_cases(FOLDER / "requests")
TWICE_IN_VAIN = {"size-gzip-bomb", "transport-dripping-body"}
"""Answered before a model is looked at, and long: once is enough."""

PLAYED = [
    pytest.param(
        how,
        case,
        id=f"{how}-{case['id']}",
        marks=[pytest.mark.slow] if "drip" in str(case.get("send")) else [],
    )
    for how in ("native", "onnx")
    for case in CASES.values()
    if not (how == "native" and case["id"] in TWICE_IN_VAIN)
]

COLUMNS = (
    Column("temperature", "number", nullable=True),
    Column("humidity", "number"),
    Column("rooms", "integer"),
    Column("city", "category", nullable=True, categories=("seoul", "busan", "daegu")),
    Column("is_new", "boolean"),
)
HOMES = Schema(
    COLUMNS, tuple(Feature(c.name, c.name) for c in COLUMNS), Output("regression", "price")
)


def homes_pipeline():
    """The pipeline of the cases' README, fitted on its table."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = [
        {
            "temperature": None if i % 20 == 7 else i * 7 % 36 - 5.0,
            "humidity": i * 13 % 100 / 100,
            "rooms": 1 + i % 5,
            "city": None if i % 25 == 3 else ["seoul", "busan", "daegu"][i % 3],
            "is_new": i % 2 == 0,
        }
        for i in range(600)
    ]
    worth = {"seoul": 300, "busan": 120, "daegu": 60}
    price = [
        100
        + 2.5 * (15.0 if r["temperature"] is None else r["temperature"])
        - 40 * r["humidity"]
        + 55 * r["rooms"]
        + worth.get(r["city"], 0)
        + 45 * r["is_new"]
        for r in rows
    ]
    numbers = ["temperature", "humidity", "rooms", "is_new"]
    frame = pd.DataFrame(rows)
    frame[numbers] = frame[numbers].astype(np.float64)
    frame["city"] = frame["city"].fillna("").astype(object)
    model = make_pipeline(
        make_column_transformer(
            (SimpleImputer(), ["temperature"]),
            (OneHotEncoder(handle_unknown="ignore"), ["city"]),
            remainder="passthrough",
        ),
        LinearRegression(),
    )
    return model.fit(frame, price)


def homes_graph() -> bytes:
    """The same prices as a graph in ONNX, which the server answers before ASGI."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "mean": np.array([15.0], np.float32),
        "weights": np.array([[2.5], [-40.0], [55.0], [45.0]], np.float32),
        "base": np.array([100.0], np.float32),
    }
    nodes = [
        helper.make_node("IsNaN", ["num"], ["absent"]),
        helper.make_node("Where", ["absent", "mean", "num"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["sum"]),
        helper.make_node(
            "LabelEncoder",
            ["cat"],
            ["worth"],
            domain="ai.onnx.ml",
            keys_strings=["seoul", "busan", "daegu"],
            values_floats=[300.0, 120.0, 60.0],
            default_float=0.0,
        ),
        helper.make_node("Sum", ["sum", "worth", "base"], ["output"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "homes",
            [
                helper.make_tensor_value_info("num", TensorProto.FLOAT, [None, 4]),
                helper.make_tensor_value_info("cat", TensorProto.STRING, [None, 1]),
            ],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 1])],
            [numpy_helper.from_array(v, k) for k, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)],
        ir_version=9,
    )
    return model.SerializeToString()


@pytest.fixture(scope="module")
def players(tmp_path_factory):
    """Gives a player of cases against a server with `homes`: `native` in a host process, `onnx` before ASGI."""
    with contextlib.ExitStack() as stack:

        @cache
        def player(how: str):
            bench = Bench(tmp_path_factory.mktemp("homes"))
            model = {"estimator": homes_pipeline()} if how == "native" else {"onnx": homes_graph()}
            seq = bench.route(
                arm(bench.bundle(0.0, schema=HOMES, model="homes", **model)), model="homes"
            )
            server = bench.serve("homes")
            stack.callback(server.close)
            bench.wait_for(seq, model="homes")
            (found,) = server.ask("GET", "/status")[1]["models"]["homes"]["arms"]
            assert (found["flavour"], found["is_inline"]) == (how, how == "onnx")
            return play.Player(CASES, server.address, 30, "", "homes")

        yield player


def test_every_case_is_played():
    assert len(PLAYED) == 2 * 60 - 2


@pytest.mark.parametrize(("how", "case"), PLAYED)
def test_case(players, how, case):
    assert players(how).play(case) == [], case["why"]
