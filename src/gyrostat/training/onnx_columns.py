"""Columns by position: a ColumnTransformer that was told names, retold the places of these columns.

Names of columns are whatever a file says; as names of tensors they may collide, be empty, or be names of the graph.
"""

from __future__ import annotations

import copy
from typing import Any


def by_position(part: Any, order: list[str]) -> Any:
    """A copy of a fitted preprocessing step that reads its input columns by their place in `order`.

    The step itself is not touched; what does not choose columns is returned as it is.

    Raises:
        KeyError: it reads a column that `order` does not have.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import FeatureUnion, Pipeline

    if isinstance(part, ColumnTransformer):
        names = list(getattr(part, "feature_names_in_", order))
        place = {name: i for i, name in enumerate(order)}
        found = part._transformer_to_input_indices
        retold = copy.copy(part)
        retold.transformers_ = [
            (name, transformer, [place[names[i]] for i in found[name]])
            for name, transformer, _ in part.transformers_
        ]
        return retold
    if isinstance(part, Pipeline) and part.steps:
        (name, first), *rest = part.steps
        retold = copy.copy(part)
        retold.steps = [(name, by_position(first, order)), *rest]
        return retold
    if isinstance(part, FeatureUnion):
        retold = copy.copy(part)
        retold.transformer_list = [
            (name, by_position(t, order)) for name, t in part.transformer_list
        ]
        return retold
    return part
