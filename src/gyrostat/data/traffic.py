"""Labelled predictions as rows to learn from: the prediction log joined with the label log, up to a cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gyrostat_runtime import log
from gyrostat_runtime.schema import Schema

ANSWERED = ("champion", "candidate")


def labelled(
    state: Path, model: str, schema: Schema, *, until: float, mature_after_s: float = 0.0
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`(rows, cut)`: rows as `{"inputs", "label", "at", "id"}`, each prediction once, the latest label counting.

    Only what was answered to somebody counts, and only predictions older than `mature_after_s` at `until`.
    """
    labels: dict[str, log.Label] = {}
    for label in log.read_labels(state / "labels" / model, until=until):
        if (known := labels.get(label.id)) is None or label.at >= known.at:
            labels[label.id] = label
    rows: dict[str, dict[str, Any]] = {}
    n_inputs = len(schema.inputs)
    for frame in log.read(state / "log" / model, until=until - mature_after_s) if labels else ():
        if frame.arm not in ANSWERED or not 200 <= frame.status < 300:
            continue
        for n, inputs in enumerate(frame.inputs):
            name = f"{frame.id}.{n}"
            found = labels.get(name) or (labels.get(frame.id) if frame.n == 1 else None)
            if found is not None and len(inputs) == n_inputs:
                rows[name] = {"inputs": inputs, "label": found.label, "at": frame.at, "id": name}
    return list(rows.values()), {"until": until, "n_labels": len(labels), "n_rows": len(rows)}
