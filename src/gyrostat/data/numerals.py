"""How a column writes its numbers: decimal and thousands signs, a unit, brackets for what is below zero."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""A number as this house writes it."""
IS_NUMBER = f"^(?:{NUMBER.pattern})$"
LARGEST = 3.4028235e38
"""What the model server answers at most: beyond it a 32-bit number is infinite."""
MAX_ODD = 0.05
"""At most this share of a column's values may be something else than what it is taken for."""
MAX_ODD_KINDS = 20
"""And at most so many different ones: more are a language of their own."""
_SYMBOLS = "₩￦$€£¥￥₹₽₺₫฿₴₪₱₦₡₲₵₸"
_CODES = (
    "KRW", "USD", "EUR", "GBP", "JPY", "CNY", "CHF", "CAD", "AUD", "NZD", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "INR", "BRL",
    "MXN", "ZAR", "SGD", "HKD", "TWD", "THB", "TRY", "RUB", "US$", "R$", "A$", "C$", "NT$", "HK$", "Rp", "RM", "Fr.", "kr", "zł", "원", "円", "元",
)  # fmt: skip
PER_CENT = ("%", "％")
_SPACES = " \u00a0\u2009\u202f"
_SIGN = "[+\\-\u2212]"
_FORM = re.compile(r"(\D*?)1([^\d]?)234(?:([.,])5)?(\D*)")
_BEFORE = "|".join(re.escape(u) for u in (*sorted(_CODES, key=len, reverse=True), *_SYMBOLS))
_AFTER = r"[^\s0-9.,()+\-'’\u2212]{1,8}"
_ANY = (
    rf"^\(?\s*{_SIGN}?\s*({_BEFORE})?\s*{_SIGN}?\s*"
    rf"((?:[0-9]|[.,][0-9])[0-9.,'’{_SPACES}]*?(?:[eE][+-]?[0-9]+)?)\s*({_AFTER})?\s*\)?\s*[\-\u2212]?$"
)


@dataclass(frozen=True)
class NumberFormat:
    """A way to write numbers; as text it is how 1234.5 looks in it."""

    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    is_before: bool = False
    """Whether the unit stands before the number."""

    def __str__(self) -> str:
        number = f"1{self.thousands}234{self.decimal}5"
        return f"{self.unit}{number}" if self.is_before else f"{number}{self.unit}"

    @property
    def is_plain(self) -> bool:
        """Whether it is how this house writes numbers."""
        return not self.unit and not self.thousands and self.decimal == "."


PLAIN = NumberFormat()


def parse(text: str) -> NumberFormat:
    """Read what `str` of a format writes: `1.234,5`, `₩1,234`, `1234.5 kg`.

    Raises:
        ValueError: it is no such pattern.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None or (found[1].strip() and found[4].strip()) or found[2] == (found[3] or " x"):
        raise ValueError(f"{text!r} does not show how 1234.5 is written, as in 1.234,5 or ₩1,234")
    before, thousands, decimal, after = found.groups()
    if decimal is None:
        decimal = "," if thousands == "." else "."
    return NumberFormat(decimal, thousands, before.strip() or after.strip(), bool(before.strip()))


def _body(form: NumberFormat) -> str:
    """A pattern of the digits and their signs."""
    fraction = f"{re.escape(form.decimal)}[0-9]"
    some = rf"[0-9]+(?:{fraction}*)?(?:[eE][+-]?[0-9]+)?|{fraction}+(?:[eE][+-]?[0-9]+)?"
    if not form.thousands:
        return some
    mark = f"[{_SPACES}]" if form.thousands == " " else "['’]" if form.thousands == "'" else re.escape(form.thousands)  # fmt: skip
    groups = rf"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+(?:{fraction}*)?"
    if form.thousands == ",":
        groups += rf"|[1-9][0-9]?(?:,[0-9]{{2}})+,[0-9]{{3}}(?:{fraction}*)?"
    return f"{groups}|{some}"


def _pattern(form: NumberFormat) -> str:
    unit = re.escape(form.unit)
    # A share without its sign could be meant as 0 to 1.
    unit = rf"(?:{unit})" if form.unit in PER_CENT else rf"(?:{unit})?"
    before, after = (unit, "") if form.is_before else ("", unit)
    return rf"^(\()?\s*({_SIGN})?\s*{before}\s*({_SIGN})?\s*({_body(form)})\s*{after}\s*(\))?\s*([\-\u2212])?$"


def plain(column: pl.Series, form: NumberFormat) -> pl.Series:
    """Numbers of this form as this house writes them; what is none stays as it is, without padding."""
    import polars as pl

    texts = column.str.strip_chars()
    if form.is_plain:
        rare = texts.str.contains("[()\u2212]|-$")
        if not rare.any():
            return texts
    pattern = _pattern(form)
    opens, sign, second, number, closes, trailing = (texts.str.extract(pattern, n) for n in range(1, 7))  # fmt: skip
    is_one = number.is_not_null() & (opens.is_null() == closes.is_null())
    minus = ["-", "\u2212"]
    marks = [s.is_in(minus).fill_null(False) for s in (sign, second, trailing)]
    is_one = is_one & (opens.is_not_null().cast(pl.Int8) + sum(m.cast(pl.Int8) for m in marks) <= 1)
    if form.thousands:
        gone = f"[{_SPACES}]" if form.thousands == " " else "['’]" if form.thousands == "'" else re.escape(form.thousands)  # fmt: skip
        number = number.str.replace_all(gone, "")
    if form.decimal != ".":
        number = number.str.replace(form.decimal, ".", literal=True)
    is_negative = opens.is_not_null() | marks[0] | marks[1] | marks[2]
    frame = pl.DataFrame({"text": texts, "number": number, "one": is_one.fill_null(False), "below": is_negative})  # fmt: skip
    signed = pl.when(pl.col("below")).then("-" + pl.col("number")).otherwise(pl.col("number"))
    made = frame.select(pl.when(pl.col("one")).then(signed).otherwise(pl.col("text")))
    return made.to_series().rename(column.name)


@dataclass(frozen=True)
class Recognised:
    """The form that fits a column best, or why none does."""

    form: NumberFormat | None
    is_clear: bool = False
    """Whether no other form would read it as well: a witness for the rest of the table."""
    why_not: str = ""


def recognise(values: pl.Series, counts: pl.Series, table: NumberFormat = PLAIN) -> Recognised:
    """How these distinct texts write numbers, if at least 95 % of the rows do.

    Args:
        counts: in how many rows each stands.
        table: how the rest of the table writes them, for what could be read in two ways (`1,234`).
    """
    import polars as pl

    total = int(counts.sum() or 0)
    if not total or int((~values.head(10 * MAX_ODD_KINDS).str.contains(_ANY)).sum()) > MAX_ODD_KINDS:  # fmt: skip
        return Recognised(None)
    frame = pl.DataFrame({"text": values, "n": counts}).with_columns(
        before=pl.col("text").str.extract(_ANY, 1),
        number=pl.col("text").str.extract(_ANY, 2).str.strip_chars(),
        after=pl.col("text").str.extract(_ANY, 3),
    )
    frame = frame.filter(pl.col("number").is_not_null())
    if int(frame["n"].sum() or 0) < (1 - MAX_ODD) * total:
        return Recognised(None)
    units = {u for u in (*frame["before"].unique().to_list(), *frame["after"].unique().to_list()) if u}  # fmt: skip
    if len(units) > 1:
        listed = " and ".join(repr(u) for u in sorted(units)[:3])
        few = units <= {*_SYMBOLS, *_CODES, *PER_CENT}
        why = f"its numbers are in {listed}, which are not the same thing" if few else ""
        return Recognised(None, why_not=why)
    unit = next(iter(units), "")
    is_before = unit != "" and bool(frame["before"].is_not_null().any())
    if is_before and frame["after"].is_not_null().any():
        return Recognised(None)
    if unit:
        having = int(frame.filter(pl.coalesce("before", "after").is_not_null())["n"].sum())
        is_free = is_before or unit in (*_SYMBOLS, *_CODES)
        if not is_free and having < (1 - MAX_ODD) * total:
            why = "only some of its values have the sign %" if unit in PER_CENT else ""
            return Recognised(None, why_not=why)
    numbers, n = frame["number"], frame["n"]
    fits: list[tuple[int, NumberFormat]] = []
    has_mark = {m for m in ",'’ \u00a0\u2009\u202f" if numbers.str.contains(m, literal=True).any()}
    for decimal, thousands in _candidates(has_mark):
        form = NumberFormat(decimal, thousands, unit, is_before)
        is_one = numbers.str.contains(f"^(?:{_body(form)})$")
        fits.append((int(n.filter(is_one).sum() or 0), form))
    best = max(count for count, _ in fits)
    if best < (1 - MAX_ODD) * total:
        return Recognised(None)
    good = [form for count, form in fits if count == best]
    chosen = next((f for f in good if (f.decimal, f.thousands) == (table.decimal, table.thousands)), None)  # fmt: skip
    chosen = chosen or next((f for f in good if f.decimal == table.decimal), good[0])
    return Recognised(chosen, len({f.decimal for f in good}) == 1)


def _candidates(marks: Iterable[str]) -> list[tuple[str, str]]:
    """The simplest first."""
    found = [(".", "")]
    if "," in marks:
        found += [(".", ","), (",", "")]
    found += [(",", ".")]
    if any(m in _SPACES for m in marks):
        found += [(".", " "), (",", " ")]
    if any(m in "'’" for m in marks):
        found += [(".", "'"), (",", "'")]
    return found
