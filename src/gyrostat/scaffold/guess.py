"""Limits and margins that the held-out rows can decide: one fit of the template, bootstrapped. Guesses, and said to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

N_RESAMPLES = 1000
MAX_CELLS = 50_000


@dataclass(frozen=True)
class Guessed:
    """What "good" could mean for this table."""

    metric: str
    value: float
    lower: float
    upper: float
    trivial: float
    limit: float
    margin: float
    beats_trivial: bool

    @property
    def is_less_better(self) -> bool:
        """Whether small values are good."""
        return self.metric != "accuracy"


def guess(
    train: pd.DataFrame, heldout: pd.DataFrame, schema: Schema, params: dict[str, Any]
) -> Guessed:
    """Fit the template on the training side and measure it on the held-out one.

    The limit lies between the model's interval and what a model that looks at nothing gets; the margin is about the
    standard error of the difference between two seeds, so the rows can tell better from worse.
    """
    import numpy as np

    target = schema.output.target
    truth = heldout[target].to_numpy()
    # On a wide table fewer trees say about the same in a tenth of the time.
    n_trees = max(10, min(params["n_estimators"], int(MAX_CELLS * 100 / train.size)))
    # On all cores: the same trees, sooner.
    models = [
        fit_template(
            train, schema, params | {"random_state": seed, "n_jobs": -1, "n_estimators": n_trees}
        )
        for seed in (42, 43)
    ]
    features = heldout.drop(columns=[target])
    if schema.output.task == "regression":
        nothing = np.full(len(truth), train[target].mean())
        answers = [*(model.predict(features) for model in models), nothing]
        return _measured("rmse", *((np.asarray(truth, float) - said) ** 2 for said in answers))
    answers = [*(model.predict(features) for model in models), np.full(len(truth), train[target].mode()[0])]  # fmt: skip
    found = _measured("accuracy", *((said.astype(str) != truth.astype(str)).astype(float) for said in answers))  # fmt: skip
    if found.beats_trivial:
        return found
    # Where nearly all rows are of one class, or noise rules, how likely each class is says more than which one it is.
    classes = models[0].classes_.astype(str)
    shares = train[target].astype(str).value_counts(normalize=True).reindex(classes).to_numpy()
    likely = [*(model.predict_proba(features) for model in models), np.broadcast_to(shares, (len(truth), len(classes)))]  # fmt: skip
    better = _measured("brier", *(_brier(truth.astype(str), p, classes) for p in likely))
    return better if better.value < better.trivial else found


def _measured(metric: str, first: np.ndarray, second: np.ndarray, nothing: np.ndarray) -> Guessed:
    """What losses a row say about limit and margin: of the model, of the same with another seed, of the trivial one."""
    import numpy as np

    is_less_better = metric != "accuracy"

    def reduced(loss: np.ndarray) -> np.ndarray:
        return np.sqrt(loss) if metric == "rmse" else loss if is_less_better else 1.0 - loss

    dice = np.random.default_rng(0)
    picks = dice.integers(0, len(first), (N_RESAMPLES, len(first)))
    spread = reduced(first[picks].mean(axis=1))
    lower, upper = (float(x) for x in np.quantile(spread, (0.005, 0.995)))
    value, trivial = float(reduced(first.mean())), float(reduced(nothing.mean()))
    margin = max(2.0 * float((spread - reduced(second[picks].mean(axis=1))).std()), 0.02 * abs(value))  # fmt: skip
    bound, beats = (upper, upper < trivial) if is_less_better else (lower, lower > trivial)
    # Where the model does not clearly beat the trivial one, a limit between them would decide nothing.
    room = 0.5 * (trivial - bound) if beats else 0.25 * (upper - lower) * (1 if is_less_better else -1)  # fmt: skip
    return Guessed(
        metric, value, lower, upper, trivial,
        _rounded(bound + room, up=is_less_better), _rounded(margin, up=True), beats,
    )  # fmt: skip


def _brier(truth: np.ndarray, likely: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The Brier score of each row, as `gates.metrics` has it: of two classes that of one."""
    loss = ((likely - (truth[:, None] == classes)) ** 2).sum(axis=1)
    return loss / 2 if len(classes) == 2 else loss


def fit_template(train: pd.DataFrame, schema: Schema, params: dict[str, Any]) -> Any:
    """The pipeline of the project's own `src/train.py`."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    target = schema.output.target
    features = train.drop(columns=[target])
    texts = [c for c in features.columns if features[c].dtype == object]
    numbers = [c for c in features.columns if c not in texts]
    prepare = ColumnTransformer(
        [
            *(
                [("numbers", SimpleImputer(strategy="median", keep_empty_features=True), numbers)]
                if numbers
                else []
            ),
            *(
                [("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts)]
                if texts
                else []
            ),
        ]
    )
    forest = RandomForestRegressor if schema.output.task == "regression" else RandomForestClassifier
    return Pipeline([("prepare", prepare), ("model", forest(**params))]).fit(
        features, train[target]
    )


def _rounded(value: float, *, up: bool) -> float:
    """Three digits, away from the side that would be stricter."""
    import math

    if value == 0 or not math.isfinite(value):
        return value
    scale = 10 ** (2 - math.floor(math.log10(abs(value))))
    return (math.ceil if up else math.floor)(value * scale) / scale
