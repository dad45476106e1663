"""From a fitted model to a bundle: ONNX where the graph proves to answer the same, else the model itself, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gyrostat_runtime import bundle
from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.schema import Schema

from gyrostat.errors import JobError
from gyrostat.terms import Limit
from gyrostat.training import card, classes, environment, probes, reference
from gyrostat.training.onnx_convert import ConversionError, attempts

if TYPE_CHECKING:
    import pandas as pd

CODE, MODEL_ONNX, MODEL_PICKLE, CARD, REFERENCE = (
    "code",
    "model.onnx",
    "model.pkl",
    "card.md",
    "reference.json",
)


@dataclass(frozen=True)
class Packed:
    """What packing made."""

    digest: str
    flavour: Literal["onnx", "native"]
    reason: str
    """Native: why no graph is served. ONNX: the path of the conversion."""
    largest_difference: float | None
    """Between graph and model: of a probability, or in standard deviations of the predictions."""
    n_probes: int
    """Rows on which both were asked."""
    size_bytes: int

    def as_json(self) -> dict[str, Any]:
        """The fields of the job's result."""
        facts = {name: value for name, value in vars(self).items() if name != "digest"}
        return {"made": self.digest, **facts}


def pack(
    folder: Path,
    *,
    name: str,
    model: Any,
    model_file: Path,
    schema: Schema,
    features: pd.DataFrame,
    heldout_features: pd.DataFrame,
    snapshot: Mapping[str, Any],
    training: Mapping[str, Any],
    made_at: float,
    code: Path | None = None,
    limits: Sequence[Limit] = (),
    lock: str = "",
) -> Packed:
    """Make an unsigned bundle in `folder`. The same arguments give the same digest.

    Args:
        folder: New or empty.
        model: The fitted model, as loaded from `model_file`.
        model_file: Its cloudpickle; copied into a native bundle byte by byte.
        features: The matrix of the training rows, columns as `schema.features`; at least one row.
        heldout_features: The same of the held-out rows; may be empty.
        snapshot: The snapshot's record.
        training: The result of the training job.
        made_at: Seconds since 1970 that the bundle is dated by; from the job's spec, never the clock.
        code: A native bundle: the project's `src` folder or the one above it, which the model's classes come from.
        lock: What was installed where it was trained, which `training` describes; empty: what is installed here.

    Raises:
        JobError: the model does not answer on its own training rows, or answers another task.
    """
    schema, note = classes.align(schema, model)
    scores = _ask(model, features, schema)
    folder.mkdir(parents=True, exist_ok=True)
    notes = [note] if note else []

    graph, path, parity, refused = _convert(model, schema, features, heldout_features)
    if graph is not None:
        flavour: Literal["onnx", "native"] = "onnx"
        write_atomic(folder / MODEL_ONNX, graph)
        scores = probes.runner(graph, schema)(features)
    else:
        flavour = "native"
        shutil.copyfile(model_file, folder / MODEL_PICKLE)
        if code is not None and code.is_dir():
            _copy_code(code, folder / CODE)

    described = training["environment"] if lock else environment.describe(environment.lock())
    lock = lock or environment.lock()
    histograms = reference.histograms(features, scores, schema)
    write_atomic(folder / environment.FILE, lock.encode())
    write_atomic(folder / REFERENCE, _json(histograms))
    difference = None if parity is None else float(f"{parity.largest_difference:.2g}")
    reason = path if graph is not None else refused
    text = card.write(
        name=name,
        schema=schema,
        snapshot=snapshot,
        training=training,
        flavour=flavour,
        reason=refused,
        parity=_parity_line(parity, schema),
        reference=histograms,
        limits=limits,
        made_at=made_at,
        environment=described,
        notes=notes,
    )
    write_atomic(folder / CARD, text.encode())
    n_probes = parity.n if parity is not None else 0
    manifest = bundle.Manifest(
        model=name,
        flavour=flavour,
        schema=schema,
        snapshot=str(snapshot.get("id", "")),
        code=str((training.get("code") or {}).get("digest", "")),
        environment=dict(described),
        metrics=dict(training.get("metrics") or {}),
        reference=REFERENCE,
        made_at=made_at,
        notes={
            "reason": reason,
            "n_probes": n_probes,
            "largest_difference": difference,
            "n_ties": parity.n_ties if parity is not None else 0,
            "classes": note,
        },
    )
    digest = bundle.write(folder, manifest)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Packed(digest, flavour, reason, difference, n_probes, size)


def _convert(
    model: Any, schema: Schema, features: pd.DataFrame, heldout_features: pd.DataFrame
) -> tuple[bytes | None, str, probes.Parity | None, str]:
    """The first graph that agrees, its path and its parity; else why there is none."""
    reasons: list[str] = []
    nullable = probes.missing_in(features, schema)
    nullable |= {
        f.name
        for f in schema.features
        if any(c.name == f.column and c.nullable for c in schema.inputs)
    }
    # A row that the server refuses is no question.
    whole = [f.name for f in schema.features if f.name not in nullable]
    lacking: Any = heldout_features[whole]
    is_asked = ~(lacking.isna() | (lacking == "")).any(axis=1).to_numpy()
    rows = features
    if is_asked.any():
        rows = _together(features, heldout_features.loc[is_asked])
    try:
        for attempt in attempts(model, schema):
            try:
                graph = attempt.graph()
                parity = probes.compare(graph, model, schema, rows, nullable=nullable)
            except ConversionError as error:
                reasons.append(str(error))
                continue
            # onnxruntime refuses to load a graph by classes of its own without a common base.
            except Exception as error:  # noqa: BLE001
                reasons.append(str(error).strip().split("\n", 1)[0][:200])
                continue
            if parity.agrees:
                return graph, attempt.path, parity, ""
            reasons.append(f"converted ({attempt.path}), it answers otherwise: {parity.reason}")
    except ConversionError as error:
        reasons.append(str(error))
    # The first path is the faithful one; why the others failed as well says less.
    return None, "", None, reasons[0] if reasons else "there is no converter"


def _ask(model: Any, features: pd.DataFrame, schema: Schema) -> Any:
    """The model's scores on its own training rows; one-hot where it has no probabilities."""
    import warnings

    import numpy as np

    if not hasattr(model, "predict"):
        raise JobError(
            f"The training returned {type(model).__name__}, which has no `predict`. Nothing was packed. "
            "Return a fitted scikit-learn model or pipeline."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not hasattr(model, "classes_") or hasattr(model, "predict_proba"):
                scores = probes.answers(model, features)
            else:
                said = np.asarray(model.predict(features))
                scores = (said[:, None] == np.asarray(model.classes_)).astype(np.float64)
    except Exception as error:
        line = str(error).strip().split("\n", 1)[0][:300]
        columns = ", ".join(f.name for f in schema.features)
        raise JobError(
            f"The model does not answer on its own training rows: {type(error).__name__}: {line}. Nothing was "
            f"packed. It is given a frame with the columns {columns}: train it on those."
        ) from error
    width = len(schema.output.classes) if schema.output.task != "regression" else 1
    if scores.shape != (len(features), width) or not np.isfinite(scores).all():
        raise JobError(
            f"The model answers {scores.shape} for {len(features)} training rows, or values that are not finite; "
            f"({len(features)}, {width}) finite numbers are needed. Nothing was packed."
        )
    return scores


def _together(*frames: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(frames, ignore_index=True)


def _parity_line(parity: probes.Parity | None, schema: Schema) -> str:
    if parity is None:
        return ""
    unit = (
        "standard deviations of its predictions"
        if schema.output.task == "regression"
        else "in a probability"
    )
    return (
        f"compared with the fitted model on {parity.n:,} rows (real ones, probes between seen values, edge cases): "
        f"the largest difference is {parity.largest_difference:.1g} {unit}"
    )


def _copy_code(code: Path, target: Path) -> None:
    """The project's modules under both names that training could import them by: `src.train` and `train`."""
    source = code / "src" if (code / "src").is_dir() else code
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=_no_code)
    shutil.copytree(source, target / "src", dirs_exist_ok=True, ignore=_no_code)


def _no_code(folder: str, names: list[str]) -> set[str]:
    """What is no code: caches, which would give the same code another digest, and links, which bundles refuse."""
    return {
        name
        for name in names
        if name == "__pycache__"
        or name.startswith(".")
        or name.endswith(".pyc")
        or (Path(folder) / name).is_symlink()
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode()
