"""Predictions from wherever they stand, each once."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

from gyrostat_runtime import log
from gyrostat_runtime.log import Frame

from gyrostat.predictionlog.table import State


def read(
    state: Path, model: str, *, since: float | None = None, until: float | None = None
) -> Iterator[Frame]:
    """As `log.read`: predictions in the order of time, `since <= at < until`; reads as it goes."""
    folder = state / "log" / model
    kept = State.read(folder)
    # The state was read first: a segment that goes away now had stood in the table for long.
    segments = log.read(folder, since=since, until=until, after=kept.segments)
    if not kept.runs:
        return segments
    return heapq.merge(kept.frames(folder, since, until), segments, key=lambda frame: frame.at)


def find(state: Path, model: str, id: str) -> list[Frame]:
    """As `log.find`: all frames of one prediction; `id` may name a row.

    Raises:
        ValueError: `id` is no prediction id.
    """
    folder = state / "log" / model
    kept = State.read(folder)
    found = [*kept.find(folder, id), *log.find(folder, id, after=kept.segments)]
    return sorted(found, key=lambda frame: frame.at)
