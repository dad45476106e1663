"""Kinds of models whose conversion is known to succeed and answer wrongly, or that ONNX has no place for.

Each was measured on 5,000 rows; none is converted in the hope that the probes find it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def refusal(chain: Sequence[Any], *, is_read: bool = False) -> str:
    """Why a fitted model stays native, in words for a person; empty where nothing speaks against trying.

    Args:
        chain: Its steps, then the estimator.
        is_read: The estimator needs no converter: its trees are read here.
    """
    from sklearn.base import BaseEstimator

    estimator = chain[-1]
    if not isinstance(estimator, BaseEstimator):
        return (
            f"{type(estimator).__name__} is no estimator of scikit-learn, so there is no converter"
        )
    for part in parts(list(chain)):
        reason = "" if is_read and part is estimator else _reason(part)
        if reason:
            return reason
    if hasattr(estimator, "classes_") and not hasattr(estimator, "predict_proba"):
        return f"{type(estimator).__name__} has no probabilities"
    return ""


def parts(model: Any) -> Iterator[Any]:
    """The model and every fitted estimator inside it, each once, in a fixed order."""
    from sklearn.base import BaseEstimator

    seen: set[int] = set()
    stack: list[Any] = [model]
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        if isinstance(part, BaseEstimator):
            seen.add(id(part))
            yield part
            stack.extend(reversed(list(vars(part).values())))
        elif isinstance(part, dict):
            stack.extend(reversed(list(part.values())))
        elif isinstance(part, (list, tuple)):
            stack.extend(reversed(part))
        elif type(part).__name__ == "ndarray" and part.dtype == object:
            stack.extend(part.ravel().tolist())


def _reason(part: Any) -> str:
    name, home = type(part).__name__, type(part).__module__.split(".")[0]
    if home != "sklearn":
        inside = " inside another model" if home in ("lightgbm", "xgboost") else ""
        return f"{name} comes from {home!r}, for which there is no converter{inside}"
    if name.startswith("HistGradientBoosting"):
        categorical = getattr(part, "is_categorical_", None)
        if categorical is not None and any(categorical):
            return f"{name} with categorical features converts, but answers wrongly"
    if name == "LinearDiscriminantAnalysis" and len(part.classes_) == 2:
        return f"{name} with two classes converts, but its probabilities are wrong"
    if name in ("TunedThresholdClassifierCV", "FixedThresholdClassifier"):
        return f"{name} decides by a threshold of its own that the conversion drops"
    if name in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer", "TfidfTransformer"):
        return f"{name} splits text differently in ONNX"
    if name == "KNNImputer":
        return f"{name} converts, but fills in other values"
    return ""
