"""Boosted trees of any library as an ONNX graph: what a reader found in the model, written with its own precision.

Readers take the trees from what the library itself saves. No converter stands between, so nothing is guessed: a model
that holds what is not read here is refused by its reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Link = Literal["identity", "sigmoid", "softmax", "exp", "signed_square", "log1p_exp"]


@dataclass
class Ensemble:
    """Trees whose leaves are summed for each target, and what is made of the sums."""

    is_double: bool
    """Whether values are compared with thresholds in double; else in float32."""
    yes: Literal["BRANCH_LEQ", "BRANCH_LT"]
    """What leads to a node's first child."""
    link: Link
    base: list[float]
    """Of each target, before the link."""
    nodes: list[tuple[int, int, int, float, int, int, bool]] = field(default_factory=list)
    """Tree, node, feature, threshold, child if yes, child if no, and whether a missing value goes to the first."""
    leaves: list[tuple[int, int, int, float]] = field(default_factory=list)
    """Tree, node, target, value."""

    def split(
        self, tree: int, node: int, feature: int, threshold: float, yes: int, no: int, missing: bool
    ) -> None:
        """Add a node that asks."""
        self.nodes.append((tree, node, feature, threshold, yes, no, missing))

    def leaf(self, tree: int, node: int, target: int, value: float) -> None:
        """Add a node that answers."""
        self.leaves.append((tree, node, target, value))


def graph(ensemble: Ensemble, width: int, n_classes: int) -> Any:
    """A graph from `Z` [N, width] to `scores`: [N, n_classes] probabilities, or [N, 1] numbers where that is 0."""
    from onnx import TensorProto, helper

    kind = TensorProto.DOUBLE if ensemble.is_double else TensorProto.FLOAT
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            ["Z"],
            ["sums"],
            "trees",
            domain="ai.onnx.ml",
            n_targets=len(ensemble.base),
            **_tables(ensemble),
        ),
        *_linked(ensemble.link),
    ]
    constants = [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])]
    if n_classes == 2 and len(ensemble.base) == 1:
        nodes.append(helper.make_node("Sub", ["one", "linked"], ["other"]))
        nodes.append(helper.make_node("Concat", ["other", "linked"], ["scores"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["linked"], ["scores"]))
    return helper.make_model(
        helper.make_graph(
            nodes,
            "trees",
            [helper.make_tensor_value_info("Z", kind, [None, width])],
            # TreeEnsemble answers in float by its specification, whatever it compares in.
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, n_classes or 1])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=10,
    )


def _tables(ensemble: Ensemble) -> dict[str, Any]:
    """The attributes of TreeEnsembleRegressor: one entry for each node, inner ones and leaves."""
    rows = [(*node, ensemble.yes) for node in ensemble.nodes]
    rows += [(tree, node, 0, 0.0, 0, 0, False, "LEAF") for tree, node, _, _ in ensemble.leaves]
    rows.sort(key=lambda row: row[:2])
    trees, nodes, features, thresholds, yes, no, missing, modes = map(list, zip(*rows, strict=True))
    of_tree, of_node, targets, values = map(list, zip(*ensemble.leaves, strict=True))
    tables: dict[str, Any] = {
        "nodes_treeids": trees,
        "nodes_nodeids": nodes,
        "nodes_featureids": features,
        "nodes_truenodeids": yes,
        "nodes_falsenodeids": no,
        "nodes_missing_value_tracks_true": [int(m) for m in missing],
        "nodes_modes": modes,
        "target_treeids": of_tree,
        "target_nodeids": of_node,
        "target_ids": targets,
    }
    numbers = {"nodes_values": thresholds, "target_weights": values, "base_values": ensemble.base}
    return tables | (_doubles(numbers) if ensemble.is_double else numbers)


def _doubles(numbers: dict[str, list[float]]) -> dict[str, Any]:
    from onnx import TensorProto, helper

    return {
        f"{name}_as_tensor": helper.make_tensor(name, TensorProto.DOUBLE, [len(values)], values)
        for name, values in numbers.items()
    }


def _linked(link: Link) -> list[Any]:
    """Nodes from `sums` to `linked`."""
    from onnx import helper

    def one(kind: str, inputs: list[str], output: str = "linked", **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, [output], **attributes)

    match link:
        case "identity":
            return [one("Identity", ["sums"])]
        case "sigmoid":
            return [one("Sigmoid", ["sums"])]
        case "softmax":
            return [one("Softmax", ["sums"], axis=1)]
        case "exp":
            return [one("Exp", ["sums"])]
        case "signed_square":
            return [one("Abs", ["sums"], "size"), one("Mul", ["sums", "size"])]
        case "log1p_exp":
            return [one("Softplus", ["sums"])]
