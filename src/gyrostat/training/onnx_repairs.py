"""What skl2onnx 1.20 gets wrong and how it is put right, for the time of one conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def repaired() -> Iterator[None]:
    """Convert inside this: our converters are registered, and attributes are what protobuf 7 accepts."""
    import onnx.helper

    register()
    original = onnx.helper.make_attribute

    def make_attribute(key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return original(key, _plain(value), *args, **kwargs)

    onnx.helper.make_attribute = make_attribute
    try:
        yield
    finally:
        onnx.helper.make_attribute = original


@contextlib.contextmanager
def double_trees() -> Iterator[None]:
    """Convert inside this: thresholds of tree ensembles are written as doubles.

    Histogram gradient boosting compares in double. ai.onnx.ml 3 can hold such thresholds (`nodes_values_as_tensor`),
    but no converter writes them; as float32, 1 to 2 % of rows on a threshold take the other branch.
    """
    import numpy as np
    from onnx import TensorProto, helper
    from skl2onnx.common._container import ModelComponentContainer

    original = ModelComponentContainer.add_node
    tables = ("nodes_values", "nodes_hitrates", "class_weights", "target_weights", "base_values")

    def add_node(
        self: Any, op_type: str, inputs: Any, outputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if op_type.startswith("TreeEnsemble"):
            for name in tables:
                if kwargs.get(name) is not None and len(kwargs[name]):
                    values = np.asarray(kwargs.pop(name), dtype=np.float64)
                    kwargs[f"{name}_as_tensor"] = helper.make_tensor(
                        name, TensorProto.DOUBLE, [len(values)], values
                    )
            kwargs["op_version"] = 3
        return original(self, op_type, inputs, outputs, *args, **kwargs)

    ModelComponentContainer.add_node = add_node
    try:
        yield
    finally:
        ModelComponentContainer.add_node = original


def register() -> None:
    """Register our converters in place of those that fail or answer wrongly. Doing it twice changes nothing."""
    from skl2onnx import update_registered_converter
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_shape_calculator
    from skl2onnx.operator_converters.random_forest import convert_sklearn_random_forest_classifier
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import FunctionTransformer

    from gyrostat.training import onnx_functions, onnx_imputer

    update_registered_converter(
        SimpleImputer,
        "SklearnSimpleImputer",
        onnx_imputer.shape,
        onnx_imputer.convert,
        overwrite=True,
    )
    update_registered_converter(
        FunctionTransformer,
        "SklearnFunctionTransformer",
        onnx_functions.shape,
        onnx_functions.convert,
        overwrite=True,
    )

    def boosting(scope: Any, operator: Any, container: Any) -> Any:
        # The converter's default, ai.onnx.ml 1, cannot hold double thresholds.
        return convert_sklearn_random_forest_classifier(scope, operator, container, op_version=3)

    name = sklearn_operator_name_map[HistGradientBoostingClassifier]
    update_registered_converter(
        HistGradientBoostingClassifier,
        name,
        get_shape_calculator(name),
        boosting,
        overwrite=True,
        options={
            "zipmap": [True, False, "columns"],
            "raw_scores": [True, False],
            "output_class_labels": [False, True],
            "nocl": [True, False],
        },
    )


def columns(scope: Any, operator: Any, container: Any, *, to: int | None) -> str:
    """All inputs of an operator side by side in one matrix; `to`: the tensor type that each is cast to first."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    has_type: dict[int, Any] = {
        TensorProto.FLOAT: FloatTensorType,
        TensorProto.DOUBLE: DoubleTensorType,
    }
    names = []
    for variable in operator.inputs:
        name = variable.full_name
        if to is not None and not isinstance(variable.type, has_type[to]):
            name = node(scope, container, "Cast", [name], 13, to=to)
        names.append(name)
    return names[0] if len(names) == 1 else node(scope, container, "Concat", names, 13, axis=1)


def node(
    scope: Any,
    container: Any,
    kind: str,
    inputs: list[str],
    version: int,
    *,
    out: str = "",
    **attributes: Any,
) -> str:
    """Add one node and return the name of its output."""
    out = out or scope.get_unique_variable_name(kind.lower())
    container.add_node(
        kind,
        inputs,
        out,
        op_version=version,
        name=scope.get_unique_operator_name(kind),
        **attributes,
    )
    return out


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return value.astype(np.int64)
    if isinstance(value, (list, tuple)) and any(isinstance(v, (bool, np.bool_)) for v in value):
        return [int(v) for v in value]
    return value
