"""What one column of texts is: its kind, what is missing in it, and how its values are spelled."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gyrostat.data import dates, numerals
from gyrostat.data.dates import moment, moments
from gyrostat.data.names import quoted, shown
from gyrostat.data.numerals import LARGEST, MAX_ODD, MAX_ODD_KINDS, NUMBER, PLAIN, NumberFormat
from gyrostat.data.personal import masked
from gyrostat.data.settings import ColumnSettings

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "INTEGER", "LARGEST", "MISSING_WORDS", "NUMBER", "Guess", "Note", "Reading", "format_of", "moment", "moments", "read_column", "truth", "truths",
]  # fmt: skip

MISSING_WORDS = frozenset(
    {"na", "n/a", "nan", "none", "null", "-", "--", "?", "#n/a", "n.a.", "nil", "<na>", "nat", "—", "–", "#value!", "#div/0!", "#ref!", "\\n"}
)  # fmt: skip
"""Lower case. In numbers, dates and booleans these stand for a missing value; in a category they are levels."""
INTEGER = re.compile(r"[+-]?[0-9]+")
MAX_ROWS_SHOWN = 10
MAX_LEVELS = 10_000
_MANY = 100_000
_NINES = {9.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0}
TRUTHS = (
    ("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"), ("아니오", "예"), ("아니요", "예"), ("아니오", "네"), ("아니요", "네"),
    ("거짓", "참"), ("무", "유"), ("nein", "ja"), ("non", "oui"), ("falsch", "wahr"), ("faux", "vrai"), ("não", "sim"), ("いいえ", "はい"), ("否", "是"),
)  # fmt: skip
"""Pairs of words for false and true, in lower case."""
_TRUTH = {**{f: False for f, _ in TRUTHS}, **{t: True for _, t in TRUTHS}}
_INFINITE = r"(?i)^[+-]?(?:inf(?:inity)?|∞)$"


@dataclass(frozen=True)
class Note:
    """One finding: about which column (empty: the table), what, and why."""

    column: str
    what: str
    why: str = ""
    rows: tuple[int, ...] = ()
    """Rows that show it, counted from 1; at most some of them."""
    do: str = ""
    """What a person can do about it."""

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
    """A date's form (empty: ISO 8601), or how numbers are written (empty: as 1234.5)."""
    low: float | None = None
    high: float | None = None
    excluded: str = ""
    """Why it is no feature; empty: it is one."""
    is_personal: bool = False
    n_distinct: int = 0
    declare: ColumnSettings | None = None
    """What the declaration must say, because the values alone do not."""
    evidence: str = ""
    """Why it is taken for this, with numbers."""
    has_time: bool = False
    """Of a date: whether some values name a time of day."""


@dataclass
class Reading:
    """A guess, what is to be said about it, and what stands in its way."""

    guess: Guess
    notes: list[Note] = field(default_factory=list)
    problem: str = ""


def truth(text: str) -> bool | None:
    """What a word of a boolean column says; None if it is no such word."""
    return _TRUTH.get(text.strip().casefold())


def truths(values: pl.Series, counts: pl.Series | None = None) -> dict[str, bool]:
    """Which of these texts say true and which false, by the pair of words that most rows use; others say neither."""
    rows: dict[str, int] = {}
    for text, n in zip(values, counts if counts is not None else [1] * len(values), strict=True):
        if text is not None and truth(text) is not None:
            rows[text] = rows.get(text, 0) + n
    found = max(
        ({v: truth(v) for v in rows if v.strip().casefold() in pair} for pair in TRUTHS),
        key=lambda same: sum(rows[v] for v in same),
    )
    return {v: bool(side) for v, side in found.items()}


def format_of(text: str, table: NumberFormat = PLAIN) -> NumberFormat:
    """How a declared column writes its numbers; without a word of its own, as the rest of the table."""
    return numerals.parse(text) if text else table


def read_column(
    column: pl.Series, declared: ColumnSettings | None = None, *, is_target: bool = False, table: NumberFormat = PLAIN
) -> Reading:  # fmt: skip
    """Take a column of texts for what it is, or for what is declared.

    Args:
        table: how the rest of the table writes numbers.
    """
    spelled = _Spelled(column, declared, table)
    if declared is not None and declared.kind:
        return _as_declared(spelled, declared, is_target=is_target)
    return (
        _plainly_number(spelled, is_target=is_target)
        or _code(spelled)
        or _number(spelled, is_target=is_target)
        or _boolean(spelled, is_target=is_target)
        or (None if is_target else _date(spelled))
        or _category(spelled, is_target=is_target)
    )


def witness(column: pl.Series) -> NumberFormat | None:
    """How a column writes numbers, where it can be read in one way only."""
    import polars as pl

    head = column.drop_nulls().head(1000)
    if not head.cast(pl.Float64, strict=False).null_count():
        return None
    if not column.str.contains("[0-9],[0-9]").any():
        return None
    spelled = _Spelled(column, None, PLAIN)
    found = numerals.recognise(spelled.values, spelled.known["n"].cast(pl.Int64))
    return found.form if found.is_clear else None


class _Spelled:
    """The distinct texts of a column without padding, each with its count and its first row (from 1)."""

    def __init__(
        self, column: pl.Series, declared: ColumnSettings | None, table: NumberFormat
    ) -> None:
        self.name, self.n_rows, self.column, self.table = column.name, len(column), column, table
        self.extra = frozenset(declared.missing) if declared else frozenset[str]()

    @cached_property
    def stripped(self) -> pl.Series:
        stripped = self.column.str.strip_chars()
        is_blank = stripped == ""
        return stripped.set(is_blank, None) if is_blank.any() else stripped

    @cached_property
    def all(self) -> pl.DataFrame:
        import polars as pl

        return (
            pl.DataFrame({"value": self.stripped})
            .with_row_index("row", 1)
            .group_by("value", maintain_order=True)
            .agg(pl.len().alias("n"), pl.col("row").first())
            .filter(pl.col("value").is_not_null())
        )

    @cached_property
    def _is_word(self) -> pl.Series:
        return self.all["value"].str.to_lowercase().is_in(sorted(MISSING_WORDS)) & ~self._is_extra

    @cached_property
    def _is_extra(self) -> pl.Series:
        return self.all["value"].is_in(sorted(self.extra))

    @cached_property
    def words(self) -> dict[str, int]:
        """The usual words for a missing value that stand here, with their rows."""
        found = self.all.filter(self._is_word)
        return dict(zip(found["value"].to_list(), found["n"].to_list(), strict=True))

    @cached_property
    def known(self) -> pl.DataFrame:
        return self.all.filter(~self._is_word & ~self._is_extra)

    @cached_property
    def n_known(self) -> int:
        return int(self.known["n"].sum())

    @property
    def n_missing(self) -> int:
        return self.n_rows - self.n_known

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


def _cells(rows: list[tuple[int, str]]) -> str:
    """Rows with what stands there, a person's values masked."""
    told = ", ".join(f"row {row}: {quoted(masked(value))}" for row, value in rows[:MAX_ROWS_SHOWN])
    return told + (", ..." if len(rows) > MAX_ROWS_SHOWN else "")


def _first(rows: list[tuple[int, str]]) -> tuple[int, ...]:
    return tuple(row for row, _ in rows[:MAX_ROWS_SHOWN])


# ---- numbers -------------------------------------------------------------------------------------


def _plainly_number(s: _Spelled, *, is_target: bool) -> Reading | None:
    """The usual column of numbers without anything to say, found without looking at each distinct text."""
    import polars as pl

    if s.table.decimal != "." or s.extra:
        return None
    # What is padded is no number to the compiled reader, so here nothing is.
    texts = s.column
    n_missing = texts.null_count()
    if n_missing == len(texts):
        return None
    head = texts.head(2000).drop_nulls().cast(pl.Float64, strict=False)
    if head.null_count():
        return None
    numbers = texts.cast(pl.Float64, strict=False)
    if numbers.null_count() != n_missing or not (numbers.abs() <= LARGEST).all():
        return None
    # Leading zeros, and more digits than a float holds: the slow way finds out.
    if _any(texts, texts.str.len_bytes() >= 16, "[0-9]{16}") or _any(texts, texts.str.starts_with("0") & (texts.str.len_bytes() > 1), "^0[0-9]"):  # fmt: skip
        return None
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    is_whole = _is_whole(texts, low, high, may_have_point=bool(n_missing) or is_target)
    guess = Guess(
        s.name, "integer" if is_whole else "number", n_missing, low=low, high=high, n_distinct=_n_distinct(numbers, is_whole=is_whole),
        evidence=f"all {len(texts) - n_missing:,} values are {'whole ' if is_whole else ''}numbers",
    )  # fmt: skip
    notes = _looks_like_time(s.name, texts.drop_nulls(), guess)
    return Reading(guess, notes + _sentinels(s.name, numbers, guess))


def _n_distinct(numbers: pl.Series, *, is_whole: bool) -> int:
    numbers = numbers.drop_nulls() + 0.0
    if is_whole or len(numbers) < _MANY or numbers.head(1000).n_unique() < 500:
        return numbers.n_unique()
    # Of measurements nobody needs it exactly.
    return min(len(numbers) - 1, int(numbers.approx_n_unique()))  # type: ignore[arg-type]


def _any(texts: pl.Series, where: pl.Series, form: str) -> bool:
    """Whether a text is of this form, looked for only where it can be."""
    return bool(texts.filter(where.fill_null(False)).str.contains(form).any())


def _is_whole(texts: pl.Series, low: float, high: float, *, may_have_point: bool) -> bool:
    # Whole numbers with missing ones among them are written 3.0 by tools that know no missing integer.
    form = r"^[+-]?[0-9]+(\.0*)?$" if may_have_point else r"^[+-]?[0-9]+$"
    if max(abs(low), abs(high)) >= 2**53 or not texts.head(50).str.contains(form).all():
        return False
    return bool(texts.str.contains(form).all())


def _looks_like_time(name: str, values: pl.Series, guess: Guess) -> list[Note]:
    """Whole numbers that could be months, days or seconds since 1970: said, and taken as numbers."""
    if guess.kind != "integer" or guess.low is None or guess.high is None:
        return []
    such = f"such as {values[0]}; taken as a number"
    if guess.low >= 190001 and guess.high <= 210012:
        if values.str.contains(r"^(19|20)[0-9]{2}(0[1-9]|1[0-2])$").all():
            return [Note(name, "looks like a month", such)]
    elif guess.low >= 19000101 and guess.high <= 21001231:
        if values.str.contains(r"^(19|20)[0-9]{2}(0[1-9]|1[0-2])[0-3][0-9]$").all():
            do = f"declare columns: {{{name}: {{kind: date, format: '%Y%m%d'}}}}"
            return [Note(name, "looks like a date", f"{such}, or {do}", do=do)]
    elif guess.n_distinct > 20:
        for unit, scale in (("seconds", 1), ("milliseconds", 1e3), ("microseconds", 1e6)):
            if 6.3e8 * scale <= guess.low and guess.high <= 4.1e9 * scale and re.search(r"(?i)time|date|_at$|^ts$|epoch|stamp", name):  # fmt: skip
                return [Note(name, f"looks like {unit} since 1970", such)]
    return []


def _sentinels(name: str, numbers: pl.Series, guess: Guess) -> list[Note]:
    """A row of nines far from all else, again and again: perhaps a word for nothing. Said, and not taken for it."""
    found = []
    for value in (guess.low, guess.high):
        if value is None or abs(value) not in _NINES:
            continue
        is_it = (numbers == value).fill_null(False)
        rest = numbers.filter(~is_it).drop_nulls()
        if int(is_it.sum()) < 3 or not len(rest):
            continue
        low, high = float(rest.min()), float(rest.max())  # type: ignore[arg-type]
        if min(abs(value - low), abs(value - high)) > high - low:
            rows = tuple(n + 1 for n in is_it.arg_true().head(MAX_ROWS_SHOWN).to_list())
            what = f"{value:.15g} stands in {int(is_it.sum()):,} rows, far from all other values ({low:.6g} to {high:.6g})"
            do = f"if it means nothing, declare columns: {{{shown(name)}: {{missing: ['{value:.15g}']}}}}"
            found.append(Note(name, what, "taken as a number", rows, do))
    return found


def _code(s: _Spelled) -> Reading | None:
    values = s.values
    head = values.head(200).str.contains(r"^[+-]?[0-9]+$")
    if not len(values) or int((~head).sum()) > MAX_ODD_KINDS:
        return None
    whole = values.str.contains(r"^[+-]?[0-9]+$")
    if s.count(whole) < (1 - MAX_ODD) * s.n_known:
        return None
    zeros = values.str.contains(r"^0[0-9]+$")
    digits = values.filter(whole).str.strip_chars("+-")
    # Numbers of 16 digits still fit where they are below 2^53.
    is_long = digits.str.strip_chars_start("0").str.len_chars() > 15
    if zeros.any():
        why = "leading zeros: a code, kept as text"
        row, value = s.known.filter(zeros)[["row", "value"]].row(0)
        seen = f"row {row}: {quoted(masked(value))}"
    elif is_long.any():
        why = "more digits than a number can hold: kept as text"
        seen = f"up to {digits.str.len_chars().max()} digits"
    else:
        return None
    reading = _category(s)
    reading.guess.declare = ColumnSettings(kind="category", missing=tuple(sorted(s.extra)))
    reading.guess.evidence = f"{why}; {seen}"
    reading.notes.insert(0, Note(s.name, "a category", why))
    return reading


def _number(s: _Spelled, *, is_target: bool = False) -> Reading | None:
    import polars as pl

    values, counts = s.values, s.known["n"].cast(pl.Int64)
    if not len(values):
        return None
    is_infinite = values.str.contains(_INFINITE)
    found = numerals.recognise(values.filter(~is_infinite), counts.filter(~is_infinite), s.table)
    if found.form is None:
        return _no_number(s, found.why_not)
    form = found.form
    plain = numerals.plain(values, form)
    is_number = plain.str.contains(numerals.IS_NUMBER).fill_null(False)
    floats = plain.set(~is_number, None).cast(pl.Float64, strict=False)
    is_infinite = is_infinite | (floats.abs() > LARGEST).fill_null(False)
    is_finite = is_number & ~is_infinite
    odd = values.filter(~is_number & ~is_infinite)
    n_odd, n_infinite = s.count(~is_number & ~is_infinite), s.count(is_infinite)
    if n_infinite > MAX_ODD * s.n_known and s.count(is_number | is_infinite) > 0.5 * s.n_known:
        rows = s.rows_of(values.filter(is_infinite))
        listed = ", ".join(str(row) for row in _first(rows)) + (", ..." if len(rows) > MAX_ROWS_SHOWN else "")  # fmt: skip
        problem = (
            f"{shown(s.name)} holds infinity in {len(rows)} rows: {listed}. Write a number, leave it blank, or declare it missing: "
            f"columns: {{{shown(s.name)}: {{missing: [{rows[0][1]}]}}}}."
        )
        return Reading(Guess(s.name, "number", s.n_missing), problem=problem)
    if n_odd > MAX_ODD * s.n_known:
        return None
    if n_odd and (len(odd) > MAX_ODD_KINDS or int(is_finite.sum()) <= len(odd)):
        return None
    if not is_finite.any():
        return None
    n_missing = s.n_missing + n_odd + n_infinite
    notes = _about_form(s, form, plain, is_finite)
    if s.words:
        written = ", ".join(map(repr, s.words))
        what = f"{s.n_missing:,} of {s.n_rows:,} values are missing"
        notes.append(Note(s.name, what, f"{sum(s.words.values())} of them written {written}"))
    words = []
    if n_odd:
        rows = s.rows_of(odd)
        words += dict.fromkeys(value for _, value in rows)
        what = f"{n_odd:,} of {s.n_rows:,} values are no numbers and count as missing"
        notes.append(Note(s.name, what, _cells(rows), _first(rows), "correct them in the file, or leave them"))  # fmt: skip
    if n_infinite:
        rows = s.rows_of(values.filter(is_infinite))
        words += dict.fromkeys(value for _, value in rows)
        times = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
        listed = ", ".join(str(row) for row in _first(rows)) + (", ..." if len(rows) > MAX_ROWS_SHOWN else "")  # fmt: skip
        what = f"holds infinity in {times}: {listed}"
        notes.append(Note(s.name, what, "no model can use it: it counts as missing", _first(rows)))
    guess = _number_guess(
        s, plain.filter(is_finite), n_missing, (*s.words, *s.extra, *words), is_target=is_target
    )
    guess.format = "" if form.is_plain else str(form)
    as_table = replace(s.table, unit="", is_before=False)
    is_as_table = form == as_table or (not form.unit and form.is_plain and s.table.is_plain)
    if words or s.extra or not is_as_table:
        missing = tuple(dict.fromkeys((*s.extra, *words)))
        kind = "" if is_as_table else guess.kind
        guess.declare = ColumnSettings(kind, "" if is_as_table else str(form), missing)
    n_values = s.count(is_finite)
    guess.evidence = f"{n_values:,} of {s.n_rows:,} values are numbers" + (
        "" if form.is_plain else f", 1234.5 written {form}"
    )
    notes += _looks_like_time(s.name, values.filter(is_finite), guess)
    notes += _sentinels(
        s.name, numerals.plain(s.stripped, form).cast(pl.Float64, strict=False), guess
    )
    too_long = plain.filter(is_finite).str.replace(r"[eE].*$", "").str.replace_all("[^0-9]", "").str.strip_chars_start("0").str.len_chars() > 17  # fmt: skip
    if too_long.any():
        row, value = s.known.filter(is_finite).filter(too_long)[["row", "value"]].row(0)
        notes.append(Note(s.name, "has more digits than a 64-bit number holds", f"row {row}: {value}; the model sees them rounded, the table keeps them", (row,)))  # fmt: skip
    return Reading(guess, notes)


def _about_form(s: _Spelled, form: NumberFormat, plain: pl.Series, is_one: pl.Series) -> list[Note]:
    """How its numbers are written, where somebody who sends requests must know."""
    values = s.values
    changed = is_one & (plain != values)
    if not changed.any():
        return []
    brackets = changed & values.str.contains(r"^\(")
    is_usual = (form.decimal, form.thousands) == (s.table.decimal, s.table.thousands)
    if not form.unit and (is_usual or not form.thousands) and not brackets.any():
        return []
    in_what = "per cent" if form.unit in numerals.PER_CENT else form.unit
    signed = plain.str.replace(r"\.$", "")

    def example(mask: pl.Series) -> str:
        place = mask.arg_true()[0]
        return f"{quoted(masked(values[place]))} is {masked(signed[place])}"

    told = [example(changed & ~brackets)] if (changed & ~brackets).any() else []
    if brackets.any():
        told.append(example(brackets))
    return [Note(s.name, f"a number in {in_what}" if in_what else "a number", "; ".join(told) + "; so it is sent in requests")]  # fmt: skip


def _no_number(s: _Spelled, why_not: str) -> Reading | None:
    """None, unless it must be said why a column that looks like numbers is none."""
    if why_not:
        reading = _category(s)
        rows = _first(s.rows_of(s.values.head(3)))
        reading.guess.excluded = why_not
        reading.guess.evidence = why_not
        do = "write it in one unit, or in a column for each"
        return Reading(reading.guess, [Note(s.name, f"left out: {why_not}", "", rows, do)])
    return None


def _number_guess(
    s: _Spelled, values: pl.Series, n_missing: int, words: tuple[str, ...], *, is_target: bool = False
) -> Guess:  # fmt: skip
    import polars as pl

    numbers = values.cast(pl.Float64, strict=False).drop_nulls()
    if not len(numbers):
        return Guess(s.name, "number", n_missing, words)
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    is_whole = _is_whole(values, low, high, may_have_point=bool(n_missing) or is_target)
    return Guess(
        s.name, "integer" if is_whole else "number", n_missing, tuple(dict.fromkeys(words)),
        low=low, high=high, n_distinct=(numbers + 0.0).n_unique(),
    )  # fmt: skip


# ---- words ---------------------------------------------------------------------------------------


def _boolean(s: _Spelled, *, is_target: bool = False) -> Reading | None:
    if not 2 <= len(s.values) <= 6:
        return None
    lower = {v.casefold() for v in s.values.to_list()}
    if not any(lower == set(pair) for pair in TRUTHS):
        return None
    # Answers speak the target's own spelling, so only what JSON calls true and false is a boolean there.
    if lower != {"false", "true"} and (is_target or len(s.values) > 2):
        return None
    # Of several spellings the most usual one is the file's.
    usual = s.known.sort("n", descending=True, maintain_order=True)["value"].to_list()
    spellings = tuple(next(v for v in usual if truth(v) is side) for side in (False, True))
    notes = []
    if s.n_missing:
        notes.append(Note(s.name, f"{s.n_missing:,} of {s.n_rows:,} values are missing"))
    guess = Guess(s.name, "boolean", s.n_missing, tuple(s.words), spellings, n_distinct=2)
    guess.evidence = f"two values, {spellings[0]!r} and {spellings[1]!r}"
    if s.extra:
        guess.declare = ColumnSettings(missing=tuple(sorted(s.extra)))
    return Reading(guess, notes)


def _category(s: _Spelled, *, is_target: bool = False) -> Reading:
    # Padding belongs to a value as the file spells it; only a blank is missing.
    distinct = s.column.filter(s.stripped.is_not_null()).unique()
    n_distinct = len(distinct)
    # So many are no category, whoever reads them: they are counted, not listed.
    levels = distinct.sort().to_list() if n_distinct <= MAX_LEVELS else []
    words = [w for w in s.all["value"].to_list() if w in s.extra]
    notes = []
    n_missing = s.n_rows - int(s.all["n"].sum())
    if words:
        levels = [v for v in levels if v.strip() not in s.extra]
        n_missing = s.n_rows - int(s.all.filter(~s.all["value"].is_in(words))["n"].sum())
    elif s.words and not is_target and len(s.values) <= 200:
        for word, n in s.words.items():
            do = f"if it means nothing, declare columns: {{{shown(s.name)}: {{missing: [{word!r}]}}}}"
            notes.append(Note(s.name, f"{word!r} is a level of its own ({n:,} rows), not a missing value", do=do))  # fmt: skip
    if len(levels) == 1 and n_missing and not is_target:
        what = f"{quoted(masked(levels[0]))} or blank: a blank counts as missing, which the model sees as a value of its own"
        notes.append(Note(s.name, what, f"{n_missing:,} of {s.n_rows:,} rows are blank"))
    if not is_target and 1 < len(levels) <= 200:
        notes += _alike(s.name, levels)
    if not is_target and not words:
        notes += _mostly_numbers(s)
    guess = Guess(
        s.name,
        "category",
        n_missing,
        tuple(words),
        tuple(levels),
        n_distinct=len(levels) or n_distinct,
    )
    guess.evidence = f"{guess.n_distinct:,} different texts in {s.n_rows - n_missing:,} rows"
    if words:
        guess.declare = ColumnSettings(missing=tuple(words))
    return Reading(guess, notes)


def _mostly_numbers(s: _Spelled) -> list[Note]:
    """Numbers with too many words between them to be taken for numbers: said, for it may be meant otherwise."""
    is_number = s.values.str.contains(numerals.IS_NUMBER) & ~s.values.str.contains("^0[0-9]")
    share = s.count(is_number) / max(1, s.n_known)
    if not 0.5 <= share < 1 - MAX_ODD or int(is_number.sum()) < 10:
        return []
    rows = s.rows_of(s.values.filter(~is_number))
    what = f"{100 * share:.0f} % of its values are numbers and {len(rows):,} are not, so it is taken as text"
    do = f"if they mean nothing, declare columns: {{{shown(s.name)}: {{kind: number}}}}"
    return [Note(s.name, what, _cells(rows[:3]), _first(rows), do)]


def word(text: str) -> str:
    """A text without what is no difference between two labels: case, padding and width of blanks."""
    return " ".join(text.split()).casefold()


def _alike(name: str, levels: list[str]) -> list[Note]:
    by_word: dict[str, list[str]] = {}
    for level in levels:
        by_word.setdefault(word(level), []).append(level)
    several = [same for same in by_word.values() if len(same) > 1]
    if not several:
        return []
    listed = ", ".join(" = ".join(quoted(masked(v)) for v in same) for same in several[:3])
    what = f"has {len(levels)} spellings of {len(by_word)} values once spaces and case are ignored"
    return [Note(name, what, f"{listed}; each stays a value of its own", do="write each value one way")]  # fmt: skip


# ---- dates ---------------------------------------------------------------------------------------


def _date(s: _Spelled) -> Reading | None:
    values = s.values
    if not len(values) or not values.head(20).str.contains(dates.LIKE).any():
        return None
    like = values.str.contains(dates.LIKE)
    if s.count(like) < 0.9 * s.n_known:
        return None
    words = (*s.words, *s.extra)
    n_rows = s.known["n"]
    fitting: list[tuple[str, pl.Series]] = []
    best: tuple[int, str, pl.Series] | None = None
    head = values.filter(like).head(50)
    for form in ("", *dates.FORMATS):
        if not moments(head, form) if not form else not _parses(head, form):
            continue
        found = dates.instants(values, form)
        n_found = int(n_rows.filter(found.is_not_null()).sum())
        if found.null_count() == 0:
            fitting.append((form, found))
            if not form:
                break
        if best is None or n_found > best[0]:
            best = (n_found, form, found)
    odd = None
    if not fitting and best is not None and best[0] >= (1 - MAX_ODD) * s.n_known:
        odd = values.filter(best[2].is_null())
        # What is a date in another order is no mistake of typing.
        if len(odd) <= MAX_ODD_KINDS and not any(_is_date(v, best[1]) for v in odd.to_list()):
            fitting.append((best[1], best[2]))
    if not fitting:
        rows = s.rows_of(values.filter(best[2].is_null()) if best else values)
        most = (best[1] or "ISO 8601") if best else "no form that is known"
        why = f"its dates are not all in one form: row {rows[0][0]} has {masked(rows[0][1])!r}, most others look like {most}"
        guess = Guess(s.name, "category", s.n_missing, words, excluded=why, n_distinct=len(values))
        guess.evidence = why
        return Reading(
            guess, [Note(s.name, "left out", why, _first(rows), "write all in one form")]
        )
    form, found = fitting[0]
    notes: list[Note] = []
    n_missing = s.n_missing
    odd_words: tuple[str, ...] = ()
    if odd is not None and len(odd):
        rows = s.rows_of(odd)
        odd_words = tuple(dict.fromkeys(value for _, value in rows))
        n_missing += len(rows)
        notes.append(Note(s.name, f"{len(rows):,} of {s.n_rows:,} values are no dates and count as missing", _cells(rows), _first(rows)))  # fmt: skip
    guess = Guess(s.name, "date", n_missing, (*words, *odd_words), format=form, n_distinct=found.drop_nulls().n_unique())  # fmt: skip
    if form or words or odd_words:
        guess.declare = ColumnSettings("date", form, tuple(dict.fromkeys((*words, *odd_words))))
    others = [f for f, at in fitting[1:] if not (at == found).all()]
    if others and dates.months_and_days_differ(form):
        guess.excluded = (
            "day and month could be swapped in every row; declare columns: "
            f"{{{shown(s.name)}: {{kind: date, format: '{form}'}}}} or '{others[0]}'"
        )
        guess.declare, guess.evidence = None, "day and month could be swapped in every row"
        return Reading(guess, [Note(s.name, "left out", guess.excluded)])
    seconds = found.dt.hour().cast(int) * 3600 + found.dt.minute().cast(int) * 60 + found.dt.second().cast(int)  # fmt: skip
    guess.has_time = bool((seconds.drop_nulls() != 0).any())
    order = {"": "ISO 8601", "%d": "day first in all rows", "%m": "month first in all rows"}
    said = order.get(form[:2], form)
    span = f"{found.min():%Y-%m-%d} to {found.max():%Y-%m-%d}"
    gone = f", {n_missing:,} missing" if n_missing else ""
    zoned = values.str.contains(r"(?:[+-]\d{2}:?\d{2}|Z)$") & values.str.contains(":")
    if zoned.any():
        zones = values.filter(zoned).str.extract(r"([+-]\d{2}:?\d{2}|Z)$").unique().sort().to_list()
        said += f", {len(zones)} offsets ({', '.join(zones[:4])}), one instant a row" if len(zones) > 1 else f", offset {zones[0]}"  # fmt: skip
        if not zoned.all():
            rows = s.rows_of(values.filter(~zoned))
            notes.append(Note(s.name, f"{s.count(~zoned):,} of its times have no offset", "they are taken as UTC", _first(rows)))  # fmt: skip
    guess.evidence = (
        f"{s.count(found.is_not_null()):,} of {s.n_rows:,} values are dates: {said}, {span}"
    )
    return Reading(guess, [Note(s.name, "a date", f"{said}, {span}{gone}; its parts are features"), *notes])  # fmt: skip


def _is_date(text: str, form: str) -> bool:
    """Whether a text that is no date in this form is one in another."""
    one = _series(text)
    return dates.is_swapped(text, form) or any(moments(one, f) for f in ("", *dates.FORMATS))


def _series(text: str) -> pl.Series:
    import polars as pl

    return pl.Series([text])


def _parses(values: pl.Series, form: str) -> bool:
    """Whether any of the texts is in this very form."""
    from datetime import datetime

    for text in values.to_list():
        try:
            datetime.strptime(text, form)  # noqa: DTZ007
        except ValueError:
            continue
        return True
    return False


# ---- as declared ---------------------------------------------------------------------------------


def _as_declared(s: _Spelled, declared: ColumnSettings, *, is_target: bool) -> Reading:
    import polars as pl

    words = tuple(dict.fromkeys((*s.words, *s.extra)))
    if declared.kind in ("number", "integer"):
        form = format_of(declared.format, s.table)
        plain = numerals.plain(s.values, form)
        numbers = plain.filter(plain.str.contains(numerals.IS_NUMBER).fill_null(False))
        finite = numbers.filter((numbers.cast(pl.Float64, strict=False).abs() <= LARGEST).fill_null(False))  # fmt: skip
        n_missing = s.n_rows - s.count(plain.is_in(finite.to_list()))
        guess = _number_guess(s, finite, n_missing, words)
        guess.kind, guess.format = declared.kind, "" if form.is_plain else str(form)
    elif declared.kind == "date":
        found = dates.instants(s.values, declared.format)
        n_missing = s.n_rows - s.count(found.is_not_null())
        guess = Guess(s.name, "date", n_missing, words, format=declared.format, n_distinct=found.drop_nulls().n_unique())  # fmt: skip
        there = found.drop_nulls()
        guess.has_time = bool(((there.dt.hour().cast(int) + there.dt.minute() + there.dt.second()) != 0).any())  # fmt: skip
    elif declared.kind == "boolean":
        reading = _boolean(s)
        said = list(truths(s.known["value"], s.known["n"]))
        n_missing = s.n_rows - s.count(s.values.is_in(said))
        guess = (
            reading.guess if reading else Guess(s.name, "boolean", n_missing, words, _both(said))
        )
    else:
        guess = _category(s, is_target=is_target).guess
    guess.declare = declared
    guess.evidence = f"declared as {declared.kind}"
    return Reading(guess)


def _both(said: list[str]) -> tuple[str, ...]:
    """Both spellings of a boolean of which the table has one now."""
    for one in said:
        for pair in TRUTHS:
            if one.casefold() in pair:
                styled: Any = str.upper if one.isupper() and len(one) > 1 else str.title if one.istitle() else str  # fmt: skip
                return tuple(one if one.casefold() == w else styled(w) for w in pair)
    return ()
