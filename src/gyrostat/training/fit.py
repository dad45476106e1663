"""One training: the job folder made ready, the harness run in it, and what it left behind described."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.schema import Schema

from gyrostat.errors import JobError
from gyrostat.training.onnx_convert import text_features
from gyrostat.training.settings import TrainSettings

if TYPE_CHECKING:
    import pandas

HARNESS = Path(__file__).with_name("harness.py")
ALLOWED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
)
"""What of the environment a training sees: no keys, no tokens."""


def is_script(settings: TrainSettings) -> bool:
    """Whether `train.run` names a file instead of a function."""
    return settings.run.endswith(".py")


def prepare(
    folder: Path,
    *,
    frame: pandas.DataFrame,
    labels: Any,
    schema: Schema,
    settings: TrainSettings,
    raw: tuple[Path, bytes] | None,
    offered: Path | None = None,
) -> None:
    """Write what the harness reads.

    Args:
        frame: the features of the training rows.
        labels: the target of the same rows.
        raw: scripts: the declared source path, relative to the code, and the training rows in its own format.
        offered: the pickle of a model that is taken as it is, in place of a training.
    """
    work = folder / "work"
    work.mkdir(exist_ok=True)
    texts = text_features(schema)
    frame.head(5).to_parquet(work / "sample.parquet")
    frame.assign(**{schema.output.target: labels}).to_parquet(work / "train.parquet")
    if raw is not None:
        path, content = raw
        place = folder / "code" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    if offered is not None:
        shutil.copyfile(offered, work / "offered.pkl")
    style = "offered" if offered else "script" if is_script(settings) else "function"
    run, params = (settings.run, settings.params) if offered is None else ("the offered model", {})
    spec = {
        "style": style, "run": run, "params": params,
        "target": schema.output.target, "task": schema.output.task, "texts": texts,
    }  # fmt: skip
    (folder / "train-spec.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")


def fit(
    folder: Path, *, state: Path, project: Path, settings: TrainSettings, environ: dict[str, str]
) -> dict[str, Any]:
    """Run the harness; the training result.

    Raises:
        JobError: the training failed; `facts` hold the cause.
    """
    began = time.monotonic()
    own, store = folder / "work" / "tmp", state / "mlflow"
    for place in (own, store):
        place.mkdir(parents=True, exist_ok=True)
    _hold(folder, state, [folder, store, *(project / name for name in settings.writes)])
    environment = {k: environ[k] for k in ALLOWED if k in environ} | {
        "TMPDIR": str(own),
        "MLFLOW_TRACKING_URI": f"sqlite:///{store / 'mlflow.db'}",
        "MLFLOW_REGISTRY_URI": f"sqlite:///{store / 'mlflow.db'}",
        # MLflow's name for it, also where no server runs; else artifacts land below the job's own folder.
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(store / "artifacts"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = _interpreter(project, settings)
    try:
        done = subprocess.run(
            [python, str(HARNESS), str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise JobError(
            f"train.python: {python} cannot be started: {error.strerror}. "
            "Name an interpreter that is there, or leave train.python out"
        ) from None
    if done.returncode != 0 or not (folder / "model.pkl").exists():
        raise JobError(_cause(folder, done.returncode, settings))
    record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    code = code_digest(folder / "code")
    return {
        "made": "trained:" + hashlib.sha256((folder / "model.pkl").read_bytes()).hexdigest(),
        "metrics": record["metrics"], "params": record["params"], "style": record["style"], "mlflow_run": record["mlflow_run"],
        "code": {"digest": code, **git_of(project)}, "environment": record["environment"], "env_digest": record["environment"]["digest"], "run": settings.run, "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip


def _hold(folder: Path, state: Path, writable: list[Path]) -> None:
    """Say to the harness what the training may touch."""
    path = folder / "train-spec.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["writable"] = [str(place) for place in writable]
    spec["hidden"] = [str(file) for file in secrets_of(state)]
    path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")


def secrets_of(state: Path) -> list[Path]:
    """What no user's code may read."""
    return sorted((state / "keys").glob("*.key*"))


def _interpreter(project: Path, settings: TrainSettings) -> str:
    """`train.python`: a path is relative to the project, a bare name is looked for in PATH; empty: this interpreter."""
    python = settings.python
    return str(project / Path(python).expanduser()) if "/" in python else python or sys.executable


def _cause(folder: Path, status: int, settings: TrainSettings) -> str:
    try:
        return json.loads((folder / "failure.json").read_text(encoding="utf-8"))["cause"]
    except (OSError, ValueError, KeyError):
        return (
            f"the training was ended by signal {-status}"
            if status < 0
            else f"the training ended with status {status} and left no model"
            + (
                f"; is train.python ({settings.python}) a Python of 3.9 or newer?"
                if settings.python
                else ""
            )
        )


def code_digest(folder: Path) -> str:
    """Of all files of the code, names and contents, without data and caches."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if (
            name.startswith("data/")
            or "__pycache__" in name
            or name.startswith(("mlruns/", "mlartifacts/"))
        ):
            continue
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def git_of(project: Path) -> dict[str, Any]:
    """Commit, and whether the project differs from it; empty outside git."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(project), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return {"commit": "", "dirty": False}
    return {"commit": commit, "dirty": bool(ask("status", "--porcelain", "--", "src", "config"))}
