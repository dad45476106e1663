"""Labelled predictions as rows to learn from: the prediction log joined with the label log, up to a cut."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from gyrostat_runtime import log
from gyrostat_runtime.schema import Schema

from gyrostat import predictionlog

ANSWERED = ("champion", "candidate")


def labelled(
    state: Path, model: str, schema: Schema, *, until: float, mature_after_s: float = 0.0
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`(rows, cut)`: rows as `{"inputs", "label", "at", "id"}`, each prediction once, the latest label counting.

    Only what was answered to somebody, by the arm that the routes chose, counts, and only predictions older than `mature_after_s` at `until`. `inputs` are
    in the order of `schema`, whatever schema the model had that answered; None where it did not know the column.
    """
    labels, n_labels = latest_labels(state, model, until=until)
    rows: dict[str, dict[str, Any]] = {}
    places: dict[str, list[int | None]] = {}
    for frame in predictionlog.read(state, model, until=until - mature_after_s) if labels else ():
        if frame.arm not in ANSWERED or frame.is_error or frame.is_asked:
            continue
        for n, inputs in enumerate(frame.inputs):
            name = f"{frame.id}.{n}"
            found = labels.get(name)
            if found is None or name in rows or not is_of(found, frame):
                continue
            if frame.bundle not in places:
                places[frame.bundle] = _places(state, frame.bundle, schema)
            order = places[frame.bundle]
            if max((p for p in order if p is not None), default=-1) >= len(inputs):
                continue
            values = [None if p is None else inputs[p] for p in order]
            rows[name] = {"inputs": values, "label": found.label, "at": frame.at, "id": name}
    cut = {"log": {"until": until - mature_after_s, "n_rows": len(rows)}, "labels": {"until": until, "n": n_labels}, "at": until}  # fmt: skip
    return list(rows.values()), cut


def latest_labels(
    state: Path, model: str, *, until: float | None = None, only: Container[str] | None = None
) -> tuple[dict[str, log.Label], int]:
    """`(the latest label of each row by <prediction>.<n>, how many labels were read)`, of the rows in `only`, if given."""
    labels: dict[str, log.Label] = {}
    n_labels = 0
    for label in log.read_labels(state / "labels" / model, until=until):
        n_labels += 1
        # A request of one row may be labelled by its own id or by its row's.
        name = label.id if "." in label.id else f"{label.id}.0"
        if only is not None and name not in only:
            continue
        if (known := labels.get(name)) is None or label.at >= known.at:
            labels[name] = label
    return labels, n_labels


def is_of(label: log.Label, frame: log.Frame) -> bool:
    """Whether a label found under a row's name is that row's: of several rows, the bare id names none."""
    return frame.n == 1 or "." in label.id


def logged_schema(state: Path, bundle: str) -> Schema | None:
    """The schema by which a bundle logged its inputs; None where the bundle is gone."""
    manifest = state / "bundles" / bundle / "manifest.json"
    try:
        return Schema.from_json(json.loads(manifest.read_bytes())["schema"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _places(state: Path, bundle: str, schema: Schema) -> list[int | None]:
    """Where each of the schema's inputs stands in what this bundle logged."""
    # Of a bundle that is gone, what it logged is read as the newest schema has it.
    logged = logged_schema(state, bundle) or schema
    index = {column.name: n for n, column in enumerate(logged.inputs)}
    return [index.get(column.name) for column in schema.inputs]
