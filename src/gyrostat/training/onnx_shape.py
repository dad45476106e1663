"""The form in which every graph is served: inputs `num` and `cat`, one output `output`, nothing else.

One matrix for each kind of input instead of one input for each column is what makes a request cheap: 100 named inputs
cost 200 us a row, two matrices 47.
"""

from __future__ import annotations

from typing import Any

NUM, CAT, OUTPUT = "num", "cat", "output"


def input_name(position: int) -> str:
    """What a feature's own [N,1] input is called before grouping: its name in the file may be anything."""
    return f"feature_{position}"


def group_inputs(graph_model: Any, is_text: list[bool]) -> None:
    """Replace `feature_0`, `feature_1`, ... by `num` [N,k] and `cat` [N,m], split in the graph itself.

    Args:
        graph_model: Changed in place; one that takes `num` already stays as it is.
        is_text: Of each feature in the order of the schema.
    """
    from onnx import TensorProto, helper

    graph = graph_model.graph
    found = {i.name: i.type.tensor_type.elem_type for i in graph.input}
    if NUM in found:
        return
    is_double = TensorProto.DOUBLE in found.values()
    number = TensorProto.DOUBLE if is_double else TensorProto.FLOAT
    inputs, front = [], []
    for matrix, wanted, kind in ((NUM, False, number), (CAT, True, TensorProto.STRING)):
        names = [input_name(i) for i, text in enumerate(is_text) if text is wanted]
        if not names:
            continue
        inputs.append(helper.make_tensor_value_info(matrix, kind, [None, len(names)]))
        node = f"split_{matrix}"
        if len(names) > 1:
            front.append(
                helper.make_node("Split", [matrix], names, node, axis=1, num_outputs=len(names))
            )
        else:
            front.append(helper.make_node("Identity", [matrix], names, node))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(front + nodes)
    del graph.input[:]
    graph.input.extend(inputs)


def one_output(graph_model: Any, name: str, n_columns: int) -> None:
    """Keep the output `name` alone, as `output` [N, n_columns], and drop what no longer leads to it."""
    from onnx import TensorProto, helper

    graph = graph_model.graph
    kind = next(o.type.tensor_type.elem_type for o in graph.output if o.name == name)
    shape = helper.make_tensor("output_shape", TensorProto.INT64, [2], [-1, n_columns])
    graph.initializer.append(shape)
    graph.node.append(helper.make_node("Reshape", [name, "output_shape"], [OUTPUT], "as_output"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, kind, [None, n_columns]))
    _prune(graph)


def _prune(graph: Any) -> None:
    needed, kept = {OUTPUT}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    kept.reverse()
    del graph.node[:]
    graph.node.extend(kept)
    constants = [c for c in graph.initializer if c.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)
