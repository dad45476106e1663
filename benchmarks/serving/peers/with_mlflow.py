# /// script
# requires-python = ">=3.11"
# dependencies = []  # mlflow is part of our own set-up
# ///
"""`mlflow models serve` with the fitted model, as MLflow's quick start says it: pickled model and PORT in, two workers."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    import mlflow.sklearn

    model, port = sys.argv[1:]
    folder = Path(tempfile.mkdtemp()) / "model"
    with Path(model).open("rb") as file:
        mlflow.sklearn.save_model(
            pickle.load(file), folder, pip_requirements=[], serialization_format="cloudpickle"
        )
    os.environ["PATH"] = (
        f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"  # it looks for uvicorn there
    )
    argv = ["-m", "mlflow", "models", "serve", "-m", str(folder), "-p", port]
    os.execv(sys.executable, [sys.executable, *argv, "--workers", "2", "--env-manager", "local"])
