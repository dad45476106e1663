"""Loads a bundle for an MLflow client: `mlflow.pyfunc.load_model("models:/wine@champion")` answers as the server does.

MLflow imports this module by the name that stands in the logged model, and calls `_load_pyfunc`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gyrostat_runtime.rows import from_columns
from gyrostat_runtime.session import Session

BUNDLE, KEYRING = "bundle", "keyring.json"
TIMEOUT_S = 60.0


class BundleModel:
    """What MLflow wraps: a frame of inputs in the file's spelling in, one answer a row out."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """`(n,)` answers: numbers, or classes in the file's own spelling.

        Args:
            model_input: A pandas frame, or columns by name.
            params: There are none; MLflow passes the argument.

        Raises:
            InputFault: a column is lacking, or a value is none that the schema allows.
        """
        columns = {str(name): list(model_input[name]) for name in model_input}
        values = self.session.predict(from_columns(columns, self.session.schema)).values
        is_text = any(isinstance(value, str) for value in values)
        return np.array(values, dtype=object if is_text else None)


def _load_pyfunc(path: str) -> BundleModel:
    """Open the bundle below `path`; a model in a language of its own runs in a host process.

    The ring lies beside the bundle, so it shows that nothing was altered or cut short, not who made it: whether to trust
    this registry at all is the client's to know, as with every MLflow model.
    """
    folder = Path(path)
    ring = json.loads((folder / KEYRING).read_text(encoding="utf-8"))
    return BundleModel(Session.open(folder / BUNDLE, ring, timeout_s=TIMEOUT_S))
