"""A user's training in a process of its own: what comes back is a model that answers, or a cause that helps."""

import hashlib
import io
import json
import subprocess
import venv
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from training.scripts import FUNCTION, GUIDE, NO_MODEL
from training.tables import a_schema, a_table

from gyrostat.errors import JobError
from gyrostat.training import environment, fit, harness
from gyrostat.training.settings import TrainSettings

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "CLOUD_SECRET": "x", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def project(tmp_path):
    """A project's folder with the functions of `scripts` as src/train.py."""
    (tmp_path / "project" / "src").mkdir(parents=True)
    (tmp_path / "project" / "src" / "train.py").write_text(FUNCTION)
    return tmp_path / "project"


def trained(project, run, *, raw=None, has_text=True, python="", **params):
    """The result of one training, and its job folder."""
    folder = project.parent / "job"
    code = folder / "code" / "src"
    code.mkdir(parents=True)
    for path in (project / "src").iterdir():
        (code / path.name).write_bytes(path.read_bytes())
    settings = TrainSettings(run=run, params=params, python=python)
    table, y = a_table(40, has_text=has_text)
    fit.prepare(
        folder,
        frame=table,
        labels=y,
        schema=a_schema(table, "regression"),
        settings=settings,
        raw=raw,
    )
    result = fit.fit(
        folder, state=project.parent, project=project, settings=settings, environ=ENVIRON
    )
    return result, folder


def test_a_function_gets_frame_and_parameters_and_its_model_is_kept(project):
    result, folder = trained(project, "src.train:train", factor=2.0)
    _, y = a_table(40, has_text=True)
    content = (folder / "model.pkl").read_bytes()
    assert result["made"] == "trained:" + hashlib.sha256(content).hexdigest()
    assert b"src.train" in content  # by reference: the code is packed beside it
    assert result["params"] == {"factor": 2.0}
    assert (result["style"], result["mlflow_run"]) == ("function", "")
    assert result["env_digest"] == environment.describe(environment.lock())["digest"]
    assert result["code"]["commit"] == ""
    answer = subprocess.run(
        [fit.sys.executable, "-c",
         "import pickle; print(pickle.load(open('../model.pkl', 'rb')).predict([[1]])[0])"],
        cwd=folder / "code", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(answer.stdout) == pytest.approx(2 * y.mean())


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("returns_text", "src.train:returns_text returned str, which has no predict()"),
        ("exits", "the training called sys.exit(3)"),
        ("ends_hard", "the training ended with status 0 and left no model"),
        ("raises", "KeyError: 'no such column' (src/train.py:{line})"),
    ],
)
def test_what_comes_back_wrong_is_said_with_its_cause(project, name, cause):
    lines = FUNCTION.splitlines()
    line = next(i for i, text in enumerate(lines, 1) if '"no such column"' in text)
    with pytest.raises(JobError) as raised:
        trained(project, f"src.train:{name}")
    assert cause.format(line=line) in str(raised.value)
    assert not (project.parent / "job" / "model.pkl").exists()


class Answers:
    """A model that answers with whatever it was made with."""

    def __init__(self, answer, columns=None, n=None):
        self.answer = answer
        if columns:
            self.feature_names_in_ = columns
        if n:
            self.n_features_in_ = n

    def predict(self, X):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (None, "returned None; a fitted model is needed"),
        (Answers([1.0] * 7), "the model answered 7 values for 5 rows"),
        (Answers(RuntimeError("not fitted")), "predict the first rows: RuntimeError: not fitted"),
        (Answers([1.0] * 5, columns=["num", "row"]), "columns that requests do not have: row"),
        (Answers([1.0] * 5, n=9), "the model wants 9 columns, requests have 5"),
    ],
)
def test_a_model_that_cannot_answer_requests_is_refused(tmp_path, model, cause):
    table, y = a_table(40, has_text=True)
    schema = a_schema(table, "regression")
    settings = TrainSettings(run="src.train:train")
    fit.prepare(tmp_path, frame=table, labels=y, schema=schema, settings=settings, raw=None)
    spec = json.loads((tmp_path / "train-spec.json").read_bytes())
    harness._check(Answers([1.0] * 5, columns=["num", "city"]), spec, tmp_path)
    with pytest.raises(harness.Unfit, match=cause):
        harness._check(model, spec, tmp_path)


def checked(folder, model, table):
    """Whether a training that returned this model would be taken."""
    schema = a_schema(table, "regression")
    settings = TrainSettings(run="src.train:train")
    fit.prepare(
        folder, frame=table, labels=table["num"], schema=schema, settings=settings, raw=None
    )
    harness._check(model, json.loads((folder / "train-spec.json").read_bytes()), folder)


def test_lightgbm_may_write_blanks_in_names_as_underscores(tmp_path):
    lightgbm = pytest.importorskip("lightgbm")
    table, y = a_table(40)
    model = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(table, y)
    assert list(model.feature_names_in_) == ["fixed_acidity", "num", "a_b"]
    checked(tmp_path, model, table)


@pytest.mark.parametrize("holder", ["", "search", "pipeline"])
def test_lightgbm_fitted_on_columns_in_another_order_is_refused(tmp_path, holder):
    """It takes a frame by place, so that it would answer each request, and wrongly."""
    lightgbm = pytest.importorskip("lightgbm")
    table, y = a_table(40)
    model = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1, min_child_samples=2)
    if holder == "search":
        model = GridSearchCV(model, {"n_estimators": [2]}, cv=2)
    elif holder == "pipeline":
        model = make_pipeline(model)
    model.fit(table[["num", "a b", "fixed acidity"]], y)
    assert np.abs(model.predict(table) - model.predict(table[["num", "a b", "fixed acidity"]])).max() > 0  # fmt: skip
    with pytest.raises(harness.Unfit, match="takes what it is given by place; requests have fixed"):
        checked(tmp_path, model, table)


@pytest.mark.parametrize(
    ("library", "instead"),
    [
        ("lightgbm", "lightgbm.Booster, .* return a LGBMClassifier or LGBMRegressor instead"),
        ("xgboost", "xgboost.Booster, .* return an XGBClassifier or XGBRegressor instead"),
    ],
)
def test_a_bare_booster_is_refused_with_what_to_return_instead(tmp_path, library, instead):
    lib = pytest.importorskip(library)
    table, y = a_table(40)
    data = getattr(lib, {"lightgbm": "Dataset", "xgboost": "DMatrix"}[library])
    quiet = {"verbose": -1} if library == "lightgbm" else {}
    model = lib.train(quiet, data(table.to_numpy(), y), 2)
    with pytest.raises(harness.Unfit, match=instead):
        checked(tmp_path, model, table)


@pytest.mark.parametrize(
    ("library", "name"), [("lightgbm", "LGBMRegressor"), ("xgboost", "XGBRegressor")]
)
def test_a_model_that_wants_pandas_categories_is_told_to_encode_text(tmp_path, library, name):
    lib = pytest.importorskip(library)
    table, y = a_table(40, has_text=True)
    table = table.drop(columns="a_b")
    own = {"verbose": -1} if library == "lightgbm" else {"enable_categorical": True}
    frame = table.astype({"city": "category"})
    model = getattr(lib, name)(n_estimators=2, **own).fit(frame, y)
    with pytest.raises(harness.Unfit, match="text in city: a Pipeline that encodes it"):
        checked(tmp_path, model, table)


def test_a_script_that_logs_no_model_is_told_what_is_missing(project):
    (project / "src" / "train.py").write_text(NO_MODEL)
    (project / "src" / "helper.py").write_text("words = 'imported as beside python src/train.py'\n")
    (project.parent / "mlflow").mkdir()
    (project.parent / "mlflow" / "mlflow.db").touch()  # nothing is made in it
    with pytest.raises(JobError, match="logged no model"):
        trained(project, "src/train.py")


def test_the_code_has_a_digest_that_data_and_caches_do_not_change(tmp_path):
    (tmp_path / "src" / "__pycache__").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "src" / "train.py").write_text("1")
    first = fit.code_digest(tmp_path)
    (tmp_path / "data" / "rows.csv").write_text("1")
    (tmp_path / "src" / "__pycache__" / "train.pyc").write_text("1")
    assert fit.code_digest(tmp_path) == first
    (tmp_path / "src" / "train.py").write_text("2")
    assert fit.code_digest(tmp_path) != first


def test_a_commit_and_whether_the_code_differs_from_it_are_known(project):
    def git(*arguments):
        who = ["-c", "user.name=kim", "-c", "user.email=kim@example.org"]
        subprocess.run(["git", *who, "-C", project, *arguments], check=True, capture_output=True)

    git("init", "-q")
    git("add", "src")
    git("commit", "-q", "-m", "first")
    clean = fit.git_of(project)
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    (project / "notes.txt").write_text("no code")
    assert fit.git_of(project) == clean
    (project / "src" / "train.py").write_text("changed")
    assert fit.git_of(project) == clean | {"dirty": True}


def test_the_guides_script_runs_unmodified_and_its_model_and_run_are_picked_up(project, tmp_path):
    (project / "src" / "train.py").write_text(GUIDE)
    table, y = a_table(40)
    text = table.assign(quality=np.round(y)).to_csv(index=False, sep=";")
    raw = (Path("data/wine.csv"), text.encode("cp949"))
    result, folder = trained(project, "src/train.py", raw=raw, has_text=False, ignored=1)
    assert result["style"] == "script"
    assert result["params"] == {"n_estimators": "10", "max_depth": "6", "random_state": "42"}
    assert result["metrics"]["n_rows"] == 40  # the training rows, all of them
    assert result["metrics"]["mse"] > 0
    model = cloudpickle.load(io.BytesIO((folder / "model.pkl").read_bytes()))
    assert type(model).__name__ == "RandomForestRegressor"
    assert list(model.feature_names_in_) == list(table)
    _holds_the_run(tmp_path, result["mlflow_run"])


def _holds_the_run(state, run_id):
    """The store as a program without MLflow sees it: opening MLflow costs seconds."""
    import sqlite3

    with sqlite3.connect(state / "mlflow" / "mlflow.db") as db:
        status, place = db.execute(
            "SELECT status, artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)
        ).fetchone()
        stages = db.execute("SELECT name, version, current_stage FROM model_versions").fetchall()
    db.close()
    assert status == "FINISHED"
    assert str(state / "mlflow" / "artifacts") in place
    assert stages == [("wine", 1, "Production")]


def a_venv(folder, *, sees_ours=True):
    """Another environment: it sees the libraries that we have, but not gyrostat, and has one that we have not."""
    venv.create(folder, symlinks=True, with_pip=False)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "made_up-9.9.dist-info").mkdir()
    (packages / "made_up-9.9.dist-info" / "METADATA").write_text("Name: made-up\nVersion: 9.9\n")
    if sees_ours:
        (packages / "ours.pth").write_text(str(Path(cloudpickle.__file__).parents[1]))
    return folder / "bin" / "python"


ELSEWHERE = """
import importlib.util
import sys
assert sys.prefix.endswith("elsewhere"), sys.prefix
assert importlib.util.find_spec("gyrostat") is None
"""
LOGS = """
import mlflow
import mlflow.sklearn
from sklearn.dummy import DummyRegressor

with mlflow.start_run():
    model = DummyRegressor().fit([[1.0, 2.0, 3.0]] * 3, [1.0, 2.0, 3.0])
    mlflow.sklearn.log_model(model, "model")
"""


@pytest.mark.parametrize("style", ["function", pytest.param("script", marks=pytest.mark.slow)])
def test_another_interpreter_trains_without_gyrostat_and_its_environment_is_the_one_on_record(
    project, style
):
    a_venv(project / "elsewhere")
    (project / "src" / "train.py").write_text(
        ELSEWHERE + (FUNCTION if style == "function" else LOGS)
    )
    run = "src.train:train" if style == "function" else "src/train.py"
    is_script = style == "script"
    result, folder = trained(project, run, python="elsewhere/bin/python", has_text=not is_script, **({} if is_script else {"factor": 2.0}))  # fmt: skip
    assert (folder / "model.pkl").exists()
    assert result["style"] == style
    lock = (folder / environment.FILE).read_text()
    assert "made-up==9.9\n" in lock
    assert result["environment"] == environment.describe(lock)
    assert result["env_digest"] == result["environment"]["digest"]
    assert result["env_digest"] != environment.describe(environment.lock())["digest"]


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("bare", "lacks pandas, pyarrow, cloudpickle, without which it cannot train here. Type: "),
        (
            "absent",
            "cannot be started: No such file or directory. Name an interpreter that is there",
        ),
        ("folder", "cannot be started: Permission denied. Name an interpreter that is there"),
        ("no python", "is train.python (/bin/false) a Python of 3.9 or newer?"),
    ],
)
def test_an_interpreter_that_cannot_train_is_said_with_what_to_do(project, kind, cause):
    python = {
        "bare": lambda: a_venv(project / "elsewhere", sees_ours=False),
        "absent": lambda: "elsewhere/bin/python",
        "folder": lambda: project,
        "no python": lambda: "/bin/false",
    }[kind]()
    with pytest.raises(JobError) as raised:
        trained(project, "src.train:train", python=str(python))
    assert cause in str(raised.value)
