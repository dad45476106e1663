"""What one column of texts is: its kind, what is missing in it, and how its values are spelled."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gyrostat.data.settings import ColumnSettings

if TYPE_CHECKING:
    import polars as pl

MISSING_WORDS = frozenset(
    {"na", "n/a", "nan", "none", "null", "-", "--", "?", "#n/a", "n.a.", "nil", "<na>", "nat"}
)  # fmt: skip
"""Lower case. In numbers, dates and booleans these stand for a missing value; in a category they are levels."""
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
INTEGER = re.compile(r"[+-]?\d+")
LARGEST = 3.4028235e38
"""What the model server answers at most: beyond it a 32-bit number is infinite."""
AMOUNT = re.compile(
    r"\(?-?[₩$€£¥]?\s?-?\d{1,3}(,\d{3})+(\.\d+)?\)?\s?(원|€|%)?|\(?-?[₩$€£¥]\s?-?\d[\d,]*(\.\d+)?\)?|[+-]?\d+([.,]\d+)?\s?(%|€|원)|\(\d[\d,]*(\.\d+)?\)"
)
DATE_FORMATS = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%Y.%m.%d", "%d-%m-%Y", "%m-%d-%Y",
    "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S",
)  # fmt: skip
_NUMBER = f"^(?:{NUMBER.pattern})$"
_INFINITE = r"(?i)^[+-]?(?:inf(?:inity)?|∞)$"
_DATE_LIKE = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?$"


@dataclass(frozen=True)
class Note:
    """One guess: about which column (empty: the table), what, and why."""

    column: str
    what: str
    why: str = ""

    def __str__(self) -> str:
        about = f"{self.column}: " if self.column else ""
        return about + self.what + (f" ({self.why})" if self.why else "")


@dataclass
class Guess:
    """What one column is taken for."""

    name: str
    kind: str
    n_missing: int
    missing_words: tuple[str, ...] = ()
    """Texts in this column that count as missing, besides the blank."""
    categories: tuple[str, ...] = ()
    """A category's levels, sorted; a boolean's two spellings, false first."""
    format: str = ""
    low: float | None = None
    high: float | None = None
    excluded: str = ""
    """Why it is no feature; empty: it is one."""
    is_personal: bool = False
    n_distinct: int = 0
    declare: ColumnSettings | None = None
    """What the declaration must say, because the values alone do not."""


@dataclass
class Reading:
    """A guess, what is to be said about it, and what stands in its way."""

    guess: Guess
    notes: list[Note] = field(default_factory=list)
    problem: str = ""


def read_column(
    column: pl.Series, declared: ColumnSettings | None = None, *, is_target: bool = False
) -> Reading:
    """Take a column of texts for what it is, or for what is declared."""
    spelled = _Spelled(column, declared)
    if declared is not None and declared.kind:
        return _as_declared(spelled, declared, is_target=is_target)
    return (
        _infinite(spelled)
        or _code(spelled)
        or _number(spelled, is_target=is_target)
        or _amount(spelled)
        or _boolean(spelled)
        or (None if is_target else _date(spelled))
        or _category(spelled, is_target=is_target)
    )


class _Spelled:
    """The distinct texts of a column without padding, each with its count and its first row (from 1)."""

    def __init__(self, column: pl.Series, declared: ColumnSettings | None) -> None:
        import polars as pl

        self.name, self.n_rows, self.column = column.name, len(column), column
        stripped = column.str.strip_chars()
        self.stripped = stripped.set(stripped == "", None)
        found = (
            pl.DataFrame({"value": self.stripped})
            .with_row_index("row", 1)
            .group_by("value", maintain_order=True)
            .agg(pl.len().alias("n"), pl.col("row").first())
            .filter(pl.col("value").is_not_null())
        )
        self.extra = frozenset(declared.missing) if declared else frozenset[str]()
        is_word = found["value"].str.to_lowercase().is_in(sorted(MISSING_WORDS))
        is_extra = found["value"].is_in(sorted(self.extra)) if self.extra else is_word & False
        self.words: dict[str, int] = dict(
            zip(*found.filter(is_word & ~is_extra)[["value", "n"]].to_dict().values(), strict=True)
        )
        self.known = found.filter(~is_word & ~is_extra)
        self.all = found
        self.n_known = int(self.known["n"].sum())
        self.n_missing = self.n_rows - self.n_known

    @property
    def values(self) -> pl.Series:
        return self.known["value"]

    def rows_of(self, values: pl.Series) -> list[tuple[int, str]]:
        """Rows, counted from 1, that hold one of these texts."""
        import polars as pl

        frame = pl.DataFrame({"value": self.stripped}).with_row_index("row", 1)
        return frame.filter(pl.col("value").is_in(values.to_list())).rows()

    def count(self, mask: pl.Series) -> int:
        return int(self.known["n"].filter(mask).sum())


def _infinite(s: _Spelled) -> Reading | None:
    values = s.values
    is_number = values.str.contains(_NUMBER)
    numbers = values.set(~is_number, None).cast(_float(), strict=False)
    is_infinite = (values.str.contains(_INFINITE) | (numbers.abs() > LARGEST)).fill_null(False)
    if not is_infinite.any() or s.count(is_number | is_infinite) <= 0.5 * s.n_known:
        return None
    rows = s.rows_of(values.filter(is_infinite))
    shown = ", ".join(str(row) for row, _ in rows[:10]) + (", ..." if len(rows) > 10 else "")
    times = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    problem = (
        f"{s.name} holds infinity in {times}: {shown}. Write a number, leave it blank, or declare it missing: "
        f"columns: {{{s.name}: {{missing: [{rows[0][1]}]}}}}."
    )
    return Reading(Guess(s.name, "number", s.n_missing), problem=problem)


def _code(s: _Spelled) -> Reading | None:
    values = s.values
    whole = values.str.contains(r"^[+-]?\d+$")
    if not len(values) or s.count(whole) < 0.95 * s.n_known:
        return None
    if values.str.contains(r"^0\d+$").any():
        why = "leading zeros: a code, kept as text"
    elif (values.filter(whole).str.strip_chars("+-").str.len_chars() > 15).any():
        why = "more digits than a number can hold: kept as text"
    else:
        return None
    reading = _category(s)
    reading.guess.declare = ColumnSettings(kind="category")
    reading.notes.insert(0, Note(s.name, "a category", why))
    return reading


def _number(s: _Spelled, *, is_target: bool = False) -> Reading | None:
    values = s.values
    is_number = values.str.contains(_NUMBER)
    n_odd = s.n_known - s.count(is_number)
    if not len(values) or n_odd > 0.05 * s.n_known:
        return None
    n_kinds = int((~is_number).sum())
    if n_odd and (n_kinds > 20 or int(is_number.sum()) <= n_kinds):
        return None
    notes, odd = [], []
    n_missing = s.n_missing + n_odd
    if s.words:
        written = ", ".join(map(repr, s.words))
        what = f"{n_missing - n_odd:,} of {s.n_rows:,} values are missing"
        notes.append(Note(s.name, what, f"{sum(s.words.values())} of them written {written}"))
    if n_odd:
        rows = s.rows_of(values.filter(~is_number))
        odd = list(dict.fromkeys(value for _, value in rows))
        cells = ", ".join(f"row {row}: {value!r}" for row, value in rows[:10])
        what = f"{n_odd:,} of {s.n_rows:,} values are no numbers and count as missing"
        notes.append(Note(s.name, what, cells))
    guess = _number_guess(
        s, values.filter(is_number), n_missing, (*s.words, *s.extra, *odd), is_target=is_target
    )
    if odd or s.extra:
        guess.declare = ColumnSettings(missing=tuple(dict.fromkeys((*s.extra, *odd))))
    if guess.kind == "integer" and guess.low is not None and guess.high is not None:
        is_month = values.filter(is_number).str.contains(r"^(19|20)\d{2}(0[1-9]|1[0-2])$").all()
        is_day = values.filter(is_number).str.contains(r"^(19|20)\d{2}(0[1-9]|1[0-2])[0-3]\d$").all()  # fmt: skip
        if is_month or is_day:
            such = f"such as {values[0]}; taken as a number"
            more = "" if is_month else f", or declare columns: {{{s.name}: {{kind: date, format: '%Y%m%d'}}}}"  # fmt: skip
            notes.append(Note(s.name, f"looks like a {'month' if is_month else 'date'}", such + more))  # fmt: skip
    return Reading(guess, notes)


def _number_guess(
    s: _Spelled,
    values: pl.Series,
    n_missing: int,
    words: tuple[str, ...],
    *,
    is_target: bool = False,
) -> Guess:
    numbers = values.cast(_float(), strict=False).drop_nulls().to_numpy()
    if not len(numbers):
        return Guess(s.name, "number", n_missing, words)
    # Whole numbers with missing ones among them are written 3.0 by tools that know no missing integer.
    may_have_point = bool(n_missing) or is_target
    form = r"^[+-]?\d+(\.0*)?$" if may_have_point else r"^[+-]?\d+$"
    low, high = float(numbers.min()), float(numbers.max())
    is_whole = bool(values.str.contains(form).all()) and max(abs(low), abs(high)) < 2**53
    return Guess(
        s.name, "integer" if is_whole else "number", n_missing, tuple(dict.fromkeys(words)),
        low=low, high=high, n_distinct=len(set(numbers.tolist())),
    )  # fmt: skip


def _amount(s: _Spelled) -> Reading | None:
    amounts = s.values.str.contains(f"^(?:{AMOUNT.pattern})$")
    plain = s.values.str.contains(_NUMBER)
    if not amounts.any() or s.count(amounts | plain) <= 0.5 * s.n_known:
        return None
    row, value = s.known.filter(amounts)[["row", "value"]].row(0)
    problem = (
        f"{s.name} is written as amounts (row {row}: {value!r}), which could be read in two ways. "
        "Write plain numbers: 12.5 or 1234, no signs, no thousands."
    )
    return Reading(Guess(s.name, "number", s.n_missing), problem=problem)


def _boolean(s: _Spelled) -> Reading | None:
    lower = set(s.values.str.to_lowercase())
    if lower != {"true", "false"}:
        return None
    # Of several spellings the most usual one is the file's.
    usual = s.known.sort("n", descending=True)["value"].to_list()
    spellings = tuple(next(v for v in usual if v.lower() == word) for word in ("false", "true"))
    notes = []
    if s.n_missing:
        notes.append(Note(s.name, f"{s.n_missing} of {s.n_rows} values are missing"))
    guess = Guess(s.name, "boolean", s.n_missing, tuple(s.words), spellings, n_distinct=2)
    return Reading(guess, notes)


def _category(s: _Spelled, *, is_target: bool = False) -> Reading:
    # Padding belongs to a value as the file spells it; only a blank is missing.
    levels = s.column.filter(s.stripped.is_not_null()).unique().sort().to_list()
    words = [w for w in s.all["value"].to_list() if w in s.extra]
    notes = []
    n_missing = s.n_rows - int(s.all["n"].sum())
    if words:
        levels = [v for v in levels if v.strip() not in s.extra]
        n_missing = s.n_rows - int(s.all.filter(~s.all["value"].is_in(words))["n"].sum())
    elif s.words and not is_target and len(s.values) <= 200:
        for word, n in s.words.items():
            notes.append(Note(s.name, f"{word!r} is a level of its own ({n} rows), not a missing value"))  # fmt: skip
    if len(levels) == 1 and n_missing and not is_target:
        what = f"{levels[0]!r} or blank: a blank counts as missing, which the model sees as a value of its own"
        notes.append(Note(s.name, what, f"{n_missing} of {s.n_rows} rows are blank"))
    guess = Guess(
        s.name, "category", n_missing, tuple(words), tuple(levels), n_distinct=len(levels)
    )
    if words:
        guess.declare = ColumnSettings(missing=tuple(words))
    return Reading(guess, notes)


# ---- dates ---------------------------------------------------------------------------------------


def moment(text: str, format: str = "") -> datetime:
    """The date a text names, as the model server reads it: the format first, then ISO 8601; without an offset it is UTC.

    Raises:
        ValueError: it is neither.
    """
    when = None
    if format:
        with contextlib.suppress(ValueError):
            when = datetime.strptime(text, format)  # noqa: DTZ007
    when = when or datetime.fromisoformat(text.strip())
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def moments(values: pl.Series, format: str = "") -> dict[str, datetime]:
    """Each distinct text that names a date, with the date."""
    found: dict[str, datetime] = {}
    for text in values.drop_nulls().unique().to_list():
        try:
            found[text] = moment(text, format)
        except (ValueError, OverflowError):
            continue
    return found


def _date(s: _Spelled) -> Reading | None:
    values = s.values
    like = values.str.contains(_DATE_LIKE) if len(values) else None
    if like is None or s.count(like) < 0.9 * s.n_known:
        return None
    words = (*s.words, *s.extra)
    fitting: list[tuple[str, dict[str, datetime]]] = []
    best: tuple[int, str, dict[str, datetime]] = (0, "", {})
    for form in ("", *DATE_FORMATS):
        found = moments(values.head(50), form)
        if not found:
            continue
        found = moments(values, form)
        if len(found) == len(values):
            fitting.append((form, found))
            if not form:
                break
        best = max(best, (len(found), form, found), key=lambda b: b[0])
    if not fitting:
        odd = values.filter(~values.is_in(list(best[2])))
        row, value = s.rows_of(odd)[0]
        why = f"its dates are not all in one form: row {row} has {value!r}, most others look like {best[1] or 'ISO 8601'}"
        guess = Guess(s.name, "category", s.n_missing, words, excluded=why, n_distinct=len(values))
        return Reading(guess, [Note(s.name, "left out", why)])
    form, found = fitting[0]
    guess = Guess(s.name, "date", s.n_missing, words, format=form, n_distinct=len(values))
    guess.declare = ColumnSettings("date", form, words) if form or words else None
    if len(fitting) > 1 and form.startswith(("%d/", "%d-")):
        guess.excluded = (
            "day and month could be swapped in every row; declare columns: "
            f"{{{s.name}: {{kind: date, format: '%d/%m/%Y'}}}} or '%m/%d/%Y'"
        )
        guess.declare = None
        return Reading(guess, [Note(s.name, "left out", guess.excluded)])
    order = {"": "ISO 8601", "%d": "day first in all rows", "%m": "month first in all rows"}
    said = order.get(form[:2], form)
    span = f"{min(found.values()):%Y-%m-%d} to {max(found.values()):%Y-%m-%d}"
    gone = f", {s.n_missing} missing" if s.n_missing else ""
    return Reading(guess, [Note(s.name, "a date", f"{said}, {span}{gone}; its parts are features")])


# ---- as declared ---------------------------------------------------------------------------------


def _as_declared(s: _Spelled, declared: ColumnSettings, *, is_target: bool) -> Reading:
    words = tuple(dict.fromkeys((*s.words, *s.extra)))
    if declared.kind in ("number", "integer"):
        is_number = s.values.str.contains(_NUMBER)
        numbers = s.values.filter(is_number)
        finite = numbers.filter((numbers.cast(_float(), strict=False).abs() <= LARGEST).fill_null(False))  # fmt: skip
        n_missing = s.n_rows - s.count(s.values.is_in(finite.to_list()))
        guess = _number_guess(s, finite, n_missing, words)
        guess.kind = declared.kind
    elif declared.kind == "date":
        found = moments(s.values, declared.format)
        n_missing = s.n_rows - s.count(s.values.is_in(list(found)))
        guess = Guess(s.name, "date", n_missing, words, format=declared.format, n_distinct=len(found))  # fmt: skip
    elif declared.kind == "boolean":
        reading = _boolean(s)
        n_missing = s.n_rows - s.count(s.values.str.to_lowercase().is_in(["true", "false"]))
        guess = reading.guess if reading else Guess(s.name, "boolean", n_missing, words)
    else:
        guess = _category(s, is_target=is_target).guess
    guess.declare = declared
    return Reading(guess)


def _float() -> Any:
    import polars as pl

    return pl.Float64
