"""A fitted scikit-learn model as an ONNX graph that answers what the model answers.

The default conversion computes in float32 from the first step on. Behind a scaler that is wrong for trees: values and
thresholds lie on the same grid, and the last digit decides the branch (2 % of labels). So preprocessing is converted in
double, as scikit-learn computes it, and its result is cast to what the estimator itself compares in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gyrostat_runtime.errors import BundleFault
from gyrostat_runtime.onnx_check import DOMAINS, check_graph
from gyrostat_runtime.schema import Schema

from gyrostat.training import onnx_lightgbm, onnx_trees, onnx_xgboost
from gyrostat.training.onnx_columns import by_position
from gyrostat.training.onnx_refusals import refusal
from gyrostat.training.onnx_repairs import double_trees, repaired
from gyrostat.training.onnx_shape import NUM, group_inputs, input_name, one_output
from gyrostat.training.onnx_target import append_inverse, inverse_of

OPSET = {"": 21, "ai.onnx.ml": 3}
"""ai.onnx.ml 3 is the first that holds double thresholds and the last that skl2onnx writes reliably."""


class ConversionError(Exception):
    """This model has no faithful ONNX form; the message says why, in one line."""


@dataclass(frozen=True)
class Attempt:
    """One way to convert: `graph()` may raise ConversionError."""

    path: str
    graph: Callable[[], bytes]


def text_features(schema: Schema) -> list[str]:
    """Names of the features that reach the model as text, in the order of the schema."""
    kinds = {column.name: column.kind for column in schema.inputs}
    return [f.name for f in schema.features if kinds[f.column] == "category" and not f.part]


def attempts(model: Any, schema: Schema) -> Iterator[Attempt]:
    """The ways to convert `model`, the most faithful first. The first whose answers agree is served.

    Raises:
        ConversionError: it is of a kind that is known to convert wrongly, or that has no ONNX form.
    """
    parts = _taken_apart(model)
    is_read = _reader(parts.estimator) is not None
    reason = refusal([*parts.steps, parts.estimator], is_read=is_read)
    if reason:
        raise ConversionError(reason)
    if is_read:
        yield Attempt("exact", lambda: _graph(parts, schema))
    elif type(parts.estimator).__name__.startswith("HistGradientBoosting"):
        # It compares in double, all other trees of scikit-learn in float32.
        yield Attempt("exact, double trees", lambda: _graph(parts, schema, trees=True))
    else:
        yield Attempt("exact", lambda: _graph(parts, schema))
        yield Attempt("double", lambda: _graph(parts, schema, is_double=True))
    if parts.steps:
        yield Attempt("float", lambda: _graph(parts, schema, is_float=True))


@dataclass(frozen=True)
class _Parts:
    """A model out of its searches and nested pipelines."""

    steps: list[Any]
    estimator: Any
    inverse: str
    """Name of the function that leads from the estimator's answer back to the target."""


def _taken_apart(model: Any) -> _Parts:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline

    steps: list[Any] = []
    inverse = ""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, Pipeline):
            *first, (_, model) = model.steps
            steps += [step for _, step in first if step is not None and step != "passthrough"]
        elif isinstance(model, TransformedTargetRegressor) and not inverse:
            try:
                inverse, model = inverse_of(model), model.regressor_
            except NotImplementedError as error:
                raise ConversionError(str(error)) from None
        else:
            return _Parts(steps, model, inverse)


def _graph(
    parts: _Parts,
    schema: Schema,
    *,
    trees: bool = False,
    is_double: bool = False,
    is_float: bool = False,
) -> bytes:
    """Steps in double (`is_float`: in float), a cast, then the estimator (`trees`, `is_double`: in double)."""
    import onnx

    steps, estimator = parts.steps, parts.estimator
    with repaired(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            width = int(getattr(estimator, "n_features_in_", len(schema.features)))
            if not steps and text_features(schema):
                return _no("an estimator alone takes no text")
            behind = _estimator(estimator, width, trees=trees, is_double=trees or is_double)
            output = behind.graph.output[-1].name
            classes = getattr(estimator, "classes_", None)
            if steps:
                front = _front(steps, schema, is_float=is_float)
                if _reads_zero_as_missing(estimator, steps, schema):
                    _without_zeros(front)
                graph = _join(front, behind)
                output = f"model_{output}"
            else:
                graph = _alone(behind, width)
                output = f"model_{output}"
            if parts.inverse:
                output = append_inverse(graph, output, parts.inverse)
            group_inputs(graph, _text_flags(schema))
            one_output(graph, output, 1 if classes is None else len(classes))
            # Names that the libraries make up would give the same model another digest.
            graph.graph.name, graph.producer_name, graph.doc_string = "model", "gyrostat", ""
            onnx.checker.check_model(graph)
        except ConversionError:
            raise
        except NotImplementedError as error:
            raise ConversionError(str(error)) from None
        # Whatever a converter stumbles over, the answer is the same: this model is served as it is.
        except Exception as error:  # noqa: BLE001
            raise ConversionError(_line(error)) from None
        raw: bytes = graph.SerializeToString(deterministic=True)
    try:
        check_graph(raw)
    except BundleFault as fault:
        raise ConversionError(fault.message) from None
    return raw


def _text_flags(schema: Schema) -> list[bool]:
    texts = set(text_features(schema))
    return [f.name in texts for f in schema.features]


def _no(why: str) -> bytes:
    raise ConversionError(why)


def _front(steps: list[Any], schema: Schema, *, is_float: bool) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from sklearn.pipeline import Pipeline

    features, texts = [f.name for f in schema.features], set(text_features(schema))
    number = FloatTensorType if is_float else DoubleTensorType
    first, *rest = steps
    steps = [by_position(first, features), *rest]
    pipeline = Pipeline([(f"step_{i}", step) for i, step in enumerate(steps)])
    kinds = [(NUM, number([None, len(features)]))]
    if texts:
        kinds = [
            (input_name(i), (StringTensorType if name in texts else number)([None, 1]))
            for i, name in enumerate(features)
        ]
    return _to_onnx(pipeline, kinds)


def _estimator(estimator: Any, width: int, *, trees: bool, is_double: bool) -> Any:
    from contextlib import nullcontext

    read = _reader(estimator)
    if read:
        n_classes = len(estimator.classes_) if hasattr(estimator, "classes_") else 0
        return onnx_trees.graph(read(estimator), width, n_classes)
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    options: dict[str, Any] = {"zipmap": False} if hasattr(estimator, "classes_") else {}
    # All distances in one operator of onnxruntime's own: 55 us a row instead of 4,400.
    if type(estimator).__name__.startswith("KNeighbors") and "com.microsoft" in map(_text, DOMAINS):
        options["optim"] = "cdist"
    kind = DoubleTensorType if is_double else FloatTensorType
    with double_trees() if trees else nullcontext():
        named = {id(estimator): options} if options else None
        graph = _to_onnx(estimator, [("Z", kind([None, width]))], options=named)
    if trees:
        for out in graph.graph.output:
            # TreeEnsemble answers in float by its specification, whatever it compares in.
            if out.type.tensor_type.elem_type == TensorProto.DOUBLE:
                out.type.tensor_type.elem_type = TensorProto.FLOAT
    return graph


def _reader(estimator: Any) -> Callable[[Any], onnx_trees.Ensemble] | None:
    """Who reads this estimator's trees, where no converter is trusted with it."""
    readers = {"lightgbm": onnx_lightgbm.read, "xgboost": onnx_xgboost.read}
    return readers.get(type(estimator).__module__.split(".")[0])


def _reads_zero_as_missing(estimator: Any, steps: list[Any], schema: Schema) -> bool:
    """Whether its steps hand over a sparse matrix, in which XGBoost takes each cell that is not there for missing.

    Sparse or not is settled when a ColumnTransformer is fitted, so any row shows it.
    """
    if type(estimator).__module__.split(".")[0] != "xgboost":
        return False
    import pandas as pd
    from scipy.sparse import issparse
    from sklearn.pipeline import Pipeline

    texts, kinds = set(text_features(schema)), {c.name: c for c in schema.inputs}
    row = {
        f.name: [next(iter(kinds[f.column].categories), "") if f.name in texts else 1.0]
        for f in schema.features
    }
    front = Pipeline([(f"step_{i}", step) for i, step in enumerate(steps)])
    return issparse(front.transform(pd.DataFrame(row)))


def _without_zeros(front: Any) -> None:
    """Put NaN in place of each 0 of the output."""
    from onnx import helper

    out = front.graph.output[0]
    kind, given = out.type.tensor_type.elem_type, out.name
    front.graph.initializer.extend(
        helper.make_tensor(name, kind, [1], [value])
        for name, value in (("absent_is", 0.0), ("absent_as", float("nan")))
    )
    front.graph.node.extend(
        (
            helper.make_node("Equal", [given, "absent_is"], ["is_absent"], "find_absent"),
            helper.make_node(
                "Where", ["is_absent", "absent_as", given], ["with_absent"], "put_absent"
            ),
        )
    )
    del front.graph.output[:]
    front.graph.output.append(helper.make_tensor_value_info("with_absent", kind, [None, None]))


def _text(domain: bytes | str) -> str:
    return domain.decode() if isinstance(domain, bytes) else domain


def _to_onnx(model: Any, kinds: list[Any], **options: Any) -> Any:
    import skl2onnx

    # Its annotations say less than it takes and more than it returns.
    convert: Any = skl2onnx.to_onnx
    return convert(model, initial_types=kinds, target_opset=OPSET, **options)


def _join(front: Any, behind: Any) -> Any:
    from onnx import compose, helper

    kind = behind.graph.input[0].type.tensor_type.elem_type
    out = front.graph.output[0]
    joint = out.name
    if out.type.tensor_type.elem_type != kind:
        joint = "prepared_as_compared"
        front.graph.node.append(
            helper.make_node("Cast", [out.name], [joint], "cast_prepared", to=kind)
        )
        del front.graph.output[:]
        front.graph.output.append(helper.make_tensor_value_info(joint, kind, [None, None]))
    _same_opsets(front, behind)
    renamed = compose.add_prefix(behind, "model_", rename_inputs=False)
    return compose.merge_models(front, renamed, io_map=[(joint, renamed.graph.input[0].name)])


def _alone(behind: Any, width: int) -> Any:
    """In front of a lone estimator stands the cast that it makes itself."""
    from onnx import TensorProto, helper

    kind = behind.graph.input[0].type.tensor_type.elem_type
    front = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", [NUM], ["prepared"], "cast_prepared", to=kind)],
            "front",
            [helper.make_tensor_value_info(NUM, TensorProto.DOUBLE, [None, width])],
            [helper.make_tensor_value_info("prepared", kind, [None, width])],
        ),
        opset_imports=list(behind.opset_import),
    )
    return _join(front, behind)


def _same_opsets(*graphs: Any) -> None:
    from onnx import helper

    versions: dict[str, int] = {}
    for graph in graphs:
        for opset in graph.opset_import:
            versions[opset.domain] = max(opset.version, versions.get(opset.domain, 0))
    for graph in graphs:
        del graph.opset_import[:]
        graph.opset_import.extend(helper.make_opsetid(d, v) for d, v in sorted(versions.items()))
        graph.ir_version = min(g.ir_version for g in graphs)


def _line(error: Exception) -> str:
    """The first line of a message that can be 1.5 MB long."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
