from pathlib import Path

import numpy as np
import pytest
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.schema import Column, Feature, Output, Schema

HOMES = Schema(
    inputs=(
        Column("temperature", "number", nullable=True),
        Column("humidity", "number"),
        Column("rooms", "integer"),
        Column("city", "category", nullable=True, categories=("seoul", "busan", "daegu")),
        Column("is_new", "boolean"),
    ),
    features=tuple(Feature(n, n) for n in ("temperature", "humidity", "rooms", "city", "is_new")),
    output=Output("regression", "price"),
)


@pytest.fixture
def homes() -> Schema:
    """The model of `tests/cases/requests/README.md`."""
    return HOMES


@pytest.fixture
def pair() -> Schema:
    """Two numbers in, one number out: for graphs that add them."""
    return Schema(
        (Column("a", "number"), Column("b", "number", nullable=True)),
        (Feature("a", "a"), Feature("b", "b")),
        Output("regression", "y"),
    )


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The `keys/` folder of an environment of its own."""
    folder = tmp_path / "keys"
    keys.create_keys(folder)
    return folder


@pytest.fixture
def pack(tmp_path: Path, environment: Path):
    """Write and sign a bundle: `pack(schema, {"model.onnx": bytes})`; returns its folder."""

    def make(schema: Schema, files: dict[str, bytes], flavour: str = "onnx", **said) -> Path:
        folder = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        bundle.write(folder, bundle.Manifest("homes", flavour, schema, **said))
        bundle.sign(folder, keys.private_key(environment))
        return folder

    return make


@pytest.fixture
def graph():
    """Build ONNX bytes: by default `num` [N,2] times a weight plus a bias, as `output`."""

    def build(
        weight=((1.0,), (1.0,)),
        bias=(0.0,),
        *,
        double: bool = False,
        rename: str = "output",
        softmax: bool = False,
        edit=lambda model: None,
    ) -> bytes:
        from onnx import TensorProto, checker, helper, numpy_helper

        kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
        dtype = np.float64 if double else np.float32
        w, b = np.array(weight, dtype), np.array(bias, dtype)
        nodes = [
            helper.make_node("MatMul", ["num", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["sum" if softmax else rename]),
        ]
        if softmax:
            nodes.append(helper.make_node("Softmax", ["sum"], [rename], axis=1))
        model = helper.make_model(
            helper.make_graph(
                nodes,
                "g",
                [helper.make_tensor_value_info("num", kind, [None, w.shape[0]])],
                [helper.make_tensor_value_info(rename, kind, [None, w.shape[1]])],
                [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
            ),
            opset_imports=[helper.make_opsetid("", 21)],
            ir_version=10,
        )
        checker.check_model(model)
        edit(model)
        return model.SerializeToString()

    return build
