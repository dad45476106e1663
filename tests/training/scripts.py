"""Training code as users write it: the guide's own script, and functions with every kind of mistake."""

GUIDE = """
import mlflow
import mlflow.sklearn
import pandas as pd
from mlflow.tracking import MlflowClient
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import train_test_split

df = pd.read_csv("data/wine.csv", sep=";", encoding="cp949")
X = df.drop("quality", axis=1)
y = df["quality"]
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)

mlflow.set_experiment("wine-quality")
with mlflow.start_run():
    params = {"n_estimators": 10, "max_depth": 6, "random_state": 42}
    mlflow.log_params(params)
    model = RandomForestRegressor(**params)
    model.fit(X_train, y_train)
    mse = mean_squared_error(y_test, model.predict(X_test))
    mlflow.log_metric("mse", mse)
    mlflow.log_metric("n_rows", len(df))
    mlflow.sklearn.log_model(model, "model", registered_model_name="wine")

client = MlflowClient()
client.transition_model_version_stage(name="wine", version=1, stage="Production")
print("done, mse", mse)
"""

NO_MODEL = """
import sys

from helper import words

if __name__ == "__main__":
    assert sys.argv == ["src/train.py"]
    print(words)
    sys.exit(0)
"""

CONSTANT = """
class Constant:
    def __init__(self, value):
        self.value = value

    def predict(self, X):
        return [self.value] * len(X)

"""

FUNCTION = (
    CONSTANT
    + """
def train(frame, params):
    assert params["task"] == "regression"
    assert frame["city"].dtype == object and (frame["city"] == "").any()
    import os
    secrets = [k for k in os.environ if "SECRET" in k]
    assert not secrets, secrets
    return Constant(float(frame[params["target"]].mean() * params["factor"]))


def returns_text(frame, params):
    return "a model"


def exits(frame, params):
    import sys

    sys.exit(3)


def ends_hard(frame, params):
    import os

    os._exit(0)


def raises(frame, params):
    return frame["no such column"].mean()
"""
)
