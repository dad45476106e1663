"""What is served: a forest on the wine table, one on a table with text, and one that has no graph."""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import gyrostat.demo
from gyrostat.training.pack import pack

WINE = Path(gyrostat.demo.__file__).with_name("winequality-red.csv")
NAME = "wine"
N_NUMBERS = 8
"""Of the mixed table; its texts stand behind them."""
TOLERANCE = 1e-4


class Unconverted(RandomForestRegressor):
    """The same forest under a name that no converter knows, so that it is served as it is."""


@dataclass(frozen=True)
class Served:
    """One model, its folder, and what it must answer."""

    state: Path
    """A state folder as `gyrostat up` has it: keys, routes, the signed bundle."""
    model: Any
    """The fitted model."""
    features: pd.DataFrame

    @property
    def bundle(self) -> Path:
        """The folder of the bundle."""
        return next((self.state / "bundles").iterdir())

    @property
    def onnx(self) -> Path:
        """Its graph."""
        return self.bundle / "model.onnx"

    def rows(self, n: int, start: int = 0) -> list[list[Any]]:
        """Rows as JSON values."""
        return self.features.iloc[start : start + n].to_numpy(object).tolist()

    def is_right(self, predictions: list[float], start: int = 0) -> bool:
        """Whether these are what the model itself answers to as many rows."""
        wanted = self.model.predict(self.features.iloc[start : start + len(predictions)])
        return np.allclose(predictions, wanted, rtol=0, atol=TOLERANCE)


def instances(rows: list[list[Any]]) -> bytes:
    """A request in the form that we, the minimum and most peers are asked in."""
    return json.dumps({"instances": rows}).encode()


def wine(folder: Path) -> Served:
    """100 trees of depth 6 on 11 numbers."""
    X, y = _wine()
    return _serve(folder, _forest(RandomForestRegressor), X, y)


def mixed(folder: Path) -> Served:
    """The same on 8 numbers and 4 texts."""
    X, y = _wine()
    texts = X.columns[N_NUMBERS - 1 :]
    table = X.iloc[:, : N_NUMBERS - 1].assign(alcohol=X["alcohol"])
    for name in texts:
        table[f"{name} band"] = pd.cut(X[name], 5, labels=list("ABCDE")).astype(str).astype(object)
    columns = ColumnTransformer(
        [("text", OneHotEncoder(handle_unknown="ignore"), list(table.columns[N_NUMBERS:]))],
        remainder="passthrough",
    )
    return _serve(folder, make_pipeline(columns, _forest(RandomForestRegressor)), table, y)


def native(folder: Path) -> Served:
    """The wine forest without a graph."""
    X, y = _wine()
    return _serve(folder, _forest(Unconverted), X, y)


KINDS: dict[str, Callable[[Path], Served]] = {"wine": wine, "mixed": mixed, "native": native}


def _wine() -> tuple[pd.DataFrame, np.ndarray]:
    table = pd.read_csv(WINE, sep=";").astype(float)
    return table.drop(columns="quality"), table["quality"].to_numpy()


def _forest(kind: type) -> Any:
    return kind(n_estimators=100, max_depth=6, random_state=0)


def two(folder: Path) -> tuple[Served, tuple[str, str]]:
    """`wine` with a second version beside it; the digests of both."""
    served = wine(folder)
    X, y = _wine()
    other = RandomForestRegressor(n_estimators=100, max_depth=6, random_state=1).fit(X, y)
    return served, (served.bundle.name, _pack(folder, served.state, other, X))


def _serve(folder: Path, model: Any, X: pd.DataFrame, y: np.ndarray) -> Served:
    model.fit(X, y)
    folder.mkdir(parents=True)
    state = folder / "state"
    keys.create_keys(state / "keys")
    for name in ("bundles", "routes"):
        (state / name).mkdir()
    route(state, _pack(folder, state, model, X))
    return Served(state, model, X)


def _pack(folder: Path, state: Path, model: Any, X: pd.DataFrame) -> str:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no code travels with the bundle
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL))
    packed = pack(
        state / "making",
        name=NAME,
        model=model,
        model_file=folder / "model.pkl",
        schema=_schema(X),
        features=X,
        heldout_features=X.iloc[:0],
        snapshot={"id": "bench", "n_train": len(X), "n_heldout": 0, "checks": {"n_rules": 0}},
        training={"metrics": {}, "n_rows": len(X)},
        made_at=0.0,
    )
    bundle.sign(state / "making", keys.private_key(state / "keys"))
    (state / "making").rename(state / "bundles" / packed.digest)
    return packed.digest


def _schema(X: pd.DataFrame) -> Schema:
    columns = tuple(
        Column(name, "number")
        if X[name].dtype.kind == "f"
        else Column(name, "category", categories=tuple(sorted(set(X[name]))))
        for name in X
    )
    features = tuple(Feature(name, name) for name in X)
    return Schema(columns, features, Output("regression", "quality"))


def route(state: Path, digest: str, seq: int = 1) -> None:
    """All requests to one bundle."""
    arm = {"bundle": digest, "version": seq, "role": "champion", "share": 1.0, "shadow": False}
    routes = {"model": NAME, "epoch": 1, "seq": seq, "salt": "s", "slow_s": None, "arms": [arm]}
    value = routes | {"since": time.time()}
    write_atomic(state / "routes" / f"{NAME}.json", json.dumps(value).encode())
