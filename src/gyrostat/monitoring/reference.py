"""A bundle's reference: its schema and training histograms, laid out for counting rows of the log against them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from gyrostat_runtime.schema import Schema

PREDICTION = "prediction"
"""Name under which the model's answers stand beside the features."""


@dataclass(frozen=True)
class Column:
    """One feature (or the prediction) and how its values fall into bins."""

    name: str
    index: int
    """Place among the logged inputs; -1: the prediction."""
    edges: np.ndarray | None
    """Numbers: bin i holds edges[i-1] < x <= edges[i]; None: categories."""
    places: dict[str, int]
    counts: tuple[float, ...]
    """Of the training rows. Categories have one more bin, for new ones."""
    words: dict[str, float] = field(default_factory=dict)
    """Booleans: the file's spellings, which requests may use too."""

    @property
    def is_ordered(self) -> bool:
        """Whether bins have an order."""
        return self.edges is not None

    def histogram(self, values: Sequence[Any]) -> list[int]:
        """Counts of JSON values by bin; missing ones are left out."""
        if self.edges is None:
            last = len(self.places)
            found = [0] * (last + 1)
            for value in values:
                if value is not None and value != "":
                    found[self.places.get(spelling(value), last)] += 1
            return found
        try:
            numbers = np.array(values, dtype=float)
        except (TypeError, ValueError):
            numbers = np.array([_number(value, self.words) for value in values])
        numbers = numbers[np.isfinite(numbers)]
        bins = np.searchsorted(self.edges, numbers, side="left")
        return np.bincount(bins, minlength=len(self.edges) + 1).tolist()


@dataclass(frozen=True)
class Reference:
    """What one bundle was trained on."""

    schema: Schema
    columns: tuple[Column, ...]
    n_rows: int
    """Training rows."""

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """Read a bundle's folder; without reference histograms it has no columns.

        Raises:
            OSError, ValueError, KeyError: it is no bundle.
        """
        manifest = json.loads((folder / "manifest.json").read_bytes())
        schema = Schema.from_json(manifest["schema"])
        name = manifest.get("reference") or ""
        found = json.loads((folder / name).read_bytes()) if name else {}
        return cls.of(schema, found)

    @classmethod
    def of(cls, schema: Schema, found: dict[str, Any]) -> Reference:
        """From a schema and what `training.reference` wrote."""
        places = {column.name: n for n, column in enumerate(schema.inputs)}
        columns = []
        known = found.get("columns", {})
        for feature in schema.features:
            # Parts of dates are left out: time moves by nature, and would always have drifted.
            if feature.part or feature.name not in known or feature.column not in places:
                continue
            if feature.column in schema.personal:  # hashed in the log
                continue
            column = _column(feature.name, places[feature.column], known[feature.name])
            spelled = schema.inputs[column.index]
            if spelled.kind == "boolean":
                words = dict(zip(spelled.categories, (0.0, 1.0), strict=False))
                column = replace(column, words=words)
            columns.append(column)
        if "outputs" in found:
            columns.append(_column(PREDICTION, -1, found["outputs"]))
        return cls(schema, tuple(columns), int(found.get("n", 0)))


def spelling(value: Any) -> str:
    """How a category or a class is compared: 1, 1.0 and "1" are one, so are true and "True"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return text.lower() if text in ("True", "False", "TRUE", "FALSE") else text


def _column(name: str, index: int, found: dict[str, Any]) -> Column:
    if found["kind"] == "number":
        return Column(
            name, index, np.asarray(found["edges"], dtype=float), {}, tuple(found["counts"])
        )
    places = {spelling(value): n for n, value in enumerate(found["values"])}
    return Column(name, index, None, places, (*found["counts"], 0))


def _number(value: Any, words: dict[str, float]) -> float:
    try:
        return words[value] if isinstance(value, str) and value in words else float(value)
    except (TypeError, ValueError):
        return float("nan")
