"""Models that a script logs with MLflow, in any of its flavours: what becomes of them, or why nothing does."""

import json
import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.rows import from_columns
from gyrostat_runtime.session import Session
from training.tables import a_schema, a_table, as_columns, targets

from gyrostat.errors import JobError
from gyrostat.training import fit
from gyrostat.training.pack import pack
from gyrostat.training.settings import TrainSettings

# MLflow has advice for whoever defines a model, and gives it again wherever one is opened.
pytestmark = pytest.mark.filterwarnings("ignore")
ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "OMP_NUM_THREADS": "1"}
START = """
import mlflow
import pandas as pd

df = pd.read_csv("data/rows.csv")
X, y = df.drop(columns="quality"), df["quality"]
"""
PYFUNC = """
import json

import mlflow.pyfunc


class Mine(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.table = json.load(open(context.artifacts["table"]))

    def predict(self, context, model_input, params=None):
        assert model_input["num"].dtype == "int64"  # as it was logged, though requests know no integers
        return {answer}


class Other(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [0.0] * len(model_input)


json.dump({{"shift": 7.0}}, open("table.json", "w"))
X["num"] = X["num"].astype("int64")
signature = mlflow.models.infer_signature(X)
with mlflow.start_run():
    mlflow.pyfunc.log_model(name="first", python_model=Other())
    mlflow.pyfunc.log_model(
        name="model", python_model=Mine(), artifacts={{"table": "table.json"}}, signature=signature
    )
"""


def logged(tmp_path, script, task="regression"):
    """The model that a script left behind, and the job's folder."""
    project, job = tmp_path / "project", tmp_path / "job"
    for place in (project / "src", job / "code" / "src"):
        place.mkdir(parents=True)
        (place / "train.py").write_text(START + script)
    table, z = a_table(60)
    y = targets(z)[task]
    settings = TrainSettings(run="src/train.py")
    rows = table.assign(quality=y).to_csv(index=False).encode()
    fit.prepare(
        job,
        frame=table,
        labels=y,
        schema=a_schema(table, task),
        settings=settings,
        raw=(Path("data/rows.csv"), rows),
    )
    fit.fit(job, state=tmp_path, project=project, settings=settings, environ=ENVIRON)
    return table, job


def served(tmp_path, table, job, task):
    """What packing said of the model, and what its bundle answers on the table."""
    with (job / "model.pkl").open("rb") as file:
        model = cloudpickle.load(file)
    result = pack(
        tmp_path / "bundle",
        name="wine",
        model=model,
        model_file=job / "model.pkl",
        schema=a_schema(table, task),
        features=table.iloc[:50],
        heldout_features=table.iloc[50:],
        snapshot={},
        training={},
        made_at=0.0,
    )
    keys.create_keys(tmp_path / "keys")
    bundle.sign(tmp_path / "bundle", keys.private_key(tmp_path / "keys"))
    session = Session.open(tmp_path / "bundle", keys.keyring(tmp_path / "keys"), timeout_s=60)
    try:
        return result, session.predict(from_columns(as_columns(table), session.schema)), model
    finally:
        session.close()


def test_any_pyfunc_with_its_files_and_its_signature_is_served_as_it_is(tmp_path):
    answer = 'model_input["num"] + self.table["shift"]'
    table, job = logged(tmp_path, PYFUNC.format(answer=answer))
    result, answered, _ = served(tmp_path, table, job, "regression")
    assert (result.flavour, result.reason) == (
        "native",
        "MlflowModel is no estimator of scikit-learn, so there is no converter",
    )
    assert answered.values == (table["num"] + 7).tolist()


@pytest.mark.slow  # MLflow is loaded two or three times
@pytest.mark.parametrize(
    ("answer", "is_sure"),
    [
        ('["yes" if x > 5 else "no" for x in model_input["fixed acidity"]]', True),
        ('[[0.25, 0.75] if x > 5 else [0.75, 0.25] for x in model_input["fixed acidity"]]', False),
    ],
    ids=["classes", "probabilities"],
)
def test_a_pyfunc_may_answer_with_classes_or_with_a_probability_for_each(tmp_path, answer, is_sure):
    table, job = logged(tmp_path, PYFUNC.format(answer=answer), "binary")
    _, answered, _ = served(tmp_path, table, job, "binary")
    is_yes = table["fixed acidity"] > 5
    assert answered.values == np.where(is_yes, "yes", "no").tolist()
    expected = np.where(is_yes, 1.0 if is_sure else 0.75, 0.0 if is_sure else 0.25)
    assert answered.scores[:, 1].tolist() == expected.tolist()


@pytest.mark.slow  # MLflow is loaded two or three times
def test_a_pyfunc_that_answers_neither_is_told_what_to_answer(tmp_path):
    answer = 'model_input["num"] / 100'
    with pytest.raises(JobError) as raised:
        logged(tmp_path, PYFUNC.format(answer=answer), "binary")
    assert "the logged model answers one value a row, such as 0." in str(raised.value)
    assert "and the classes are no, yes. Let it answer with one of these a row, or" in str(
        raised.value
    )


LIGHTGBM = """
import mlflow.lightgbm
from lightgbm import LGBMRegressor

model = LGBMRegressor(n_estimators=5, min_child_samples=5, verbose=-1).fit(X, y)
with mlflow.start_run():
    mlflow.lightgbm.log_model(model, name="model")
"""
XGBOOST = """
from xgboost import XGBRegressor

model = XGBRegressor(n_estimators=5).fit(X, y)
with mlflow.start_run():
    mlflow.xgboost.log_model(xgb_model=model, name="model")
"""


@pytest.mark.slow  # MLflow is loaded two or three times
@pytest.mark.parametrize(
    ("library", "script"),
    [("lightgbm", LIGHTGBM), ("xgboost", XGBOOST)],
    ids=["lightgbm", "xgboost"],
)
def test_a_logged_booster_is_taken_as_the_estimator_that_it_is(tmp_path, library, script):
    pytest.importorskip(library)
    table, job = logged(tmp_path, script)
    result, answered, model = served(tmp_path, table, job, "regression")
    assert (result.flavour, result.reason) == ("onnx", "exact")
    assert np.allclose(answered.values, model.predict(table), atol=1e-4)
    lock = (job / "environment.txt").read_text()
    assert f"\n{library}" in lock


TORCH = """
import mlflow.pytorch
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
with mlflow.start_run():
    mlflow.pytorch.log_model(model, name="model")
torch.save(model.state_dict(), "weights.pt")
"""


@pytest.mark.slow  # MLflow is loaded two or three times
def test_a_pytorch_model_is_served_as_it_is(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    table, job = logged(tmp_path, TORCH)
    result, answered, _ = served(tmp_path, table, job, "regression")
    assert result.flavour == "native"
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    model.load_state_dict(torch.load(job / "code" / "weights.pt"))
    own = model(torch.tensor(table.to_numpy(), dtype=torch.float32)).detach().numpy()[:, 0]
    assert np.allclose(answered.values, own, rtol=1e-5)


@pytest.mark.slow  # MLflow is loaded two or three times
def test_a_logged_model_opens_where_there_is_mlflow_but_no_gyrostat(tmp_path):
    table, job = logged(tmp_path, PYFUNC.format(answer='model_input["num"] * self.table["shift"]'))
    code = (
        "import json, pickle, sys; sys.modules['gyrostat'] = sys.modules['gyrostat_runtime'] = None\n"
        "import pandas as pd\n"
        f"model = pickle.load(open({str(job / 'model.pkl')!r}, 'rb'))\n"
        f"print(json.dumps(model.predict(pd.DataFrame({table.head(2).to_dict('list')!r})).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == (table["num"].head(2) * 7).tolist()
