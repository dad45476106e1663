"""The training: a frame and parameters in, a fitted model out. Gyrostat calls `train`; change it as you like."""

from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import Pipeline

from src.common import column_groups
from src.features import preprocessing


def train(frame, params):
    """`frame` holds the features and the target; `params` are those of config.yaml, and `target` and `task`."""
    target, task = params["target"], params["task"]
    settings = {k: v for k, v in params.items() if k not in ("target", "task")}
    numbers, texts = column_groups(frame, target)
    forest = RandomForestRegressor if task == "regression" else RandomForestClassifier
    model = Pipeline([("prepare", preprocessing(numbers, texts)), ("model", forest(**settings))])
    return model.fit(frame.drop(columns=[target]), frame[target])
