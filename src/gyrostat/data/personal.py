"""What belongs to a person: recognised by its form, never printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

FORMS = {
    "mail addresses": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "phone numbers": r"(?:^|[^\d-])(?:\+\d{1,3}[ -]?)?\(?0?\d{1,3}\)?[ -]\d{3,4}[ -]\d{4}(?:[^\d-]|$)|^01[016-9]\d{7,8}$|^\+\d{9,14}$",
    "resident numbers": r"(?:^|\D)\d{6}-[1-8]\d{6}(?:\D|$)",
    "social security numbers": r"(?:^|[^\d-])\d{3}-\d{2}-\d{4}(?:[^\d-]|$)",
    "card numbers": r"(?:^|\D)\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}(?:\D|$)",
    "bank accounts": r"(?:^|[^A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?(?:[^A-Za-z0-9]|$)",
}
MASK = "***"
_ANY = re.compile("|".join(f"(?:{form})" for form in FORMS.values()))
# Each of the forms has one of these in it, so a column without them need not be searched for all.
_SOME = r"[@+-]|\d \d|^01[016-9]\d{7,8}$|[A-Z]{2}\d{2}"


def found(column: pl.Series) -> tuple[str, int] | None:
    """`(what, in how many rows)` looks like something of a person's; None if nothing does."""
    texts = column.str.strip_chars()
    some = texts.filter(texts.str.contains(_SOME).fill_null(False))
    if not len(some):
        return None
    for what, form in FORMS.items():
        n = int(some.str.contains(form).sum())
        if n:
            return what, n
    return None


def masked(value: str) -> str:
    """The value, or a mask where it looks like something of a person's."""
    return MASK if _ANY.search(value.strip()) else value
