"""The trees of a LightGBM model, from its own dump: thresholds and leaves in double, with all their digits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gyrostat.training.onnx_trees import Ensemble, Link

LINKS: dict[str, Link] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "log1p_exp",
    "multiclass": "softmax",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
}
"""Objective to what it makes of the sum of the leaves."""


def read(model: Any) -> Ensemble:
    """What a fitted estimator of LightGBM answers with: its rounds up to the best where training stopped early.

    Raises:
        NotImplementedError: it holds what this does not read.
    """
    dump = model.booster_.dump_model()
    if dump["average_output"]:
        raise _not("random forest (boosting: rf)")
    n_targets = dump["num_tree_per_iteration"]
    ensemble = Ensemble(is_double=True, yes="BRANCH_LEQ", link=_link(dump), base=[0.0] * n_targets)
    for i, tree in enumerate(dump["tree_info"]):
        _Tree(ensemble, i, i % n_targets).add(tree["tree_structure"])
    if not ensemble.leaves:
        raise NotImplementedError("it has no tree")
    return ensemble


def _link(dump: dict[str, Any]) -> Link:
    """What becomes of the sums. LightGBM writes an objective with its settings: `binary sigmoid:1`."""
    objective: str = dump.get("objective") or "of your own"
    name, *settings = objective.split()
    if name == "regression" and "sqrt" in settings:
        return "signed_square"
    has_slope = any(s.startswith("sigmoid:") and s != "sigmoid:1" for s in settings)
    if name not in LINKS or has_slope:
        raise _not(f"objective {objective}")
    return LINKS[name]


class _Tree:
    def __init__(self, ensemble: Ensemble, tree: int, target: int) -> None:
        self._ensemble, self._tree, self._target = ensemble, tree, target
        self._n = 0

    def add(self, root: dict[str, Any]) -> None:
        """Add every node below and with this one."""
        # Trees grown leaf by leaf can be deeper than Python's recursion.
        waiting = [(root, self._new())]
        while waiting:
            said, node = waiting.pop()
            if "split_feature" in said:
                waiting += self._split(said, node)
            elif "leaf_coeff" in said:
                raise _not("linear_tree")
            else:
                self._ensemble.leaf(self._tree, node, self._target, said["leaf_value"])

    def _new(self) -> int:
        self._n += 1
        return self._n - 1

    def _split(self, said: dict[str, Any], node: int) -> list[tuple[dict[str, Any], int]]:
        left, right = self._new(), self._new()
        if said["decision_type"] == "==":
            self._categories(said, node, left, right)
        else:
            threshold = said["threshold"]
            self._ask(node, said, threshold, left, right, _missing_goes_left(said))
        return [(said["left_child"], left), (said["right_child"], right)]

    def _ask(
        self, node: int, said: dict[str, Any], threshold: float, yes: int, no: int, missing: bool
    ) -> None:
        self._ensemble.split(self._tree, node, said["split_feature"], threshold, yes, no, missing)

    def _categories(self, said: dict[str, Any], node: int, left: int, right: int) -> None:
        """A set of codes goes left, every other value right; as a chain of thresholds over the runs of codes.

        A value is cut to an integer before it is looked up, which equality with a code would not do.
        """
        bounds = [bound for run in _runs(str(said["threshold"])) for bound in run]
        for i, bound in enumerate(bounds):
            is_last = i == len(bounds) - 1
            after = right if is_last else self._new()
            # Below a run: not in it. Else up to its end: in it. A missing value goes right at the first question.
            self._ask(node, said, bound, right if i % 2 == 0 else left, after, i == 0)
            node = after


def _missing_goes_left(said: dict[str, Any]) -> bool:
    """Where a missing value goes: by the split's own rule, or as the 0 that LightGBM takes it for."""
    match said["missing_type"]:
        case "NaN":
            return bool(said["default_left"])
        case "None":
            return bool(said["threshold"] >= 0)
        case _:
            raise _not("zero_as_missing")


def _runs(codes: str) -> Iterator[tuple[float, float]]:
    """Of each run of codes the largest value below it and the largest in it: `0||1||5` has two."""
    numbers = {int(code) for code in codes.split("||")}
    starts = sorted(n for n in numbers if n - 1 not in numbers)
    ends = sorted(n for n in numbers if n + 1 not in numbers)
    for start, end in zip(starts, ends, strict=True):
        # Cutting goes towards 0, so everything above -1 is code 0.
        yield (_below(start) if start else -1.0), _below(end + 1)


def _below(value: int) -> float:
    return math.nextafter(float(value), -math.inf)


def _not(what: str) -> NotImplementedError:
    return NotImplementedError(f"LightGBM's {what} is not converted")
