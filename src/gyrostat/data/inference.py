"""Everything that is known of a table: its columns, its task, and what must be declared so that the next one is read alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from gyrostat.data.readings import Guess, Note, word
from gyrostat.data.settings import (
    ColumnSettings,
    DataSettings,
    KeySettings,
    SourceSettings,
    SplitSettings,
)
from gyrostat.terms import Task

if TYPE_CHECKING:
    from gyrostat_runtime.schema import Kind, Schema

_DATE_PARTS = ("year", "month", "day", "weekday")


@dataclass
class Inference:
    """Everything that was guessed about a table, and why."""

    n_rows: int
    target: str
    task: Task
    columns: dict[str, Guess]
    notes: list[Note] = field(default_factory=list)
    positive: str = ""
    threshold: float = 0.5
    classes: tuple[str, ...] = ()
    """In the file's own spelling, in the order in which scikit-learn sorts them."""
    rare: tuple[str, ...] = ()
    """Classes with too few rows; these rows are left out."""
    class_kind: str = "category"
    n_labelled: int = 0
    group: str = ""
    entity: str = ""
    decimal: str = "."
    thousands: str = ""
    """How the table writes numbers, where a column does not say it itself."""
    spellings: tuple[str, ...] = ()
    """How the classes are written in the file, where there are more spellings than classes."""

    @property
    def features(self) -> list[Guess]:
        """The columns that the model may see, in the order of the file."""
        return [g for g in self.columns.values() if not g.excluded and g.name != self.target]

    @property
    def inputs(self) -> list[Guess]:
        """All columns but the target: a request may have them all, also those that are no features."""
        return [g for g in self.columns.values() if g.name != self.target]

    @property
    def personal(self) -> tuple[str, ...]:
        """Columns that hold what belongs to a person."""
        return tuple(g.name for g in self.columns.values() if g.is_personal)

    def schema(self, personal: tuple[str, ...] | None = None) -> Schema:
        """Inputs in the order of the file, features (dates become parts) and output."""
        from gyrostat_runtime.schema import Column, Feature, Output, Schema

        inputs: list[Column] = []
        features: list[Feature] = []
        taken = set(self.columns)
        for g in self.inputs:
            shown = g.categories if g.kind == "boolean" or not g.excluded else ()
            is_nullable = g.n_missing > 0 or bool(g.excluded)
            form = g.format if g.kind == "date" else ""
            inputs.append(Column(g.name, cast("Kind", g.kind), is_nullable, shown, form))
            if g.excluded:
                continue
            if g.kind != "date":
                features.append(Feature(g.name, g.name))
                continue
            for part in (*_DATE_PARTS, "seconds") if g.has_time else _DATE_PARTS:
                name = f"{g.name}_{part}"
                while name in taken:
                    name += "_"
                taken.add(name)
                features.append(Feature(name, g.name, part))
        output = Output(
            self.task.value,
            self.target,
            self.classes,
            cast("Any", self.class_kind),
            self.positive,
            self.threshold,
        )
        own = self.personal if personal is None else personal
        return Schema(tuple(inputs), tuple(features), output, own)

    def rules(self) -> dict[str, Any]:
        """What `checks.yaml` says: per column its kind, whether values may be missing, and its range with some room."""
        found: dict[str, Any] = {}
        for g in self.columns.values():
            if g.name == self.target:
                rule: dict[str, Any] = {"missing": "allowed"}
                if self.classes:
                    known = {word(c) for c in (*self.classes, *self.rare)}
                    others = [v for v in self.spellings if word(v) in known]
                    rule["values"] = list(dict.fromkeys([*self.classes, *self.rare, *others]))
                else:
                    rule["kind"] = g.kind
                found[g.name] = rule
            elif not g.excluded:
                rule = {"kind": g.kind, "missing": "allowed" if g.n_missing else "none"}
                if g.low is not None and g.high is not None:
                    rule["range"] = list(_with_room(g.low, g.high))
                found[g.name] = rule
        return {"columns": found}

    def declared_columns(self) -> dict[str, ColumnSettings]:
        """`data.columns`: what the values alone do not say, such as the order of a date or words for a missing value."""
        return {g.name: g.declare for g in self.columns.values() if g.declare is not None}

    def data_settings(self, source: SourceSettings) -> DataSettings:
        """The declaration that reads the table as it was read here."""
        personal = self.personal
        excluded = tuple(
            g.name for g in self.inputs if g.excluded and g.name not in (*personal, self.entity)
        )
        return DataSettings(
            source=replace(source, decimal=self.decimal, thousands=self.thousands), target=self.target, task=self.task.value, positive=self.positive,
            keys=KeySettings(entity=self.entity), split=SplitSettings(group=self.group),
            columns=self.declared_columns(), exclude=excluded, personal=personal,
        )  # fmt: skip


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Half the span beyond both ends in few digits, and no sign that the data never had."""
    room = 0.5 * (high - low)
    if room == 0:
        room = abs(low) or 1.0
    step = 10.0 ** (math.floor(math.log10(room)) - 1)
    digits = max(0, -math.floor(math.log10(step)))
    bottom = round(math.floor((low - room) / step) * step, digits)
    top = round(math.ceil((high + room) / step) * step, digits)
    return (0.0 if low >= 0 > bottom else bottom), (0.0 if high <= 0 < top else top)
