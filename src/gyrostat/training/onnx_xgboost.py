"""The trees of an XGBoost model, from what it saves of itself: thresholds and leaves are float32, compared by `<`."""

from __future__ import annotations

import json
import math
from typing import Any

from gyrostat.training.onnx_trees import Ensemble, Link

LINKS: dict[str, Link] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "rank:pairwise": "identity",
}
"""Objective to what it makes of the sum of base and leaves."""


def read(model: Any) -> Ensemble:
    """What a fitted estimator of XGBoost answers with: its rounds up to the best where training stopped early.

    Raises:
        NotImplementedError: it holds what this does not read.
    """
    if model.missing is not None and not math.isnan(model.missing):
        raise _not(f"missing={model.missing:g}")
    learner = _learner(model)
    kind, name = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if kind not in ("gbtree", "dart"):
        raise _not(f"booster {kind}")
    if name not in LINKS:
        raise _not(f"objective {name}")
    forest = learner["gradient_booster"]
    weights = forest.get("weight_drop")
    forest = forest.get("gbtree", forest)["model"]
    link = LINKS[name]
    ensemble = Ensemble(
        is_double=False,
        yes="BRANCH_LT",
        link=link,
        base=_base(learner["learner_model_param"], link),
    )
    for i, tree in enumerate(forest["trees"]):
        weight = 1.0 if weights is None else weights[i]
        _add(ensemble, i, tree, target=forest["tree_info"][i], weight=weight)
    if not ensemble.leaves:
        raise NotImplementedError("it has no tree")
    return ensemble


def _learner(model: Any) -> dict[str, Any]:
    booster = model.get_booster()
    best = getattr(booster, "best_iteration", None)
    if best is not None:
        booster = booster[: best + 1]
    return json.loads(booster.save_raw("json"))["learner"]


def _base(said: dict[str, Any], link: Link) -> list[float]:
    """What is added to the leaves of each target; saved as the answer that it would give by itself."""
    n_targets = max(int(said["num_class"]), int(said["num_target"]))
    given = json.loads(said["base_score"])
    given = given if isinstance(given, list) else [given]
    if len(given) == 1:
        given *= n_targets
    match link:
        case "sigmoid":
            return [-math.log(1 / p - 1) for p in given]
        case "exp":
            return [math.log(p) for p in given]
        case _:
            return given


def _add(
    ensemble: Ensemble, number: int, tree: dict[str, Any], *, target: int, weight: float
) -> None:
    if tree["categories_nodes"]:
        raise _not("enable_categorical")
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise _not("multi_output_tree")
    for node, (left, right) in enumerate(
        zip(tree["left_children"], tree["right_children"], strict=True)
    ):
        value = tree["split_conditions"][node]
        if left == -1:
            ensemble.leaf(number, node, target, value * weight)
        else:
            feature, missing = tree["split_indices"][node], bool(tree["default_left"][node])
            ensemble.split(number, node, feature, value, left, right, missing)


def _not(what: str) -> NotImplementedError:
    return NotImplementedError(f"XGBoost's {what} is not converted")
