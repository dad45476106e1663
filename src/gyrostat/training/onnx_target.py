"""A target that was transformed for training: the way back, appended to the graph in double."""

from __future__ import annotations

from typing import Any

from gyrostat.training.onnx_functions import STEPS


def inverse_of(model: Any) -> str:
    """Name of the numpy function that a fitted TransformedTargetRegressor answers through; empty: of none.

    Raises:
        NotImplementedError: it is no numpy function that has an exact counterpart.
    """
    import numpy as np

    function = model.inverse_func
    if model.transformer is None and function is None:
        return ""
    name = getattr(function, "__name__", str(function))
    is_known = name in STEPS or name == "square"
    if model.transformer is not None or not is_known or function is not getattr(np, name, None):
        raise NotImplementedError(
            f"a target transformed by {name if model.transformer is None else type(model.transformer).__name__}"
        )
    return name


def append_inverse(graph_model: Any, output: str, function: str) -> str:
    """Apply `function` to a graph's output; returns the name of the new one."""
    from onnx import TensorProto, helper

    graph = graph_model.graph
    x = "target_0"
    graph.node.append(helper.make_node("Cast", [output], [x], "target_cast", to=TensorProto.DOUBLE))
    steps: tuple[tuple[str, int, float | None], ...] = STEPS.get(function, ())
    for i, (operator, _, constant) in enumerate(steps, start=1):
        inputs = [x]
        if constant is not None:
            inputs.append(f"target_constant_{i}")
            graph.initializer.append(
                helper.make_tensor(inputs[1], TensorProto.DOUBLE, [1], [constant])
            )
        x = f"target_{i}"
        graph.node.append(helper.make_node(operator, inputs, [x], f"target_step_{i}"))
    if function == "square":
        graph.node.append(helper.make_node("Mul", [x, x], ["target_square"], "target_step_square"))
        x = "target_square"
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(x, TensorProto.DOUBLE, [None, None]))
    return x
