"""Dates and instants: which form a column writes, and the moment that each text names."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_DAYS = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%Y.%m.%d", "%d-%m-%Y", "%m-%d-%Y", "%Y. %m. %d", "%Y. %m. %d.",
    "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%Y년 %m월 %d일",
)  # fmt: skip
FORMATS = (*(day + time for day in _DAYS for time in _TIMES), "%Y-%m", "%Y/%m", "%Y-%m-%d %I:%M %p")
LIKE = (
    r"(?i)^(?:\d{1,4}[-/.]\s?\d{1,2}[-/.]\s?\d{1,4}\.?(?:[T ].*)?|\d{4}[-/]\d{2}|\d{1,2}[ -][a-z]{3,9}\.?[ -]\d{2,4}(?: .*)?"
    r"|[a-z]{3,9}\.? \d{1,2}, ?\d{4}(?: .*)?|\d{4}년 ?\d{1,2}월 ?\d{1,2}일(?: .*)?)$"
)
_MANY = 5000


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


def instants(values: pl.Series, format: str = "") -> pl.Series:
    """For each text its moment in UTC, null where it names none."""
    import polars as pl

    if len(values) > _MANY and (quick := _quickly(values, format)) is not None:
        return quick
    found = moments(values, format)
    texts = pl.Series("text", list(found), dtype=pl.String)
    # Through naive ones, since all are in UTC: a column of aware datetimes is built one by one.
    times = pl.Series("at", [m.replace(tzinfo=None) for m in found.values()], dtype=pl.Datetime("us"))  # fmt: skip
    known = pl.DataFrame([texts, times])
    joined = pl.DataFrame({"text": values}).join(known, on="text", how="left", maintain_order="left")  # fmt: skip
    return joined["at"].rename(values.name)


_ISO = (
    (r"^\d{4}-\d{2}-\d{2}$", "%Y-%m-%d"),
    (r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}$", "%Y-%m-%dT%H:%M:%S"),
    (r"^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}$", "%Y-%m-%d %H:%M:%S"),
)


def _quickly(values: pl.Series, format: str) -> pl.Series | None:
    """The compiled parser where every text is one that it reads as `moment` does; else None."""
    choices = _ISO
    if format:
        numeric = re.sub(r"%[dmHMS]", r"\\d{1,2}", re.escape(format).replace("\\%", "%").replace("%Y", r"\d{4}"))  # fmt: skip
        if "%" in numeric:
            return None
        choices = ((f"^{numeric}$", format),)
    head = values.drop_nulls().head(100)
    for pattern, form in choices:
        if head.str.contains(pattern).all() and values.str.contains(pattern).all():
            return values.str.to_datetime(form, strict=False, time_unit="us")
    return None


def is_swapped(text: str, format: str) -> bool:
    """Whether a text that is no date in this form is one with day and month in the other order."""
    places = {mark: n for n, mark in enumerate(re.findall("%[dmYy]", format or "%Y-%m-%d"))}
    fields = re.match(r"(\d+)\D+(\d+)\D+(\d+)", text.strip())
    if fields is None or not {"%d", "%m"} <= places.keys():
        return False
    day, month = (int(fields[places[mark] + 1]) for mark in ("%d", "%m"))
    return day <= 12 < month <= 31


def months_and_days_differ(format: str) -> bool:
    """Whether the same digits in another order would be another date: with `/` or `-`, day and month may stand either way."""
    return format.startswith(("%d/", "%d-%m", "%m/", "%m-"))
