"""FunctionTransformer as ONNX, for the numpy functions that have an exact counterpart; any other stays native."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gyrostat.training.onnx_repairs import columns, node

# name of the numpy function -> steps of (operator, opset in which it last changed, constant on its right side)
STEPS: dict[str, tuple[tuple[str, int, float | None], ...]] = {
    "log1p": (("Add", 14, 1.0), ("Log", 13, None)),
    "expm1": (("Exp", 13, None), ("Sub", 14, 1.0)),
    "log": (("Log", 13, None),),
    "exp": (("Exp", 13, None),),
    "sqrt": (("Sqrt", 13, None),),
    "absolute": (("Abs", 13, None),),
    "log2": (("Log", 13, None), ("Mul", 14, 1 / math.log(2))),
    "log10": (("Log", 13, None), ("Mul", 14, 1 / math.log(10))),
    "sin": (("Sin", 7, None),),
    "cos": (("Cos", 7, None),),
}


def shape(operator: Any) -> None:
    """Declare type and width of the output."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    transformer = operator.raw_operator
    first = operator.inputs[0]
    width = sum(variable.type.shape[1] for variable in operator.inputs)
    if transformer.func is None and len(operator.inputs) == 1:
        operator.outputs[0].type = type(first.type)([first.get_first_dimension(), width])
        return
    if transformer.func is not None:
        _name(transformer)
    is_double = any(isinstance(v.type, DoubleTensorType) for v in operator.inputs)
    kind = DoubleTensorType if is_double else FloatTensorType
    operator.outputs[0].type = kind([first.get_first_dimension(), width])


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Write the nodes of the function, one after the other."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType

    transformer, out = operator.raw_operator, operator.outputs[0].full_name
    if transformer.func is None and len(operator.inputs) == 1:
        node(scope, container, "Identity", [operator.inputs[0].full_name], 13, out=out)
        return
    is_double = isinstance(operator.outputs[0].type, DoubleTensorType)
    kind = TensorProto.DOUBLE if is_double else TensorProto.FLOAT
    x = columns(scope, operator, container, to=kind)
    if transformer.func is None:
        node(scope, container, "Identity", [x], 13, out=out)
        return
    if _name(transformer) == "square":
        node(scope, container, "Mul", [x, x], 14, out=out)
        return
    append(scope, container, STEPS[_name(transformer)], x, out=out, kind=kind)


def append(scope: Any, container: Any, steps: Any, x: str, *, out: str, kind: int) -> None:
    """Write `steps` after `x`, ending in `out`."""
    for i, (operator, version, constant) in enumerate(steps):
        inputs = [x]
        if constant is not None:
            name = scope.get_unique_variable_name("constant")
            container.add_initializer(name, kind, [1], [constant])
            inputs.append(name)
        is_last = i == len(steps) - 1
        x = node(scope, container, operator, inputs, version, out=out if is_last else "")


def _name(transformer: Any) -> str:
    import numpy as np

    function: Callable[..., Any] = transformer.func
    name = getattr(function, "__name__", str(function))
    is_known = name in STEPS or name == "square"
    if not is_known or function is not getattr(np, name, None) or transformer.kw_args:
        raise NotImplementedError(
            f"FunctionTransformer({name}): only numpy's {', '.join(STEPS)}, square"
        )
    return name
