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
        return self.metric == "rmse"


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
    losses = []
    # On a wide table fewer trees say about the same in a tenth of the time.
    n_trees = max(10, min(params["n_estimators"], int(MAX_CELLS * 100 / train.size)))
    for seed in (42, 43):
        # On all cores: the same trees, sooner.
        model = fit_template(
            train, schema, params | {"random_state": seed, "n_jobs": -1, "n_estimators": n_trees}
        )
        losses.append(_losses(truth, model.predict(heldout.drop(columns=[target])), schema))
    constant = (
        train[target].mean() if schema.output.task == "regression" else train[target].mode()[0]
    )
    nothing = _losses(truth, np.full(len(truth), constant), schema)
    is_regression = schema.output.task == "regression"

    def metric(loss: np.ndarray) -> np.ndarray:
        return np.sqrt(loss) if is_regression else 1.0 - loss

    dice = np.random.default_rng(0)
    picks = dice.integers(0, len(truth), (N_RESAMPLES, len(truth)))
    spread = metric(losses[0][picks].mean(axis=1))
    lower, upper = (float(x) for x in np.quantile(spread, (0.005, 0.995)))
    value, trivial = float(metric(losses[0].mean())), float(metric(nothing.mean()))
    difference = metric(losses[0][picks].mean(axis=1)) - metric(losses[1][picks].mean(axis=1))
    margin = max(2.0 * float(difference.std()), 0.02 * abs(value))
    bound, beats = (upper, upper < trivial) if is_regression else (lower, lower > trivial)
    # Where the model does not clearly beat the trivial one, a limit between them would decide nothing.
    room = (
        0.5 * (trivial - bound) if beats else 0.25 * (upper - lower) * (1 if is_regression else -1)
    )
    return Guessed(
        "rmse" if is_regression else "accuracy", value, lower, upper, trivial,
        _rounded(bound + room, up=is_regression), _rounded(margin, up=True), beats,
    )  # fmt: skip


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


def _losses(truth: Any, found: Any, schema: Schema) -> np.ndarray:
    import numpy as np

    if schema.output.task == "regression":
        return (np.asarray(truth, float) - np.asarray(found, float)) ** 2
    return (np.asarray(truth).astype(str) != np.asarray(found).astype(str)).astype(float)


def _rounded(value: float, *, up: bool) -> float:
    """Three digits, away from the side that would be stricter."""
    import math

    if value == 0 or not math.isfinite(value):
        return value
    scale = 10 ** (2 - math.floor(math.log10(abs(value))))
    return (math.ceil if up else math.floor)(value * scale) / scale
