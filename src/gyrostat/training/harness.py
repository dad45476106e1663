"""Runs a user's training in a process of its own. Standard library only, so that `train.python` may name another Python.

    python harness.py FOLDER      reads FOLDER/train-spec.json; leaves model.pkl and train.json, or failure.json

Both styles work: a function `module:function` (frame, params) -> fitted model, and a plain script that uses mlflow.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import importlib.abc
import importlib.util
import json
import math
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

NEEDED = ("pandas", "pyarrow", "cloudpickle")
BOOSTERS = {
    "lightgbm": "a LGBMClassifier or LGBMRegressor",
    "xgboost": "an XGBClassifier or XGBRegressor",
}
"""Library to what of it can be returned."""
ESTIMATORS = {
    "mlflow.sklearn": "sk_model",
    "mlflow.lightgbm": "lgb_model",
    "mlflow.xgboost": "xgb_model",
}
"""Flavour of MLflow that logs a fitted estimator to the name of that argument: it is taken as it is."""


class Unfit(Exception):
    """What came back is no model that can be used; the text says why and what is needed."""


def main(folder: Path) -> int:
    """Run the training of one job; 0 if a model was left behind."""
    _die_with_parent()
    spec = json.loads((folder / "train-spec.json").read_text(encoding="utf-8"))
    code = folder / "code"
    os.chdir(code)
    _beside("sandbox").enter(
        writable=[Path(p) for p in spec.get("writable", [folder])],
        hidden=[Path(p) for p in spec.get("hidden", [])],
    )
    # In the place of this file's own folder, whose modules are none of the user's business.
    sys.path[0] = str(code)
    sys.dont_write_bytecode = True
    try:
        _look_around()
        if spec["style"] == "function":
            model, record = _function(folder, spec)
        elif spec["style"] == "offered":
            model, record = _offered(folder)
        else:
            model, record = _script(folder, spec)
        _check(model, spec, folder)
        _leave(folder, model, record)
    except SystemExit as error:
        cause = f"the training called sys.exit({error.code!r}); return a fitted model instead"
    except Unfit as error:
        cause = str(error)
    except MemoryError:
        cause = "the training ran out of memory"
    except BaseException as error:  # noqa: BLE001 - whatever a user's code raises is the cause on record
        traceback.print_exc()
        said = str(error).strip()[:500]
        cause = type(error).__name__ + (f": {said}" if said else "") + _where(error, code)
    else:
        return 0
    (folder / "failure.json").write_text(json.dumps({"cause": cause}), encoding="utf-8")
    return 1


def _look_around() -> None:
    """Whether this interpreter has what reading rows and keeping a model takes; the rest is the training's business."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise Unfit(
            f"{sys.executable} lacks {', '.join(lacking)}, without which it cannot train here. Type: "
            f"{sys.executable} -m pip install {' '.join(lacking)}; or name another interpreter in train.python, or none"
        )


def _die_with_parent() -> None:
    """When what watches over this training is gone, the training must not go on unwatched."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _where(error: BaseException, code: Path) -> str:
    """The last place in the user's own files."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(code):
            return f" ({path.relative_to(code)}:{frame.lineno})"
    return ""


def _function(folder: Path, spec: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    module, _, name = spec["run"].partition(":")
    frame = _table(folder / "work" / "train.parquet", spec)
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise Unfit(f"{spec['run']}: there is no function {name!r} in {module}")
    params = dict(spec["params"])
    model = function(frame, params | {"target": spec["target"], "task": spec["task"]})
    return model, {"style": "function", "params": params, "metrics": {}, "mlflow_run": ""}


def _offered(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A model from elsewhere, opened where only the project's code and what is installed can be found."""
    import cloudpickle

    try:
        with (folder / "work" / "offered.pkl").open("rb") as file:
            model = cloudpickle.load(file)
    except ModuleNotFoundError as error:
        raise Unfit(
            f"the offered model needs the module {error.name!r}, which is neither installed here nor in the project: "
            "put its file under src/ (and import it from there), install it, or define what it has in the notebook"
        ) from error
    return model, {"style": "offered", "params": {}, "metrics": {}, "mlflow_run": ""}


def _script(folder: Path, spec: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    captured: dict[str, Any] = {}
    _make_store()
    _MlflowHook(captured).enter()
    # As `python src/train.py` would have it; the project's root stays behind it.
    sys.path.insert(0, str(Path(spec["run"]).resolve().parent))
    sys.argv = [spec["run"]]
    try:
        runpy.run_path(spec["run"], run_name="__main__")
    except SystemExit as error:
        if error.code not in (None, 0):
            raise Unfit(f"{spec['run']} called sys.exit({error.code!r})") from None
    if "model" not in captured:
        raise Unfit(
            f'{spec["run"]} logged no model: call mlflow.sklearn.log_model(model, "model") in it'
        )
    model = captured["model"]
    if isinstance(model, MlflowModel) and spec["task"] != "regression":
        model = _classifier(model, spec, folder)
    record = {"style": "script", "params": {}, "metrics": {}, "mlflow_run": captured.get("run", "")}
    if record["mlflow_run"]:
        import mlflow

        data = mlflow.get_run(record["mlflow_run"]).data
        record["params"], record["metrics"] = dict(data.params), dict(data.metrics)
    return model, record


def _make_store() -> None:
    """Create MLflow's tables while nobody else does: two that migrate one file at once spoil it."""
    scheme, _, place = os.environ.get("MLFLOW_TRACKING_URI", "").partition("///")
    if scheme != "sqlite:" or Path(place).exists():
        return
    with Path(place).with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(ImportError):
            import mlflow

            mlflow.MlflowClient().get_experiment("0")


class _MlflowHook(importlib.abc.MetaPathFinder):
    """Wraps the `log_model` of each flavour of MLflow, so that an unmodified script works and is seen."""

    def __init__(self, captured: dict[str, Any]) -> None:
        self._captured = captured

    def enter(self) -> None:
        """From now on; some flavours are there as soon as MLflow is."""
        for name, module in list(sys.modules.items()):
            if _is_flavour(name):
                self.wrap(name, module)
        sys.meta_path.insert(0, self)

    def wrap(self, name: str, module: Any) -> None:
        """Put the wrapper in place of a flavour's own function; a module that has none is no flavour."""
        if callable(getattr(module, "log_model", None)):
            module.log_model = _seen(module.log_model, name, self._captured)

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Let the others find it, and wrap what they load."""
        if not _is_flavour(name):
            return None
        others = (f for f in sys.meta_path if f is not self and hasattr(f, "find_spec"))
        found = next((s for f in others if (s := f.find_spec(name, path, target))), None)
        if found is None or found.loader is None:
            return None
        loader, wrap = found.loader, self.wrap

        class Wrapping(importlib.abc.Loader):
            def create_module(self, spec: Any) -> Any:
                return loader.create_module(spec)

            def exec_module(self, module: Any) -> None:
                loader.exec_module(module)
                wrap(name, module)

        found.loader = Wrapping()
        return found


def _is_flavour(name: str) -> bool:
    """Whether it may be one of MLflow's modules for a kind of model: `mlflow.pyfunc`, but not `mlflow.pyfunc.model`."""
    return name.startswith("mlflow.") and name.count(".") == 1


def _seen(log_model: Any, flavour: str, captured: dict[str, Any]) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        import mlflow

        # Guessing requirements takes seconds and asks the network; and the default format refuses forests.
        if "conda_env" not in kwargs:
            kwargs.setdefault("pip_requirements", [])
        if flavour == "mlflow.sklearn":
            kwargs.setdefault("serialization_format", "cloudpickle")
        active = mlflow.active_run()
        result = log_model(*args, **kwargs)
        captured["run"] = active.info.run_id if active else getattr(result, "run_id", "") or ""
        if flavour in ESTIMATORS:
            captured["model"] = args[0] if args else kwargs[ESTIMATORS[flavour]]
        else:
            captured["model"] = MlflowModel(_files(result.model_uri))
        return result

    return wrapped


def _files(uri: str) -> dict[str, bytes]:
    """A logged model as MLflow keeps it: its files by name."""
    import tempfile

    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as place:
        folder = Path(download_artifacts(artifact_uri=uri, dst_path=place))
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


class MlflowModel:
    """Any model that MLflow has logged, as its files; MLflow itself opens them wherever this is unpickled.

    Pickled by value, so that a process which has MLflow but not this file can open it. Its answers are as wide as the
    model's own: numbers, one a row.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        import pathlib
        import tempfile

        from mlflow import pyfunc

        # A model may read its files again at any time. The folder ends with the process: it is in its own TMPDIR.
        folder = pathlib.Path(tempfile.mkdtemp(prefix="mlflow-model-"))
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        self._model = pyfunc.load_model(str(folder))

    def answers(self, X: Any) -> Any:
        """What the model answers, as an array: one column, or several."""
        import numpy as np

        found = np.asarray(self._model.predict(self._signed(X)))
        return found.reshape(-1) if found.ndim == 2 and found.shape[1] == 1 else found

    def _signed(self, X: Any) -> Any:
        """The frame with the types that the model was logged for: MLflow takes no 3.0 where a 3 was."""
        wanted = self._model.metadata.get_input_schema()
        if wanted is None or not wanted.has_input_names() or not hasattr(X, "columns"):
            return X
        kinds = {spec.name: spec.type.to_numpy() for spec in wanted.inputs}
        numbers = {
            name: kinds[name]
            for name in X.columns
            if name in kinds and kinds[name].kind in "iufb" and not X[name].isna().any()
        }
        return X.astype(numbers)

    def predict(self, X: Any) -> Any:
        """One number a row."""
        return self.answers(X)


class MlflowLabels(MlflowModel):
    """One that answers with a class."""

    classes_: Any


class MlflowProbabilities(MlflowModel):
    """One that answers with a probability for each class, in their sorted order."""

    classes_: Any

    def predict(self, X: Any) -> Any:
        """The likeliest class of each row."""
        return self.classes_[self.answers(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> Any:
        """Probabilities, (n, classes)."""
        return self.answers(X)


def _classifier(model: MlflowModel, spec: dict[str, Any], folder: Path) -> MlflowModel:
    """A logged model that says its classes; what it answers with is seen on training rows."""
    import numpy as np

    rows = _table(folder / "work" / "train.parquet", spec).head(200)
    every = _table(folder / "work" / "train.parquet", spec)[spec["target"]]
    classes = np.unique(every.to_numpy())
    found = model.answers(rows.drop(columns=spec["target"]))
    kind: type[MlflowModel]
    if found.ndim == 1 and np.isin(found, classes).all():
        kind = MlflowLabels
    elif found.shape == (len(rows), len(classes)) and np.allclose(found.sum(axis=1), 1, atol=1e-3):
        kind = MlflowProbabilities
    else:
        shown = ", ".join(map(str, classes[:5].tolist()))
        raise Unfit(
            f"{spec['run']}: the logged model answers {_shown(found)}, and the classes are {shown}. Let it answer with one "
            "of these a row, or with one probability for each of them in this order"
        )
    said = kind.__new__(kind)
    vars(said).update(vars(model) | {"classes_": classes})
    return said


def _shown(found: Any) -> str:
    width = f"{found.shape[1]} numbers a row" if found.ndim == 2 else "one value a row"
    return f"{width}, such as {str(found[0])[:100]}"


def _table(path: Path, spec: dict[str, Any]) -> Any:
    """Rows as a training gets them."""
    import pandas as pd

    frame = pd.read_parquet(path)
    for column in spec["texts"]:
        frame[column] = frame[column].astype(object)
    return frame


def _check(model: Any, spec: dict[str, Any], folder: Path) -> None:
    """Whether this is a fitted model that predicts rows of this table."""
    what = spec["run"]
    if model is None:
        raise Unfit(f"{what} returned None; a fitted model is needed (forgot `return model`?)")
    if not callable(getattr(model, "predict", None)):
        raise Unfit(
            f"{what} returned {type(model).__name__}, which has no predict(); a fitted scikit-learn model is needed"
        )
    library = type(model).__module__.partition(".")[0]
    if library in BOOSTERS and type(model).__name__ == "Booster":
        raise Unfit(
            f"{what} returned {library}.Booster, which says neither its classes nor its columns; fit and return "
            f"{BOOSTERS[library]} instead, with the same parameters"
        )
    frame = _table(folder / "work" / "sample.parquet", spec)
    names = _names(model, list(frame.columns))
    if names is not None:
        lacking = [n for n in names if n not in frame.columns]
        if lacking:
            raise Unfit(
                f"{what}: the model was fitted on columns that requests do not have: {', '.join(map(str, lacking[:5]))}"
            )
        if _asks_no_names(model) and names != list(frame.columns):
            raise Unfit(
                f"{what}: the model was fitted on the columns {', '.join(names)}, in this order, and takes what it is "
                f"given by place; requests have {', '.join(frame.columns)}. Fit it on all of them as they come"
            )
        frame = frame[names]
    elif getattr(model, "n_features_in_", frame.shape[1]) != frame.shape[1]:
        raise Unfit(
            f"{what}: the model wants {model.n_features_in_} columns, requests have {frame.shape[1]}: {', '.join(frame.columns)}"
        )
    try:
        found = model.predict(frame)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).strip()[:300]}"
        hint = ""
        if spec["texts"] and not hasattr(model, "steps"):
            hint = (
                f". Requests have text in {', '.join(spec['texts'][:5])}: a Pipeline that encodes it (OrdinalEncoder, "
                "OneHotEncoder) before the model takes it as it comes"
            )
        raise Unfit(f"{what}: the model cannot predict the first rows: {said}{hint}") from error
    if len(found) != len(frame):
        raise Unfit(f"{what}: the model answered {len(found)} values for {len(frame)} rows")


def _names(model: Any, columns: list[str]) -> list[str] | None:
    """The columns that a model was fitted on, as requests name them; None if it was fitted on an array."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return None
    # LightGBM writes a blank in a name as an underscore.
    blank = {column.replace(" ", "_"): column for column in columns}
    return [str(n) if n in columns else blank.get(str(n), str(n)) for n in names]


def _asks_no_names(model: Any) -> bool:
    """Whether it takes the columns of a frame by their place, so that another order is another answer and no error."""
    for holder in ("best_estimator_", "regressor_"):
        if hasattr(model, holder):
            return _asks_no_names(getattr(model, holder))
    if getattr(model, "steps", None):
        return _asks_no_names(model.steps[0][1])
    return type(model).__module__.partition(".")[0] == "lightgbm"


def _leave(folder: Path, model: Any, record: dict[str, Any]) -> None:
    import cloudpickle

    with (folder / "model.pkl.part").open("wb") as file:
        cloudpickle.dump(model, file)
    (folder / "model.pkl.part").replace(folder / "model.pkl")
    plain = {
        k: v if isinstance(v, (int, str, bool)) or _is_finite(v) else str(v)
        for k, v in record["params"].items()
    }
    metrics = {k: float(v) for k, v in record["metrics"].items() if _is_finite(v)}
    environment = _beside("environment")
    lock = environment.lock()
    (folder / environment.FILE).write_text(lock, encoding="utf-8")
    whole = record | {
        "params": plain,
        "metrics": metrics,
        "environment": environment.describe(lock),
    }
    (folder / "train.json").write_text(json.dumps(whole, allow_nan=False), encoding="utf-8")


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _beside(name: str) -> Any:
    """A module of this folder, by its file: no other module here is the business of the user's code."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
