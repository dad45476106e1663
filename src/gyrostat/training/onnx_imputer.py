"""SimpleImputer as ONNX: any mix of numeric inputs in their own precision, an indicator, several text columns."""

from __future__ import annotations

from typing import Any

from gyrostat.training.onnx_repairs import columns, node


def shape(operator: Any) -> None:
    """Declare type and width of the output."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    imputer = operator.raw_operator
    _check(imputer)
    width = len(imputer.statistics_)
    if imputer.add_indicator:
        width += len(imputer.indicator_.features_)
    kinds = {type(variable.type) for variable in operator.inputs}
    kind = next((k for k in (StringTensorType, DoubleTensorType) if k in kinds), FloatTensorType)
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), width])


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Write the nodes: where it is missing, the statistic, else the value."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    imputer, out = operator.raw_operator, operator.outputs[0].full_name
    name, n_columns = scope.get_unique_variable_name, len(imputer.statistics_)
    if isinstance(operator.outputs[0].type, StringTensorType):
        x = columns(scope, operator, container, to=None)
        if not isinstance(imputer.missing_values, str):
            # A missing text reaches the model as "", in training and serving alike, so NaN or None never comes.
            node(scope, container, "Identity", [x], 13, out=out)
            return
        fill, missing = name("fill"), name("missing")
        texts = [str(s).encode() for s in imputer.statistics_]
        container.add_initializer(fill, TensorProto.STRING, [1, n_columns], texts)
        container.add_initializer(
            missing, TensorProto.STRING, [1], [imputer.missing_values.encode()]
        )
        is_missing = node(scope, container, "Equal", [x, missing], 19)
        node(scope, container, "Where", [is_missing, fill, x], 16, out=out)
        return

    is_double = isinstance(operator.outputs[0].type, DoubleTensorType)
    kind = TensorProto.DOUBLE if is_double else TensorProto.FLOAT
    x = columns(scope, operator, container, to=kind)
    is_missing = node(scope, container, "IsNaN", [x], 13)
    fill = name("fill")
    container.add_initializer(
        fill, kind, [1, n_columns], imputer.statistics_.astype(float).tolist()
    )
    if not imputer.add_indicator:
        node(scope, container, "Where", [is_missing, fill, x], 16, out=out)
        return
    filled = node(scope, container, "Where", [is_missing, fill, x], 16)
    which = name("which")
    wanted = imputer.indicator_.features_.tolist()
    container.add_initializer(which, TensorProto.INT64, [len(wanted)], wanted)
    flags = node(scope, container, "Gather", [is_missing, which], 13, axis=1)
    numbers = node(scope, container, "Cast", [flags], 13, to=kind)
    node(scope, container, "Concat", [filled, numbers], 13, out=out, axis=1)


def _check(imputer: Any) -> None:
    import numpy as np

    if imputer.statistics_.dtype.kind not in "fiu":
        if imputer.add_indicator:
            raise NotImplementedError("SimpleImputer with an indicator on text")
        return
    if not (isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values)):
        raise NotImplementedError("SimpleImputer for numbers with missing_values other than NaN")
    if np.isnan(imputer.statistics_.astype(float)).any():
        raise NotImplementedError("SimpleImputer over a column that had no value in training")
