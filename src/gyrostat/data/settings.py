"""`data:` of the declaration: where rows come from and which side of the split each is on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

UNITS = {"h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
SPAN = r"^([1-9]\d{0,5})\s?(h|hours?|d|days?|w|weeks?|mo|months?|y|years?)$"


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time in the calendar: a month is as long as the calendar makes it."""

    n: int
    unit: str
    """One of `UNITS`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`3 months`, `60d`, `1 year`.

        Raises:
            ValueError: it is no span.
        """
        found = re.fullmatch(SPAN, text.strip())
        if not found:
            raise ValueError(text)
        said = found[2].rstrip("s")
        unit = next(short for short, name in UNITS.items() if said in (short, name))
        return cls(int(found[1]), unit)

    def __str__(self) -> str:
        return f"{self.n} {UNITS[self.unit]}{'s' if self.n > 1 else ''}"


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """How to read the table exactly as `init` read it."""

    path: str
    format: str = ""
    """`csv`, `parquet` or `jsonl`; empty: CSV, or Parquet by its first bytes. Packed files (gzip, zip) are unpacked first."""
    encoding: str = "utf-8"
    separator: str = ","
    decimal: str = "."
    thousands: str = ""
    """How numbers are written where a column's own values could be read in two ways."""
    skip_lines: int = 0
    """Lines above the header that are not part of the table."""
    header: bool = True


@dataclass(frozen=True, slots=True)
class KeySettings:
    """Columns that say what a row is about and when it happened."""

    entity: str = ""
    event_at: str = ""


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """Which rows are held out: by the row alone, so it is the same in every snapshot, or by a cut in time."""

    holdout: float | Span = 0.2
    """Share of rows, 0 to 1, by the hash of the group, else of the entity, else of the inputs without the target.
    With `by` also a span: the newest such span of the rows there are, so the cut moves on with them."""
    group: str = ""
    """Rows with the same value of this column stay on one side."""
    by: str = ""
    """A date column: the rows from a cut on are held out instead."""
    cut: str = ""
    """ISO date at which the held-out rows begin, with `by`; empty: `holdout` is a span."""
    gap: Span | None = None
    """With `by`: the rows this close before the cut are on neither side, as their targets reach beyond it."""


@dataclass(frozen=True, slots=True)
class ColumnSettings:
    """What one column of the file is; `init` writes these for what cannot be seen from the values alone."""

    kind: str = ""
    """number, integer, boolean, category, date; empty: as read."""
    format: str = ""
    """Dates: a strptime format; empty: ISO 8601. Numbers: how 1234.5 is written (`1.234,5`, `₩1,234.5`); empty: as the source says."""
    missing: tuple[str, ...] = ()
    """Texts that stand for a missing value, besides the blank."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """`models.<name>.data`."""

    source: SourceSettings
    target: str
    task: str
    positive: str = ""
    """Binary: the class whose probability and recall count, in the file's own spelling."""
    keys: KeySettings = KeySettings()
    split: SplitSettings = SplitSettings()
    columns: dict[str, ColumnSettings] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    """Columns that are no features: ids, and what is known only afterwards."""
    personal: tuple[str, ...] = ()
    """Hashed with a key in logs, masked in errors, never a feature by default."""
    learn_from_traffic: bool = True
    """Labelled predictions join the next training."""
    window: int | Span = 0
    """Newest rows that count, traffic included, by their number or by time; 0: all."""
    checks: str = "checks.yaml"
    threshold: float = 0.5
    """Binary: the positive class is answered from this probability on; part of the version."""

    @property
    def at(self) -> str:
        """The column that says when a row happened; empty: there is none."""
        return self.split.by or self.keys.event_at
