"""From rows of a table to the matrix that a model sees, many at once: read as training reads, refused as the server refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.rows import Rows, read_columns
from gyrostat_runtime.schema import Column, Schema

from gyrostat.data import columnar, dates, frames
from gyrostat.data.numerals import PLAIN, NumberFormat
from gyrostat.data.readings import LARGEST, MISSING_WORDS, Guess, format_of
from gyrostat.data.settings import ColumnSettings, DataSettings

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

_LARGEST_WHOLE = 2.0**63


@dataclass(slots=True)
class Matrix:
    """What can be asked of a model, and why the rest cannot."""

    rows: Rows
    """Those that can be answered, without the values as they were sent."""
    places: np.ndarray | None
    """Which of the table's rows they are; None: all."""
    faults: dict[int, str]
    """The table's other rows, counted from 0, each with what the server would say."""


@dataclass(frozen=True, slots=True)
class MatrixReader:
    """Reads tables for models of one schema. Thread safety: may be shared."""

    schema: Schema
    settings: DataSettings
    missing: str = "as_trained"
    new_category: str = "answer"
    _of_one: dict[str, Schema] = field(default_factory=dict, repr=False)

    @property
    def needed(self) -> list[str]:
        """The columns that the model sees, in the order of the schema."""
        used = {f.column for f in self.schema.features}
        return [c.name for c in self.schema.inputs if c.name in used]

    def read(self, frame: pl.DataFrame, faults: dict[int, str]) -> Matrix:
        """The matrix of a table that has all needed columns.

        Args:
            faults: rows that are known to be none.

        Raises:
            DataError: a column holds lists or the like.
        """
        import numpy as np

        kinds = {c.name: c for c in self.schema.inputs}
        values = {name: self._values(frame[name], kinds[name]) for name in self.needed}
        faults = dict(faults)
        for name, read in values.items():
            for row in read.doubtful.arg_true().to_list():
                if row not in faults and (why := self._refusal(kinds[name], read.sent(row))):
                    faults[row] = why
        n = frame.height
        numbers = [f for f in self.schema.features if kinds[f.column].kind != "category"]
        texts = [f for f in self.schema.features if kinds[f.column].kind == "category"]
        num = np.empty((n, len(numbers))) if numbers else None
        cat = np.empty((n, len(texts)), dtype=object) if texts else None
        for j, feature in enumerate(numbers):
            assert num is not None
            num[:, j] = values[feature.column].part(feature.part)
        for j, feature in enumerate(texts):
            assert cat is not None
            cat[:, j] = values[feature.column].texts()
        if not faults:
            return Matrix(Rows(n, [], num, cat, {}, {}), None, {})
        is_good = np.ones(n, dtype=bool)
        is_good[list(faults)] = False
        places = np.flatnonzero(is_good)
        num = None if num is None else num[places]
        cat = None if cat is None else cat[places]
        return Matrix(Rows(len(places), [], num, cat, {}, {}), places, faults)

    def _values(self, raw: pl.Series, column: Column) -> _Values:
        declared = self.settings.columns.get(column.name, ColumnSettings())
        is_number = column.kind in ("number", "integer")
        if is_number and raw.dtype.is_numeric() and not raw.dtype.is_decimal() and not declared.missing:  # fmt: skip
            return self._numbers(raw, column)
        import polars as pl

        is_typed = raw.dtype != pl.String
        text = columnar.as_text(raw) if is_typed else raw.set(raw == "", None)
        source = self.settings.source
        table = NumberFormat(source.decimal, source.thousands)
        # A number that the file itself holds as a number is written in no one's way.
        form = PLAIN if is_typed else format_of(declared.format, table) if is_number else PLAIN
        guess = Guess(
            column.name, column.kind, 0, missing_words=self._words(text, column, declared), categories=column.categories,
            format=column.format if column.kind == "date" else "" if form.is_plain else str(form),
        )  # fmt: skip
        made = frames.typed_column(text, guess)
        if column.kind == "boolean":
            # Whatever the file's own words are, the server knows these too.
            word = text.str.strip_chars().str.to_lowercase()
            made = made.fill_null((word == "true").set(~word.is_in(["true", "false"]).fill_null(False), None))  # fmt: skip
        said = text.set(frames.is_missing(text, guess), None)
        return self._judged(made, said, column)

    def _words(self, text: pl.Series, column: Column, declared: ColumnSettings) -> tuple[str, ...]:
        """Which of its texts stand for a missing value."""
        if column.kind == "category":
            return declared.missing
        import polars as pl

        if column.kind in ("number", "integer"):
            # What reads as a number is no word, and looking at each text costs more than reading it.
            number = text.cast(pl.Float64, strict=False)
            odd = text.filter((number.is_null() | number.is_nan()) & text.is_not_null())
        else:
            odd = text
        plain = odd.drop_nulls().str.strip_chars().unique()
        found = plain.filter(plain.str.to_lowercase().is_in(sorted(MISSING_WORDS))).to_list()
        return tuple(dict.fromkeys((*declared.missing, *found)))

    def _numbers(self, raw: pl.Series, column: Column) -> _Values:
        import polars as pl

        made = raw.cast(pl.Float64).fill_nan(None)
        values = made.set((made.abs() > LARGEST).fill_null(False), None) + 0.0
        return self._judged(values, made, column)

    def _judged(self, made: pl.Series, said: pl.Series, column: Column) -> _Values:
        """Marks what the server might refuse: it looks at those one by one."""
        import polars as pl

        is_gone = said.is_null()
        doubtful = made.is_null() & ~is_gone
        if not column.nullable or self.missing == "refuse":
            doubtful = doubtful | is_gone
        if column.kind == "integer":
            whole = made.is_null() | ((made == made.floor()) & (made.abs() < _LARGEST_WHOLE))
            doubtful = doubtful | ~whole
        if column.kind == "category":
            doubtful = doubtful | made.str.contains("\0", literal=True).fill_null(False)
            if self.new_category == "refuse":
                doubtful = doubtful | ~(made.is_in(list(column.categories)) | made.is_null())
        moments = None
        if column.kind == "date":
            moments = dates.instants(made.str.strip_chars(), column.format)
        return _Values(made, said, doubtful.fill_null(True).cast(pl.Boolean), column, moments)

    def _refusal(self, column: Column, value: Any) -> str:
        """What the server says to this value; empty: it answers."""
        try:
            read_columns(
                {column.name: [value]}, self._alone(column), at=lambda _, name: name, at_name=lambda name: name,
                missing=self.missing, new_category=self.new_category,
            )  # fmt: skip
        except InputFault as fault:
            return fault.message
        return ""

    def _alone(self, column: Column) -> Schema:
        # Kept, for the server's reader makes its plan of a schema once.
        if column.name not in self._of_one:
            features = tuple(f for f in self.schema.features if f.column == column.name)
            self._of_one[column.name] = replace(self.schema, inputs=(column,), features=features)
        return self._of_one[column.name]


@dataclass(slots=True)
class _Values:
    """One column, read."""

    made: pl.Series
    said: pl.Series
    """As in the file; null where a value is missing."""
    doubtful: pl.Series
    column: Column
    moments: pl.Series | None

    def sent(self, row: int) -> Any:
        """The value as a request would carry it."""
        made, said = self.made[row], self.said[row]
        value = said if made is None else made
        if self.column.kind == "integer" and isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    def part(self, part: str) -> np.ndarray:
        """Float64, NaN for missing."""
        import numpy as np
        import polars as pl

        if self.moments is None:
            return self.made.cast(pl.Float64).fill_null(np.nan).to_numpy()
        at = self.moments.dt
        match part:
            case "weekday":
                found = at.weekday().cast(pl.Float64) - 1  # Monday is 0
            case "seconds":
                found = at.hour().cast(pl.Float64) * 3600 + at.minute().cast(pl.Float64) * 60 + at.second().cast(pl.Float64)  # fmt: skip
            case _:
                found = getattr(at, part)().cast(pl.Float64)
        return found.fill_null(np.nan).to_numpy()

    def texts(self) -> np.ndarray:
        """Text, "" for missing."""
        return self.made.fill_null("").to_numpy()
