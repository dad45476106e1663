"""Reference histograms: what the model's features and answers looked like in training, for the monitor to compare with.

```
{"format": 1, "n": rows,
 "columns": {feature: {"column": input column, "kind": "number", "edges": [...], "counts": [...], "n_missing": n,
                       "quantiles": {"0": x, "0.01": x, ..., "1": x}, "mean": x, "sd": x}
             or       {"column": ..., "kind": "category", "values": [...], "counts": [...], "n_missing": n}},
 "outputs": {"kind": "number", "edges", "counts", "quantiles", "mean", "sd"}
            or {"kind": "category", "values": classes, "counts": answered, "scores": {"edges", "counts"}}}
```
Bin `i` of `len(edges) + 1` holds the values with `edges[i-1] < x <= edges[i]`; the first and the last are open, so every
number has a bin: `numpy.searchsorted(edges, x, side="left")`. Edges are at quantiles of the training rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gyrostat_runtime.schema import Schema

from gyrostat.training.onnx_convert import text_features

if TYPE_CHECKING:
    import pandas as pd

MOST_BINS = 64
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
DIGITS = 9
"""Significant digits of a model's own answers: the rest depends on the order in which threads added up."""


def histograms(features: pd.DataFrame, scores: Any, schema: Schema) -> dict[str, Any]:
    """Describe training rows and the model's answers on them; JSON values.

    Args:
        features: Training rows, columns as `schema.features`.
        scores: (n, c) probabilities or (n, 1) numbers on these rows.
    """
    texts = set(text_features(schema))
    columns = {
        f.name: {
            "column": f.column,
            **(_category if f.name in texts else _number)(features[f.name].to_numpy()),
        }
        for f in schema.features
    }
    return {
        "format": 1,
        "n": len(features),
        "columns": columns,
        "outputs": _outputs(scores, schema),
    }


def _number(values: Any) -> dict[str, Any]:
    import numpy as np

    finite = values[np.isfinite(values)].astype(np.float64)
    edges = _edges(finite)
    counts = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    found: dict[str, Any] = {
        "kind": "number",
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "n_missing": int(len(values) - len(finite)),
    }
    if len(finite):
        quantiles = np.quantile(finite, QUANTILES, method="inverted_cdf")
        found["quantiles"] = {f"{q:g}": float(x) for q, x in zip(QUANTILES, quantiles, strict=True)}
        found["mean"], found["sd"] = float(finite.mean()), float(finite.std())
    return found


def _edges(finite: Any) -> Any:
    import numpy as np

    seen = np.unique(finite)
    if len(seen) <= MOST_BINS:
        # Every value has its own bin, and the last is left open.
        return seen[:-1]
    inner = np.arange(1, MOST_BINS) / MOST_BINS
    return np.unique(np.quantile(finite, inner, method="inverted_cdf"))


def _category(values: Any) -> dict[str, Any]:
    import numpy as np

    seen, counts = np.unique(values.astype(str), return_counts=True)
    pairs = [(s, int(c)) for s, c in zip(seen.tolist(), counts, strict=True) if s]
    return {
        "kind": "category",
        "values": [s for s, _ in pairs],
        "counts": [c for _, c in pairs],
        "n_missing": int(len(values) - sum(c for _, c in pairs)),
    }


def _outputs(scores: Any, schema: Schema) -> dict[str, Any]:
    import numpy as np

    output = schema.output
    rounded = _rounded(scores)
    if output.task == "regression":
        return _number(rounded[:, 0])
    if output.task == "binary" and rounded.shape[1] == 2:
        positive = output.classes.index(output.positive) if output.positive in output.classes else 1
        telling = rounded[:, positive]
        answered = np.where(telling >= output.threshold, positive, 1 - positive)
    else:
        answered = rounded.round(5).argmax(axis=1)
        telling = rounded.max(axis=1)
    counts = np.bincount(answered, minlength=len(output.classes))
    bins = _number(telling)
    return {
        "kind": "category",
        "values": list(output.classes),
        "counts": counts.tolist(),
        # Of the positive class; of several classes, of the one that was answered.
        "scores": {"edges": bins["edges"], "counts": bins["counts"]},
    }


def _rounded(scores: Any) -> Any:
    import numpy as np

    return np.array(
        [[float(f"{x:.{DIGITS}g}") for x in row] for row in np.asarray(scores).tolist()]
    )
